//! What a round of planning reads and writes.

use std::collections::{BTreeMap, BTreeSet};

use slipway_api_types::{AssignmentId, CellId, ControllerId};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use super::{Cell, Intent, Kind, Placed, Role, RouterSeen, SpecDigest, UnplacedReason, Wanted};

/// One instance that has no place, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unplaced {
    /// Process, task or build.
    pub group: Uuid,
    /// Which instance.
    pub index: u32,
    /// How long it is waited for.
    pub reason: UnplacedReason,
    /// For people, with figures.
    pub details: String,
}

/// A cell refused an instance of this spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Process, task or build.
    pub group: Uuid,
    /// Who refused.
    pub cell: CellId,
    /// What it refused.
    pub spec: SpecDigest,
    /// Why, for people.
    pub reason: String,
    /// How long ago, by the database's clock.
    pub age_ms: i64,
}

/// Slots of one cell that a new assignment may not, or should not, get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotUse {
    /// Not released, or lately refused as taken on the cell itself.
    pub taken: BTreeSet<u16>,
    /// Released within the last minute: used again only when nothing else is free.
    pub resting: BTreeSet<u16>,
}

/// All that one round of planning reads, from one snapshot of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the store stood.
    pub version: Version,
    /// Desired, by group.
    pub wanted: Vec<Wanted>,
    /// Live assignments, by id.
    pub assignments: Vec<Placed>,
    /// Registered cells, by id.
    pub cells: Vec<Cell>,
    /// Registered routers, by id.
    pub routers: Vec<RouterSeen>,
    /// Remembered refusals.
    pub refusals: Vec<Refused>,
    /// Slots per cell.
    pub slots: BTreeMap<CellId, SlotUse>,
    /// As the last round left it, in order.
    pub unplaced: Vec<Unplaced>,
}

/// A new assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Fresh.
    pub id: AssignmentId,
    /// Process, task or build.
    pub group: Uuid,
    /// The app.
    pub app: Uuid,
    /// Which instance.
    pub index: u32,
    /// What it runs.
    pub spec: SpecDigest,
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub cell: CellId,
    /// Its slot there.
    pub slot: u16,
    /// Of tasks and builds.
    pub attempt: u32,
    /// Carried from an earlier place of the same instance.
    pub crashes: u32,
}

/// What a round of planning changes, in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanChanges {
    /// New roles. Demotions are written before promotions and placements: there is never a second primary.
    pub roles: Vec<(AssignmentId, Role)>,
    /// New intents.
    pub intents: Vec<(AssignmentId, Intent)>,
    /// New assignments, all primary, all `run`.
    pub placements: Vec<Placement>,
    /// The whole list of what has no place, when it differs from the stored one.
    pub unplaced: Option<Vec<Unplaced>>,
}

impl PlanChanges {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.intents.is_empty() && self.placements.is_empty() && self.unplaced.is_none()
    }

    /// Assignments that exist already and change.
    #[must_use]
    pub fn changed(&self) -> BTreeSet<AssignmentId> {
        self.roles.iter().map(|(id, _)| *id).chain(self.intents.iter().map(|(id, _)| *id)).collect()
    }

    /// Assignments whose endpoint leaves the table by this change, if it was in it.
    #[must_use]
    pub fn leaving(&self) -> BTreeSet<AssignmentId> {
        let roles = self.roles.iter().filter(|(_, role)| *role == Role::Extra).map(|(id, _)| *id);
        let intents = self.intents.iter().filter(|(_, intent)| *intent != Intent::Run).map(|(id, _)| *id);
        roles.chain(intents).collect()
    }
}

/// How a plan fared. An ambiguous commit is an ordinary outcome: read again and plan again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// It is in force at this version.
    Committed(Version),
    /// The term is not the current one any more: somebody else plans.
    Fenced,
    /// The assignments changed since the snapshot; nothing was written.
    Conflict,
    /// The connection broke while committing: it may or may not have happened.
    Ambiguous,
}

/// The outcome of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It is ours, with this term.
    Held {
        /// Names the fence.
        term: i64,
    },
    /// It is somebody else's.
    Other {
        /// Whose.
        holder: ControllerId,
    },
}
