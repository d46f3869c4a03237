//! Apps that speak HTTP/2 badly, or end their connections when they like, and clients that leave an app waiting.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_test_support::eventually;
use tokio::net::TcpStream;

use crate::http2::{Body, client, get, http2_pool, streamed};
use crate::support::*;

async fn status_of(sender: &mut SendRequest<Body>, request: Request<Body>) -> StatusCode {
    let asked = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    let response = asked.expect("an answer");
    let status = response.status();
    response.into_body().collect().await.expect("a body");
    status
}

fn post(path: &str) -> Request<Body> {
    let mut request = get(path);
    *request.method_mut() = http::Method::POST;
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_may_end_its_connections_whenever_it_likes() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    // Takes its leave of a connection with each third request.
    let backend = Backend::accepting(|stream| async move {
        let (count, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        let leaving = Arc::clone(&enough);
        let service = service_fn(move |_: Request<Incoming>| {
            if count.fetch_add(1, Ordering::Relaxed) == 2 {
                leaving.notify_one();
            }
            async { Ok::<_, Infallible>(reply("ok")) }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = enough.notified() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    for number in 0..40 {
        let request = if number % 2 == 0 { get("/") } else { post("/") };
        assert_eq!(status_of(&mut sender, request).await, StatusCode::OK, "request {number}");
    }
    assert!(*backend.connections.lock().expect("lock") > 10);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_ends_a_request_alone_is_not_at_fault() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let backend = Backend::accepting(move |stream| {
        let counter = Arc::clone(&counter);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                counter.fetch_add(1, Ordering::Relaxed);
                let good = request.uri().path() == "/good";
                async move { if good { Ok(reply("ok")) } else { Err(io::Error::other("this stream ends")) } }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    for _ in 0..20 {
        let refused = sender.send_request(get("/bad")).await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(refused.headers()["x-cf-routererror"], "endpoint_failure (stream reset)");
    }
    assert_eq!(status_of(&mut sender, get("/good")).await, StatusCode::OK);
    assert_eq!(asked.load(Ordering::Relaxed), 21, "none of it is sent twice");
    assert_eq!(*backend.connections.lock().expect("lock"), 1);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_does_not_free_the_place_of_a_body_that_still_comes() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let held: Arc<Mutex<Vec<Incoming>>> = Arc::default();
    let keeping = Arc::clone(&held);
    // One request at a time on a connection. It answers at once and goes on wanting the body.
    let backend = Backend::http2(1, move |request| {
        keeping.lock().expect("lock").push(request.into_body());
        async { reply("early") }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let (body, request) = streamed("/");
        assert_eq!(status_of(&mut sender, request).await, StatusCode::OK);
        bodies.push(body);
    }
    assert_eq!(status_of(&mut sender, get("/")).await, StatusCode::OK);
    assert_eq!(*backend.connections.lock().expect("lock"), 4, "each of the three still has its place");
    drop(bodies);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_does_not_speak_http2_gets_its_own_error() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let old = Backend::saying("old").await;
    let silent = RawBackend::start(|_, stream| async move { stream }).await;
    let routes = vec![route("app.test", "old"), route("silent.test", "silent")];
    let pools = vec![http2_pool("old", &[old.address]), http2_pool("silent", &[silent.address])];
    cluster.controller.publish(routes, pools).await;
    let mut sender = client(router.http).await;
    for (host, word) in [("app.test", "endpoint_failure (invalid)"), ("silent.test", "endpoint_failure (late)")] {
        let mut request = get("/");
        *request.uri_mut() = format!("http://{host}/").parse().expect("a target");
        let refused = sender.send_request(request).await.expect("an answer");
        assert_eq!(refused.headers()["x-cf-routererror"], word);
        assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
    }
    router.stop().await;
}

/// A client that takes nothing of any answer.
async fn stubborn(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(0).initial_connection_window_size(1 << 20);
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    const LARGE: usize = 8 << 20;
    let backend = Backend::http2(100, |_| async {
        http::Response::new(Full::new(Bytes::from(vec![b'x'; LARGE])).boxed_unsync())
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let slow = stubborn(router.http).await;
    let mut held = Vec::new();
    for _ in 0..15 {
        let response = slow.clone().send_request(get("/")).await.expect("a head");
        assert_eq!(response.status(), StatusCode::OK);
        held.push(response);
    }
    let response = client(router.http).await.send_request(get("/")).await.expect("a head");
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("in time");
    assert_eq!(body.expect("whole").to_bytes().len(), LARGE);
    assert_eq!(*backend.connections.lock().expect("lock"), 1, "they all share one");
    drop(held);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_ends_its_own_request_alone() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.client_stall_timeout_s = 1).await;
    let (old, new) = (Backend::saying_after_the_body().await, Backend::http2(100, |_| async { reply("new") }).await);
    let routes = vec![route("app.test", "old"), route("new.test", "new")];
    cluster.controller.publish(routes, vec![pool("old", &[old.address]), http2_pool("new", &[new.address])]).await;
    let mut sender = client(router.http).await;
    let (body, request) = streamed("/");
    body.send(Ok(Frame::data("begin".into()))).await.expect("taken");
    assert_eq!(status_of(&mut sender, request).await, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(status_of(&mut sender, post("/")).await, StatusCode::OK, "the connection goes on");
    drop(body);
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-old");
        if lines.iter().any(|line| line.contains(" HTTP/2.0\" 408 5 ")) { Ok(()) } else { Err(lines) }
    })
    .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_of_answers_pass_and_two_lengths_do_not() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::http2(100, |_| async {
        let mut answer = reply("ok");
        answer.headers_mut().insert("x-large", HeaderValue::from_str(&"x".repeat(40_000)).expect("a value"));
        answer
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let answer = router.raw(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "{answer:.300}");
    assert!(answer.len() > 40_000);
    let mut twice = get("/");
    for _ in 0..2 {
        twice.headers_mut().append("content-length", HeaderValue::from_static("0"));
    }
    assert_eq!(status_of(&mut client(router.http).await, twice).await, StatusCode::BAD_REQUEST);
    router.stop().await;
}
