//! One session with one controller at a time, tried in turn. Says what is held, takes snapshots and deltas,
//! acknowledges each twice: `applied` right after the swap, `durable` when the journal is on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use slipway_chassis::{Backoff, Shutdown, chain};
use slipway_protocol::dial::DialError;
use slipway_protocol::v1::router_command::Command;
use slipway_protocol::v1::router_control_client::RouterControlClient;
use slipway_protocol::v1::router_message::Message;
use slipway_protocol::v1::{Heartbeat, Hello, RouterAck, RouterInfo, RouterMessage, Version};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::TableStore;
use crate::cluster_tls::ClusterTls;
use crate::table::ApplyError;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A controller that says nothing for this long is given up. Lower gives up on a controller that is only busy; higher
/// keeps a router with a dead one, while commands wait for its acknowledgement.
const SILENCE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
/// Refused messages in a row after which the session is given up, so that another controller is asked.
const MAX_REFUSED: u32 = 3;
/// A whole table of a large cluster (250,000 instances) is some 60 MB.
const MAX_MESSAGE: usize = 1 << 30;

/// What a session needs to know about this router.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// This router.
    pub id: Uuid,
    /// Its cluster.
    pub cluster: Uuid,
    /// Its zone.
    pub zone: String,
    /// Controllers, tried in turn.
    pub controllers: Vec<SocketAddr>,
    /// Directory of the cluster credentials; read again for each session, so that renewed ones are used.
    pub tls_directory: PathBuf,
    /// Bound address of the Query service.
    pub query: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot reach the controller")]
    Dial(#[from] DialError),
    #[error("cannot connect to the controller")]
    Connect(#[from] tonic::transport::Error),
    #[error("the controller ended the session")]
    Status(#[from] tonic::Status),
    #[error("the controller closed the session")]
    Closed,
    #[error("the controller said nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the controller belongs to cluster {0:?}; check `controllers` and `cluster_id`")]
    OtherCluster(String),
    #[error("the controller's messages cannot be applied")]
    Refused(#[source] ApplyError),
}

/// Keeps a session open until shutdown.
pub async fn run(settings: SessionSettings, store: Arc<TableStore>, shutdown: Shutdown) {
    let session = Uuid::new_v4().to_string();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    for controller in settings.controllers.iter().cycle() {
        let mut one = ControllerSession {
            settings: &settings,
            store: &store,
            session: &session,
            boot: &boot,
            query: settings.query,
            welcomed: false,
        };
        let result = tokio::select! {
            () = shutdown.requested() => return,
            result = one.hold(*controller) => result,
        };
        store.status.connected.store(false, Ordering::Relaxed);
        if one.welcomed {
            backoff.reset();
        }
        if let Err(error) = result {
            tracing::warn!(%controller, error = %chain(&error), "no session with this controller; the table stands");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

struct ControllerSession<'a> {
    settings: &'a SessionSettings,
    store: &'a TableStore,
    session: &'a str,
    boot: &'a str,
    query: SocketAddr,
    welcomed: bool,
}

impl ControllerSession<'_> {
    async fn hold(&mut self, controller: SocketAddr) -> Result<(), SessionError> {
        let tls = Arc::new(ClusterTls::load(&self.settings.tls_directory, self.settings.cluster)?);
        let connector = tower::service_fn(move |_| {
            let tls = Arc::clone(&tls);
            async move { tls.dial_controller(controller, b"h2").await.map(TokioIo::new) }
        });
        // The connector does TLS itself, because it also checks that the other end is a controller.
        let channel = Endpoint::from_shared(format!("http://{controller}"))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(SILENCE)
            .connect_with_connector(connector)
            .await?;
        let mut client = RouterControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        self.query = reachable(self.settings.query, controller);
        let (sender, receiver) = mpsc::channel(64);
        let mut durable = self.store.durable();
        send(&sender, Message::Hello(self.hello(&mut durable, true))).await?;
        let opening = client.session(ReceiverStream::new(receiver));
        let mut incoming =
            tokio::time::timeout(SILENCE, opening).await.map_err(|_| SessionError::Silent)??.into_inner();
        self.store.status.sessions.fetch_add(1, Ordering::Relaxed);

        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut number = 0;
        let mut refused = 0;
        let mut heard = tokio::time::Instant::now();
        loop {
            // Every arm may be dropped: a message that was taken from the stream is handled before the next select.
            tokio::select! {
                message = incoming.message() => {
                    heard = tokio::time::Instant::now();
                    let Some(command) = message?.ok_or(SessionError::Closed)?.command else { continue };
                    self.take(command, &sender, &mut durable, &mut refused).await?;
                }
                changed = durable.changed() => {
                    changed.map_err(|_| SessionError::Closed)?;
                    self.acknowledge(&sender, &mut durable).await?;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(SessionError::Silent);
                    }
                    number += 1;
                    send(&sender, Message::Heartbeat(Heartbeat { number })).await?;
                }
            }
        }
    }

    async fn take(
        &mut self,
        command: Command,
        sender: &mpsc::Sender<RouterMessage>,
        durable: &mut watch::Receiver<Option<Version>>,
        refused: &mut u32,
    ) -> Result<(), SessionError> {
        let result = match command {
            Command::Hello(hello) => {
                if hello.cluster_id != self.settings.cluster.to_string() {
                    return Err(SessionError::OtherCluster(hello.cluster_id));
                }
                if !self.welcomed {
                    tracing::info!(controller.id = hello.node_id, "session with a controller");
                }
                self.welcomed = true;
                self.store.status.connected.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Command::Heartbeat(_) => return Ok(()),
            // A controller of another cluster must not get as far as a table.
            _ if !self.welcomed => return Err(SessionError::OtherCluster("(no Hello)".to_owned())),
            Command::Snapshot(snapshot) => self.store.apply_snapshot(&snapshot),
            Command::Delta(delta) => self.store.apply_delta(&delta),
        };
        match result {
            Ok(()) => {
                *refused = 0;
                self.acknowledge(sender, durable).await
            }
            Err(error) => {
                self.store.refused();
                *refused += 1;
                tracing::warn!(error = %chain(&error), "a table message was refused; the table in force stands");
                if *refused >= MAX_REFUSED {
                    return Err(SessionError::Refused(error));
                }
                // A delta that starts elsewhere is answered with what is held; anything else with "send it all".
                let keep_digest = matches!(error, ApplyError::WrongFrom { .. });
                send(sender, Message::Hello(self.hello(durable, keep_digest))).await
            }
        }
    }

    fn hello(&self, durable: &mut watch::Receiver<Option<Version>>, with_digest: bool) -> Hello {
        let table = self.store.current().load();
        let held = table.version();
        let digest = if held.is_some() && with_digest { table.digest().to_bytes() } else { bytes::Bytes::new() };
        Hello {
            cluster_id: self.settings.cluster.to_string(),
            node_id: self.settings.id.to_string(),
            version: held,
            digest,
            session: self.session.to_owned(),
            boot_id: self.boot.to_owned(),
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            durable: *durable.borrow_and_update(),
            cell: None,
            router: Some(RouterInfo { zone: self.settings.zone.clone(), query_address: self.query.to_string() }),
        }
    }

    async fn acknowledge(
        &self,
        sender: &mpsc::Sender<RouterMessage>,
        durable: &mut watch::Receiver<Option<Version>>,
    ) -> Result<(), SessionError> {
        let table = self.store.current().load_full();
        let ack = RouterAck {
            applied: table.version(),
            applied_digest: table.digest().to_bytes(),
            durable: *durable.borrow_and_update(),
        };
        send(sender, Message::Ack(ack)).await
    }
}

/// Where a controller finds a service that is bound to every address: at the one this host uses toward it.
fn reachable(bound: SocketAddr, controller: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Connecting a datagram socket sends nothing; it only picks the own address.
    let own = std::net::UdpSocket::bind((bound.ip(), 0))
        .and_then(|socket| socket.connect(controller).and_then(|()| socket.local_addr()));
    own.map_or(bound, |own| SocketAddr::new(own.ip(), bound.port()))
}

async fn send(sender: &mpsc::Sender<RouterMessage>, message: Message) -> Result<(), SessionError> {
    sender.send(RouterMessage { message: Some(message) }).await.map_err(|_| SessionError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_every_address_is_named_by_one() {
        let controller = ([127, 0, 0, 1], 9443).into();
        assert_eq!(reachable(([0, 0, 0, 0], 7).into(), controller), ([127, 0, 0, 1], 7).into());
        assert_eq!(reachable(([10, 0, 0, 1], 7).into(), controller), ([10, 0, 0, 1], 7).into());
    }
}
