//! Connection limits: who holds many connections is refused, and the neighbours are not affected.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::http2::{Body, get, get_from};
use crate::support::*;

/// Takes connections and never answers. Tells how many there are.
async fn deaf() -> (RawBackend, Arc<Mutex<usize>>) {
    let count: Arc<Mutex<usize>> = Arc::default();
    let counting = Arc::clone(&count);
    let backend = RawBackend::start(move |_, stream| {
        *counting.lock().expect("lock") += 1;
        async { stream }
    })
    .await;
    (backend, count)
}

async fn has(count: &Mutex<usize>, wanted: usize) {
    eventually("connections to the app", PATIENCE, async || {
        let now = *count.lock().expect("lock");
        if now == wanted { Ok(()) } else { Err(now) }
    })
    .await;
}

/// A connection from another address of this host.
async fn from(source: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(to).await
}

async fn http2_from(source: [u8; 4], to: SocketAddr) -> SendRequest<Body> {
    let stream = from(source, to).await.expect("connect");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn asking(router: &Router, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_gets_at_most_its_limit_of_requests() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.max_connections_per_endpoint = 3).await;
    let (backend, count) = deaf().await;
    let neighbour = Backend::saying("here").await;
    let routes = || vec![route("app.test", "p"), route("other.test", "q")];
    let other = pool("q", &[neighbour.address]);
    cluster.controller.publish(routes(), vec![pool("p", &[backend.address]), other.clone()]).await;
    let mut held = Vec::new();
    for wanted in 1..=3 {
        held.push(asking(&router, "app.test").await);
        has(&count, wanted).await;
    }
    let refused = router.raw(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("x-cf-routererror: Connection Limit Reached\r\n"), "{refused}");
    assert!(refused.contains("Requested route ('app.test') has reached the connection limit."), "{refused}");
    for wish in ["X-Cf-App-Instance: app-p:0", "Cookie: __VCAP_ID__=p-0"] {
        let refused = router.raw(format!("GET / HTTP/1.0\r\nHost: app.test\r\n{wish}\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&refused), 503, "{wish}: {refused}");
    }
    assert_eq!(router.get("other.test", "/").await, (200, "here".to_owned()));
    eventually("the reason in the access line", PATIENCE, async || {
        let lines = access_ring(cluster.directory.path(), "app-p");
        let logged =
            lines.iter().filter(|line| line.ends_with("x_cf_routererror:\"Connection Limit Reached\"")).count();
        if logged == 3 { Ok(()) } else { Err(lines) }
    })
    .await;
    // Another instance takes what this one does not.
    cluster.controller.publish(routes(), vec![pool("p", &[backend.address, neighbour.address]), other.clone()]).await;
    for _ in 0..8 {
        assert_eq!(router.get("app.test", "/").await, (200, "here".to_owned()));
    }
    // Who leaves makes room.
    cluster.controller.publish(routes(), vec![pool("p", &[backend.address]), other]).await;
    held.pop();
    eventually("room for one more", PATIENCE, async || {
        let mut stream = asking(&router, "app.test").await;
        let refusal = tokio::time::timeout(Duration::from_millis(200), read_head(&mut stream)).await;
        refusal.map_or(Ok(()), Err)
    })
    .await;
    drop((held, backend));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_holds_its_share_is_refused_before_its_neighbour() {
    let cluster = Cluster::new().await;
    let change = |config: &mut slipway_router::RouterConfig| {
        // Cores that look at the same moment may each take the last place.
        config.cores = 1;
        config.max_connections = 100;
        config.max_connections_per_endpoint = 0;
    };
    let router = cluster.router_with(change).await;
    let (backend, count) = deaf().await;
    let neighbour = Backend::saying("here").await;
    let pools = vec![pool("p", &[backend.address]), pool("q", &[neighbour.address])];
    cluster.controller.publish(vec![route("app.test", "p"), route("other.test", "q")], pools).await;
    // Many clients, none of which has much. All are there before the first asks for the app: what it may hold depends on it.
    let (mut clients, mut asked) = (Vec::new(), JoinSet::new());
    for number in 0..10 {
        let mut sender = http2_from([127, 0, 1, number + 1], router.http).await;
        let answer = sender.send_request(get_from("nobody.test", "/")).await.expect("answered");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        clients.push(sender);
    }
    for sender in &clients {
        for _ in 0..10 {
            let request = sender.clone().send_request(get("/"));
            asked.spawn(async move { request.await.map(|answer| (answer.status(), answer.headers().clone())) });
        }
    }
    let mut refused = 0;
    // 10 clients; of the 90 places that are left the app has half.
    while refused < 55 {
        let answer = tokio::time::timeout(PATIENCE, asked.join_next()).await.expect("refused").expect("some are left");
        let (status, headers) = answer.expect("joined").expect("answered");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers["x-cf-routererror"], "app_connection_limit");
        refused += 1;
    }
    has(&count, 45).await;
    for _ in 0..20 {
        assert_eq!(router.get("other.test", "/").await, (200, "here".to_owned()));
    }
    drop((clients, asked, backend));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_holds_its_share_is_refused_before_its_neighbour() {
    let cluster = Cluster::new().await;
    let change = |config: &mut slipway_router::RouterConfig| {
        config.max_connections = 100;
        config.trusted_proxies = Some(vec!["127.0.3.0/24".into()]);
    };
    let router = cluster.router_with(change).await;
    let backend = Backend::saying("here").await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let open = async |source: [u8; 4]| {
        let mut stream = from(source, router.http).await.expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("written");
        let head = tokio::time::timeout(PATIENCE, read_head(&mut stream)).await.expect("answered");
        (stream, status(&head), head)
    };
    let mut held = Vec::new();
    let refusal = loop {
        let (stream, status, head) = open([127, 0, 2, 1]).await;
        if status != 200 {
            break head;
        }
        held.push(stream);
        assert!(held.len() < 100);
    };
    assert!(status(&refusal) == 503 && refusal.contains("X-Cf-RouterError: too_many_connections"), "{refusal}");
    assert!((40..=50).contains(&held.len()), "about half: {}", held.len());
    for _ in 0..10 {
        assert_eq!(router.get("app.test", "/").await, (200, "here".to_owned()));
    }
    // A load balancer that was named brings many clients.
    let mut brought = Vec::new();
    for _ in 0..30 {
        let (stream, status, head) = open([127, 0, 3, 1]).await;
        assert_eq!(status, 200, "{head}");
        brought.push(stream);
    }
    // Others have less now.
    assert_eq!(open([127, 0, 2, 1]).await.1, 503);
    drop((held, brought));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_ends_and_a_stream_does_not() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.client_stall_timeout_s = 5).await;
    let backend = Backend::saying_after_the_body().await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let trickle = async |head: &str, piece: &[u8], most: usize| {
        let mut stream = TcpStream::connect(router.http).await.expect("connect");
        stream
            .write_all(format!("POST / HTTP/1.1\r\nHost: app.test\r\n{head}\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        for _ in 0..most {
            let next = tokio::time::timeout(Duration::from_millis(500), read_head(&mut stream)).await;
            if let Ok(answer) = next {
                return answer;
            }
            let _ = stream.write_all(piece).await;
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
        read_head(&mut stream).await
    };
    let (slow, stream) = tokio::join!(
        // It would be whole in time, if slow were good enough.
        trickle("Content-Length: 60", b"x", 60),
        trickle("Transfer-Encoding: chunked", b"1\r\nx\r\n", 16)
    );
    assert_eq!(status(&slow), 408, "{slow}");
    assert!(slow.contains("x-cf-routererror: client_timeout"), "{slow}");
    assert_eq!(status(&stream), 200, "{stream}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_silent_ends() {
    let cluster = Cluster::new().await;
    let router = cluster.router_with(|config| config.tunnel_idle_timeout_s = 1).await;
    let backend = RawBackend::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(switch).await.expect("written");
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.expect("read");
        stream.write_all(&word).await.expect("written");
        stream
    })
    .await;
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    let mut stream = TcpStream::connect(router.http).await.expect("connect");
    let ask = b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask).await.expect("written");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream.write_all(b"ping").await.expect("written");
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("ends").expect("in order");
    assert_eq!(rest, b"ping");
    router.stop().await;
}

/// What a neighbour feels while one app, which never answers, is flooded: `SLIPWAY_FLOOD=20x250` for so many clients by
/// HTTP/2 with so many requests each, `--nocapture` for the figures; `SLIPWAY_FLOOD_UNBOUND=1` without the limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_is_served_while_one_app_is_flooded() {
    let flood = std::env::var("SLIPWAY_FLOOD").unwrap_or_else(|_| "4x100".to_owned());
    let (clients, streams) = flood.split_once('x').expect("clients x requests");
    let (clients, streams): (usize, usize) = (clients.parse().expect("clients"), streams.parse().expect("requests"));
    let bound = std::env::var_os("SLIPWAY_FLOOD_UNBOUND").is_none();
    let cluster = Cluster::new().await;
    let change = |config: &mut slipway_router::RouterConfig| {
        config.max_connections = 400;
        config.max_connections_per_endpoint = if bound { 100 } else { 0 };
        config.trusted_proxies = if bound { None } else { Some(vec!["127.0.0.0/8".into()]) };
    };
    let router = cluster.router_with(change).await;
    let (backend, count) = deaf().await;
    let neighbour = Backend::saying("here").await;
    let mut flooded = pool("p", &[backend.address]);
    if !bound {
        // The platform's own have no share.
        flooded.app_id.clear();
    }
    let pools = vec![flooded, pool("q", &[neighbour.address])];
    cluster.controller.publish(vec![route("app.test", "p"), route("other.test", "q")], pools).await;
    let (mut senders, mut asked) = (Vec::new(), JoinSet::new());
    for _ in 0..clients {
        let sender = http2_from([127, 0, 4, 1], router.http).await;
        for _ in 0..streams {
            asked.spawn(sender.clone().send_request(get("/")));
        }
        senders.push(sender);
    }
    eventually("the flood is there", PATIENCE, async || {
        let held = *count.lock().expect("lock");
        if held >= 90 { Ok(()) } else { Err(held) }
    })
    .await;
    let (mut times, mut failed) = (Vec::new(), 0);
    for _ in 0..200 {
        let began = Instant::now();
        if router.get("other.test", "/").await.0 != 200 {
            failed += 1;
        }
        times.push(began.elapsed());
    }
    times.sort();
    let held = *count.lock().expect("lock");
    println!(
        "{flood}: {held} connections toward the app; neighbour p50 {:?}, p99 {:?}, {failed} of 200 failed",
        times[100], times[198]
    );
    if bound {
        assert_eq!(failed, 0);
        // Two cores may look at the same moment.
        assert!((100..=101).contains(&held), "{held}");
    }
    drop((senders, asked, backend));
    router.stop().await;
}
