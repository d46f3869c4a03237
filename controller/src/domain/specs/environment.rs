//! The environment of a workload, as Cloud Foundry composes it.
//!
//! Order, later wins: platform defaults, the platform's variable group, the app's own variables, and last what the
//! platform alone may say (`VCAP_*`, `MEMORY_LIMIT`).

use serde_json::{Map, Value, json};
use slipway_protocol::v1;
use uuid::Uuid;

use super::{AppFacts, BuildFacts, FILE_LIMIT, ProcessFacts, TaskFacts};
use crate::domain::services::vcap;

/// Why a variable is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Belongs to the platform.
    #[error(
        "cannot set {0}: PORT, CF_STACK, and variables beginning with VCAP_ or CF_INSTANCE_ belong to the platform"
    )]
    Reserved(String),
    /// Cannot be the name of a variable.
    #[error("{0:?} cannot be the name of an environment variable: it must not be empty or hold '=' or a NUL")]
    Name(String),
    /// Cannot be the value of a variable.
    #[error("the value of the environment variable {0} must not hold a NUL")]
    Value(String),
}

/// Whether a developer may set this variable to this value.
///
/// # Errors
/// When the name belongs to the platform or cannot be one.
pub fn check_variable(name: &str, value: &str) -> Result<(), VariableError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(VariableError::Name(name.to_owned()));
    }
    let upper = name.to_ascii_uppercase();
    // Only what an instance gets from the platform: other names with CF_ are those of tools (CF_API, CF_USERNAME), and
    // manifests that set them work on Cloud Foundry.
    let ours = ["PORT", "CF_STACK"].contains(&upper.as_str());
    if ours || upper.starts_with("VCAP_") || upper.starts_with("CF_INSTANCE_") {
        return Err(VariableError::Reserved(name.to_owned()));
    }
    if value.contains('\0') {
        return Err(VariableError::Value(name.to_owned()));
    }
    Ok(())
}

/// What `VCAP_APPLICATION` says; the cell adds `host`, `port`, `instance_id` and `instance_index`.
#[must_use]
pub fn vcap_application(
    app: &AppFacts,
    memory_mb: Option<u64>,
    disk_mb: Option<u64>,
    version: Uuid,
) -> Map<String, Value> {
    let mut limits = json!({ "fds": FILE_LIMIT });
    if let Some(memory) = memory_mb {
        limits["mem"] = memory.into();
    }
    if let Some(disk) = disk_mb {
        limits["disk"] = disk.into();
    }
    let value = json!({
        "cf_api": app.api_url,
        "limits": limits,
        "application_id": app.guid,
        "application_name": app.name,
        "application_uris": app.uris,
        "application_version": version,
        "name": app.name,
        "uris": app.uris,
        "version": version,
        "space_id": app.space_guid,
        "space_name": app.space_name,
        "organization_id": app.org_guid,
        "organization_name": app.org_name,
    });
    match value {
        Value::Object(map) => map,
        // The literal above is an object.
        _ => Map::new(),
    }
}

pub(super) fn of_process(app: &AppFacts, process: &ProcessFacts) -> Vec<v1::EnvVar> {
    let mut vcap = vcap_application(app, Some(process.memory_mb), Some(process.disk_mb), process.version);
    vcap.insert("process_id".to_owned(), process.guid.to_string().into());
    vcap.insert("process_type".to_owned(), process.kind.clone().into());
    compose(app, vcap, process.memory_mb)
}

pub(super) fn of_task(app: &AppFacts, task: &TaskFacts) -> Vec<v1::EnvVar> {
    let vcap = vcap_application(app, Some(task.memory_mb), Some(task.disk_mb), task.guid);
    compose(app, vcap, task.memory_mb)
}

pub(super) fn of_build(app: &AppFacts, build: &BuildFacts) -> Vec<v1::EnvVar> {
    let vcap = vcap_application(app, Some(build.memory_mb), Some(build.disk_mb), build.guid);
    compose(app, vcap, build.memory_mb)
}

fn compose(app: &AppFacts, vcap: Map<String, Value>, memory_mb: u64) -> Vec<v1::EnvVar> {
    let mut all: Map<String, Value> = Map::new();
    all.insert("LANG".to_owned(), "en_US.UTF-8".into());
    for (name, value) in app.group_env.iter().chain(&app.user_env) {
        all.insert(name.clone(), value.clone());
    }
    all.insert("VCAP_APPLICATION".to_owned(), Value::Object(vcap).to_string().into());
    all.extend(vcap::variables(&app.services, app.delivery));
    all.insert("MEMORY_LIMIT".to_owned(), format!("{memory_mb}m").into());
    all.into_iter().map(|(name, value)| v1::EnvVar { name, value: as_text(&value) }).collect()
}

/// Environment values are text; anything else is written as JSON, as Cloud Foundry does.
#[must_use]
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_has_the_last_word() {
        let mut app = AppFacts { name: "web".to_owned(), uris: vec!["a.example".to_owned()], ..AppFacts::default() };
        app.group_env.insert("REGION".to_owned(), "north".into());
        app.group_env.insert("LANG".to_owned(), "C".into());
        app.user_env.insert("REGION".to_owned(), "south".into());
        app.user_env.insert("N".to_owned(), 7.into());
        let env = compose(&app, vcap_application(&app, Some(64), None, Uuid::nil()), 64);
        let get =
            |name: &str| env.iter().filter(|var| var.name == name).map(|var| var.value.as_str()).collect::<Vec<_>>();
        assert_eq!(get("REGION"), ["south"]);
        assert_eq!(get("LANG"), ["C"]);
        assert_eq!(get("N"), ["7"]);
        assert_eq!(get("MEMORY_LIMIT"), ["64m"]);
        assert_eq!(get("VCAP_SERVICES"), ["{}"]);
        assert!(get("DATABASE_URL").is_empty());
        let vcap: Value = serde_json::from_str(get("VCAP_APPLICATION")[0]).expect("JSON");
        assert_eq!(vcap["application_uris"][0], "a.example");
        assert_eq!(vcap["limits"]["mem"], 64);
    }

    #[test]
    fn names_of_the_platform_are_refused() {
        for name in ["PORT", "VCAP_SERVICES", "CF_INSTANCE_IP", "cf_stack", "vcap_x", ""] {
            assert!(check_variable(name, "x").is_err(), "{name}");
        }
        assert!(check_variable("A=B", "x").is_err());
        assert!(check_variable("A", "x\0").is_err());
        for name in ["PORTS", "CF_API", "CF_USERNAME", "MY_VCAP_X"] {
            assert_eq!(check_variable(name, "x"), Ok(()));
        }
    }
}
