//! Runs workloads in sandboxes on one host. Knows nothing of apps, organizations, routes or Postgres.
//!
//! * [`agent`]: opens what survived, adopts what runs, follows the newest set.
//! * [`reconciler`] and [`instance`]: what the cell does, as pure cores with thin shells.
//! * [`session`], [`controllers`], [`specs`], [`logs`], [`usage`]: what it says and hears.
//! * [`store`], [`cache`]: what it keeps.
//! * [`staging`] runs builds; [`registries`] gets their packages, where the operator has credentials for that.
//! * [`sandbox`]: how a process is contained; the seam is [`sandbox::SandboxRuntime`]. [`sim`] is a simulated one for tests.
//! * [`config`]: the agent's file.

mod admin;
pub mod agent;
pub mod cache;
pub mod config;
pub mod controllers;
pub mod env;
mod host;
pub mod instance;
pub mod logs;
mod members;
pub mod policies;
pub mod reconciler;
pub mod registries;
mod reserve;
pub mod run;
pub mod sandbox;
pub mod services;
pub mod session;
pub mod sim;
pub mod specs;
pub mod staging;
pub mod store;
pub mod usage;
pub mod workload;

pub use agent::{RunError, run_with};
pub use config::CellConfig;
pub use run::{run, teardown};
