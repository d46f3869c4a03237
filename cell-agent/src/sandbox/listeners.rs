//! Where the programs of a sandbox listen, read from the kernel's tables of its network.

use std::net::SocketAddr;

use procfs::ProcResult;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::Process;

/// Addresses as the sandbox sees them, without repetition; what cannot be read is left out.
pub(super) fn of(pid: i32) -> Vec<SocketAddr> {
    listening(&read(pid).unwrap_or_default())
}

/// Connections to this port that the kernel has made and no program has taken yet. `None` when nobody listens there, or
/// nothing can be read.
pub(super) fn unaccepted(pid: i32, port: u16) -> Option<u32> {
    let entries = read(pid).ok()?;
    let listens = |entry: &&TcpNetEntry| entry.state == TcpState::Listen && entry.local_address.port() == port;
    // Of a listener the kernel shows the length of that queue here. Workers may have a listener each.
    entries.iter().filter(listens).map(|entry| entry.rx_queue).reduce(u32::saturating_add)
}

fn read(pid: i32) -> ProcResult<Vec<TcpNetEntry>> {
    let process = Process::new(pid)?;
    let mut entries = process.tcp()?;
    // Absent where the kernel has no IPv6.
    entries.extend(process.tcp6().unwrap_or_default());
    Ok(entries)
}

fn listening(entries: &[TcpNetEntry]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = entries
        .iter()
        .filter(|entry| entry.state == TcpState::Listen)
        // A program that listens for both families on 127.0.0.1 is shown as ::ffff:127.0.0.1.
        .map(|entry| SocketAddr::new(entry.local_address.ip().to_canonical(), entry.local_address.port()))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_are_reported_and_mapped_addresses_as_ipv4() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let found = of(i32::try_from(std::process::id()).unwrap());
        assert!(found.contains(&address), "{found:?}");
        assert!(!found.contains(&client.local_addr().unwrap()));
        assert_eq!(of(-1), []);
    }

    #[test]
    fn connections_count_until_they_are_taken() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(unaccepted(pid, address.port()), Some(0));
        let clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert_eq!(unaccepted(pid, address.port()), Some(2));
        drop(clients);
        assert_eq!(unaccepted(pid, address.port()), Some(2), "they are there also when the other end has left");
        listener.accept().unwrap();
        assert_eq!(unaccepted(pid, address.port()), Some(1));
        drop(listener);
        assert_eq!(unaccepted(pid, address.port()), None);
        assert_eq!(unaccepted(-1, address.port()), None);
    }
}
