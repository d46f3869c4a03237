//! The state of each desired instance, as the API shows it.
//!
//! `RUNNING` means: the cell saw it healthy and ready, and, when routes lead to its process, every live router has applied a
//! table that holds it. Anything less reads `STARTING`; an instance that does not exist reads `DOWN`, with the reason. There
//! is always one row for each desired index: clients take an empty list for success.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use slipway_api_types::CellId;
use slipway_protocol::v1::Version;
use uuid::Uuid;

use super::DomainResult;
use crate::context::Context;
use crate::store::instances::{InstanceRow, UnplacedRow};
use crate::store::processes::ProcessRow;
use slipway_placement::planner::cell_name;

/// One desired instance.
#[derive(Clone, Debug)]
pub struct InstanceState {
    /// Which one.
    pub index: i32,
    /// `RUNNING`, `STARTING`, `CRASHED`, `DOWN`.
    pub state: &'static str,
    /// Why it does not run, for people.
    pub details: Option<String>,
    /// Takes traffic; `None` when it is not there.
    pub routable: Option<bool>,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// Its place, if it has one.
    pub row: Option<InstanceRow>,
}

/// For how long a running instance tells of the crashes before it. One that has run for so long no longer crashes.
const CRASHES_ARE_NEWS_S: i64 = 5 * 60;

impl InstanceState {
    /// Crashes in a row, of one that does not run, or only just does.
    #[must_use]
    pub fn crashes(&self) -> Option<u64> {
        let row = self.row.as_ref().filter(|_| self.state != "DOWN")?;
        let count = row.crashes.filter(|count| *count > 0)?.unsigned_abs().into();
        let is_news = self.state != "RUNNING" || (Utc::now() - self.since).num_seconds() < CRASHES_ARE_NEWS_S;
        is_news.then_some(count)
    }
}

/// The desired instances of these processes, in the processes' order.
///
/// # Errors
/// When the database fails.
pub async fn of_processes(context: &Context, processes: &[ProcessRow]) -> DomainResult<Vec<Vec<InstanceState>>> {
    let guids: Vec<Uuid> = processes.iter().map(|process| process.guid).collect();
    let instances = context.store.instances_of(&guids).await?;
    let unplaced = context.store.unplaced_of(&guids).await?;
    let routed: HashSet<Uuid> = context.store.processes_with_routes(&guids).await?.into_iter().collect();
    let applied = context.routers.applied_by_all();
    let seen = ByInstance::new(&instances, &unplaced);
    Ok(processes.iter().map(|process| states(process, &seen, routed.contains(&process.guid), applied)).collect())
}

/// Rows by process and index, primaries first.
#[derive(Default)]
struct ByInstance<'a> {
    instances: HashMap<(Uuid, i32), Vec<&'a InstanceRow>>,
    unplaced: HashMap<(Uuid, i32), &'a UnplacedRow>,
}

impl<'a> ByInstance<'a> {
    fn new(instances: &'a [InstanceRow], unplaced: &'a [UnplacedRow]) -> Self {
        let mut found = Self::default();
        for row in instances {
            found.instances.entry((row.process_guid, row.index)).or_default().push(row);
        }
        found.unplaced = unplaced.iter().map(|row| ((row.process_guid, row.index), row)).collect();
        found
    }
}

fn states(process: &ProcessRow, seen: &ByInstance<'_>, routed: bool, applied: Option<Version>) -> Vec<InstanceState> {
    let now = Utc::now();
    (0..process.instances.stored())
        .map(|index| {
            let place = (process.guid, index);
            // Primaries come first, so a suspect one only stands in for a missing primary; a running one beats both.
            let rows = seen.instances.get(&place).map_or(&[][..], Vec::as_slice);
            let best = rows.iter().find(|row| row.observed == "running" && row.ready).or_else(|| rows.first());
            let why = seen.unplaced.get(&place).copied();
            match best {
                Some(row) => of_row(index, row, why, routed, applied, now),
                None => InstanceState {
                    index,
                    state: "DOWN",
                    details: why.map(|why| why.reason.clone()),
                    routable: None,
                    since: why.map_or(process.updated_at, |why| why.since),
                    row: None,
                },
            }
        })
        .collect()
}

fn of_row(
    index: i32,
    row: &InstanceRow,
    why: Option<&UnplacedRow>,
    routed: bool,
    applied: Option<Version>,
    now: DateTime<Utc>,
) -> InstanceState {
    let (state, details) = match row.observed.as_str() {
        "running" if !row.ready => ("STARTING", Some("the readiness check has not passed yet".to_owned())),
        "running" if !routed => ("RUNNING", None),
        "running" => match applied {
            None => ("STARTING", Some("no router is connected: the route cannot be proven".to_owned())),
            Some(version)
                if row.route_seq > 0
                    && version >= Version::new(row.epoch.unsigned_abs(), row.route_seq.unsigned_abs()) =>
            {
                ("RUNNING", None)
            }
            Some(_) => ("STARTING", Some("waiting for the routers to apply its route".to_owned())),
        },
        "crashed" | "given_up" => ("CRASHED", exit_reason(row)),
        "refused" | "stopped" | "completed" => {
            ("DOWN", why.map(|why| why.reason.clone()).or_else(|| row.reason.clone()).or_else(|| exit_reason(row)))
        }
        // Preparing, starting, or not heard of yet. A crash before says why it starts again; a cell that does not
        // answer is the better reason.
        _ => {
            let own = row.reason.clone().filter(|reason| !reason.is_empty()).or_else(|| exit_reason(row));
            ("STARTING", silence(row, now).or(own))
        }
    };
    InstanceState {
        index,
        state,
        details,
        routable: Some(row.observed == "running" && row.ready),
        since: row.observed_since.unwrap_or(row.created_at),
        row: Some(row.clone()),
    }
}

/// For how long a cell may leave an order unanswered before that is told as the reason for waiting.
const SILENCE_S: i64 = 3;

/// That the instance waits for its cell, when it does.
fn silence(row: &InstanceRow, now: DateTime<Utc>) -> Option<String> {
    let cell = cell_name(CellId(row.cell));
    let unanswered = (now - row.created_at).num_seconds();
    match row.cell_state.as_str() {
        "connected" if row.observed == "unknown" && unanswered > SILENCE_S => {
            Some(format!("{cell} has not answered for {unanswered} s; it is busy, or it hangs"))
        }
        "connected" => None,
        _ => Some(format!("{cell} has no connection to the controller; see `slipway status` on its host")),
    }
}

fn exit_reason(row: &InstanceRow) -> Option<String> {
    let exit = row.exit.as_ref()?;
    let text = exit.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()).map(ToOwned::to_owned);
    text.or_else(|| exit.get("code").and_then(Value::as_i64).map(|code| format!("exited with status {code}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(instances: i32) -> ProcessRow {
        ProcessRow {
            guid: Uuid::from_u128(1),
            app_guid: Uuid::from_u128(1),
            kind: "web".to_owned(),
            command: None,
            instances: instances.into(),
            memory_in_mb: 64,
            disk_in_mb: 64,
            log_rate_limit: -1,
            health_check: json!({}),
            readiness_health_check: json!({}),
            spec: None,
            version: Uuid::nil(),
            deployment_guid: None,
            revision_guid: None,
            labels: json!({}),
            annotations: json!({}),
            memory_chosen: true,
            created_at: Utc::now(),
            updated_at: Utc::now(),
        }
    }

    fn instance(observed: &str, ready: bool, route_seq: i64) -> InstanceRow {
        InstanceRow {
            id: Uuid::nil(),
            process_guid: Uuid::from_u128(1),
            index: 0,
            role: "primary".to_owned(),
            observed: observed.to_owned(),
            ready,
            incarnation: 1,
            host: None,
            port: None,
            direct: false,
            cell: Uuid::nil(),
            cell_state: "connected".to_owned(),
            exit: None,
            crashes: None,
            reason: None,
            route_seq,
            epoch: 1,
            observed_since: None,
            created_at: Utc::now(),
        }
    }

    fn state(row: InstanceRow, routed: bool, applied: Option<Version>) -> (&'static str, Option<String>) {
        let state = states(&process(1), &ByInstance::new(&[row], &[]), routed, applied).remove(0);
        (state.state, state.details)
    }

    #[test]
    fn running_is_said_only_when_it_is_proven() {
        let at = |seq| Some(Version::new(1, seq));
        assert_eq!(state(instance("running", true, 5), true, at(5)).0, "RUNNING");
        assert_eq!(state(instance("running", true, 5), true, at(4)).0, "STARTING");
        let earlier = Some(Version::new(0, 9));
        assert_eq!(state(instance("running", true, 5), true, earlier).0, "STARTING", "proven before a restore");
        assert_eq!(state(instance("running", true, 0), true, at(9)).0, "STARTING");
        assert_eq!(state(instance("running", true, 5), true, None).0, "STARTING");
        assert_eq!(state(instance("running", true, 0), false, None).0, "RUNNING");
        assert_eq!(state(instance("running", false, 5), true, at(5)).0, "STARTING");
        assert_eq!(state(instance("unknown", false, 0), true, at(5)).0, "STARTING");
    }

    #[test]
    fn waiting_for_a_cell_is_shown() {
        let mut waits = instance("unknown", false, 0);
        assert_eq!(state(waits.clone(), true, None), ("STARTING", None));
        waits.created_at -= chrono::TimeDelta::seconds(20);
        let (shown, why) = state(waits.clone(), true, None);
        assert!(
            shown == "STARTING" && why.as_deref().is_some_and(|why| why.contains("has not answered for 2")),
            "{why:?}"
        );
        waits.cell_state = "lost".to_owned();
        let (_, why) = state(waits, true, None);
        assert!(why.as_deref().is_some_and(|why| why.contains("no connection to the controller")), "{why:?}");
    }

    #[test]
    fn a_crash_and_a_missing_place_have_reasons() {
        let mut crashed = instance("crashed", false, 0);
        crashed.exit = Some(json!({ "code": 137, "reason": "out of memory: limit 64 MiB" }));
        assert_eq!(state(crashed, true, None), ("CRASHED", Some("out of memory: limit 64 MiB".to_owned())));
        let why = UnplacedRow {
            process_guid: Uuid::from_u128(1),
            index: 1,
            reason: "no cell is connected".to_owned(),
            since: Utc::now(),
        };
        let rows = states(&process(2), &ByInstance::new(&[], &[why]), true, None);
        assert_eq!((rows[0].state, rows[1].state), ("DOWN", "DOWN"));
        assert_eq!(rows[1].details.as_deref(), Some("no cell is connected"));
    }
}
