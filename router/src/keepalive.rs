//! Finds that the other end of a quiet connection has gone without a word: a client that lost its network, a cell that
//! lost its power. Tunnels and slow answers have no limit in time, so nothing else would ever end such a connection, and
//! each holds two descriptors.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A connection on which nothing comes for this long is asked whether somebody is there.
const QUIET: Duration = Duration::from_secs(60);
/// Again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// Unanswered so often, it ends.
const TRIES: u32 = 4;

/// On a connection, or on a listening socket for all that it accepts.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn keep_alive(socket: &impl AsFd) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(QUIET).with_interval(AGAIN).with_retries(TRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
