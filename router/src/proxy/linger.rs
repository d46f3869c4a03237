//! Closes a connection whose client is still sending.
//!
//! Closing a socket with unread data sends a reset, and a reset discards what the client has not yet read, such as the
//! response that says why. So the router shuts down its sending side and reads on for a while.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A client that is quiet for so long reads, or has gone.
const QUIET: Duration = Duration::from_secs(2);
/// Longer holds a descriptor for who never stops; shorter cuts slow clients off that send all before they read.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes that are read and dropped.
const MOST: usize = 64 << 20;

/// What is left of a client's patience, and of ours.
pub(super) struct Linger {
    end: Instant,
    left: usize,
    timer: Pin<Box<Sleep>>,
}

impl Linger {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { end: now + LONGEST, left: MOST, timer: Box::pin(tokio::time::sleep_until(now + QUIET)) }
    }

    /// Ready when the client has closed too, or nothing more is read.
    pub(super) fn poll<T: AsyncRead + Unpin>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; 16 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                    let now = Instant::now();
                    if self.left == 0 || now >= self.end {
                        return Poll::Ready(());
                    }
                    self.timer.as_mut().reset((now + QUIET).min(self.end));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.as_mut().poll(cx),
            }
        }
    }
}
