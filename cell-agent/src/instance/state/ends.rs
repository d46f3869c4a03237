//! How an instance ends: refused, failed to start, stopped, crashed, completed.

use slipway_protocol::v1::{BuildResult, Fault, InstanceState, Intent, Refusal, WorkloadKind};

use super::{Action, AfterRemoval, AfterStop, Life, MAX_CELL_FAULTS, Phase, Report, StartFault};
use crate::instance::crash;
use crate::sandbox::Exit;

impl Life {
    /// The end of an attempt whose outcome nobody saw.
    pub(super) fn attempt_spent(&mut self) -> Vec<Action> {
        self.phase = Phase::Completed;
        let reason = "the cell agent was interrupted while this ran; its outcome is unknown".to_owned();
        let exit = Exit {
            code: 1,
            signal: None,
            out_of_memory: false,
            reason: reason.clone(),
            platform_fault: true,
            at_unix_ms: 0,
        };
        let build = (self.kind() == WorkloadKind::Build).then(|| BuildResult {
            error_id: "StagingError".to_owned(),
            error_text: "staging was interrupted because the cell agent was restarted; stage again".to_owned(),
            ..BuildResult::default()
        });
        let report = Report {
            exit: Some((exit, Fault::Platform)),
            refusal: Some(Refusal::AttemptSpent),
            build,
            reason: reason.clone(),
            ..Report::of(InstanceState::Completed)
        };
        vec![report.action(), Action::Say(reason)]
    }

    pub(super) fn refused(&mut self, refusal: Refusal, reason: String) -> Vec<Action> {
        self.phase = Phase::Refused;
        let report = Report { refusal: Some(refusal), reason: reason.clone(), ..Report::of(InstanceState::Refused) };
        vec![Action::Abandon, report.action(), Action::Say(format!("this cell cannot run it: {reason}"))]
    }

    pub(super) fn start_failed(&mut self, fault: StartFault, now_ms: i64) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Starting) {
            Phase::Stopping(AfterStop::Stopped) => return self.stopped(),
            Phase::Stopping(AfterStop::Forgotten) => return self.forgotten(),
            // Late news of a sandbox that is no longer the current one.
            phase @ Phase::Removing { .. } => {
                self.phase = phase;
                return Vec::new();
            }
            phase => self.phase = phase,
        }
        match fault {
            StartFault::Invalid(reason) => self.refused(Refusal::SpecInvalid, reason),
            StartFault::Exhausted(reason) => self.refused(Refusal::NoSpace, reason),
            StartFault::Host(reason) => {
                self.cell_faults += 1;
                if self.cell_faults >= MAX_CELL_FAULTS || self.once() {
                    return self.refused(Refusal::CellBroken, reason);
                }
                let until_ms = now_ms + crash::cell_fault_delay_ms(self.cell_faults);
                self.phase = Phase::Backoff { until_ms };
                let exit = Exit {
                    code: 1,
                    signal: None,
                    out_of_memory: false,
                    reason: reason.clone(),
                    platform_fault: true,
                    at_unix_ms: now_ms,
                };
                let report = Report {
                    exit: Some((exit, Fault::Cell)),
                    reason: reason.clone(),
                    ..Report::of(InstanceState::Crashed)
                };
                vec![
                    report.action(),
                    Action::Say(format!("the sandbox did not start: {reason}")),
                    Action::Wake(until_ms),
                ]
            }
        }
    }

    pub(super) fn end(&mut self, after: AfterStop) -> Vec<Action> {
        let finish = |life: &mut Self| {
            if after == AfterStop::Forgotten { life.forgotten() } else { life.stopped() }
        };
        match &self.phase {
            Phase::Stopped if after == AfterStop::Stopped => Vec::new(),
            Phase::Starting | Phase::Running { .. } => {
                self.phase = Phase::Stopping(after);
                vec![Action::Gate(false), Action::Say("stopping on request".to_owned()), Action::Stop]
            }
            Phase::Stopping(earlier) => {
                // A purge outranks a stop; both outrank a restart.
                if *earlier != AfterStop::Forgotten {
                    self.phase = Phase::Stopping(after);
                }
                Vec::new()
            }
            Phase::Removing { .. } => {
                self.end_removal(&after);
                Vec::new()
            }
            Phase::New | Phase::Preparing => {
                let mut actions = vec![Action::Abandon];
                actions.extend(finish(self));
                actions
            }
            _ => finish(self),
        }
    }

    pub(super) fn stopped(&mut self) -> Vec<Action> {
        vec![self.remove(AfterRemoval::Stopped)]
    }

    pub(super) fn forgotten(&mut self) -> Vec<Action> {
        vec![self.remove(AfterRemoval::Forgotten)]
    }

    pub(super) fn exited(&mut self, exit: Exit, now_ms: i64, random: f64) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Starting) {
            Phase::Stopping(AfterStop::Stopped) => self.stopped(),
            Phase::Stopping(AfterStop::Forgotten) => self.forgotten(),
            Phase::Stopping(AfterStop::Restart) => {
                vec![Action::Gate(false), self.remove(AfterRemoval::Start)]
            }
            Phase::Stopping(AfterStop::Crash(reason)) => {
                // Why it was stopped, and what may be behind it.
                let reason = if exit.out_of_memory { format!("{}; {reason}", exit.reason) } else { reason };
                let exit = Exit { reason, platform_fault: false, ..exit };
                self.crashed(exit, now_ms, random)
            }
            Phase::Starting | Phase::Running { .. } if self.once() => self.completed(exit),
            Phase::Starting | Phase::Running { .. } => self.crashed(exit, now_ms, random),
            // Late news of a sandbox that is no longer the current one.
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    pub(super) fn completed(&mut self, exit: Exit) -> Vec<Action> {
        self.ended = Some(exit.clone());
        let fault = match (exit.platform_fault, exit.code) {
            (true, _) => Fault::Platform,
            (false, 0) => Fault::None,
            (false, _) => Fault::App,
        };
        let exit = crash::explained(exit);
        let said = format!("ended: {}", exit.reason);
        let report =
            Report { reason: exit.reason.clone(), exit: Some((exit, fault)), ..Report::of(InstanceState::Completed) };
        self.report_when_removed = vec![report.action(), Action::Say(said)];
        vec![Action::Gate(false), self.remove(AfterRemoval::Completed { reported: false })]
    }

    pub(super) fn built(&mut self, result: BuildResult) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Completed) {
            Phase::Stopping(AfterStop::Forgotten) => return self.forgotten(),
            Phase::Stopping(_) => return self.stopped(),
            Phase::Starting | Phase::Running { .. } => {}
            other => {
                self.phase = other;
                return Vec::new();
            }
        }
        let report =
            Report { reason: result.error_text.clone(), build: Some(result), ..Report::of(InstanceState::Completed) };
        self.report_when_removed = vec![report.action()];
        vec![self.remove(AfterRemoval::Completed { reported: false })]
    }

    pub(super) fn crashed(&mut self, exit: Exit, now_ms: i64, random: f64) -> Vec<Action> {
        let exit = crash::explained(exit);
        let fault = if exit.platform_fault { Fault::Platform } else { Fault::App };
        if self.healthy_since_ms.is_some_and(|since| now_ms - since >= crash::GOOD_RUN_MS) {
            self.crashes = 0;
        }
        self.healthy_since_ms = None;
        let delay_ms = if fault == Fault::App {
            self.crashes = self.crashes.saturating_add(1);
            crash::delay_ms(self.crashes, random)
        } else {
            self.cell_faults += 1;
            Some(crash::cell_fault_delay_ms(self.cell_faults))
        };
        let said = format!("crashed: {}", exit.reason);
        let mut report = Report {
            reason: exit.reason.clone(),
            exit: Some((exit, fault)),
            crash: true,
            ..Report::of(InstanceState::Crashed)
        };
        let (said, after) = match delay_ms {
            // It was to stop or drain anyway, and its replacement runs on another cell.
            _ if self.intent() != Intent::Run => (said, AfterRemoval::Stopped),
            None => {
                report.state = InstanceState::GivenUp;
                (format!("{said}; given up after {} crashes", self.crashes), AfterRemoval::GivenUp)
            }
            Some(0) => (said, AfterRemoval::Start),
            Some(delay) => {
                let said = format!("{said}; next start in {} s", (delay + 500) / 1000);
                (said, AfterRemoval::Wait { until_ms: now_ms + delay })
            }
        };
        vec![Action::Gate(false), report.action(), Action::Say(said), self.remove(after)]
    }
}
