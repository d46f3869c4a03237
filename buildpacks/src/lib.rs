//! Turns source into a droplet: detection, plans, the built-in buildpacks and the Cloud Foundry buildpack API.
//!
//! Everything here runs inside the sandbox as `vcap`. [`plan`] is pure: it sees a listing of the source and the catalogue.
//! The built-in buildpacks ([`langs`]) and foreign ones ([`third_party`]) then work on real directories through a
//! [`run::Runner`], which bounds their time and output.

#![forbid(unsafe_code)]

pub mod contract;
pub mod dependency_cache;
pub mod errors;
pub mod kinds;
pub mod langs;
pub mod launch;
pub mod plan;
pub mod procfile;
mod ranges;
mod reason;
pub mod run;
pub mod source;
pub mod start;
pub mod third_party;
pub mod versions;

pub use errors::Problem;
