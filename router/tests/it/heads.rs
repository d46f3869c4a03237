//! Large heads, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use slipway_test_support::eventually;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http2::{client, http2_pool};
use crate::support::*;

/// Tells how many fields it got and how large they were, and answers with as many.
async fn mirror(request: Request<Incoming>) -> Reply {
    let fields: Vec<_> = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-n")).collect();
    let bytes: usize = fields.iter().map(|(_, value)| value.len()).sum();
    let mut answer = reply(format!("{} {bytes}", fields.len()));
    for (name, value) in fields {
        answer.headers_mut().append(name.clone(), value.clone());
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_and_large_fields_pass_both_ways() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.max_header_bytes = 1 << 20).await;
    let plain = Backend::accepting(|stream| async move {
        let service =
            hyper::service::service_fn(|request| async { Ok::<_, std::convert::Infallible>(mirror(request).await) });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.max_headers(2000).max_buf_size(2 << 20);
        let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    })
    .await;
    let streams = Backend::accepting(|stream| async move {
        let service =
            hyper::service::service_fn(|request| async { Ok::<_, std::convert::Infallible>(mirror(request).await) });
        let mut http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        http.max_header_list_size(2 << 20);
        let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    })
    .await;
    for by in [pool("p", &[plain.address]), http2_pool("q", &[streams.address])] {
        cluster.controller.publish(vec![route("app.test", &by.id)], vec![by.clone()]).await;
        for (count, size) in [(250, 10), (10, 20_000), (3, 300_000)] {
            let value = "x".repeat(size);
            let fields: String = (0..count).map(|at| format!("X-N{at}: {value}\r\n")).collect();
            let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{fields}\r\n");
            let answer = router.raw(request.as_bytes()).await;
            assert_eq!(status(&answer), 200, "{count} of {size}: {:.300}", answer);
            assert!(answer.ends_with(&format!("{count} {}", count * size)), "{count} of {size}");
            assert_eq!(answer.matches("x-n").count(), count);
        }
        let mut sender = client(router.http).await;
        let request = (0..200).fold(Request::builder().uri("http://app.test/"), |request, at| {
            request.header(format!("x-n{at}"), "x".repeat(1000))
        });
        let answer = sender.send_request(request.body(Empty::new().boxed_unsync()).expect("a request")).await;
        // What a client of this library takes of an answer is less.
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::OK));
    }
    // The bounds.
    for fields in ["A: b\r\n".repeat(300), format!("A: {}\r\n", "x".repeat(1100 << 10))] {
        let answer = router.raw(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 431, "{:.300}", answer);
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_have_so_much_room_and_small_ones_need_none() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.max_header_bytes = 1 << 20).await;
    let backend = Backend::saying("here").await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    // A megabyte each of heads that do not end: room is for 64 of them.
    let piece = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Long: {}", "x".repeat(1000 << 10));
    let (mut held, mut writing) = (Vec::new(), tokio::task::JoinSet::new());
    let written = Arc::<AtomicUsize>::default();
    for number in 0..70 {
        if number == 64 {
            // Those that are still growing would be refused in place of the ones that come too late.
            eventually("64 heads are read", PATIENCE, async || {
                let waiting = queues_of(router.http).iter().filter(|queues| queues.sent + queues.received > 0).count();
                let written = written.load(Ordering::Relaxed);
                if waiting == 0 && written == number { Ok(()) } else { Err((waiting, written)) }
            })
            .await;
        }
        let stream = TcpStream::connect(router.http).await.expect("connect");
        let (reading, mut sending) = stream.into_split();
        let (piece, written) = (piece.clone(), Arc::clone(&written));
        writing.spawn(async move {
            // Who is refused cannot send all.
            let _ = sending.write_all(piece.as_bytes()).await;
            written.fetch_add(1, Ordering::Relaxed);
            sending
        });
        held.push(reading);
    }
    let refused = std::cell::Cell::new(0);
    eventually("six are refused", PATIENCE, async || {
        let mut buffer = [0; 1024];
        for stream in &held {
            if let Ok(length) = stream.try_read(&mut buffer)
                && length > 0
            {
                let text = String::from_utf8_lossy(&buffer[..length]);
                assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too_many_large_headers"), "{text}");
                refused.set(refused.get() + 1);
            }
        }
        if refused.get() >= 6 { Ok(()) } else { Err(refused.get()) }
    })
    .await;
    assert_eq!(router.get("app.test", "/").await, (200, "here".to_owned()));
    // By HTTP/2 as well.
    let large = Request::builder().uri("http://app.test/").header("x-long", "x".repeat(900 << 10));
    let answer = client(router.http).await.send_request(large.body(Empty::new().boxed_unsync()).expect("a request"));
    assert_eq!(answer.await.expect("answered").headers()["x-cf-routererror"], "too_many_large_headers");
    drop((held, writing));
    let large = format!("GET / HTTP/1.0\r\nHost: app.test\r\nX-Long: {}\r\n\r\n", "x".repeat(500 << 10));
    eventually("room", PATIENCE, async || match router.raw(large.as_bytes()).await {
        answer if answer.contains("too_many_large_headers") => Err(answer),
        _ => Ok(()),
    })
    .await;
    router.stop().await;
}
