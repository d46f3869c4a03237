//! How a connection to an app ends: in order, or reset where the client took its request back.

#![expect(clippy::disallowed_methods, reason = "a test's few messages")]

use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::*;

/// Answers each head with this; then tells what it reads, and how its reading ends.
async fn answers(with: &'static str, sender: mpsc::UnboundedSender<String>) -> RawBackend {
    RawBackend::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.write_all(with.as_bytes()).await.expect("written");
                let _ = sender.send("asked".to_owned());
                if !with.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole") {
                    break;
                }
            }
            let end = stream.read(&mut [0; 16]).await;
            let _ = sender.send(end.map_or_else(|error| error.kind().to_string(), |count| format!("{count} bytes")));
        }
    })
    .await
}

async fn next(events: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_taken_back_resets_its_connection() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    for with in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"] {
        let (sender, mut events) = mpsc::unbounded_channel();
        let backend = answers(with, sender).await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        let mut client = TcpStream::connect(router.http).await.expect("connect");
        client.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("written");
        assert_eq!(next(&mut events).await, "asked");
        if !with.is_empty() {
            let mut seen = String::new();
            while !seen.ends_with("begun") {
                seen.push(char::from(client.read_u8().await.expect("an answer")));
            }
        }
        drop(client);
        assert_eq!(next(&mut events).await, "connection reset", "after {with:?}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_between_requests_ends_in_order() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (sender, mut events) = mpsc::unbounded_channel();
    let backend = answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", sender).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    for _ in 0..2 {
        assert_eq!(router.get("app.test", "/").await, (200, "whole".to_owned()));
        assert_eq!(next(&mut events).await, "asked");
    }
    // The app leaves: nothing is kept for it.
    cluster.controller.publish(Vec::new(), Vec::new()).await;
    assert_eq!(next(&mut events).await, "0 bytes");
    router.stop().await;
}

/// The app says that it is the last one, and leaves the end to the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_answer_ends_in_order() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    for with in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nwhole",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
    ] {
        let (sender, mut events) = mpsc::unbounded_channel();
        let backend = answers(with, sender).await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        assert_eq!(router.get("app.test", "/").await, (200, "whole".to_owned()));
        assert_eq!(next(&mut events).await, "asked");
        assert_eq!(next(&mut events).await, "0 bytes", "after {with:?}");
    }
    router.stop().await;
}

/// On a connection that has served, the app's kernel is slow to acknowledge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_taken_back_at_once_resets_a_connection_that_has_served() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let (sender, mut events) = mpsc::unbounded_channel();
    let backend = RawBackend::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            for _ in 0..3 {
                assert!(!read_head(&mut stream).await.is_empty());
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole").await.expect("written");
            }
            assert!(!read_head(&mut stream).await.is_empty());
            let _ = sender.send("asked".to_owned());
            let end = stream.read(&mut [0; 16]).await;
            let _ = sender.send(end.map_or_else(|error| error.kind().to_string(), |count| format!("{count} bytes")));
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    for _ in 0..3 {
        assert_eq!(router.get("app.test", "/").await, (200, "whole".to_owned()));
    }
    let mut client = TcpStream::connect(router.http).await.expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("written");
    assert_eq!(next(&mut events).await, "asked");
    drop(client);
    assert_eq!(next(&mut events).await, "connection reset");
    router.stop().await;
}

/// The answer is whole, the request is not and never will be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_sent_resets_its_connection() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    for expect in ["Expect: 100-continue\r\n", ""] {
        let (sender, mut events) = mpsc::unbounded_channel();
        let backend = answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly", sender).await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        let mut client = TcpStream::connect(router.http).await.expect("connect");
        let head = format!("POST / HTTP/1.1\r\nHost: app.test\r\n{expect}Content-Length: 100\r\n\r\n");
        client.write_all(head.as_bytes()).await.expect("written");
        assert_eq!(next(&mut events).await, "asked");
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
        drop(client);
        assert_eq!(next(&mut events).await, "connection reset", "{expect:?}");
    }
    router.stop().await;
}

/// What was sent arrives, also when nobody waits for its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_an_app_has_not_read_yet_is_not_lost() {
    // More than the app's kernel takes while the app does not read (its buffer is held small: the kernel would let it grow,
    // and what has arrived may be followed by a reset), and less than the router's does beside that.
    const BODY: usize = 600_000;
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (sender, mut events) = mpsc::unbounded_channel();
    let (go, wait) = tokio::sync::watch::channel(false);
    let backend = RawBackend::start(move |_, mut stream| {
        let (sender, mut wait) = (sender.clone(), wait.clone());
        async move {
            socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).expect("a smaller buffer");
            assert!(!read_head(&mut stream).await.is_empty());
            wait.wait_for(|go| *go).await.expect("told");
            let mut all = Vec::new();
            // A reset would take away what the kernels still have of it.
            let end = stream.read_to_end(&mut all).await.map_err(|error| error.kind());
            let _ = sender.send(format!("{:?}", end.map(|_| "in order")));
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut client = TcpStream::connect(router.http).await.expect("connect");
    let head = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {BODY}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("written");
    client.write_all(&vec![0; BODY]).await.expect("written");
    // A router that hears of the end before it has sent more than the app's kernel takes has nothing left to deliver.
    eventually("data waits for the app", PATIENCE, async || {
        let waits = queues_of(backend.address).iter().any(|queues| queues.leads_there && queues.sent > 0);
        if waits { Ok(()) } else { Err("none yet") }
    })
    .await;
    drop(client);
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let line = lines.first().ok_or("none yet")?;
        assert!(line.contains("\" 499 "), "{line}");
        Ok::<_, &str>(())
    })
    .await;
    go.send(true).expect("heard");
    assert_eq!(next(&mut events).await, "Ok(\"in order\")");
    router.stop().await;
}
