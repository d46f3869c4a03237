//! Application manifests: parsed and checked whole before anything changes, then applied in one transaction.

pub mod apply;
mod bounded;
pub mod diff;
pub mod emit;
pub mod parse;
pub mod routes;
pub mod written;
pub mod yaml;

use serde_json::{Map, Value};
use slipway_api_types::MetadataPatch;

use super::app_protocol::AppProtocol;
use super::apps::{BindingFiles, LifecycleChoice};
use super::processes::Scale;

/// Largest manifest, bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// A manifest that makes sense by itself.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// In their order.
    pub apps: Vec<AppManifest>,
    /// Keys that mean nothing here, for people.
    pub warnings: Vec<String>,
}

/// One app of a manifest; what is `None` or empty stays as it is.
#[derive(Clone, Debug, Default)]
pub struct AppManifest {
    /// Its name.
    pub name: String,
    /// Buildpacks and stack.
    pub lifecycle: LifecycleChoice,
    /// Variables.
    pub env: Map<String, Value>,
    /// Unmap everything.
    pub no_route: bool,
    /// A random one, if the app has none.
    pub random_route: bool,
    /// The usual one, if the app has none.
    pub default_route: bool,
    /// To be there.
    pub routes: Vec<RouteManifest>,
    /// In their order; `web` gathers what stands at the app itself.
    pub processes: Vec<ProcessManifest>,
    /// To be there.
    pub sidecars: Vec<SidecarManifest>,
    /// Labels and annotations.
    pub metadata: Option<MetadataPatch>,
    /// Feature `ssh`.
    pub ssh: Option<bool>,
    /// Feature `revisions`.
    pub revisions: Option<bool>,
    /// Features that give bindings as files.
    pub binding_files: Vec<BindingFiles>,
    /// Service instances to be bound.
    pub services: Vec<ServiceManifest>,
}

/// One service instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceManifest {
    /// The instance's.
    pub name: String,
    /// The binding's.
    pub binding_name: Option<String>,
    /// Whether there are parameters for a broker.
    pub has_parameters: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteManifest {
    /// `host.domain/path`, no scheme.
    pub address: String,
    /// How routers speak with the app there.
    pub protocol: Option<AppProtocol>,
    /// Load balancing.
    pub options: Option<Map<String, Value>>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessManifest {
    /// `web`, …
    pub kind: String,
    /// Figures.
    pub scale: Scale,
    /// `Some(None)` = the droplet's.
    pub command: Option<Option<String>>,
    /// Liveness.
    pub health: CheckManifest,
    /// Readiness.
    pub readiness: CheckManifest,
}

/// A check, member by member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckManifest {
    /// `port`, `http`, `process`.
    pub kind: Option<String>,
    /// Path of an HTTP check.
    pub endpoint: Option<String>,
    /// Seconds a start may take.
    pub timeout: Option<u32>,
    /// Seconds one check may take.
    pub invocation_timeout: Option<u32>,
    /// Seconds between checks.
    pub interval: Option<u32>,
}

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarManifest {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub command: String,
    /// Beside these processes.
    pub process_types: Vec<String>,
    /// MiB.
    pub memory_mb: Option<i64>,
}
