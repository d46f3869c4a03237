//! Clients that misbehave get an answer or a closed connection; their neighbours notice nothing.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&seen);
    let backend = Backend::start(move |request| {
        let noting = Arc::clone(&noting);
        async move {
            let length = request.headers().contains_key("content-length");
            let chunks = request.headers().contains_key("transfer-encoding");
            assert!(!(length && chunks), "both lengths reached the app: {:?}", request.headers());
            let framing = if length {
                "length"
            } else if chunks {
                "chunks"
            } else {
                ""
            };
            let target = format!("{} {} {framing}", request.method(), request.uri());
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            noting.lock().expect("lock").push(format!("{target} {}", String::from_utf8_lossy(&body)));
            reply("ok")
        }
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;

    let long = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Long: {}\r\n\r\n", "x".repeat(40 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: app.test\r\n{}\r\n", "A: b\r\n".repeat(1100));
    for (request, expected) in [
        ("\x16\x03\x01\x02\x00 not http\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: app.test/../x\r\n\r\n", 400),
        ("CONNECT app.test:80 HTTP/1.1\r\nHost: app.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : app.test\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        ("POST / HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let answer = router.raw(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{:.80} gave {answer}", request);
    }
    assert_eq!(*seen.lock().expect("lock"), Vec::<String>::new(), "nothing of it reached the app");

    // Both lengths: the chunks count, the length goes, and what follows on the connection is never taken for a request.
    let smuggle = "POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let answer = router.raw(smuggle.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(seen.lock().expect("lock").split_off(0), ["POST /a chunks abc"]);

    // An extension of a chunk ends with its line, whatever it quotes; it goes no further.
    let quoted = "POST /q HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        3;a=\"\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let answer = router.raw(quoted.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(seen.lock().expect("lock").split_off(0), ["POST /q chunks abc"]);

    // Pipelined requests are answered in order.
    let pipelined = "GET /1 HTTP/1.1\r\nHost: app.test\r\n\r\nPOST /2 HTTP/1.1\r\nHost: app.test\r\n\
        Content-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let answer = router.raw(pipelined.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    assert_eq!(seen.lock().expect("lock").split_off(0), ["GET /1  ", "POST /2 length hi", "GET /3  "]);

    let head = router.raw(b"HEAD / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    let absolute =
        router.raw(b"GET http://app.test/x?y HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&absolute), 200, "{absolute}");
    let patient = b"POST /e HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\
        Connection: close\r\n\r\nhi";
    let answer = router.raw(patient).await;
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(seen.lock().expect("lock").split_off(0), ["HEAD /  ", "GET /x?y  ", "POST /e length hi"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_with_an_unknown_transfer_coding_is_refused() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = RawBackend::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        let coding = if head.starts_with("GET /gzip ") { "gzip, chunked" } else { "Chunked" };
        let answer =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.expect("written");
        stream
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    assert_eq!(router.get("app.test", "/").await, (200, "ok".to_owned()));
    let refused = router.raw(b"GET /gzip HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(status(&refused), 502, "{refused}");
    assert!(refused.contains("x-cf-routererror: endpoint_failure (invalid)\r\n"), "{refused}");
    router.stop().await;
}
