//! Requests as bytes, for clients that do not behave.

use std::net::SocketAddr;
use std::time::Duration;

use slipway_test_support::eventually;
use sqlx::PgPool;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(20);

/// Bytes that the other end of a loopback connection has been sent and has not read.
fn unread(stream: &TcpStream) -> u64 {
    let end = |address: std::io::Result<SocketAddr>| match address.expect("an address") {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(address) => panic!("tests listen on 127.0.0.1, not on {address}"),
    };
    let (theirs, ours) = (end(stream.peer_addr()), end(stream.local_addr()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|row| row.get(1) == Some(&&*theirs) && row.get(2) == Some(&&*ours));
    let queues = row.and_then(|row| row.get(4).map(|queues| (*queues).to_owned())).expect("the server's end");
    let (_, read) = queues.split_once(':').expect("two queues");
    u64::from_str_radix(read, 16).expect("a number")
}

/// Sends bytes and hangs up, without reading, once the server has taken them.
pub async fn send_and_leave(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(bytes).await.expect("send");
    // The server has read what came: its kernel holds nothing for it any more.
    eventually("the server reads", LIMIT, || async {
        let left = unread(&stream);
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    // A reset, not a farewell: the server must not take the end of the stream for patience.
    stream.set_zero_linger().expect("linger");
}

/// Every transaction has ended, so what a call has done can be looked at.
pub async fn settled(pool: &PgPool) {
    eventually("no transaction is open", LIMIT, || async {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database()
             and pid <> pg_backend_pid() and (state = 'active' or state like 'idle in transaction%')",
        )
        .fetch_one(pool)
        .await
        .expect("a number");
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .await;
}

/// No job waits for anybody.
pub async fn no_job_is_open(pool: &PgPool) {
    eventually("no job is stuck", LIMIT, || async {
        let open: Vec<(String, String)> =
            sqlx::query_as("select operation, state from job where state not in ('COMPLETE', 'FAILED')")
                .fetch_all(pool)
                .await
                .expect("jobs");
        if open.is_empty() { Ok(()) } else { Err(open) }
    })
    .await;
}
