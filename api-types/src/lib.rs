//! Typed ids, names, sizes and the v3 request and response bodies shared by controller and CLI. No I/O of any kind.
//!
//! Shapes follow the Cloud Foundry v3 API (version 3.211.0); every field of a view is what clients decode, so a change
//! here is a change of the wire.

#![forbid(unsafe_code)]

pub mod common;
pub mod error;
pub mod ids;
pub mod manifest_keys;
pub mod requests;
pub mod time;
pub mod views;

pub use common::{Link, Metadata, MetadataPatch, Page, Pagination, Ref, ToMany, ToOne};
pub use error::{ApiErrorBody, ApiErrorEntry, ErrorCode};
pub use ids::*;
pub use time::Timestamp;

/// The API version that `GET /` advertises; `cf` switches features on by it.
pub const API_VERSION: &str = "3.211.0";
