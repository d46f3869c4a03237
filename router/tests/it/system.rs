//! Endpoints of the platform itself, and sessions that stick.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use slipway_protocol::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::*;

/// Answers one line over mutual TLS, as a member with this role.
async fn member(cluster: &Cluster, role: Role) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let credentials = cluster.credentials(role);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(credentials.authority_pem.as_bytes()).expect("pem")).expect("root");
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).expect("pem")];
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.expose().as_bytes()).expect("key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("verifier"))
        .with_single_cert(chain, key)
        .expect("config");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let task = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 4096];
            if stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecure";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_endpoints_are_dialled_with_mutual_tls_and_must_be_controllers() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (controller, first) = member(&cluster, Role::Controller).await;
    let (cell, second) = member(&cluster, Role::Cell).await;
    let system = |host: &str, id: &str, address| {
        let mut pool = pool(id, &[address]);
        pool.app_id.clear();
        pool.endpoints[0].tls = true;
        let mut route = route(host, id);
        route.system = true;
        (route, pool)
    };
    let (good_route, good_pool) = system("api.test", "system:controllers", controller);
    let (bad_route, bad_pool) = system("posing.test", "system:posing", cell);
    cluster.controller.publish(vec![good_route, bad_route], vec![good_pool, bad_pool]).await;
    assert_eq!(router.get("api.test", "/v3").await, (200, "secure".into()));
    assert_eq!(router.get("posing.test", "/v3").await.0, 502, "a cell's certificate is not a controller's");
    router.stop().await;
    first.abort();
    second.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sticks_to_its_instance() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let mut backends = Vec::new();
    for name in ["zero", "one", "two", "three"] {
        let answer = move |_| async move {
            let mut answer = reply(name);
            answer.headers_mut().insert("set-cookie", http::HeaderValue::from_static("JSESSIONID=s; Path=/"));
            answer
        };
        backends.push(Backend::start(answer).await);
    }
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &addresses)]).await;
    let answer = router.raw(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    let (_, rest) = answer.split_once("__VCAP_ID__=").expect("the instance's cookie");
    let instance = rest.split(';').next().expect("value");
    let body = answer.rsplit("\r\n").next().expect("body");
    let request = format!("GET / HTTP/1.0\r\nHost: app.test\r\nCookie: JSESSIONID=s; __VCAP_ID__={instance}\r\n\r\n");
    for _ in 0..20 {
        let again = router.raw(request.as_bytes()).await;
        assert!(again.ends_with(&format!("\r\n{body}")), "{again}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_name_its_process() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let mut backends = Vec::new();
    for name in ["old-0", "old-1", "new-0"] {
        backends.push(Backend::start(move |_| async move { reply(name) }).await);
    }
    let mut old = pool("old", &[backends[0].address, backends[1].address]);
    let mut new = pool("new", &[backends[2].address]);
    (old.process_id, new.process_id) = ("process-old".into(), "process-new".into());
    let mut both = route("app.test", "old");
    both.targets.push(slipway_protocol::v1::WeightedPool { pool: "new".into(), weight: 1 });
    cluster.controller.publish(vec![both], vec![old, new]).await;
    let asked = async |process: &str| {
        let request = format!("GET / HTTP/1.0\r\nHost: app.test\r\nX-Cf-Process-Instance: {process}\r\n\r\n");
        router.raw(request.as_bytes()).await
    };
    for _ in 0..20 {
        assert!(asked("process-new").await.ends_with("new-0"));
        assert!(asked("process-old:1").await.ends_with("old-1"));
        let answer = asked("process-old").await;
        assert!(answer.ends_with("old-0") || answer.ends_with("old-1"), "{answer}");
    }
    for (process, message) in [
        ("process-new:1", "Requested instance ('1') with process guid ('process-new') does not exist"),
        ("process-none", "Requested instance ('any') with process guid ('process-none') does not exist"),
        ("process-new:x", "X-Cf-Process-Instance must be the process's guid"),
    ] {
        let answer = asked(process).await;
        assert!(status(&answer) == 400 && answer.contains(message), "{process}: {answer}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_algorithms_spread_requests() {
    let cluster = Cluster::new().await;
    let router = cluster.router().await;
    let (heavy, light, other) =
        (Backend::saying("heavy").await, Backend::saying("light").await, Backend::saying("other").await);
    let mut weighted = route("weighted.test", "heavy");
    weighted.targets[0].weight = 9;
    weighted.targets.push(slipway_protocol::v1::WeightedPool { pool: "light".into(), weight: 1 });
    let mut robin = route("robin.test", "both");
    robin.load_balancing = "round-robin".into();
    let mut hash = route("hash.test", "both");
    hash.load_balancing = "hash".into();
    hash.hash_header = "X-User".into();
    let pools = vec![
        pool("heavy", &[heavy.address]),
        pool("light", &[light.address]),
        pool("both", &[light.address, other.address]),
    ];
    cluster.controller.publish(vec![weighted, robin, hash], pools).await;
    let count = async |host: &str, user: &str, times: usize, wanted: &str| {
        let mut count = 0;
        for _ in 0..times {
            let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\nX-User: {user}\r\n\r\n");
            let answer = router.raw(request.as_bytes()).await;
            assert_eq!(status(&answer), 200, "{answer}");
            count += usize::from(answer.ends_with(wanted));
        }
        count
    };
    // 180 of 200 expected; the bound is more than nine standard deviations away.
    let heavy_ones = count("weighted.test", "", 200, "heavy").await;
    assert!((140..200).contains(&heavy_ones), "{heavy_ones}");
    // Each of two cores takes turns by itself.
    let light_ones = count("robin.test", "", 20, "light").await;
    assert!((9..=11).contains(&light_ones), "{light_ones}");
    for user in ["ann", "bob", "eve"] {
        let same = count("hash.test", user, 10, "light").await;
        assert!(same == 0 || same == 10, "{user}: {same}");
    }
    router.stop().await;
}
