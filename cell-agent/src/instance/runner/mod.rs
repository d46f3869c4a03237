//! The task that owns one instance: it feeds its pure life with what happens and does what the life says, one action
//! after the other. Everything that takes long runs beside it and answers by a [`Signal`].

mod report;
mod sandboxes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
pub use sandboxes::{destroy, permit};
use slipway_chassis::clock;
use slipway_protocol::v1::{Assignment, Refusal, WorkloadKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::cache::Hold;
use crate::instance::health::HealthMonitor;
use crate::instance::prepare::{Prepared, prepare};
use crate::instance::state::{Action, DesiredState, Event, FoundSandbox, Life, Phase, StartFault};
use crate::sandbox::SandboxId;
use crate::services::{Live, Services};
use crate::store::Entry;

/// Pause before a journal that could not be written is written again: a full disk has room again one day.
const JOURNAL_RETRY: Duration = Duration::from_secs(5);

/// What the agent asks of an instance. The sender is answered once the journal holds it, and dropped when it cannot.
#[derive(Debug)]
pub enum Command {
    /// The assignment was changed.
    Assign(Box<Assignment>, oneshot::Sender<()>),
    /// Stop and forget.
    Purge,
    /// Observations up to this number are recorded.
    Acked(u64),
    /// Say again where it is.
    Report,
    /// Remove every trace; it is settled.
    Forget,
}

/// How an instance begins.
#[derive(Debug)]
pub enum Origin {
    /// A new assignment; answered once the journal holds it, dropped when it cannot.
    New(Assignment, oneshot::Sender<()>),
    /// A new assignment that this cell cannot run.
    Refused(Assignment, Refusal, String, oneshot::Sender<()>),
    /// From the journal.
    Journal(Entry, FoundSandbox),
    /// Found on the host, or with a damaged journal entry.
    Unknown {
        /// The slot, when a sandbox was found.
        slot: Option<u32>,
        /// Its incarnation.
        incarnation: u64,
        /// Its state.
        found: FoundSandbox,
    },
}

/// What an instance tells the agent.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// It moved on.
    Changed {
        /// Which one.
        id: Uuid,
        /// Nothing of it runs or will.
        settled: bool,
        /// It has observations that nobody has acknowledged.
        unacked: bool,
    },
    /// No trace of it is left.
    Forgotten(Uuid),
}

/// News from something that runs beside the owner; of one incarnation, or of none.
#[derive(Debug)]
pub struct Signal {
    /// News of an incarnation that is no longer the current one is dropped.
    pub incarnation: Option<u64>,
    /// What happened.
    pub event: Event,
}

enum Inner {
    Signal(Signal),
    Prepared(Result<Prepared, (Refusal, String)>),
}

struct Runner {
    id: Uuid,
    services: Arc<Services>,
    entry: Entry,
    prepared: Option<Prepared>,
    /// While something runs whose layers are not known.
    hold: Option<Hold>,
    preparing: Option<AbortOnDropHandle<()>>,
    supervisor: Option<Supervisor>,
    monitor: Option<AbortOnDropHandle<()>>,
    /// Health checks begin once the program was executed.
    watch: Option<(bool, bool)>,
    signals: mpsc::UnboundedSender<Signal>,
    preparations: mpsc::UnboundedSender<Result<Prepared, (Refusal, String)>>,
    notices: mpsc::UnboundedSender<Notice>,
    said: Option<(bool, bool)>,
    /// Id of the egress policy that the last start was given.
    started_with: Bytes,
    /// Id of the egress policy in force, which builds follow while they run.
    policy: watch::Sender<Bytes>,
    /// The journal does not hold what is true now.
    unwritten: bool,
    gone: bool,
}

/// The task that follows one sandbox, or one build.
struct Supervisor {
    stop: watch::Sender<Option<Duration>>,
    cancel: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

fn wanted(assignment: &Assignment) -> DesiredState {
    let restart = assignment.restart.unwrap_or_default();
    DesiredState {
        kind: assignment.kind(),
        intent: assignment.intent(),
        attempt: assignment.attempt,
        nonce: assignment.restart_nonce,
        crashes: restart.crashes,
        incarnation: restart.incarnation,
    }
}

/// Runs one instance until it is forgotten or the agent stops; the sandbox outlives the agent.
pub async fn run(
    id: Uuid,
    services: Arc<Services>,
    origin: Origin,
    mut commands: mpsc::UnboundedReceiver<Command>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    #[expect(clippy::disallowed_methods, reason = "one signal for each change of health or end of a process")]
    let (signals, mut heard) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "one message for each preparation, and one runs at a time")]
    let (preparations, mut ready) = mpsc::unbounded_channel();
    let shutdown = services.shutdown.clone();
    let mut runner = Runner {
        id,
        services,
        entry: Entry { assignment: Assignment::default(), life: Life::unknown(0), unacked: Vec::new() },
        prepared: None,
        hold: None,
        preparing: None,
        supervisor: None,
        monitor: None,
        watch: None,
        signals,
        preparations,
        notices,
        said: None,
        started_with: Bytes::new(),
        policy: watch::Sender::default(),
        unwritten: false,
        gone: false,
    };
    runner.begin(origin).await;
    while !runner.gone {
        // Receiving loses nothing when an arm is dropped. Commands first: a stop must not wait behind health news.
        let inner = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            command = commands.recv() => {
                let Some(command) = command else { return };
                runner.command(command).await;
                continue;
            }
            Some(prepared) = ready.recv() => Inner::Prepared(prepared),
            Some(signal) = heard.recv() => Inner::Signal(signal),
            () = tokio::time::sleep(JOURNAL_RETRY), if runner.unwritten => {
                runner.persist().await;
                continue;
            }
        };
        runner.inner(inner).await;
    }
}

impl Runner {
    async fn begin(&mut self, origin: Origin) {
        match origin {
            Origin::New(assignment, written) => {
                self.entry.life = Life::new(wanted(&assignment));
                self.entry.assignment = assignment;
                if self.persist().await {
                    written.send(()).ok();
                }
                self.step(Event::Begin).await;
            }
            Origin::Refused(assignment, refusal, reason, written) => {
                self.entry.life = Life::new(wanted(&assignment));
                self.entry.assignment = assignment;
                self.step(Event::Refused(refusal, reason)).await;
                if !self.unwritten {
                    written.send(()).ok();
                }
            }
            Origin::Journal(entry, found) => {
                self.entry = entry;
                let found = self.end_build(found).await;
                self.pin(&found);
                let earlier = self.entry.unacked.iter().map(|observation| observation.counter).max().unwrap_or(0);
                self.step(Event::Recovered(found)).await;
                // Told only after the gate is as the journal says, and only what was not made superfluous by that step.
                for observation in self.entry.unacked.iter().filter(|observation| observation.counter <= earlier) {
                    self.services.outbox.publish(observation.clone());
                }
                let wanted = wanted(&self.entry.assignment);
                if !self.entry.life.has_heard(&wanted) {
                    self.step(Event::Assigned(wanted)).await;
                }
            }
            Origin::Unknown { slot, incarnation, found } => {
                self.entry.life = Life::unknown(incarnation);
                self.entry.assignment =
                    Assignment { id: self.id.to_string(), slot: slot.unwrap_or(u32::MAX), ..Assignment::default() };
                self.pin(&found);
                self.step(Event::Recovered(found)).await;
            }
        }
    }

    /// A build cannot be followed: its steps were in the agent that is gone.
    async fn end_build(&mut self, found: FoundSandbox) -> FoundSandbox {
        if self.entry.life.kind() != WorkloadKind::Build || found == FoundSandbox::Gone {
            return found;
        }
        if let Err(error) = self.services.runtime.stop(self.sandbox(), Duration::ZERO).await {
            tracing::warn!(error = %slipway_chassis::chain(&error), assignment.id = %self.id, "a build was not ended");
        }
        if self.destroy().await || !self.entry.life.is_settled() {
            // What could not be removed is removed by the steps that follow.
            return FoundSandbox::Gone;
        }
        found
    }

    /// A running instance's layers must not be dropped from the cache.
    fn pin(&mut self, found: &FoundSandbox) {
        let digest = &self.entry.assignment.spec_digest;
        if let Ok(Some(spec)) = self.services.specs.here(digest) {
            let layers = self.services.cache.pin(&spec);
            self.prepared = Some(Prepared { spec: Arc::new(spec), layers });
        } else if *found == FoundSandbox::Running {
            // Which ones it runs on is in a spec that must first be fetched.
            self.hold = Some(self.services.cache.hold());
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Assign(assignment, written) => {
                let wanted = wanted(&assignment);
                let was_unknown = self.entry.life.kind() == WorkloadKind::Unspecified;
                let changed = assignment.spec_digest != self.entry.assignment.spec_digest;
                let repolicied = assignment.egress_policy != self.entry.assignment.egress_policy;
                self.entry.assignment = *assignment;
                if changed && !self.entry.life.has_sandbox() {
                    self.prepared = None;
                }
                if self.persist().await {
                    written.send(()).ok();
                }
                if repolicied {
                    self.permit().await;
                }
                self.step(Event::Assigned(wanted)).await;
                if was_unknown && self.entry.life.has_sandbox() && self.entry.life.kind() == WorkloadKind::Lrp {
                    // Now it is known what the found sandbox is: begin its checks.
                    self.watch = Some((false, false));
                    self.prepare();
                }
            }
            Command::Purge => self.step(Event::Purge).await,
            Command::Acked(counter) => {
                self.entry.unacked.retain(|observation| observation.counter > counter);
                self.notice().await;
            }
            Command::Report => {
                let report = self.entry.life.report();
                self.observe(report).await;
            }
            Command::Forget => self.forget().await,
        }
    }

    async fn inner(&mut self, inner: Inner) {
        match inner {
            Inner::Signal(Signal { incarnation, event }) => {
                if incarnation.is_some_and(|incarnation| incarnation != self.entry.life.incarnation) {
                    return;
                }
                if matches!(event, Event::Exited(_)) {
                    self.report_full_disk().await;
                }
                if event == Event::Started {
                    self.started();
                    if self.started_with != self.entry.assignment.egress_policy {
                        self.permit().await;
                    }
                }
                self.step(event).await;
            }
            Inner::Prepared(Ok(prepared)) => {
                self.preparing = None;
                self.prepared = Some(prepared);
                self.hold = None;
                if self.entry.life.phase == Phase::Preparing {
                    self.step(Event::Prepared).await;
                } else {
                    // Adopted without its spec: what it may take was not known until now.
                    if self.services.live.get(self.id).is_some() {
                        self.services.live.insert(self.live());
                    }
                    self.begin_watch();
                }
            }
            Inner::Prepared(Err((refusal, reason))) => {
                self.preparing = None;
                if self.entry.life.phase == Phase::Preparing {
                    self.step(Event::Refused(refusal, reason)).await;
                }
            }
        }
    }

    async fn step(&mut self, event: Event) {
        let random = rand::rng().random_range(0.0..1.0);
        let mut written = true;
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.entry.life.clone();
            let actions = self.entry.life.step(event, clock::unix_ms(), random);
            written &= before == self.entry.life;
            let mut silent = false;
            for action in actions {
                match action {
                    Action::Start => {
                        // "Started" must be on disk before it is true: a task never starts twice.
                        written = true;
                        if self.persist().await || !self.entry.life.once() {
                            self.start().await;
                        } else {
                            let fault =
                                "the cell's journal cannot be written: nothing would keep it from running twice";
                            next = Some(Event::StartFailed(StartFault::Host(fault.to_owned())));
                        }
                    }
                    Action::Observe(_) | Action::Say(_) if silent => {}
                    Action::Observe(report) => {
                        self.observe(*report).await;
                        written = true;
                    }
                    Action::Gate(open) => {
                        if !self.gate(open).await {
                            // What is told after it would be a lie; what is done after it is right all the same.
                            silent = true;
                            next = Some(Event::GateFailed);
                        }
                    }
                    Action::Destroy => {
                        if !written && self.entry.life.once() {
                            // The sandbox's record of how it ended goes with it.
                            self.persist().await;
                            written = true;
                        }
                        let removed = self.destroy().await;
                        next = Some(if removed { Event::Removed } else { Event::NotRemoved });
                    }
                    other => self.act(other).await,
                }
            }
        }
        if !self.gone {
            if !written {
                self.persist().await;
            }
            self.notice().await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Prepare => self.prepare(),
            Action::Abandon => self.preparing = None,
            Action::Follow => {
                // What was adopted has the rules of its record; the journal may be ahead of that.
                self.services.live.insert(self.live());
                self.permit().await;
                self.follow();
            }
            Action::Watch { healthy, ready } => self.watch = Some((healthy, ready)),
            Action::Stop => self.stop(),
            Action::Wake(at_ms) => self.wake(at_ms),
            Action::Say(text) => self.say(text).await,
            Action::Forget => self.forget().await,
            Action::Start | Action::Observe(_) | Action::Gate(_) | Action::Destroy => {}
        }
    }

    fn sandbox(&self) -> SandboxId {
        SandboxId { assignment: self.id, incarnation: self.entry.life.incarnation }
    }

    fn prepare(&mut self) {
        if let Some(prepared) = self.prepared.clone() {
            self.preparations.send(Ok(prepared)).ok();
            return;
        }
        let (services, assignment) = (Arc::clone(&self.services), self.entry.assignment.clone());
        let send = self.preparations.clone();
        self.preparing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            send.send(prepare(&services, &assignment).await).ok();
        })));
    }

    fn started(&mut self) {
        self.services.live.insert(self.live());
        self.begin_watch();
    }

    /// What usage reports need to know; of one that was adopted, as far as its spec is here.
    fn live(&self) -> Live {
        let spec = self.prepared.as_ref().map(|prepared| &prepared.spec);
        Live {
            id: self.sandbox(),
            droplet_bytes: self.prepared.as_ref().map_or(0, Prepared::droplet_bytes),
            memory_mb: spec.map_or(0, |spec| spec.memory_mb),
            disk_mb: spec.map_or(0, |spec| spec.disk_mb),
        }
    }

    /// Begins health checks, once the program runs and the spec says how.
    fn begin_watch(&mut self) {
        let Some(prepared) = &self.prepared else {
            if self.watch.is_some() {
                // Adopted, and the spec must first be fetched again.
                self.prepare();
            }
            return;
        };
        let Some((healthy, ready)) = self.watch.take() else { return };
        let monitor = HealthMonitor {
            runtime: Arc::clone(&self.services.runtime),
            id: self.sandbox(),
            slot: self.entry.assignment.slot,
            spec: Arc::clone(&prepared.spec),
            healthy,
            ready,
        };
        self.monitor = Some(AbortOnDropHandle::new(tokio::spawn(monitor.run(self.signals.clone()))));
    }

    fn wake(&self, at_ms: i64) {
        let pause = Duration::from_millis(u64::try_from(at_ms - clock::unix_ms()).unwrap_or(0));
        let send = self.signals.clone();
        // Ends by itself; a wake-up that is no longer wanted does nothing.
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            send.send(Signal { incarnation: None, event: Event::Timer }).ok();
        });
    }
}
