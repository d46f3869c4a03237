//! The end of a connection in the middle of an exchange.
//!
//! An orderly close leaves the port waiting for a minute (TIME_WAIT), and toward one instance there are some 28,000 ports.
//! A few hundred requests a second that their clients take back would use them all up, and the kernel then searches through
//! all of them for each new connection, to whatever endpoint. So a connection whose exchange was cut is reset: its port is
//! free at once, and the endpoint learns that nobody waits for its answer.

use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

nix::ioctl_read_bad!(bytes_on_their_way, nix::libc::TIOCOUTQ, nix::libc::c_int);

/// Until when what was sent should have been acknowledged: Linux puts an acknowledgement off by 40 ms as a rule.
pub(super) const ACKNOWLEDGED: Duration = Duration::from_millis(100);

/// A transport that can be reset.
pub(super) trait Reset {
    /// Makes its close a reset, and says whether it is. Not if something that was sent has not arrived: it would be lost, and
    /// the endpoint may have all that it needs of a request whose client did not wait.
    fn reset(&self) -> bool;
}

impl Reset for TcpStream {
    fn reset(&self) -> bool {
        all_arrived(self) && SockRef::from(self).set_linger(Some(Duration::ZERO)).is_ok()
    }
}

impl Reset for tokio_rustls::client::TlsStream<TcpStream> {
    fn reset(&self) -> bool {
        self.get_ref().0.reset()
    }
}

fn all_arrived(socket: &impl AsFd) -> bool {
    let mut count = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel writes one number.
    let asked = unsafe { bytes_on_their_way(socket.as_fd().as_raw_fd(), &raw mut count) };
    asked.is_ok() && count == 0
}

/// Whether an exchange was cut; known to who sends on a connection, to the request's body and to the transport.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
