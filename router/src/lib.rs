//! Maps host names to live instances and proxies requests to them.
//!
//! * [`table`]: the routing table, a pure value.
//! * [`sync`]: sessions with controllers, the journal, and the swap that puts a table in force.
//! * [`sockets`]: where clients come in; they may outlive the router.
//! * `proxy`: requests, on one runtime per core.
//! * `access_log`, `query`: a line per request, and how controllers read them.
//! * `admin`: readiness and metrics.
//!
//! A router knows neither Postgres nor apps as their owners see them, and goes on with its last table when every
//! controller is gone.

mod access_log;
mod admin;
mod cluster_tls;
pub mod config;
mod heads;
mod keepalive;
mod limits;
mod metrics;
mod proxy;
mod query;
mod run;
pub mod sockets;
pub mod sync;
pub mod table;
mod web_tls;

pub use config::RouterConfig;
pub use proxy::forwarding::{Forwarding, Trust};
pub use run::{RunError, run};
pub use sockets::Inherited;
