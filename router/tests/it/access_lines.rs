//! Access lines of several apps at once.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

/// Sends this request so many times on one connection and reads each answer.
async fn ask(router: std::net::SocketAddr, head: String, times: usize) {
    let mut stream = TcpStream::connect(router).await.expect("connect");
    let mut answer = vec![0; 4096];
    for _ in 0..times {
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut seen = Vec::new();
        // Each answer ends with the backend's text.
        while !seen.ends_with(b"the end") {
            let count = stream.read(&mut answer).await.expect("read");
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&answer[..count]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_app_leaves_its_neighbours_log_whole_and_the_last_lines_come_with_the_routers_end() {
    let cluster = Cluster::new().await;
    let router = cluster
        .router_with(|config| {
            config.max_header_bytes = 64 * 1024;
            config.log_ring_bytes = 4 << 20;
        })
        .await;
    let backend = Backend::saying("the end").await;
    let apps = ["flood", "quiet"];
    let routes = apps.map(|app| route(&format!("{app}.test"), app)).to_vec();
    cluster.controller.publish(routes, apps.map(|app| pool(app, &[backend.address])).to_vec()).await;
    let (agent, referer) = ("u".repeat(30_000), "r".repeat(20_000));
    let large = format!("GET /x HTTP/1.1\r\nHost: flood.test\r\nUser-Agent: {agent}\r\nReferer: {referer}\r\n\r\n");
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..16 {
        flood.spawn(ask(router.http, large.clone(), 50));
    }
    for number in 0..100 {
        ask(router.http, format!("GET /mine-{number} HTTP/1.1\r\nHost: quiet.test\r\n\r\n"), 1).await;
    }
    flood.join_all().await;
    router.stop().await;

    let quiet = access_ring(cluster.directory.path(), "app-quiet");
    assert_eq!(quiet.len(), 100);
    // A line is written when its answer has been sent, which the client may have read by then: the
    // lines of two connections come in either order.
    for number in 0..100 {
        let wanted = format!("\"GET /mine-{number} HTTP/1.1\" 200 ");
        let count = quiet.iter().filter(|line| line.contains(&wanted)).count();
        assert_eq!(count, 1, "{wanted} in {quiet:#?}");
    }
    let flood = access_ring(cluster.directory.path(), "app-flood");
    assert_eq!(flood.len(), 16 * 50);
    let shown = format!("\"{}...\" \"{}...\" ", "r".repeat(1024), "u".repeat(1024));
    assert!(flood.iter().all(|line| line.contains(&shown) && line.len() < 4096), "{}", flood[0]);
}
