//! Answers that come before their request is over: they reach the client, whatever becomes of the rest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2::{client, http2_pool, streamed};
use crate::support::*;

/// Sends all before it reads anything, as simple clients do; such a one gives up when it cannot send.
async fn ask(router: &Router, head: &str, body: usize) -> String {
    let mut request = format!("{head}Content-Length: {body}\r\n\r\n").into_bytes();
    request.resize(request.len() + body, b'x');
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    stream.write_all(&request).await.expect("all is taken");
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closes").expect("no reset");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_early_answer_of_an_app_reaches_the_client() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    for connection in ["close", "keep-alive"] {
        // Leaves the body in the socket, which makes of the close a reset.
        let backend = RawBackend::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let answer =
                format!("HTTP/1.1 401 Unauthorized\r\nConnection: {connection}\r\nContent-Length: 2\r\n\r\nno");
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        for size in [100_000, 3_000_000] {
            for _ in 0..5 {
                let answer = ask(&router, "POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n", size).await;
                assert_eq!(status(&answer), 401, "{connection} {size}: {answer}");
                assert!(answer.ends_with("no"), "{answer}");
            }
        }
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_early_answer_of_an_app_by_http2_reaches_the_client() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::accepting(|stream| async move {
        let answered = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&answered);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let tell = Arc::clone(&tell);
            async move {
                // Its body is not even dropped, so nothing of it is taken.
                std::mem::forget(request);
                tell.notify_one();
                let mut answer = reply("no");
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = &mut connection => return,
            () = answered.notified() => {}
        }
        // Time to write the answer; then it goes without a word.
        let _ = tokio::time::timeout(Duration::from_millis(300), connection).await;
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    for _ in 0..3 {
        let answer = ask(&router, "POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n", 3_000_000).await;
        assert_eq!(status(&answer), 401, "{answer}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_by_http2_hears_an_early_answer_while_it_sends() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = RawBackend::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let (body, request) = streamed("/");
    let sending = tokio::spawn(async move {
        let piece = Bytes::from(vec![b'x'; 100_000]);
        while body.send(Ok(Frame::data(piece.clone()))).await.is_ok() {}
    });
    let answer =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("answered");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "no");
    drop(sender);
    sending.await.expect("it ends");
    router.stop().await;
}

/// Sends the most after the answer has begun to come: what was closed by then would not take it.
async fn go_on(router: &Router, head: &str) -> String {
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    let piece = vec![b'x'; 50_000];
    stream.write_all(format!("{head}Content-Length: 3000000\r\n\r\n").as_bytes()).await.expect("written");
    stream.write_all(&piece).await.expect("written");
    tokio::time::timeout(PATIENCE, stream.readable()).await.expect("answered").expect("readable");
    for _ in 1..60 {
        stream.write_all(&piece).await.expect("all is taken");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closes").expect("no reset");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_router_reaches_a_client_that_still_sends() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[])]).await;
    for (head, expected) in [
        ("POST / HTTP/1.1\r\nHost: nowhere.test\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: app.test\r\n", 503),
        ("POST / HTTP/1.1\r\nHost: a b\r\n", 400),
        // What hyper refuses by itself.
        ("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: x\r\n", 400),
        ("POST / HTTP/1.1\r\nHost : app.test\r\n", 400),
    ] {
        let answer = go_on(&router, head).await;
        assert_eq!(status(&answer), expected, "{head:?} gave {answer}");
    }
    router.stop().await;
}

/// An app that notes what it read of a body, and does as it is told by the path.
async fn decides(notes: &Arc<Mutex<Vec<String>>>) -> RawBackend {
    let notes = Arc::clone(notes);
    RawBackend::start(move |_, mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            let head = read_head(&mut stream).await;
            let asks = head.to_ascii_lowercase().contains("expect: 100-continue");
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.as_str() {
                "/refuses" => {
                    let _ = stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno").await;
                }
                "/wants" => stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("written"),
                _ => {}
            }
            let mut body = [0; 4];
            let read = match stream.read_exact(&mut body).await {
                Ok(_) => String::from_utf8_lossy(&body).into_owned(),
                Err(_) => "nothing".to_owned(),
            };
            notes.lock().expect("lock").push(format!("{path} asks: {asks}, {read}"));
            if path != "/refuses" {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                stream.write_all(answer).await.expect("written");
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_decides_whether_a_body_is_sent() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let notes = Arc::default();
    let backend = decides(&notes).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    for (path, status_line, logged) in [
        ("/refuses", "HTTP/1.1 413 ", "/refuses asks: true, nothing"),
        ("/wants", "HTTP/1.1 100 ", "/wants asks: true, body"),
        // Knows nothing of it, and reads.
        ("/silent", "HTTP/1.1 100 ", "/silent asks: true, body"),
    ] {
        let mut stream = TcpStream::connect(router.http).await.expect("connect");
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let first = tokio::time::timeout(PATIENCE, read_head(&mut stream)).await.expect("told");
        assert!(first.starts_with(status_line), "{path}: {first}");
        if path == "/refuses" {
            assert!(first.contains("connection: close"), "{first}");
        } else {
            stream.write_all(b"body").await.expect("written");
            let answer = tokio::time::timeout(PATIENCE, read_head(&mut stream)).await.expect("answered");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
        eventually("the app's note", PATIENCE, async || {
            let log = notes.lock().expect("lock").clone();
            if log.last().is_some_and(|last: &String| last == logged) { Ok(()) } else { Err(log) }
        })
        .await;
    }
    // By HTTP/1.0 there is no such question.
    let old = b"POST /old HTTP/1.0\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody";
    let answer = router.raw(old).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(notes.lock().expect("lock").last().expect("a note"), "/old asks: false, body");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_decides_for_clients_by_http2_too() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let notes = Arc::default();
    let backend = decides(&notes).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let (body, mut request) = streamed("/refuses");
    let value = http::HeaderValue::from_static("100-continue");
    request.headers_mut().insert("expect", value.clone());
    body.send(Ok(Frame::data(Bytes::from_static(b"body")))).await.expect("taken");
    let answer =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("answered");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    eventually("the app's note", PATIENCE, async || {
        let log = notes.lock().expect("lock").clone();
        // Of the body nothing, but its end.
        if log == ["/refuses asks: true, 0\r\n\r"] { Ok(()) } else { Err(log) }
    })
    .await;
    // An app by HTTP/2 is not asked, and gets the body at once.
    let backend = Backend::http2(10, |request: Request<hyper::body::Incoming>| async move {
        let asked = request.headers().contains_key("expect");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        reply(format!("{asked} {}", String::from_utf8_lossy(&body)))
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "q")], vec![http2_pool("q", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let (body, mut request) = streamed("/");
    request.headers_mut().insert("expect", value);
    body.send(Ok(Frame::data(Bytes::from_static(b"body")))).await.expect("taken");
    drop(body);
    let answer = sender.send_request(request).await.expect("answered");
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "false body");
    router.stop().await;
}
