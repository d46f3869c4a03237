//! Connections by HTTP/2: how many there are, when they end, and clients that misbehave on them.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::http2::{client, get, http2_pool, streamed};
use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_share_connections_but_never_wait_for_each_other() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let (here, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (arrived, going) = (Arc::clone(&here), Arc::clone(&go));
    // Ten at a time on a connection, and each stays until all have come: forty need four connections at least.
    let backend = Backend::http2(10, move |_| {
        let (arrived, going) = (Arc::clone(&arrived), Arc::clone(&going));
        async move {
            arrived.add_permits(1);
            going.acquire().await.expect("open").forget();
            reply("together")
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let sender = client(router.http).await;
    let ask = |path: &'static str| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let response = sender.send_request(get(path)).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.expect("a body").to_bytes()
        })
    };
    let all: Vec<_> = (0..40).map(|_| ask("/one")).collect();
    here.acquire_many(40).await.expect("all are there at once").forget();
    go.add_permits(40);
    for one in all {
        assert_eq!(tokio::time::timeout(PATIENCE, one).await.expect("in time").expect("joined"), "together");
    }
    let opened = *backend.connections.lock().expect("lock");
    assert_eq!(opened, 4, "no more than are needed, although all came at once");
    go.add_permits(20);
    for _ in 0..20 {
        ask("/again").await.expect("joined");
    }
    assert_eq!(*backend.connections.lock().expect("lock"), opened, "those that are there are used");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gives_up_frees_the_app() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (tell, mut events) = mpsc::channel(1);
    // Never answers; tells when the request is there and when it is gone.
    let backend = Backend::http2(100, move |request| {
        let tell = tell.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {
                let _ = tell.send("came").await;
            }
            let _ = tell.send("gone").await;
            std::future::pending().await
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let (body, request) = streamed("/");
    let asking = tokio::spawn(async move { sender.send_request(request).await.is_ok() });
    body.send(Ok(Frame::data("begin".into()))).await.expect("taken");
    assert_eq!(events.recv().await, Some("came"));
    asking.abort();
    assert!(asking.await.expect_err("aborted").is_cancelled());
    assert_eq!(tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time"), Some("gone"));
    drop(body);
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let line = lines.first().ok_or("none yet")?;
        assert!(line.contains(" HTTP/2.0\" 499 "), "{line}");
        Ok::<_, &str>(())
    })
    .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_in_order_while_the_router_drains() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (here, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arrived, going) = (Arc::clone(&here), Arc::clone(&go));
    let backend = Backend::http2(100, move |request| {
        let (arrived, going) = (Arc::clone(&arrived), Arc::clone(&going));
        async move {
            if request.uri().path() == "/long" {
                arrived.notify_one();
                going.notified().await;
            }
            reply("whole")
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let mut second = sender.clone();
    let asking = tokio::spawn(async move {
        let response = sender.send_request(get("/long")).await.expect("an answer");
        response.into_body().collect().await.expect("a body").to_bytes()
    });
    here.notified().await;
    let stopping = tokio::spawn(router.stop());
    // The client is told to go elsewhere with what it asks next.
    tokio::time::timeout(PATIENCE, async { while second.send_request(get("/")).await.is_ok() {} })
        .await
        .expect("told in time");
    go.notify_one();
    assert_eq!(asking.await.expect("joined"), "whole");
    tokio::time::timeout(PATIENCE, stopping).await.expect("in time").expect("joined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_has_gone_is_left_for_one_that_is_there() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let (nobody, _kept) = nobody();
    let alive = Backend::http2(100, |_| async { reply("alive") }).await;
    let leaving = Backend::http2(100, |_| async { reply("alive") }).await;
    let pools = |addresses: &[_]| vec![http2_pool("p", addresses)];
    cluster.controller.publish(vec![route("app.test", "p")], pools(&[nobody, leaving.address])).await;
    let mut sender = client(router.http).await;
    for _ in 0..8 {
        let response = sender.send_request(get("/")).await.expect("an answer");
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "alive");
    }
    assert_eq!(*leaving.connections.lock().expect("lock"), 1);
    // Its connections end with it: the router has one that is open no more.
    cluster.controller.publish(vec![route("app.test", "p")], pools(&[leaving.address, alive.address])).await;
    drop(leaving);
    for _ in 0..8 {
        let response = sender.send_request(get("/")).await.expect("an answer");
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "alive");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_end_their_own_connection_alone() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.cores = 1).await;
    let backend = Backend::saying("ok").await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let frame = |length: u32, kind: u8, flags: u8, stream: u32| {
        let mut head = length.to_be_bytes()[1..].to_vec();
        head.extend([kind, flags]);
        head.extend(stream.to_be_bytes());
        head
    };
    let headers =
        |stream: u32, flags: u8, block: &[u8]| [frame(block.len() as u32, 1, flags, stream), block.to_vec()].concat();
    // Indexed fields of HPACK's static table: GET, http, /; then the name "x", not indexed, with a value.
    let begin = [0x82, 0x86, 0x84, 0x00, 0x01, b'x', 0x7f, 0xff, 0x7f];
    let endless: Vec<u8> = (0..200).flat_map(|_| [frame(16_000, 9, 0, 1), vec![b'a'; 16_000]].concat()).collect();
    // A client that begins requests and takes them back, as fast as it can.
    let rapid: Vec<u8> = (0..20_000_u32)
        .flat_map(|number| {
            let stream = number * 2 + 1;
            let block = [&[0x82, 0x86, 0x84, 0x41, 0x08][..], b"app.test"].concat();
            [headers(stream, 5, &block), frame(4, 3, 0, stream), 8_u32.to_be_bytes().to_vec()].concat()
        })
        .collect();
    for (what, bytes) in [
        ("a preface that breaks off", PREFACE[..20].to_vec()),
        ("a preface with rubbish behind it", [PREFACE, b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"].concat()),
        ("a frame that is too large", [PREFACE, SETTINGS, &frame(0xff_ffff, 0, 0, 1)].concat()),
        ("data of no request", [PREFACE, SETTINGS, &frame(0, 0, 1, 7)].concat()),
        ("a table that does not hold the entry", [PREFACE, SETTINGS, &headers(1, 5, &[0xff, 0xff, 0x7f])].concat()),
        ("a head without end", [PREFACE, SETTINGS, &headers(1, 0, &begin), &endless].concat()),
        ("requests that are taken back", [PREFACE, SETTINGS, &rapid].concat()),
    ] {
        let mut stream = TcpStream::connect(router.http).await.expect("connect");
        // The router may end it before all is written.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{what}: the connection stays open");
        assert_eq!(router.get("app.test", "/").await, (200, "ok".into()), "after {what}");
    }
    // A head that is whole and too large is refused; the connection goes on.
    let mut sender = client(router.http).await;
    let mut large = get("/");
    large.headers_mut().insert("x-large", "x".repeat(40 * 1024).parse().expect("a value"));
    if let Ok(response) = sender.send_request(large).await {
        assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut connect = get("/");
    *connect.method_mut() = http::Method::CONNECT;
    *connect.uri_mut() = "app.test:80".parse().expect("a target");
    let refused = client(router.http).await.send_request(connect).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    router.stop().await;
}
