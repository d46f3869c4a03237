//! Counters, one set per core so that cores do not meet at a cache line; added up when they are read.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the duration histogram, seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

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

/// A value that is read elsewhere, for the same page.
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// "gauge" or "counter".
    pub(crate) kind: &'static str,
    pub(crate) value: u64,
}

/// The page in Prometheus' text format.
pub(crate) fn render(cores: &[Arc<CoreMetrics>], others: &[Gauge]) -> String {
    let sum = |of: &dyn Fn(&CoreMetrics) -> &AtomicU64| -> u64 {
        cores.iter().map(|core| of(core).load(Ordering::Relaxed)).sum()
    };
    let mut page = String::new();
    // Writing to a String cannot fail, so the results below are dropped.
    let _ = writeln!(
        page,
        "# HELP router_requests_total Requests by class of status.\n# TYPE router_requests_total counter"
    );
    for class in 1..6 {
        let count = sum(&|core| &core.classes[class]);
        let _ = writeln!(page, "router_requests_total{{class=\"{class}xx\"}} {count}");
    }
    let name = "router_request_duration_seconds";
    let _ = writeln!(page, "# HELP {name} From the request's head to the end of its answer.\n# TYPE {name} histogram");
    let mut count = 0;
    for at in 0..=BOUNDS.len() {
        count += sum(&|core| &core.buckets[at]);
        let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let seconds = sum(&|core| &core.micros) as f64 / 1e6;
    let _ = writeln!(page, "{name}_sum {seconds}\n{name}_count {count}");
    let own = [
        ("router_connections_accepted_total", "Client connections.", "counter", sum(&|core| &core.accepted)),
        (
            "router_connections_turned_away_total",
            "Refused for want of descriptors.",
            "counter",
            sum(&|core| &core.turned_away),
        ),
        ("router_upstream_connects_total", "Connections opened to endpoints.", "counter", sum(&|core| &core.connects)),
        ("router_retries_total", "Tries beyond the first of a request.", "counter", sum(&|core| &core.retries)),
        (
            "router_upstream_idle_connections",
            "Idle connections to endpoints.",
            "gauge",
            sum(&|core| &core.upstream_idle),
        ),
    ];
    let own = own.map(|(name, help, kind, value)| Gauge { name, help, kind, value });
    for Gauge { name, help, kind, value } in own.iter().chain(others) {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_added_and_buckets_pile_up() {
        let cores = [Arc::new(CoreMetrics::default()), Arc::new(CoreMetrics::default())];
        cores[0].request(200, 0.002);
        cores[1].request(204, 0.2);
        cores[1].request(502, 100.0);
        let page = render(&cores, &[Gauge { name: "router_x", help: "X.", kind: "gauge", value: 7 }]);
        for line in [
            "router_requests_total{class=\"2xx\"} 2",
            "router_requests_total{class=\"5xx\"} 1",
            "router_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "router_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "router_request_duration_seconds_bucket{le=\"0.25\"} 2",
            "router_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "router_request_duration_seconds_count 3",
            "router_x 7",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in\n{page}");
        }
    }
}
