//! The stream to one controller: a Hello both ways, sets and purges in, observations (to the controller that asks for
//! them), heartbeats and usage out. Every controller is dialled; a lost one is dialled again with growing pauses. When
//! all are gone nothing else changes: the cell goes on with the set it holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slipway_chassis::{Backoff, Shutdown, chain};
use slipway_protocol::v1::cell_command::Command;
use slipway_protocol::v1::cell_control_client::CellControlClient;
use slipway_protocol::v1::cell_message::Message;
use slipway_protocol::v1::{
    Applied, AssignmentSet, CellCommand, CellInfo, CellMessage, Heartbeat, Hello, Members, Observations, Version,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::controllers::MAX_MESSAGE;
use crate::services::Services;
use crate::usage::Sampled;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A controller that says nothing for so long is dead, whatever its connection looks like.
const SILENCE: Duration = Duration::from_secs(10);
/// Messages on their way to one controller; more would hide that it does not read.
const OUTGOING: usize = 256;
/// Observations in one message.
const BATCH: usize = 256;

/// What controllers say to the cell.
#[derive(Debug)]
pub enum Incoming {
    /// A whole set.
    Set(AssignmentSet),
    /// Observations up to this number are recorded.
    Ack(u64),
    /// Not known to the controller.
    Purge(Vec<String>),
    /// Where the members of the cluster are.
    Members(Members),
}

/// The set in force, as every session tells it.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// Its version.
    pub version: Version,
    /// Its digest.
    pub digest: Bytes,
}

/// What all sessions share.
#[derive(Clone)]
pub struct Shared {
    /// The outbox.
    pub services: Arc<Services>,
    /// This cell, as Hello carries it.
    pub info: Arc<CellInfo>,
    /// This start of the process.
    pub session: String,
    /// Kernel boot id.
    pub boot_id: String,
    /// To the agent.
    pub incoming: mpsc::Sender<Incoming>,
    /// From the agent.
    pub in_force: watch::Receiver<InForce>,
    /// The newest usage report.
    pub sampled: watch::Receiver<Sampled>,
    /// How many are open.
    pub sessions: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the controller cannot be reached or ended the session")]
    Rpc(#[from] tonic::Status),
    #[error("the controller belongs to cluster {0:?}, this cell to {1}")]
    Cluster(String, uuid::Uuid),
    #[error("the controller sent {0} before its Hello")]
    NoHello(&'static str),
    #[error("the controller closed the session")]
    Closed,
    #[error("the controller was silent for {0:?}")]
    Silent(Duration),
    #[error("the controller does not read what the cell sends")]
    Stuck,
}

/// Keeps a session to one controller until shutdown.
pub async fn keep(shared: Shared, address: SocketAddr, channel: Channel, shutdown: Shutdown) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut quiet = false;
    loop {
        let begun = Instant::now();
        // Dropping a session closes its stream; whatever was not acknowledged is sent again.
        let ended = tokio::select! {
            () = shutdown.requested() => return,
            ended = session(&shared, address, channel.clone()) => ended,
        };
        if begun.elapsed() > Duration::from_secs(5) {
            backoff.reset();
            quiet = false;
        }
        if let Err(error) = ended {
            // Once per outage: a controller may be away for hours.
            if quiet {
                tracing::debug!(controller = %address, error = %chain(&error), "no session");
            } else {
                tracing::warn!(controller = %address, error = %chain(&error), "no session; trying again");
            }
            quiet = true;
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

fn hello(shared: &Shared, in_force: &InForce) -> Hello {
    Hello {
        cluster_id: shared.services.config.cluster_id.to_string(),
        node_id: shared.services.config.id.to_string(),
        version: Some(in_force.version),
        digest: in_force.digest.clone(),
        session: shared.session.clone(),
        boot_id: shared.boot_id.clone(),
        binary_version: env!("CARGO_PKG_VERSION").to_owned(),
        durable: None,
        cell: Some((*shared.info).clone()),
        router: None,
    }
}

struct Sender(mpsc::Sender<CellMessage>);

impl Sender {
    async fn send(&self, message: Message) -> Result<(), SessionError> {
        let sent = self.0.send_timeout(CellMessage { message: Some(message) }, SILENCE).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => SessionError::Stuck,
            mpsc::error::SendTimeoutError::Closed(_) => SessionError::Closed,
        })
    }
}

/// Counts a session while it is open.
struct OpenSession(Arc<AtomicU64>);

impl OpenSession {
    fn begin(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn session(shared: &Shared, address: SocketAddr, channel: Channel) -> Result<(), SessionError> {
    let (send, outgoing) = mpsc::channel(OUTGOING);
    let send = Sender(send);
    let mut in_force = shared.in_force.clone();
    let first = hello(shared, &in_force.borrow_and_update().clone());
    send.send(Message::Hello(first)).await?;
    let mut client = CellControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let mut commands = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    let greeted = tokio::time::timeout(SILENCE, commands.message()).await;
    let greeting = greeted.map_err(|_| SessionError::Silent(SILENCE))??.ok_or(SessionError::Closed)?;
    check_greeting(shared, &greeting)?;
    tracing::info!(controller = %address, "session begun");
    let _open = OpenSession::begin(&shared.sessions);

    let mut outbox = shared.services.outbox.subscribe();
    let mut usage = shared.sampled.clone();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reporting, mut sent, mut beats, mut heard) = (false, 0, 0, Instant::now());
    loop {
        // Receiving from a stream and from watches loses nothing when an arm is dropped.
        tokio::select! {
            command = commands.message() => {
                heard = Instant::now();
                match command?.ok_or(SessionError::Closed)?.command {
                    Some(Command::Reporter(reporter)) => {
                        // A controller that begins to report knows only what is in the store: all that waits again.
                        sent = 0;
                        reporting = reporter.report_here;
                        tracing::info!(controller = %address, reporting, "reporter");
                    }
                    Some(command) => pass_on(shared, command).await?,
                    None => {}
                }
            }
            changed = outbox.changed() => {
                changed.map_err(|_| SessionError::Closed)?;
            }
            changed = in_force.changed() => {
                changed.map_err(|_| SessionError::Closed)?;
                let now = in_force.borrow_and_update().clone();
                send.send(Message::Applied(Applied { version: Some(now.version), digest: now.digest })).await?;
            }
            Ok(()) = usage.changed() => {
                let report = usage.borrow_and_update().report.clone();
                send.send(Message::Usage(report)).await?;
            }
            _ = heartbeat.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(SessionError::Silent(SILENCE));
                }
                beats += 1;
                send.send(Message::Heartbeat(Heartbeat { number: beats })).await?;
            }
        }
        if reporting {
            sent = report(shared, &send, sent).await?;
        }
    }
}

/// Sends what waits above `sent`; answers the last number sent.
async fn report(shared: &Shared, send: &Sender, mut sent: u64) -> Result<u64, SessionError> {
    loop {
        let observations = shared.services.outbox.after(sent, BATCH);
        let Some(last) = observations.last() else { return Ok(sent) };
        sent = last.counter;
        send.send(Message::Observations(Observations { observations })).await?;
    }
}

fn check_greeting(shared: &Shared, greeting: &CellCommand) -> Result<(), SessionError> {
    match &greeting.command {
        Some(Command::Hello(hello)) => {
            let own = shared.services.config.cluster_id;
            if hello.cluster_id == own.to_string() {
                return Ok(());
            }
            Err(SessionError::Cluster(hello.cluster_id.clone(), own))
        }
        Some(_) => Err(SessionError::NoHello("a command")),
        None => Err(SessionError::NoHello("a command of a newer version")),
    }
}

async fn pass_on(shared: &Shared, command: Command) -> Result<(), SessionError> {
    let incoming = match command {
        Command::Set(set) => Incoming::Set(set),
        Command::Ack(ack) => Incoming::Ack(ack.counter),
        Command::Purge(purge) => Incoming::Purge(purge.assignment_ids),
        Command::Members(members) => Incoming::Members(members),
        Command::Hello(_) | Command::Heartbeat(_) | Command::Reporter(_) => return Ok(()),
    };
    shared.incoming.send(incoming).await.map_err(|_| SessionError::Closed)
}
