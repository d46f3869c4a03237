//! Follows the change log and wakes the tasks that depend on it: at once for changes of this controller, by adaptive polling
//! for those of others.
//!
//! A database that lost commits under a running controller (a failover, a restored backup) must be noticed here: cells and
//! routers show what they hold only when a session begins, and their sessions go on. So each read begins with the last entry
//! that was seen. If it is gone or another, the epoch is raised.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use crate::cells::hub::CellHub;
use crate::notifiers::TaskNotifiers;
use crate::store::change_log::ChangeKind;
use slipway_placement::{Change, PlacementError, PlacementStore, Result};

/// Right after a change the next one is likely: other controllers' writes are seen this late at most.
const BUSY: Duration = Duration::from_millis(25);
/// On a quiet system polling costs two queries a second.
const QUIET: Duration = Duration::from_millis(500);
/// Entries of one read; more are read at once after it.
const BATCH: u32 = 5_000;

/// The follower, as a task.
pub const TAIL: Definition = Definition {
    name: "tail",
    description: "Follows the change log and wakes what depends on each change",
    period: QUIET,
    woken_by: "commits of this controller",
};

/// Follows the change log.
pub struct Tail {
    placement: Arc<dyn PlacementStore>,
    hub: Arc<CellHub>,
    wake: Arc<TaskNotifiers>,
    /// Everything up to here was seen; `None` before the first read.
    seen: Option<ReadPosition>,
    /// Until the next look, when nothing wakes it.
    pause: Duration,
}

impl BackgroundTask for Tail {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next> {
        self.pause = match self.step().await? {
            0 => (self.pause * 2).min(QUIET),
            _ => BUSY,
        };
        Ok(Next::After(self.pause))
    }
}

/// How far the change log was read.
struct ReadPosition {
    version: Version,
    /// The entry that stood there; `None` until it was read.
    entry: Option<Change>,
}

impl Tail {
    /// Follows from now on.
    #[must_use]
    pub fn new(placement: Arc<dyn PlacementStore>, hub: Arc<CellHub>, wake: Arc<TaskNotifiers>) -> Self {
        Self { placement, hub, wake, seen: None, pause: BUSY }
    }

    async fn step(&mut self) -> Result<usize> {
        let Some(ReadPosition { version, entry }) = &self.seen else {
            // Everything reads the store whole at its start.
            self.begin(self.placement.version().await?);
            return Ok(1);
        };
        let version = *version;
        let mut changes = self.placement.changes_since(version.seq.saturating_sub(1), BATCH).await?;
        let lost = match changes.first() {
            // The newest entry is never removed.
            None => version.seq > 0,
            Some(first) if first.seq == version.seq => entry.as_ref().is_some_and(|entry| entry != first),
            // Old ones are.
            Some(_) => false,
        };
        if lost {
            self.fell_back(version).await?;
            return Ok(1);
        }
        let full = changes.len() == BATCH as usize;
        let Some(last) = changes.last().copied() else { return Ok(0) };
        changes.retain(|change| change.seq > version.seq);
        if !changes.is_empty() {
            self.dispatch(&changes).await?;
        }
        let raised =
            changes.iter().any(|change| change.kind == Some(ChangeKind::Controller) && change.id == Uuid::nil());
        let epoch = if raised { self.placement.version().await?.epoch } else { version.epoch };
        self.seen = Some(ReadPosition { version: Version::new(epoch, last.seq), entry: Some(last) });
        if full {
            self.wake.tail.wake();
        }
        Ok(changes.len())
    }

    fn begin(&mut self, version: Version) {
        self.seen = Some(ReadPosition { version, entry: None });
        self.wake_all();
    }

    /// What was read up to `seen` is not what the store holds now.
    async fn fell_back(&mut self, seen: Version) -> Result<()> {
        let now = self.placement.version().await?;
        // Of the epoch that was read: when another controller has raised it already, that is enough.
        let above = Version::new(seen.epoch, now.seq.max(seen.seq).saturating_add(1));
        let raised = self.placement.epoch_raise(above).await?;
        tracing::error!(
            %seen, found = %now, now = %raised,
            "the database has lost what this controller had read (a failover that lost commits, or a restored backup): the epoch was raised; running instances are adopted"
        );
        self.begin(raised);
        Ok(())
    }

    async fn dispatch(&self, changes: &[Change]) -> Result<()> {
        // Routers first: a healthy instance must be routable soon. They acknowledge each version, so also those that
        // change nothing in the table are published.
        self.wake.publish.wake();
        let assignments: BTreeSet<AssignmentId> = changes
            .iter()
            .filter(|change| change.kind == Some(ChangeKind::Assignment))
            .map(|change| AssignmentId(change.id))
            .collect();
        if !assignments.is_empty() {
            let assignments: Vec<_> = assignments.into_iter().collect();
            let cells = self.placement.cells_of(&assignments).await?;
            self.hub.wake(&cells);
        }
        if changes.iter().any(|change| change.kind == Some(ChangeKind::SecurityGroup)) {
            // Which cells run something that it concerns is found out by reading their sets; most changes concern all.
            self.hub.wake_all();
        }
        let plans =
            |kind| !matches!(kind, Some(ChangeKind::Route | ChangeKind::Controller | ChangeKind::SecurityGroup));
        if changes.iter().any(|change| plans(change.kind)) {
            self.wake.planner.wake();
            self.wake.deployments.wake();
        }
        let frees =
            |kind| matches!(kind, None | Some(ChangeKind::Assignment | ChangeKind::Observation | ChangeKind::Router));
        if changes.iter().any(|change| frees(change.kind)) {
            self.wake.release.wake();
        }
        Ok(())
    }

    fn wake_all(&self) {
        self.wake.publish.wake();
        self.wake.planner.wake();
        self.wake.deployments.wake();
        self.wake.release.wake();
        self.hub.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_placement::memory::MemoryPlacement;

    async fn tail_at(entries: u128) -> (Arc<MemoryPlacement>, Tail) {
        let placement = Arc::new(MemoryPlacement::new());
        for group in 0..entries {
            placement.unwant(Uuid::from_u128(group));
        }
        let mut tail = Tail::new(Arc::clone(&placement) as _, Arc::default(), Arc::default());
        assert_eq!(tail.step().await.expect("the beginning"), 1);
        assert_eq!(tail.step().await.expect("nothing new"), 0);
        (placement, tail)
    }

    #[tokio::test]
    async fn new_changes_are_counted_once() {
        let (placement, mut tail) = tail_at(0).await;
        for group in 1..4 {
            placement.unwant(Uuid::from_u128(group));
        }
        assert_eq!(tail.step().await.expect("three"), 3);
        assert_eq!(tail.step().await.expect("nothing new"), 0);
        assert_eq!(placement.version().await.expect("a version"), Version::new(1, 3));
    }

    #[tokio::test]
    async fn a_store_that_lost_changes_that_were_read_raises_its_epoch() {
        let (placement, mut tail) = tail_at(5).await;
        placement.lose(2);
        assert_eq!(tail.step().await.expect("found out"), 1);
        assert_eq!(placement.version().await.expect("a version"), Version::new(2, 4));
        assert_eq!(tail.step().await.expect("nothing new"), 0);
        placement.unwant(Uuid::from_u128(9));
        assert_eq!(tail.step().await.expect("heard again, though its number was seen before"), 1);
        assert_eq!(placement.version().await.expect("a version").epoch, 2, "once");
    }

    #[tokio::test]
    async fn a_store_that_has_other_changes_in_place_of_those_read_raises_its_epoch() {
        let (placement, mut tail) = tail_at(5).await;
        placement.lose(2);
        for group in 10..14 {
            placement.unwant(Uuid::from_u128(group));
        }
        assert_eq!(tail.step().await.expect("found out"), 1);
        assert_eq!(placement.version().await.expect("a version"), Version::new(2, 8));
        assert_eq!(tail.step().await.expect("nothing new"), 0);
    }

    #[tokio::test]
    async fn one_controller_raises_the_epoch_for_all() {
        let (placement, mut tail) = tail_at(5).await;
        let mut other = Tail::new(Arc::clone(&placement) as _, Arc::default(), Arc::default());
        for _ in 0..2 {
            other.step().await.expect("a step");
        }
        placement.lose(1);
        for _ in 0..3 {
            tail.step().await.expect("a step");
            other.step().await.expect("a step");
        }
        assert_eq!(placement.version().await.expect("a version").epoch, 2);
        // And again, after the next loss.
        placement.unwant(Uuid::from_u128(20));
        for _ in 0..2 {
            tail.step().await.expect("a step");
            other.step().await.expect("a step");
        }
        placement.lose(1);
        for _ in 0..3 {
            other.step().await.expect("a step");
            tail.step().await.expect("a step");
        }
        assert_eq!(placement.version().await.expect("a version").epoch, 3);
    }
}
