//! Records observations of cells in their own order, with one statement for hundreds of rows.

use std::collections::{BTreeMap, BTreeSet};

use slipway_api_types::{AssignmentId, CellId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Result;
use super::events;
use super::{PgPlacement, order, signed, signed32, small};
use crate::store::change_log::{self, ChangeKind};
use crate::values::instance_events::{self, InstanceEvent};
use slipway_placement::{CellBatch, CellRecorded, Kind, ObservationRow, Observed, OneShot, Recorded};

/// A row before the observation, as far as routing and planning look at it.
struct Before {
    id: Uuid,
    observed: String,
    ready: bool,
    host: Option<String>,
    port: Option<i32>,
    fault: Option<String>,
    routed: bool,
    lrp: bool,
}

impl PgPlacement {
    pub(super) async fn record_observations(&self, batches: &[CellBatch]) -> Result<Recorded> {
        let mut tx = crate::store::begin(&self.pool).await?;
        let current = current_sessions(&mut tx, batches).await?;
        let valid: Vec<&CellBatch> = batches.iter().filter(|batch| is_current(&current, batch)).collect();
        restart_journals(&mut tx, &valid).await?;

        let latest = latest(&valid);
        let before = write_rows(&mut tx, &latest).await?;
        write_refusals(&mut tx, &valid).await?;
        let mut new_events = instance_events::crashes(&valid);
        new_events.extend(readiness(&before, &latest));
        events::write(&mut tx, &new_events).await?;
        let (one_shots, known) = known(&mut tx, &latest).await?;
        write_counters(&mut tx, &valid).await?;

        let (log, routed) = changes(&before, &latest);
        let mut recorded = Recorded { one_shots, ..Recorded::default() };
        if log.is_empty() {
            tx.commit().await?;
        } else {
            let version = change_log::append(&mut tx, &log).await?;
            sqlx::query!("update assignment set route_seq = $2 where id = any($1)", &routed, signed(version.seq))
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            recorded.version = Some(version);
        }
        for batch in batches {
            let accepted = is_current(&current, batch);
            let unknown = batch
                .rows
                .iter()
                .filter(|row| accepted && !row.state.is_gone() && !known.contains(&(batch.cell, row.assignment)));
            let unknown: BTreeSet<AssignmentId> = unknown.map(|row| row.assignment).collect();
            recorded.cells.push(CellRecorded {
                cell: batch.cell,
                acked: accepted.then(|| batch.rows.iter().map(|row| row.counter).max().unwrap_or(0)),
                unknown: unknown.into_iter().collect(),
                purge: current
                    .get(&batch.cell)
                    .is_some_and(|cell| cell.session == batch.session && !cell.holds_unknown),
            });
        }
        Ok(recorded)
    }
}

/// A cell as far as recording depends on it.
struct CurrentCell {
    session: Uuid,
    holds_unknown: bool,
}

fn is_current(current: &BTreeMap<CellId, CurrentCell>, batch: &CellBatch) -> bool {
    current.get(&batch.cell).is_some_and(|cell| cell.session == batch.session)
}

/// Sessions of the cells as they are now, locked: no other session can begin while its rows are written.
async fn current_sessions(
    tx: &mut Transaction<'_, Postgres>,
    batches: &[CellBatch],
) -> Result<BTreeMap<CellId, CurrentCell>> {
    let cells: Vec<Uuid> = batches.iter().map(|batch| batch.cell.0).collect();
    let rows = sqlx::query!(
        "select id, session, holds_unknown from cell where id = any($1) order by id for no key update",
        &cells
    )
    .fetch_all(&mut **tx)
    .await?;
    let current = |session, holds_unknown| CurrentCell { session, holds_unknown };
    Ok(rows.into_iter().filter_map(|row| Some((CellId(row.id), current(row.session?, row.holds_unknown)))).collect())
}

async fn restart_journals(tx: &mut Transaction<'_, Postgres>, batches: &[&CellBatch]) -> Result<()> {
    let restarted: Vec<CellId> =
        batches.iter().filter(|batch| batch.journal_restarted).map(|batch| batch.cell).collect();
    let cells: Vec<Uuid> = restarted.iter().map(|cell| cell.0).collect();
    if !cells.is_empty() {
        // With those that are written below, so that all are locked in one order.
        let ids: Vec<Uuid> = batches.iter().flat_map(|batch| &batch.rows).map(|row| row.assignment.0).collect();
        order::assignments(tx, &ids, &restarted).await?;
        sqlx::query!("update assignment set obs_seq = 0 where cell = any($1) and tombstone_at is null", &cells)
            .execute(&mut **tx)
            .await?;
        sqlx::query!("update cell set last_counter = 0 where id = any($1)", &cells).execute(&mut **tx).await?;
    }
    Ok(())
}

/// The last word about each assignment; earlier ones of the same batch are history.
fn latest<'a>(batches: &[&'a CellBatch]) -> BTreeMap<(CellId, AssignmentId), (Uuid, &'a ObservationRow)> {
    let mut latest: BTreeMap<_, (Uuid, &ObservationRow)> = BTreeMap::new();
    for batch in batches {
        for row in &batch.rows {
            let entry = latest.entry((batch.cell, row.assignment)).or_insert((batch.session, row));
            if row.counter > entry.1.counter {
                *entry = (batch.session, row);
            }
        }
    }
    latest
}

type Latest<'a> = BTreeMap<(CellId, AssignmentId), (Uuid, &'a ObservationRow)>;

async fn write_rows(tx: &mut Transaction<'_, Postgres>, latest: &Latest<'_>) -> Result<Vec<Before>> {
    let rows: Vec<(CellId, Uuid, &ObservationRow)> =
        latest.iter().map(|((cell, _), (session, row))| (*cell, *session, *row)).collect();
    let ids: Vec<Uuid> = rows.iter().map(|(_, _, row)| row.assignment.0).collect();
    let cells: Vec<Uuid> = rows.iter().map(|(cell, _, _)| cell.0).collect();
    let sessions: Vec<Uuid> = rows.iter().map(|(_, session, _)| *session).collect();
    let counters: Vec<i64> = rows.iter().map(|(_, _, row)| signed(row.counter)).collect();
    let states: Vec<String> = rows.iter().map(|(_, _, row)| row.state.as_str().to_owned()).collect();
    let ready: Vec<bool> = rows.iter().map(|(_, _, row)| row.ready).collect();
    let hosts: Vec<Option<String>> =
        rows.iter().map(|(_, _, row)| row.endpoint.as_ref().map(|(host, _)| host.clone())).collect();
    let ports: Vec<Option<i32>> =
        rows.iter().map(|(_, _, row)| row.endpoint.as_ref().map(|(_, port)| i32::from(*port))).collect();
    let exits: Vec<Option<serde_json::Value>> =
        rows.iter().map(|(_, _, row)| row.exit.as_ref().and_then(|exit| serde_json::to_value(exit).ok())).collect();
    let crashes: Vec<Option<i32>> = rows.iter().map(|(_, _, row)| row.crashes.map(signed32)).collect();
    let incarnations: Vec<i64> = rows.iter().map(|(_, _, row)| signed(row.incarnation)).collect();
    let reasons: Vec<String> = rows.iter().map(|(_, _, row)| row.reason.clone()).collect();
    let refusals: Vec<Option<String>> = rows.iter().map(|(_, _, row)| row.refusal.clone()).collect();
    let since: Vec<f64> = rows.iter().map(|(_, _, row)| row.since_unix_ms as f64 / 1000.0).collect();
    let before = sqlx::query_as!(
        Before,
        r#"with incoming as (
               select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::boolean[],
                   $7::text[], $8::integer[], $9::jsonb[], $10::integer[], $11::bigint[], $12::text[], $13::text[],
                   $14::double precision[])
               as t (id, cell, session, counter, state, ready, host, port, exit, crashes, incarnation, reason,
                     refusal, since)
           ), before as (
               select a.id, a.observed, a.ready, a.host, a.port, a.fault,
                      a.kind = 'lrp' and a.intent = 'run' and a.role <> 'extra' as routed, a.kind = 'lrp' as lrp
               from assignment a join incoming i on i.id = a.id and i.cell = a.cell
               where a.obs_seq < i.counter and a.tombstone_at is null
               order by a.id for no key update of a
           ), written as (
               update assignment a set
                   observed = i.state, ready = i.ready, host = coalesce(i.host, a.host),
                   port = coalesce(i.port, a.port), fault = coalesce(i.exit ->> 'fault', a.fault),
                   exit = coalesce(i.exit, a.exit), crashes = coalesce(i.crashes, a.crashes),
                   reason = nullif(i.reason, ''), refusal = i.refusal, incarnation = i.incarnation,
                   obs_session = i.session, obs_seq = i.counter, observed_since = to_timestamp(i.since)
               from incoming i, before b where a.id = i.id and b.id = a.id
           )
           select id as "id!", observed as "observed!", ready as "ready!", host, port, fault, routed as "routed!",
                  lrp as "lrp!" from before"#,
        &ids,
        &cells,
        &sessions,
        &counters,
        &states,
        &ready,
        &hosts as &[Option<String>],
        &ports as &[Option<i32>],
        &exits as &[Option<serde_json::Value>],
        &crashes as &[Option<i32>],
        &incarnations,
        &reasons,
        &refusals as &[Option<String>],
        &since
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(before)
}

/// What must be told (change log) and whose endpoint entered or left the table.
fn changes(before: &[Before], latest: &Latest<'_>) -> (Vec<(ChangeKind, Uuid)>, Vec<Uuid>) {
    let after: BTreeMap<Uuid, &ObservationRow> = latest.iter().map(|((_, id), (_, row))| (id.0, *row)).collect();
    let (mut log, mut routed) = (Vec::new(), Vec::new());
    for old in before {
        let Some(new) = after.get(&old.id) else { continue };
        let endpoint = old.host.clone().zip(old.port);
        let endpoint_after =
            new.endpoint.as_ref().map(|(host, port)| (host.clone(), i32::from(*port))).or_else(|| endpoint.clone());
        let in_table = old.observed == Observed::Running.as_str() && old.ready && endpoint.is_some();
        let in_table_after = new.state == Observed::Running && new.ready && endpoint_after.is_some();
        let fault_after = new.exit.as_ref().map(|exit| exit.fault.clone()).or_else(|| old.fault.clone());
        if old.observed != new.state.as_str()
            || old.ready != new.ready
            || endpoint != endpoint_after
            || old.fault != fault_after
        {
            log.push((ChangeKind::Observation, old.id));
        }
        let moved = in_table != in_table_after || (in_table && endpoint != endpoint_after);
        if old.lrp && old.routed && moved {
            routed.push(old.id);
        }
    }
    (log, routed)
}

/// Instances that began or ceased to take traffic while they run. One whose check of health failed is about to end, which
/// its crash tells.
fn readiness(before: &[Before], latest: &Latest<'_>) -> Vec<InstanceEvent> {
    let after: BTreeMap<Uuid, (CellId, &ObservationRow)> =
        latest.iter().map(|((cell, id), (_, row))| (id.0, (*cell, *row))).collect();
    let turned = |old: &Before| {
        let (cell, new) = after.get(&old.id)?;
        let ready = new.state == Observed::Running && new.ready;
        let turned = (old.observed == Observed::Running.as_str() && old.ready) != ready;
        let goes_on = ready || (new.state == Observed::Running && new.reason.is_empty());
        (old.lrp && turned && goes_on).then(|| InstanceEvent::readiness(*cell, new.assignment, ready))
    };
    before.iter().filter_map(turned).collect()
}

async fn write_refusals(tx: &mut Transaction<'_, Postgres>, batches: &[&CellBatch]) -> Result<()> {
    let mut refused: BTreeMap<(CellId, AssignmentId), &ObservationRow> = BTreeMap::new();
    for batch in batches {
        for row in batch.rows.iter().filter(|row| row.state == Observed::Refused) {
            refused.insert((batch.cell, row.assignment), row);
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = refused.keys().map(|(_, id)| id.0).collect();
    let cells: Vec<Uuid> = refused.keys().map(|(cell, _)| cell.0).collect();
    let reasons: Vec<String> = refused.values().map(|row| row.reason.clone()).collect();
    // A taken slot says nothing about the cell: the next placement takes another slot there.
    let whole_cell: Vec<bool> = refused.values().map(|row| row.refusal.as_deref() != Some("SLOT_TAKEN")).collect();
    let counters: Vec<i64> = refused.values().map(|row| signed(row.counter)).collect();
    sqlx::query!(
        "insert into refusal (group_id, cell, spec, reason)
         select distinct on (a.group_id, a.cell, a.spec) a.group_id, a.cell, a.spec, t.reason
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::bigint[])
              as t (id, cell, reason, whole_cell, counter)
         join assignment a on a.id = t.id and a.cell = t.cell and a.obs_seq = t.counter
         where t.whole_cell
         on conflict (group_id, cell, spec) do update set reason = excluded.reason, at = now()",
        &ids,
        &cells,
        &reasons,
        &whole_cell,
        &counters
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Tasks and builds among the observed, and which of the observed the store knows on that cell. Tasks that run now
/// are said to.
async fn known(
    tx: &mut Transaction<'_, Postgres>,
    latest: &Latest<'_>,
) -> Result<(Vec<OneShot>, BTreeSet<(CellId, AssignmentId)>)> {
    let ids: Vec<Uuid> = latest.keys().map(|(_, id)| id.0).collect();
    let rows = sqlx::query!(
        "select id, cell, group_id, kind, attempt from assignment where id = any($1) and tombstone_at is null
         order by id",
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    let (mut one_shots, mut known) = (Vec::new(), BTreeSet::new());
    let (mut started, mut attempts) = (Vec::new(), Vec::new());
    for row in rows {
        let key = (CellId(row.cell), AssignmentId(row.id));
        let Some((_, observation)) = latest.get(&key) else { continue };
        known.insert(key);
        let kind: Kind = row.kind.parse()?;
        if kind != Kind::Lrp {
            one_shots.push(OneShot { assignment: key.1, group: row.group_id, kind, attempt: small(row.attempt) });
        }
        if kind == Kind::Task && matches!(observation.state, Observed::Starting | Observed::Running) {
            started.push(row.group_id);
            attempts.push(row.attempt);
        }
    }
    if !started.is_empty() {
        sqlx::query!(
            "update task t set state = 'RUNNING', updated_at = now()
             from unnest($1::uuid[], $2::integer[]) as s (guid, attempt)
             where t.guid = s.guid and t.attempt = s.attempt and t.state = 'PENDING'",
            &started,
            &attempts
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok((one_shots, known))
}

async fn write_counters(tx: &mut Transaction<'_, Postgres>, batches: &[&CellBatch]) -> Result<()> {
    let cells: Vec<Uuid> = batches.iter().map(|batch| batch.cell.0).collect();
    let highest: Vec<i64> =
        batches.iter().map(|batch| signed(batch.rows.iter().map(|row| row.counter).max().unwrap_or(0))).collect();
    sqlx::query!(
        "update cell c set last_counter = greatest(c.last_counter, t.counter)
         from (select id, max(counter) as counter from unnest($1::uuid[], $2::bigint[]) as u (id, counter) group by id)
              t where c.id = t.id",
        &cells,
        &highest
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
