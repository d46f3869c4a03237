//! Configuration of one router.

use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::config::Validate;
use serde::{Deserialize, Serialize};
use slipway_chassis as chassis;
use slipway_protocol::egress_guard::EgressGuard;
use uuid::Uuid;

use crate::proxy::forwarding::Forwarding;

/// One router's file. Written by `slipway up`, or by hand on a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// This router.
    pub id: Uuid,
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Zone label.
    pub zone: String,
    /// Where end users come in, plain HTTP. Port 0 = any free one.
    pub http_listen: Vec<SocketAddr>,
    /// Where end users come in, HTTPS.
    pub https_listen: Vec<SocketAddr>,
    /// PEM chain of the default certificate.
    pub certificate: Option<PathBuf>,
    /// PEM key of the default certificate.
    pub certificate_key: Option<PathBuf>,
    /// PEM of authorities that route services may have their certificates from, besides those of the host.
    #[serde(default)]
    pub trusted_authorities: Option<PathBuf>,
    /// What route services may be in besides public addresses: networks (`10.8.0.0/16`, `::1/128`) and single ports
    /// (`192.0.2.7:443`). Developers name their
    /// URLs, and the router connects to them; so loopback, link-local, private and other special networks are refused
    /// unless they stand here. On a cluster never name a network of this platform (cells, controllers, databases);
    /// services that run on it are reached by the address and ports at which clients reach the routers. `slipway up`
    /// writes those, and the networks of its `--allow-network`.
    #[serde(default)]
    pub route_service_networks: Vec<String>,
    /// gRPC of the controllers; tried in turn.
    pub controllers: Vec<SocketAddr>,
    /// Directory with `ca.pem`, `cert.pem`, `key.pem`.
    pub tls_directory: PathBuf,
    /// Table, delta journal, access lines.
    pub state_directory: PathBuf,
    /// gRPC for controllers (logs). Port 0 = any free one.
    pub query_listen: SocketAddr,
    /// `/healthz` (readiness), `/metrics`; loopback.
    pub admin_listen: SocketAddr,
    /// Runtimes, one per core; 0 = as many as there are cores.
    #[serde(default)]
    pub cores: usize,
    /// Headers of one request, or of one answer, bytes.
    #[serde(default = "default_header_bytes")]
    pub max_header_bytes: usize,
    /// A backend must begin to answer within this, seconds.
    #[serde(default = "default_response_timeout")]
    pub response_timeout_s: u64,
    /// A client that keeps a request waiting (it does not read its answer, or does not go on with its body) is cut off
    /// after this, seconds. Tunnels, and apps that take their time, have no such limit.
    #[serde(default = "default_client_stall")]
    pub client_stall_timeout_s: u64,
    /// A tunnel (WebSocket) in which nothing is sent for so long is closed, seconds. Who wants to keep one sends pings.
    #[serde(default = "default_tunnel_idle")]
    pub tunnel_idle_timeout_s: u64,
    /// Connections in all, those of clients and those to apps; 0 = what descriptors (nine tenths of the limit) and memory
    /// (64 KiB each, an eighth of the host's) are good for. One app, and one client address, holds at most as many as are
    /// free: who holds most is refused first.
    #[serde(default)]
    pub max_connections: usize,
    /// Requests and tunnels under way at one instance; 0 = no limit. More are sent to other instances, and when all have as
    /// many answered with 503, `X-Cf-RouterError: Connection Limit Reached`.
    #[serde(default = "default_per_endpoint")]
    pub max_connections_per_endpoint: usize,
    /// Networks of the load balancers in front: `10.8.0.0/16`. When it is there, also empty, only they are believed when
    /// they speak for others: `X-Forwarded-*`, `Forwarded`, `X-Real-Ip` and `X-Request-Start` of other clients are taken
    /// away. Without it all are believed, as on Cloud Foundry, but `X-Forwarded-Client-Cert` is taken away from all. A
    /// load balancer named here has no share of the connections that one client may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<Vec<String>>,
    /// Apps are told that every request came by HTTPS: for a load balancer that speaks HTTPS and does not say so.
    #[serde(default)]
    pub force_forwarded_proto_https: bool,
    /// After shutdown is asked for, requests are taken for this long, while load balancers see `/healthz` fail. Milliseconds.
    #[serde(default = "default_drain_delay")]
    pub drain_delay_ms: u64,
    /// Then requests under way may finish within this, seconds.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout_s: u64,
    /// Access lines kept per app, bytes.
    #[serde(default = "default_ring")]
    pub log_ring_bytes: u64,
    /// The bound addresses are written here once all listeners are open:
    /// `{"http": ["…"], "https": ["…"], "query": "…", "admin": "…"}`.
    pub ready_file: Option<PathBuf>,
}

impl RouterConfig {
    /// How many runtimes it will have, on this machine.
    #[must_use]
    pub fn core_count(&self) -> usize {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        }
    }
}

fn default_header_bytes() -> usize {
    1 << 20
}
fn default_response_timeout() -> u64 {
    900
}
fn default_client_stall() -> u64 {
    60
}
fn default_tunnel_idle() -> u64 {
    3600
}
fn default_per_endpoint() -> usize {
    500
}
fn default_drain_delay() -> u64 {
    500
}
fn default_drain_timeout() -> u64 {
    30
}
fn default_ring() -> u64 {
    2 << 20
}

impl Validate for RouterConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.controllers.is_empty() {
            problems.push("controllers: name at least one controller, e.g. [\"127.0.0.1:9443\"]".to_owned());
        }
        if self.http_listen.is_empty() && self.https_listen.is_empty() {
            problems.push("http_listen, https_listen: name at least one address to listen on".to_owned());
        }
        if !self.https_listen.is_empty() && (self.certificate.is_none() || self.certificate_key.is_none()) {
            problems.push("certificate, certificate_key: both are needed for https_listen".to_owned());
        }
        if let Err(network) = EgressGuard::new(&self.route_service_networks) {
            problems.push(format!(
                "route_service_networks: {network:?} is not a network or port; write it like 10.8.0.0/16, ::1/128 or 192.0.2.7:443"
            ));
        }
        if let Err(network) = Forwarding::new(self.trusted_proxies.as_deref(), false) {
            problems
                .push(format!("trusted_proxies: {network:?} is not a network; write it like 10.8.0.0/16 or ::1/128"));
        }
        if self.tunnel_idle_timeout_s == 0 {
            problems.push("tunnel_idle_timeout_s: must be at least 1".to_owned());
        }
        if self.client_stall_timeout_s == 0 {
            problems.push("client_stall_timeout_s: must be at least 1".to_owned());
        }
        problems
    }
}
