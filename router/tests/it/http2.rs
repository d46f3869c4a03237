//! HTTP/2 on either side of the router, and both.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_protocol::v1::Pool;
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::*;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A pool whose endpoints speak HTTP/2.
pub(crate) fn http2_pool(id: &str, addresses: &[SocketAddr]) -> Pool {
    Pool { http2: true, ..pool(id, addresses) }
}

/// A client that knows beforehand that it may speak HTTP/2.
pub(crate) async fn client(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Body> {
    get_from("app.test", path)
}

pub(crate) fn get_from(host: &str, path: &str) -> Request<Body> {
    let request = Request::builder().uri(format!("http://{host}{path}"));
    request.body(Empty::new().boxed_unsync()).expect("a request")
}

/// A request whose body comes as it is sent.
pub(crate) fn streamed(path: &str) -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Request<Body>) {
    let (sender, frames) = mpsc::channel(1);
    let request = Request::builder().method("POST").uri(format!("http://app.test{path}")).header("te", "trailers");
    (sender, request.body(StreamBody::new(ReceiverStream::new(frames)).boxed_unsync()).expect("a request"))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Answers as a gRPC server does: each piece comes back as it comes, and the outcome is in the trailers.
async fn echo(request: Request<hyper::body::Incoming>) -> Reply {
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()["te"], "trailers");
    let (sender, frames) = mpsc::channel(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let _ = sender.send(Ok(frame)).await;
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("name"), http::HeaderValue::from(0))]);
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    http::Response::new(StreamBody::new(ReceiverStream::new(frames)).boxed_unsync())
}

/// What an app sees of a request, as text.
async fn seen(request: Request<hyper::body::Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    let cookies: Vec<_> = head.headers.get_all("cookie").iter().map(|one| one.to_str().expect("text")).collect();
    reply(format!(
        "{:?} {} {} host={host:?} proto={:?} cookies={cookies:?} body={body:?}",
        head.version, head.method, head.uri, head.headers["x-forwarded-proto"]
    ))
}

async fn text(sender: &mut SendRequest<Body>, request: Request<Body>) -> String {
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_both_ways_at_once_and_ends_with_trailers() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::http2(100, echo).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut sender = client(router.http).await;
    let (body, request) = streamed("/echo.Echo/Both");
    let response = sender.send_request(request).await.expect("an answer before the body has ended");
    let mut answer = response.into_body();
    for text in ["one", "two", "three"] {
        body.send(data(text)).await.expect("taken");
        let frame = answer.frame().await.expect("a piece").expect("whole");
        assert_eq!(frame.into_data().expect("data"), text);
    }
    drop(body);
    let end = answer.frame().await.expect("the end").expect("whole").into_trailers().expect("trailers");
    assert_eq!(end["grpc-status"], "0");
    assert!(answer.frame().await.is_none());
    eventually("an access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let line = lines.first().ok_or("none yet")?;
        assert!(line.contains("\"POST /echo.Echo/Both HTTP/2.0\" 200 11 11 "), "{line}");
        Ok::<_, &str>(())
    })
    .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_speak_another_version() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (old, new) = (Backend::start(seen).await, Backend::http2(100, seen).await);
    let routes = vec![route("app.test", "old"), route("new.test", "new")];
    let pools = vec![pool("old", &[old.address]), http2_pool("new", &[new.address])];
    cluster.controller.publish(routes, pools).await;

    // HTTP/1.1 to an app by HTTP/2.
    let answer = router
        .raw(b"POST /a?b HTTP/1.1\r\nHost: new.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert!(answer.contains("HTTP/2.0 POST http://new.test/a?b host=None proto=\"http\""), "{answer}");
    assert!(answer.contains("body=b\"abc\""), "{answer}");

    // HTTP/2 to an app by HTTP/1.1: one field of cookies, and a body without a length.
    let mut sender = client(router.http).await;
    let (body, mut request) = streamed("/c");
    for cookie in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", cookie.parse().expect("a value"));
    }
    let sending = tokio::spawn(async move {
        body.send(data("abc")).await.expect("taken");
    });
    let answer = text(&mut sender, request).await;
    sending.await.expect("sent");
    assert!(answer.starts_with("HTTP/1.1 POST /c host=Some(\"app.test\") proto=\"http\""), "{answer}");
    assert!(answer.ends_with("cookies=[\"a=1; b=2\"] body=b\"abc\""), "{answer}");

    // What the router itself says ends a request, not the connection.
    let mut other = get("/");
    *other.uri_mut() = "http://nowhere.test/".parse().expect("a target");
    let refused = sender.send_request(other).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(refused.headers()["x-cf-routererror"], "unknown_route");
    assert!(!refused.headers().contains_key("connection"));
    assert!(text(&mut sender, get("/d")).await.starts_with("HTTP/1.1 GET /d"));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_lets_a_client_choose() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let backend = Backend::http2(100, seen).await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = cluster.authority.certificate_pem();
    let authority =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    roots.add(authority.expect("pem")).expect("an authority");
    for (offered, agreed) in [(&[&b"h2"[..], b"http/1.1"][..], &b"h2"[..]), (&[b"http/1.1"], b"http/1.1")] {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(router.https).await.expect("connect");
        let mut stream = connector.connect("app.test".try_into().expect("a name"), stream).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed));
        if agreed == b"h2" {
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            let answer = text(&mut sender, get("/")).await;
            assert!(answer.starts_with("HTTP/2.0 GET http://app.test/ host=None proto=\"https\""), "{answer}");
        } else {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await.expect("write");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("read");
            assert!(answer.contains("HTTP/2.0 GET http://app.test/ host=None proto=\"https\""), "{answer}");
        }
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_of_protocols_goes_by_http1_to_an_app_that_speaks_both() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    // Such an app tells the two apart by the first bytes; this one is asked for a switch alone.
    let backend = Backend::start(|request| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let mut answer = reply("");
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert("upgrade", http::HeaderValue::from_static("websocket"));
        answer.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
        answer
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![http2_pool("p", &[backend.address])]).await;
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    let ask = b"GET / HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    stream.write_all(ask).await.expect("write");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    drop(stream);
    router.stop().await;
}
