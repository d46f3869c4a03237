//! Counters, one set per core so that cores do not meet at a cache line; added up when they are read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slipway_chassis::metrics::{Source, Values};

/// Upper bounds of the duration histogram, seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Classes of status, each at its first digit; none begins with 0.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one core has counted.
#[derive(Debug, Default)]
pub(crate) struct CoreMetrics {
    /// By the first digit of the status.
    classes: [AtomicU64; 6],
    /// Requests per histogram bucket, the last one above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) upstream_idle: AtomicU64,
}

impl CoreMetrics {
    pub(crate) fn request(&self, status: u16, seconds: f64) {
        let class = usize::from(status / 100).min(5);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

/// What all cores have counted.
pub(crate) struct AllCores(pub(crate) Vec<Arc<CoreMetrics>>);

impl AllCores {
    fn sum(&self, of: impl Fn(&CoreMetrics) -> &AtomicU64) -> u64 {
        self.0.iter().map(|core| of(core).load(Ordering::Relaxed)).sum()
    }
}

impl Source for AllCores {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        let classes = CLASSES.into_iter().enumerate();
        let classes = classes.map(|(at, class)| (class, self.sum(|core| &core.classes[at + 1])));
        values.counters("router_requests_total", "Requests by class of status.", "class", classes)?;
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]).enumerate();
        let buckets: Vec<_> = bounds.map(|(at, bound)| (bound, self.sum(|core| &core.buckets[at]))).collect();
        values.histogram(
            "router_request_duration_seconds",
            "From the request's head to the end of its answer.",
            self.sum(|core| &core.micros) as f64 / 1e6,
            &buckets,
        )?;
        let accepted = self.sum(|core| &core.accepted);
        values.counter("router_connections_accepted_total", "Client connections.", accepted)?;
        let turned_away = self.sum(|core| &core.turned_away);
        values.counter("router_connections_turned_away_total", "Refused for want of descriptors.", turned_away)?;
        let connects = self.sum(|core| &core.connects);
        values.counter("router_upstream_connects_total", "Connections opened to endpoints.", connects)?;
        let retries = self.sum(|core| &core.retries);
        values.counter("router_retries_total", "Tries beyond the first of a request.", retries)?;
        let idle = self.sum(|core| &core.upstream_idle);
        values.gauge("router_upstream_idle_connections", "Idle connections to endpoints.", idle)
    }
}

#[cfg(test)]
mod tests {
    use slipway_chassis::metrics::Metrics;

    use super::*;

    #[test]
    fn cores_are_added_and_buckets_pile_up() {
        let cores = [Arc::new(CoreMetrics::default()), Arc::new(CoreMetrics::default())];
        cores[0].request(200, 0.002);
        cores[1].request(204, 0.2);
        cores[1].request(502, 100.0);
        cores[0].retries.store(3, Ordering::Relaxed);
        let page = Metrics::default().with(AllCores(cores.to_vec())).page();
        for line in [
            "# TYPE router_requests_total counter",
            "router_requests_total{class=\"1xx\"} 0",
            "router_requests_total{class=\"2xx\"} 2",
            "router_requests_total{class=\"5xx\"} 1",
            "router_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "router_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "router_request_duration_seconds_bucket{le=\"0.25\"} 2",
            "router_request_duration_seconds_bucket{le=\"30\"} 2",
            "router_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "router_request_duration_seconds_count 3",
            "router_retries_total 3",
            "router_upstream_idle_connections 0",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in\n{page}");
        }
    }
}
