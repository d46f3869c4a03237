//! The neighbour: its app's visitors, its user's questions to the API and its logins, each begun at a steady rate whether or
//! not the one before was answered.

use std::collections::BTreeMap;
use std::future::Future;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clients;
use super::tenants::Ground;
use crate::wire::WireClient;

/// Apart from each other.
const VISITS: Duration = Duration::from_millis(20);
const QUESTIONS: Duration = Duration::from_millis(100);
const LOGINS: Duration = Duration::from_millis(500);
/// What takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came of one kind of request. Times are of those that succeeded.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct RequestOutcomes {
    pub(super) asked: usize,
    pub(super) failed: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) slowest_ms: f64,
    pub(super) failures: BTreeMap<String, usize>,
}

/// Asks for so long, in a thread of its own that waits for no other. Gives what app, API and login did.
pub(super) fn start(
    ground: &Ground,
    span: Duration,
) -> anyhow::Result<JoinHandle<anyhow::Result<[RequestOutcomes; 3]>>> {
    let ground = ground.clone();
    let thread = std::thread::Builder::new().name("neighbour".to_owned()).spawn(move || {
        clients::set_priority(-10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (router, host) = (ground.router, ground.neighbour_host.as_str());
        let seen = runtime.block_on(async {
            tokio::join!(
                ask(VISITS, span, || {
                    let mut client = WireClient::new(router, host);
                    async move { client.get("/").await.map_err(|failure| failure.what) }
                }),
                ask(QUESTIONS, span, || {
                    let ground = ground.clone();
                    async move { ground.neighbour.ask("/v3/apps?per_page=50").await }
                }),
                ask(LOGINS, span, || {
                    let ground = ground.clone();
                    async move { ground.neighbour.log_in().await }
                }),
            )
        });
        Ok([seen.0, seen.1, seen.2])
    })?;
    Ok(thread)
}

async fn ask<F, Fut>(apart: Duration, span: Duration, request: F) -> RequestOutcomes
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut under_way = tokio::task::JoinSet::new();
    let mut next = tokio::time::Instant::now();
    let end = next + span;
    while next < end {
        tokio::time::sleep_until(next).await;
        next += apart;
        let request = request();
        under_way.spawn(async move {
            let begun = Instant::now();
            let outcome = tokio::time::timeout(TIMEOUT, request).await;
            outcome.unwrap_or_else(|_| Err("no answer in 10 s".to_owned())).map(|()| begun.elapsed())
        });
    }
    summed(under_way.join_all().await)
}

fn summed(outcomes: Vec<Result<Duration, String>>) -> RequestOutcomes {
    let mut seen = RequestOutcomes { asked: outcomes.len(), ..RequestOutcomes::default() };
    let mut times = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(time) => times.push(time),
            Err(failure) => {
                seen.failed += 1;
                *seen.failures.entry(failure).or_insert(0) += 1;
            }
        }
    }
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    (seen.p50_ms, seen.p99_ms, seen.slowest_ms) = (at(0.5), at(0.99), at(1.0));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_have_no_part_in_the_times() {
        let mut outcomes: Vec<_> = (1..=101).map(|ms| Ok(Duration::from_millis(ms))).collect();
        outcomes.push(Err("503".to_owned()));
        let seen = summed(outcomes);
        assert_eq!((seen.asked, seen.failed), (102, 1));
        assert_eq!([seen.p50_ms, seen.p99_ms, seen.slowest_ms], [51.0, 100.0, 101.0]);
        assert_eq!(seen.failures, BTreeMap::from([("503".to_owned(), 1)]));
        assert!(summed(Vec::new()).p99_ms.abs() < f64::EPSILON);
    }
}
