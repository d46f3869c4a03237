//! From an app's rows to the immutable `WorkloadSpec` that a cell runs.
//!
//! Pure: what the database knows comes in as [`AppFacts`] and its companions (read by `store::specs`), a spec goes out.
//! A spec holds everything but what only the cell knows (`PORT`, `CF_INSTANCE_*`, `INSTANCE_*`, and the members `host`,
//! `port`, `instance_id`, `instance_index` of `VCAP_APPLICATION`). The stack and the runtimes are named by line and
//! resolved to the newest layer here, at each start: that is what lets an operating system or a runtime be patched
//! without staging an app again.

pub mod checks;
pub mod environment;
pub mod layers;

use prost::Message as _;
use serde_json::{Map, Value};
use slipway_api_types::views::CheckView;
use slipway_protocol::{digest, v1};
use uuid::Uuid;

use super::services::vcap::{self, BindingsError, BoundService, Delivery};
pub use layers::{LayerError, LayerRef};

use crate::store::specs::LayerRow;

/// The user every app runs as.
pub const USER: &str = "vcap";
/// The port every app with a port listens on.
pub const DEFAULT_PORT: u32 = 8080;
/// Open files an instance may have.
pub const FILE_LIMIT: u32 = 16_384;

/// What every workload of an app needs to know about it.
#[derive(Clone, Debug, Default)]
pub struct AppFacts {
    /// The app.
    pub guid: Uuid,
    /// Its name.
    pub name: String,
    /// Its space.
    pub space_guid: Uuid,
    /// Its name.
    pub space_name: String,
    /// The space's organization.
    pub org_guid: Uuid,
    /// Its name.
    pub org_name: String,
    /// Stack by name: `debian12`, `cflinuxfs4`.
    pub stack: String,
    /// Addresses of its routes, without a scheme.
    pub uris: Vec<String>,
    /// Set by the developer.
    pub user_env: Map<String, Value>,
    /// The platform's group for this phase (running or staging).
    pub group_env: Map<String, Value>,
    /// Base URL of the API, no trailing slash.
    pub api_url: String,
    /// Bound services, in the order in which they were bound.
    pub services: Vec<BoundService>,
    /// How they are told to the app.
    pub delivery: Delivery,
}

/// Why a spec cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Bindings that cannot be given to the app.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
}

/// The droplet that a process or a task runs.
#[derive(Clone, Debug)]
pub struct DropletFacts {
    /// The archive.
    pub blob: v1::Blob,
    /// Runtime layers it was staged with; resolved again by line.
    pub layers: Vec<LayerRef>,
}

/// The process to start.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// Its guid.
    pub guid: Uuid,
    /// `web`, `worker`, …
    pub kind: String,
    /// Changes with each start.
    pub version: Uuid,
    /// The developer's command, else the droplet's.
    pub command: String,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
    /// Bytes per second, -1 = no limit.
    pub log_rate: i64,
    /// Liveness.
    pub health: CheckView,
    /// Readiness.
    pub readiness: CheckView,
    /// Ports that routes lead to, besides the default one.
    pub route_ports: Vec<u32>,
    /// Programs beside the command.
    pub sidecars: Vec<v1::Sidecar>,
}

/// The task to run.
#[derive(Clone, Debug)]
pub struct TaskFacts {
    /// Its guid.
    pub guid: Uuid,
    /// Its name; part of the source type of its lines.
    pub name: String,
    /// What to run.
    pub command: String,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
    /// Bytes per second, -1 = no limit.
    pub log_rate: i64,
}

/// The build to run.
#[derive(Clone, Debug)]
pub struct BuildFacts {
    /// Its guid.
    pub guid: Uuid,
    /// Source.
    pub package: v1::Blob,
    /// In order of detection, or as asked for.
    pub buildpacks: Vec<v1::BuildpackRef>,
    /// The developer named them.
    pub skip_detect: bool,
    /// The developer's start command of `web`: a program that is built already is known by it.
    pub command: Option<String>,
    /// What the app's last build left.
    pub cache: Option<v1::Blob>,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
    /// Milliseconds.
    pub timeout_ms: u32,
}

/// A spec with its name.
#[derive(Clone, Debug)]
pub struct Composed {
    /// SHA-256 of `body`.
    pub digest: [u8; 32],
    /// The encoded `WorkloadSpec`, never encoded again.
    pub body: Vec<u8>,
    /// The message that was encoded.
    pub spec: v1::WorkloadSpec,
}

impl Composed {
    fn new(spec: v1::WorkloadSpec) -> Self {
        let body = spec.encode_to_vec();
        Self { digest: digest::sha256(&body), body, spec }
    }
}

/// Digests of the blobs that a workload fetches, besides its layers: its droplet, or what a build is made from.
#[must_use]
pub fn blobs(spec: &v1::WorkloadSpec) -> Vec<Vec<u8>> {
    let of_build = spec.build.iter().flat_map(|build| {
        let uploaded = build.buildpacks.iter().filter_map(|buildpack| buildpack.blob.as_ref());
        build.package.iter().chain(&build.cache).chain(uploaded)
    });
    spec.droplet.iter().chain(of_build).map(|blob| blob.digest.to_vec()).collect()
}

/// The spec of one process.
///
/// # Errors
/// When the stack or a runtime line has no layer in the catalogue, or the bindings cannot be given to the app.
pub fn lrp(
    app: &AppFacts,
    droplet: &DropletFacts,
    process: &ProcessFacts,
    catalogue: &[LayerRow],
) -> Result<Composed, SpecError> {
    let ports = ports_of(process);
    let env = environment::of_process(app, process);
    let mut tags = app_tags(app);
    tags.push(pair("process_id", process.guid));
    tags.push(pair("process_type", &process.kind));
    Ok(Composed::new(v1::WorkloadSpec {
        kind: v1::WorkloadKind::Lrp.into(),
        layers: layers::for_running(&app.stack, &droplet.layers, catalogue)?,
        droplet: Some(droplet.blob.clone()),
        command: process.command.clone(),
        env,
        memory_mb: process.memory_mb,
        disk_mb: process.disk_mb,
        log_rate_bytes: rate(process.log_rate),
        health: Some(checks::liveness(&process.health, !ports.is_empty())),
        readiness: checks::readiness(&process.readiness),
        ports,
        log: Some(v1::LogSource {
            source_id: app.guid.to_string(),
            source_type: format!("APP/PROC/{}", process.kind.to_uppercase()),
            tags,
        }),
        stack: app.stack.clone(),
        user: USER.to_owned(),
        nofile: FILE_LIMIT,
        files: vcap::files(&app.services, app.delivery)?,
        sidecars: process.sidecars.clone(),
        ..v1::WorkloadSpec::default()
    }))
}

/// The spec of one task.
///
/// # Errors
/// As [`lrp`].
pub fn task(
    app: &AppFacts,
    droplet: &DropletFacts,
    task: &TaskFacts,
    catalogue: &[LayerRow],
) -> Result<Composed, SpecError> {
    let mut tags = app_tags(app);
    tags.push(pair("task_id", task.guid));
    Ok(Composed::new(v1::WorkloadSpec {
        kind: v1::WorkloadKind::Task.into(),
        layers: layers::for_running(&app.stack, &droplet.layers, catalogue)?,
        droplet: Some(droplet.blob.clone()),
        command: task.command.clone(),
        env: environment::of_task(app, task),
        memory_mb: task.memory_mb,
        disk_mb: task.disk_mb,
        log_rate_bytes: rate(task.log_rate),
        log: Some(v1::LogSource {
            source_id: app.guid.to_string(),
            source_type: format!("APP/TASK/{}", task.name),
            tags,
        }),
        stack: app.stack.clone(),
        user: USER.to_owned(),
        nofile: FILE_LIMIT,
        files: vcap::files(&app.services, app.delivery)?,
        ..v1::WorkloadSpec::default()
    }))
}

/// The spec of one build: stack only; the catalogue is mounted as detection asks for it.
///
/// # Errors
/// As [`lrp`].
pub fn build(app: &AppFacts, build: &BuildFacts, catalogue: &[LayerRow]) -> Result<Composed, SpecError> {
    let mut tags = app_tags(app);
    tags.push(pair("build_id", build.guid));
    Ok(Composed::new(v1::WorkloadSpec {
        kind: v1::WorkloadKind::Build.into(),
        command: build.command.clone().unwrap_or_default(),
        layers: layers::of_stack(&app.stack, catalogue)?,
        env: environment::of_build(app, build),
        memory_mb: build.memory_mb,
        disk_mb: build.disk_mb,
        log: Some(v1::LogSource { source_id: app.guid.to_string(), source_type: "STG".to_owned(), tags }),
        build: Some(v1::BuildSpec {
            package: Some(build.package.clone()),
            buildpacks: build.buildpacks.clone(),
            skip_detect: build.skip_detect,
            catalogue: layers::for_staging(catalogue),
            cache: build.cache.clone(),
            lifecycle: "buildpack".to_owned(),
            timeout_ms: build.timeout_ms,
            max_droplet_bytes: 0,
        }),
        stack: app.stack.clone(),
        user: USER.to_owned(),
        nofile: FILE_LIMIT,
        files: vcap::files(&app.services, app.delivery)?,
        ..v1::WorkloadSpec::default()
    }))
}

/// `web` has a port; so has any process that routes lead to or whose check needs one.
fn ports_of(process: &ProcessFacts) -> Vec<u32> {
    let needs_port = process.kind == "web" || process.health.kind != "process" || !process.route_ports.is_empty();
    if !needs_port {
        return Vec::new();
    }
    let mut ports = vec![DEFAULT_PORT];
    for port in &process.route_ports {
        if !ports.contains(port) {
            ports.push(*port);
        }
    }
    ports
}

fn rate(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(0)
}

fn pair(name: &str, value: impl ToString) -> v1::EnvVar {
    v1::EnvVar { name: name.to_owned(), value: value.to_string() }
}

fn app_tags(app: &AppFacts) -> Vec<v1::EnvVar> {
    vec![
        pair("app_id", app.guid),
        pair("app_name", &app.name),
        pair("space_id", app.space_guid),
        pair("space_name", &app.space_name),
        pair("organization_id", app.org_guid),
        pair("organization_name", &app.org_name),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, line: &str, version: &str, age: i64) -> LayerRow {
        LayerRow {
            digest: digest::sha256(version.as_bytes()).to_vec(),
            blob: vec![1; 32],
            blob_size: 1,
            size: 2,
            kind: kind.to_owned(),
            name: line.split('-').next().unwrap_or(line).to_owned(),
            line: line.to_owned(),
            version: version.to_owned(),
            created_at: chrono::DateTime::from_timestamp(1_000_000 - age, 0).expect("time"),
        }
    }

    fn check(kind: &str) -> CheckView {
        CheckView { kind: kind.to_owned(), data: slipway_api_types::views::CheckData::default() }
    }

    fn process(kind: &str, health: &str) -> ProcessFacts {
        ProcessFacts {
            guid: Uuid::nil(),
            kind: kind.to_owned(),
            version: Uuid::nil(),
            command: "node server.js".to_owned(),
            memory_mb: 64,
            disk_mb: 128,
            log_rate: -1,
            health: check(health),
            readiness: check("process"),
            route_ports: Vec::new(),
            sidecars: Vec::new(),
        }
    }

    #[test]
    fn a_process_gets_the_newest_layers_of_its_lines() {
        let catalogue = [
            layer("stack", "debian12", "12.1", 10),
            layer("stack", "debian12", "12.2", 1),
            layer("compat", "cflinuxfs4", "1", 5),
            layer("runtime", "node-22", "22.1.0", 10),
            layer("runtime", "node-22", "22.2.0", 2),
        ];
        let droplet = DropletFacts {
            blob: v1::Blob::default(),
            layers: vec![LayerRef { line: "node-22".to_owned(), ..LayerRef::default() }],
        };
        let mut app = AppFacts { stack: "cflinuxfs4".to_owned(), ..AppFacts::default() };
        let composed = lrp(&app, &droplet, &process("web", "port"), &catalogue).expect("composed");
        let versions: Vec<&str> = composed.spec.layers.iter().map(|layer| layer.version.as_str()).collect();
        assert_eq!(versions, ["12.2", "1", "22.2.0"]);
        assert_eq!(composed.spec.ports, [8080]);
        assert_eq!(composed.digest, digest::sha256(&composed.body));
        app.stack = "debian12".to_owned();
        let composed = lrp(&app, &droplet, &process("worker", "process"), &catalogue).expect("composed");
        assert!(composed.spec.ports.is_empty(), "a worker has no port");
        assert_eq!(composed.spec.log.expect("log").source_type, "APP/PROC/WORKER");
    }

    #[test]
    fn a_missing_line_is_named() {
        let droplet = DropletFacts {
            blob: v1::Blob::default(),
            layers: vec![LayerRef { line: "node-22".to_owned(), ..LayerRef::default() }],
        };
        let app = AppFacts { stack: "debian12".to_owned(), ..AppFacts::default() };
        let catalogue = [layer("stack", "debian12", "12.1", 0)];
        let error = lrp(&app, &droplet, &process("web", "port"), &catalogue).expect_err("no runtime");
        assert!(error.to_string().contains("node-22"), "{error}");
        let error = lrp(&app, &droplet, &process("web", "port"), &[]).expect_err("no stack");
        assert!(error.to_string().contains("debian12"), "{error}");
    }
}
