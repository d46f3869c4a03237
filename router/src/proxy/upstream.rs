//! Connections to endpoints: reused when idle ones are there, opened otherwise.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use slipway_chassis::chain;
use slipway_protocol::dial::DialError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::answering::Answering;
use super::body::RequestBody;
use super::connection::MAX_FIELDS;
use super::core::Core;
use super::cut::{Cut, Reset};
use super::endpoint::EndpointState;
use super::failure::{Cause, Failure};
use super::streams::{OpenError, StreamPermit};
use crate::heads::SMALL;
use crate::keepalive::keep_alive;
use crate::limits::Descriptor;

/// A connection by HTTP/1.1.
pub(crate) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// An exchange is under way.
    midway: bool,
    cut: Cut,
}

impl Http1 {
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if self.midway {
            self.cut.set();
        }
    }
}

/// Sends requests on one connection.
pub(crate) enum Sender {
    /// One request at a time.
    Http1(Http1),
    /// One request of several.
    Http2(Rc<StreamPermit>),
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(one) => {
                one.midway = true;
                let cut = one.cut.clone();
                one.sender.try_send_request(request.map(|body| body.cutting(cut))).await
            }
            Self::Http2(stream_permit) => stream_permit.send(request).await,
        }
    }

    /// The exchange has come to its end: what ends the connection from now on does not cut it. By HTTP/2 a stream has ended.
    pub(crate) fn exchange_ended(&mut self) {
        if let Self::Http1(one) = self {
            one.midway = false;
        }
    }

    /// Whether a request must be as HTTP/2 wants it.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

/// A host that does not answer a SYN in this time is tried no longer: another endpoint may.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to {0}")]
    Io(SocketAddr, #[source] std::io::Error),
    #[error("no connection to {0} in time")]
    Late(SocketAddr),
    #[error("no connection to {0}: its app holds as many as it may")]
    Share(SocketAddr),
    #[error(transparent)]
    Tls(#[from] DialError),
    #[error("HTTP handshake with {0} failed")]
    Http(SocketAddr, #[source] hyper::Error),
    #[error("{0} does not support HTTP/2")]
    NoHttp2(SocketAddr, #[source] Option<hyper::Error>),
    #[error("HTTP/2 handshake with {0} timed out")]
    LateHttp2(SocketAddr),
    /// The one that was opened for all who waited.
    #[error("no connection to {address}: {}", failure.detail)]
    Together { address: SocketAddr, failure: Failure },
    #[error("no connection to {0} can be opened: too many connections are open already")]
    Full(SocketAddr),
    /// The address may belong to somebody else by now.
    #[error("{0} was removed from the routing table while the router was connecting to it")]
    Left(SocketAddr),
}

impl ConnectError {
    pub(crate) fn failure(&self) -> Failure {
        let otherwise = match self {
            Self::Together { failure, .. } => return failure.clone(),
            Self::Late(_) | Self::LateHttp2(_) => Cause::Late,
            Self::Tls(_) => Cause::Tls,
            Self::NoHttp2(..) => Cause::Invalid,
            Self::Left(_) => Cause::Gone,
            Self::Io(..) | Self::Http(..) | Self::Full(_) | Self::Share(_) => Cause::Other,
        };
        Failure::or(otherwise, self)
    }
}

/// Opens a connection and drives it in a task of its own, which ends with the connection. By HTTP/2 where `http2` says so.
pub(crate) async fn connect(core: &Rc<Core>, state: &Rc<EndpointState>, http2: bool) -> Result<Sender, ConnectError> {
    let address = state.endpoint.address;
    let sender = if state.endpoint.tls {
        let descriptor = state.claim(&core.shared.descriptors).ok_or(ConnectError::Share(address))?;
        core.metrics.connects.fetch_add(1, Ordering::Relaxed);
        let tls = core.shared.cluster_tls.load_full();
        let stream = tls.dial_controller(address, b"http/1.1").await?;
        handshake(core, stream, address, descriptor).await?
    } else if http2 {
        Sender::Http2(stream_permit(core, state).await?)
    } else {
        let descriptor = state.claim(&core.shared.descriptors).ok_or(ConnectError::Share(address))?;
        handshake(core, dial(core, address).await?, address, descriptor).await?
    };
    if core.with_table(|table| table.holds(&state.endpoint)) { Ok(sender) } else { Err(ConnectError::Left(address)) }
}

async fn dial(core: &Core, address: SocketAddr) -> Result<TcpStream, ConnectError> {
    core.metrics.connects.fetch_add(1, Ordering::Relaxed);
    let dial = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let stream =
        dial.await.map_err(|_| ConnectError::Late(address))?.map_err(|error| ConnectError::Io(address, error))?;
    let ready = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
    ready.map_err(|error| ConnectError::Io(address, error))?;
    Ok(stream)
}

/// A place on a connection by HTTP/2. One connection is opened at a time: it will have room for most of those who come
/// meanwhile, and what ails it would ail theirs. Its task is nobody's: as part of a client's, all would wait for the turns
/// of that client.
async fn stream_permit(core: &Rc<Core>, state: &Rc<EndpointState>) -> Result<Rc<StreamPermit>, ConnectError> {
    let (address, streams) = (state.endpoint.address, &state.streams);
    loop {
        if let Some(stream_permit) = streams.take() {
            return Ok(stream_permit);
        }
        if let Some(opening) = streams.opening() {
            opening.ended.notified().await;
            if let Some(failure) = &*opening.failure.borrow() {
                return Err(ConnectError::Together { address, failure: failure.clone() });
            }
            if let Some(stream_permit) = opening.permit.take() {
                return Ok(stream_permit);
            }
            continue;
        }
        if streams.are_many() {
            return Err(ConnectError::Full(address));
        }
        let descriptor = state.claim(&core.shared.descriptors).ok_or(ConnectError::Share(address))?;
        let (opener, core, state) = (streams.begin(), Rc::clone(core), Rc::clone(state));
        tokio::task::spawn_local(async move {
            match open(&core, &state, descriptor).await {
                Ok(stream_permit) => opener.opened(stream_permit),
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "no connection by HTTP/2 to an endpoint");
                    state.failed(Instant::now());
                    opener.failed(error.failure());
                }
            }
        });
    }
}

/// A place on a new connection by HTTP/2.
async fn open(core: &Core, state: &EndpointState, descriptor: Descriptor) -> Result<Rc<StreamPermit>, ConnectError> {
    let address = state.endpoint.address;
    let stream = dial(core, address).await?;
    let opened = state.streams.open(core, stream, descriptor).await;
    opened.map_err(|error| match error {
        OpenError::Ended(error) => ConnectError::NoHttp2(address, error),
        OpenError::Late => ConnectError::LateHttp2(address),
    })
}

/// Begins HTTP/1.1 on an open connection.
pub(super) async fn handshake<T>(
    core: &Rc<Core>,
    io: T,
    address: SocketAddr,
    descriptor: Descriptor,
) -> Result<Sender, ConnectError>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    let cut = Cut::default();
    let io = TokioIo::new(Answering::new(io, cut.clone()));
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(core.shared.max_header_bytes.max(SMALL))
        .max_headers(MAX_FIELDS)
        .handshake(io)
        .await
        .map_err(|error| ConnectError::Http(address, error))?;
    tokio::task::spawn_local(async move {
        let _descriptor = descriptor;
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, error = %chain(&error), "connection to an endpoint ended");
        }
    });
    Ok(Sender::Http1(Http1 { sender, midway: false, cut }))
}
