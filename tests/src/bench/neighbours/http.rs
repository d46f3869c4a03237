//! Floods by HTTP through the router, to an app of the flooder's own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Counts;
use super::clients::{Tally, address, connect};
use super::tenants::Ground;

/// Addresses that floods by connections come from.
const SOURCES: u8 = 4;
/// Connections that are held open at a time, of all of them.
const HELD: usize = 12_000;
/// Clients of each address that make a connection for each request, one after the other.
const BUSY: usize = 4;
/// Streams of each connection by HTTP/2 that ask, and that take back what they have asked.
const STREAMS: usize = 100;
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(10);

/// One request to the app that floods.
pub(super) async fn get(ground: &Ground, path: &str) -> anyhow::Result<String> {
    let mut stream = connect(address(0), ground.router).await?;
    stream.write_all(head(ground, path).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").context("no answer of the app that floods")?.1.to_owned())
}

fn head(ground: &Ground, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", ground.flooder_host)
}

/// Holds as many connections as it gets with a request each that is never answered, and makes others for requests that are.
pub(super) async fn connections(ground: &Ground, span: Duration) -> Counts {
    let (tally, end, mut workers) = (Tally::default(), Instant::now() + span, JoinSet::<()>::new());
    let places = Arc::new(Semaphore::new(HELD));
    for source in 0..SOURCES {
        for _ in 0..BUSY {
            let (mine, counts) = (ground.clone(), tally.clone());
            workers.spawn(async move {
                loop {
                    exchange(&mine, source, "/", &counts).await;
                }
            });
        }
        let (mine, counts, places) = (ground.clone(), tally.clone(), Arc::clone(&places));
        workers.spawn(async move {
            let mut held = JoinSet::new();
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let (mine, counts) = (mine.clone(), counts.clone());
                held.spawn(async move {
                    exchange(&mine, source, "/hold", &counts).await;
                    // Not at once again: the one who refuses is to be seen at work, and not this client.
                    sleep(PAUSE).await;
                    drop(place);
                });
                while held.try_join_next().is_some() {}
                tokio::task::yield_now().await;
            }
        });
    }
    sleep_until(end).await;
    let mut counts = tally.counts();
    counts.insert("held or waiting at the end".to_owned(), (HELD - places.available_permits()) as u64);
    workers.shutdown().await;
    counts
}

/// A request on a connection of its own, to its end.
async fn exchange(ground: &Ground, source: u8, path: &str, counts: &Tally) {
    let asked = async {
        let mut stream = connect(address(source), ground.router).await?;
        stream.write_all(head(ground, path).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match asked.await {
        Ok(answer) => match answer.get(9..12) {
            Some(status) => counts.add(&format!("answered {}", String::from_utf8_lossy(status))),
            None => counts.add("closed without an answer"),
        },
        Err(error) => {
            counts.add(&error.kind().to_string());
            sleep(PAUSE).await;
        }
    }
}

/// Streams by HTTP/2: some ask and wait for the answer, as many take back what they asked.
pub(super) async fn streams(ground: &Ground, span: Duration) -> Counts {
    let (tally, end, mut workers) = (Tally::default(), Instant::now() + span, JoinSet::<()>::new());
    for source in 0..2 * SOURCES {
        let (mine, counts) = (ground.clone(), tally.clone());
        workers.spawn(async move {
            loop {
                match connection(&mine, source).await {
                    Ok(sender) => on_one_connection(&mine, &sender, source % 2 == 1, &counts).await,
                    Err(_) => counts.add("no connection"),
                }
                sleep(PAUSE).await;
            }
        });
    }
    sleep_until(end).await;
    let counts = tally.counts();
    workers.shutdown().await;
    counts
}

async fn connection(ground: &Ground, source: u8) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = connect(address(source), ground.router).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Until the connection is over.
async fn on_one_connection(ground: &Ground, sender: &SendRequest<Empty<Bytes>>, reset: bool, counts: &Tally) {
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let (mut sender, host, counts) = (sender.clone(), ground.flooder_host.clone(), counts.clone());
        streams.spawn(async move {
            while sender.ready().await.is_ok() {
                let Ok(request) = Request::get(format!("http://{host}/")).body(Empty::new()) else { return };
                let answer = sender.send_request(request);
                if reset {
                    // Long enough for the request to be on its way.
                    if tokio::time::timeout(Duration::from_millis(1), answer).await.is_err() {
                        counts.add("reset");
                    }
                    continue;
                }
                match answer.await {
                    Ok(answer) => {
                        counts.add(&format!("answered {}", answer.status().as_u16()));
                        // Its end is all that is wanted of it.
                        let _ = answer.into_body().collect().await;
                    }
                    Err(_) => counts.add("streams refused or lost"),
                }
            }
        });
    }
    streams.join_all().await;
}
