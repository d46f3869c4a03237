//! Background tasks that reconcile: no argument, they read desired and observed state and act. A poke only makes one
//! run sooner; the period repairs lost pokes. One run at a time; the status of the last run is there to be shown.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Shutdown;

/// What a task did last; for `/status` and the operator's page.
#[derive(Debug, Clone, Default)]
pub struct TaskStatus {
    /// Runs so far.
    pub runs: u64,
    /// Runs in a row that ended in an error.
    pub failures: u64,
    /// The last error, until a run succeeds.
    pub last_error: Option<String>,
    /// How long the last run took.
    pub last_duration: Duration,
    /// Set while a run is under way.
    pub running_since: Option<Instant>,
}

/// A handle to a background task.
#[derive(Debug, Clone)]
pub struct Task {
    name: &'static str,
    poke: Arc<Notify>,
    status: Arc<Mutex<TaskStatus>>,
}

impl Task {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes it run now, or once more right after the run that is under way.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// What it did last.
    #[must_use]
    pub fn status(&self) -> TaskStatus {
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut TaskStatus)) {
        change(&mut self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// Starts a background task that runs at once, then every `period` (with a tenth of jitter) or when poked, until
/// shutdown. An error is logged with its chain and the task goes on.
pub fn spawn<F, Fut, E>(shutdown: &Shutdown, name: &'static str, period: Duration, mut run: F) -> Task
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    let task = Task { name, poke: Arc::new(Notify::new()), status: Arc::default() };
    let (handle, stop) = (task.clone(), shutdown.clone());
    shutdown.spawn(async move {
        while !stop.is_stopping() {
            let started = Instant::now();
            handle.update(|status| status.running_since = Some(started));
            let result = run().await;
            let duration = started.elapsed();
            handle.update(|status| {
                status.runs += 1;
                status.running_since = None;
                status.last_duration = duration;
                match &result {
                    Ok(()) => {
                        status.failures = 0;
                        status.last_error = None;
                    }
                    Err(error) => {
                        status.failures += 1;
                        status.last_error = Some(crate::chain(error).to_string());
                    }
                }
            });
            if let Err(error) = &result {
                tracing::warn!(task = name, error = %crate::chain(error), "background task failed; it will run again");
            }
            let pause = period.mul_f64(rand::rng().random_range(0.9..=1.1));
            // All three arms may be dropped at any point: none holds a result.
            tokio::select! {
                () = stop.requested() => break,
                () = handle.poke.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
    task
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_at_once_by_period_and_by_poke() {
        let shutdown = Shutdown::new();
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let task = spawn(&shutdown, "count", Duration::from_secs(10), move || {
            let seen = Arc::clone(&seen);
            async move {
                if seen.fetch_add(1, Ordering::SeqCst) == 1 {
                    return Err(std::io::Error::other("second run fails"));
                }
                Ok(())
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        task.poke();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert_eq!(task.status().last_error.as_deref(), Some("second run fails"));
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(count.load(Ordering::SeqCst), 3);
        assert_eq!(task.status().last_error, None);
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, 0);
    }
}
