//! Sockets of families, types and protocols.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Line, call, line, result};

/// More than an answer of this kernel takes.
const TIMEOUT: Duration = Duration::from_secs(5);
const CROWD: usize = 64;

/// Name, family, type, protocol.
const SOCKETS: &[(&str, i32, i32, i32)] = &[
    ("family:alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("family:bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    ("family:can", libc::AF_CAN, libc::SOCK_RAW, 1),
    ("family:packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ("family:rds", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
    ("family:tipc", libc::AF_TIPC, libc::SOCK_STREAM, 0),
    ("family:vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("family:xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    ("protocol:mptcp", libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP),
    ("protocol:mptcp6", libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, libc::IPPROTO_MPTCP),
    ("protocol:rdm", libc::AF_INET, libc::SOCK_RDM, 0),
    ("protocol:sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    ("protocol:smc", libc::AF_INET, libc::SOCK_STREAM, 256),
    ("protocol:raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    ("netlink:crypto", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_CRYPTO),
    ("netlink:generic", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC),
    ("netlink:netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    ("netlink:sock_diag", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG),
    ("netlink:uevent", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
    ("netlink:xfrm", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM),
    // What programs use.
    ("plain:tcp", libc::AF_INET, libc::SOCK_STREAM, 0),
    ("plain:udp6", libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, libc::IPPROTO_UDP),
    ("plain:ping", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    ("plain:routes", libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE),
    ("plain:unix", libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
];

pub(super) fn all() -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, family, kind, protocol) in SOCKETS {
        let arguments = [*family, *kind, *protocol].map(libc::c_long::from);
        let made = call(libc::SYS_socket, [arguments[0], arguments[1], arguments[2], 0, 0, 0]);
        if let Ok(made) = made {
            let _ = call(libc::SYS_close, [made, 0, 0, 0, 0, 0]);
        }
        lines.push(line(*name, result(made)));
    }
    let mut pair = [0i32; 2];
    let place = pair.as_mut_ptr() as libc::c_long;
    let family = libc::c_long::from(libc::AF_INET);
    let made = call(libc::SYS_socketpair, [family, libc::SOCK_STREAM.into(), 0, place, 0, 0]);
    lines.push(line("family:pair", result(made)));
    // TCP_ULP of a socket that is not connected.
    let socket = call(libc::SYS_socket, [family, libc::SOCK_STREAM.into(), 0, 0, 0, 0]).unwrap_or(-1);
    let name = c"tls".as_ptr() as libc::c_long;
    let set = call(libc::SYS_setsockopt, [socket, libc::SOL_TCP.into(), 31, name, 3, 0]);
    lines.push(line("upper", result(set)));
    let _ = call(libc::SYS_close, [socket, 0, 0, 0, 0, 0]);
    // What to reach is told as `tcp:name=address`, `udp:name=address` or `crowd:name=address`, with commas between.
    let targets = std::env::var("PROBE_REACH").unwrap_or_default();
    for (name, address) in targets.split(',').filter_map(|target| target.split_once('=')) {
        let Ok(address) = address.parse::<SocketAddr>() else { continue };
        let answer = match name.split(':').next() {
            Some("udp") => result(ask(address)),
            Some("crowd") => crowd(address).to_owned(),
            _ => result(TcpStream::connect_timeout(&address, TIMEOUT)),
        };
        lines.push(line(name, answer));
    }
    lines
}

/// Whether more connections can be held open than the test's cell allows. The first refusal ends it: word of it comes once a
/// second.
fn crowd(address: SocketAddr) -> &'static str {
    let opened: Result<Vec<_>, Error> = (0..CROWD).map(|_| TcpStream::connect_timeout(&address, TIMEOUT)).collect();
    if opened.is_ok() { "as many as it likes" } else { "bounded" }
}

/// Sends a byte and waits for an answer, or for word of where it ended. The kernel does not give such word each time, so a
/// silence is as good as a refusal.
fn ask(address: SocketAddr) -> Result<usize, Error> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(address)?;
    socket.send(&[0])?;
    match socket.recv(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Error::from_raw_os_error(libc::EHOSTUNREACH)),
        other => other,
    }
}
