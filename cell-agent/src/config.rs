//! Configuration of one cell agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use chassis::config::Validate;
use serde::{Deserialize, Serialize};
use slipway_chassis as chassis;
use uuid::Uuid;

/// How routers reach an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advertise {
    /// `advertise_host` : 61000 + slot, translated on the host. For routers on other hosts.
    HostPort,
    /// The instance's own address on the bridge. For a router on the same host.
    Direct,
}

/// What instances may take of what the host has once, so that one tenant does not take it from all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// Megabits a second of one instance, in each direction; 0 = not limited.
    pub bandwidth_mbit: u32,
    /// Connections that one instance may have begun and that are open; 0 = not limited.
    pub connections: u32,
    /// Connections that one instance may begin in a second, over a while; four times as many at once. 0 = not limited.
    pub connections_per_s: u32,
    /// MiB a second that all instances together may read, and write, on the cell's disk; 0 = not limited. They come after the
    /// host's own programs in any case, where the disk's scheduler knows weights.
    pub disk_mib_per_s: u64,
}

impl Default for Shares {
    fn default() -> Self {
        // More than an app needs, less than the table of connections of a small host has for sixty of them.
        Self { bandwidth_mbit: 1000, connections: 4096, connections_per_s: 1000, disk_mib_per_s: 0 }
    }
}

/// Where builds reach the cell's proxy for registries, see [`crate::registries`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryProxyConfig {
    /// The operator's file, which names registries and where their credentials are.
    pub file: PathBuf,
    /// On the bridge's own address.
    #[serde(default = "registry_port")]
    pub port: u16,
}

impl RegistryProxyConfig {
    /// With the usual port.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file, port: registry_port() }
    }
}

/// The one that registries on a machine of their own often have.
fn registry_port() -> u16 {
    4873
}

/// One cell's file. Written by `slipway up`, or by hand on a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// This cell.
    pub id: Uuid,
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Zone label.
    pub zone: String,
    /// Placement tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Isolation segment: this cell runs apps of that segment only. Empty = the shared one.
    #[serde(default)]
    pub isolation_segment: String,
    /// Layers, journal, rings, scratch volumes. Must be on a disk, not in memory.
    pub state_directory: PathBuf,
    /// Sockets, mount points, pid files: short paths, empty after a reboot.
    pub run_directory: PathBuf,
    /// gRPC of the controllers, `127.0.0.1:9443`; all are dialled.
    pub controllers: Vec<SocketAddr>,
    /// Directory with `ca.pem`, `cert.pem`, `key.pem`.
    pub tls_directory: PathBuf,
    /// Where this cell serves logs to controllers. Port 0 = any free one.
    pub query_listen: SocketAddr,
    /// Health and metrics in plain HTTP, for operators: bind it to loopback or to a network of theirs. Absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// How routers reach instances.
    pub advertise: Advertise,
    /// This host's address as routers see it.
    pub advertise_host: IpAddr,
    /// For instances, MiB; 0 = three quarters of the host's.
    #[serde(default)]
    pub memory_mb: u64,
    /// For instances and caches, MiB; 0 = half of what is free.
    #[serde(default)]
    pub disk_mb: u64,
    /// Most instances at once; at most 4,096.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// IPv4 network of the bridge, at least 2 addresses more than `slots`: `10.62.0.0/16`.
    pub network: String,
    /// Distinguishes bridges, cgroups, nft tables and run files of several cells on one kernel. At most 6 characters.
    pub name: String,
    /// Resolvers that instances use; empty = the host's.
    #[serde(default)]
    pub resolvers: Vec<IpAddr>,
    /// Package managers use the host's own client settings while staging (index, proxy, certificates).
    #[serde(default)]
    pub staging_uses_host_settings: bool,
    /// Each instance's log ring, bytes.
    #[serde(default = "default_ring")]
    pub log_ring_bytes: u64,
    /// Unpacked layers and blobs kept for the next start, MiB.
    #[serde(default = "default_cache")]
    pub cache_mb: u64,
    /// What instances may take of what the host has once.
    #[serde(default)]
    pub shares: Shares,
    /// Builds reach registries by this cell; absent = by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<RegistryProxyConfig>,
    /// The bound addresses are written here once the agent serves: `{"query": "…", "admin": "…"}`.
    pub ready_file: Option<PathBuf>,
}

fn default_slots() -> u32 {
    1024
}
fn default_ring() -> u64 {
    4 << 20
}
fn default_cache() -> u64 {
    20 * 1024
}

impl CellConfig {
    /// The bridge's own address; `None` when the network is none.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        self.network.parse().ok().map(gateway)
    }
}

/// The bridge's own address: the first one of its network.
pub(crate) fn gateway(network: ipnet::Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + 1)
}

impl Validate for CellConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.controllers.is_empty() {
            problems.push("controllers: name at least one controller, e.g. [\"127.0.0.1:9443\"]".to_owned());
        }
        if self.slots == 0 || self.slots > 4096 {
            problems.push(format!("slots: {} is not between 1 and 4096", self.slots));
        }
        if self.name.is_empty() || self.name.len() > 6 || !self.name.chars().all(|c| c.is_ascii_alphanumeric()) {
            problems.push(format!("name: {:?} must be 1 to 6 letters or digits", self.name));
        }
        match self.network.parse::<ipnet::Ipv4Net>() {
            Err(_) => problems.push(format!("network: {:?} is not an IPv4 network like 10.62.0.0/16", self.network)),
            Ok(network) if network.hosts().count() < self.slots as usize + 2 => {
                problems.push(format!("network: {network} has too few addresses for {} slots", self.slots));
            }
            Ok(_) => {}
        }
        if self.registries.as_ref().is_some_and(|door| door.port == 0) {
            problems.push("registries.port: 0 is no port; leave it out for 4873".to_owned());
        }
        problems
    }
}
