//! Sockets that outlive the router: clients that connect while none runs are answered by the next one.

use std::net::{SocketAddr, TcpListener};

use slipway_chassis::Shutdown;
use slipway_router::{Inherited, RouterConfig, RunError, sockets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

/// What a supervisor holds: `count` sockets of one address.
fn held(count: usize) -> (SocketAddr, Vec<TcpListener>) {
    sockets::bind(([127, 0, 0, 1], 0).into(), count).expect("bind")
}

fn passed(held: &[TcpListener]) -> Inherited {
    let copies = held.iter().map(TcpListener::try_clone).collect::<std::io::Result<_>>().expect("copies");
    Inherited::from_listeners(copies).expect("passed")
}

/// Connects so many clients that each socket has some, and sends their requests.
async fn clients(address: SocketAddr) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = TcpStream::connect(address).await.expect("not refused");
        client.write_all(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").await.expect("written");
        clients.push(client);
    }
    clients
}

async fn all_are_answered(clients: Vec<TcpStream>, why: &str) {
    for mut client in clients {
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await;
        read.expect("somebody accepts").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 "), "{why}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_while_no_router_runs_are_answered_by_the_next_one() {
    let cluster = Cluster::new().await;
    let backend = Backend::saying("here").await;
    let at = |address: SocketAddr, cores| {
        move |config: &mut RouterConfig| {
            config.http_listen = vec![address];
            config.cores = cores;
        }
    };
    let (address, pair) = held(2);
    let router = cluster.router_passed(passed(&pair), at(address, 2)).await;
    assert_eq!(router.http, address);
    cluster.controller.publish(vec![route("app.test", "p")], vec![pool("p", &[backend.address])]).await;
    all_are_answered(clients(address).await, "while it runs").await;
    router.stop().await;
    // From here on, a table comes only from disk: accepting before it is loaded would answer that there is no such host.
    cluster.stop_controller();
    let waiting = clients(address).await;
    let router = cluster.router_passed(passed(&pair), at(address, 2)).await;
    all_are_answered(waiting, "after a restart").await;
    router.stop().await;
    // Whoever opened the sockets counted other cores: no socket may be left without one.
    for cores in [1, 3] {
        let waiting = clients(address).await;
        let router = cluster.router_passed(passed(&pair), at(address, cores)).await;
        all_are_answered(waiting, &format!("two sockets, {cores} cores")).await;
        router.stop().await;
    }
    // Nobody holds them: they close with the router, as its own do.
    let router = cluster.router_passed(Inherited::from_listeners(pair).expect("passed"), at(address, 2)).await;
    router.stop().await;
    let error = TcpStream::connect(address).await.expect_err("refused");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_without_passed_sockets_are_bound_and_passed_ones_must_be_configured() {
    let cluster = Cluster::new().await;
    let (address, one) = held(1);
    let router = cluster.router_passed(passed(&one), |config| config.http_listen.push(address)).await;
    assert_ne!(router.http, address, "the first address has a socket of its own");
    for at in [router.http, address, router.https] {
        TcpStream::connect(at).await.expect("listens");
    }
    let mut config = None;
    router.stop().await;
    let router = cluster.router_with(|usual| config = Some(usual.clone())).await;
    router.stop().await;
    let run = slipway_router::run(config.expect("a configuration"), passed(&one), Shutdown::new());
    let Err(error) = run.await else { panic!("it would leave clients of {address} waiting") };
    assert!(matches!(error, RunError::Inherited(_)), "{error:?}");
    let text = slipway_chassis::chain(&error).to_string();
    assert!(text.contains(&address.to_string()) && text.contains("http_listen"), "{text}");
}
