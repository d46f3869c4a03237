//! Feature flags.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Session, text};
use crate::args::{FlagArgs, FlagState};
use crate::client::Body;
use crate::error::CliError;

fn word(flag: &Value) -> &'static str {
    if flag.get("enabled").and_then(Value::as_bool) == Some(true) { "on" } else { "off" }
}

pub(super) async fn flags(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/feature_flags?per_page=500").await?;
    let row = |flag: &Value| vec![text(flag, "/name"), word(flag).to_owned()];
    session.show(list, &["flag", "state"], row, "There are no feature flags.")
}

pub(super) async fn set(session: &Session, args: FlagArgs) -> Result<(), CliError> {
    let on = args.state == FlagState::On;
    let client = session.client()?;
    let path = format!("/v3/feature_flags/{}", args.name);
    let missing = || CliError::Missing { kind: "Feature flag", name: args.name.clone(), place: String::new() };
    // A name with a slash would be another path.
    if args.name.contains(['/', '?', '#']) {
        return Err(missing());
    }
    let now: Value = match client.get(&path).await {
        Err(error) if error.has_status(404) => return Err(missing()),
        other => other?,
    };
    let state = if on { "on" } else { "off" };
    if word(&now) == state {
        session.printer.say(&format!("'{}' is {state} already; nothing was done.", args.name));
        return Ok(());
    }
    client.send(Method::PATCH, &path, Body::Json(json!({ "enabled": on }))).await?;
    let meaning = if on { "" } else { " Administrators still may." };
    session.printer.say(&format!("'{}' is {state}.{meaning}", args.name));
    Ok(())
}
