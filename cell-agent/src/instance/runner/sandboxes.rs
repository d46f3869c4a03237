//! What an instance does to its sandbox: start, follow, permit, gate, stop, destroy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipway_chassis::clock;
use slipway_protocol::v1::{Assignment, WorkloadKind, WorkloadSpec};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Prepared, Runner, Signal, Supervisor};
use crate::instance::state::{Event, StartFault};
use crate::policies::PolicyError;
use crate::sandbox::{Exit, SandboxError, SandboxId, SandboxRuntime, SandboxSpec};
use crate::services::Services;
use crate::{staging, workload};

impl Runner {
    /// Gives a running sandbox the rules of the assignment's policy. One that starts just now looks again itself.
    pub(super) async fn permit(&self) {
        let policy = self.entry.assignment.egress_policy.clone();
        self.policy.send_replace(policy.clone());
        let Some(live) = self.services.live.get(self.id) else { return };
        // A sandbox that was found and is not yet known has no policy, and no spec to look into either.
        if policy.is_empty() {
            return;
        }
        permit(&self.services, live.id, &policy).await;
    }

    pub(super) async fn start(&mut self) {
        let Some(prepared) = self.prepared.clone() else {
            let fault = StartFault::Host("the instance was started before it was prepared".to_owned());
            self.signals.send(Signal { incarnation: None, event: Event::StartFailed(fault) }).ok();
            return;
        };
        let (id, assignment) = (self.sandbox(), self.entry.assignment.clone());
        let source = prepared.spec.log.clone().unwrap_or_default();
        let sidecars = prepared.spec.sidecars.iter().map(|one| one.name.clone()).collect();
        let (of, index, kind) = (self.id, assignment.index, assignment.kind());
        self.log(move |logs| logs.register(of, &source, index, kind, sidecars)).await;
        let policy = assignment.egress_policy.clone();
        self.policy.send_replace(policy.clone());
        if assignment.kind() == WorkloadKind::Build {
            self.started_with = policy;
            return self.build(prepared, assignment);
        }
        let egress = match self.services.policies.rules(&policy, &prepared.spec) {
            Ok(egress) => egress,
            Err(error) => {
                let text = slipway_chassis::chain(&error).to_string();
                let fault = match error {
                    PolicyError::Missing(_) => StartFault::Host(text),
                    PolicyError::Undecodable(..) | PolicyError::Rule(_) => StartFault::Invalid(text),
                };
                let event = Event::StartFailed(fault);
                self.signals.send(Signal { incarnation: Some(id.incarnation), event }).ok();
                return;
            }
        };
        self.started_with = policy;
        let setting = workload::Setting {
            config: &self.services.config,
            assignment: &assignment,
            id,
            address: self.services.runtime.address(assignment.slot),
            layers: prepared.layers.iter().map(|lease| lease.path().to_owned()).collect(),
            droplet_bytes: prepared.droplet_bytes(),
            log_directory: self.services.logs.ring(self.id),
            egress,
        };
        match workload::sandbox_spec(&prepared.spec, setting) {
            Ok(spec) => self.supervise(id, Some(spec)),
            Err(error) => {
                let event = Event::StartFailed(StartFault::Invalid(error.to_string()));
                self.signals.send(Signal { incarnation: Some(id.incarnation), event }).ok();
            }
        }
        self.say(starting(id.incarnation)).await;
    }

    pub(super) fn build(&mut self, prepared: Prepared, assignment: Assignment) {
        let cancel = CancellationToken::new();
        let incarnation = Some(self.entry.life.incarnation);
        let job = staging::Job {
            services: Arc::clone(&self.services),
            assignment,
            prepared,
            incarnation: self.entry.life.incarnation,
            cancel: cancel.clone(),
            policy: self.policy.subscribe(),
        };
        let send = self.signals.clone();
        let task = tokio::spawn(async move {
            send.send(Signal { incarnation, event: Event::Started }).ok();
            let result = staging::run(job).await;
            send.send(Signal { incarnation, event: Event::Built(Box::new(result)) }).ok();
        });
        self.supervisor =
            Some(Supervisor { stop: watch::Sender::new(None), cancel, _task: AbortOnDropHandle::new(task) });
    }

    pub(super) fn follow(&mut self) {
        self.supervise(self.sandbox(), None);
    }

    pub(super) fn supervise(&mut self, id: SandboxId, spec: Option<SandboxSpec>) {
        let stop = watch::Sender::new(None);
        let task = follow(Arc::clone(&self.services.runtime), id, spec, stop.subscribe(), self.signals.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        self.supervisor = Some(Supervisor { stop, cancel: CancellationToken::new(), _task: task });
    }

    pub(super) fn stop(&mut self) {
        self.monitor = None;
        self.watch = None;
        let grace = self.prepared.as_ref().map_or(0, |prepared| prepared.spec.stop_grace_ms);
        let grace = Duration::from_millis(if grace == 0 { 10_000 } else { u64::from(grace) });
        match &self.supervisor {
            Some(supervisor) => {
                supervisor.cancel.cancel();
                supervisor.stop.send_replace(Some(grace));
            }
            None => {
                // Nothing runs here: say so, or the instance would wait for ever.
                let exit = lost("no sandbox was being followed");
                self.signals.send(Signal { incarnation: None, event: Event::Exited(exit) }).ok();
            }
        }
    }

    /// What ended because its disk was full is told so, before the disk goes with the sandbox.
    pub(super) async fn report_full_disk(&self) {
        let id = self.sandbox();
        let Ok(used) = self.services.runtime.usage(id).await else { return };
        if let Some(text) = self.services.live.report_full_disk(id, used.disk_bytes) {
            self.say(text).await;
        }
    }

    /// Whether nothing of the sandbox is left.
    pub(super) async fn destroy(&mut self) -> bool {
        self.monitor = None;
        self.watch = None;
        self.supervisor = None;
        self.hold = None;
        self.services.live.remove(self.id);
        if self.entry.life.kind() == WorkloadKind::Build {
            return staging::clean(&self.services, self.id, self.entry.life.incarnation).await;
        }
        destroy(&*self.services.runtime, self.sandbox()).await
    }

    pub(super) async fn gate(&self, open: bool) -> bool {
        let slot = self.entry.assignment.slot;
        if slot == u32::MAX {
            return true;
        }
        let Err(error) = self.services.runtime.gate(slot, open).await else { return true };
        tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %self.id, open, "the gate was not set");
        // A gate that cannot be closed must not keep anybody from hearing of the crash.
        !open
    }
}

/// Gives a running sandbox the rules of a policy. A failure leaves the rules that it had.
pub async fn permit(services: &Services, id: SandboxId, policy: &Bytes) {
    let rules = match services.policies.rules(policy, &WorkloadSpec::default()) {
        Ok(rules) => rules,
        Err(error) => {
            tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %id.assignment, "egress rules were not changed");
            return;
        }
    };
    for pause in [50, 500, 0] {
        match services.runtime.permit(id, rules.clone()).await {
            // It ended meanwhile.
            Ok(()) | Err(SandboxError::Unknown(_)) => return,
            Err(error) if pause == 0 => {
                tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %id.assignment, "egress rules were not changed");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(pause)).await,
        }
    }
}

/// The start in the words of the app's log.
fn starting(incarnation: u64) -> String {
    if incarnation <= 1 { "starting".to_owned() } else { format!("starting again (start {incarnation})") }
}

fn lost(reason: &str) -> Exit {
    Exit {
        code: 1,
        signal: None,
        out_of_memory: false,
        reason: reason.to_owned(),
        platform_fault: true,
        at_unix_ms: clock::unix_ms(),
    }
}

/// Starts a sandbox (or finds it running), waits for its end, ends it when told to.
async fn follow(
    runtime: Arc<dyn SandboxRuntime>,
    id: SandboxId,
    spec: Option<SandboxSpec>,
    mut stop: watch::Receiver<Option<Duration>>,
    send: mpsc::UnboundedSender<Signal>,
) {
    let tell = |event| {
        send.send(Signal { incarnation: Some(id.incarnation), event }).ok();
    };
    if let Some(spec) = spec
        && let Err(error) = runtime.start(spec).await
    {
        tracing::warn!(error = %slipway_chassis::chain(&error), assignment.id = %id.assignment, "a sandbox did not start");
        let text = slipway_chassis::chain(&error).to_string();
        tell(Event::StartFailed(match error {
            SandboxError::Invalid(_) => StartFault::Invalid(text),
            SandboxError::Exhausted { .. } => StartFault::Exhausted(text),
            SandboxError::Host { .. } | SandboxError::Unknown(_) => StartFault::Host(text),
        }));
        return;
    }
    tell(Event::Started);
    // Waiting may be dropped and begun again. The sender of `stop` lives as long as this task.
    let exit = tokio::select! {
        exit = runtime.wait(id) => exit,
        Ok(grace) = wait_for_stop(&mut stop) => runtime.stop(id, grace).await,
    };
    tell(Event::Exited(
        exit.unwrap_or_else(|error| lost(&format!("the sandbox was lost: {}", slipway_chassis::chain(&error)))),
    ));
}

async fn wait_for_stop(stop: &mut watch::Receiver<Option<Duration>>) -> Result<Duration, watch::error::RecvError> {
    let grace = stop.wait_for(Option::is_some).await?;
    Ok(grace.unwrap_or_default())
}

/// Removes what is left of a sandbox; tries again, because a mount may be busy for a moment. Answers whether nothing is
/// left: when something is, its slot is not free.
pub async fn destroy(runtime: &dyn SandboxRuntime, id: SandboxId) -> bool {
    let mut pauses = [50, 200, 1000].into_iter();
    loop {
        match (runtime.destroy(id).await, pauses.next()) {
            (Ok(()) | Err(SandboxError::Unknown(_)), _) => return true,
            (Err(_), Some(pause)) => tokio::time::sleep(Duration::from_millis(pause)).await,
            (Err(error), None) => {
                tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %id.assignment, "a sandbox was not removed");
                return false;
            }
        }
    }
}
