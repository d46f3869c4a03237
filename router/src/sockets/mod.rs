//! Listening sockets: opened here, or inherited from whoever keeps them open while no router runs.
//!
//! A socket that only the router holds closes with it, and until its successor listens, clients are refused. So a
//! supervisor (`slipway up`, or systemd with a `.socket` unit) may open the sockets and pass them to each router that
//! it starts ([`Inherited`]): connections that come meanwhile wait in the kernel for the next router.
//!
//! With `SO_REUSEPORT` an address may have several sockets, over which the kernel spreads connections by their
//! addresses and ports. A connection that was given to a socket stays there, so each socket must have somebody who
//! accepts ([`share`]): one that is open and forgotten would keep its clients waiting for ever.

mod inherited;

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

pub use inherited::{Inherited, InheritedError, NUMBERS};

/// A burst this large waits in the kernel; beyond it, clients try again after a second.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to one address; the kernel spreads connections over them. Another process of the same user
/// may bind it too, so that a new router can take over before the old one has gone.
///
/// # Errors
/// When the address is taken by somebody else or may not be used.
pub fn bind(address: SocketAddr, count: usize) -> std::io::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut bound = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(bound), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&bound.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        // Port 0: the first one finds a port, the others share it.
        bound = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}

/// Gives each core something to accept from, and each socket a core that accepts. Whoever opened the sockets may have
/// counted other cores, or opened one for all. Cores that share a socket are all woken by its connections and the first
/// one gets them: uneven, and one wake-up too many for each, but nobody waits.
pub(crate) fn share(mut sockets: Vec<TcpListener>, cores: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
    let opened = sockets.len();
    for core in opened..cores {
        sockets.push(sockets[core % opened].try_clone()?);
    }
    let mut by_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        by_core[number % cores].push(socket);
    }
    Ok(by_core)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn several_sockets_share_a_port() {
        let (address, listeners) = bind(([127, 0, 0, 1], 0).into(), 3).expect("bind");
        assert_ne!(address.port(), 0);
        assert!(listeners.iter().all(|one| one.local_addr().expect("address") == address));
    }

    #[test]
    fn every_socket_has_a_core_and_every_core_a_socket() {
        for (count, cores) in [(1, 1), (1, 3), (2, 3), (3, 3), (5, 3), (4, 1), (7, 2)] {
            let (_, sockets) = bind(([127, 0, 0, 1], 0).into(), count).expect("bind");
            let opened: Vec<i32> = sockets.iter().map(|one| one.as_raw_fd()).collect();
            let by_core = share(sockets, cores).expect("shared");
            let given: Vec<i32> = by_core.iter().flatten().map(|one| one.as_raw_fd()).collect();
            assert_eq!(by_core.len(), cores);
            assert!(by_core.iter().all(|own| !own.is_empty()), "{count} sockets, {cores} cores: {given:?}");
            assert!(opened.iter().all(|one| given.contains(one)), "{opened:?} became {given:?}");
            assert_eq!(given.len(), count.max(cores), "none is doubled without need: {given:?}");
        }
    }
}
