//! End-to-end tests and benchmarks over the wire: the real program, a real Postgres, real sandboxes, real sockets.

#![forbid(unsafe_code)]

pub mod api;
pub mod bench;
#[cfg(test)]
mod documents;
pub mod load;
pub mod platform;
pub mod script;
mod wire;

pub use api::Api;
pub use load::{Load, LoadReport};
pub use platform::{Outcome, Platform};
pub use script::ScriptApp;
