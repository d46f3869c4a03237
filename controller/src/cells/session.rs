//! One cell's session: hello both ways, the whole set at each change, observations to the recorder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::CellId;
use slipway_chassis::chain;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::cell_command::Command;
use slipway_protocol::v1::cell_message::Message;
use slipway_protocol::v1::{self, Version};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::observation;
use super::peer::{Endpoints, Peer};
use super::queries::peer_name;
use super::recorder::{Out, Submission, is_end};
use super::service::CellServiceDeps;
use slipway_placement::{CellBatch, CellRegistration, PlacementError};

/// The first message must come within this time.
const HELLO: Duration = Duration::from_secs(10);
/// How often this end says that it lives, and reads the set again in case a wake was lost while the store was away.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence of the cell that ends its session. Shorter ends sessions of hosts that are only busy.
const SILENCE: Duration = Duration::from_secs(15);
/// How long a cell may not read.
const STUCK: Duration = Duration::from_secs(10);
/// Largest host that slots can address.
const MAX_SLOTS: u32 = 4_096;

/// Runs a session to its end and says why it ended.
pub(super) async fn run(parts: Arc<CellServiceDeps>, peer: Peer, stream: Streaming<v1::CellMessage>, out: Out) {
    let cell = CellId(peer.id);
    let mut session = Session {
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

struct Session {
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

impl Session {
    async fn hold(&mut self, mut stream: Streaming<v1::CellMessage>) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO, stream.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came within 10 s"))??;
        let Some(v1::CellMessage { message: Some(Message::Hello(hello)) }) = first else {
            return Err(Status::failed_precondition("the first message of a session must be a hello"));
        };
        let registration = self.check(&hello)?;
        self.endpoints = hello.cell.as_ref().map(|info| self.peer.endpoints(info)).transpose()?;
        self.session = registration.session;
        let arrival = self.parts.hub.arrive(self.cell);
        self.register(&hello, &registration).await?;

        self.parts.directory.set(peer_name(self.cell.0), &registration.query_address);
        let wake = self.parts.hub.enter(self.cell, self.session);
        drop(arrival);
        self.parts.context.wake.liveness.wake();
        self.parts.context.wake.tail.wake();
        tracing::info!(cell.id = %self.cell, zone = registration.zone, version = hello.binary_version, "a cell has a session");
        let result = self.serve(&mut stream, &wake).await;
        self.parts.hub.leave(self.cell, &wake);
        self.parts.context.wake.liveness.wake();
        result
    }

    async fn serve(&mut self, stream: &mut Streaming<v1::CellMessage>, wake: &Notify) -> Result<(), Status> {
        let shutdown = self.parts.shutdown.clone();
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
                    let told = members.borrow_and_update().clone();
                    if let Some(told) = told {
                        self.send(Command::Members((*told).clone())).await?;
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
        check_hello(hello, self.parts.context.config.cluster_id, self.cell.0)?;
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
        let set = parts.placement.cell_set(self.cell).await.map_err(away)?;
        let digest = SetDigest::of_assignments(&set.assignments);
        let shown = registration.shown;
        let theirs = digest_of(&hello.digest)?;
        let mut version = set.version;
        if shown > version || (shown == version && theirs.is_some_and(|theirs| theirs != digest)) {
            version = raise_epoch(&parts, shown, &format!("cell {}", self.cell)).await?;
        }
        self.held = theirs.filter(|_| shown.epoch == version.epoch).map(|theirs| (shown.epoch, theirs));
        self.last_counter = parts.placement.cell_register(registration).await.map_err(away)?;
        let config = &parts.context.config;
        self.send(Command::Hello(v1::Hello {
            cluster_id: config.cluster_id.to_string(),
            node_id: config.id.to_string(),
            version: Some(version),
            digest: digest.to_bytes(),
            session: parts.session.to_string(),
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::Hello::default()
        }))
        .await
    }

    async fn push_set(&mut self) -> Result<(), Status> {
        let set = match self.parts.placement.cell_set(self.cell).await {
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
                self.parts.hub.usage_report(self.cell, report);
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
            // The same lines are in the cell's ring, where they are read from; what a newer cell adds is not for us.
            Some(Message::Heartbeat(_) | Message::StagingLines(_)) | None => Ok(()),
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
        let command = Ok(v1::CellCommand { command: Some(command) });
        match tokio::time::timeout(STUCK, self.out.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the cell went away")),
            Err(_) => Err(Status::deadline_exceeded("the cell did not read for 10 s")),
        }
    }
}

/// Cluster and id of a hello, against the certificate.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn check_hello(hello: &v1::Hello, cluster: Uuid, peer: Uuid) -> Result<(), Status> {
    if hello.cluster_id != cluster.to_string() {
        return Err(Status::failed_precondition(format!(
            "this is cluster {cluster}, the hello is for {:?}; check cluster_id and the list of controllers",
            hello.cluster_id
        )));
    }
    if hello.node_id != peer.to_string() {
        return Err(Status::permission_denied(format!(
            "the certificate is of {peer}, the hello of {:?}",
            hello.node_id
        )));
    }
    Ok(())
}

/// A digest of the wire; `None` when the peer holds nothing.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn digest_of(bytes: &[u8]) -> Result<Option<SetDigest>, Status> {
    match bytes {
        [] => Ok(None),
        bytes => bytes
            .try_into()
            .map(|digest| Some(SetDigest(digest)))
            .map_err(|_| Status::invalid_argument(format!("a digest of {} bytes; it has 32", bytes.len()))),
    }
}

/// By how much the epoch of a peer may be above the store's. Each restored backup raises it by one; a peer that shows more
/// is damaged or lies, and following it would use the numbers up.
const MAX_EPOCHS: u64 = 1_000;

/// A peer knows more than the store, or something else at the same version: a backup was restored, or a failover lost
/// commits. Running things are adopted under a higher epoch, nothing is stopped for it.
pub(crate) async fn raise_epoch(parts: &CellServiceDeps, shown: Version, peer: &str) -> Result<Version, Status> {
    let now = parts.placement.version().await.map_err(away)?;
    if shown.epoch > now.epoch.saturating_add(MAX_EPOCHS) {
        tracing::error!(peer, shown = %shown, now = %now, "a peer shows an epoch that no store has reached; it is refused");
        return Err(Status::failed_precondition(format!(
            "epoch {} cannot be: the store is at {}. Remove this node's state directory, and start it again",
            shown.epoch, now.epoch
        )));
    }
    // Also at an equal version with another digest the store must end above it.
    let above = Version::new(shown.epoch, shown.seq.saturating_add(1));
    let version = parts.placement.epoch_raise(above).await.map_err(away)?;
    tracing::error!(
        peer, shown = %shown, now = %version,
        "the database is older than what a peer has seen (a restored backup, or a failover that lost commits): the epoch was raised; running instances are adopted"
    );
    parts.context.wake.tail.wake();
    parts.hub.wake_all();
    Ok(version)
}

pub(crate) fn away(error: PlacementError) -> Status {
    tracing::warn!(error = %chain(&error), "the placement store does not answer");
    Status::unavailable("the database does not answer; try again")
}
