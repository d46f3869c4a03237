//! Placement as a pure function, recomputed whole each round. No clock, no I/O, no iteration over hash maps.
//!
//! Input is one [`Snapshot`]; ages in it are by the database's clock. Output is what to write, one reason for each
//! instance without a place, and alarms. Planning again on the written result yields nothing.
//!
//! What the planner does not do: restart a crashed app (the cell does, under the same address), or move anything for
//! balance. It moves cell faults, refusals and lost cells.

mod capacity;
mod loss;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use slipway_api_types::{AssignmentId, CellId};
use uuid::Uuid;

use crate::{
    CellState, Fault, Intent, Kind, Observed, Placed, Placement, PlanChanges, Role, Snapshot, Unplaced, UnplacedReason,
    Wanted,
};
use capacity::{Capacity, Need, Unplaceable};

/// How long a draining instance waits for routers before it is stopped anyway. Longer holds memory behind a router
/// that hangs; shorter cuts requests when routers are only slow.
pub const DRAIN_DEADLINE_MS: i64 = 5_000;

/// How long a draining instance goes on at least: requests that a router sent just before it forgot the instance end in
/// this time. Longer holds memory for nothing; shorter cuts answers of an app that does not finish its work on SIGTERM.
pub const DRAIN_LEAST_MS: i64 = 1_000;

/// How long a refusal keeps a cell from being asked again for the same spec.
pub const REFUSAL_MEMORY_MS: i64 = 60_000;

/// How a cell is called in reasons for people: the first digits of its id.
#[must_use]
pub fn cell_name(cell: CellId) -> String {
    format!("cell {}", &cell.0.simple().to_string()[..8])
}

/// How much of what cells have is promised to instances, builds and tasks together. A limit is what one may use, not what
/// it uses, so promises beyond what is there cost nothing until too many are called in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit {
    /// Of the memory, in per cent; 100 = no more than there is.
    pub memory_percent: u64,
    /// Of the disk, in per cent.
    pub disk_percent: u64,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { memory_percent: 100, disk_percent: 100 }
    }
}

/// The outcome of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to write.
    pub changes: PlanChanges,
    /// What an operator must know: held losses.
    pub alarms: Vec<String>,
    /// Something drains or is refused: look again soon, nobody will poke.
    pub waiting: bool,
}

/// Plans one round. `new_id` gives ids for new assignments.
pub fn plan(input: &Snapshot, overcommit: Overcommit, mut new_id: impl FnMut() -> AssignmentId) -> Plan {
    let mut round = Round::new(input, overcommit);
    round.settle_unwanted();
    round.settle_returned();
    round.settle_lost(&mut new_id);
    round.settle_faults(&mut new_id);
    round.place_missing(&mut new_id);
    round.finish()
}

struct Round<'a> {
    input: &'a Snapshot,
    wanted: BTreeMap<Uuid, &'a Wanted>,
    /// As they stand, with this round's changes applied.
    assignments: BTreeMap<AssignmentId, Placed>,
    states: BTreeMap<CellId, CellState>,
    capacity: Capacity<'a>,
    placements: Vec<Placement>,
    /// Instances without a place, with the cell that they are to leave. Why is said at the end, when the room that is
    /// left does not change any more: planning again must find the same figures.
    unplaced: BTreeMap<(Uuid, u32), Option<CellId>>,
    alarms: Vec<String>,
    waiting: bool,
}

impl<'a> Round<'a> {
    fn new(input: &'a Snapshot, overcommit: Overcommit) -> Self {
        Self {
            input,
            wanted: input.wanted.iter().map(|wanted| (wanted.group, wanted)).collect(),
            assignments: input.assignments.iter().map(|placed| (placed.id, placed.clone())).collect(),
            states: input.cells.iter().map(|cell| (cell.id, cell.state)).collect(),
            capacity: Capacity::new(input, overcommit),
            placements: Vec::new(),
            unplaced: BTreeMap::new(),
            alarms: Vec::new(),
            waiting: false,
        }
    }

    /// Whether this is the place, spec and attempt that is wanted now.
    fn is_wanted(&self, placed: &Placed) -> bool {
        self.wanted.get(&placed.group).is_some_and(|wanted| {
            placed.index < wanted.instances && placed.spec == wanted.spec && placed.attempt == wanted.attempt
        })
    }

    fn on(&self, placed: &Placed) -> CellState {
        self.states.get(&placed.cell).copied().unwrap_or(CellState::Lost)
    }

    /// Out of the table first when it is in it, then stopped.
    fn retire(&mut self, id: AssignmentId) {
        let Some(placed) = self.assignments.get_mut(&id) else { return };
        let routable = placed.is_routable();
        self.capacity.leave(placed);
        placed.role = Role::Extra;
        if placed.intent == Intent::Run {
            placed.intent = if routable { Intent::Drain } else { Intent::Stop };
            // Set in this round: its age begins now.
            placed.intent_age_ms = 0;
        }
    }

    fn ids(&self, pick: impl Fn(&Placed) -> bool) -> Vec<AssignmentId> {
        self.assignments.values().filter(|placed| pick(placed)).map(|placed| placed.id).collect()
    }

    /// Old spec, unwanted index, unwanted group: drain, then stop. What drained long enough stops.
    fn settle_unwanted(&mut self) {
        for id in self.ids(|placed| placed.intent == Intent::Drain) {
            let placed = &self.assignments[&id];
            if self.drained(placed) {
                if let Some(placed) = self.assignments.get_mut(&id) {
                    placed.intent = Intent::Stop;
                }
            } else {
                self.waiting = true;
            }
        }
        for id in self.ids(|placed| placed.role != Role::Extra && !self.is_wanted(placed)) {
            self.retire(id);
        }
        // An extra that still has the intent to run lost its place in an earlier round.
        for id in self.ids(|placed| placed.role == Role::Extra && placed.intent == Intent::Run) {
            self.retire(id);
        }
    }

    /// Every router with a session has the removal in force and requests have had their time, or the deadline has passed.
    fn drained(&self, placed: &Placed) -> bool {
        if placed.intent_age_ms >= DRAIN_DEADLINE_MS || !placed.observed_running() {
            return true;
        }
        if placed.intent_age_ms < DRAIN_LEAST_MS {
            return false;
        }
        let removal = (self.input.version.epoch, placed.route_seq);
        let mut live = self.input.routers.iter().filter(|router| router.connected && !router.fenced).peekable();
        // Nobody to ask is not a proof: wait for the deadline.
        live.peek().is_some() && live.all(|router| router.applied.key() >= removal)
    }

    /// A lost cell is back: what has a routable replacement stops, the rest stays and its replacement stops.
    fn settle_returned(&mut self) {
        for id in self.ids(|placed| placed.role == Role::Suspect) {
            let suspect = &self.assignments[&id];
            if self.on(suspect) != CellState::Connected {
                continue;
            }
            let key = (suspect.group, suspect.index);
            let replacement = self
                .assignments
                .values()
                .find(|other| other.role == Role::Primary && (other.group, other.index) == key)
                .map(|other| (other.id, other.is_routable() && self.on(other) == CellState::Connected));
            let stays = !suspect.observed.is_gone();
            match replacement {
                Some((_, true)) => self.retire(id),
                Some((_, false)) if !stays => self.retire(id),
                Some((other, false)) => {
                    self.retire(other);
                    self.promote(id);
                }
                None if stays => self.promote(id),
                None => self.retire(id),
            }
        }
    }

    fn promote(&mut self, id: AssignmentId) {
        if let Some(placed) = self.assignments.get_mut(&id) {
            placed.role = Role::Primary;
            self.capacity.enter(placed);
        }
    }

    /// Instances of lost cells become suspect once a replacement has a place; tasks and builds are at most once.
    fn settle_lost(&mut self, new_id: &mut impl FnMut() -> AssignmentId) {
        let stranded = self.ids(|placed| {
            placed.role == Role::Primary
                && placed.kind == Kind::Lrp
                && placed.intent == Intent::Run
                && matches!(self.on(placed), CellState::Lost | CellState::Fenced)
        });
        if stranded.is_empty() {
            return;
        }
        if let Some(alarm) = loss::hold(self.input, stranded.iter().map(|id| &self.assignments[id])) {
            self.alarms.push(alarm);
            return;
        }
        for id in stranded {
            self.replace(id, Role::Suspect, new_id);
        }
    }

    /// What the cell is at fault for, and what it refused or lost.
    fn settle_faults(&mut self, new_id: &mut impl FnMut() -> AssignmentId) {
        let primaries = self.ids(|placed| placed.role == Role::Primary && self.on(placed) != CellState::Lost);
        for id in primaries {
            let placed = &self.assignments[&id];
            match (placed.kind, placed.observed) {
                // Its attempt is spent: what is wanted says what happens next.
                (Kind::Task | Kind::Build, Observed::Completed) => {}
                (_, Observed::Refused | Observed::Stopped | Observed::Completed) => self.retire(id),
                (Kind::Lrp, Observed::Crashed | Observed::GivenUp) if placed.fault == Some(Fault::Cell) => {
                    self.replace(id, Role::Extra, new_id);
                }
                _ => {}
            }
        }
    }

    /// Finds another cell for an instance; only when there is one, the old place changes its role.
    fn replace(&mut self, id: AssignmentId, role: Role, new_id: &mut impl FnMut() -> AssignmentId) {
        let old = self.assignments[&id].clone();
        let Some(wanted) = self.wanted.get(&old.group).copied() else { return };
        let need = Need { wanted, not_on: Some(old.cell) };
        match self.capacity.choose(&need) {
            Ok((cell, slot)) => {
                if role == Role::Suspect {
                    if let Some(placed) = self.assignments.get_mut(&id) {
                        placed.role = Role::Suspect;
                        self.capacity.leave(placed);
                    }
                } else {
                    self.retire(id);
                }
                self.put(wanted, old.index, cell, slot, old.crashes, new_id);
            }
            Err(_) => {
                self.unplaced.insert((old.group, old.index), Some(old.cell));
            }
        }
    }

    fn put(
        &mut self,
        wanted: &Wanted,
        index: u32,
        cell: CellId,
        slot: u16,
        crashes: u32,
        new_id: &mut impl FnMut() -> AssignmentId,
    ) {
        self.capacity.take(wanted, cell, slot);
        self.placements.push(Placement {
            id: new_id(),
            group: wanted.group,
            app: wanted.app,
            index,
            spec: wanted.spec,
            kind: wanted.kind,
            cell,
            slot,
            attempt: wanted.attempt,
            crashes,
        });
    }

    fn place_missing(&mut self, new_id: &mut impl FnMut() -> AssignmentId) {
        let mut present: BTreeSet<(Uuid, u32)> =
            self.placements.iter().map(|placement| (placement.group, placement.index)).collect();
        // A task that is stranded on a lost cell is not run a second time; its end is decided elsewhere.
        present.extend(
            self.assignments
                .values()
                .filter(|placed| placed.role == Role::Primary)
                .map(|placed| (placed.group, placed.index)),
        );
        let wanted: Vec<&Wanted> = self.wanted.values().copied().collect();
        for wanted in wanted {
            for index in (0..wanted.instances).filter(|index| !present.contains(&(wanted.group, *index))) {
                match self.capacity.choose(&Need { wanted, not_on: None }) {
                    Ok((cell, slot)) => self.put(wanted, index, cell, slot, 0, new_id),
                    Err(_) => {
                        self.unplaced.insert((wanted.group, index), None);
                    }
                }
            }
        }
    }

    /// One reason for each instance without a place. Room only shrinks in a round, so each still has one.
    fn reasons(&self) -> Vec<Unplaced> {
        let reason = |(key, leaves): (&(Uuid, u32), &Option<CellId>)| {
            let (group, index) = *key;
            let need = Need { wanted: self.wanted.get(&group).copied()?, not_on: *leaves };
            let Unplaceable { reason, details } = self.capacity.choose(&need).err()?;
            Some(match leaves {
                // It runs: nobody waits for it.
                Some(cell) => Unplaced {
                    group,
                    index,
                    reason: UnplacedReason::Other,
                    details: format!(
                        "this instance must move to another cell than {}, but {details}",
                        cell_name(*cell)
                    ),
                },
                None => Unplaced { group, index, reason, details },
            })
        };
        self.unplaced.iter().filter_map(reason).collect()
    }

    fn finish(self) -> Plan {
        let unplaced = self.reasons();
        let mut changes = PlanChanges { placements: self.placements, ..PlanChanges::default() };
        for before in &self.input.assignments {
            let after = &self.assignments[&before.id];
            if after.role != before.role {
                changes.roles.push((after.id, after.role));
            }
            if after.intent != before.intent {
                changes.intents.push((after.id, after.intent));
            }
        }
        let drains = changes.intents.iter().any(|(_, intent)| *intent == Intent::Drain);
        let waiting = self.waiting || drains || !unplaced.is_empty();
        changes.unplaced = (unplaced != self.input.unplaced).then_some(unplaced);
        Plan { changes, alarms: self.alarms, waiting }
    }
}

impl Placed {
    fn observed_running(&self) -> bool {
        self.observed == Observed::Running
    }
}
