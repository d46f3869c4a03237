//! Requests of a route with a service go there first, and reach the app only with the router's own signature.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use slipway_protocol::v1::Route;
use slipway_test_support::eventually;
use tokio::net::TcpListener;

use crate::support::*;

fn bound(host: &str, pool: &str, url: String) -> Route {
    Route { route_service_url: url, route_service_secret: vec![9; 32].into(), ..route(host, pool) }
}

type Headers = Vec<(String, String)>;

/// Sends the request on to where it came from, with the headers it got, and notes them.
async fn forward(
    seen: Arc<Mutex<Vec<Headers>>>,
    router: SocketAddr,
    request: http::Request<hyper::body::Incoming>,
) -> Reply {
    let headers: Headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    let asked = request.uri().to_string();
    let url: http::Uri = request.headers()["x-cf-forwarded-url"].to_str().expect("text").parse().expect("a url");
    seen.lock().expect("lock").push(headers.clone());
    let mut again = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\n",
        url.path_and_query().expect("a path"),
        url.authority().expect("a host")
    );
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("x-cf-")) {
        again.push_str(&format!("{name}: {value}\r\n"));
    }
    again.push_str("\r\n");
    let answer = raw(router, again.as_bytes()).await;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    reply(format!("service {asked}: {body}"))
}

async fn raw(router: SocketAddr, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(router).await.expect("connect");
    stream.write_all(bytes).await.expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_through_the_service_and_only_signed_ones_pass_it() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let app = Backend::start(|request| async move {
        let known = request.headers().keys().any(|name| name.as_str().starts_with("x-cf-proxy"));
        reply(format!("app {} {known}", request.uri()))
    })
    .await;
    let seen: Arc<Mutex<Vec<Headers>>> = Arc::default();
    let (recorded, back) = (Arc::clone(&seen), router.http);
    let service = Backend::start(move |request| forward(Arc::clone(&recorded), back, request)).await;
    let url = format!("http://{}/in?key=1", service.address);
    let routes = vec![bound("app.test", "p", url.clone()), bound("other.test", "p", url), route("plain.test", "p")];
    cluster.controller.publish(routes, vec![pool("p", &[app.address])]).await;

    assert_eq!(router.get("app.test", "/a?b=c").await, (200, "service /in?key=1: app /a?b=c false".into()));
    assert_eq!(router.get("plain.test", "/x").await, (200, "app /x false".into()));
    let headers = seen.lock().expect("lock")[0].clone();
    let value =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect(name);
    assert_eq!(value("host"), service.address.to_string());
    assert_eq!(value("x-cf-forwarded-url"), "http://app.test/a?b=c");

    // Whoever makes up a signature, or uses one of another route, is refused.
    let ask = async |host: &str, signature: &str| {
        let (metadata, url) = (value("x-cf-proxy-metadata"), value("x-cf-forwarded-url"));
        let request = format!(
            "GET /a?b=c HTTP/1.0\r\nHost: {host}\r\nX-CF-Forwarded-Url: {url}\r\nX-CF-Proxy-Metadata: {metadata}\r\n\
             X-CF-Proxy-Signature: {signature}\r\n\r\n"
        );
        router.raw(request.as_bytes()).await
    };
    let own = value("x-cf-proxy-signature");
    assert_eq!(status(&ask("app.test", &own).await), 200);
    for answer in [ask("app.test", "00ff").await, ask("other.test", &own).await] {
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("x-cf-routererror: invalid_route_service_signature"), "{answer}");
    }
    // What a client says about instances does not reach the service, and the way there has a line of its own.
    let before = seen.lock().expect("lock").len();
    let forged = "GET /f HTTP/1.0\r\nHost: app.test\r\nX-Cf-ApplicationId: forged\r\nX-Cf-InstanceId: forged\r\n\
        X-Cf-InstanceIndex: 99\r\n\r\n";
    assert_eq!(status(&router.raw(forged.as_bytes()).await), 200);
    let headers = seen.lock().expect("lock")[before].clone();
    let names = ["x-cf-applicationid", "x-cf-instanceid", "x-cf-instanceindex"];
    assert!(!headers.iter().any(|(name, _)| names.contains(&name.as_str())), "{headers:?}");
    eventually("both lines of the request", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let of = |instance: &str| {
            let end = format!("app_index:\"{instance}\" instance_id:\"");
            lines.iter().filter(|line| line.contains("\"GET /f HTTP/1.0\" 200 ") && line.contains(&end)).count()
        };
        if of("-") == 1 && of("0") == 1 { Ok(()) } else { Err(lines) }
    })
    .await;
    let websocket = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n";
    let answer = raw(router.http, websocket.as_bytes()).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("route_service_unsupported"), "{answer}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_closes_the_route() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let app = Backend::saying("app").await;
    let (nobody, _kept) = nobody();
    let routes = vec![
        bound("gone.test", "p", format!("http://{nobody}")),
        bound("nonsense.test", "p", "ftp://x".into()),
        Route { route_service_secret: Vec::new().into(), ..bound("keyless.test", "p", format!("http://{nobody}")) },
    ];
    cluster.controller.publish(routes, vec![pool("p", &[app.address])]).await;
    for host in ["gone.test", "nonsense.test", "keyless.test"] {
        let answer = router.raw(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("x-cf-routererror: endpoint_failure ("), "{answer}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_inside_the_platform_is_not_connected_to() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.route_service_networks.clear()).await;
    let (app, inside) = (Backend::saying("app").await, Backend::saying("metadata of the machine").await);
    let named = format!("http://metadata.localhost:{}", inside.address.port());
    let routes = vec![bound("address.test", "p", format!("http://{}", inside.address)), bound("name.test", "p", named)];
    cluster.controller.publish(routes, vec![pool("p", &[app.address])]).await;
    for host in ["address.test", "name.test"] {
        let answer = router.raw(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("x-cf-routererror: endpoint_failure (unreachable)\r\n"), "{answer}");
    }
    assert_eq!(*inside.connections.lock().expect("lock"), 0);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_services_must_show_a_good_certificate() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let app = Backend::saying("app").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (certificate, key) = cluster.authority.issue_web(&["localhost".to_owned()]).expect("web");
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().expect("pem");
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).expect("pem");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("fits");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A refused certificate ends here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer =
                    hyper::service::service_fn(|_| async { Ok::<_, std::convert::Infallible>(reply("over tls")) });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    let routes = vec![
        bound("good.test", "p", format!("https://localhost:{port}/")),
        bound("bad.test", "p", format!("https://127.0.0.1:{port}/")),
    ];
    cluster.controller.publish(routes, vec![pool("p", &[app.address])]).await;
    assert_eq!(router.get("good.test", "/").await, (200, "over tls".into()));
    assert_eq!(router.get("bad.test", "/").await.0, 502, "the certificate is for another name");
    server.abort();
    router.stop().await;
}
