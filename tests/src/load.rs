//! Constant requests to one app, while a test breaks or replaces something: how many failed, and for how long nothing
//! worked. They come from a thread of their own: commands that a test waits for do not hold them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Platform;
use crate::wire::{Failure, WireClient};

/// Requests in the background.
pub struct Load {
    stop: Stop,
    answered: Arc<AtomicUsize>,
    begun: Instant,
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Vec<Sample>>>>,
}

/// Ends the requests, also when a scenario ends without asking for the report.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Sample {
    begun: Instant,
    ended: Instant,
    failure: Option<Failure>,
}

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// All requests.
    pub requests: usize,
    /// From the first to the last.
    pub took: Duration,
    /// Answered with something else than 200, or not at all.
    pub failed: usize,
    /// Of these, those that got no connection.
    pub refused: usize,
    /// How many of the failed ones the unluckiest client had.
    pub most_of_one: usize,
    /// From the beginning of the first failed request to the end of the last one.
    pub failing_for: Duration,
    /// Longest request that succeeded.
    pub slowest: Duration,
    /// Kinds of failure with their number.
    pub failures: Vec<(String, usize)>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests, {:.0} a second, {} failed ({} refused) over {} ms, slowest good one {} ms",
            self.requests,
            self.rate(),
            self.failed,
            self.refused,
            self.failing_for.as_millis(),
            self.slowest.as_millis()
        )?;
        for (kind, count) in &self.failures {
            write!(f, "; {count} x {kind}")?;
        }
        Ok(())
    }
}

impl LoadReport {
    /// Requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl Load {
    /// Starts `workers` clients, each with one request at a time and a pause between.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(platform: &Platform, app: &str, workers: usize, pause: Duration) -> anyhow::Result<Self> {
        Self::run(platform, app, workers, Pace::Pause(pause))
    }

    /// Starts `workers` clients that together begin `rate` requests a second, as long as the answers come in time.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn at_rate(platform: &Platform, app: &str, workers: usize, rate: f64) -> anyhow::Result<Self> {
        Self::run(platform, app, workers, Pace::Every(Duration::from_secs_f64(workers as f64 / rate)))
    }

    fn run(platform: &Platform, app: &str, workers: usize, pace: Pace) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let (router, host) = (platform.router_address(), Platform::host(app));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                for _ in 0..workers {
                    running.spawn(worker(
                        WireClient::new(router, &host),
                        pace,
                        Arc::clone(&stopped),
                        Arc::clone(&counted),
                    ));
                }
                Ok(running.join_all().await)
            })
        })?;
        Ok(Self { stop: Stop(stop), answered, begun: Instant::now(), thread })
    }

    /// Waits until so many more requests have come to their end.
    ///
    /// # Errors
    /// When they do not within two minutes.
    pub async fn goes_on(&self, requests: usize) -> anyhow::Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        Platform::eventually("requests come to their end", Duration::from_secs(120), || async {
            let ended = self.answered.load(Ordering::Relaxed) - before;
            anyhow::ensure!(ended >= requests, "{ended} of {requests}");
            Ok(())
        })
        .await
    }

    /// Stops and counts.
    ///
    /// # Errors
    /// When a worker panicked.
    pub async fn finish(self) -> anyhow::Result<LoadReport> {
        drop(self.stop);
        let took = self.begun.elapsed();
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        let clients = joined.ok().context("the thread of the requests panicked")??;
        let mut report = LoadReport { requests: clients.iter().map(Vec::len).sum(), took, ..LoadReport::default() };
        let failed = |samples: &Vec<Sample>| samples.iter().filter(|sample| sample.failure.is_some()).count();
        report.most_of_one = clients.iter().map(failed).max().unwrap_or_default();
        let mut kinds = std::collections::BTreeMap::new();
        let (mut first, mut last) = (None::<Instant>, None::<Instant>);
        for sample in clients.iter().flatten() {
            if let Some(failure) = &sample.failure {
                report.failed += 1;
                report.refused += usize::from(failure.refused);
                *kinds.entry(failure.what.clone()).or_insert(0) += 1;
                first = Some(first.map_or(sample.begun, |first| first.min(sample.begun)));
                last = Some(last.map_or(sample.ended, |last| last.max(sample.ended)));
            } else {
                report.slowest = report.slowest.max(sample.ended - sample.begun);
            }
        }
        if let (Some(first), Some(last)) = (first, last) {
            report.failing_for = last - first;
        }
        report.failures = kinds.into_iter().collect();
        Ok(report)
    }
}

/// When a client asks again.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// So long after an answer.
    Pause(Duration),
    /// So long after it asked last.
    Every(Duration),
}

/// One client: asks until it is told to stop.
async fn worker(mut client: WireClient, pace: Pace, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut next = tokio::time::Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let failure = client.get("/").await.err();
        samples.push(Sample { begun, ended: Instant::now(), failure });
        answered.fetch_add(1, Ordering::Relaxed);
        match pace {
            Pace::Pause(pause) => tokio::time::sleep(pause).await,
            Pace::Every(interval) => {
                next += interval;
                // What was missed is not made up for: a burst is no constant load.
                next = next.max(tokio::time::Instant::now());
                tokio::time::sleep_until(next).await;
            }
        }
    }
    samples
}
