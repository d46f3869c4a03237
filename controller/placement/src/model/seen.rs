//! What cells report, and what comes of recording it.

use serde::{Deserialize, Serialize};
use slipway_api_types::{AssignmentId, CellId};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use super::{Kind, Observed};

/// One transition of one assignment, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservationRow {
    /// The cell's counter.
    pub counter: u64,
    /// The assignment.
    pub assignment: AssignmentId,
    /// What the cell saw.
    pub state: Observed,
    /// May take traffic.
    pub ready: bool,
    /// Where routers dial it.
    pub endpoint: Option<(String, u16)>,
    /// Of the exit, if there was one.
    pub exit: Option<Exit>,
    /// Crashes since the last good running, as the cell counts them.
    pub crashes: Option<u32>,
    /// Starts so far.
    pub incarnation: u64,
    /// For people.
    pub reason: String,
    /// Why it was refused: `NO_SPACE` ….
    pub refusal: Option<String>,
    /// When, by the cell's clock; shown, never compared.
    pub since_unix_ms: i64,
    /// A crash happened: it becomes an app event.
    pub crash_event: bool,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// 0 = exited by itself.
    pub signal: u32,
    /// Ended by the memory limit.
    pub out_of_memory: bool,
    /// For people.
    pub reason: String,
    /// Whose fault.
    pub fault: String,
    /// By the cell's clock.
    pub at_unix_ms: i64,
}

/// Observations of one cell's session.
#[derive(Clone, Debug, PartialEq)]
pub struct CellBatch {
    /// The cell.
    pub cell: CellId,
    /// Its session; a batch of an earlier one is not recorded.
    pub session: Uuid,
    /// Its journal began anew (the counter starts again from 1): earlier counters mean nothing any more.
    pub journal_restarted: bool,
    /// In the cell's order.
    pub rows: Vec<ObservationRow>,
}

/// What came of one cell's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRecorded {
    /// The cell.
    pub cell: CellId,
    /// Everything up to here is recorded; `None` when the session is not the cell's current one.
    pub acked: Option<u64>,
    /// Reported, and unknown to the store.
    pub unknown: Vec<AssignmentId>,
    /// The unknown ones are to be stopped; false when the store may have lost them ([`Cell::holds_unknown`]).
    pub purge: bool,
}

/// A task or build that an observation was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneShot {
    /// The assignment.
    pub assignment: AssignmentId,
    /// Task or build.
    pub group: Uuid,
    /// Which of the two.
    pub kind: Kind,
    /// Its attempt.
    pub attempt: u32,
}

/// What came of recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Set when something that placement or routing depends on has changed.
    pub version: Option<Version>,
    /// One for each batch.
    pub cells: Vec<CellRecorded>,
    /// Tasks and builds among the observed, by assignment.
    pub one_shots: Vec<OneShot>,
}

/// What a cleanup round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Slots that are free now.
    pub released: Vec<AssignmentId>,
    /// Assignments that are gone from their cell and wait for routers.
    pub waiting: u64,
    /// Set when something was released.
    pub version: Option<Version>,
}
