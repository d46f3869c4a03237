//! Background tasks that reconcile: no argument, they read desired and observed state and act. A wake only makes one run
//! sooner; the period repairs lost ones. One run at a time. A [`Registry`] knows every task of a process, with what it did
//! last, for whoever operates it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rand::Rng as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Backoff, Shutdown};

/// The first pause after a failed run; it doubles up to the task's period.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Makes a task run sooner. Cheap to clone; wakes that come while a run is under way lead to one more run after it.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Makes the task run now, or once more right after the run that is under way.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// What a background task is.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// One word, unique in its process.
    pub name: &'static str,
    /// One sentence without its full stop: what it does.
    pub description: &'static str,
    /// It runs at least so often, give or take a tenth.
    pub period: Duration,
    /// What makes it run sooner, for people; empty when nothing does.
    pub woken_by: &'static str,
}

/// When a task that ran wants to run again, unless it is woken before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// After its period.
    #[default]
    AfterPeriod,
    /// After this pause, exactly.
    After(Duration),
}

/// The work of a background task.
pub trait BackgroundTask: Send + 'static {
    /// Why a run fails. It is logged, and the task runs again.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Does what there is to do now. Runs to its end also when shutdown begins.
    fn run(&mut self) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Called once after the last run, at shutdown.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl<F, Fut, E> BackgroundTask for F
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Next, E>> + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    type Error = E;

    fn run(&mut self) -> impl Future<Output = Result<Next, E>> + Send {
        self()
    }
}

/// What a task did last.
#[derive(Clone, Debug, Default)]
pub struct TaskStatus {
    /// Runs that have ended.
    pub runs: u64,
    /// Runs in a row that ended in an error.
    pub failures: u64,
    /// The last error, until a run succeeds.
    pub last_error: Option<String>,
    /// When the last run began.
    pub last_run: Option<SystemTime>,
    /// How long it took.
    pub last_duration: Duration,
    /// Set while a run is under way.
    pub running_since: Option<SystemTime>,
}

/// A handle to a background task.
#[derive(Clone, Debug)]
pub struct Task {
    definition: Definition,
    status: Arc<Mutex<TaskStatus>>,
}

impl Task {
    /// What it is.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// What it did last.
    #[must_use]
    pub fn status(&self) -> TaskStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update<R>(&self, change: impl FnOnce(&mut TaskStatus) -> R) -> R {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begins(&self) {
        self.update(|status| status.running_since = Some(SystemTime::now()));
    }

    /// Notes how a run ended. Failures are loud once: a database that is away fails every task many times.
    fn ended(&self, duration: Duration, error: Option<String>) {
        let name = self.definition.name;
        let before = self.update(|status| {
            let before = status.failures;
            status.runs += 1;
            status.last_run = status.running_since.take();
            status.last_duration = duration;
            status.failures = if error.is_some() { before + 1 } else { 0 };
            status.last_error.clone_from(&error);
            before
        });
        match (error, before) {
            (Some(error), 0) => tracing::warn!(task = name, error, "background task failed; it will run again"),
            (Some(error), _) => tracing::debug!(task = name, error, "background task failed again"),
            (None, 1..) => tracing::info!(task = name, failures = before, "background task works again"),
            (None, 0) => {}
        }
    }
}

/// Every background task of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Vec<Task>>>);

impl Registry {
    /// Every task, in the order in which they were started.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a task: it runs at once, then whenever `wake` says or its pause is over, until shutdown.
    pub fn start<T: BackgroundTask>(
        &self,
        shutdown: &Shutdown,
        definition: Definition,
        wake: Wake,
        mut work: T,
    ) -> Task {
        let task = Task { definition, status: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task.clone());
        let (handle, stop) = (task.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut retry = Backoff::new(FIRST_RETRY.min(definition.period), definition.period);
            while !stop.is_stopping() {
                handle.begins();
                let started = Instant::now();
                let result = work.run().await;
                handle.ended(started.elapsed(), result.as_ref().err().map(|error| crate::chain(error).to_string()));
                let pause = match result {
                    Ok(next) => {
                        retry.reset();
                        match next {
                            Next::AfterPeriod => definition.period.mul_f64(rand::rng().random_range(0.9..=1.1)),
                            Next::After(pause) => pause,
                        }
                    }
                    Err(_) => retry.pause(),
                };
                // All three arms may be dropped at any point: none holds a result.
                tokio::select! {
                    () = stop.requested() => break,
                    () = wake.0.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            work.end().await;
        });
        task
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const COUNT: Definition =
        Definition { name: "count", description: "Counts", period: Duration::from_secs(10), woken_by: "a test" };

    #[tokio::test(start_paused = true)]
    async fn runs_at_once_by_period_and_by_wake() {
        let (shutdown, registry, wake) = (Shutdown::new(), Registry::default(), Wake::default());
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let task = registry.start(&shutdown, COUNT, wake.clone(), move || {
            let seen = Arc::clone(&seen);
            async move {
                match seen.fetch_add(1, Ordering::SeqCst) {
                    1 => Err(std::io::Error::other("second run fails")),
                    3 => Ok(Next::After(Duration::from_secs(60))),
                    _ => Ok(Next::AfterPeriod),
                }
            }
        });
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        after(1).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(task.status().last_run.is_some() && task.status().running_since.is_none());
        wake.wake();
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert_eq!((task.status().failures, task.status().last_error.as_deref()), (1, Some("second run fails")));
        after(1).await;
        assert_eq!((count.load(Ordering::SeqCst), task.status().failures), (3, 0), "it is tried again soon");
        assert_eq!(task.status().last_error, None);
        after(11).await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
        after(50).await;
        assert_eq!(count.load(Ordering::SeqCst), 4, "it asked for a longer pause");
        after(11).await;
        assert_eq!(count.load(Ordering::SeqCst), 5);
        let names: Vec<_> = registry.tasks().iter().map(|task| task.definition().name).collect();
        assert_eq!(names, ["count"]);
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, 0);
    }

    struct Leaving(Arc<AtomicU32>);

    impl BackgroundTask for Leaving {
        type Error = Infallible;

        async fn run(&mut self) -> Result<Next, Infallible> {
            Ok(Next::AfterPeriod)
        }

        async fn end(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_in_order_at_shutdown() {
        let (shutdown, ended) = (Shutdown::new(), Arc::new(AtomicU32::new(0)));
        Registry::default().start(&shutdown, COUNT, Wake::default(), Leaving(Arc::clone(&ended)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shutdown.finish(Duration::from_secs(1)).await, 0);
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}
