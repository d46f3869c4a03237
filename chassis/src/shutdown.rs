//! Stopping in three moves: tell (a token), wait (a tracker that knows who is still inside), force (a deadline).

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cloned into every long-lived task of a server part.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// A running part.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells everyone to finish.
    pub fn begin(&self) {
        self.token.cancel();
        self.tracker.close();
    }

    /// True once [`Shutdown::begin`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the part should stop.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The token, for libraries that take one.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs a task that shutdown waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Tells, waits for every tracked task, and gives up after `deadline`. Returns how many tasks were left behind.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.begin();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            return self.tracker.len();
        }
        0
    }

    /// Begins when the process gets SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            shutdown.begin();
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tracked_work() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let task = shutdown.spawn(async move {
            inner.requested().await;
            7
        });
        assert_eq!(shutdown.finish(Duration::from_secs(10)).await, 0);
        assert_eq!(task.await.expect("joins"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert_eq!(shutdown.finish(Duration::from_secs(5)).await, 1);
    }
}
