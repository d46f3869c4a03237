//! `events`: what happened to an app.

use serde_json::Value;

use super::{Session, text};
use crate::args::EventsArgs;
use crate::client::query;
use crate::error::CliError;

/// Members of an event's data that say what happened; what was asked for (`request`) is shown as a whole.
const SHOWN: &[&str] = &[
    "process_type",
    "index",
    "process_index",
    "reason",
    "exit_description",
    "exit_status",
    "strategy",
    "type",
    "state",
];
/// A crash as the process's own: it is told of its app as well (`app.crash`).
const CRASH_OF_PROCESS: &str = "audit.app.process.crash";
/// Longest value in the description.
const LONGEST: usize = 60;

pub(super) async fn events(session: &Session, args: EventsArgs) -> Result<(), CliError> {
    let app = session.app_or_default(args.name).await?;
    let path = query("/v3/audit_events", &[("target_guids", &app.guid), ("order_by", "-created_at"), ("page", "1")]);
    // The newest page only: an app's history has no end.
    let page: Value = session.client()?.get(&path).await?;
    let mut list = page.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
    if !args.all {
        list.retain(|event| {
            let kind = text(event, "/type");
            !is_a_look(&kind) && kind != CRASH_OF_PROCESS
        });
    }
    let row = |event: &Value| {
        vec![
            text(event, "/created_at"),
            event_name(&text(event, "/type")),
            text(event, "/actor/name"),
            description(event),
        ]
    };
    session.show(list, &["time", "event", "actor", "what changed"], row, "There are no events.")
}

/// The name of an event's type for people: `process scale` for `audit.app.process.scale`. Programs find the type itself with --json.
fn event_name(kind: &str) -> String {
    let kind = kind.strip_prefix("audit.").unwrap_or(kind);
    kind.strip_prefix("app.").unwrap_or(kind).replace(['.', '_'], " ")
}

/// Whether somebody only looked.
fn is_a_look(kind: &str) -> bool {
    kind.ends_with(".show")
}

/// What an event says of itself: `instances: 3, memory: 256`.
fn description(event: &Value) -> String {
    let mut parts = Vec::new();
    let data = event.get("data");
    for key in SHOWN {
        let value = text(data.unwrap_or(&Value::Null), &format!("/{key}"));
        if !value.is_empty() {
            parts.push(format!("{}: {value}", key.replace('_', " ")));
        }
    }
    if let Some(request) = data.and_then(|data| data.get("request")) {
        flatten("", request, &mut parts);
    }
    if data.and_then(|data| data.get("manifest_triggered")).and_then(Value::as_bool) == Some(true) {
        parts.push("by a manifest".to_owned());
    }
    parts.join(", ")
}

/// The members of a request, `health check type: http`.
fn flatten(place: &str, value: &Value, parts: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            // A guid tells a person nothing.
            for (key, value) in members.iter().filter(|(key, _)| !key.ends_with("guid")) {
                let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                flatten(&inner, value, parts);
            }
        }
        other => {
            let shown = match other {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let short: String = shown.chars().take(LONGEST).collect();
            let dots = if short.len() < shown.len() { "…" } else { "" };
            let what = format!("{}: {short}{dots}", place.replace(['.', '_'], " "));
            if !place.is_empty() && !parts.contains(&what) {
                parts.push(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_says_what_changed() {
        for (data, shown) in [
            (
                json!({ "index": 0, "reason": "CRASHED", "exit_description": "exit 3" }),
                "index: 0, reason: CRASHED, exit description: exit 3",
            ),
            (
                json!({ "process_type": "web", "request": { "instances": 3, "memory_in_mb": null } }),
                "process type: web, instances: 3",
            ),
            (json!({ "request": { "health_check": { "type": "http" } } }), "health check type: http"),
            (json!({ "request": { "relationships": { "app": { "data": { "guid": "a-1" } } } } }), ""),
            (json!({ "strategy": "rolling", "request": { "strategy": "rolling" } }), "strategy: rolling"),
            (json!({ "manifest_triggered": true, "request": { "name": "web" } }), "name: web, by a manifest"),
            (json!({}), ""),
            (json!(null), ""),
        ] {
            assert_eq!(description(&json!({ "data": data })), shown);
        }
        let long = description(&json!({ "data": { "request": { "command": "x".repeat(100) } } }));
        assert_eq!(long, format!("command: {}…", "x".repeat(60)));
        assert_eq!(event_name("audit.app.process.scale"), "process scale");
        assert_eq!(event_name("audit.service_binding.create"), "service binding create");
        assert_eq!(event_name("app.crash"), "crash");
        assert!(is_a_look("audit.app.environment.show") && !is_a_look("audit.app.update"));
    }
}
