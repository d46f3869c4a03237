//! Netlink messages, as few as a sandbox needs. Written by hand because the start of a sandbox sends six of them, in a
//! static program that must stay small, and because no forked `ip` or `nft` can be as quick (3 ms each).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Fail when the object exists.
pub const EXCLUSIVE: u16 = 0x200;
/// Make the object.
pub const CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// `struct ifreq`, as the question for an index fills it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    index: i32,
    rest: [u8; 20],
}

nix::ioctl_readwrite_bad!(interface_index, libc::SIOCGIFINDEX, InterfaceRequest);

/// One request.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of a kind (`RTM_NEWLINK` …) with further flags and the fixed part of its body. It is acknowledged.
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self::with_flags(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
    }

    /// A request that is not acknowledged: the brackets of an nftables batch.
    #[must_use]
    pub fn silent(kind: u16, body: &[u8]) -> Self {
        Self::with_flags(kind, NLM_F_REQUEST, body)
    }

    fn with_flags(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a text attribute, closed by a zero byte.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds others; `raw` comes before them.
    #[must_use]
    pub fn nested(mut self, kind: u16, raw: &[u8], inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(raw);
        self.pad();
        let mut done = inner(self);
        let length = u16::try_from(done.0.len() - start).unwrap_or(u16::MAX);
        done.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        done.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        done
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    fn acknowledged(&self) -> bool {
        u16::from_ne_bytes([self.0[6], self.0[7]]) & NLM_F_ACK != 0
    }
}

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Number of the next message. Answers carry the number of their message: one that comes after its request was given
    /// up is not taken for the answer to the next request.
    next: AtomicU32,
}

impl Socket {
    /// For links, addresses and routes.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// For nftables.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // An acknowledgement that never comes must not hang a start.
        setsockopt(&fd, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(10, 0))?;
        // The kernel's own messages have the number 0.
        Ok(Self { fd, next: AtomicU32::new(1) })
    }

    /// Index of an interface of this socket's network namespace, which need not be the caller's any more.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], index: 0, rest: [0; 20] };
        let bytes = name.as_bytes();
        if bytes.len() >= request.name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request.name[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the structure is as large as the one that the request wants, and outlives the call.
        unsafe { interface_index(self.fd.as_raw_fd(), &raw mut request) }?;
        u32::try_from(request.index).map_err(io::Error::other)
    }

    /// Sends the messages at once and waits for the answers. One request at a time.
    ///
    /// # Errors
    /// The first refusal, with the kernel's error number; `WouldBlock` when no answer came within ten seconds.
    pub fn request(&self, messages: Vec<Message>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(1024);
        let mut wanted = 0;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let first_number = self.next.fetch_add(count, Ordering::Relaxed);
        for (number, mut message) in (0..count).map(|place| first_number.wrapping_add(place)).zip(messages) {
            wanted += usize::from(message.acknowledged());
            let length = u32::try_from(message.0.len()).unwrap_or(u32::MAX);
            message.0[0..4].copy_from_slice(&length.to_ne_bytes());
            message.0[8..12].copy_from_slice(&number.to_ne_bytes());
            message.pad();
            bytes.append(&mut message.0);
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut first = None;
        let mut buffer = vec![0u8; 16 * 1024];
        while wanted > 0 {
            let size = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let answers = answers(&buffer[..size]).into_iter();
            for (_, code) in answers.filter(|(number, _)| number.wrapping_sub(first_number) < count) {
                wanted -= 1;
                if code != 0 && first.is_none() {
                    first = Some(io::Error::from_raw_os_error(-code));
                }
                if wanted == 0 {
                    break;
                }
            }
            // nftables answers a refused batch with the refusals alone.
            if first.is_some() {
                break;
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Number of the message and error of each answer.
fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut codes = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < HEADER || length > bytes.len() {
            break;
        }
        if u16::from_ne_bytes([bytes[4], bytes[5]]) == NLMSG_ERROR && length >= HEADER + 4 {
            let number = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            codes.push((number, i32::from_ne_bytes([bytes[16], bytes[17], bytes[18], bytes[19]])));
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    codes
}

/// Links, addresses and routes.
pub mod route {
    use std::io;
    use std::net::Ipv4Addr;

    use super::{CREATE, EXCLUSIVE, Message, Socket};

    const NEWLINK: u16 = 16;
    const DELLINK: u16 = 17;
    const NEWADDR: u16 = 20;
    const NEWROUTE: u16 = 24;
    const NEWQDISC: u16 = 36;
    const DELQDISC: u16 = 37;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_NET_NS_FD: u16 = 28;
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    const INFO_SLAVE_KIND: u16 = 4;
    const INFO_SLAVE_DATA: u16 = 5;
    const VETH_INFO_PEER: u16 = 1;
    const BRPORT_ISOLATED: u16 = 33;
    const UP: u32 = 1;

    fn link_body(family: u8, index: u32, flags: u32) -> [u8; 16] {
        let mut body = [0; 16];
        body[0] = family;
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&flags.to_ne_bytes());
        body
    }

    /// Index of an interface of the caller's network namespace.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn index(name: &str) -> io::Result<u32> {
        Ok(nix::net::if_::if_nametoindex(name)?)
    }

    /// Makes a bridge and switches it on.
    #[must_use]
    pub fn add_bridge(name: &str) -> Message {
        Message::new(NEWLINK, CREATE | EXCLUSIVE, &link_body(0, 0, UP)).text(IFLA_IFNAME, name).nested(
            IFLA_LINKINFO,
            &[],
            |info| info.text(INFO_KIND, "bridge"),
        )
    }

    /// Makes a pair: `name` here, on the bridge, and `eth0` in the namespace `peer`, with a hardware address.
    #[must_use]
    pub fn add_pair(name: &str, bridge: u32, peer: i32, hardware: [u8; 6]) -> Message {
        Message::new(NEWLINK, CREATE | EXCLUSIVE, &link_body(0, 0, UP))
            .text(IFLA_IFNAME, name)
            .attribute(IFLA_MASTER, &bridge.to_ne_bytes())
            .nested(IFLA_LINKINFO, &[], |info| {
                info.text(INFO_KIND, "veth").nested(INFO_DATA, &[], |data| {
                    data.nested(VETH_INFO_PEER, &link_body(0, 0, 0), |end| {
                        end.text(IFLA_IFNAME, "eth0")
                            .attribute(IFLA_ADDRESS, &hardware)
                            .attribute(IFLA_NET_NS_FD, &peer.to_ne_bytes())
                    })
                })
            })
    }

    /// Lets a port of a bridge talk with the host only, not with other such ports.
    #[must_use]
    pub fn isolate_port(name: &str) -> Message {
        Message::new(NEWLINK, 0, &link_body(0, 0, 0)).text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, &[], |info| {
            info.text(INFO_SLAVE_KIND, "bridge")
                .nested(INFO_SLAVE_DATA, &[], |port| port.attribute(BRPORT_ISOLATED, &[1]))
        })
    }

    /// Switches an interface on.
    #[must_use]
    pub fn up(index: u32) -> Message {
        Message::new(NEWLINK, 0, &link_body(0, index, UP))
    }

    /// Removes an interface.
    #[must_use]
    pub fn remove(name: &str) -> Message {
        Message::new(DELLINK, 0, &link_body(0, 0, 0)).text(IFLA_IFNAME, name)
    }

    /// Gives an interface an address.
    #[must_use]
    pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
        let mut body = [2, prefix, 0, 0, 0, 0, 0, 0];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let octets = address.octets();
        Message::new(NEWADDR, CREATE, &body).attribute(2, &octets).attribute(1, &octets)
    }

    /// Sends all traffic to a gateway that is reached through the interface although no route says so.
    #[must_use]
    pub fn default_route(index: u32, gateway: Ipv4Addr) -> Message {
        const MAIN: u8 = 254;
        const BOOT: u8 = 3;
        const UNICAST: u8 = 1;
        const ONLINK: u32 = 4;
        let mut body = [2, 0, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0];
        body[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
        Message::new(NEWROUTE, CREATE, &body).attribute(5, &gateway.octets()).attribute(4, &index.to_ne_bytes())
    }

    /// Lets an interface send so many bytes a second: a token bucket in front of it. Packets wait for fifty milliseconds at
    /// most, so that what is too much is lost soon and the sender notices.
    #[must_use]
    pub fn limit(index: u32, bytes_per_s: u32) -> Message {
        const KIND: u16 = 1;
        const OPTIONS: u16 = 2;
        const PARAMETERS: u16 = 1;
        const BURST: u16 = 6;
        const ETHERNET: u8 = 1;
        // A packet that is put together by the kernel has up to 64 KiB, and none larger than the bucket ever passes.
        let burst = (bytes_per_s / 250).max(256 << 10);
        let waiting = burst.saturating_add(bytes_per_s / 20);
        let mut parameters = [0; 36];
        parameters[1] = ETHERNET;
        parameters[8..12].copy_from_slice(&bytes_per_s.to_ne_bytes());
        parameters[24..28].copy_from_slice(&waiting.to_ne_bytes());
        Message::new(NEWQDISC, CREATE, &queue_body(index)).text(KIND, "tbf").nested(OPTIONS, &[], |options| {
            options.attribute(PARAMETERS, &parameters).attribute(BURST, &burst.to_ne_bytes())
        })
    }

    /// Takes [`limit`] back.
    #[must_use]
    pub fn unlimit(index: u32) -> Message {
        Message::new(DELQDISC, 0, &queue_body(index))
    }

    /// The queue of all that an interface sends.
    fn queue_body(index: u32) -> [u8; 20] {
        const ROOT: u32 = u32::MAX;
        let mut body = [0; 20];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[12..16].copy_from_slice(&ROOT.to_ne_bytes());
        body
    }

    /// Removes an interface; one that is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn remove_if_present(socket: &Socket, name: &str) -> io::Result<()> {
        match socket.request(vec![remove(name)]) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_lengths_hold() {
        let message = Message::new(16, 0, &[]).nested(18, &[], |inner| inner.text(1, "veth"));
        // 4 (outer) + 4 (inner) + 5 + 3 padding.
        assert_eq!(message.0.len(), HEADER + 16);
        assert_eq!(u16::from_ne_bytes([message.0[16], message.0[17]]), 16);
        assert_eq!(u16::from_ne_bytes([message.0[20], message.0[21]]), 9);
        assert!(message.acknowledged());
    }

    #[test]
    fn a_socket_finds_interfaces_by_name() {
        let socket = Socket::route().unwrap();
        assert_eq!(socket.index("lo").unwrap(), route::index("lo").unwrap());
        assert_eq!(socket.index("no-such-one").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(socket.index("a-name-of-more-than-sixteen-letters").is_err());
    }

    #[test]
    fn answers_are_read_to_the_end_and_garbage_stops() {
        let mut bytes = Vec::new();
        for (number, code) in [(5u32, 0i32), (6, -17)] {
            bytes.extend_from_slice(&20u32.to_ne_bytes());
            bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&number.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&code.to_ne_bytes());
        }
        assert_eq!(answers(&bytes), [(5, 0), (6, -17)]);
        bytes.extend_from_slice(&[3, 0, 0, 0].repeat(5));
        assert_eq!(answers(&bytes), [(5, 0), (6, -17)]);
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next() {
        let socket = Socket::route().unwrap();
        // A request that was given up: its answer, "no such device", comes when nobody waits for it any more.
        let mut late = route::up(u32::MAX >> 1).0;
        let length = u32::try_from(late.len()).unwrap();
        late[0..4].copy_from_slice(&length.to_ne_bytes());
        send(socket.fd.as_raw_fd(), &late, MsgFlags::empty()).unwrap();
        // The loopback interface is there; without privileges this is forbidden, and not for want of a device.
        match socket.request(vec![route::up(route::index("lo").unwrap())]) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        }
    }

    #[test]
    fn a_refusal_carries_the_number() {
        let socket = Socket::route().unwrap();
        let error = socket.request(vec![route::up(u32::MAX >> 1)]).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
