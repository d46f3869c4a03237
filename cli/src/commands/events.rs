//! `events`: what happened to an app.

use serde_json::Value;

use super::{Session, text};
use crate::client::query;
use crate::error::CliError;

/// Members of an event's data that people want to see, as the `cf` command line picks them.
const SHOWN: &[&str] = &[
    "index",
    "reason",
    "cell_id",
    "instance",
    "exit_description",
    "exit_status",
    "recursive",
    "disk_quota",
    "instances",
    "memory",
    "state",
    "command",
];

pub(super) async fn events(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
    let path = query("/v3/audit_events", &[("target_guids", &app.guid), ("order_by", "-created_at"), ("page", "1")]);
    // The newest page only: an app's history has no end.
    let page: Value = session.client()?.get(&path).await?;
    let list = page.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |event: &Value| {
        let data = event.pointer("/data/request").filter(|request| request.is_object()).or_else(|| event.get("data"));
        let details: Vec<String> = SHOWN
            .iter()
            .filter_map(|key| {
                let value = text(data?, &format!("/{key}"));
                (!value.is_empty()).then(|| format!("{key}: {value}"))
            })
            .collect();
        vec![text(event, "/created_at"), text(event, "/type"), text(event, "/actor/name"), details.join(", ")]
    };
    session.show(list, &["time", "event", "actor", "description"], row, "There are no events.")
}
