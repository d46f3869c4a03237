//! The members of the API's resources that the commands read; everything else is ignored.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use slipway_api_types::common::{Link, Ref, ToOne};
use slipway_api_types::error::ApiErrorEntry;
use slipway_api_types::views::JobWarning;

use super::ClientError;

/// Decodes a resource of a list.
pub(crate) fn decode<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|source| ClientError::Answer {
        what: format!("GET {what}"),
        status: 200,
        begins: String::new(),
        source: Some(source),
    })
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    pub(crate) pagination: Pagination,
    pub(crate) resources: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Pagination {
    #[serde(default)]
    pub(crate) next: Option<Link>,
}

/// An org, space, domain, stack: anything with a name.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NamedResource {
    pub(crate) guid: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct App {
    pub(crate) guid: String,
    pub(crate) name: String,
    pub(crate) state: String,
}

impl App {
    pub(crate) fn is_started(&self) -> bool {
        self.state == "STARTED"
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) guid: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) instances: u32,
    #[serde(default)]
    pub(crate) memory_in_mb: u64,
    #[serde(default)]
    pub(crate) disk_in_mb: u64,
    /// Not its text in a list.
    #[serde(default)]
    pub(crate) command: Option<String>,
    #[serde(default)]
    pub(crate) health_check: Check,
    #[serde(default)]
    pub(crate) relationships: Map<String, Value>,
    #[serde(default)]
    pub(crate) process_instances: Vec<Stats>,
}

/// How an instance is known to be healthy.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Check {
    /// `port`, `http`, `process`.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
}

impl Process {
    /// Guid of its app.
    pub(crate) fn app(&self) -> Option<&str> {
        self.relationships.get("app")?.pointer("/data/guid")?.as_str()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatsList {
    pub(crate) resources: Vec<Stats>,
}

/// One instance.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stats {
    #[serde(default)]
    pub(crate) index: u32,
    #[serde(default)]
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) uptime: Option<f64>,
    #[serde(default)]
    pub(crate) details: Option<String>,
    /// Crashes in a row, of one that does not run, or only just does.
    #[serde(default)]
    pub(crate) crashes: u64,
    #[serde(default)]
    pub(crate) instance_guid: Option<String>,
    /// Healthy and ready, as its cell sees it.
    #[serde(default)]
    pub(crate) routable: Option<bool>,
    #[serde(default)]
    pub(crate) mem_quota: Option<u64>,
    #[serde(default)]
    pub(crate) disk_quota: Option<u64>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
}

impl Stats {
    /// Whether it crashed, be it that its next start has begun already: the moment between the two is short.
    pub(crate) fn has_crashed(&self) -> bool {
        self.state == "CRASHED" || (self.state == "STARTING" && self.crashes > 0)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub(crate) cpu: f64,
    #[serde(default)]
    pub(crate) mem: u64,
    #[serde(default)]
    pub(crate) disk: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Route {
    pub(crate) guid: String,
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) destinations: Vec<Destination>,
    #[serde(default)]
    pub(crate) relationships: std::collections::BTreeMap<String, ToOne>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Destination {
    #[serde(default)]
    pub(crate) guid: String,
    pub(crate) app: DestinationApp,
    #[serde(default)]
    pub(crate) protocol: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DestinationApp {
    pub(crate) guid: String,
    #[serde(default)]
    pub(crate) process: Option<DestinationProcess>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DestinationProcess {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

impl Destination {
    /// Whether it leads to the web process of an app.
    pub(crate) fn leads_to(&self, app: &str) -> bool {
        self.app.guid == app && self.app.process.as_ref().is_none_or(|process| process.kind == "web")
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) errors: Vec<ApiErrorEntry>,
    #[serde(default)]
    pub(crate) warnings: Vec<JobWarning>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) guid: String,
    #[serde(default)]
    pub(crate) created_at: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) data: Value,
}

impl Build {
    /// What it waits for, in the platform's words.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let details = match self.details.as_ref()? {
            Value::String(text) => text.clone(),
            other => {
                ["message", "reason", "waiting"].iter().find_map(|key| Some(other.get(*key)?.as_str()?.to_owned()))?
            }
        };
        Some(details).filter(|text| !text.is_empty())
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Build {
    pub(crate) guid: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// What a build that has not begun waits for.
    #[serde(default)]
    pub(crate) details: Option<Value>,
    #[serde(default)]
    pub(crate) droplet: Option<Ref>,
    /// Who asked for it.
    #[serde(default)]
    pub(crate) created_by: Creator,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Creator {
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Task {
    pub(crate) guid: String,
    #[serde(default)]
    pub(crate) sequence_id: u64,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) result: Option<TaskResult>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TaskResult {
    #[serde(default)]
    pub(crate) failure_reason: Option<String>,
}

/// A new version on its way to take over.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) guid: String,
    pub(crate) status: DeploymentStatus,
    #[serde(default)]
    pub(crate) strategy: String,
    #[serde(default)]
    pub(crate) new_processes: Vec<DeployedProcess>,
    #[serde(default)]
    pub(crate) metadata: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DeployedProcess {
    pub(crate) guid: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DeploymentStatus {
    #[serde(default)]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) details: Value,
    #[serde(default)]
    pub(crate) canary: Value,
}

impl Deployment {
    /// The step of a canary and how many there are.
    pub(crate) fn step(&self) -> (u64, u64) {
        let number = |key: &str| self.status.canary.pointer(&format!("/steps/{key}")).and_then(Value::as_u64);
        (number("current").unwrap_or(1), number("total").unwrap_or(1))
    }
}

/// A version of an app.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Revision {
    pub(crate) guid: String,
    #[serde(default)]
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default = "yes")]
    pub(crate) deployable: bool,
}

fn yes() -> bool {
    true
}
