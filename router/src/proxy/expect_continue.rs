//! `Expect: 100-continue`: a client asks whether to send its body. The app decides, so the body waits until the app responds
//! or a timeout passes: many apps do not know the header, and just read.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Sleep;

/// An app that is silent for so long is sent the body. Clients wait as long.
const SILENCE: Duration = Duration::from_secs(1);

const WAITS: u8 = 0;
const WANTED: u8 = 1;
const REFUSED: u8 = 2;

/// What the app has said of a body. Shared with the app's connection, which hyper wants to be `Send`.
#[derive(Debug, Default)]
pub(super) struct ContinueDecision {
    decided: AtomicU8,
    waker: AtomicWaker,
}

impl ContinueDecision {
    fn decide(&self, decision: u8) {
        // The first word counts.
        if self.decided.compare_exchange(WAITS, decision, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }

    /// The app said 100.
    pub(super) fn wanted(&self) {
        self.decide(WANTED);
    }

    /// The app has answered without it.
    pub(super) fn refused(&self) {
        self.decide(REFUSED);
    }
}

/// A body's side of it.
pub(super) struct ContinueWait {
    decision: Arc<ContinueDecision>,
    silence: Pin<Box<Sleep>>,
}

impl ContinueWait {
    pub(super) fn new(decision: &Arc<ContinueDecision>) -> Self {
        Self { decision: Arc::clone(decision), silence: Box::pin(tokio::time::sleep(SILENCE)) }
    }

    /// Whether the body is to be sent, once that is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.decision.waker.register(cx.waker());
        if self.decision.decided.load(Ordering::Acquire) == WAITS && self.silence.as_mut().poll(cx).is_ready() {
            self.decision.decide(WANTED);
        }
        match self.decision.decided.load(Ordering::Acquire) {
            WAITS => Poll::Pending,
            decision => Poll::Ready(decision == WANTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_decides_whether_a_body_is_sent_and_silence_means_yes() {
        let decision = Arc::<ContinueDecision>::default();
        let mut wait = ContinueWait::new(&decision);
        assert!(futures::poll!(poll_fn(|cx| wait.poll(cx))).is_pending());
        decision.refused();
        decision.wanted();
        assert!(!poll_fn(|cx| wait.poll(cx)).await);
        let begun = tokio::time::Instant::now();
        let mut wait = ContinueWait::new(&Arc::default());
        assert!(poll_fn(|cx| wait.poll(cx)).await);
        assert_eq!(begun.elapsed(), SILENCE);
    }
}
