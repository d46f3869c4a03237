//! Start, loss of controllers, drain.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use slipway_protocol::v1::router_command::Command;
use slipway_protocol::v1::{TableDelta, Version};
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::*;

async fn admin(router: &Router, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(router.admin).await.expect("connect");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    (status(&answer), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_controllers_routes_at_once() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::saying("still here").await;
    assert_eq!(admin(&router, "/healthz").await.0, 503, "no table yet");
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    assert_eq!(admin(&router, "/healthz").await.0, 200);
    cluster.stop_controller();
    assert_eq!(router.get("app.test", "/").await, (200, "still here".into()));
    router.stop().await;
    let router = cluster.router().await;
    assert_eq!(router.get("app.test", "/").await, (200, "still here".into()));
    assert_eq!(admin(&router, "/healthz").await.0, 200);
    let metrics = admin(&router, "/metrics").await.1;
    assert!(metrics.contains("router_table_version 1\n") && metrics.contains("class=\"2xx\"} 1\n"), "{metrics}");
    assert!(admin(&router, "/table").await.1.contains("app.test"));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_under_way_finishes_while_the_router_drains() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (go, going) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let going = std::sync::Arc::new(std::sync::Mutex::new(Some(going)));
    let backend = Backend::start(move |_| {
        let frames = going.lock().expect("lock").take().expect("one request");
        async move { http::Response::new(BodyExt::boxed_unsync(StreamBody::new(ReceiverStream::new(frames)))) }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("write");
    go.send(Ok(Frame::data(Bytes::from_static(b"begin ")))).await.expect("send");
    let mut answer = String::new();
    while !answer.contains("begin") {
        answer.push(char::from(stream.read_u8().await.expect("read")));
    }
    let (http, stopping) = (router.http, tokio::spawn(router.stop()));
    eventually("no more connections", PATIENCE, async || match TcpStream::connect(http).await {
        Err(error) => Ok(error),
        Ok(_) => Err("still accepted"),
    })
    .await;
    assert!(!stopping.is_finished());
    go.send(Ok(Frame::data(Bytes::from_static(b"end")))).await.expect("send");
    drop(go);
    stream.read_to_string(&mut answer).await.expect("to the end, then closed");
    assert!(answer.contains("end\r\n0\r\n\r\n"), "{answer}");
    // Long before the drain time is over, which is the end of those that do not finish.
    tokio::time::timeout(PATIENCE, stopping).await.expect("stops soon").expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_deltas_change_nothing_and_are_asked_again() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::saying("right").await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let hellos = || cluster.controller.seen.lock().expect("lock").hellos.len();
    for delta in [
        TableDelta { from: Some(Version::new(1, 7)), to: Some(Version::new(1, 8)), ..TableDelta::default() },
        TableDelta {
            from: Some(Version::new(1, 1)),
            to: Some(Version::new(1, 2)),
            digest: vec![9; 32].into(),
            remove_routes: vec!["route-app.test".into()],
            ..TableDelta::default()
        },
        TableDelta::default(),
    ] {
        let before = hellos();
        cluster.controller.say(Command::Delta(delta));
        eventually("a new Hello", PATIENCE, async || if hellos() > before { Ok(()) } else { Err(before) }).await;
        assert_eq!(router.get("app.test", "/").await, (200, "right".into()));
    }
    // A route to a pool that is not there answers 503, one without targets 404; the others go on.
    let mut empty = route("empty.test", "p");
    empty.targets.clear();
    let mut odd = route("odd.test", "p");
    odd.load_balancing = "of-the-future".into();
    let routes = vec![route("app.test", "p"), route("nowhere.test", "no-such-pool"), empty, odd];
    cluster.controller.publish(routes, vec![pool("p", &[backend.address])]).await;
    for (host, expected) in [("app.test", 200), ("nowhere.test", 503), ("empty.test", 404), ("odd.test", 200)] {
        assert_eq!(router.get(host, "/").await.0, expected, "{host}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_table_no_host_is_called_unknown() {
    let cluster = Cluster::new().await;
    cluster.stop_controller();
    let router = cluster.router().await;
    let (status, text) = router.get("app.test", "/").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("no routing table"), "{text}");
    router.stop().await;
}
