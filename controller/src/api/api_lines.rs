//! Lines of the API itself in an app's logs: its audit events, in the words of Cloud Foundry, because scripts look for them.
//! Nothing is stored for it.

use serde_json::Value;
use slipway_protocol::v1;

use crate::store::events::EventRow;
use crate::store::instances::WaitingRow;

/// Events that [`line`] has words for.
pub(super) const KINDS: [&str; 19] = [
    "app.crash",
    "audit.app.apply_manifest",
    "audit.app.build.create",
    "audit.app.build.failed",
    "audit.app.build.staged",
    "audit.app.create",
    "audit.app.deployment.cancel",
    "audit.app.deployment.continue",
    "audit.app.deployment.create",
    "audit.app.droplet.create",
    "audit.app.droplet.mapped",
    "audit.app.package.create",
    "audit.app.package.upload",
    "audit.app.process.scale",
    "audit.app.process.terminate_instance",
    "audit.app.restart",
    "audit.app.start",
    "audit.app.stop",
    "audit.app.update",
];

/// The line of an event of an app.
pub(super) fn line(event: &EventRow) -> Option<v1::LogLine> {
    Some(v1::LogLine {
        unix_ns: event.created_at.timestamp_nanos_opt()?,
        text: text(&event.kind, &event.target_guid, &event.data)?.into_bytes().into(),
        source_type: "API".to_owned(),
        instance_id: "0".to_owned(),
        ..v1::LogLine::default()
    })
}

/// The line of something of an app that waits for a place. Its time is that since when it waits, whatever the reason has
/// become meanwhile, so that clients that walk on from the newest line see it once.
pub(super) fn waiting(row: &WaitingRow) -> Option<v1::LogLine> {
    let of = if row.count > 1 { format!("{} instances of ", row.count) } else { String::new() };
    Some(v1::LogLine {
        unix_ns: row.since.timestamp_nanos_opt()?,
        text: format!("No place yet for {of}{}: {}", row.what, row.reason).into_bytes().into(),
        source_type: "API".to_owned(),
        instance_id: "0".to_owned(),
        ..v1::LogLine::default()
    })
}

fn text(kind: &str, app: &str, data: &Value) -> Option<String> {
    let of = |key: &str| data[key].as_str().unwrap_or_default();
    Some(match kind {
        "app.crash" => format!("App instance exited with guid {app} payload: {data}"),
        "audit.app.apply_manifest" => format!("Applied manifest to app with guid {app}"),
        "audit.app.build.create" => format!("Creating build for app with guid {app}"),
        "audit.app.build.failed" => format!("Staging failed for build {}", of("build_guid")),
        "audit.app.build.staged" => format!("Staging complete for build {}", of("build_guid")),
        "audit.app.create" => format!("Created app with guid {app}"),
        "audit.app.deployment.cancel" => format!("Cancelling deployment for app with guid {app}"),
        "audit.app.deployment.continue" => format!("Continuing deployment for app with guid {app}"),
        "audit.app.deployment.create" => format!("Creating deployment for app with guid {app}"),
        "audit.app.droplet.create" => format!("Creating droplet for app with guid {app}"),
        "audit.app.droplet.mapped" => format!("Updated app with guid {app} ({data})"),
        "audit.app.package.create" => format!("Adding app package for app with guid {app}"),
        "audit.app.package.upload" => format!("Uploading app package for app with guid {app}"),
        "audit.app.process.scale" => format!("Scaling process: {:?}", of("process_type")),
        "audit.app.process.terminate_instance" => {
            format!("Terminating process: {:?}, index: \"{}\"", of("process_type"), data["process_index"])
        }
        "audit.app.restart" => format!("Restarted app with guid {app}"),
        "audit.app.start" => format!("Starting app with guid {app}"),
        "audit.app.stop" => format!("Stopping app with guid {app}"),
        "audit.app.update" => format!("Updated app with guid {app} ({})", data["request"]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waiting_instances_are_shown_with_their_reason() {
        let since = chrono::DateTime::from_timestamp_nanos(1_700_000_000_000_000_123);
        let row = |what: &str, count| WaitingRow {
            what: what.into(),
            count,
            reason: "waiting for room: needs 1024 MiB; the largest free is 62 MiB on cell 00000001".into(),
            since,
        };
        let line = waiting(&row("the build", 1)).expect("a line");
        let text = String::from_utf8_lossy(&line.text);
        assert_eq!(text, format!("No place yet for the build: {}", row("", 1).reason));
        assert_eq!(line.unix_ns, 1_700_000_000_000_000_123, "the same each time it is asked for");
        let line = waiting(&row("process web", 3)).expect("a line");
        assert!(line.text.starts_with(b"No place yet for 3 instances of process web: "));
    }

    #[test]
    fn every_kind_of_event_has_a_text() {
        let data = json!({ "build_guid": "b", "process_type": "web", "process_index": 2, "request": { "name": "x" } });
        for kind in KINDS {
            let text = text(kind, "a", &data).expect(kind);
            assert!(!text.contains("null"), "{text}");
        }
        assert_eq!(text("audit.app.start", "a", &data).as_deref(), Some("Starting app with guid a"));
        let ended = text("audit.app.process.terminate_instance", "a", &data);
        assert_eq!(ended.as_deref(), Some(r#"Terminating process: "web", index: "2""#));
        assert_eq!(text("audit.app.map-route", "a", &data), None);
    }
}
