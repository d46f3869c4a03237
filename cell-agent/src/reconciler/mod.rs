//! Which instances there are, without I/O: `(state, event) -> (state, actions)`.
//!
//! Absence never stops: an assignment that a set does not name goes on and is reported, and the controller answers
//! with a purge if it does not know it. A purge of something that the held set names is the word of a controller that
//! is behind, and is not followed. A set older than the held one is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use slipway_protocol::v1::{Assignment, AssignmentSet, Intent, Refusal, Version, WorkloadKind};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// What the cell holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconciler {
    version: Version,
    digest: Bytes,
    slots: u32,
    held: BTreeMap<Uuid, HeldAssignment>,
}

/// One assignment that the cell holds.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldAssignment {
    /// As last received; `None` for a sandbox that was found and not yet named by a set.
    pub assignment: Option<Assignment>,
    /// The slot it takes while it is not settled.
    pub slot: u32,
    /// Nothing of it runs, and nothing will unless it changes.
    pub settled: bool,
    /// It has observations that nobody has acknowledged.
    pub unacked: bool,
    /// The held set names it.
    pub named: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A controller sent a whole set.
    Set(AssignmentSet),
    /// A controller does not know these.
    Purge(Vec<String>),
    /// An instance moved on.
    Changed {
        /// Which one.
        id: Uuid,
        /// See [`HeldAssignment::settled`].
        settled: bool,
        /// See [`HeldAssignment::unacked`].
        unacked: bool,
    },
    /// An instance has removed every trace of itself.
    Forgotten(Uuid),
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begin a new instance.
    Spawn(Assignment),
    /// Begin one that this cell cannot run, so that it is reported.
    Refuse(Assignment, Refusal, String),
    /// Pass a changed assignment on.
    Assign(Uuid, Assignment),
    /// Report it again: the controller may not know it.
    Report(Uuid),
    /// Stop and forget.
    Purge(Uuid),
    /// It is settled, acknowledged and no longer named: remove every trace.
    Forget(Uuid),
    /// The set is in force once everything before has been written.
    InForce(Version, Bytes),
    /// Nothing was changed; the text says why.
    Warn(String),
}

impl Reconciler {
    /// From the journal's header and entries.
    #[must_use]
    pub fn new(version: Version, digest: Bytes, slots: u32, held: BTreeMap<Uuid, HeldAssignment>) -> Self {
        Self { version, digest, slots, held }
    }

    /// Something was found on the host, or in a damaged file, that no set has named yet.
    pub fn found(&mut self, id: Uuid, slot: u32) {
        let held = HeldAssignment { assignment: None, slot, settled: false, unacked: true, named: false };
        self.held.insert(id, held);
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> &BTreeMap<Uuid, HeldAssignment> {
        &self.held
    }

    /// Version of the set in force.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// One step.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Set(set) => self.set(set),
            Event::Purge(ids) => ids.iter().filter_map(|id| self.purge(id)).collect(),
            Event::Changed { id, settled, unacked } => {
                if let Some(held) = self.held.get_mut(&id) {
                    held.settled = settled;
                    held.unacked = unacked;
                }
                self.forget(id).into_iter().collect()
            }
            Event::Forgotten(id) => {
                self.held.remove(&id);
                Vec::new()
            }
        }
    }

    fn set(&mut self, set: AssignmentSet) -> Vec<Action> {
        let Some(version) = set.version else {
            return vec![Action::Warn("refused a set without a version".to_owned())];
        };
        if version < self.version {
            return vec![Action::Warn(format!("refused a set of version {version}: {} is in force", self.version))];
        }
        if version == self.version && set.digest != self.digest && !self.digest.is_empty() {
            let text = format!("refused a set of version {version} with another content than the one in force");
            return vec![Action::Warn(text)];
        }
        let mut actions = Vec::new();
        let mut named = BTreeMap::new();
        for assignment in set.assignments {
            match assignment.id.parse::<Uuid>() {
                Ok(id) => {
                    named.insert(id, assignment);
                }
                Err(_) => {
                    actions.push(Action::Warn(format!("passed over an assignment: {:?} is no id", assignment.id)))
                }
            }
        }
        for held in self.held.values_mut() {
            held.named = false;
        }
        for (id, assignment) in named {
            actions.extend(self.assignment(id, assignment));
        }
        let missing: Vec<Uuid> = self.held.iter().filter(|(_, held)| !held.named).map(|(id, _)| *id).collect();
        for id in missing {
            let forget = self.forget(id);
            let report = self.held.get(&id).is_some_and(|held| !held.settled);
            actions.extend(forget.or(report.then_some(Action::Report(id))));
        }
        self.version = version;
        self.digest = set.digest.clone();
        actions.push(Action::InForce(version, set.digest));
        actions
    }

    fn assignment(&mut self, id: Uuid, assignment: Assignment) -> Option<Action> {
        if let Some(held) = self.held.get_mut(&id) {
            held.named = true;
            if held.assignment.as_ref() == Some(&assignment) {
                return None;
            }
            held.assignment = Some(assignment.clone());
            return Some(Action::Assign(id, assignment));
        }
        let taken = self.held.iter().find(|(_, held)| !held.settled && held.slot == assignment.slot);
        let refusal = if assignment.slot >= self.slots {
            Some((Refusal::SpecInvalid, format!("slot {} is beyond this cell's {}", assignment.slot, self.slots)))
        } else if unknown(&assignment) {
            let text = "the assignment's kind or intent is not known to this version of the cell".to_owned();
            Some((Refusal::SpecInvalid, text))
        } else if assignment.intent() == Intent::Run {
            taken.map(|(other, _)| (Refusal::SlotTaken, format!("slot {} is used by {other}", assignment.slot)))
        } else {
            None
        };
        let held = HeldAssignment {
            assignment: Some(assignment.clone()),
            slot: assignment.slot,
            settled: refusal.is_some(),
            unacked: true,
            named: true,
        };
        self.held.insert(id, held);
        Some(match refusal {
            Some((refusal, reason)) => Action::Refuse(assignment, refusal, reason),
            None => Action::Spawn(assignment),
        })
    }

    fn purge(&mut self, id: &str) -> Option<Action> {
        let Ok(id) = id.parse::<Uuid>() else {
            return Some(Action::Warn(format!("cannot purge {id:?}: it is no id")));
        };
        let held = self.held.get(&id)?;
        if held.named {
            return Some(Action::Warn(format!("not purging {id}: the set in force names it")));
        }
        Some(Action::Purge(id))
    }

    fn forget(&mut self, id: Uuid) -> Option<Action> {
        let held = self.held.get(&id)?;
        (held.settled && !held.unacked && !held.named).then_some(Action::Forget(id))
    }
}

/// An enum value that a newer controller speaks is refused, never read as "nothing".
fn unknown(assignment: &Assignment) -> bool {
    let kind = WorkloadKind::try_from(assignment.kind).unwrap_or(WorkloadKind::Unspecified);
    let intent = Intent::try_from(assignment.intent).unwrap_or(Intent::Unspecified);
    kind == WorkloadKind::Unspecified || intent == Intent::Unspecified
}
