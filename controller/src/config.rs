//! Configuration of one controller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::config::Validate;
use serde::{Deserialize, Serialize};
use slipway_chassis as chassis;
use uuid::Uuid;

use slipway_placement::planner::Overcommit;

/// One controller's file. Written by `slipway up`, or by hand on a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerConfig {
    /// This controller.
    pub id: Uuid,
    /// The cluster it belongs to; must equal the store's, which it sets on an empty database.
    pub cluster_id: Uuid,
    /// `postgres:///slipway?host=/run/…`.
    pub database_url: String,
    /// The object store when it is a local directory.
    pub blob_directory: PathBuf,
    /// Where `slipway stack build` leaves layers; imported at start and when they change.
    pub layer_directory: Option<PathBuf>,
    /// The API in plain HTTP, for tools on this host: bind it to loopback. Port 0 = any free one.
    pub api_listen: SocketAddr,
    /// For members of the cluster, mutual TLS: gRPC for cells and routers, and the API as routers bring it to their clients.
    pub cluster_listen: SocketAddr,
    /// Health and metrics in plain HTTP, for operators: bind it to loopback or to a network of theirs. Absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// Directory with `ca.pem`, `cert.pem`, `key.pem`.
    pub tls_directory: PathBuf,
    /// 64 hex digits: seals what is secret in the database.
    pub encryption_key_file: PathBuf,
    /// Password of `admin`, applied when that user does not exist yet. Another one is set by writing it beside this
    /// file, with `.new` after the name: the controller that starts next sets it and then puts it here.
    pub admin_password_file: PathBuf,
    /// `slipway.localhost`: the API is `api.` of it, apps get names below it.
    pub system_domain: String,
    /// Default domain of apps; usually the system domain.
    pub app_domain: String,
    /// `http://api.slipway.localhost:8080`-like base when a request does not tell; no trailing slash.
    pub public_url: String,
    /// The bound addresses are written here once both listeners are open: `{"api": "...", "cluster": "...", "admin": "..."}`.
    pub ready_file: Option<PathBuf>,
    /// What syslog drains may be in besides public addresses: networks (`10.8.0.0/16`, `::1/128`) and single ports
    /// (`192.0.2.7:6514`). Developers name the
    /// addresses of drains, and the controller connects to them; so loopback, link-local, private and other special
    /// networks are refused unless they stand here. On a cluster name only networks of log servers, never one of this
    /// platform (cells, controllers, databases). `slipway up` writes the addresses and ports of its router, and the
    /// networks of its `--allow-network`.
    #[serde(default)]
    pub drain_networks: Vec<String>,
    /// Networks of load balancers between clients and routers: `10.0.3.0/24`. An address of theirs in `X-Forwarded-For` is
    /// not the client; the one before it is. Failed logins are counted by address, so name only what writes that header
    /// itself, and name it: otherwise all clients look like one.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Zone label.
    #[serde(default = "default_zone")]
    pub zone: String,
    /// Limits and defaults.
    #[serde(default)]
    pub limits: Limits,
}

fn default_zone() -> String {
    "default".to_owned()
}

/// Limits and defaults; every one has a value that serves a laptop.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Upload of one package, bytes.
    pub max_package_bytes: u64,
    /// All files of one package, unpacked.
    pub max_package_unpacked_bytes: u64,
    /// Entries of one package or droplet.
    pub max_package_files: u64,
    /// Uploads that one controller receives at a time.
    pub uploads_at_once: u64,
    /// Of these, uploads of one organization.
    pub uploads_at_once_per_organization: u64,
    /// Of these, uploads that are judged at a time: each takes a core, and memory for the directory of its archive.
    pub uploads_judged_at_once: u64,
    /// How long an upload waits for a place before it is answered with 503, seconds.
    pub upload_wait_s: u64,
    /// Of the file system of a local object store, the share (of bytes and of inodes) below which uploads are refused, in
    /// per cent, and the least that is kept, MiB. What runs on the same disk goes on.
    pub store_reserve_percent: u64,
    /// See `store_reserve_percent`.
    pub store_reserve_mb: u64,
    /// What one organization may store (packages, droplets and build caches, each counted as if it were there alone), MiB,
    /// unless its quota says otherwise (`apps.total_stored_in_mb`).
    pub stored_mb_per_organization: u64,
    /// Largest disk of one process or task, MiB; of a build too, unless `staging_disk_mb` is more.
    pub maximum_app_disk_mb: u64,
    /// How much of the memory and of the disk of all cells one organization may have while there are others, per cent.
    /// 100 is no limit. It says nothing on a platform with one organization, nor within an isolation segment that only
    /// one may use.
    pub organization_share_percent: u64,
    /// Memory of a new process, MiB.
    pub default_memory_mb: u64,
    /// Memory of `web` by the built-in buildpack that made it, MiB, where nobody has asked for another; the rest gets
    /// `default_memory_mb`.
    pub default_memory_mb_by_buildpack: BTreeMap<String, u64>,
    /// Disk of a new process, MiB.
    pub default_disk_mb: u64,
    /// A staging gets at least this, MiB.
    pub staging_memory_mb: u64,
    /// A staging gets at least this, MiB.
    pub staging_disk_mb: u64,
    /// How long one staging may take, seconds.
    pub staging_timeout_s: u64,
    /// Life of an access token, seconds.
    pub access_token_s: u64,
    /// Life of a refresh token, seconds.
    pub refresh_token_s: u64,
    /// A cell without a session for this long is lost, seconds.
    pub cell_lost_after_s: u64,
    /// A build or task that no cell can take for this long fails, seconds. Shorter fails pushes during the restart of
    /// the only cell; longer keeps a developer waiting for what will not happen.
    pub unplaced_timeout_s: u64,
    /// A build or task fails after waiting this long for room on cells that are full, seconds. Its place in the queue is kept
    /// meanwhile, and the app's log says what it waits for.
    pub room_timeout_s: u64,
    /// How much memory is promised on each cell, in per cent of what it has for instances. More than 100 lets limits add up
    /// to more than there is: most apps use a part of theirs. What all of them use at once is bounded by the cell.
    pub memory_overcommit_percent: u64,
    /// The same of its disk.
    pub disk_overcommit_percent: u64,
    /// A build or task fails after this long when cells are connected and none of them is of the kind that it needs (its
    /// isolation segment), seconds. Shorter than the five seconds within which a cell comes back that lost its controller
    /// fails pushes for a cell that restarts; longer keeps a developer waiting for what only an operator can give.
    pub no_compatible_cell_after_s: u64,
    /// How long a request waits for a connection to the database before it is answered with 503, seconds. Shorter refuses
    /// requests when the database is only busy; longer keeps clients waiting for one that is away.
    pub database_wait_s: u64,
    /// Requests that one user may make in an interval, with the answers and headers of Cloud Foundry's rate limiter; 0 = no
    /// limit. Administrators are not counted. Each controller counts for itself.
    pub requests_per_user: u64,
    /// Such an interval, seconds.
    pub requests_interval_s: u64,
    /// Requests of one user that are worked on at a time, on each controller; more wait for them. A third of the connections to
    /// the database: more would let one user keep the others waiting.
    pub requests_at_once: usize,
    /// Nobody may begin a deployment, as during work on the platform that deployments would disturb. Those that are under
    /// way go on.
    pub temporary_disable_deployments: bool,
}

impl Limits {
    /// How much of what cells have is promised.
    #[must_use]
    pub fn overcommit(&self) -> Overcommit {
        Overcommit { memory_percent: self.memory_overcommit_percent, disk_percent: self.disk_overcommit_percent }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_package_bytes: 1 << 30,
            max_package_unpacked_bytes: 4 << 30,
            max_package_files: 200_000,
            uploads_at_once: 16,
            uploads_at_once_per_organization: 4,
            uploads_judged_at_once: 2,
            upload_wait_s: 30,
            store_reserve_percent: 5,
            store_reserve_mb: 5 * 1024,
            stored_mb_per_organization: 20 * 1024,
            maximum_app_disk_mb: 2048,
            organization_share_percent: 75,
            default_memory_mb: 1024,
            // nginx takes some ten, whatever the site.
            default_memory_mb_by_buildpack: BTreeMap::from([("staticfile_buildpack".to_owned(), 64)]),
            default_disk_mb: 1024,
            staging_memory_mb: 1024,
            staging_disk_mb: 4096,
            staging_timeout_s: 900,
            access_token_s: 600,
            refresh_token_s: 30 * 24 * 3600,
            cell_lost_after_s: 30,
            unplaced_timeout_s: 60,
            room_timeout_s: 600,
            memory_overcommit_percent: 100,
            disk_overcommit_percent: 100,
            no_compatible_cell_after_s: 6,
            database_wait_s: 3,
            requests_per_user: 0,
            requests_interval_s: 3600,
            requests_at_once: 8,
            temporary_disable_deployments: false,
        }
    }
}

impl Validate for ControllerConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.database_url.starts_with("postgres:") && !self.database_url.starts_with("postgresql:") {
            problems.push("database_url: must begin with postgres:".to_owned());
        }
        for (key, domain) in [("system_domain", &self.system_domain), ("app_domain", &self.app_domain)] {
            if domain.is_empty() || domain.starts_with('.') || domain.contains(['/', ':', ' ', '*']) {
                problems.push(format!("{key}: {domain:?} is not a domain name; write it like slipway.localhost"));
            }
        }
        if !self.public_url.starts_with("http://") && !self.public_url.starts_with("https://") {
            problems.push(format!("public_url: {:?} must begin with http:// or https://", self.public_url));
        }
        if self.limits.database_wait_s == 0 {
            problems.push("limits.database_wait_s: 0 refuses every request; write 1 or more seconds".to_owned());
        }
        for (key, percent) in [
            ("memory_overcommit_percent", self.limits.memory_overcommit_percent),
            ("disk_overcommit_percent", self.limits.disk_overcommit_percent),
        ] {
            if !(100..=10_000).contains(&percent) {
                problems.push(format!("limits.{key}: {percent} is not between 100 (no more than there is) and 10000"));
            }
        }
        for network in self.trusted_proxies.iter().filter(|text| text.parse::<ipnet::IpNet>().is_err()) {
            problems.push(format!("trusted_proxies: {network:?} is not a network; write it like 10.0.3.0/24"));
        }
        for (key, value) in [
            ("requests_interval_s", self.limits.requests_interval_s),
            ("requests_at_once", u64::try_from(self.limits.requests_at_once).unwrap_or(u64::MAX)),
        ] {
            if value == 0 {
                problems.push(format!("limits.{key}: 0 refuses every request; write 1 or more"));
            }
        }
        let limits = &self.limits;
        for (key, percent) in [
            ("store_reserve_percent", limits.store_reserve_percent),
            ("organization_share_percent", limits.organization_share_percent),
        ] {
            if percent > 100 {
                problems.push(format!("limits.{key}: {percent} is more than all; write 0 to 100"));
            }
        }
        if limits.maximum_app_disk_mb < limits.default_disk_mb {
            problems.push(format!(
                "limits.maximum_app_disk_mb: {} is less than default_disk_mb, {}; write at least as much",
                limits.maximum_app_disk_mb, limits.default_disk_mb
            ));
        }
        if let Err(network) = slipway_protocol::egress_guard::EgressGuard::new(&self.drain_networks) {
            problems
                .push(format!("drain_networks: {network:?} is not a network or port; write it like 10.8.0.0/16, ::1/128 or 192.0.2.7:6514"));
        }
        problems
    }
}
