//! After a restart of the agent: compares the journal with what is found on the host.

use slipway_protocol::v1::WorkloadKind;

use super::{Action, AfterRemoval, AfterStop, FoundSandbox, Life, Phase};

impl Life {
    pub(super) fn recovered(&mut self, found: FoundSandbox, now_ms: i64, random: f64) -> Vec<Action> {
        // What was found has been started, also where the journal could not be written and does not say so.
        self.spent |= found != FoundSandbox::Gone;
        match (&self.phase, found) {
            (Phase::New, FoundSandbox::Gone) => self.begin(),
            (Phase::Preparing, FoundSandbox::Gone) => self.prepare(),
            (Phase::New | Phase::Starting | Phase::Preparing, FoundSandbox::Running) => {
                self.phase = Phase::Starting;
                let mut actions = vec![Action::Follow];
                if self.kind() != WorkloadKind::Unspecified {
                    // What cannot be named yet keeps its traffic: a lost journal is no reason to cut it off.
                    actions.insert(0, Action::Gate(false));
                }
                actions.extend(self.watch_again(false, false));
                actions.push(self.report().action());
                actions
            }
            (Phase::Running { ready }, FoundSandbox::Running) => {
                let ready = *ready;
                // Followed first: a gate that fails must not keep its end from being noticed.
                let mut actions = vec![Action::Follow, Action::Gate(ready)];
                actions.extend(self.watch_again(true, ready));
                actions.push(self.report().action());
                actions
            }
            (Phase::Stopping(_), FoundSandbox::Running) => vec![Action::Gate(false), Action::Follow, Action::Stop],
            (Phase::Starting | Phase::Running { .. } | Phase::Stopping(_), FoundSandbox::Ended(exit)) => {
                self.exited(exit, now_ms, random)
            }
            (Phase::Removing { after, .. }, found) => {
                let after = after.clone();
                self.recovered_removal(&after, found)
            }
            (Phase::New | Phase::Preparing, FoundSandbox::Ended(exit)) if self.once() => self.completed(exit),
            (Phase::New | Phase::Preparing, FoundSandbox::Ended(_)) => vec![self.remove(AfterRemoval::Start)],
            (
                Phase::Starting | Phase::Running { .. } | Phase::Stopping(AfterStop::Restart | AfterStop::Crash(_)),
                FoundSandbox::Gone,
            ) => {
                if self.kind() == WorkloadKind::Unspecified {
                    self.phase = Phase::Completed;
                    return vec![Action::Gate(false)];
                }
                // A reboot, or somebody removed it: not the app's fault. A task or build must not run again.
                vec![Action::Gate(false), self.remove(AfterRemoval::Start)]
            }
            (Phase::Stopping(AfterStop::Stopped), FoundSandbox::Gone) => self.stopped(),
            (Phase::Stopping(AfterStop::Forgotten), FoundSandbox::Gone) => self.forgotten(),
            (Phase::Backoff { until_ms }, FoundSandbox::Gone) => vec![self.report().action(), Action::Wake(*until_ms)],
            (Phase::Backoff { until_ms }, FoundSandbox::Running | FoundSandbox::Ended(_)) => {
                let until_ms = *until_ms;
                vec![self.report().action(), self.remove(AfterRemoval::Wait { until_ms })]
            }
            (_, FoundSandbox::Running) => {
                // Settled in the journal, alive on the host: the journal's word stands.
                let after = self.phase.clone();
                self.phase = Phase::Stopping(AfterStop::Stopped);
                tracing::warn!(?after, "a sandbox of a settled instance still runs; stopping it");
                vec![Action::Gate(false), Action::Follow, Action::Stop]
            }
            (Phase::GivenUp, FoundSandbox::Ended(_)) => vec![self.remove(AfterRemoval::GivenUp)],
            (Phase::Stopped, FoundSandbox::Ended(_)) => vec![self.remove(AfterRemoval::Stopped)],
            (Phase::Completed, FoundSandbox::Ended(_)) => vec![self.remove(AfterRemoval::Completed { reported: true })],
            (Phase::Refused, FoundSandbox::Ended(_)) => vec![self.remove(AfterRemoval::Refused)],
            (_, FoundSandbox::Gone) => vec![self.report().action()],
        }
    }

    pub(super) fn watch_again(&self, healthy: bool, ready: bool) -> Option<Action> {
        (self.kind() == WorkloadKind::Lrp).then_some(Action::Watch { healthy, ready })
    }
}
