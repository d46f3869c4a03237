//! Removes an ended sandbox from the host. Only then is the slot reported as free: while mounts, rules or an interface are
//! left, the next tenant of the slot would lose its own when they are removed.

use slipway_protocol::v1::{InstanceState, WorkloadKind};

use super::events::observe;
use super::{Action, AfterRemoval, AfterStop, FoundSandbox, Life, Phase};
use crate::instance::crash;

impl Life {
    /// Begins the removal; `after` follows once nothing is left.
    pub(super) fn remove(&mut self, after: AfterRemoval) -> Action {
        self.phase = Phase::Removing { after, tries: 0, until_ms: 0 };
        Action::Destroy
    }

    /// Nothing is left of the sandbox.
    pub(super) fn removed(&mut self) -> Vec<Action> {
        let Phase::Removing { after, .. } = &self.phase else { return Vec::new() };
        let after = after.clone();
        let mut actions = std::mem::take(&mut self.report_when_removed);
        match after {
            AfterRemoval::Stopped => {
                self.phase = Phase::Stopped;
                actions.push(observe(InstanceState::Stopped));
                // A build has said how it ended; that nothing is left of its sandbox is no news to anybody.
                if self.kind() != WorkloadKind::Build {
                    actions.push(Action::Say("stopped".to_owned()));
                }
            }
            AfterRemoval::Forgotten => {
                self.phase = Phase::Stopped;
                return vec![Action::Forget];
            }
            AfterRemoval::Start => actions.extend(self.prepare()),
            AfterRemoval::Wait { until_ms } => {
                self.phase = Phase::Backoff { until_ms };
                actions.push(Action::Wake(until_ms));
            }
            AfterRemoval::GivenUp => self.phase = Phase::GivenUp,
            // The agent was restarted in between, and the end that it had seen went with it.
            AfterRemoval::Completed { reported: false } if actions.is_empty() => return self.attempt_spent(),
            AfterRemoval::Completed { reported } => {
                self.phase = Phase::Completed;
                actions.extend(reported.then(|| self.report().action()));
            }
            AfterRemoval::Refused => {
                self.phase = Phase::Refused;
                actions.push(self.report().action());
            }
        }
        actions
    }

    /// Something is left; it is tried again, for as long as it takes.
    pub(super) fn not_removed(&mut self, now_ms: i64) -> Vec<Action> {
        let Phase::Removing { tries, until_ms, .. } = &mut self.phase else { return Vec::new() };
        *tries = tries.saturating_add(1);
        *until_ms = now_ms + crash::cell_fault_delay_ms(*tries);
        vec![Action::Wake(*until_ms)]
    }

    /// A stop or a purge that comes while something is being removed: it decides what follows.
    pub(super) fn end_removal(&mut self, end: &AfterStop) {
        if let Phase::Removing { after, .. } = &mut self.phase
            && *after != AfterRemoval::Forgotten
        {
            *after = if *end == AfterStop::Forgotten { AfterRemoval::Forgotten } else { AfterRemoval::Stopped };
        }
    }

    /// The agent came back in the middle of a removal.
    pub(super) fn recovered_removal(&mut self, after: &AfterRemoval, found: FoundSandbox) -> Vec<Action> {
        let ended = match found {
            // The record of the end is still there.
            FoundSandbox::Ended(exit) => Some(exit),
            _ => self.ended.clone(),
        };
        match (after, ended) {
            (AfterRemoval::Completed { reported: false }, Some(exit)) if self.kind() == WorkloadKind::Task => {
                self.completed(exit)
            }
            _ => vec![Action::Destroy],
        }
    }

    /// How an instance is reported while something of it is being removed.
    pub(super) fn removing_as(after: &AfterRemoval) -> InstanceState {
        match after {
            AfterRemoval::Start => InstanceState::Preparing,
            AfterRemoval::Wait { .. } => InstanceState::Crashed,
            AfterRemoval::GivenUp => InstanceState::GivenUp,
            AfterRemoval::Refused => InstanceState::Refused,
            AfterRemoval::Completed { reported: true } => InstanceState::Completed,
            // Not before its slot is free.
            AfterRemoval::Stopped | AfterRemoval::Forgotten | AfterRemoval::Completed { reported: false } => {
                InstanceState::Running
            }
        }
    }
}
