//! Growing pauses with jitter, for anything that tries again.

use std::time::Duration;

use rand::Rng as _;

/// Doubles from `first` to `most`; each pause is drawn from the upper half of its span, so that many peers that lost
/// the same server do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// A back-off from `first` to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The pause to take now; the following one is twice as long.
    pub fn pause(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.most);
        span.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Something worked: start again from the shortest pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_resets() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        for limit in [100, 200, 300, 300] {
            let pause = backoff.pause();
            assert!(pause <= Duration::from_millis(limit) && pause >= Duration::from_millis(limit / 2), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
