//! The port for members of the cluster. TLS ends here, and the protocol that the other end chose (ALPN) says what it wants:
//! `h2` the gRPC services of cells and routers, `http/1.1` the API, to which only routers are let in so. What routers send
//! there for their clients, passwords and tokens, is therefore never in clear between hosts; and a request that came in here
//! comes from a router, which is why its `X-Forwarded-For` is believed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use slipway_chassis::Shutdown;
use slipway_protocol::Role;
use slipway_protocol::accept::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

/// What members may ask for.
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h2", API];
const API: &[u8] = b"http/1.1";
/// Connections whose handshake is under way; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// When no descriptor is left, trying again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection of a member, and where it comes from.
type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Marks a request that a router brought.
#[derive(Clone, Copy, Debug)]
pub struct FromRouter;

/// Connections of routers that want the API.
pub(crate) struct ApiConnections {
    incoming: mpsc::Receiver<Connection>,
    address: SocketAddr,
}

/// Connections for the gRPC services; the item is what tonic takes.
pub(crate) type ServiceConnections = mpsc::Receiver<io::Result<TlsStream<TcpStream>>>;

/// Answers members until shutdown begins.
pub(crate) fn start(
    listener: TcpListener,
    address: SocketAddr,
    acceptor: Acceptor,
    shutdown: &Shutdown,
) -> (ServiceConnections, ApiConnections) {
    let (services, service_connections) = mpsc::channel(16);
    let (api, incoming) = mpsc::channel(16);
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.requested() => break,
                Some(_) = handshakes.join_next() => {}
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                    Ok((tcp, from)) => {
                        let (acceptor, services, api) = (acceptor.clone(), services.clone(), api.clone());
                        handshakes.spawn(answer(acceptor, tcp, from, services, api));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of a member was not taken");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    });
    (service_connections, ApiConnections { incoming, address })
}

async fn answer(
    acceptor: Acceptor,
    tcp: TcpStream,
    from: SocketAddr,
    services: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
    api: mpsc::Sender<Connection>,
) {
    let accepted = match tcp.set_nodelay(true) {
        Ok(()) => acceptor.accept(tcp).await,
        Err(error) => Err(error),
    };
    let (stream, peer) = match accepted {
        Ok(member) => member,
        Err(error) => return tracing::debug!(%error, %from, "no member of the cluster"),
    };
    if stream.get_ref().1.alpn_protocol() != Some(API) {
        // Each service looks at the role itself. Nobody takes it any more only when the controller ends.
        let _ = services.send(Ok(stream)).await;
    } else if peer.role == Role::Router {
        let _ = api.send((stream, from)).await;
    } else {
        tracing::warn!(role = %peer.role, id = %peer.id, %from, "only routers bring requests of the API");
    }
}

impl Listener for ApiConnections {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.incoming.recv().await {
            Some(connection) => connection,
            // Shutdown has begun, and ends whoever waits here.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
