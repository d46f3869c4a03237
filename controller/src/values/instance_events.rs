//! What cells saw of instances, as events for those who own the app.

use serde_json::{Value, json};
use slipway_api_types::{AssignmentId, CellId};
use slipway_placement::{CellBatch, ObservationRow};
use uuid::Uuid;

/// Namespace of the guids of crash events: the same crash, told twice, is one event of each kind.
const CRASH_EVENTS: Uuid = Uuid::from_u128(0x5a1f_0c3e_7d52_4b1a_9c40_73a5_91d2_6e18);

/// The crash as the app's own; its actor is the app, that of all others here the process.
pub const APP_CRASH: &str = "app.crash";

/// An event about an assignment as one cell has it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct InstanceEvent {
    pub guid: Uuid,
    pub kind: &'static str,
    pub assignment: AssignmentId,
    pub cell: CellId,
    pub data: Value,
}

impl InstanceEvent {
    /// An instance takes traffic now, or does not any more. Written by whoever sees the change in its row, once.
    #[must_use]
    pub fn readiness(cell: CellId, assignment: AssignmentId, ready: bool) -> Self {
        let kind = if ready { "audit.app.process.ready" } else { "audit.app.process.not-ready" };
        let data = json!({ "instance": assignment.to_string(), "cell_id": cell.to_string(), "ready": ready });
        Self { guid: Uuid::new_v4(), kind, assignment, cell, data }
    }

    fn crash(kind: &'static str, cell: CellId, row: &ObservationRow) -> Self {
        let mut name = format!("{}/{}/{}", row.assignment, row.incarnation, row.since_unix_ms);
        if kind != APP_CRASH {
            name.push('/');
            name.push_str(kind);
        }
        let exit = row.exit.as_ref();
        let data = json!({
            "instance": row.assignment.to_string(),
            "reason": "CRASHED",
            "exit_description": exit.map_or(row.reason.as_str(), |exit| exit.reason.as_str()),
            "exit_status": exit.map(|exit| exit.code),
            "crash_count": row.crashes,
            "crash_timestamp": exit.map_or(row.since_unix_ms, |exit| exit.at_unix_ms),
            "cell_id": cell.to_string(),
        });
        Self { guid: Uuid::new_v5(&CRASH_EVENTS, name.as_bytes()), kind, assignment: row.assignment, cell, data }
    }
}

/// The crashes in these batches: each is told of the app and of its process.
#[must_use]
pub fn crashes(batches: &[&CellBatch]) -> Vec<InstanceEvent> {
    let crashed =
        batches.iter().flat_map(|batch| batch.rows.iter().filter(|row| row.crash_event).map(|row| (batch.cell, row)));
    crashed
        .flat_map(|(cell, row)| {
            ["audit.app.process.crash", APP_CRASH].map(|kind| InstanceEvent::crash(kind, cell, row))
        })
        .collect()
}
