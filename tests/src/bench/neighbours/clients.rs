//! What the floods' clients share: their addresses, their turn at the processor, counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};

use super::Counts;

/// For all connections of a flood.
pub(super) fn raise_descriptors() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

/// Of the calling thread. Without the right to it the thread is one like others, which is no reason to give up.
pub(super) fn set_priority(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        eprintln!("cannot set a thread's priority: {error}");
    }
}

/// An address of a client of a flood, in a network of its own; the neighbour has 127.0.0.1.
pub(super) fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 7, number, 1))
}

/// A connection from such an address.
pub(super) async fn connect(from: IpAddr, router: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(router).await
}

/// The innermost reason.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Counts by what happened, from many tasks.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    pub(super) fn add(&self, what: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(counts.insert(what.to_owned(), 1)),
        }
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Counts {
        self.0.lock().map_or_else(|_| BTreeMap::new(), |counts| counts.clone())
    }
}
