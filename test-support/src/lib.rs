//! Databases, their contents, and waiting for tests.

#![forbid(unsafe_code)]

pub mod database;
pub mod dataset;
pub mod wait;

pub use database::TestDatabase;
pub use wait::{PATIENCE, eventually};
