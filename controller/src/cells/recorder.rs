//! Observations of all cells, a transaction at a time: what came in while one commit was under way is the next one.
//!
//! A batch is acknowledged only when it is in Postgres and, for builds and tasks that ended, their end is recorded
//! too. While Postgres is away batches wait here, and behind them in the cells' streams; nothing is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_chassis::{Backoff, Shutdown, chain};
use slipway_protocol::v1;
use slipway_protocol::v1::cell_command::Command;
use tokio::sync::mpsc;
use tonic::Status;

use crate::context::Context;
use crate::domain::outcomes;
use slipway_placement::{CellBatch, CellRecorded, Kind, Observed, OneShot, PlacementError, PlacementStore, Recorded};

/// Batches of one transaction.
const AT_ONCE: usize = 64;

/// Where the answer to a cell goes.
pub type Out = mpsc::Sender<Result<v1::CellCommand, Status>>;

/// One batch with what it needs to be answered.
#[derive(Debug)]
pub struct Submission {
    /// Checked rows.
    pub batch: CellBatch,
    /// Ends of builds and tasks among them, as the wire carried them.
    pub ends: BTreeMap<AssignmentId, v1::Observation>,
    /// The cell's stream.
    pub out: Out,
}

/// Starts the recorder; submissions go into the sender.
pub fn start(context: Context, placement: Arc<dyn PlacementStore>, shutdown: &Shutdown) -> mpsc::Sender<Submission> {
    let (sender, mut receiver) = mpsc::channel::<Submission>(AT_ONCE * 4);
    let recorder = Recorder { context, placement, stop: shutdown.clone() };
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            // A submission that was not taken is sent again by its cell: it was not acknowledged.
            let first = tokio::select! {
                () = stop.requested() => break,
                first = receiver.recv() => first,
            };
            let Some(first) = first else { break };
            let mut group = vec![first];
            while group.len() < AT_ONCE
                && let Ok(next) = receiver.try_recv()
            {
                group.push(next);
            }
            recorder.take(group).await;
        }
    });
    sender
}

struct Recorder {
    context: Context,
    placement: Arc<dyn PlacementStore>,
    stop: Shutdown,
}

impl Recorder {
    async fn take(&self, group: Vec<Submission>) {
        let batches: Vec<CellBatch> = group.iter().map(|submission| submission.batch.clone()).collect();
        match self.record(&batches).await {
            Some(Ok(recorded)) => self.answer(&group, &recorded).await,
            // One cell's rows must not keep the others' out: each alone, and the one that fails is told.
            Some(Err(_)) if group.len() > 1 => {
                for submission in group {
                    Box::pin(self.take(vec![submission])).await;
                }
            }
            Some(Err(error)) => {
                for submission in group {
                    tracing::error!(cell.id = %submission.batch.cell, error = %chain(&error), "observations of a cell cannot be stored");
                    let status =
                        Status::invalid_argument("the store refused these observations; see the controller's log");
                    drop(submission.out.try_send(Err(status)));
                }
            }
            None => {}
        }
    }

    /// Tries until the database answers. `Err` only when it refused the rows themselves; `None` at shutdown.
    async fn record(&self, batches: &[CellBatch]) -> Option<Result<Recorded, PlacementError>> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut warned = false;
        loop {
            let error = match self.placement.observations_record(batches).await {
                Ok(recorded) => return Some(Ok(recorded)),
                Err(error) if refuses_rows(&error) => return Some(Err(error)),
                Err(error) => error,
            };
            if !warned {
                tracing::warn!(error = %chain(&error), "observations cannot be recorded now; they wait");
                warned = true;
            }
            tokio::select! {
                () = self.stop.requested() => return None,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    async fn answer(&self, group: &[Submission], recorded: &Recorded) {
        if recorded.version.is_some() {
            self.context.wake.tail.wake();
        }
        for (submission, result) in group.iter().zip(&recorded.cells) {
            let ended =
                recorded.one_shots.iter().filter_map(|shot| Some((shot, submission.ends.get(&shot.assignment)?)));
            let mut all = true;
            for (shot, observation) in ended {
                all &= self.end(shot, observation).await;
            }
            if all {
                acknowledge(submission, result);
            } else {
                // Not acknowledged: the cell tells again when it comes back.
                let status = Status::unavailable("the end of a build or task could not be recorded");
                drop(submission.out.try_send(Err(status)));
            }
        }
    }

    /// Ends a build or task; true when that is recorded.
    async fn end(&self, shot: &OneShot, observation: &v1::Observation) -> bool {
        let exit = ending(observation);
        let result = match shot.kind {
            Kind::Build => {
                outcomes::build_completed(
                    &self.context,
                    shot.assignment,
                    shot.group,
                    shot.attempt,
                    observation.build.clone(),
                    exit,
                )
                .await
            }
            Kind::Task => {
                outcomes::task_completed(&self.context, shot.assignment, shot.group, shot.attempt, exit).await
            }
            Kind::Lrp => return true,
        };
        if let Err(error) = &result {
            tracing::warn!(
                assignment.id = %shot.assignment, error = %chain(error),
                "the end of a build or task could not be recorded; the cell will tell again"
            );
        }
        result.is_ok()
    }
}

fn acknowledge(submission: &Submission, result: &CellRecorded) {
    let send = |command| drop(submission.out.try_send(Ok(v1::CellCommand { command: Some(command) })));
    let Some(counter) = result.acked else {
        let status = Status::aborted("another session of this cell has begun");
        drop(submission.out.try_send(Err(status)));
        return;
    };
    // A full stream loses an acknowledgement, which the next one covers.
    send(Command::Ack(v1::ObservationsAck { counter }));
    let (cell, count, first) = (result.cell, result.unknown.len(), result.unknown.first());
    match (first, result.purge) {
        (None, _) => {}
        (Some(first), true) => {
            tracing::warn!(cell.id = %cell, count, first = %first, "a cell runs what nobody knows; it is told to purge it");
            let assignment_ids = result.unknown.iter().map(ToString::to_string).collect();
            send(Command::Purge(v1::Purge { assignment_ids }));
        }
        (Some(first), false) => tracing::error!(
            cell.id = %cell, count, first = %first,
            "a cell runs what this database does not know, and the database is older than what the cell has seen: it is kept running; push those apps again, then empty the cell to end what is left"
        ),
    }
}

/// How a build or task ended; of what a cell refused, with the refusal's own reason.
fn ending(observation: &v1::Observation) -> Option<v1::ExitRecord> {
    let refused = || v1::ExitRecord { code: 1, reason: observation.reason.clone(), ..v1::ExitRecord::default() };
    observation.exit.clone().or_else(|| (!observation.reason.is_empty()).then(refused))
}

/// Whether an observation ends a build or task.
#[must_use]
pub fn is_end(observation: &v1::Observation, state: Observed) -> bool {
    match state {
        Observed::Completed | Observed::GivenUp | Observed::Stopped => true,
        // Refusals that another cell would not change.
        Observed::Refused => {
            matches!(observation.refusal(), v1::Refusal::AttemptSpent | v1::Refusal::SpecInvalid)
        }
        _ => false,
    }
}

/// The values are refused, as opposed to a store that is not there.
fn refuses_rows(error: &PlacementError) -> bool {
    match error {
        PlacementError::Refused(_) | PlacementError::Unknown { .. } => true,
        PlacementError::Unavailable(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cell_refused_ends_with_the_reason_of_the_cell() {
        let reason = |observation: v1::Observation| ending(&observation).map(|exit| (exit.code, exit.reason));
        let refused = v1::Observation { reason: "a limit is too low".into(), ..v1::Observation::default() };
        assert_eq!(reason(refused.clone()), Some((1, "a limit is too low".to_owned())));
        let exit = v1::ExitRecord { code: 3, reason: "it failed".into(), ..v1::ExitRecord::default() };
        let ended = v1::Observation { exit: Some(exit), ..refused };
        assert_eq!(reason(ended), Some((3, "it failed".to_owned())));
        assert_eq!(reason(v1::Observation::default()), None, "the cell has lost it");
    }
}
