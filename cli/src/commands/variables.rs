//! `env`, `set-env`, `unset-env`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Session;
use crate::args::{SetEnvArgs, UnsetEnvArgs};
use crate::client::Body;
use crate::error::CliError;

pub(super) async fn env(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
    let all: Value = session.client()?.get(&format!("/v3/apps/{}/env", app.guid)).await?;
    if session.printer.wants_json() {
        return session.printer.json(&all);
    }
    let parts = [
        ("Set by you", "environment_variables"),
        ("Set by the platform for services", "system_env_json"),
        ("Set by the platform", "application_env_json"),
        ("Of the running group", "running_env_json"),
        ("Of the staging group", "staging_env_json"),
    ];
    for (title, key) in parts {
        let Some(variables) = all.get(key).and_then(Value::as_object).filter(|map| !map.is_empty()) else { continue };
        session.printer.data(&format!("{title}:"))?;
        for (name, value) in variables {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
                other => other.to_string(),
            };
            session.printer.data(&format!("  {name}: {value}"))?;
        }
    }
    Ok(())
}

async fn change(session: &Session, app: &str, name: &str, value: Value) -> Result<(), CliError> {
    let mut var = Map::new();
    var.insert(name.to_owned(), value);
    let path = format!("/v3/apps/{app}/environment_variables");
    session.client()?.send(Method::PATCH, &path, Body::Json(json!({ "var": var }))).await?;
    Ok(())
}

pub(super) async fn set(session: &Session, args: SetEnvArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    change(session, &app.guid, &args.variable, args.value.into()).await?;
    session.printer.say(&format!(
        "'{}' is set. It takes effect with `slipway restart {}`; with `restage` if the build needs it.",
        args.variable, app.name
    ));
    Ok(())
}

pub(super) async fn unset(session: &Session, args: UnsetEnvArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let all: Value = session.client()?.get(&format!("/v3/apps/{}/env", app.guid)).await?;
    if all.get("environment_variables").and_then(|set| set.get(&args.variable)).is_none() {
        session.printer.say(&format!("'{}' is not set.", args.variable));
        return Ok(());
    }
    change(session, &app.guid, &args.variable, Value::Null).await?;
    session
        .printer
        .say(&format!("'{}' is removed. It takes effect with `slipway restart {}`.", args.variable, app.name));
    Ok(())
}
