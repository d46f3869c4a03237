//! The listening sockets of the router. The supervisor holds them and passes them to each router that it starts, so that
//! clients who come while none runs wait for the next one instead of being refused.
//!
//! They are passed under the numbers that they have here, told in `LISTEN_FDS`, `LISTEN_FDNAMES` and the platform's own
//! `SLIPWAY_LISTEN_NUMBERS` ([`slipway_router::sockets`]). systemd's protocol wants them from descriptor 3 on; to put them
//! there, a child of a program with threads would have to overwrite what happens to be open there, which can be the very
//! pipe through which it tells that it could not become the program.
//!
//! No other part gets them: they close on exec, and only the router's child keeps them. A socket that Postgres or an
//! agent kept open would hold its clients for ever once the router and the supervisor are gone.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use slipway_router::{RouterConfig, sockets};
use tokio::process::Command;

/// The router has a socket of an address for each core, and shares them out when there are more cores than sockets. With
/// four addresses, their numbers stay far below the usual limit of 1024.
const MAX_PER_ADDRESS: usize = 64;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the router")]
pub(crate) struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ListenSockets {
    addresses: Vec<(&'static str, SocketAddr)>,
    for_each: usize,
    open: Vec<(&'static str, OwnedFd)>,
}

impl ListenSockets {
    /// Those of this router; closed.
    pub(crate) fn of(config: &RouterConfig) -> Self {
        let named = |name, addresses: &[SocketAddr]| addresses.iter().map(|one| (name, *one)).collect::<Vec<_>>();
        let addresses = [named("http", &config.http_listen), named("https", &config.https_listen)].concat();
        Self { addresses, for_each: config.core_count().min(MAX_PER_ADDRESS), open: Vec::new() }
    }

    /// Opens them, unless they are open.
    ///
    /// # Errors
    /// When one cannot be opened; then none is.
    pub(crate) fn open(&mut self) -> Result<(), ListenError> {
        if !self.open.is_empty() {
            return Ok(());
        }
        let mut open = Vec::new();
        for &(name, address) in &self.addresses {
            let (_, listeners) =
                sockets::bind(address, self.for_each).map_err(|source| ListenError { address, source })?;
            open.extend(listeners.into_iter().map(|listener| (name, listener.into())));
        }
        self.open = open;
        Ok(())
    }

    /// Closes them: who waits is refused, unless a router that has them accepts.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }

    /// Makes the child of this command get them. They must stay open until it is spawned.
    pub(crate) fn pass_to(&self, command: &mut Command) {
        // What an ancestor was passed is not for the router.
        for variable in ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", sockets::NUMBERS] {
            command.env_remove(variable);
        }
        if self.open.is_empty() {
            return;
        }
        let names: Vec<&str> = self.open.iter().map(|(name, _)| *name).collect();
        let held: Vec<RawFd> = self.open.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let numbers: Vec<String> = held.iter().map(ToString::to_string).collect();
        // Without LISTEN_PID, which nobody knows before the fork: see `slipway_router::sockets`.
        command
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env(sockets::NUMBERS, numbers.join(":"));
        let pass = move || {
            for &number in &held {
                // SAFETY: this child's own copy of a socket that its parent holds; a number that is not open is refused.
                let socket = unsafe { BorrowedFd::borrow_raw(number) };
                fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it only sets flags, which is async-signal-safe; nothing is allocated.
        unsafe { command.pre_exec(pass) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Stdio;

    use slipway_test_support::{PATIENCE, eventually};

    use super::*;

    /// A free port of an address of the test's own: nobody takes it before it is used.
    fn listen_sockets(test: u8, count: usize) -> ListenSockets {
        let (address, _probe) = sockets::bind((Ipv4Addr::new(127, 77, 0, test), 0).into(), 1).expect("a port");
        ListenSockets { addresses: vec![("http", address)], for_each: count, open: Vec::new() }
    }

    /// What a child of this command has open that is a socket, and its variables.
    async fn child_of(listen_sockets: Option<&ListenSockets>) -> String {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "readlink /proc/self/fd/* | grep -c ^socket; echo ${LISTEN_PID-none} $LISTEN_FDS $LISTEN_FDNAMES; \
             echo $SLIPWAY_LISTEN_NUMBERS | tr : '\\n' | while read n; do readlink /proc/self/fd/$n; done | grep -c ^socket",
        ]);
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "9").stdin(Stdio::null());
        if let Some(listen_sockets) = listen_sockets {
            listen_sockets.pass_to(&mut command);
        }
        let output = command.output().await.expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    }

    #[tokio::test]
    async fn the_router_alone_gets_the_sockets() {
        let mut listen_sockets = listen_sockets(1, 3);
        listen_sockets.open().expect("open");
        assert_eq!(child_of(Some(&listen_sockets)).await, "3\nnone 3 http:http:http\n3\n");
        assert_eq!(child_of(None).await, "0\n1 9\n0\n", "another child, with what its parent had");
        listen_sockets.close();
        assert_eq!(child_of(Some(&listen_sockets)).await, "0\nnone\n0\n", "closed ones are not told of");
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_reported() {
        let mut listen_sockets = listen_sockets(2, 40);
        listen_sockets.open().expect("open");
        let mut command = Command::new("/nonexistent/program");
        listen_sockets.pass_to(&mut command);
        let error = command.spawn().expect_err("there is no such program");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn clients_wait_while_nobody_accepts_and_are_refused_once_closed() {
        let mut listen_sockets = listen_sockets(3, 2);
        listen_sockets.open().expect("open");
        listen_sockets.open().expect("open already");
        assert_eq!(listen_sockets.open.len(), 2);
        let address = listen_sockets.addresses[0].1;
        let mut waiting = TcpStream::connect(address).expect("not refused");
        waiting.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
        listen_sockets.close();
        let mut answer = Vec::new();
        let error = waiting.read_to_end(&mut answer).expect_err("told that nobody will come");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // A child that another test starts just now has the sockets until it executes its program.
        let error = eventually("nobody listens", PATIENCE, || async {
            match TcpStream::connect(address) {
                Err(error) => Ok(error),
                Ok(connected) => Err(connected),
            }
        })
        .await;
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        listen_sockets.open().expect("open again");
        TcpStream::connect(address).expect("not refused");
    }

    #[test]
    fn an_address_that_somebody_else_has_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = taken.local_addr().expect("address");
        let mut listen_sockets = listen_sockets(4, 1);
        listen_sockets.addresses.push(("https", address));
        let error = listen_sockets.open().expect_err("it is taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(listen_sockets.open.is_empty(), "half of them would leave clients of one port waiting");
    }
}
