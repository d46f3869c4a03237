//! Rules and state machines, free of HTTP and of SQL text.

pub mod app_protocol;
pub mod apps;
pub mod audit;
pub mod builds;
pub mod compose;
pub mod deployments;
pub mod destinations;
pub mod domains;
pub mod droplets;
pub mod environment_groups;
pub mod error;
pub mod lifecycle;
pub mod list;
pub mod manifest;
pub mod metadata;
pub mod names;
pub mod outcomes;
pub mod packages;
pub mod processes;
pub mod quota;
pub mod quota_limits;
pub mod removal;
pub mod revisions;
pub mod route_options;
pub mod route_sharing;
pub mod routes;
pub mod security_groups;
pub mod services;
pub mod sidecars;
pub mod specs;
pub mod stacks;
pub mod start_hint;
pub mod stats;
pub mod stored;
pub mod tasks;

pub use error::{DomainError, DomainResult};
