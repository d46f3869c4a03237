//! Listens where builds are, and talks to nobody else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slipway_chassis::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::answers::refusal;
use super::fault::Fault;
use super::guests::{Guest, Guests};
use super::handler::RequestHandler;

/// Connections of all builds.
const CONNECTIONS: usize = 1024;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(60);

/// Says a line to a build.
pub type ReportLine = Arc<dyn Fn(uuid::Uuid, &str) + Send + Sync>;

/// Serves builds until shutdown.
pub(super) async fn serve(
    listener: TcpListener,
    guests: Arc<Guests>,
    handler: Arc<RequestHandler>,
    shutdown: Shutdown,
) {
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of too many open files, mostly: those that end make room.
                tracing::warn!(%error, "a connection to the registries was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(guest) = admitted(&guests, peer) else { continue };
        let own = Arc::clone(&guest.connections).try_acquire_owned();
        let (Ok(own), Ok(one)) = (own, Arc::clone(&all).try_acquire_owned()) else {
            guest.report(&Fault::crowded());
            continue;
        };
        let (handler, stop) = (Arc::clone(&handler), shutdown.clone());
        shutdown.spawn(async move {
            let _held = (own, one);
            tokio::select! {
                () = converse(stream, &guest, &handler) => {}
                () = guest.ended.cancelled() => {}
                () = stop.requested() => {}
            }
        });
    }
}

/// The second line behind the rules of the firewall.
fn admitted(guests: &Guests, peer: SocketAddr) -> Option<Arc<Guest>> {
    let guest = guests.at(peer.ip());
    if guest.is_none() {
        tracing::debug!(%peer, "a connection to the registries comes from no build");
    }
    guest
}

async fn converse(stream: TcpStream, guest: &Arc<Guest>, handler: &RequestHandler) {
    let service = service_fn(async |request| {
        let answer = handler.answer(&request, guest).await.unwrap_or_else(|fault| {
            guest.report(&fault);
            refusal(&fault)
        });
        Ok::<_, Infallible>(answer)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 << 10);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, assignment.id = %guest.build, "a connection to the registries broke off");
    }
}
