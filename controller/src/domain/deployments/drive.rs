//! One step of an active deployment: reads where its instances stand, asks [`slipway_placement::rollout::step`], writes.

use std::collections::{BTreeMap, HashSet};

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{DeploymentSnapshot, Lane, Progress, canary};
use crate::context::Context;
use crate::domain::lifecycle::{self, finish};
use crate::domain::{DomainError, DomainResult};
use crate::store::apps::{AppRow, app_lock_tx};
use crate::store::deployments::{
    DeployedInstance, DeploymentRow, deployed_instances_tx, deployment_active_tx, deployment_progress_tx,
    deployment_status_tx, process_instances_tx, process_take_over_tx, processes_with_interim_tx, unplaced_reason_tx,
};
use crate::store::placement::hold_term;
use crate::store::processes::{ProcessRow, process_desire_tx, process_update_tx, processes_of_app_tx};
use crate::store::revisions::{processes_revision_tx, revision_of_app_tx, revision_served_tx};
use crate::values::InstanceCount;
use slipway_placement::rollout::{CANCEL_TIMEOUT_S, Side, State, Step, step};

/// For how long an instance whose check only asks whether its program runs must have run before an old one is given
/// up for it, and before its revision counts as one that has served. Longer makes deployments of workers slower; shorter
/// takes a program that fails at its start for a good one.
pub const STEADY_S: i32 = 12;

/// For how long a new instance that has crashed must have run since. Longer holds up a version whose dependency came a
/// moment late; shorter lets one take over that crashes again and again.
const CALM_S: i32 = 60;

/// How a round over one deployment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// As far as it goes now.
    Done,
    /// Another controller drives.
    Fenced,
}

/// A lane with the processes of its type: the app's own first, the new one last.
struct LaneState {
    lane: Lane,
    processes: Vec<ProcessRow>,
}

/// Moves the active deployment of an app on by one step, under the planner's lease.
///
/// # Errors
/// When the database fails; the next round does it again.
pub async fn drive(context: &Context, term: i64, app: Uuid) -> DomainResult<Driven> {
    let mut tx = context.store.begin().await?;
    if !hold_term(&mut tx, term).await? {
        return Ok(Driven::Fenced);
    }
    let Some(app) = app_lock_tx(&mut tx, app).await? else { return Ok(Driven::Done) };
    let Some(active) = deployment_active_tx(&mut tx, app.guid).await? else { return Ok(Driven::Done) };
    let snapshot = DeploymentSnapshot::of(&active)?;
    let processes = processes_with_interim_tx(&mut tx, app.guid).await?;
    let Some(standing) = standing(&app, &snapshot, &processes) else {
        // Nothing of it runs or will run.
        for own in processes.iter().filter(|process| process.deployment_guid.is_none()) {
            process_take_over_tx(&mut tx, app.guid, &own.kind, own.guid).await?;
        }
        end(&mut tx, &active, "CANCELED").await?;
        finish(context, tx, &app, &processes).await?;
        return Ok(Driven::Done);
    };
    let guids: Vec<Uuid> = standing.iter().flat_map(|one| &one.processes).map(|process| process.guid).collect();
    let instances = deployed_instances_tx(&mut tx, &guids, STEADY_S, CALM_S).await?;
    let progress = Progress::of(&active)?;
    let (states, steps) = decide(&active, &snapshot, &progress, &standing, &instances);
    let progressed = note_progress(&mut tx, &active, &snapshot, progress, &states, &instances).await?;
    if steps.iter().all(|step| *step == Step::Finish) {
        take_over(context, &mut tx, &app, &active, &snapshot, &standing).await?;
        end(&mut tx, &active, "DEPLOYED").await?;
        let now = processes_of_app_tx(&mut tx, app.guid).await?;
        finish(context, tx, &app, &[processes, now].concat()).await?;
    } else if steps.iter().all(|step| *step == Step::Cancelled) {
        for one in &standing {
            let own = one.processes[0].guid;
            process_instances_tx(&mut tx, own, one.lane.restore).await?;
            process_take_over_tx(&mut tx, app.guid, &one.lane.kind, own).await?;
        }
        end(&mut tx, &active, "CANCELED").await?;
        finish(context, tx, &app, &processes).await?;
    } else if steps[0] == Step::Pause {
        deployment_status_tx(&mut tx, active.guid, "ACTIVE", "PAUSED").await?;
        tracing::info!(deployment = %active.guid, app = %app.guid, "a canary waits for its developer");
        tx.commit().await?;
    } else {
        let mut changed = Vec::new();
        for (one, step) in standing.into_iter().zip(&steps) {
            changed.extend(scale(&mut tx, one, step).await?);
        }
        if !changed.is_empty() {
            finish(context, tx, &app, &changed).await?;
        } else if progressed {
            tx.commit().await?;
        }
    }
    Ok(Driven::Done)
}

/// The lanes with their processes; `None` when there is nothing to deploy any more.
fn standing(app: &AppRow, snapshot: &DeploymentSnapshot, processes: &[ProcessRow]) -> Option<Vec<LaneState>> {
    if app.deleting || !app.is_started() {
        return None;
    }
    let lanes = snapshot.lanes().into_iter().map(|lane| {
        let mut own: Vec<ProcessRow> = processes.iter().filter(|process| process.kind == lane.kind).cloned().collect();
        // The new one stands last, and what shrinks first right before it.
        own.sort_by_key(|process| (process.guid == lane.process, snapshot.abandoned.contains(&process.guid)));
        let complete = own.len() >= 2
            && own.last().is_some_and(|process| process.guid == lane.process)
            && own.first().is_some_and(|process| process.deployment_guid.is_none());
        complete.then_some(LaneState { lane, processes: own })
    });
    lanes.collect()
}

/// What each lane wants. The other types begin when `web` is done; all of them go back at once.
fn decide(
    active: &DeploymentRow,
    snapshot: &DeploymentSnapshot,
    progress: &Progress,
    standing: &[LaneState],
    instances: &[DeployedInstance],
) -> (Vec<State>, Vec<Step>) {
    let mut sides = sides(instances);
    let mut states = Vec::new();
    let mut steps = Vec::new();
    for (place, one) in standing.iter().enumerate() {
        let mut state = state(active, snapshot, one, &mut sides);
        if place == 0 {
            state.canary = canary(active, snapshot, progress);
        }
        let waits = place > 0 && !state.cancelling && steps.first() != Some(&Step::Finish);
        state.paused |= waits;
        steps.push(step(&state));
        states.push(state);
    }
    (states, steps)
}

fn sides(instances: &[DeployedInstance]) -> BTreeMap<Uuid, Side> {
    let mut sides: BTreeMap<Uuid, Side> = BTreeMap::new();
    for instance in instances {
        let side = sides.entry(instance.process).or_default();
        let index = instance.index.unsigned_abs();
        for (set, member) in [
            (&mut side.routable, instance.routable),
            (&mut side.acked, instance.acked),
            (&mut side.broken, instance.broken),
        ] {
            if member {
                set.insert(index);
            }
        }
    }
    sides
}

fn state(
    active: &DeploymentRow,
    snapshot: &DeploymentSnapshot,
    standing: &LaneState,
    sides: &mut BTreeMap<Uuid, Side>,
) -> State {
    let mut old: Vec<Side> = standing
        .processes
        .iter()
        .map(|process| Side { desired: process.instances.get(), ..sides.remove(&process.guid).unwrap_or_default() })
        .collect();
    let new = old.pop().unwrap_or_default();
    let cancelling = active.status_reason == "CANCELING";
    let in_flight = active.options.get("max_in_flight").and_then(Value::as_u64).unwrap_or(1);
    let abandoned = standing.processes.iter().filter(|process| snapshot.abandoned.contains(&process.guid)).count();
    State {
        wanted: standing.lane.wanted.get(),
        restore: standing.lane.restore.get(),
        max_in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
        old,
        new,
        abandoned,
        canary: None,
        paused: active.status_reason == "PAUSED",
        cancelling,
        cancel_overdue: cancelling && (Utc::now() - active.status_changed_at).num_seconds() > CANCEL_TIMEOUT_S,
    }
}

/// Writes what a lane wants; gives the processes that changed.
async fn scale(tx: &mut PgConnection, standing: LaneState, step: &Step) -> DomainResult<Vec<ProcessRow>> {
    let counts: Vec<u32> = match step {
        Step::Scale { old, new } => old.iter().copied().chain([*new]).collect(),
        // This lane is back before the others are.
        Step::Cancelled => {
            let others = standing.processes.len().saturating_sub(1);
            std::iter::once(standing.lane.restore.get()).chain(std::iter::repeat_n(0, others)).collect()
        }
        Step::Finish | Step::Pause => return Ok(Vec::new()),
    };
    let mut changed = Vec::new();
    for (process, count) in standing.processes.into_iter().zip(counts) {
        let count = InstanceCount::at_most(count);
        if process.instances != count {
            process_instances_tx(tx, process.guid, count).await?;
            changed.push(process);
        }
    }
    Ok(changed)
}

/// The new processes become the app's. Types of which nothing ran get the new version for when they are scaled up.
async fn take_over(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppRow,
    active: &DeploymentRow,
    snapshot: &DeploymentSnapshot,
    standing: &[LaneState],
) -> DomainResult<()> {
    for one in standing {
        process_instances_tx(tx, one.lane.process, one.lane.wanted).await?;
        process_take_over_tx(tx, app.guid, &one.lane.kind, one.lane.process).await?;
    }
    let revision = match active.revision_guid {
        Some(guid) => revision_of_app_tx(tx, app.guid, guid).await?,
        None => None,
    };
    let done: HashSet<&str> = standing.iter().map(|one| one.lane.kind.as_str()).collect();
    for mut process in processes_of_app_tx(tx, app.guid).await? {
        if done.contains(process.kind.as_str()) {
            continue;
        }
        if snapshot.rollback
            && let Some(revision) = &revision
        {
            let command = revision.commands.get(&process.kind).and_then(Value::as_str);
            process.command = command.map(ToOwned::to_owned);
            process_update_tx(tx, &process).await?;
        }
        match lifecycle::run(context, tx, app, std::slice::from_ref(&process)).await {
            Err(error @ DomainError::Invalid(_)) => {
                tracing::warn!(app = %app.guid, process = process.kind, %error, "a process keeps its old droplet");
                if process.instances == InstanceCount::ZERO {
                    process_desire_tx(tx, process.guid, None, process.version).await?;
                }
            }
            other => other?,
        }
    }
    processes_revision_tx(tx, app.guid, active.revision_guid).await?;
    if let Some(revision) = active.revision_guid {
        revision_served_tx(tx, revision).await?;
    }
    Ok(())
}

async fn end(tx: &mut PgConnection, active: &DeploymentRow, reason: &'static str) -> DomainResult<()> {
    tracing::info!(deployment = %active.guid, app = %active.app_guid, reason, "a deployment ended");
    Ok(deployment_status_tx(tx, active.guid, "FINALIZED", reason).await?)
}

/// Writes how many new instances serve, and what is wrong with the others. Says whether anything was new.
async fn note_progress(
    tx: &mut PgConnection,
    active: &DeploymentRow,
    snapshot: &DeploymentSnapshot,
    mut progress: Progress,
    states: &[State],
    instances: &[DeployedInstance],
) -> DomainResult<bool> {
    let before = progress.serving;
    let serving: usize = states.iter().map(|state| state.new.acked.len()).sum();
    let serving = u64::try_from(serving).unwrap_or(u64::MAX);
    let new: Vec<Uuid> = snapshot.lanes().into_iter().map(|lane| lane.process).collect();
    let crash = instances
        .iter()
        .find(|instance| new.contains(&instance.process) && (instance.broken || instance.unsteady))
        .map(|instance| instance.reason.clone().unwrap_or_else(|| "a new instance crashed".to_owned()));
    let error = match crash {
        Some(crash) => Some(crash),
        None => unplaced_reason_tx(tx, &new).await?,
    };
    // A restarted instance clears its crash for a moment; the reason stays until more instances serve.
    let error = error.or_else(|| active.error.clone().filter(|_| serving <= before));
    progress.serving = before.max(serving);
    if progress.serving == before && error == active.error {
        return Ok(false);
    }
    deployment_progress_tx(tx, active.guid, &json!(progress), serving > before, error.as_deref()).await?;
    Ok(true)
}
