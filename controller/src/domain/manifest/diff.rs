//! What applying a manifest would change: the figures and commands of processes, stack, and variables' names.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Manifest;
use crate::context::Context;
use crate::domain::{DomainResult, apps};
use crate::store::apps::app_lock_by_name_tx;
use crate::store::processes::processes_of_app_tx;

/// `[{"op", "path", "was", "value"}]`, as clients print it.
///
/// # Errors
/// When the database fails.
pub async fn diff(context: &Context, space: Uuid, manifest: &Manifest) -> DomainResult<Vec<Value>> {
    let mut tx = context.store.pool().begin().await?;
    let mut entries = Vec::new();
    for (place, wish) in manifest.apps.iter().enumerate() {
        let at = |key: &str| format!("/applications/{place}/{key}");
        let Some(app) = app_lock_by_name_tx(&mut tx, space, &wish.name).await? else {
            entries.push(json!({ "op": "add", "path": at("name"), "value": wish.name }));
            continue;
        };
        if let Some(Some(stack)) = &wish.lifecycle.stack {
            push(&mut entries, at("stack"), json!(app.lifecycle_stack), json!(stack));
        }
        if let Some(buildpacks) = &wish.lifecycle.buildpacks {
            push(&mut entries, at("buildpacks"), json!(app.lifecycle_buildpacks), json!(buildpacks));
        }
        let environment = apps::environment_of(context, &app)?;
        for (name, value) in &wish.env {
            match environment.get(name) {
                None => entries.push(json!({ "op": "add", "path": at(&format!("env/{name}")), "value": value })),
                Some(was) => push(&mut entries, at(&format!("env/{name}")), was.clone(), value.clone()),
            }
        }
        let rows = processes_of_app_tx(&mut tx, app.guid).await?;
        for (number, process) in wish.processes.iter().enumerate() {
            let at = |key: &str| at(&format!("processes/{number}/{key}"));
            let Some(row) = rows.iter().find(|row| row.kind == process.kind) else {
                entries.push(json!({ "op": "add", "path": at("type"), "value": process.kind }));
                continue;
            };
            if let Some(instances) = process.scale.instances {
                push(&mut entries, at("instances"), json!(row.instances), json!(instances));
            }
            if let Some(memory) = process.scale.memory_mb {
                push(&mut entries, at("memory"), megabytes(row.memory_in_mb), megabytes(memory));
            }
            if let Some(disk) = process.scale.disk_mb {
                push(&mut entries, at("disk_quota"), megabytes(row.disk_in_mb), megabytes(disk));
            }
            if let Some(command) = &process.command {
                push(&mut entries, at("command"), json!(row.command), json!(command));
            }
        }
    }
    Ok(entries)
}

fn megabytes(value: i64) -> Value {
    format!("{value}M").into()
}

fn push(entries: &mut Vec<Value>, path: String, was: Value, value: Value) {
    if was != value {
        entries.push(json!({ "op": "replace", "path": path, "was": was, "value": value }));
    }
}
