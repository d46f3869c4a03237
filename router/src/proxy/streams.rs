//! Connections by HTTP/2 to one endpoint: each takes many requests at a time.
//!
//! hyper's client has two tasks for a connection: one reads and writes the socket, the other takes requests. Only the
//! second one is in our hands, and it takes no notice when the first has ended, nor do senders as long as it exists. So it
//! is dropped at its end, which gives back what it had not sent; and the first is run by [`Tasks`], which tells when it has
//! done something and ends it when nobody needs the connection any more.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use slipway_chassis::chain;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::answering::Answering;
use super::body::RequestBody;
use super::core::Core;
use super::cut::Cut;
use super::failure::Failure;
use crate::heads::SMALL;
use crate::limits::Descriptor;

/// Requests that one connection takes, when the endpoint allows as many; the next ones get another connection. Servers
/// bound the memory of a connection (Node.js: 10 MB, and what an app has written counts), and expect one client's requests
/// on it, not those of all.
const MAX_STREAMS: usize = 16;
/// Connections of one core to one endpoint.
const MAX_CONNECTIONS: usize = 256;
/// Refusals that come together are one.
const TOGETHER: Duration = Duration::from_millis(50);
/// What an endpoint may send of one answer before the client has taken it. The connection's own window has room for all of
/// them, so that clients who do not read hold up nobody else.
const STREAM_WINDOW: u32 = 128 << 10;
/// What waits here of one request's body until the endpoint takes it.
const SEND_BUFFER: usize = 64 << 10;
/// Whoever speaks HTTP/2 begins with its settings (RFC 9113, section 3.4).
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(5);
/// Until then a connection allows this many streams: more than settings can say, and none is begun.
const UNANNOUNCED: usize = 1 << 40;
/// What nobody needs any more has this long to take its leave.
const FAREWELL: Duration = Duration::from_secs(10);

type Http = http2::Connection<TokioIo<Answering<TcpStream>>, RequestBody, Tasks>;

/// No HTTP/2 on a connection that was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// It ended, or something else is spoken there.
    Ended(Option<hyper::Error>),
    /// Nothing came.
    Late,
}

/// Runs what hyper runs beside a connection, on this core.
#[derive(Clone)]
struct Tasks(Rc<Link>);

/// What the tasks of a connection and its owner tell each other.
struct Link {
    /// Of the socket; goes with the task that has it, which is the first one.
    descriptor: RefCell<Option<Descriptor>>,
    /// Something was read or written, or the connection has ended.
    moved: Notify,
    /// Nobody needs it any more.
    left: Notify,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let Some(descriptor) = self.0.descriptor.borrow_mut().take() else {
            tokio::task::spawn_local(future);
            return;
        };
        let link = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let _descriptor = descriptor;
            let mut future = pin!(future);
            let socket = poll_fn(|cx| {
                let polled = future.as_mut().poll(cx);
                link.moved.notify_waiters();
                polled
            });
            // An endpoint that reads nothing would keep it for ever.
            let left = async {
                link.left.notified().await;
                tokio::time::sleep(FAREWELL).await;
            };
            tokio::select! {
                () = socket => {}
                () = left => {}
            }
        });
    }
}

struct Connection {
    sender: http2::SendRequest<RequestBody>,
    /// `None` once it has ended.
    http: Rc<RefCell<Option<Http>>>,
    link: Rc<Link>,
    /// Places that are taken.
    permits: Cell<usize>,
    /// When the last one was left.
    used: Cell<Instant>,
}

impl Connection {
    /// How many requests the endpoint allows at a time; `None` once the connection has ended.
    fn allowed(&self) -> Option<usize> {
        self.http.borrow().as_ref().map(Http::current_max_send_streams)
    }

    /// Whether a request can begin at once. What waited here for another one's end could wait for hours.
    fn has_room(&self, most: usize) -> bool {
        self.allowed().is_some_and(|allowed| self.permits.get() < allowed.min(most))
    }

    async fn settings(&self) -> Result<(), OpenError> {
        loop {
            let moved = self.link.moved.notified();
            match self.allowed() {
                Some(UNANNOUNCED) => moved.await,
                Some(_) => return Ok(()),
                None => return Err(OpenError::Ended(None)),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.left.notify_one();
    }
}

/// The right to one request on a connection. Its body and its response may end at different times; each holds it until then.
pub(crate) struct StreamPermit(Rc<Connection>);

impl StreamPermit {
    fn new(connection: &Rc<Connection>) -> Rc<Self> {
        connection.permits.set(connection.permits.get() + 1);
        Rc::new(Self(Rc::clone(connection)))
    }

    pub(crate) async fn send(
        self: &Rc<Self>,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let request = request.map(|body| body.with_permit(Rc::clone(self)));
        self.0.sender.clone().try_send_request(request).await
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.permits.set(self.0.permits.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// The opening of a connection, for which all wait that come meanwhile.
pub(crate) struct Opening {
    pub(crate) ended: Notify,
    pub(crate) failure: RefCell<Option<Failure>>,
    /// For the first that waits: one that waited gets a permit, whatever limit the endpoint announces.
    pub(crate) permit: RefCell<Option<Rc<StreamPermit>>>,
}

/// Ends an [`Opening`].
pub(crate) struct Opener {
    connections: Rc<Connections>,
    opening: Rc<Opening>,
}

impl Opener {
    /// For one of those who wait; the others look for room on the same connection.
    pub(crate) fn opened(&self, permit: Rc<StreamPermit>) {
        *self.opening.permit.borrow_mut() = Some(permit);
    }

    /// For those who wait.
    pub(crate) fn failed(&self, failure: Failure) {
        *self.opening.failure.borrow_mut() = Some(failure);
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.connections.opening.borrow_mut().take();
        self.opening.ended.notify_waiters();
    }
}

/// The connections of one core to one endpoint.
pub(crate) struct Connections {
    all: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// Requests that one of them takes.
    most: Cell<usize>,
    /// When that became less.
    lowered: Cell<Option<Instant>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            all: RefCell::default(),
            opening: RefCell::default(),
            most: Cell::new(MAX_STREAMS),
            lowered: Cell::new(None),
        }
    }
}

impl Connections {
    /// The endpoint says that a connection brings too much: each gets half as much from now on.
    pub(crate) fn lower(&self, now: Instant) {
        if self.lowered.get().is_none_or(|last| now.saturating_duration_since(last) >= TOGETHER) {
            self.lowered.set(Some(now));
            self.most.set((self.most.get() / 2).max(1));
        }
    }

    /// A place on a connection that is there.
    pub(crate) fn take(&self) -> Option<Rc<StreamPermit>> {
        let mut all = self.all.borrow_mut();
        all.retain(|one| one.allowed().is_some());
        all.iter().find(|one| one.has_room(self.most.get())).map(StreamPermit::new)
    }

    /// Whether there can be no more.
    pub(crate) fn are_many(&self) -> bool {
        self.all.borrow().len() >= MAX_CONNECTIONS
    }

    /// The opening that is under way.
    pub(crate) fn opening(&self) -> Option<Rc<Opening>> {
        self.opening.borrow().clone()
    }

    /// Begins one; there must be none.
    pub(crate) fn begin(self: &Rc<Self>) -> Opener {
        let opening =
            Rc::new(Opening { ended: Notify::new(), failure: RefCell::default(), permit: RefCell::default() });
        *self.opening.borrow_mut() = Some(Rc::clone(&opening));
        Opener { connections: Rc::clone(self), opening }
    }

    /// Begins HTTP/2 on an open connection, and keeps it for others once the endpoint has said how many requests it takes.
    ///
    /// # Errors
    /// When something else is spoken there, or nothing.
    pub(crate) async fn open(
        &self,
        core: &Core,
        stream: TcpStream,
        descriptor: Descriptor,
    ) -> Result<Rc<StreamPermit>, OpenError> {
        let descriptor = RefCell::new(Some(descriptor));
        let link = Rc::new(Link { descriptor, moved: Notify::new(), left: Notify::new() });
        let handshake = http2::Builder::new(Tasks(Rc::clone(&link)))
            .timer(TokioTimer::new())
            .initial_max_send_streams(UNANNOUNCED)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS as u32)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(core.shared.max_header_bytes.max(SMALL)).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(Answering::new(stream, Cut::default())));
        let (sender, http) = handshake.await.map_err(|error| OpenError::Ended(Some(error)))?;
        let http = Rc::new(RefCell::new(Some(http)));
        tokio::task::spawn_local(drive(Rc::clone(&http), Rc::clone(&link)));
        let (permits, used) = (Cell::new(0), Cell::new(Instant::now()));
        let connection = Rc::new(Connection { sender, http, link, permits, used });
        tokio::time::timeout(SETTINGS_TIMEOUT, connection.settings()).await.map_err(|_| OpenError::Late)??;
        let permit = StreamPermit::new(&connection);
        self.all.borrow_mut().push(connection);
        Ok(permit)
    }

    /// Closes connections without a request since before `then`.
    pub(crate) fn close_idle(&self, then: Instant) {
        let is_used = |one: &Connection| one.allowed().is_some() && (one.permits.get() > 0 || one.used.get() >= then);
        self.all.borrow_mut().retain(|one| is_used(one));
    }

    /// Takes no more requests; those under way go on.
    pub(crate) fn close(&self) {
        self.all.borrow_mut().clear();
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.all.borrow().iter().filter(|one| one.permits.get() == 0).count()
    }
}

/// Takes requests until the connection has ended, and then gives back those that it has not sent.
async fn drive(http: Rc<RefCell<Option<Http>>>, link: Rc<Link>) {
    let ended = poll_fn(|cx| match &mut *http.borrow_mut() {
        Some(http) => Pin::new(http).poll(cx),
        None => Poll::Ready(Ok(())),
    });
    if let Err(error) = ended.await {
        tracing::debug!(error = %chain(&error), "connection to an endpoint ended");
    }
    let gone = http.borrow_mut().take();
    drop(gone);
    link.moved.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_come_together_lower_the_number_once() {
        let (connections, now) = (Connections::default(), Instant::now());
        for _ in 0..13 {
            connections.lower(now);
        }
        assert_eq!(connections.most.get(), MAX_STREAMS / 2);
        for number in 1..10 {
            connections.lower(now + number * TOGETHER);
        }
        assert_eq!(connections.most.get(), 1);
    }
}
