//! What the API answers. Shapes: Cloud Foundry v3, see the module documentation of the crate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::common::{Links, Metadata, Ref, ToMany, ToOne};
use crate::time::Timestamp;

/// Defines a view with the members that all resources share.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $name {
            /// Its guid.
            pub guid: String,
            /// When it was made.
            pub created_at: Timestamp,
            /// When it changed last.
            pub updated_at: Timestamp,
            $($(#[$fdoc])* pub $field: $type,)*
            /// Absolute links.
            pub links: Links,
        }
    };
}

view! {
    /// An organization.
    OrganizationView {
        /// Unique, whatever its case.
        name: String,
        /// Only admins may change anything in it.
        suspended: bool,
        /// `quota`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

view! {
    /// A space.
    SpaceView {
        /// Unique in its organization.
        name: String,
        /// As its organization.
        suspended: bool,
        /// `organization`, `quota`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

/// How an app becomes a droplet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// `buildpack`, `cnb` or `docker`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `{"buildpacks": [...], "stack": "..."}` or `{}`.
    pub data: Map<String, Value>,
}

view! {
    /// An app.
    AppView {
        /// Unique in its space.
        name: String,
        /// `STARTED` or `STOPPED`.
        state: String,
        /// Buildpacks and stack.
        lifecycle: Lifecycle,
        /// `space`, `current_droplet`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

/// A health or readiness check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckView {
    /// `port`, `http` or `process`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its settings.
    #[serde(default)]
    pub data: CheckData,
}

/// Settings of a check; seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckData {
    /// How long a start may take.
    #[serde(default)]
    pub timeout: Option<u32>,
    /// How long one check may take.
    #[serde(default)]
    pub invocation_timeout: Option<u32>,
    /// Pause between checks.
    #[serde(default)]
    pub interval: Option<u32>,
    /// Path of an HTTP check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

view! {
    /// A process of an app.
    ProcessView {
        /// `web`, `worker`, …
        #[serde(rename = "type")]
        kind: String,
        /// Start command; masked in lists.
        command: Option<String>,
        /// User inside the sandbox.
        user: String,
        /// Changes whenever its instances must be replaced.
        version: String,
        /// How many are wanted.
        instances: u32,
        /// Per instance.
        memory_in_mb: u64,
        /// Per instance.
        disk_in_mb: u64,
        /// Per instance; -1 = no limit.
        log_rate_limit_in_bytes_per_second: i64,
        /// Liveness.
        health_check: CheckView,
        /// Readiness.
        readiness_health_check: CheckView,
        /// `app`, `revision`.
        relationships: BTreeMap<String, Option<ToOne>>,
        /// Labels and annotations.
        metadata: Metadata,
        /// With `embed=process_instances`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process_instances: Option<Vec<ProcessInstance>>,
    }
}

/// One row of `embed=process_instances`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessInstance {
    /// Which one.
    pub index: u32,
    /// `RUNNING`, `STARTING`, `CRASHED`, `DOWN`.
    pub state: String,
    /// Seconds since the epoch.
    pub since: i64,
    /// Crashes in a row, of one that does not run, or only just does. Not of Cloud Foundry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<u64>,
}

/// `GET /v3/processes/:guid/stats`: not paginated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatsView {
    /// One row per desired instance.
    pub resources: Vec<InstanceStats>,
}

/// One instance. Members that a missing instance does not have are left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InstanceStats {
    /// Process type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    pub index: u32,
    /// `RUNNING`, `STARTING`, `CRASHED`, `DOWN`.
    pub state: String,
    /// Takes traffic.
    pub routable: Option<bool>,
    /// Seconds.
    pub uptime: u64,
    /// Why it is not running, for people.
    pub details: Option<String>,
    /// Crashes in a row, while it starts again or after the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<u64>,
    /// Isolation segment.
    pub isolation_segment: Option<String>,
    /// Its guid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_guid: Option<String>,
    /// Address that routers dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Address inside its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_internal_ip: Option<String>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_ports: Option<Vec<Value>>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_quota: Option<u64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_quota: Option<u64>,
    /// Bytes per second; -1 = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_rate_limit: Option<i64>,
    /// Open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fds_quota: Option<u64>,
    /// What it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<InstanceUsage>,
}

/// What an instance uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceUsage {
    /// When it was measured.
    pub time: Timestamp,
    /// Share of one core, 0..n.
    pub cpu: f64,
    /// Percent of its entitlement.
    pub cpu_entitlement: Option<f64>,
    /// Bytes.
    pub mem: u64,
    /// Bytes.
    pub disk: u64,
    /// Bytes per second.
    pub log_rate: u64,
}

view! {
    /// A package.
    PackageView {
        /// `bits` or `docker`.
        #[serde(rename = "type")]
        kind: String,
        /// `error` and `checksum`, or `image` and `username`.
        data: Map<String, Value>,
        /// `AWAITING_UPLOAD`, `READY`, …
        state: String,
        /// `app`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

view! {
    /// A build.
    BuildView {
        /// `STAGING`, `STAGED`, `FAILED`.
        state: String,
        /// `<id> - <description>` when it failed.
        error: Option<String>,
        /// What is built.
        package: Ref,
        /// What came of it.
        droplet: Option<Ref>,
        /// As asked for.
        lifecycle: Lifecycle,
        /// Floor or the app's own.
        staging_memory_in_mb: u64,
        /// Floor or the app's own.
        staging_disk_in_mb: u64,
        /// -1 = no limit.
        staging_log_rate_limit_bytes_per_second: i64,
        /// `guid`, `name`, `email`.
        created_by: Value,
        /// `app`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

view! {
    /// A droplet.
    DropletView {
        /// `STAGED`, `AWAITING_UPLOAD`, …
        state: String,
        /// Why it failed.
        error: Option<String>,
        /// How it was made.
        lifecycle: Lifecycle,
        /// `{"type": "sha256", "value": "…"}`.
        checksum: Option<Value>,
        /// `[{name, detect_output, buildpack_name, version}]`.
        buildpacks: Option<Vec<Value>>,
        /// The stack it was made on.
        stack: Option<String>,
        /// Docker only.
        image: Option<String>,
        /// Buildpack's own.
        execution_metadata: String,
        /// `{type: command}`.
        process_types: Option<Map<String, Value>>,
        /// `app`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

view! {
    /// A route.
    RouteView {
        /// `http` or `tcp`.
        protocol: String,
        /// Host part, may be empty.
        host: String,
        /// Path part, may be empty.
        path: String,
        /// tcp only.
        port: Option<u32>,
        /// `host.domain/path`, no scheme.
        url: String,
        /// Where it leads.
        destinations: Vec<DestinationView>,
        /// Left out when unset: a null makes the `cf` CLI panic.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        options: Option<Map<String, Value>>,
        /// `space`, `domain`.
        relationships: BTreeMap<String, ToOne>,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

/// One destination of a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationView {
    /// Its guid.
    pub guid: String,
    /// App and process type.
    pub app: DestinationApp,
    /// 1..100, or unset.
    pub weight: Option<u32>,
    /// The app's port, 8080 when unset.
    pub port: Option<u32>,
    /// `http1` or `http2`.
    pub protocol: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
}

/// App and process type of a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationApp {
    /// The app.
    pub guid: String,
    /// The process type.
    pub process: DestinationProcess,
}

/// Process type of a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationProcess {
    /// `web`, …
    #[serde(rename = "type")]
    pub kind: String,
}

view! {
    /// A domain.
    DomainView {
        /// `example.com`.
        name: String,
        /// Only inside the platform.
        internal: bool,
        /// tcp only.
        router_group: Option<Value>,
        /// `["http"]`.
        supported_protocols: Vec<String>,
        /// `organization` (null = shared), `shared_organizations`.
        relationships: DomainRelationships,
        /// Labels and annotations.
        metadata: Metadata,
    }
}

/// Relationships of a domain.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DomainRelationships {
    /// Null data = shared with everybody.
    pub organization: ToOne,
    /// Organizations a private domain is shared with.
    pub shared_organizations: ToMany,
}

/// A job. No metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    /// Its guid.
    pub guid: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// `app.delete`.
    pub operation: String,
    /// `PROCESSING`, `POLLING`, `COMPLETE`, `FAILED`.
    pub state: String,
    /// Not empty when it failed.
    pub errors: Vec<crate::error::ApiErrorEntry>,
    /// Shown to the user.
    pub warnings: Vec<JobWarning>,
    /// Absolute links.
    pub links: Links,
}

/// A warning of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobWarning {
    /// The text.
    pub detail: String,
}

/// An audit or app event. No metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Its guid.
    pub guid: String,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it changed last (never).
    pub updated_at: Timestamp,
    /// `audit.app.create`, `app.crash`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Who did it.
    pub actor: EventParty,
    /// What it was done to.
    pub target: EventParty,
    /// Details; `request`, if there, is an object.
    pub data: Map<String, Value>,
    /// Where.
    pub space: Option<Ref>,
    /// Where.
    pub organization: Option<Ref>,
    /// Absolute links.
    pub links: Links,
}

/// Actor or target of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventParty {
    /// Its guid.
    pub guid: String,
    /// `user`, `app`, `process`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name at that time.
    pub name: String,
}

/// `GET /v3/apps/:guid/env`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppEnvView {
    /// Group `staging`.
    pub staging_env_json: Map<String, Value>,
    /// Group `running`.
    pub running_env_json: Map<String, Value>,
    /// The app's own.
    pub environment_variables: Map<String, Value>,
    /// `VCAP_SERVICES`.
    pub system_env_json: Map<String, Value>,
    /// `VCAP_APPLICATION`.
    pub application_env_json: Map<String, Value>,
}

/// `{"var": {…}}` of environment variables and of variable groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VarView {
    /// Name to value.
    pub var: Map<String, Value>,
    /// Absolute links.
    #[serde(default)]
    pub links: Links,
}
