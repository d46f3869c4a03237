//! A page of metrics in Prometheus' text format. A part counts in whatever is cheapest for it; a [`Source`] reads that
//! when somebody asks for the page, so that counting itself takes no lock and finds no name.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::driver::Registry as Tasks;

/// The type of the page, for its HTTP header.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// How the names of counters end on the page.
const TOTAL: &str = "_total";

type NoLabels = [(&'static str, &'static str); 0];

/// Something that has values for the page.
pub trait Source: Send + Sync + 'static {
    /// Gives the values of this moment, each name once.
    ///
    /// # Errors
    /// What [`Values`] gives.
    fn read(&self, values: &mut Values<'_>) -> fmt::Result;
}

/// All sources of a process, in the order in which they stand on the page.
#[derive(Debug, Default)]
pub struct Metrics(Registry);

impl Metrics {
    /// With one more source.
    #[must_use]
    pub fn with(mut self, source: impl Source) -> Self {
        self.0.register_collector(Box::new(Collected(source)));
        self
    }

    /// The page as of now.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        if prometheus_text::encode(&mut page, &self.0).is_err() {
            // Writing to a string cannot fail, so a source has.
            tracing::error!("the page of metrics is not complete: a source has failed");
        }
        page
    }
}

/// Where a source puts its values.
#[derive(Debug)]
pub struct Values<'a>(DescriptorEncoder<'a>);

impl Values<'_> {
    /// A number that only grows. Its name ends in `_total`, here and on the page.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(base(name), help, None, MetricType::Counter)?)
    }

    /// Counters of one name that differ in a label.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut counters = self.0.encode_descriptor(base(name), help, None, MetricType::Counter)?;
        for (which, value) in values {
            ConstCounter::new(value).encode(counters.encode_family(&[(label, which)])?)?;
        }
        Ok(())
    }

    /// A number that goes up and down.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// Histograms of one name that differ in a label; see [`Values::histogram`].
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn histograms<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, f64, Vec<(f64, u64)>)>,
    ) -> fmt::Result {
        let mut histograms = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (which, sum, buckets) in values {
            let count = buckets.iter().map(|(_, count)| count).sum();
            histograms.encode_family(&[(label, which)])?.encode_histogram::<NoLabels>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// Gauges of one name that differ in a label.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut gauges = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (which, value) in values {
            ConstGauge::new(value).encode(gauges.encode_family(&[(label, which)])?)?;
        }
        Ok(())
    }

    /// How many things were how large. Each bucket has its upper bound and what is in it alone; the last bound is
    /// [`f64::INFINITY`].
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn histogram(&mut self, name: &str, help: &str, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram.encode_histogram::<NoLabels>(sum, count, buckets, None)
    }
}

/// The format adds the ending, which stands in the code too so that a search for the name finds it.
fn base(name: &str) -> &str {
    name.strip_suffix(TOTAL).unwrap_or(name)
}

/// What background tasks have done, under names that begin with the part's.
#[derive(Debug)]
pub struct TaskMetrics {
    part: &'static str,
    tasks: Tasks,
}

impl TaskMetrics {
    /// Of all tasks of this registry.
    #[must_use]
    pub fn new(part: &'static str, tasks: Tasks) -> Self {
        Self { part, tasks }
    }
}

impl Source for TaskMetrics {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.tasks.tasks().iter().map(|task| (task.definition().name, task.status())).collect();
        let name = |of: &str| format!("{}_task_{of}", self.part);
        let runs = tasks.iter().map(|(task, status)| (*task, status.runs));
        values.counters(&name("runs_total"), "Runs of background tasks.", "task", runs)?;
        let failures = tasks.iter().map(|(task, status)| (*task, status.failures));
        values.gauges(&name("failures_in_a_row"), "Failed runs since the last good one.", "task", failures)?;
        let last = tasks
            .iter()
            .map(|(task, status)| (*task, u64::try_from(status.last_duration.as_micros()).unwrap_or(u64::MAX)));
        values.gauges(&name("last_duration_microseconds"), "How long the last run took.", "task", last)
    }
}

struct Collected<S>(S);

impl<S> fmt::Debug for Collected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected(…)")
    }
}

impl<S: Source> Collector for Collected<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.read(&mut Values(encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;

    impl Source for Sample {
        fn read(&self, values: &mut Values<'_>) -> fmt::Result {
            values.counter("a_total", "Things.", 7)?;
            values.counters("b_total", "By kind.", "kind", [("x", 1), ("y\"", 2)])?;
            values.gauge("c", "Now.", 3)?;
            values.histogram("d", "Sizes.", 31.5, &[(0.5, 1), (30.0, 2), (f64::INFINITY, 4)])?;
            values.gauges("e", "By pool.", "pool", [("x", 5)])?;
            values.histograms("f", "By name.", "name", [("y", 2.5, vec![(1.0, 1), (f64::INFINITY, 1)])])
        }
    }

    struct Failing;

    impl Source for Failing {
        fn read(&self, _: &mut Values<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }

    const PAGE: &str = r#"# HELP a_total Things.
# TYPE a_total counter
a_total 7
# HELP b_total By kind.
# TYPE b_total counter
b_total{kind="x"} 1
b_total{kind="y\""} 2
# HELP c Now.
# TYPE c gauge
c 3
# HELP d Sizes.
# TYPE d histogram
d_bucket{le="0.5"} 1
d_bucket{le="30"} 3
d_bucket{le="+Inf"} 7
d_sum 31.5
d_count 7
# HELP e By pool.
# TYPE e gauge
e{pool="x"} 5
# HELP f By name.
# TYPE f histogram
f_bucket{name="y",le="1"} 1
f_bucket{name="y",le="+Inf"} 2
f_sum{name="y"} 2.5
f_count{name="y"} 2
"#;

    #[test]
    fn the_page_is_prometheus_text() {
        assert_eq!(Metrics::default().with(Sample).page(), PAGE);
        assert!(CONTENT_TYPE.starts_with("text/plain; version=0.0.4"));
    }

    #[test]
    fn a_source_that_fails_breaks_nothing() {
        assert!(!Metrics::default().with(Failing).page().contains('7'));
    }
}
