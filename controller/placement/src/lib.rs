//! The pure heart of the controller: where instances run, how a version takes over, where requests go.
//!
//! * [`model`]: cells, assignments, observations, plans, as values; [`ChangeKind`]: what a change is about.
//! * [`planner`]: from a snapshot to the changes that bring it to what is wanted.
//! * [`rollout`]: one step of a deployment, from counts.
//! * [`routing_table`]: from rows to routes and pools; [`egress`]: from security groups to policies.
//! * [`PlacementStore`]: the transactions that all of it stands on.
//!
//! Nothing here knows SQL, the time or a runtime: that comes as arguments, or through the trait. The crate depends on none
//! that has them, and its `clippy.toml` forbids the clocks of the standard library.

#![forbid(unsafe_code)]

mod change;
pub mod egress;
#[cfg(feature = "memory")]
pub mod memory;
pub mod model;
pub mod planner;
pub mod rollout;
pub mod routing_table;
mod store;
pub mod system_names;
pub mod wire;

pub use change::ChangeKind;
pub use model::*;
pub use store::{Cause, PLANNER_LEASE, PlacementError, PlacementStore, Result};
