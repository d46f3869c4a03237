//! Requests that should work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use slipway_protocol::Role;
use slipway_protocol::dial::{Dialer, ExpectedPeer};
use slipway_protocol::v1::LogQuery;
use slipway_protocol::v1::query_client::QueryClient;
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_with_client_headers_and_logs() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::start(|request| async move {
        let all: Vec<_> =
            request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
        reply(format!("{} {}\n{}", request.method(), request.uri(), all.join("\n")))
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let request = "GET /a?b=c HTTP/1.1\r\nHost: APP.test:80\r\nX-Forwarded-For: 1.2.3.4\r\n\
        X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Client-Cert: forged\r\nX-Vcap-Request-Id: mine\r\n\
        X-Cf-InstanceIndex: 99\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\r\n";
    let answer = router.raw(request.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    for expected in [
        "GET /a?b=c",
        "x-forwarded-for=1.2.3.4, 127.0.0.1",
        "x-forwarded-proto=http",
        "x-cf-applicationid=app-p",
        "x-cf-instanceid=p-0",
        "x-cf-instanceindex=0",
        "host=APP.test:80",
    ] {
        assert!(answer.contains(expected), "{expected} is not in {answer}");
    }
    assert!(!answer.contains("forged") && answer.matches("x-forwarded-proto").count() == 1, "{answer}");
    assert!(!answer.contains("x-secret") && !answer.contains("=mine") && !answer.contains("=99"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("x-vcap-request-id: "), "{answer}");
    assert_eq!(router.get("other.test", "/").await.0, 404);
    let wrong = "GET / HTTP/1.0\r\nHost: app.test\r\nX-Cf-App-Instance: app-p:7\r\n\r\n";
    let answer = router.raw(wrong.as_bytes()).await;
    assert_eq!(status(&answer), 400);
    let message = "Requested instance ('7') with guid ('app-p') does not exist for route ('app.test')";
    assert!(answer.contains(message), "{answer}");
    let right = "GET / HTTP/1.0\r\nHost: app.test\r\nX-Cf-App-Instance: app-p:0\r\n\r\n";
    assert_eq!(status(&router.raw(right.as_bytes()).await), 200);

    let lines = eventually("access lines", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        if lines.len() == 3 { Ok(lines) } else { Err(lines) }
    })
    .await;
    assert!(
        lines[0].starts_with("app.test - [") && lines[0].contains("\"GET /a?b=c HTTP/1.1\" 200 0 "),
        "{}",
        lines[0]
    );

    assert!(lines[0].ends_with(" instance_id:\"p-0\" x_cf_routererror:\"-\""), "{}", lines[0]);
    assert!(
        lines[1].contains("\" 400 0 ") && lines[1].ends_with(" x_cf_routererror:\"unknown_route\""),
        "{}",
        lines[1]
    );

    let read = async |role| {
        let dialer = Dialer::new(&cluster.credentials(role)).expect("a dialler");
        let wanted = ExpectedPeer { role: Role::Router, id: None };
        let channel = dialer.channel(router.query, wanted, |endpoint| endpoint).expect("a channel");
        let query = LogQuery { source_id: "app-p".into(), ..LogQuery::default() };
        QueryClient::new(channel).read_logs(query).await
    };
    let batch = read(Role::Controller).await.expect("logs").into_inner();
    assert_eq!((batch.lines.len(), batch.lines[0].source_type.as_str()), (3, "RTR"));
    assert_eq!(read(Role::Cell).await.expect_err("refused").code(), tonic::Code::PermissionDenied);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stream_both_ways_and_connections_are_reused() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    // Sends back what comes, piece by piece.
    let backend = Backend::start(|request| async move {
        let frames = request.into_body().into_data_stream().map(|data| Ok(Frame::data(data.expect("data"))));
        http::Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let (mut reader, mut writer) = TcpStream::connect(router.http).await.expect("connect").into_split();
    let total = 24 << 20;
    let sending = tokio::spawn(async move {
        let head = format!("POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: {total}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("head");
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..total >> 16 {
            writer.write_all(&piece).await.expect("piece");
        }
        writer
    });
    // An echo that was held back until the request ended would stall both sides: nothing reads the rest.
    let mut got = 0;
    let mut buffer = vec![0; 1 << 16];
    while got < total {
        let count = reader.read(&mut buffer).await.expect("read");
        assert!(count > 0, "ended after {got}");
        got += buffer[..count].iter().filter(|byte| **byte == b'x').count();
    }
    drop(sending.await.expect("sent"));

    let before = *backend.connections.lock().expect("lock");
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    for _ in 0..20 {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi").await.expect("write");
        let mut answer = String::new();
        while !answer.contains("hi\r\n0\r\n\r\n") {
            let count = stream.read(&mut buffer).await.expect("read");
            assert!(count > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
    let opened = *backend.connections.lock().expect("lock") - before;
    assert!(opened <= 2, "{opened} connections for 20 requests of one client");
    router.stop().await;
}

/// What a GET carries in chunks reaches the app in chunks; a length beside the chunks of an answer does not reach the
/// client, which would believe it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_alone_say_where_a_body_ends() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let echo = Backend::start(|request| async move {
        let length = request.headers().contains_key("content-length");
        let body = request.into_body().collect().await.expect("body").to_bytes();
        reply(format!("length {length} body {}", String::from_utf8_lossy(&body)))
    })
    .await;
    let both = RawBackend::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
            8\r\nlong one\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("write");
        stream
    })
    .await;
    let routes = vec![route("echo.test", "echo"), route("both.test", "both")];
    let pools = vec![pool("echo", &[echo.address]), pool("both", &[both.address])];
    cluster.controller.publish(routes, pools).await;
    for method in ["GET", "POST", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        );
        let answer = router.raw(request.as_bytes()).await;
        assert!(answer.ends_with("length false body abcde"), "{method}: {answer}");
    }
    let answer = router.raw(b"GET / HTTP/1.1\r\nHost: both.test\r\nConnection: close\r\n\r\n").await;
    assert!(!answer.to_ascii_lowercase().contains("content-length"), "{answer}");
    assert!(answer.contains("8\r\nlong one\r\n0\r\n\r\n"), "{answer}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_become_tunnels() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::start(|mut request| async move {
        assert_eq!(request.headers()["upgrade"], "echo");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("upgrade"));
            let mut word = [0; 5];
            while io.read_exact(&mut word).await.is_ok() {
                io.write_all(&word).await.expect("write");
            }
        });
        let mut response = reply("");
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", http::HeaderValue::from_static("echo"));
        response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
        response
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    let head = "GET /chat HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        answer.push(char::from(stream.read_u8().await.expect("head")));
    }
    assert_eq!(status(&answer), 101, "{answer}");
    for word in [b"hello", b"world"] {
        stream.write_all(word).await.expect("write");
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.expect("read");
        assert_eq!(&back, word);
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dying_backend_costs_no_get() {
    let cluster = Cluster::new().await;
    let router = Arc::new(cluster.router().await);
    let (first, second) = (Backend::saying("first").await, Backend::saying("second").await);
    let addresses = [first.address, second.address];
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &addresses)]).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (router, done) = (Arc::clone(&router), Arc::clone(&done));
        clients.spawn(async move {
            for _ in 0..100 {
                let (status, body) = router.get("app.test", "/").await;
                assert_eq!(status, 200, "{body}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    eventually("load", PATIENCE, async || if done.load(Ordering::Relaxed) > 40 { Ok(()) } else { Err(()) }).await;
    drop(first);
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    drop(second);
    eventually("all gone", PATIENCE, async || match router.get("app.test", "/").await {
        (502, body) => Ok(body),
        other => Err(other),
    })
    .await;
    Arc::into_inner(router).expect("last").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_is_served_with_the_given_certificate() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::start(|request| async move {
        reply(Bytes::copy_from_slice(request.headers()["x-forwarded-proto"].as_bytes()))
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let authority = reqwest::Certificate::from_pem(cluster.authority.certificate_pem().as_bytes()).expect("pem");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .resolve("app.test", router.https)
        .build()
        .expect("client");
    let url = format!("https://app.test:{}/", router.https.port());
    let text = client.get(url).header("x-forwarded-proto", "http").send().await.expect("answer").text().await;
    assert_eq!(text.expect("text"), "https");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_headers_count_only_from_trusted_proxies() {
    for (proxies, heard) in
        [("127.0.0.0/8", "1.2.3.4, 127.0.0.1 https certificate"), ("10.0.0.0/8", "127.0.0.1 http -")]
    {
        let cluster = Cluster::new().await;
        let router = cluster.router_with(|config| config.trusted_proxies = Some(vec![proxies.to_owned()])).await;
        let backend = Backend::start(|request| async move {
            let forwarded = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert"]
                .map(|name| request.headers().get(name).map_or("-", |value| value.to_str().expect("text")).to_owned());
            reply(forwarded.join(" "))
        })
        .await;
        cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
        let request = b"GET / HTTP/1.0\r\nHost: app.test\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-Client-Cert: certificate\r\n\r\n";
        let answer = router.raw(request).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{heard}")), "{proxies}: {answer}");
        router.stop().await;
    }
}
