//! Flags over manifest, as `cf push` does it.

use serde_norway::{Mapping, Value};

use super::ManifestError;
use crate::args::PushArgs;
use crate::commands::closest;

/// Keeps the apps that are meant: all, or the one named.
pub(super) fn choose(apps: &mut Vec<Mapping>, flags: &PushArgs, file: &str) -> Result<(), ManifestError> {
    match &flags.name {
        Some(name) if apps.len() > 1 => {
            let named = |app: &Mapping| app.get("name").and_then(Value::as_str) == Some(name);
            if !apps.iter().any(named) {
                let names = apps.iter().filter_map(|app| app.get("name").and_then(Value::as_str));
                let meant = closest(name, names).map(str::to_owned);
                return Err(ManifestError::NotInManifest { name: name.clone(), file: file.to_owned(), meant });
            }
            apps.retain(named);
        }
        // A manifest with one app is a template for any name.
        Some(name) => {
            for app in apps.iter_mut() {
                app.insert("name".into(), name.as_str().into());
            }
        }
        None if apps.len() > 1 && flags.has_app_flags() => return Err(ManifestError::SeveralApps),
        None if apps.iter().all(|app| app.is_empty()) => return Err(ManifestError::NoName),
        None => {}
    }
    Ok(())
}

/// Writes the flags into an app.
pub(super) fn flags(app: &mut Mapping, flags: &PushArgs) {
    routes(app, flags);
    if let Some(stack) = &flags.stack {
        app.insert("stack".into(), stack.as_str().into());
    }
    if !flags.buildpacks.is_empty() {
        app.shift_remove("buildpack");
        let detect = flags.buildpacks.iter().all(|name| is_reset(name));
        let names =
            if detect { Vec::new() } else { flags.buildpacks.iter().map(|name| name.as_str().into()).collect() };
        app.insert("buildpacks".into(), Value::Sequence(names));
    }
    let process = web(app);
    if let Some(command) = &flags.command {
        let command = if is_reset(command) { Value::Null } else { command.as_str().into() };
        process.insert("command".into(), command);
    }
    if let Some(instances) = flags.instances {
        process.insert("instances".into(), instances.into());
    }
    if let Some(memory) = &flags.memory {
        process.insert("memory".into(), memory.as_str().into());
    }
    if let Some(disk) = &flags.disk {
        process.shift_remove("disk_quota");
        process.insert("disk-quota".into(), disk.as_str().into());
    }
    if let Some(kind) = flags.health_check_type {
        process.insert("health-check-type".into(), kind.name().into());
    }
    if let Some(endpoint) = &flags.endpoint {
        process.insert("health-check-http-endpoint".into(), endpoint.as_str().into());
    }
    if let Some(timeout) = flags.timeout {
        process.insert("timeout".into(), timeout.into());
    }
}

/// Whether a flag's value asks for the default.
fn is_reset(value: &str) -> bool {
    matches!(value, "null" | "default")
}

/// The place of process flags: the `web` entry of `processes` when there is one, else the app itself.
fn web(app: &mut Mapping) -> &mut Mapping {
    let position = app.get("processes").and_then(Value::as_sequence).and_then(|processes| {
        processes.iter().position(|process| process.get("type").and_then(Value::as_str) == Some("web"))
    });
    match position {
        None => app,
        Some(index) => app["processes"][index]
            .as_mapping_mut()
            .expect("only a mapping has a `type`, and this entry was found by it"),
    }
}

fn routes(app: &mut Mapping, flags: &PushArgs) {
    let is_true = |app: &Mapping, key: &str| app.get(key).and_then(Value::as_bool) == Some(true);
    if flags.no_route {
        app.insert("no-route".into(), true.into());
        for key in ["routes", "random-route", "default-route"] {
            app.shift_remove(key);
        }
    } else if flags.random_route {
        app.insert("random-route".into(), true.into());
    } else {
        let chosen = is_true(app, "no-route")
            || is_true(app, "random-route")
            || app.get("routes").and_then(Value::as_sequence).is_some_and(|routes| !routes.is_empty());
        if !chosen && !app.contains_key("default-route") {
            app.insert("default-route".into(), true.into());
        }
    }
}
