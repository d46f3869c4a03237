//! One cell's session: hello both ways, the whole set at each change, observations to the recorder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::CellId;
use slipway_chassis::chain;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1;
use slipway_protocol::v1::cell_command::Command;
use slipway_protocol::v1::cell_message::Message;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::observation;
use super::queries::peer_name;
use super::recorder::{Out, Submission, is_end};
use super::service::CellServiceDeps;
use crate::sessions::hello::{check_hello, digest_of, raise_epoch};
use crate::sessions::peer::{Endpoints, Peer};
use crate::sessions::{self, unavailable};
use slipway_placement::{CellBatch, CellRegistration};

/// How often this end says that it lives, and reads the set again in case a wake was lost while the store was away.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence of the cell that ends its session. Shorter ends sessions of hosts that are only busy.
const SILENCE: Duration = Duration::from_secs(15);
/// Largest host that slots can address.
const MAX_SLOTS: u32 = 4_096;

/// Runs a session to its end and says why it ended.
pub(super) async fn run(parts: Arc<CellServiceDeps>, peer: Peer, stream: Streaming<v1::CellMessage>, out: Out) {
    let cell = CellId(peer.id);
    let mut session = CellSession {
        cell,
        peer,
        endpoints: None,
        session: Uuid::nil(),
        out: out.clone(),
        held: None,
        last_counter: 0,
        batches: 0,
        heard: Instant::now(),
        stale: false,
        parts,
    };
    match session.hold(stream).await {
        Ok(()) => tracing::info!(cell.id = %cell, "a cell's session ended"),
        Err(status) => {
            tracing::warn!(cell.id = %cell, reason = status.message(), "a cell's session was ended");
            drop(out.try_send(Err(status)));
        }
    }
}

struct CellSession {
    parts: Arc<CellServiceDeps>,
    cell: CellId,
    peer: Peer,
    /// Where its instances can be; known from its hello.
    endpoints: Option<Endpoints>,
    session: Uuid,
    out: Out,
    /// Digest of the set that the cell has or was sent, with the epoch it belongs to.
    held: Option<(u64, SetDigest)>,
    last_counter: u64,
    batches: u64,
    heard: Instant,
    /// The set could not be read: try again at the next beat.
    stale: bool,
}

impl CellSession {
    async fn hold(&mut self, mut stream: Streaming<v1::CellMessage>) -> Result<(), Status> {
        let first = sessions::first_message(&mut stream).await?;
        let Some(v1::CellMessage { message: Some(Message::Hello(hello)) }) = first else {
            return Err(Status::failed_precondition("the first message of a session must be a hello"));
        };
        let registration = self.check(&hello)?;
        self.endpoints = hello.cell.as_ref().map(|info| self.peer.endpoints(info)).transpose()?;
        self.session = registration.session;
        let arrival = self.parts.common.cells.arrive(self.cell);
        self.register(&hello, &registration).await?;

        self.parts.common.directory.set(peer_name(self.cell.0), &registration.query_address);
        let wake = self.parts.common.cells.enter(self.cell, self.session);
        drop(arrival);
        self.parts.common.context.wake.liveness.wake();
        self.parts.common.context.wake.tail.wake();
        tracing::info!(cell.id = %self.cell, zone = registration.zone, version = hello.binary_version, "a cell has a session");
        let result = self.serve(&mut stream, &wake).await;
        self.parts.common.cells.leave(self.cell, &wake);
        self.parts.common.context.wake.liveness.wake();
        result
    }

    async fn serve(&mut self, stream: &mut Streaming<v1::CellMessage>, wake: &Notify) -> Result<(), Status> {
        let shutdown = self.parts.common.shutdown.clone();
        let mut leading: watch::Receiver<Option<i64>> = self.parts.leading.clone();
        let mut report_here = leading.borrow_and_update().is_some();
        self.send(Command::Reporter(v1::Reporter { report_here })).await?;
        self.push_set().await?;
        let mut members = self.parts.members.clone();
        members.mark_changed();
        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut number = 0;
        loop {
            // `message` keeps what it has read when dropped; the other arms hold nothing. Shutdown first, so that a
            // talkative cell cannot delay it.
            tokio::select! {
                biased;
                () = shutdown.requested() => return Err(Status::unavailable("the controller is stopping")),
                () = wake.notified() => self.push_set().await?,
                message = stream.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.heard = Instant::now();
                    self.take(message).await?;
                    // Waiting for the store is not the cell's silence.
                    self.heard = Instant::now();
                }
                changed = leading.changed() => {
                    if changed.is_ok() && leading.borrow_and_update().is_some() != report_here {
                        report_here = !report_here;
                        self.send(Command::Reporter(v1::Reporter { report_here })).await?;
                    }
                }
                Ok(()) = members.changed() => {
                    let current = members.borrow_and_update().clone();
                    if let Some(current) = current {
                        self.send(Command::Members((*current).clone())).await?;
                    }
                }
                _ = beat.tick() => {
                    if self.heard.elapsed() > SILENCE {
                        return Err(Status::deadline_exceeded("the cell said nothing for 15 s"));
                    }
                    number += 1;
                    self.send(Command::Heartbeat(v1::Heartbeat { number })).await?;
                    if self.stale {
                        self.push_set().await?;
                    }
                }
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn check(&self, hello: &v1::Hello) -> Result<CellRegistration, Status> {
        check_hello(hello, self.parts.common.context.config.cluster_id, self.cell.0)?;
        let bad = |what: String| Status::invalid_argument(format!("hello: {what}"));
        let info = hello.cell.as_ref().ok_or_else(|| bad("a cell must describe itself".to_owned()))?;
        if !(1..=MAX_SLOTS).contains(&info.slots) {
            return Err(bad(format!("{} slots; a cell has 1 to {MAX_SLOTS}", info.slots)));
        }
        if info.zone.is_empty() || info.memory_mb == 0 {
            return Err(bad("zone and memory must be set".to_owned()));
        }
        Ok(CellRegistration {
            id: self.cell,
            session: hello.session.parse().map_err(|_| bad(format!("session {:?} is no uuid", hello.session)))?,
            shown: hello.version.unwrap_or_default(),
            boot_id: hello.boot_id.clone(),
            binary_version: hello.binary_version.clone(),
            zone: info.zone.clone(),
            tags: info.tags.iter().cloned().collect::<BTreeSet<_>>(),
            segment: Some(info.isolation_segment.trim().to_owned())
                .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("shared")),
            stacks: info.stacks.iter().cloned().collect::<BTreeSet<_>>(),
            memory_mb: info.memory_mb,
            disk_mb: info.disk_mb,
            slots: u16::try_from(info.slots).unwrap_or(u16::MAX),
            query_address: self.peer.query_address(&info.query_address)?,
            architecture: info.architecture.clone(),
            cgroup_mode: info.cgroup_mode.clone(),
            disk_quota_mode: info.disk_quota_mode.clone(),
            advertise_mode: info.advertise_mode.clone(),
            advertise_host: info.advertise_host.clone(),
        })
    }

    async fn register(&mut self, hello: &v1::Hello, registration: &CellRegistration) -> Result<(), Status> {
        let parts = Arc::clone(&self.parts);
        let set = parts.common.placement.cell_set(self.cell).await.map_err(unavailable)?;
        let digest = SetDigest::of_assignments(&set.assignments);
        let shown = registration.shown;
        let theirs = digest_of(&hello.digest)?;
        let mut version = set.version;
        if shown > version || (shown == version && theirs.is_some_and(|theirs| theirs != digest)) {
            version = raise_epoch(&parts.common, shown, &format!("cell {}", self.cell)).await?;
        }
        self.held = theirs.filter(|_| shown.epoch == version.epoch).map(|theirs| (shown.epoch, theirs));
        self.last_counter = parts.common.placement.cell_register(registration).await.map_err(unavailable)?;
        self.send(Command::Hello(parts.common.hello(version, digest.to_bytes()))).await
    }

    async fn push_set(&mut self) -> Result<(), Status> {
        let set = match self.parts.common.placement.cell_set(self.cell).await {
            Ok(set) => set,
            Err(error) => {
                tracing::debug!(cell.id = %self.cell, error = %chain(&error), "the set cannot be read now");
                self.stale = true;
                return Ok(());
            }
        };
        self.stale = false;
        let digest = SetDigest::of_assignments(&set.assignments);
        if self.held == Some((set.version.epoch, digest)) {
            return Ok(());
        }
        self.held = Some((set.version.epoch, digest));
        self.send(Command::Set(v1::AssignmentSet {
            version: Some(set.version),
            digest: digest.to_bytes(),
            assignments: set.assignments,
            policies: set.policies,
        }))
        .await
    }

    async fn take(&mut self, message: v1::CellMessage) -> Result<(), Status> {
        match message.message {
            Some(Message::Observations(observations)) => self.observe(observations).await,
            Some(Message::Usage(report)) => {
                self.parts.common.cells.usage_report(self.cell, report);
                Ok(())
            }
            Some(Message::Applied(applied)) => {
                let version = applied.version.unwrap_or_default();
                let theirs = digest_of(&applied.digest)?;
                // What it applied is not what was sent: send it again.
                if theirs.is_none_or(|theirs| self.held != Some((version.epoch, theirs))) {
                    self.held = None;
                    self.stale = true;
                }
                Ok(())
            }
            Some(Message::Hello(_)) => {
                // Asks for everything.
                self.held = None;
                self.push_set().await
            }
            // Nothing: what a newer cell adds, which this controller does not know.
            Some(Message::Heartbeat(_)) | None => Ok(()),
        }
    }

    async fn observe(&mut self, observations: v1::Observations) -> Result<(), Status> {
        let (mut rows, mut ends) = (Vec::new(), BTreeMap::new());
        for observation in observations.observations {
            let row = observation::check(&observation).map_err(|error| Status::invalid_argument(error.to_string()))?;
            if let Some(endpoint) = observation.endpoint.as_ref().filter(|endpoint| !endpoint.host.is_empty())
                && !self.endpoints.is_some_and(|own| own.include(endpoint))
            {
                return Err(Status::permission_denied(format!(
                    "observation {} puts {} at {}:{}, where this cell has no instances",
                    row.counter, row.assignment, endpoint.host, endpoint.port
                )));
            }
            if is_end(&observation, row.state) {
                ends.insert(row.assignment, observation);
            }
            rows.push(row);
        }
        let Some(lowest) = rows.iter().map(|row| row.counter).min() else { return Ok(()) };
        self.batches += 1;
        // A journal counts over its whole life; one that begins at 1 again is a new journal.
        let journal_restarted = self.batches == 1 && lowest == 1 && self.last_counter > 0;
        let batch = CellBatch { cell: self.cell, session: self.session, journal_restarted, rows };
        let submission = Submission { batch, ends, out: self.out.clone() };
        let sent = self.parts.recorder.send(submission).await;
        sent.map_err(|_| Status::unavailable("the controller is stopping"))
    }

    async fn send(&self, command: Command) -> Result<(), Status> {
        sessions::send(&self.out, v1::CellCommand { command: Some(command) }, "cell").await
    }
}
