//! Desired state, the v3 API, the planner and the streams to cells and routers.
//!
//! Layers, from the outside in: [`api`] parses, authorises and presents (no SQL); [`domain`] has rules and state
//! machines; [`store`] has all SQL (no HTTP). What is pure is the crate `slipway-placement`. [`tasks`] converge, [`jobs`]
//! do payload work, [`cells`] and [`routers`] hold the streams, and [`sessions`] what both
//! have in common.

#![forbid(unsafe_code)]

mod admin;
pub mod admission;
pub mod api;
pub mod auth;
pub mod blobs;
pub mod cells;
pub mod config;
pub mod context;
pub mod domain;
pub mod drains;
pub mod gzip;
pub mod jobs;
pub mod members;
pub mod notifiers;
pub mod reserve;
#[cfg(test)]
mod rooms;
pub mod routers;
pub mod run;
pub mod sessions;
pub mod store;
pub mod tasks;
pub mod values;
pub mod vault;

pub use config::ControllerConfig;
pub use context::Context;
pub use run::{RunError, run};
