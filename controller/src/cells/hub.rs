//! Which cells have a session with this controller, judged on its own monotonic clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipway_api_types::{AssignmentId, CellId};
use slipway_protocol::v1;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// All sessions with cells. Shared by the service, the queries and the liveness task.
#[derive(Debug, Default)]
pub struct CellHub {
    cells: Mutex<BTreeMap<CellId, Entry>>,
    /// Sessions that are being registered, by cell.
    arriving: Mutex<BTreeMap<CellId, u32>>,
}

#[derive(Debug)]
struct Entry {
    session: Option<Uuid>,
    /// When the last session ended.
    lost_at: Instant,
    wake: Arc<Notify>,
    usage: HashMap<AssignmentId, v1::Usage>,
}

impl CellHub {
    fn cells(&self) -> MutexGuard<'_, BTreeMap<CellId, Entry>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, BTreeMap<CellId, u32>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell is about to be registered. Held until its session has begun: the store calls it connected a moment before
    /// that, and whoever judged it in between by its last session would call it lost.
    pub fn arrive(self: &Arc<Self>, cell: CellId) -> SessionStart {
        *self.arrivals().entry(cell).or_default() += 1;
        SessionStart { hub: Arc::clone(self), cell }
    }

    /// A session has begun; what it gives wakes that session when the cell's set may have changed.
    pub fn enter(&self, cell: CellId, session: Uuid) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        let entry =
            Entry { session: Some(session), lost_at: Instant::now(), wake: Arc::clone(&wake), usage: HashMap::new() };
        self.cells().insert(cell, entry);
        wake
    }

    /// A session has ended; ignored when another one has begun since.
    pub fn leave(&self, cell: CellId, wake: &Arc<Notify>) {
        if let Some(entry) = self.cells().get_mut(&cell).filter(|entry| Arc::ptr_eq(&entry.wake, wake)) {
            entry.session = None;
            entry.lost_at = Instant::now();
            entry.usage.clear();
        }
    }

    /// Wakes the sessions of these cells.
    pub fn wake<'a>(&self, cells: impl IntoIterator<Item = &'a CellId>) {
        let all = self.cells();
        for entry in cells.into_iter().filter_map(|cell| all.get(cell)) {
            entry.wake.notify_one();
        }
    }

    /// Wakes every session.
    pub fn wake_all(&self) {
        for entry in self.cells().values() {
            entry.wake.notify_one();
        }
    }

    /// How many cells have a session.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.cells().values().filter(|entry| entry.session.is_some()).count()
    }

    /// Whether the cell has a session; if not, since when, when it had one.
    #[must_use]
    pub fn seen(&self, cell: CellId) -> CellPresence {
        // Before the sessions: one that begins in between is seen among these.
        let arrives = self.arrivals().contains_key(&cell);
        match self.cells().get(&cell) {
            Some(entry) if entry.session.is_some() => CellPresence::Connected,
            _ if arrives => CellPresence::Arriving,
            None => CellPresence::Never,
            Some(entry) => CellPresence::LostAt(entry.lost_at),
        }
    }

    /// Keeps the latest sample of each assignment of a cell.
    pub fn usage_report(&self, cell: CellId, report: v1::UsageReport) {
        let mut all = self.cells();
        let Some(entry) = all.get_mut(&cell) else { return };
        entry.usage = report
            .usages
            .into_iter()
            .filter_map(|usage| Some((AssignmentId(usage.assignment_id.parse().ok()?), usage)))
            .collect();
    }

    /// Latest samples of these assignments.
    #[must_use]
    pub fn usage(&self, assignments: &[AssignmentId]) -> HashMap<AssignmentId, v1::Usage> {
        let all = self.cells();
        let find = |id: &AssignmentId| all.values().find_map(|entry| entry.usage.get(id).cloned());
        assignments.iter().filter_map(|id| Some((*id, find(id)?))).collect()
    }
}

/// A cell that is being registered, until this is dropped.
#[derive(Debug)]
pub struct SessionStart {
    hub: Arc<CellHub>,
    cell: CellId,
}

impl Drop for SessionStart {
    fn drop(&mut self) {
        let mut arrivals = self.hub.arrivals();
        if let Some(count) = arrivals.get_mut(&self.cell) {
            *count -= 1;
            if *count == 0 {
                arrivals.remove(&self.cell);
            }
        }
    }
}

/// Whether a cell has a session with this controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellPresence {
    /// No session since this controller started.
    Never,
    /// It has no session, but one is about to begin.
    Arriving,
    /// It has a session.
    Connected,
    /// Its last session ended then.
    LostAt(Instant),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_old_session_does_not_end_a_new_one() {
        let hub = CellHub::default();
        let cell = CellId::new();
        assert_eq!(hub.seen(cell), CellPresence::Never);
        let first = hub.enter(cell, Uuid::new_v4());
        let second = hub.enter(cell, Uuid::new_v4());
        hub.leave(cell, &first);
        assert_eq!(hub.seen(cell), CellPresence::Connected);
        hub.leave(cell, &second);
        assert!(matches!(hub.seen(cell), CellPresence::LostAt(_)));
    }

    #[tokio::test]
    async fn a_cell_that_arrives_is_neither_lost_nor_connected() {
        let hub = Arc::<CellHub>::default();
        let cell = CellId::new();
        let (first, second) = (hub.arrive(cell), hub.arrive(cell));
        assert_eq!(hub.seen(cell), CellPresence::Arriving);
        drop(first);
        assert_eq!(hub.seen(cell), CellPresence::Arriving, "another session is still on its way");
        let wake = hub.enter(cell, Uuid::new_v4());
        drop(second);
        assert_eq!(hub.seen(cell), CellPresence::Connected);
        hub.leave(cell, &wake);
        let third = hub.arrive(cell);
        assert_eq!(hub.seen(cell), CellPresence::Arriving, "it comes back");
        drop(third);
        assert!(matches!(hub.seen(cell), CellPresence::LostAt(_)));
    }
}
