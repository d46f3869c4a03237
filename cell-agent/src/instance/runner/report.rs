//! What an instance writes down and tells: observations, the journal, notices to the agent.

use std::sync::Arc;

use slipway_chassis::clock;
use slipway_protocol::v1::{ExitRecord, Observation, RestartState};

use super::{Notice, Runner};
use crate::instance::state::Report;
use crate::logs::Logs;
use crate::workload;

impl Runner {
    pub(super) async fn observe(&mut self, report: Report) {
        let services = Arc::clone(&self.services);
        let assignment = &self.entry.assignment;
        let spec = self.prepared.as_ref().map(|prepared| &prepared.spec);
        let shown = self.entry.life.has_sandbox().then_some(spec).flatten();
        let observation = Observation {
            counter: services.outbox.reserve(),
            assignment_id: self.id.to_string(),
            state: report.state.into(),
            ready: report.ready,
            endpoint: shown.and_then(|spec| {
                workload::endpoint(&services.config, services.runtime.address(assignment.slot), assignment.slot, spec)
            }),
            exit: report.exit.map(|(exit, fault)| ExitRecord {
                code: exit.code,
                signal: exit.signal.and_then(|signal| signal.try_into().ok()).unwrap_or(0),
                out_of_memory: exit.out_of_memory,
                reason: exit.reason,
                fault: fault.into(),
                at_unix_ms: if exit.at_unix_ms == 0 { clock::unix_ms() } else { exit.at_unix_ms },
            }),
            restart: Some(RestartState { crashes: self.entry.life.crashes, incarnation: self.entry.life.incarnation }),
            reason: report.reason,
            since_unix_ms: clock::unix_ms(),
            build: report.build,
            incarnation: self.entry.life.incarnation,
            memory_limit_mb: spec.map_or(0, |spec| spec.memory_mb),
            crash_event: report.crash,
            refusal: report.refusal.map_or(0, Into::into),
        };
        let superfluous = self.entry.push(observation.clone());
        self.persist().await;
        services.outbox.publish(observation);
        services.outbox.withdraw(&superfluous);
    }

    /// Answers whether it is on disk. A journal that cannot be written is no reason to stop serving or to be silent; it is
    /// tried again.
    pub(super) async fn persist(&mut self) -> bool {
        let (journal, id, entry) = (Arc::clone(&self.services.journal), self.id, self.entry.clone());
        let written = tokio::task::spawn_blocking(move || journal.write_entry(id, &entry)).await;
        self.unwritten = !matches!(written, Ok(Ok(())));
        if let Ok(Err(error)) = written {
            tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %self.id, "the journal was not written");
        }
        !self.unwritten
    }

    /// Tells the developer something, in the instance's log.
    pub(super) async fn say(&self, text: String) {
        let id = self.id;
        self.log(move |logs| logs.say(id, &text)).await;
    }

    /// Writes to the rings, away from the tasks. What fails there is reported there.
    pub(super) async fn log(&self, write: impl FnOnce(&Logs) + Send + 'static) {
        let logs = Arc::clone(&self.services.logs);
        tokio::task::spawn_blocking(move || write(&logs)).await.ok();
    }

    pub(super) async fn notice(&mut self) {
        let now = (self.entry.life.is_settled(), !self.entry.unacked.is_empty());
        if now.0 {
            self.prepared = None;
        }
        if self.said != Some(now) {
            if now.0 {
                let id = self.id;
                self.log(move |logs| logs.ended(id)).await;
            }
            self.said = Some(now);
            self.notices.send(Notice::Changed { id: self.id, settled: now.0, unacked: now.1 }).ok();
        }
    }

    pub(super) async fn forget(&mut self) {
        self.gone = true;
        for observation in &self.entry.unacked {
            self.services.outbox.release(observation.counter);
        }
        let (journal, id) = (Arc::clone(&self.services.journal), self.id);
        self.log(move |logs| logs.ended(id)).await;
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || journal.remove_entry(id)).await {
            tracing::warn!(error = %slipway_chassis::chain(&error), assignment.id = %self.id, "a journal entry was not removed");
        }
        self.notices.send(Notice::Forgotten(self.id)).ok();
    }
}
