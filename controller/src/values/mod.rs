//! Values that rules and SQL share: what a list is asked for, what an event says. They know neither.

pub mod app_protocol;
pub mod audit;
pub mod instance_count;
pub mod instance_events;
pub mod list;
pub mod metadata;

pub use instance_count::InstanceCount;
