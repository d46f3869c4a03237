//! What happens to a connection before its first request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connection::{Active, Client, Protocol, serve};
use super::core::Core;
use super::fair::Fair;
use super::phase::HEAD_TIMEOUT;
use crate::web_tls::HTTP2;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that is refused has this long to hear it, and so many at a time are told: they have descriptors too.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REFUSALS: usize = 32;
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nX-Cf-RouterError: too_many_connections\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 53\r\n\r\n503 Service Unavailable: router is full, try later.\r\n";

/// Accepts until the router drains.
pub(crate) async fn accept(core: Rc<Core>, listener: tokio::net::TcpListener, secure: bool) {
    loop {
        // Dropping an accept loses nothing: the connection stays in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.drain.cancelled() => break,
        };
        match accepted {
            Ok((stream, remote)) => {
                core.metrics.accepted.fetch_add(1, Ordering::Relaxed);
                take(&core, stream, remote, secure);
            }
            Err(error) => {
                // Out of descriptors or memory, or a client that went away in the queue.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // What was queued before the end is served too.
    while let Some(Ok((stream, remote))) = futures::FutureExt::now_or_never(listener.accept()) {
        take(&core, stream, remote, secure);
    }
}

fn take(core: &Rc<Core>, mut stream: TcpStream, remote: SocketAddr, secure: bool) {
    let client = Client::new(core, remote, secure);
    let Some(descriptor) = client.claim(&core.shared.descriptors) else {
        core.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
        if !secure && core.refusals.get() < MAX_REFUSALS {
            core.refusals.set(core.refusals.get() + 1);
            let core = Rc::clone(core);
            tokio::task::spawn_local(async move {
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(&mut stream)).await;
                core.refusals.set(core.refusals.get() - 1);
            });
        }
        return;
    };
    let active = Active::new(core);
    let core = Rc::clone(core);
    let flow = client.flow(&core);
    tokio::task::spawn_local(Fair::new(flow, async move {
        let _guards = (active, descriptor);
        // Without it the last packet of a response could wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        if !secure {
            let Some(protocol) = sniff_protocol(&stream).await else { return };
            return serve(core, stream, client, protocol).await;
        }
        let Some(config) = &core.shared.web_tls else { return };
        let handshake = tokio_rustls::TlsAcceptor::from(Arc::clone(config)).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => {
                let agreed = stream.get_ref().1.alpn_protocol();
                let protocol = if agreed == Some(HTTP2) { Protocol::Http2 } else { Protocol::Http1 };
                serve(Rc::clone(&core), stream, client, protocol).await;
            }
            Ok(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%remote, "TLS handshake took too long"),
        }
    }));
}

/// Says so, and reads what the client had sent: what is left unread would take the answer away.
async fn refuse(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    let mut waste = [0; 4096];
    while stream.read(&mut waste).await? > 0 {}
    Ok(())
}

/// What a client without TLS speaks, by its first bytes: one that knows beforehand that it may speak HTTP/2 begins with a
/// preface that no request by HTTP/1 begins with (RFC 9113, section 3.4). They stay in the socket.
/// `None` when there are none in time. When the router drains, a first request is still waited for.
async fn sniff_protocol(stream: &TcpStream) -> Option<Protocol> {
    let mut first = [0; 3];
    let peeked = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await.ok()?.ok()?;
    // Clients send the preface in one piece with what follows it. If fewer than three bytes have arrived, the connection is
    // treated as HTTP/1 and refused.
    Some(if peeked == 3 && first == *b"PRI" { Protocol::Http2 } else { Protocol::Http1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_well_formed() {
        let text = std::str::from_utf8(FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
