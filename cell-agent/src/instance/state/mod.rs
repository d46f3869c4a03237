//! The life of one instance, without I/O: `(state, event, now, random) -> (state, actions)`.
//!
//! The rules that matter: the gate opens before anybody is told "ready" and closes before anybody is told otherwise;
//! only the app's own faults count against it; a task or build never starts twice in one attempt; nothing but an
//! explicit STOP or a purge ends an instance.

mod ends;
mod events;
mod recovery;
mod removal;

use events::observe;
use serde::{Deserialize, Serialize};
use slipway_protocol::v1::{InstanceState, Intent, Refusal, WorkloadKind};

use crate::sandbox::Exit;
pub use events::{Action, DesiredState, Event, FoundSandbox, Report, StartFault};

/// Cell faults in a row after which the cell says that it cannot run this.
const MAX_CELL_FAULTS: u32 = 5;
/// Pause before a gate that could not be opened is tried again.
const GATE_RETRY_MS: i64 = 1000;

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was done yet.
    New,
    /// Spec, layers and droplet are being fetched.
    Preparing,
    /// The sandbox starts, or runs and is not healthy yet.
    Starting,
    /// Healthy.
    Running {
        /// May take traffic; the gate is open.
        ready: bool,
    },
    /// The sandbox was told to end.
    Stopping(AfterStop),
    /// It has ended, and what is left of it is being removed. Its slot is in use for so long.
    Removing {
        /// What follows.
        after: AfterRemoval,
        /// Tries that failed.
        tries: u32,
        /// Unix milliseconds of the next try.
        until_ms: i64,
    },
    /// Waiting before the next start.
    Backoff {
        /// Unix milliseconds of the next start.
        until_ms: i64,
    },
    /// Crashed too often.
    GivenUp,
    /// Ended on an explicit intent; nothing is left.
    Stopped,
    /// A task or build ended by itself.
    Completed,
    /// This cell cannot run it; nothing is left.
    Refused,
}

/// What follows when a sandbox that was told to end has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterStop {
    /// It stays stopped.
    Stopped,
    /// It is forgotten: the controller does not know it.
    Forgotten,
    /// The incarnation is replaced; not a crash.
    Restart,
    /// It counts as a crash with this reason (unhealthy, never listened).
    Crash(String),
}

/// What follows when nothing is left of a sandbox that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterRemoval {
    /// It stays stopped.
    Stopped,
    /// It is forgotten.
    Forgotten,
    /// The next incarnation starts.
    Start,
    /// The next incarnation starts later.
    Wait {
        /// Unix milliseconds.
        until_ms: i64,
    },
    /// It has crashed too often.
    GivenUp,
    /// A task or build has ended.
    Completed {
        /// And that was reported. Journals have the older name.
        #[serde(rename = "told")]
        reported: bool,
    },
    /// This cell cannot run it, which was reported.
    Refused,
}

/// Everything the core knows of an instance. Written to the journal after each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    kind: i32,
    intent: i32,
    /// Where it is.
    pub phase: Phase,
    /// Starts so far; names the current sandbox.
    pub incarnation: u64,
    /// App faults since the last five minutes of good running.
    pub crashes: u32,
    cell_faults: u32,
    attempt: u32,
    /// A sandbox of this attempt was started, or may have been.
    spent: bool,
    nonce: u64,
    /// Unix milliseconds of becoming healthy; five minutes later earlier crashes are forgotten.
    healthy_since_ms: Option<i64>,
    /// How a task ended, until that is reported: the sandbox's own record is removed with the sandbox.
    #[serde(default)]
    ended: Option<Exit>,
    /// Reports about a task or build, sent once its slot is free. Not in the journal: made again from `ended`.
    #[serde(skip)]
    report_when_removed: Vec<Action>,
    /// Its check says "ready" and the gate could not be opened. Not in the journal: an adopted instance is asked again.
    #[serde(skip)]
    gate_failed: bool,
}

impl Life {
    /// The life of a new assignment.
    #[must_use]
    pub fn new(wanted: DesiredState) -> Self {
        Self {
            kind: wanted.kind as i32,
            intent: wanted.intent as i32,
            phase: Phase::New,
            incarnation: wanted.incarnation,
            crashes: wanted.crashes,
            cell_faults: 0,
            attempt: wanted.attempt,
            spent: false,
            nonce: wanted.nonce,
            healthy_since_ms: None,
            ended: None,
            report_when_removed: Vec::new(),
            gate_failed: false,
        }
    }

    /// The life of something that was found on the host, or whose journal entry is damaged: what it is is not known
    /// until a set says so, and whatever it was, it may have been started.
    #[must_use]
    pub fn unknown(incarnation: u64) -> Self {
        Self {
            kind: WorkloadKind::Unspecified as i32,
            intent: Intent::Run as i32,
            phase: Phase::Starting,
            incarnation,
            crashes: 0,
            cell_faults: 0,
            attempt: 0,
            spent: true,
            nonce: 0,
            healthy_since_ms: None,
            ended: None,
            report_when_removed: Vec::new(),
            gate_failed: false,
        }
    }

    /// Kind of workload; unspecified while only the sandbox is known.
    #[must_use]
    pub fn kind(&self) -> WorkloadKind {
        WorkloadKind::try_from(self.kind).unwrap_or(WorkloadKind::Unspecified)
    }

    /// What is wanted of it.
    #[must_use]
    pub fn intent(&self) -> Intent {
        Intent::try_from(self.intent).unwrap_or(Intent::Unspecified)
    }

    /// Nothing of it runs and nothing will, unless the assignment changes.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Completed | Phase::Refused)
    }

    /// A sandbox exists or is being made.
    #[must_use]
    pub fn has_sandbox(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running { .. } | Phase::Stopping(_))
    }

    /// It runs at most once in an attempt.
    #[must_use]
    pub fn once(&self) -> bool {
        self.kind() != WorkloadKind::Lrp
    }

    /// Whether all of this has been taken in. The journal may hold an assignment that the life has not heard of: the agent
    /// was killed in between, and no set will tell it again.
    #[must_use]
    pub fn has_heard(&self, wanted: &DesiredState) -> bool {
        (wanted.intent == Intent::Unspecified || wanted.intent == self.intent())
            && wanted.attempt <= self.attempt
            && (wanted.nonce <= self.nonce || self.once())
    }

    /// The state as it would be reported now, without details.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report::of(match &self.phase {
            Phase::New | Phase::Preparing => InstanceState::Preparing,
            Phase::Starting => InstanceState::Starting,
            Phase::Running { .. } | Phase::Stopping(_) => InstanceState::Running,
            Phase::Backoff { .. } => InstanceState::Crashed,
            Phase::GivenUp => InstanceState::GivenUp,
            Phase::Stopped => InstanceState::Stopped,
            Phase::Completed => InstanceState::Completed,
            Phase::Refused => InstanceState::Refused,
            Phase::Removing { after, .. } => Self::removing_as(after),
        });
        report.ready = matches!(self.phase, Phase::Running { ready: true });
        report
    }

    /// One step. `random` is in `0.0..1.0`.
    pub fn step(&mut self, event: Event, now_ms: i64, random: f64) -> Vec<Action> {
        match event {
            Event::Begin => self.begin(),
            Event::Recovered(found) => self.recovered(found, now_ms, random),
            Event::Assigned(wanted) => self.assigned(wanted),
            Event::Purge => self.end(AfterStop::Forgotten),
            Event::Prepared => self.prepared(),
            Event::Refused(refusal, reason) => self.refused(refusal, reason),
            Event::StartFailed(fault) => self.start_failed(fault, now_ms),
            Event::Started => self.started(),
            Event::Healthy { ready } => self.healthy(ready, now_ms),
            Event::Readiness(ready) => {
                // Newer than what a gate that failed was to be opened for.
                self.gate_failed = false;
                self.readiness(ready)
            }
            Event::Trouble(reason) => self.trouble(reason),
            Event::Unhealthy(reason) => self.unhealthy(reason),
            Event::Exited(exit) => self.exited(exit, now_ms, random),
            Event::Built(result) => self.built(*result),
            Event::Timer => self.timer(now_ms),
            Event::GateFailed => self.gate_failed(now_ms),
            Event::Removed => self.removed(),
            Event::NotRemoved => self.not_removed(now_ms),
        }
    }

    fn begin(&mut self) -> Vec<Action> {
        match self.intent() {
            Intent::Stop | Intent::Drain | Intent::Run => self.prepare(),
            Intent::Unspecified => {
                self.refused(Refusal::SpecInvalid, "the assignment does not say what is wanted of it".to_owned())
            }
        }
    }

    fn prepare(&mut self) -> Vec<Action> {
        if self.intent() != Intent::Run {
            // It is to stop or drain: nothing is started any more.
            self.phase = Phase::Stopped;
            return vec![observe(InstanceState::Stopped)];
        }
        if self.once() && self.spent {
            return self.attempt_spent();
        }
        self.phase = Phase::Preparing;
        vec![observe(InstanceState::Preparing), Action::Prepare]
    }

    fn prepared(&mut self) -> Vec<Action> {
        if self.phase != Phase::Preparing {
            return Vec::new();
        }
        self.phase = Phase::Starting;
        self.incarnation += 1;
        self.spent = true;
        self.healthy_since_ms = None;
        self.ended = None;
        self.gate_failed = false;
        let mut actions = vec![Action::Gate(false), observe(InstanceState::Starting), Action::Start];
        if self.kind() == WorkloadKind::Lrp {
            actions.push(Action::Watch { healthy: false, ready: false });
        }
        actions
    }

    /// Tasks and builds have no health: they run as soon as they started.
    fn started(&mut self) -> Vec<Action> {
        let runs = matches!(self.kind(), WorkloadKind::Task | WorkloadKind::Build) && self.phase == Phase::Starting;
        if !runs {
            return Vec::new();
        }
        self.phase = Phase::Running { ready: false };
        vec![self.report().action()]
    }

    fn healthy(&mut self, ready: bool, now_ms: i64) -> Vec<Action> {
        if self.phase != Phase::Starting {
            return Vec::new();
        }
        self.cell_faults = 0;
        self.healthy_since_ms = Some(now_ms);
        self.phase = Phase::Running { ready };
        let mut actions = Vec::new();
        if ready {
            actions.push(Action::Gate(true));
        }
        actions.push(self.report().action());
        actions.push(Action::Say("healthy".to_owned()));
        actions
    }

    fn readiness(&mut self, now_ready: bool) -> Vec<Action> {
        match &mut self.phase {
            Phase::Running { ready } if *ready != now_ready => *ready = now_ready,
            _ => return Vec::new(),
        }
        let said = if now_ready { "ready for traffic" } else { "not ready for traffic" };
        vec![Action::Gate(now_ready), self.report().action(), Action::Say(said.to_owned())]
    }

    /// Nobody may be told "ready" while the gate is closed; a while later it is tried again.
    fn gate_failed(&mut self, now_ms: i64) -> Vec<Action> {
        let Phase::Running { ready } = &mut self.phase else { return Vec::new() };
        *ready = false;
        let first = !std::mem::replace(&mut self.gate_failed, true);
        let mut actions = vec![Action::Wake(now_ms + GATE_RETRY_MS)];
        if first {
            actions.push(self.report().action());
        }
        actions
    }

    /// Told while there is time to do something about it: in the app's log, and as the reason why it starts for so long.
    fn trouble(&self, reason: String) -> Vec<Action> {
        if self.phase != Phase::Starting {
            return Vec::new();
        }
        let report = Report { reason: reason.clone(), ..self.report() };
        vec![report.action(), Action::Say(reason)]
    }

    fn unhealthy(&mut self, reason: String) -> Vec<Action> {
        let was_ready = match self.phase {
            Phase::Starting => false,
            Phase::Running { ready } => ready,
            _ => return Vec::new(),
        };
        let mut actions = vec![Action::Gate(false)];
        if was_ready {
            // Routers are told at once; the crash is reported when the sandbox has ended.
            actions.push(Report { reason: reason.clone(), ..Report::of(InstanceState::Running) }.action());
        }
        actions.push(Action::Say(format!("stopping: {reason}")));
        actions.push(Action::Stop);
        self.phase = Phase::Stopping(AfterStop::Crash(reason));
        actions
    }

    fn assigned(&mut self, wanted: DesiredState) -> Vec<Action> {
        let was_unknown = self.kind() == WorkloadKind::Unspecified;
        self.kind = wanted.kind as i32;
        if was_unknown {
            self.attempt = wanted.attempt;
            self.nonce = wanted.nonce;
            self.crashes = self.crashes.max(wanted.crashes);
            self.incarnation = self.incarnation.max(wanted.incarnation);
        }
        // An intent this version does not know changes nothing: what runs goes on.
        if wanted.intent != Intent::Unspecified {
            self.intent = wanted.intent as i32;
        }
        if self.intent() == Intent::Stop {
            return self.end(AfterStop::Stopped);
        }
        if self.once() && wanted.attempt > self.attempt {
            self.attempt = wanted.attempt;
            if self.is_settled() {
                self.spent = false;
                return self.prepare();
            }
            if let Phase::Removing { after: after @ (AfterRemoval::Stopped | AfterRemoval::Completed { .. }), .. } =
                &mut self.phase
            {
                self.spent = false;
                *after = AfterRemoval::Start;
                return Vec::new();
            }
        }
        let replace = wanted.nonce > self.nonce && !self.once();
        self.nonce = self.nonce.max(wanted.nonce);
        match &self.phase {
            _ if self.intent() != Intent::Run => Vec::new(),
            // What was found and could not be named before ended meanwhile, or never was there.
            Phase::Completed if was_unknown || self.kind() == WorkloadKind::Lrp => self.prepare(),
            Phase::Starting | Phase::Running { .. } if replace => {
                self.phase = Phase::Stopping(AfterStop::Restart);
                vec![
                    Action::Gate(false),
                    self.report().action(),
                    Action::Say("restarting on request".to_owned()),
                    Action::Stop,
                ]
            }
            Phase::Backoff { .. } | Phase::GivenUp if replace => {
                self.crashes = 0;
                self.prepare()
            }
            Phase::Removing { after: AfterRemoval::Wait { .. } | AfterRemoval::GivenUp, tries, until_ms }
                if replace =>
            {
                self.crashes = 0;
                self.phase = Phase::Removing { after: AfterRemoval::Start, tries: *tries, until_ms: *until_ms };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn timer(&mut self, now_ms: i64) -> Vec<Action> {
        match self.phase {
            Phase::Backoff { until_ms } if now_ms >= until_ms => self.prepare(),
            Phase::Removing { until_ms, .. } if now_ms >= until_ms => vec![Action::Destroy],
            Phase::Backoff { until_ms } | Phase::Removing { until_ms, .. } => vec![Action::Wake(until_ms)],
            Phase::Running { ready: false } if self.gate_failed => self.readiness(true),
            _ => Vec::new(),
        }
    }
}
