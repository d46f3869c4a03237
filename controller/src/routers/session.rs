//! One router's session: a snapshot, then deltas; acknowledgements back.

use std::sync::Arc;
use std::time::Duration;

use slipway_api_types::RouterId;
use slipway_protocol::v1::router_command::Command;
use slipway_protocol::v1::router_message::Message;
use slipway_protocol::v1::{self, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::service::RouterServiceDeps;
use crate::sessions::hello::{check_hello, digest_of, raise_epoch};
use crate::sessions::peer::Peer;
use crate::sessions::{self, unavailable};
use slipway_placement::RouterRegistration;
use slipway_placement::routing_table::Table;

/// How often this end says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence of the router that ends its session.
const SILENCE: Duration = Duration::from_secs(10);

type Out = mpsc::Sender<Result<v1::RouterCommand, Status>>;

/// Runs a session to its end and says why it ended.
pub(super) async fn run(parts: Arc<RouterServiceDeps>, peer: Peer, stream: Streaming<v1::RouterMessage>, out: Out) {
    let router = RouterId(peer.id);
    let mut session = RouterSession { parts, peer, router, session: Uuid::new_v4(), out: out.clone(), sent: None };
    match session.hold(stream).await {
        Ok(()) => tracing::info!(router.id = %router, "a router's session ended"),
        Err(status) => {
            tracing::warn!(router.id = %router, reason = status.message(), "a router's session was ended");
            drop(out.try_send(Err(status)));
        }
    }
}

struct RouterSession {
    parts: Arc<RouterServiceDeps>,
    peer: Peer,
    router: RouterId,
    /// Of this connection: a router that connects again while the old one lingers is told apart.
    session: Uuid,
    out: Out,
    /// What the router has, or will have when it has read all that was sent.
    sent: Option<Arc<Table>>,
}

impl RouterSession {
    async fn hold(&mut self, mut stream: Streaming<v1::RouterMessage>) -> Result<(), Status> {
        let first = sessions::first_message(&mut stream).await?;
        let Some(v1::RouterMessage { message: Some(Message::Hello(hello)) }) = first else {
            return Err(Status::failed_precondition("the first message of a session must be a hello"));
        };
        let parts = Arc::clone(&self.parts);
        check_hello(&hello, parts.common.context.config.cluster_id, self.router.0)?;
        let info = hello.router.clone().unwrap_or_default();
        let registration = RouterRegistration {
            id: self.router,
            session: self.session,
            zone: info.zone,
            query_address: self.peer.query_address(&info.query_address)?,
            addresses: self.peer.addresses.clone(),
            applied: hello.version.unwrap_or_default(),
            durable: hello.durable.unwrap_or_default(),
        };
        self.welcome(&hello).await?;
        parts.common.placement.router_register(&registration).await.map_err(unavailable)?;
        let name = format!("router {}", self.router);
        parts.common.directory.set(name, &registration.query_address);
        parts.hub.enter(self.router, self.session, registration.applied, registration.durable);
        parts.common.context.wake.tail.wake();
        tracing::info!(router.id = %self.router, holds = %registration.applied, "a router has a session");
        let result = self.serve(&mut stream).await;
        parts.hub.leave(self.router, self.session);
        if let Err(error) = parts.common.placement.router_leave(self.router, self.session).await {
            tracing::debug!(error = %slipway_chassis::chain(&error), "the end of a router's session was not recorded");
        }
        result
    }

    async fn serve(&mut self, stream: &mut Streaming<v1::RouterMessage>) -> Result<(), Status> {
        let shutdown = self.parts.common.shutdown.clone();
        let mut tables = self.parts.tables.watch();
        let mut beat = tokio::time::interval(HEARTBEAT);
        let (mut number, mut heard) = (0, Instant::now());
        tables.mark_changed();
        loop {
            // `message` keeps what it has read when dropped; the other arms hold nothing.
            tokio::select! {
                biased;
                () = shutdown.requested() => return Err(Status::unavailable("the controller is stopping")),
                changed = tables.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let newest = tables.borrow_and_update().clone();
                    if let Some(newest) = newest {
                        self.push(newest).await?;
                    }
                }
                message = stream.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    heard = Instant::now();
                    self.take(message).await?;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Status::deadline_exceeded("the router said nothing for 10 s"));
                    }
                    number += 1;
                    self.send(Command::Heartbeat(v1::Heartbeat { number })).await?;
                }
            }
        }
    }

    /// Judges what the router holds and answers with what this controller stands at.
    async fn welcome(&mut self, hello: &v1::Hello) -> Result<(), Status> {
        let parts = Arc::clone(&self.parts);
        let shown = hello.version.unwrap_or_default();
        let theirs = digest_of(&hello.digest)?;
        let known = parts.tables.at(shown);
        let mut version = parts.common.placement.version().await.map_err(unavailable)?;
        let other = known.as_ref().zip(theirs).is_some_and(|(table, theirs)| table.digest != theirs);
        if shown > version || (other && shown == version) {
            version = raise_epoch(&parts.common, shown, &format!("router {}", self.router)).await?;
        }
        self.sent = known.filter(|table| Some(table.digest) == theirs);
        let newest = parts.tables.newest();
        let digest = newest.map(|table| table.digest.to_bytes()).unwrap_or_default();
        self.send(Command::Hello(parts.common.hello(version, digest))).await
    }

    async fn push(&mut self, newest: Arc<Table>) -> Result<(), Status> {
        let command = match &self.sent {
            Some(sent) if sent.version >= newest.version => return Ok(()),
            Some(sent) => Command::Delta(sent.delta(&newest)),
            None => Command::Snapshot(newest.snapshot()),
        };
        self.send(command).await?;
        self.parts.hub.sent(self.router, newest.version);
        self.sent = Some(newest);
        Ok(())
    }

    async fn take(&mut self, message: v1::RouterMessage) -> Result<(), Status> {
        match message.message {
            Some(Message::Ack(ack)) => self.acknowledged(&ack).await,
            // It could not use what it got, and says what it holds.
            Some(Message::Hello(hello)) => {
                check_hello(&hello, self.parts.common.context.config.cluster_id, self.router.0)?;
                self.welcome(&hello).await?;
                match self.parts.tables.newest() {
                    Some(newest) => self.push(newest).await,
                    None => Ok(()),
                }
            }
            Some(Message::Heartbeat(_)) | None => Ok(()),
        }
    }

    async fn acknowledged(&mut self, ack: &v1::RouterAck) -> Result<(), Status> {
        let (applied, durable) = (ack.applied.unwrap_or_default(), ack.durable.unwrap_or_default());
        let newest = self.parts.tables.newest().map_or(Version::default(), |table| table.version);
        if applied > newest || durable > newest {
            return Err(Status::invalid_argument(format!(
                "the router acknowledges {applied} (durable {durable}), but nothing above {newest} was published"
            )));
        }
        let theirs = digest_of(&ack.applied_digest)?;
        if let Some(table) = self.parts.tables.at(applied)
            && theirs != Some(table.digest)
        {
            // The same number with other content proves nothing: send everything again.
            tracing::error!(router.id = %self.router, version = %applied, "a router's table differs from the published one; it gets the whole table");
            self.sent = None;
            let newest = self.parts.tables.newest();
            return match newest {
                Some(newest) => self.push(newest).await,
                None => Ok(()),
            };
        }
        self.parts.hub.acknowledged(self.router, applied, durable);
        Ok(())
    }

    async fn send(&self, command: Command) -> Result<(), Status> {
        sessions::send(&self.out, v1::RouterCommand { command: Some(command) }, "router").await
    }
}
