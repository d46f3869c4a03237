//! A connection to an endpoint on which an answer counts more than a failed write.
//!
//! An app may answer before it has read a request's body (401, 413), and close. What is sent to it then fails, while its
//! answer is in the socket. So a failed write waits here until all that came has been read: the answer, or the end.

use std::future::Future as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cut::{ACKNOWLEDGED, Cut, Reset};
use super::pieces::read_piece;

/// See above.
pub(super) struct Answering<T: Reset> {
    io: T,
    cut: Cut,
    /// How long it waits, at its end, for an acknowledgement of what was sent before the cut.
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
    /// How a write failed.
    broken: Option<ErrorKind>,
    /// Nothing more comes.
    ended: bool,
    /// Who waits to be told of the failure.
    writer: Option<Waker>,
}

impl<T: Reset> Answering<T> {
    pub(super) fn new(io: T, cut: Cut) -> Self {
        Self { io, cut, wait: None, broken: None, ended: false, writer: None }
    }

    /// Whether the connection ends in the middle of an exchange. Where the endpoint has ended it, the port is free.
    fn is_cut(&self) -> bool {
        self.cut.is() && !self.ended
    }

    /// Makes the close a reset, once all that was sent has arrived; says whether it is one.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.io.reset() {
            return Poll::Ready(true);
        }
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(ACKNOWLEDGED)));
        ready!(wait.as_mut().poll(cx));
        Poll::Ready(self.io.reset())
    }

    /// Ready with the failure of an earlier write once nothing more comes, pending before.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Option<Poll<std::io::Error>> {
        let kind = self.broken?;
        if self.ended {
            return Some(Poll::Ready(kind.into()));
        }
        self.writer = Some(cx.waker().clone());
        Some(Poll::Pending)
    }

    fn wrote<R>(&mut self, cx: &mut Context<'_>, polled: Poll<std::io::Result<R>>) -> Poll<std::io::Result<R>> {
        match polled {
            Poll::Ready(Err(error)) if !self.ended => {
                self.broken = Some(error.kind());
                self.writer = Some(cx.waker().clone());
                // Whoever writes also reads: now is the time.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }
}

impl<T: Reset> Drop for Answering<T> {
    fn drop(&mut self) {
        if self.is_cut() {
            self.io.reset();
        }
    }
}

impl<T: AsyncRead + Reset + Unpin> AsyncRead for Answering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let wanted = buf.remaining() > 0;
        let read = ready!(read_piece(&mut self.io, cx, buf));
        if wanted && !read.as_ref().is_ok_and(|came| *came > 0) {
            self.ended = true;
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
        }
        Poll::Ready(read.map(drop))
    }
}

impl<T: AsyncWrite + Reset + Unpin> AsyncWrite for Answering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if let Some(broken) = self.poll_broken(cx) {
            return broken.map(Err);
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if let Some(broken) = self.poll_broken(cx) {
            return broken.map(Err);
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.broken.is_some() || (self.is_cut() && ready!(self.poll_reset(cx))) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if let Some(broken) = self.poll_broken(cx) {
            return broken.map(Err);
        }
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Writes fail; what comes is the other end of a pipe.
    struct Half(tokio::io::DuplexStream);

    impl Reset for Half {
        fn reset(&self) -> bool {
            false
        }
    }

    impl AsyncRead for Half {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Half {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_failed_write_is_reported_after_the_response() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut io = Answering::new(Half(near), Cut::default());
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_write(cx, b"body"))).await;
        assert!(first.is_pending(), "{first:?}");
        far.write_all(b"401").await.expect("written");
        drop(far);
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.expect("read");
        assert_eq!(answer, "401");
        let error = io.write_all(b"body").await.expect_err("broken");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
