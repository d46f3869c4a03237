//! How long queries take, by name, for the metrics. sqlx gives an event for each query, which the log leaves out; a layer
//! of tracing takes its time. A query's name is what it does with the first table that it mentions: `select process`.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use slipway_chassis::metrics::{Source, Values};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What sqlx calls its events.
const TARGET: &str = "sqlx::query";
/// Upper bounds, seconds.
const BOUNDS: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];
/// More names than there are in the code: a mistake must not fill the memory.
const MAX_NAMES: usize = 1_000;
/// What is beyond [`MAX_NAMES`].
const REST: &str = "other";

#[derive(Debug, Default)]
struct Times {
    /// Queries per bucket, the last one above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Times {
    fn note(&self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

/// The times of a process, which has one tracing subscriber.
static ALL: QueryTimes = QueryTimes(RwLock::new(BTreeMap::new()));

/// Times by name.
#[derive(Debug)]
struct QueryTimes(RwLock<BTreeMap<String, Arc<Times>>>);

impl QueryTimes {
    fn of(&self, name: &str) -> Arc<Times> {
        if let Some(times) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(times);
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < MAX_NAMES { name } else { REST };
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

/// The layer that takes the times; see [`slipway_chassis::telemetry::init_with`].
#[must_use]
pub fn layer<S: Subscriber + for<'s> LookupSpan<'s>>() -> Box<dyn Layer<S> + Send + Sync> {
    Taking(&ALL).with_filter(Targets::new().with_target(TARGET, Level::DEBUG)).boxed()
}

/// The times for the page of metrics.
#[derive(Debug)]
pub struct QueryMetrics;

impl Source for QueryMetrics {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        ALL.read(values)
    }
}

impl QueryTimes {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = all.iter().map(|(name, times)| {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]).zip(&times.buckets);
            let buckets = bounds.map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
            (name.as_str(), times.micros.load(Ordering::Relaxed) as f64 / 1e6, buckets)
        });
        let help = "Queries to Postgres, without the wait for a connection.";
        values.histograms("controller_query_duration_seconds", help, "query", rows)
    }
}

struct Taking(&'static QueryTimes);

impl<S: Subscriber> Layer<S> for Taking {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut query = Query::default();
        event.record(&mut query);
        if let Some(seconds) = query.seconds {
            // A short statement stands in the summary alone.
            let statement = if query.statement.is_empty() { &query.summary } else { &query.statement };
            self.0.of(&name_of(statement)).note(seconds);
        }
    }
}

/// The fields of sqlx's event.
#[derive(Default)]
struct Query {
    summary: String,
    statement: String,
    seconds: Option<f64>,
}

impl Visit for Query {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.seconds = Some(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// What a statement does, and with which table first.
fn name_of(statement: &str) -> String {
    let mut words = statement.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';'));
    let mut words = words.by_ref().filter(|word| !word.is_empty());
    let Some(verb) = words.next().map(str::to_ascii_lowercase) else { return REST.to_owned() };
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '"'));
    if verb == "update" {
        return words.next().filter(is_name).map_or_else(|| verb.clone(), |table| format!("{verb} {table}"));
    }
    while let Some(word) = words.next() {
        if ["from", "into", "update"].iter().any(|lead| word.eq_ignore_ascii_case(lead)) {
            return words.next().filter(is_name).map_or_else(|| verb.clone(), |table| format!("{verb} {table}"));
        }
    }
    verb
}

#[cfg(test)]
mod tests {
    use slipway_chassis::metrics::Metrics;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_query_is_named_by_what_it_does_with_its_first_table() {
        for (statement, name) in [
            ("select guid, name from app where guid = $1", "select app"),
            ("\n\nSELECT 1\n", "select"),
            ("insert into change_log(seq) values ($1)", "insert change_log"),
            ("update process p set instances = $1 from app", "update process"),
            ("delete from route where guid = any($1)", "delete route"),
            ("with due as (select id from job for update) update job set state = $1", "with job"),
            ("select pg_advisory_xact_lock($1)", "select"),
            ("select * from (select 1 from app) x", "select select"),
            ("BEGIN", "begin"),
            ("", REST),
        ] {
            assert_eq!(name_of(statement), name, "{statement}");
        }
    }

    #[test]
    fn the_times_of_sqlx_events_are_on_the_page() {
        static TIMES: QueryTimes = QueryTimes(RwLock::new(BTreeMap::new()));
        struct Page;
        impl Source for Page {
            fn read(&self, values: &mut Values<'_>) -> fmt::Result {
                TIMES.read(values)
            }
        }
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Taking(&TIMES)), || {
            let long = "\n\nselect a, b, c from app\n".to_owned();
            let debug = |summary: String, statement: String, seconds: f64| {
                tracing::debug!(target: TARGET, summary, db.statement = statement, rows_returned = 1_u64, elapsed_secs = seconds);
            };
            debug("select a, b, c …".to_owned(), long, 0.002);
            debug("commit".to_owned(), String::new(), 20.0);
            tracing::debug!(target: TARGET, "something else");
        });
        let page = Metrics::default().with(Page).page();
        for line in [
            "controller_query_duration_seconds_bucket{query=\"select app\",le=\"0.001\"} 0",
            "controller_query_duration_seconds_bucket{query=\"select app\",le=\"0.0025\"} 1",
            "controller_query_duration_seconds_bucket{query=\"commit\",le=\"10\"} 0",
            "controller_query_duration_seconds_count{query=\"commit\"} 1",
            "controller_query_duration_seconds_sum{query=\"commit\"} 20",
        ] {
            assert!(page.lines().any(|one| one.starts_with(line)), "{line} is not in\n{page}");
        }
    }
}
