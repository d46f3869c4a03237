//! Sockets passed by the protocol of systemd's socket activation: `LISTEN_FDS` says how many there are, from descriptor
//! 3 on, `LISTEN_FDNAMES` what they are called, `LISTEN_PID` whom they are for.
//!
//! `LISTEN_PID` may be absent: a parent that gives these variables to this one child knows its pid only after the fork,
//! and there the environment can no longer be changed without allocating, which a fork of a program with threads must
//! not do. What the pid protects from, a grandchild that takes the variables as meant for it, does not exist here:
//! `slipway up` gives them to the router alone, and a router starts no programs.
//!
//! [`NUMBERS`] is this platform's addition: the descriptors, where a parent leaves them under the numbers that it has them
//! under.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Socket, Type};

/// The variable with the numbers of the descriptors, with colons between them, in the order of `LISTEN_FDNAMES`. Without
/// it they are those from 3 on, as the protocol has it.
pub const NUMBERS: &str = "SLIPWAY_LISTEN_NUMBERS";
/// The first descriptor, by the protocol.
const FIRST: RawFd = 3;
/// More than anybody passes; a number beyond it is a mistake, and must not cost memory.
const MOST: usize = 4096;

/// Why passed sockets cannot be used. Going on without them would be worse: clients that connect to a socket that is
/// open and forgotten wait for ever.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// A variable that says something else than the protocol allows.
    #[error(
        "the environment variable {variable} is {value:?}, which is not {expected}: start the router by a systemd socket \
         unit or without the LISTEN_ variables"
    )]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: String,
    },
    /// A descriptor that is not there, or is something else.
    #[error(
        "descriptor {descriptor} ({name}) was passed by LISTEN_FDS, but {what}: the socket unit must have TCP addresses \
         (ListenStream=) and Accept=no"
    )]
    Descriptor {
        /// Its number.
        descriptor: RawFd,
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A socket that nobody would accept from.
    #[error(
        "the socket {name} was passed for {address}, which is neither in http_listen nor in https_listen: add it there, \
         or take it out of the socket unit"
    )]
    Unknown {
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// Its address.
        address: SocketAddr,
    },
}

/// Listening sockets that were open before this process and outlive it.
#[derive(Debug, Default)]
pub struct Inherited(Vec<PassedSocket>);

#[derive(Debug)]
struct PassedSocket {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl Inherited {
    /// No sockets: the router opens its own.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes what this process was passed. To be called first in a program; a second call finds nothing.
    ///
    /// # Errors
    /// When the variables are damaged, or a descriptor is no listening TCP socket.
    pub fn from_environment() -> Result<Self, InheritedError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let variable = |name| std::env::var_os(name);
        let (pid, count, names) = (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
        let names = announced(pid.as_deref(), count.as_deref(), names.as_deref(), std::process::id())?;
        if names.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::none());
        }
        let numbers = numbered(variable(NUMBERS).as_deref(), names.len())?;
        numbers
            .into_iter()
            .zip(names)
            .map(|(descriptor, name)| adopt(descriptor, name))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Takes sockets that this process has opened itself.
    ///
    /// # Errors
    /// When one cannot tell its address.
    pub fn from_listeners(listeners: Vec<TcpListener>) -> std::io::Result<Self> {
        let pass = |listener: TcpListener| {
            let address = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            Ok(PassedSocket { name: "unknown".to_owned(), address, listener })
        };
        listeners.into_iter().map(pass).collect::<std::io::Result<_>>().map(Self)
    }

    /// The sockets of an address; none when it was not passed any.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.0.extract_if(.., |passed| passed.address == address).map(|passed| passed.listener).collect()
    }

    /// After all addresses of the configuration have taken theirs.
    ///
    /// # Errors
    /// When a socket is left.
    pub(crate) fn finish(mut self) -> Result<(), InheritedError> {
        match self.0.pop() {
            Some(PassedSocket { name, address, .. }) => Err(InheritedError::Unknown { name, address }),
            None => Ok(()),
        }
    }
}

fn bad(variable: &'static str, value: &OsStr, expected: &str) -> InheritedError {
    let value = value.to_string_lossy().chars().take(100).collect();
    InheritedError::Variable { variable, value, expected: expected.to_owned() }
}

/// The names of the passed descriptors, in order; empty when there are none for the process `own`.
fn announced(
    pid: Option<&OsStr>,
    count: Option<&OsStr>,
    names: Option<&OsStr>,
    own: u32,
) -> Result<Vec<String>, InheritedError> {
    let Some(count) = count else { return Ok(Vec::new()) };
    if let Some(pid) = pid {
        match number(pid) {
            None => return Err(bad("LISTEN_PID", pid, "the id of a process")),
            // Passed to somebody from whom this process only inherited the variables.
            Some(pid) if pid != own => return Ok(Vec::new()),
            Some(_) => {}
        }
    }
    let most = number(count).and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= MOST);
    let Some(wanted) = most else {
        return Err(bad("LISTEN_FDS", count, &format!("a number of descriptors up to {MOST}")));
    };
    let Some(names) = names else { return Ok(vec!["unknown".to_owned(); wanted]) };
    let list: Vec<String> = match names.to_str() {
        Some("") => Vec::new(),
        Some(text) => text.split(':').map(str::to_owned).collect(),
        None => return Err(bad("LISTEN_FDNAMES", names, "text")),
    };
    if list.len() != wanted {
        return Err(bad("LISTEN_FDNAMES", names, &format!("a list of {wanted} names with colons between them")));
    }
    Ok(list)
}

/// The numbers of so many descriptors. One that were given twice would be owned twice, so it is refused.
fn numbered(numbers: Option<&OsStr>, wanted: usize) -> Result<Vec<RawFd>, InheritedError> {
    let Some(text) = numbers else { return Ok((FIRST..).take(wanted).collect()) };
    let descriptor = |text: &str| {
        number(OsStr::new(text)).and_then(|number| RawFd::try_from(number).ok()).filter(|one| *one >= FIRST)
    };
    let list: Option<Vec<RawFd>> = text.to_str().and_then(|text| text.split(':').map(descriptor).collect());
    list.filter(|list| list.len() == wanted && list.iter().collect::<BTreeSet<_>>().len() == wanted).ok_or_else(|| {
        bad(NUMBERS, text, &format!("a list of {wanted} different descriptors with colons between them"))
    })
}

/// Digits and nothing else: `parse` would let a sign pass.
fn number(text: &OsStr) -> Option<u32> {
    let text = text.to_str()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Makes a passed descriptor this process's own, once it has turned out to be what it should be.
fn adopt(descriptor: RawFd, name: String) -> Result<PassedSocket, InheritedError> {
    let bad = |what: String| InheritedError::Descriptor { descriptor, name: name.clone(), what };
    let failed = |error: std::io::Error| bad(error.to_string());
    // SAFETY: only looked at; a number that is not open makes the calls fail.
    let seen = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&seen);
    let listens = socket.is_listener().map_err(failed)? && socket.r#type().map_err(failed)? == Type::STREAM;
    let address = socket.local_addr().map_err(failed)?.as_socket().filter(|_| listens);
    let Some(address) = address else { return Err(bad("is not a listening TCP socket".to_owned())) };
    // Whoever passed it had no need to set these: systemd does not.
    socket.set_nonblocking(true).map_err(failed)?;
    socket.set_cloexec(true).map_err(failed)?;
    // SAFETY: it is open, a listening TCP socket, and passed to this process, which takes it once (`TAKEN`). A program
    // has opened no such socket of its own when it takes what it was passed, so nobody else owns this one.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(PassedSocket { name, address, listener: Socket::from(owned).into() })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    const OWN: u32 = 4711;

    fn socket_names(pid: Option<&str>, count: Option<&str>, names: Option<&str>) -> Result<Vec<String>, String> {
        announced(pid.map(OsStr::new), count.map(OsStr::new), names.map(OsStr::new), OWN)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn variables_of_a_correct_parent_are_parsed() {
        let names = |names: &[&str]| Ok(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(socket_names(Some("4711"), Some("2"), Some("http:https")), names(&["http", "https"]));
        assert_eq!(
            socket_names(None, Some("2"), Some("http:https")),
            names(&["http", "https"]),
            "as `slipway up` says it"
        );
        assert_eq!(socket_names(Some("4711"), Some("3"), None), names(&["unknown", "unknown", "unknown"]));
        assert_eq!(socket_names(Some("4711"), Some("2"), Some(":")), names(&["", ""]), "names may be empty");
        assert_eq!(socket_names(Some("4711"), Some("0"), Some("")), names(&[]));
        assert_eq!(socket_names(None, None, None), names(&[]));
        assert_eq!(socket_names(Some("4711"), None, Some("http")), names(&[]), "no count, no sockets");
        assert_eq!(socket_names(Some("4712"), Some("2"), Some("http:https")), names(&[]), "for another process");
        assert_eq!(
            socket_names(Some("4712"), Some("rubbish"), None),
            names(&[]),
            "for another process, whatever it is"
        );
    }

    #[test]
    fn damaged_variables_are_named() {
        for count in
            ["", " 1", "1 ", "+1", "-1", "1.0", "0x1", "one", "4097", "4294967296", "99999999999999999999", "١"]
        {
            let error = socket_names(None, Some(count), None).expect_err(count);
            assert!(error.contains("LISTEN_FDS") && error.contains(&format!("{count:?}")), "{error}");
        }
        for pid in ["", "-4711", "+4711", "4711 ", "4711\n", "0x1267", "18446744073709551616"] {
            let error = socket_names(Some(pid), Some("1"), None).expect_err(pid);
            assert!(error.contains("LISTEN_PID") && error.contains(&format!("{pid:?}")), "{error}");
        }
        for names in ["", "http", "http:https:more", "::"] {
            let error = socket_names(None, Some("2"), Some(names)).expect_err(names);
            assert!(error.contains("LISTEN_FDNAMES") && error.contains("2 names"), "{error}");
        }
        let not_text = OsStr::from_bytes(b"\xff:\xfe");
        let error = announced(None, Some(OsStr::new("2")), Some(not_text), OWN).expect_err("not text").to_string();
        assert!(error.contains("LISTEN_FDNAMES") && error.contains("text"), "{error}");
        assert!(announced(None, Some(not_text), None, OWN).is_err());
        assert!(announced(Some(not_text), Some(OsStr::new("1")), None, OWN).is_err());
        // A message stays readable, whatever the variable holds.
        let error = socket_names(None, Some(&"9".repeat(1 << 20)), None).expect_err("too large");
        assert!(error.len() < 400, "{} bytes", error.len());
    }

    #[test]
    fn descriptors_are_the_given_numbers_or_from_three_on() {
        let parsed = |text: &str, wanted| numbered(Some(OsStr::new(text)), wanted).map_err(|error| error.to_string());
        assert_eq!(numbered(None, 3).expect("no numbers"), [3, 4, 5]);
        assert_eq!(parsed("17", 1), Ok(vec![17]));
        assert_eq!(parsed("17:4:2000", 3), Ok(vec![17, 4, 2000]));
        for text in ["", ":", "17", "17:17", "17:18:19", "17:2", "17:-1", "17:+4", "17: 4", "17:4294967295", "17:x"] {
            let error = parsed(text, 2).expect_err(text);
            assert!(error.contains(NUMBERS) && error.contains(&format!("{text:?}")), "{error}");
        }
        assert!(numbered(Some(OsStr::from_bytes(b"\xff")), 1).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_harm(
            pid in proptest::option::of(proptest::collection::vec(1..=255_u8, 0..20)),
            count in proptest::option::of(proptest::collection::vec(1..=255_u8, 0..20)),
            names in proptest::option::of(proptest::collection::vec(1..=255_u8, 0..200)),
        ) {
            let text = |bytes: &Option<Vec<u8>>| bytes.clone().map(|bytes| OsStr::from_bytes(&bytes).to_owned());
            let (pid, count, names) = (text(&pid), text(&count), text(&names));
            if let Ok(list) = announced(pid.as_deref(), count.as_deref(), names.as_deref(), OWN) {
                prop_assert!(list.len() <= MOST);
                let said = count.as_deref().and_then(number).unwrap_or_default() as usize;
                prop_assert!(list.is_empty() || list.len() == said);
            }
        }

        #[test]
        fn the_count_and_the_names_agree(names in proptest::collection::vec("[a-z0-9._-]{0,12}", 1..40)) {
            let joined = names.join(":");
            let count = names.len().to_string();
            // One empty name is written as no name at all.
            prop_assume!(!joined.is_empty());
            prop_assert_eq!(socket_names(Some("4711"), Some(&count), Some(&joined)), Ok(names));
        }
    }

    #[test]
    fn only_listening_tcp_sockets_are_taken() {
        let refused = |descriptor: RawFd| adopt(descriptor, "web".to_owned()).expect_err("refused").to_string();
        let file = std::fs::File::open("/dev/null").expect("open");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        let directory = tempfile::tempdir().expect("directory");
        let unix = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).expect("bind");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        for descriptor in [file.as_raw_fd(), udp.as_raw_fd(), one.as_raw_fd(), unix.as_raw_fd(), client.as_raw_fd()] {
            let text = refused(descriptor);
            assert!(text.contains(&format!("descriptor {descriptor} (web)")) && text.contains("Accept=no"), "{text}");
        }
        let text = refused(1_000_000);
        assert!(text.contains("Bad file descriptor"), "{text}");
        // None of them was closed by the look at it.
        assert!(udp.local_addr().is_ok() && unix.local_addr().is_ok() && client.peer_addr().is_ok());

        let passed = listener.try_clone().expect("another descriptor");
        nix::fcntl::fcntl(&passed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).expect("kept on exec");
        let descriptor = std::os::fd::IntoRawFd::into_raw_fd(passed);
        let taken = adopt(descriptor, "web".to_owned()).expect("taken");
        assert_eq!(taken.address, listener.local_addr().expect("address"));
        let flags = nix::fcntl::fcntl(&taken.listener, nix::fcntl::FcntlArg::F_GETFD).expect("flags");
        assert_eq!(flags, nix::fcntl::FdFlag::FD_CLOEXEC.bits(), "programs that this one starts must not hold it");
        let error = taken.listener.accept().and_then(|_| taken.listener.accept()).expect_err("one client came");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "a core must never wait in accept");
    }

    #[test]
    fn sockets_are_found_by_their_address_and_none_is_forgotten() {
        let (address, pair) = super::super::bind(([127, 0, 0, 1], 0).into(), 2).expect("bind");
        let (other, single) = super::super::bind(([127, 0, 0, 1], 0).into(), 1).expect("bind");
        let mut inherited = Inherited::from_listeners(pair.into_iter().chain(single).collect()).expect("taken");
        assert_eq!(inherited.take(address).len(), 2);
        assert!(inherited.take(address).is_empty(), "they are given once");
        let text = inherited.finish().expect_err("one is left").to_string();
        assert!(text.contains(&other.to_string()) && text.contains("http_listen"), "{text}");
        assert!(Inherited::none().finish().is_ok());
    }
}
