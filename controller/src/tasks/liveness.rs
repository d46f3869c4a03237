//! Judges cells by the sessions of the controller that plans, on its own monotonic clock, and only for time in which
//! the store was writable: when Postgres comes back, nothing is re-placed because time passed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use tokio::time::Instant;

use super::lease::Leadership;
use crate::cells::hub::{CellHub, CellPresence};
use crate::cells::queries::{Directory, peer_name};
use crate::context::Context;
use crate::domain::outcomes;
use crate::notifiers::TaskNotifiers;
use slipway_placement::{CellState, Kind, PlacementError, PlacementStore};

/// The judge, as a task.
pub const LIVENESS: Definition = Definition {
    name: "liveness",
    description: "Judges which cells are lost, and ends the builds and tasks that were on them",
    period: Duration::from_secs(1),
    woken_by: "sessions of cells that begin or end",
};
/// A restarted agent or controller is back within this time; nothing needs to know.
const BLINK: Duration = Duration::from_secs(3);

/// What the judge needs.
pub struct Liveness {
    /// For the ends of tasks and builds of lost cells.
    pub context: Context,
    /// Cells and their states.
    pub placement: Arc<dyn PlacementStore>,
    /// Sessions.
    pub hub: Arc<CellHub>,
    /// Kept equal to what is registered.
    pub directory: Arc<Directory>,
    /// Who judges, and since when the store has been writable.
    pub leadership: Leadership,
    /// Wakes what depends on the states of cells.
    pub wake: Arc<TaskNotifiers>,
    /// Since when this controller runs.
    pub started: Instant,
}

impl BackgroundTask for Liveness {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next, PlacementError> {
        self.round().await?;
        Ok(Next::AfterPeriod)
    }
}

impl Liveness {
    async fn round(&self) -> Result<(), PlacementError> {
        self.directory.reading();
        let cells = self.placement.cells().await?;
        let mut names: BTreeMap<String, String> =
            cells.iter().map(|cell| (peer_name(cell.id.0), cell.query_address.clone())).collect();
        for router in self.placement.routers().await? {
            names.insert(format!("router {}", router.id), router.query_address);
        }
        names.retain(|_, address| !address.is_empty());
        self.directory.replace(names);

        let (term, writable) = (*self.leadership.term.borrow(), *self.leadership.writable_since.borrow());
        let (Some(term), Some(writable)) = (term, writable) else { return Ok(()) };
        let limit = Duration::from_secs(self.context.config.limits.cell_lost_after_s);
        let mut states = Vec::new();
        for cell in &cells {
            let gone_since = match self.hub.seen(cell.id) {
                // A moment later it is connected, or it has failed to come and is judged by its last session.
                CellPresence::Arriving => continue,
                CellPresence::Connected => None,
                CellPresence::Never => Some(self.started.max(writable)),
                CellPresence::LostAt(at) => Some(at.max(writable)),
            };
            let state = match gone_since.map(|since| since.elapsed()) {
                None => CellState::Connected,
                Some(gone) if gone >= limit => CellState::Lost,
                // A cell that was lost before this controller started stays so until it comes.
                Some(_) if cell.state == CellState::Lost => CellState::Lost,
                Some(gone) if gone >= BLINK => CellState::Suspect,
                Some(_) => cell.state,
            };
            if state != cell.state && cell.state != CellState::Fenced {
                tracing::warn!(cell.id = %cell.id, from = cell.state.as_str(), to = state.as_str(), "a cell's state changed");
                states.push((cell.id, state));
            }
        }
        if !states.is_empty() {
            if !self.placement.cell_states(term, &states).await? {
                self.leadership.fenced(term);
                return Ok(());
            }
            self.wake.tail.wake();
        }
        self.end_one_shots().await
    }

    /// Builds and tasks run at most once: on a lost cell they have ended.
    async fn end_one_shots(&self) -> Result<(), PlacementError> {
        for shot in
            self.context.store.one_shots_lost().await.map_err(|error| PlacementError::Unavailable(Box::new(error)))?
        {
            let ended = match shot.kind {
                Kind::Build => {
                    outcomes::build_completed(&self.context, shot.assignment, shot.group, shot.attempt, None, None)
                        .await
                }
                _ => outcomes::task_completed(&self.context, shot.assignment, shot.group, shot.attempt, None).await,
            };
            if let Err(error) = ended {
                tracing::warn!(assignment.id = %shot.assignment, error = %chain(&error), "the end of a build or task on a lost cell could not be recorded; it will be tried again");
            }
        }
        Ok(())
    }
}
