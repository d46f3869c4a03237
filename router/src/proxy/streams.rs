//! Connections by HTTP/2 to one endpoint: each takes many requests at a time.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use slipway_chassis::chain;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::core::{Core, OnThisCore};

/// Requests that one connection takes, when the endpoint allows as many. More would share one connection's window and one
/// lost packet; the next ones get another connection.
const MOST_STREAMS: usize = 100;

/// A connection, in the hands of the task that drives it.
type Driven = Rc<RefCell<http2::Connection<TokioIo<TcpStream>, RequestBody, OnThisCore>>>;

struct Connection {
    sender: http2::SendRequest<RequestBody>,
    /// Requests under way.
    streams: Cell<usize>,
    /// When the last request ended.
    used: Cell<Instant>,
    http: Driven,
}

impl Connection {
    /// Whether a request can begin at once. What waited here for another one's end could wait for hours.
    fn has_room(&self) -> bool {
        self.streams.get() < MOST_STREAMS.min(self.http.borrow().current_max_send_streams())
    }
}

/// One request's place on a connection.
pub(crate) struct Stream(Rc<Connection>);

impl Stream {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }

    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.0.sender.clone().try_send_request(request).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// The connections of one core to one endpoint.
#[derive(Default)]
pub(crate) struct Connections(RefCell<Vec<Rc<Connection>>>);

impl Connections {
    /// A place on a connection that is there.
    pub(crate) fn take(&self) -> Option<Stream> {
        let mut all = self.0.borrow_mut();
        all.retain(|one| !one.sender.is_closed());
        all.iter().find(|one| one.has_room()).map(Stream::new)
    }

    /// Begins HTTP/2 on an open connection and keeps it for others.
    ///
    /// # Errors
    /// When the connection ends at once.
    pub(crate) async fn open(&self, core: &Core, io: TokioIo<TcpStream>, address: SocketAddr) -> hyper::Result<Stream> {
        let mut http = http2::Builder::new(OnThisCore);
        // One, until the endpoint has said how many it takes.
        http.timer(TokioTimer::new()).initial_max_send_streams(1);
        let (sender, http) = http.handshake(io).await?;
        let http = Rc::new(RefCell::new(http));
        let (descriptor, driven) = (core.shared.descriptors.take(), Rc::clone(&http));
        tokio::task::spawn_local(async move {
            let _descriptor = descriptor;
            if let Err(error) = std::future::poll_fn(|cx| Pin::new(&mut *driven.borrow_mut()).poll(cx)).await {
                tracing::debug!(%address, error = %chain(&error), "connection to an endpoint ended");
            }
        });
        let connection = Rc::new(Connection { sender, streams: Cell::new(0), used: Cell::new(Instant::now()), http });
        let stream = Stream::new(&connection);
        self.0.borrow_mut().push(connection);
        Ok(stream)
    }

    /// Closes connections without a request since before `then`.
    pub(crate) fn close_idle(&self, then: Instant) {
        self.0.borrow_mut().retain(|one| !one.sender.is_closed() && (one.streams.get() > 0 || one.used.get() >= then));
    }

    /// Takes no more requests; those under way go on.
    pub(crate) fn close(&self) {
        self.0.borrow_mut().clear();
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.0.borrow().iter().filter(|one| one.streams.get() == 0).count()
    }
}
