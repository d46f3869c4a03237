//! What the placement store holds, in the words of the planner: desired, chosen and seen.

mod kinds;
mod peers;
mod plan;
mod seen;

use std::collections::BTreeSet;

pub use kinds::{CellState, Fault, Intent, Kind, Observed, Role, UnplacedReason};
pub use peers::{Cell, CellRegistration, RouterProgress, RouterRegistration, RouterSeen};
pub use plan::{ApplyOutcome, LeaseOutcome, Placement, PlanChanges, Refused, SlotUse, Snapshot, Unplaced};
pub use seen::{CellBatch, CellRecorded, Exit, ObservationRow, OneShot, Recorded, Released};
use slipway_api_types::{AssignmentId, CellId};
use slipway_protocol::v1::{self, Version};
use uuid::Uuid;

use crate::ChangeKind;

/// SHA-256 of an encoded `WorkloadSpec`.
pub type SpecDigest = [u8; 32];

/// Desired: a group of instances, one task attempt or one build attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Process, task or build.
    pub group: Uuid,
    /// The app it belongs to.
    pub app: Uuid,
    /// What it is.
    pub kind: Kind,
    /// Indexes `0..instances` are wanted; 1 for tasks and builds.
    pub instances: u32,
    /// What must run now.
    pub spec: SpecDigest,
    /// Of tasks and builds; 1 for processes.
    pub attempt: u32,
    /// Memory of one instance, MiB.
    pub memory_mb: u64,
    /// Disk of one instance, MiB.
    pub disk_mb: u64,
    /// The stack it runs over.
    pub stack: String,
    /// Every one must be on the cell.
    pub tags: BTreeSet<String>,
    /// Isolation segment of its space; `None` = the shared one. The cell must be of the same.
    pub segment: Option<String>,
}

/// Chosen and seen: one live assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its id.
    pub id: AssignmentId,
    /// Process, task or build.
    pub group: Uuid,
    /// The app it belongs to.
    pub app: Option<Uuid>,
    /// Which instance.
    pub index: u32,
    /// What it runs.
    pub spec: SpecDigest,
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub cell: CellId,
    /// What it is to its (group, index).
    pub role: Role,
    /// What the cell is told.
    pub intent: Intent,
    /// Milliseconds since the intent was set, by the database's clock.
    pub intent_age_ms: i64,
    /// Of tasks and builds.
    pub attempt: u32,
    /// Its slot on the cell.
    pub slot: u16,
    /// Raised by "restart this instance".
    pub restart_nonce: u64,
    /// Crashes since the last good running, carried along when it moves.
    pub crashes: u32,
    /// What the cell last said.
    pub observed: Observed,
    /// May take traffic.
    pub ready: bool,
    /// Where routers dial it.
    pub endpoint: Option<(String, u16)>,
    /// Of the last exit.
    pub fault: Option<Fault>,
    /// The cell's counter at the last observation.
    pub obs_seq: u64,
    /// Version sequence at which its endpoint last entered or left the table; 0 = never was in it.
    pub route_seq: u64,
    /// Its memory, MiB.
    pub memory_mb: u64,
    /// Its disk, MiB.
    pub disk_mb: u64,
}

impl Placed {
    /// Whether its endpoint belongs in the routing table.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.kind == Kind::Lrp
            && self.observed == Observed::Running
            && self.ready
            && self.endpoint.is_some()
            && self.intent == Intent::Run
            && self.role != Role::Extra
    }
}

/// One entry of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order.
    pub seq: u64,
    /// What it is about; `None` when a newer program wrote a kind that this one does not know.
    pub kind: Option<ChangeKind>,
    /// Which one.
    pub id: Uuid,
}

/// The whole set of one cell at a version.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSet {
    /// Where the store stood.
    pub version: Version,
    /// As the wire carries them, by id.
    pub assignments: Vec<v1::Assignment>,
    /// The egress policies that they name, by id.
    pub policies: Vec<v1::EgressPolicyBody>,
}
