//! How a connection to an app ends: in order, or reset where the client took its request back.

use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::*;

/// Answers each head with this; then tells what it reads, and how its reading ends.
async fn answers(with: &'static str, tell: mpsc::UnboundedSender<String>) -> RawBackend {
    RawBackend::start(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.write_all(with.as_bytes()).await.expect("written");
                let _ = tell.send("asked".to_owned());
                if !with.ends_with("whole") {
                    break;
                }
            }
            let end = stream.read(&mut [0; 16]).await;
            let _ = tell.send(end.map_or_else(|error| error.kind().to_string(), |count| format!("{count} bytes")));
        }
    })
    .await
}

async fn next(told: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time").expect("told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_taken_back_resets_its_connection() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    for with in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let backend = answers(with, tell).await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        let mut client = TcpStream::connect(router.http).await.expect("connect");
        client.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("written");
        assert_eq!(next(&mut told).await, "asked");
        if !with.is_empty() {
            let mut seen = String::new();
            while !seen.ends_with("begun") {
                seen.push(char::from(client.read_u8().await.expect("an answer")));
            }
        }
        drop(client);
        assert_eq!(next(&mut told).await, "connection reset", "after {with:?}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_between_requests_ends_in_order() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", tell).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    for _ in 0..2 {
        assert_eq!(router.get("app.test", "/").await, (200, "whole".to_owned()));
        assert_eq!(next(&mut told).await, "asked");
    }
    // The app leaves: nothing is kept for it.
    cluster.controller.publish(Vec::new(), Vec::new()).await;
    assert_eq!(next(&mut told).await, "0 bytes");
    router.stop().await;
}

/// What was sent arrives, also when nobody waits for its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_has_not_read_yet_is_not_lost() {
    // More than the app's kernel takes while the app does not read, and less than the router's does beside that.
    const BODY: usize = 600_000;
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let (go, wait) = tokio::sync::watch::channel(false);
    let backend = RawBackend::start(move |_, mut stream| {
        let (tell, mut wait) = (tell.clone(), wait.clone());
        async move {
            assert!(!read_head(&mut stream).await.is_empty());
            wait.wait_for(|go| *go).await.expect("told");
            let mut all = Vec::new();
            // A reset would take away what the kernels still have of it.
            let end = stream.read_to_end(&mut all).await.map_err(|error| error.kind());
            let _ = tell.send(format!("{:?}", end.map(|_| "in order")));
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut client = TcpStream::connect(router.http).await.expect("connect");
    let head = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {BODY}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("written");
    client.write_all(&vec![0; BODY]).await.expect("written");
    drop(client);
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let line = lines.first().ok_or("none yet")?;
        assert!(line.contains("\" 499 "), "{line}");
        Ok::<_, &str>(())
    })
    .await;
    go.send(true).expect("heard");
    assert_eq!(next(&mut told).await, "Ok(\"in order\")");
    router.stop().await;
}
