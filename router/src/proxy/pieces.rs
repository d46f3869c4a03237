//! Limits how much is read at once.
//!
//! hyper doubles its read size up to the limit of a head, and a head may be large. A body that nobody reads would then take
//! megabytes here.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Larger pieces save system calls, and cost memory for each body that waits.
const MOST: usize = 32 << 10;

/// Reads once, and no more than one piece. Gives the number of bytes that came.
pub(super) fn read_piece<T: AsyncRead + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<std::io::Result<usize>> {
    let before = buf.filled().len();
    if buf.remaining() <= MOST {
        return Pin::new(io).poll_read(cx, buf).map_ok(|()| buf.filled().len() - before);
    }
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(MOST));
    let polled = Pin::new(io).poll_read(cx, &mut piece);
    let came = piece.filled().len();
    buf.advance(came);
    polled.map_ok(|()| came)
}
