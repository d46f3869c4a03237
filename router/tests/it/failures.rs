//! Endpoints that fail: what is tried again, how often, and what the client is told.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Ends a connection with a reset instead of an orderly close.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
}

/// One request with its own connection.
async fn ask(router: &Router, method: &str) -> String {
    let body = if method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
    router.raw(format!("{method} / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{body}").as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_instance_is_tried_again() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = RawBackend::start(|number, mut stream| async move {
        if number == 0 {
            reset(stream);
            return None;
        }
        while !read_head(&mut stream).await.is_empty() {
            stream.write_all(OK).await.expect("write");
        }
        Some(stream)
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let answer = ask(&router, "GET").await;
    assert_eq!(status(&answer), 200, "{answer}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_seen_is_sent_again_only_if_that_does_no_harm() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&heads);
    // Reads what is asked and closes.
    let backend = RawBackend::start(move |_, mut stream| {
        let noting = Arc::clone(&noting);
        async move {
            let head = read_head(&mut stream).await;
            noting.lock().expect("lock").push(head.split(' ').next().unwrap_or_default().to_owned());
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    for (method, times) in [("POST", 1), ("GET", 3)] {
        let answer = ask(&router, method).await;
        assert_eq!(status(&answer), 502, "{answer}");
        // The rest of a body that nobody read makes of the close a reset.
        let headers = ["closed", "reset"].map(|word| format!("x-cf-routererror: endpoint_failure ({word})\r\n"));
        assert!(headers.iter().any(|line| answer.contains(line)), "{answer}");
        assert_eq!(heads.lock().expect("lock").split_off(0), vec![method; times]);
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_refuses_connections_is_reported() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (nobody, _held) = nobody();
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[nobody])]).await;
    for method in ["GET", "POST"] {
        let answer = ask(&router, method).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("x-cf-routererror: endpoint_failure (refused)\r\n"), "{answer}");
    }
    router.stop().await;
}

/// Answers the first request of each of the first `idle` connections; sees a second one there and closes. Later
/// connections answer everything when `healed`, and otherwise close at their first request.
async fn dying(idle: usize, healed: bool, heads: &Arc<Mutex<Vec<String>>>) -> RawBackend {
    let heads = Arc::clone(heads);
    let together = Arc::new(tokio::sync::Barrier::new(idle));
    RawBackend::start(move |number, mut stream| {
        let (heads, together) = (Arc::clone(&heads), Arc::clone(&together));
        async move {
            for turn in 0.. {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    break;
                }
                heads.lock().expect("lock").push(head.split(' ').next().unwrap_or_default().to_owned());
                if number < idle && turn == 0 {
                    // All at once, so that each has a connection of its own.
                    together.wait().await;
                } else if number < idle || !healed {
                    break;
                }
                stream.write_all(OK).await.expect("write");
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_not_all_tried_with_a_request_that_was_seen() {
    for (method, healed, expected, seen) in
        [("GET", false, 502, 3), ("GET", true, 200, 2), ("POST", true, 502, 1), ("POST", false, 502, 1)]
    {
        let cluster = Cluster::new().await;
        // One core: idle connections belong to one.
        let router = Arc::new(cluster.router_with(|config| config.cores = 1).await);
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let backend = dying(8, healed, &heads).await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let router = Arc::clone(&router);
            clients.spawn(async move { assert_eq!(router.get("app.test", "/").await.0, 200) });
        }
        while let Some(client) = clients.join_next().await {
            client.expect("answered");
        }
        heads.lock().expect("lock").clear();
        let answer = ask(&router, method).await;
        assert_eq!(status(&answer), expected, "{method}: {answer}");
        assert_eq!(heads.lock().expect("lock").split_off(0), vec![method; seen], "{method} healed: {healed}");
        Arc::into_inner(router).expect("last").stop().await;
    }
}
