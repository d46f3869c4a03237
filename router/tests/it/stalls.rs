//! Clients that keep a request waiting are cut off; apps that take their time are not.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use slipway_test_support::eventually;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.client_stall_timeout_s = 1).await;
    let (ended, mut ends) = tokio::sync::mpsc::channel::<()>(1);
    // Sends without end, and tells when nobody takes it any more.
    let backend = Backend::start(move |_| {
        let ended = ended.clone();
        async move {
            let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
            tokio::spawn(async move {
                let piece = Bytes::from(vec![b'x'; 1 << 16]);
                while sender.send(Ok(Frame::data(piece.clone()))).await.is_ok() {}
                let _ = ended.send(()).await;
            });
            http::Response::new(BodyExt::boxed_unsync(StreamBody::new(ReceiverStream::new(frames))))
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("write");
    tokio::time::timeout(PATIENCE, ends.recv()).await.expect("the app is rid of it").expect("told");
    drop(stream);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_finish_its_body_is_cut_off() {
    let cluster = Cluster::new().await;
    let change = |config: &mut slipway_router::RouterConfig| {
        config.client_stall_timeout_s = 1;
        config.response_timeout_s = 900;
    };
    let router = cluster.router_with(change).await;
    let backend = Backend::saying_after_the_body().await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let answer = router.raw(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(status(&answer), 408, "{answer}");
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        if lines.len() == 1
            && lines[0].contains("\" 408 3 ")
            && lines[0].ends_with("x_cf_routererror:\"client_timeout\"")
        {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_app_is_waited_for() {
    let cluster = Cluster::new().await;
    // Long enough for a client that this host lets wait for its turn.
    let router = cluster.router_with(|config| config.client_stall_timeout_s = 5).await;
    // Longer than a client may stall: before the answer, within it, and before it takes the body.
    let backend = Backend::start(|request| async move {
        let pause = Duration::from_millis(6500);
        tokio::time::sleep(pause).await;
        let length = request.into_body().collect().await.expect("body").to_bytes().len();
        let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        tokio::spawn(async move {
            for word in ["got ".to_owned(), length.to_string()] {
                tokio::time::sleep(pause).await;
                sender.send(Ok(Frame::data(Bytes::from(word)))).await.expect("taken");
            }
        });
        http::Response::new(BodyExt::boxed_unsync(StreamBody::new(ReceiverStream::new(frames))))
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let size = 8 << 20;
    let mut request = format!("POST / HTTP/1.0\r\nHost: app.test\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.resize(request.len() + size, b'x');
    let answer = router.raw(&request).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with(&format!("got {size}")), "{answer}");
    router.stop().await;
}

/// Whether the kernel asks, at quiet connections from `local` to `remote`, if the other end is still there. By
/// `/proc/net/tcp`: address and port in hexadecimal, the state (01 is open), and the timer that runs (02 is that one).
fn is_asked_after(local: Option<u16>, remote: Option<u16>) -> Result<(), String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table of connections");
    let at = |field: Option<&str>, port: Option<u16>| {
        let found = field.and_then(|text| text.split_once(':')).and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
        port.is_none_or(|port| found == Some(port))
    };
    let mut open = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let here = at(fields.get(1).copied(), local) && at(fields.get(2).copied(), remote);
        if here && fields.get(3) == Some(&"01") {
            open += 1;
            if !fields.get(5).is_some_and(|timer| timer.starts_with("02:")) {
                return Err(line.to_owned());
            }
        }
    }
    if open == 0 { Err(table) } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanished_is_detected() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    // Never answers, and may take as long as it wants to.
    let backend = Backend::start(|_| std::future::pending()).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut clients = Vec::new();
    for address in [router.http, router.https] {
        clients.push(TcpStream::connect(address).await.expect("connect"));
    }
    clients[0].write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("write");
    for (local, remote) in
        [(Some(router.http.port()), None), (Some(router.https.port()), None), (None, Some(backend.address.port()))]
    {
        eventually("the kernel asks", PATIENCE, async || is_asked_after(local, remote)).await;
    }
    drop(backend);
    drop(clients);
    router.stop().await;
}
