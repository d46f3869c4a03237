//! The manifest that would make an app again as it is: everything that a manifest can say, in Cloud Foundry's order.

use serde_json::{Map, Value, json};

use super::routes::spoken_of;
use crate::context::Context;
use crate::domain::DomainResult;
use crate::domain::apps::environment_of;
use crate::domain::list::ListOptions;
use crate::domain::services::vcap::FEATURES;
use crate::store::apps::AppRow;
use crate::store::list::Visible;
use crate::store::processes::{ProcessRow, processes_of_app_tx};
use crate::store::services::bindings::service_names_of_app_tx;
use crate::store::sidecars::{SidecarRow, sidecars_of_app_tx};

/// The app's entry of a manifest.
///
/// # Errors
/// When the database fails or the variables cannot be opened.
pub async fn entry(context: &Context, app: &AppRow) -> DomainResult<Map<String, Value>> {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(app.name));
    let environment = environment_of(context, app)?;
    put_unless_empty(&mut entry, "env", Value::Object(environment));
    entry.insert("lifecycle".to_owned(), json!(app.lifecycle_type));
    put_unless_empty(&mut entry, "buildpacks", json!(app.lifecycle_buildpacks));
    entry.insert("stack".to_owned(), json!(app.lifecycle_stack));
    let files = context.store.binding_files(app.guid).await?;
    let mut features = Map::new();
    features.insert("ssh".to_owned(), app.ssh_enabled.into());
    features.insert("revisions".to_owned(), app.revisions_enabled.into());
    for (name, _, _) in FEATURES {
        features.insert(name.to_owned(), (files.as_deref() == Some(name)).into());
    }
    entry.insert("features".to_owned(), Value::Object(features));
    let routes = routes(context, app).await?;

    let mut tx = context.store.begin().await?;
    let services: Vec<Value> = service_names_of_app_tx(&mut tx, app.guid)
        .await?
        .into_iter()
        .map(|(name, binding)| match binding {
            None => json!(name),
            Some(binding) => json!({ "name": name, "binding_name": binding }),
        })
        .collect();
    put_unless_empty(&mut entry, "services", json!(services));
    if routes.is_empty() {
        // Without a word about routes a push would give it one.
        entry.insert("no-route".to_owned(), true.into());
    }
    put_unless_empty(&mut entry, "routes", json!(routes));
    let mut metadata = Map::new();
    put_unless_empty(&mut metadata, "labels", app.labels.clone());
    put_unless_empty(&mut metadata, "annotations", app.annotations.clone());
    put_unless_empty(&mut entry, "metadata", Value::Object(metadata));
    let processes: Vec<Value> = processes_of_app_tx(&mut tx, app.guid).await?.into_iter().map(process).collect();
    put_unless_empty(&mut entry, "processes", json!(processes));
    let sidecars: Vec<Value> = sidecars_of_app_tx(&mut tx, app.guid).await?.into_iter().map(sidecar).collect();
    put_unless_empty(&mut entry, "sidecars", json!(sidecars));
    Ok(entry)
}

fn put_unless_empty(map: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if !empty {
        map.insert(key.to_owned(), value);
    }
}

/// By address; an app may be at one address with several types.
async fn routes(context: &Context, app: &AppRow) -> DomainResult<Vec<Value>> {
    let all = ListOptions::everything(5000);
    let (rows, _) = context.store.route_list(&all, &Visible::All, Some(app.guid)).await?;
    let guids: Vec<_> = rows.iter().map(|row| row.guid).collect();
    let destinations = context.store.destinations(&guids).await?;
    let mut routes: Vec<(String, Value)> = Vec::new();
    for row in rows {
        let own = spoken_of(destinations.iter().filter(|to| to.route_guid == row.guid), app.guid);
        let mut route = Map::new();
        route.insert("route".to_owned(), row.url().into());
        if let Some(own) = own {
            route.insert("protocol".to_owned(), json!(own.protocol));
        }
        if let Some(options) = row.options.clone() {
            put_unless_empty(&mut route, "options", options);
        }
        routes.push((row.url(), Value::Object(route)));
    }
    routes.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(routes.into_iter().map(|(_, route)| route).collect())
}

fn process(row: ProcessRow) -> Value {
    let mut process = Map::new();
    process.insert("type".to_owned(), json!(row.kind));
    process.insert("instances".to_owned(), json!(row.instances));
    process.insert("memory".to_owned(), json!(format!("{}M", row.memory_in_mb)));
    process.insert("disk_quota".to_owned(), json!(format!("{}M", row.disk_in_mb)));
    process.insert("log-rate-limit-per-second".to_owned(), rate(row.log_rate_limit));
    if let Some(command) = row.command {
        process.insert("command".to_owned(), command.into());
    }
    for (prefix, check) in [("", &row.health_check), ("readiness-", &row.readiness_health_check)] {
        process.insert(format!("{prefix}health-check-type"), check["type"].clone());
        for (member, key) in [
            ("endpoint", "health-check-http-endpoint"),
            ("invocation_timeout", "health-check-invocation-timeout"),
            ("interval", "health-check-interval"),
        ] {
            let value = &check["data"][member];
            if !value.is_null() {
                process.insert(format!("{prefix}{key}"), value.clone());
            }
        }
    }
    let timeout = &row.health_check["data"]["timeout"];
    if !timeout.is_null() {
        process.insert("timeout".to_owned(), timeout.clone());
    }
    Value::Object(process)
}

/// `-1`, or bytes in the largest unit that says them exactly.
pub(super) fn rate(bytes: i64) -> Value {
    if bytes < 0 {
        return bytes.into();
    }
    let units = [(1_i64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(size, _)| bytes >= *size && bytes % size == 0) {
        Some((size, unit)) => format!("{}{unit}", bytes / size).into(),
        None => format!("{bytes}B").into(),
    }
}

fn sidecar(row: SidecarRow) -> Value {
    let mut sidecar = json!({ "name": row.name, "process_types": row.process_types, "command": row.command });
    if let Some(memory) = row.memory_in_mb {
        sidecar["memory"] = format!("{memory}M").into();
    }
    sidecar
}
