//! `Expect: 100-continue`: a client asks whether it shall send its body. The app decides, so the body waits here until the
//! app says so, has answered, or is silent for too long: many apps know nothing of this, and read.

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
pub(super) struct Word {
    said: AtomicU8,
    waker: AtomicWaker,
}

impl Word {
    fn say(&self, word: u8) {
        // The first word counts.
        if self.said.compare_exchange(WAITS, word, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }

    /// The app said 100.
    pub(super) fn wanted(&self) {
        self.say(WANTED);
    }

    /// The app has answered without it.
    pub(super) fn refused(&self) {
        self.say(REFUSED);
    }
}

/// A body's side of it.
pub(super) struct Patience {
    word: Arc<Word>,
    silence: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(word: &Arc<Word>) -> Self {
        Self { word: Arc::clone(word), silence: Box::pin(tokio::time::sleep(SILENCE)) }
    }

    /// Whether the body is to be sent, once that is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.word.waker.register(cx.waker());
        if self.word.said.load(Ordering::Acquire) == WAITS && self.silence.as_mut().poll(cx).is_ready() {
            self.word.say(WANTED);
        }
        match self.word.said.load(Ordering::Acquire) {
            WAITS => Poll::Pending,
            word => Poll::Ready(word == WANTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_decides_whether_a_body_is_sent_and_silence_means_yes() {
        let word = Arc::<Word>::default();
        let mut patience = Patience::new(&word);
        assert!(futures::poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
        word.refused();
        word.wanted();
        assert!(!poll_fn(|cx| patience.poll(cx)).await);
        let begun = tokio::time::Instant::now();
        let mut patience = Patience::new(&Arc::default());
        assert!(poll_fn(|cx| patience.poll(cx)).await);
        assert_eq!(begun.elapsed(), SILENCE);
    }
}
