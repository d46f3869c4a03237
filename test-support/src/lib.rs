//! Databases, their contents, and waiting for tests.

pub mod database;
pub mod dataset;
pub mod wait;

pub use database::TestDatabase;
pub use wait::{PATIENCE, eventually};
