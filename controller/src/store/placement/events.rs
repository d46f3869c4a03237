//! What cells saw of instances, as events for those who own the app.

use serde_json::{Value, json};
use slipway_api_types::{AssignmentId, CellId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Result;
use slipway_placement::{CellBatch, ObservationRow};

/// Namespace of the guids of crash events: the same crash, told twice, is one event of each kind.
const CRASH_EVENTS: Uuid = Uuid::from_u128(0x5a1f_0c3e_7d52_4b1a_9c40_73a5_91d2_6e18);

/// The crash as the app's own; its actor is the app, that of all others here the process.
const APP_CRASH: &str = "app.crash";

/// An event to be written, about an assignment as one cell has it.
pub(super) struct EventRow {
    guid: Uuid,
    kind: &'static str,
    assignment: AssignmentId,
    cell: CellId,
    data: Value,
}

impl EventRow {
    /// An instance takes traffic now, or does not any more. Written by whoever sees the change in its row, once.
    pub(super) fn readiness(cell: CellId, assignment: AssignmentId, ready: bool) -> Self {
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
pub(super) fn crashes(batches: &[&CellBatch]) -> Vec<EventRow> {
    let crashed =
        batches.iter().flat_map(|batch| batch.rows.iter().filter(|row| row.crash_event).map(|row| (batch.cell, row)));
    crashed
        .flat_map(|(cell, row)| ["audit.app.process.crash", APP_CRASH].map(|kind| EventRow::crash(kind, cell, row)))
        .collect()
}

/// Writes events about instances; those of assignments that the cell does not have, or whose app is gone, are left out.
pub(super) async fn write(tx: &mut Transaction<'_, Postgres>, new_events: &[EventRow]) -> Result<()> {
    if new_events.is_empty() {
        return Ok(());
    }
    let guids: Vec<Uuid> = new_events.iter().map(|event| event.guid).collect();
    let kinds: Vec<String> = new_events.iter().map(|event| event.kind.to_owned()).collect();
    let ids: Vec<Uuid> = new_events.iter().map(|event| event.assignment.0).collect();
    let cells: Vec<Uuid> = new_events.iter().map(|event| event.cell.0).collect();
    let data: Vec<Value> = new_events.iter().map(|event| event.data.clone()).collect();
    sqlx::query!(
        "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name,
                            data, space_guid, org_guid)
         select t.guid, t.kind, case t.kind when $6 then a.guid else p.guid end::text,
                case t.kind when $6 then 'app' else 'process' end, case t.kind when $6 then a.name else p.type end,
                a.guid::text, 'app', a.name,
                t.data || jsonb_build_object('index', i.index, 'version', p.version), s.guid, s.org_guid
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::jsonb[])
              with ordinality as t (guid, kind, id, cell, data, place)
         join assignment i on i.id = t.id and i.cell = t.cell
         join process p on p.guid = i.group_id
         join app a on a.guid = p.app_guid
         join space s on s.guid = a.space_guid
         order by t.place
         on conflict (guid) do nothing",
        &guids,
        &kinds,
        &ids,
        &cells,
        &data,
        APP_CRASH
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
