//! Tunnels: both sides have agreed on another protocol, and bytes go through as they are.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::ProxyBody;
use super::connection::Active;
use super::core::Core;
use super::endpoint::EndpointLease;
use super::exchange::Exchange;
use super::fair::Fair;
use super::headers;

/// Opens a tunnel between a client and the endpoint that has agreed.
pub(super) fn tunnel(
    core: &Rc<Core>,
    mut response: Response<Incoming>,
    lease: EndpointLease,
    mut exchange: Exchange,
    client_side: hyper::upgrade::OnUpgrade,
) -> Response<ProxyBody> {
    let endpoint_side = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    exchange.status = head.status.as_u16();
    headers::prepare_response(&mut head.headers, head.status, &exchange.request_id);
    head.extensions.clear();
    let active = Active::new(core);
    let all = &core.shared.descriptors;
    let descriptors = (all.hold(exchange.holder()), lease.hold(all));
    let flow = exchange.flow();
    let (drain, idle) = (core.drain.clone(), core.shared.tunnel_idle);
    let task = async move {
        let _guards = (active, descriptors, lease);
        // The whole exchange moves in here: it ends with the tunnel.
        let exchange = &mut exchange;
        let both = async { tokio::try_join!(client_side, endpoint_side) };
        let Ok((client_side, endpoint_side)) = both.await else { return };
        let heard = Rc::new(Cell::new(Instant::now()));
        let side = |io| Side { io: TokioIo::new(io), heard: Rc::clone(&heard) };
        let (mut client_side, mut endpoint_side) = (side(client_side), side(endpoint_side));
        let copy = tokio::io::copy_bidirectional(&mut client_side, &mut endpoint_side);
        // A tunnel has no end of its own: when the router drains, clients connect again elsewhere.
        tokio::select! {
            copied = copy => {
                if let Ok((received, sent)) = copied {
                    exchange.sent = sent;
                    tracing::trace!(received, sent, "tunnel ended");
                }
            }
            () = drain.cancelled() => {}
            () = silent(&heard, idle) => tracing::debug!("a tunnel was silent for too long"),
        }
    };
    tokio::task::spawn_local(Fair::new(flow, task));
    Response::from_parts(head, ProxyBody::nothing())
}

/// Comes back when nothing was heard for so long.
async fn silent(heard: &Cell<Instant>, idle: Duration) {
    loop {
        let end = heard.get() + idle;
        if end <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(end.into()).await;
    }
}

/// One side of a tunnel; notes when something comes from there.
struct Side<T> {
    io: T,
    heard: Rc<Cell<Instant>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Side<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.heard.set(Instant::now());
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Side<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
