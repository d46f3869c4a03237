//! `rename`, `set-health-check`, `create-app-manifest`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Session, text};
use crate::args::{HealthCheck, HealthCheckArgs, ManifestArgs, RenameArgs};
use crate::client::views::App;
use crate::client::{Body, ClientError};
use crate::error::CliError;

pub(super) async fn rename(session: &Session, args: RenameArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let body = Body::Json(json!({ "name": args.new }));
    session.client()?.send(Method::PATCH, &format!("/v3/apps/{}", app.guid), body).await?;
    session.printer.say(&format!("'{}' is now called '{}'. Its routes stay as they are.", app.name, args.new));
    Ok(())
}

pub(super) async fn set_health_check(session: &Session, args: HealthCheckArgs) -> Result<(), CliError> {
    if let Some(endpoint) = args.endpoint.as_ref().filter(|_| args.kind != HealthCheck::Http) {
        return Err(CliError::Usage {
            message: format!(
                "The check '{}' asks no endpoint such as '{endpoint}'; nothing was changed.",
                args.kind.name()
            ),
            hint: format!("Write `slipway set-health-check {} http --endpoint {endpoint}`.", args.name),
        });
    }
    let app = session.app(&args.name).await?;
    let client = session.client()?;
    let path = format!("/v3/apps/{}/processes/{}", app.guid, args.process);
    let process: Value = match client.get(&path).await {
        Err(error) if error.has_status(404) => {
            let place = format!(" in app '{}'", app.name);
            return Err(CliError::Missing { kind: "Process", name: args.process, place });
        }
        other => other?,
    };
    let mut data = json!({});
    if let Some(endpoint) = &args.endpoint {
        data["endpoint"] = endpoint.as_str().into();
    }
    if let Some(seconds) = args.invocation_timeout {
        data["invocation_timeout"] = seconds.into();
    }
    let body = json!({ "health_check": { "type": args.kind.name(), "data": data } });
    client.send(Method::PATCH, &format!("/v3/processes/{}", text(&process, "/guid")), Body::Json(body)).await?;
    session.printer.say(&format!(
        "The health check of '{0}' ({1}) is now '{2}'. {3}",
        app.name,
        args.process,
        args.kind.name(),
        takes_effect(&app)
    ));
    Ok(())
}

/// When a changed setting of an app holds, and how to get there.
pub(super) fn takes_effect(app: &App) -> String {
    if app.is_started() {
        format!("Running instances keep the old one until a restart: `slipway restart {} --strategy rolling`", app.name)
    } else {
        "It holds from the next start on.".to_owned()
    }
}

pub(super) async fn create_manifest(session: &Session, args: ManifestArgs) -> Result<(), CliError> {
    let app = session.app_or_default(args.name).await?;
    let headers = [("accept".to_owned(), "application/x-yaml".to_owned())];
    let path = format!("/v3/apps/{}/manifest", app.guid);
    let answer = session.client()?.fetch(&path, &headers).await?;
    match &args.path {
        None if session.printer.wants_json() => {
            let manifest: Value = serde_norway::from_slice(&answer.body).map_err(|error| ClientError::Answer {
                what: format!("GET {path}"),
                status: answer.status,
                begins: format!(": it is no YAML ({error})"),
                source: None,
            })?;
            session.printer.json(&manifest)
        }
        None => session.printer.bytes(&answer.body),
        Some(file) => {
            let file = session.environment.directory.join(file);
            std::fs::write(&file, &answer.body).map_err(CliError::Output)?;
            session.printer.say(&format!("The manifest of '{}' is in {}.", app.name, file.display()));
            Ok(())
        }
    }
}
