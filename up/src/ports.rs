//! Ports that a platform chooses for itself. Each is checked once and bound later by another process, so only ports are
//! chosen that nobody else is likely to take meanwhile.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use rand::Rng as _;

use crate::UpError;

/// Ports that are looked at before the kernel is asked for one.
const TRIES: usize = 64;
/// How many ports below the kernel's own are chosen from.
const WIDTH: u16 = 12_000;

/// The address itself, or the one from which this machine reaches others when it means all addresses.
pub(crate) fn reached_at(listen: IpAddr) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // Connecting a datagram socket sends nothing; it only asks the routing table. The address is one for documents.
    let outward = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    outward().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// A port for the resolver, free for UDP and TCP.
pub(crate) fn pick_dns(address: IpAddr, requested: Option<u16>, previous: Option<u16>) -> Result<u16, UpError> {
    // A moment may pass between the two looks; the resolver itself tells when it is too late.
    let both = |port: u16| -> std::io::Result<u16> {
        let port = usable(address, port, &[])?;
        UdpSocket::bind(SocketAddr::new(address, port)).map(|_| port)
    };
    let candidates: Vec<u16> = match requested {
        Some(port) => vec![port],
        None => previous.into_iter().chain([53, 5300, 0]).collect(),
    };
    let mut last = None;
    for port in candidates {
        match both(port) {
            Ok(port) => return Ok(port),
            Err(source) => last = Some((port, source)),
        }
    }
    let (port, source) = last.unwrap_or((0, std::io::Error::other("no candidate")));
    Err(UpError::Port { address, port, flag: "--dns=PORT", source })
}

/// A port for end users: as requested (0 = any that is not among `chosen`), the previous one if still free, the standard one, the
/// high one, any. What the platform's own router holds (`held`), which is going to be replaced, is as good as free.
pub(crate) fn pick(
    address: IpAddr,
    requested: Option<u16>,
    previous: Option<u16>,
    usual: [u16; 2],
    flag: &'static str,
    chosen: &[u16],
    held: &[SocketAddr],
) -> Result<u16, UpError> {
    let usable = |address, port| match held.contains(&SocketAddr::new(address, port)) {
        true => Ok(port),
        false => usable(address, port, chosen),
    };
    if let Some(port) = requested {
        return usable(address, port).map_err(|source| UpError::Port { address, port, flag, source });
    }
    let mut last = None;
    for port in previous.into_iter().chain(usual).chain([0]) {
        match usable(address, port) {
            Ok(port) => return Ok(port),
            Err(source) => last = Some((port, source)),
        }
    }
    let (port, source) = last.unwrap_or((0, std::io::Error::other("no candidate")));
    Err(UpError::Port { address, port, flag, source })
}

/// A port for the parts among themselves: the previous one if still free, else any that is not among `chosen`.
pub(crate) fn internal(previous: Option<u16>, chosen: &[u16]) -> Result<u16, UpError> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    match previous {
        Some(port) if usable(loopback, port, chosen).is_ok() => Ok(port),
        _ => usable(loopback, 0, chosen).map_err(|source| UpError::NoPort(loopback, source)),
    }
}

/// Binds for a moment; returns the port. For 0 that is one of the platform's choice, and none of `chosen`.
fn usable(address: IpAddr, port: u16, chosen: &[u16]) -> std::io::Result<u16> {
    let bind = |port: u16| TcpListener::bind(SocketAddr::new(address, port))?.local_addr().map(|bound| bound.port());
    if port != 0 {
        return bind(port);
    }
    let own = own_ports();
    let candidates = std::iter::repeat_with(|| rand::rng().random_range(own.clone())).take(TRIES);
    let found = candidates.filter(|port| !chosen.contains(port)).find_map(|port| bind(port).ok());
    // Where so many of them are taken, one of the kernel's is better than none.
    found.map_or_else(|| bind(0), Ok)
}

/// Ports that the kernel gives to nobody. One of those that it gives to connections could be taken by any connection of
/// this machine, between the look and the start of a part, and whenever a part starts anew.
fn own_ports() -> Range<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    below(&range)
}

fn below(range: &str) -> Range<u16> {
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    // Below 1024 are those of well-known services. A range that leaves none below it leaves no better choice.
    if first > 2048 { first.saturating_sub(WIDTH).max(1024)..first } else { 1024..u16::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_s_port_is_free_for_both_protocols() {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let holder = UdpSocket::bind((address, 0)).expect("bind");
        let taken = holder.local_addr().expect("address").port();
        assert!(matches!(pick_dns(address, Some(taken), None), Err(UpError::Port { flag: "--dns=PORT", .. })));
        assert_ne!(pick_dns(address, None, Some(taken)).expect("another"), taken);
    }

    #[test]
    fn a_taken_port_is_passed_over_but_an_asked_one_is_an_error() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let taken = holder.local_addr().expect("address").port();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let picked = pick(address, None, Some(taken), [taken; 2], "--http PORT", &[], &[]).expect("any other");
        assert_ne!(picked, taken);
        let requested = |held: &[SocketAddr]| pick(address, Some(taken), None, [80, 8080], "--http PORT", &[], held);
        assert!(matches!(requested(&[]), Err(UpError::Port { .. })));
        assert!(matches!(requested(&[SocketAddr::new(address, picked)]), Err(UpError::Port { .. })), "another is held");
        assert_eq!(requested(&[SocketAddr::new(address, taken)]).expect("held by the platform's own router"), taken);
    }

    #[test]
    fn chosen_ports_are_outside_the_kernel_s_own_range() {
        assert_eq!(below("32768\t60999\n"), 20_768..32_768);
        assert_eq!(below("10000 65535"), 1024..10_000);
        assert_eq!(below("1024 65535"), 1024..u16::MAX);
        assert_eq!(below(""), 20_768..32_768);
        let port = internal(None, &[]).expect("a port");
        assert!(own_ports().contains(&port), "{port} is not in {:?}", own_ports());
    }

    #[test]
    fn a_port_in_use_is_not_reused_and_no_port_is_chosen_twice() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let taken = holder.local_addr().expect("address").port();
        let chosen: Vec<u16> = own_ports().step_by(2).collect();
        let other = internal(Some(taken), &chosen).expect("another");
        assert!(other != taken && !chosen.contains(&other), "{other}");
    }
}
