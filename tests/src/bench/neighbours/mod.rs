//! What a tenant notices of another one who takes all of one thing that can be had.
//!
//! A platform with two tenants. The neighbour's app is asked at a steady rate, each time on a new connection; its user asks the
//! API and logs in. Meanwhile the other tenant floods one thing. Floods that come from outside are made by this process, on the
//! processors that the platform has too: what they cost stands in every figure. Their threads give way to all others (nice
//! 10), as clients on machines of their own would, and the thread that asks gives way to none.

mod clients;
mod flood;
mod http;
mod steady;
mod tenants;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::flood::Flood;
use self::steady::RequestOutcomes;
use self::tenants::Ground;
use super::Table;
use crate::Platform;

/// How long each flood lasts.
const SPAN: Duration = Duration::from_secs(30);
/// Between two, for what the one before has left.
const REST: Duration = Duration::from_secs(5);

/// What was done, with numbers.
type Counts = BTreeMap<String, u64>;

/// Runs the benchmark; with names, these floods alone.
///
/// # Errors
/// When the platform cannot be used, or a flood did not happen.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    let wanted = Flood::named(names)?;
    let platform = Platform::start()?;
    clients::raise_descriptors()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(|| clients::set_priority(10))
        .enable_all()
        .build()?;
    let ground = runtime.block_on(Ground::prepare(&platform))?;
    let mut table = Table::new(
        "neighbours",
        &[
            "flood",
            "what was done",
            "app p50 ms",
            "p99",
            "failed of",
            "API p50 ms",
            "p99",
            "failed of",
            "login p50 ms",
            "slowest",
            "failed of",
        ],
    );
    let mut raw = Vec::new();
    for flood in wanted {
        eprintln!("{}", flood.name());
        let askers = steady::start(&ground, SPAN)?;
        let counts = runtime.block_on(runtime.spawn(flood.run(ground.clone(), SPAN)))??;
        let seen = askers.join().ok().context("the thread that asks panicked")??;
        for what in flood.must_have_done() {
            ensure!(counts.get(*what).is_some_and(|count| *count > 0), "{}: no {what}: {counts:?}", flood.name());
        }
        let [app, api, login] = &seen;
        let mut row = vec![flood.name().to_owned(), rendered(&counts)];
        row.extend(app.cells(app.p99_ms));
        row.extend(api.cells(api.p99_ms));
        row.extend(login.cells(login.slowest_ms));
        table.row(row);
        raw.push(json!({ "flood": flood.name(), "counts": counts, "app": app, "api": api, "login": login }));
        for (whose, seen) in [("app", app), ("API", api), ("login", login)] {
            for (failure, count) in &seen.failures {
                eprintln!("  {whose}: {count} x {failure}");
            }
        }
        runtime.block_on(async { tokio::time::sleep(REST).await });
    }
    println!("{} s each", SPAN.as_secs());
    table.finish(&json!({ "seconds": SPAN.as_secs(), "floods": Value::Array(raw) }))
}

/// The counts as text, the largest first.
fn rendered(counts: &Counts) -> String {
    if counts.is_empty() {
        return "nothing".to_owned();
    }
    let mut sorted: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    sorted.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

impl RequestOutcomes {
    fn cells(&self, worst: f64) -> [String; 3] {
        [format!("{:.1}", self.p50_ms), format!("{worst:.1}"), format!("{} of {}", self.failed, self.asked)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rendered_largest_first() {
        let counts = [("answered 429", 3), ("answered 401", 20), ("lost", 0)];
        let counts: Counts = counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
        assert_eq!(rendered(&counts), "20 answered 401, 3 answered 429");
        assert_eq!(rendered(&Counts::new()), "nothing");
    }
}
