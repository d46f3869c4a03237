//! What a request costs in the router, beside nginx and HAProxy.
//!
//! All have one worker, pinned to the first core, an access log, and connections to the same backend that are kept; backend
//! and load generator (wrk) share the second core. They take turns within each round, so that what else the machine does
//! meets all of them. Slipway's router is the program itself; a controller within the benchmark gives it its table by the
//! cluster's protocol, as a real one does.

mod contestants;
mod controller;
mod processes;

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::contestants::{Contestant, Ground};
use self::processes::cpu_seconds;
use super::Table;
use crate::Platform;

const ROUNDS: usize = 7;
const SECONDS: &str = "4s";
const WARM_UP: &str = "1s";
/// Connections of the load generator, each with one request at a time.
const CONNECTIONS: &str = "32";

/// What one contestant did in one round.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Run {
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    requests: u64,
    failed: u64,
}

/// Runs the benchmark. `others` are further programs to compare, `NAME=PATH` each: an earlier build of this one, say.
///
/// # Errors
/// When a program is missing or does not serve.
pub fn run(others: &[String]) -> anyhow::Result<()> {
    // Another part of this process may have been first; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = Platform::program()?;
    let mut programs = vec![("Slipway".to_owned(), own)];
    for other in others {
        let (name, path) = other.split_once('=').with_context(|| format!("{other:?} is not NAME=PATH"))?;
        programs.push((name.to_owned(), path.into()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ground = Ground::prepare()?;
    let mut contestants =
        vec![ground.nginx("nginx", "")?, ground.nginx("nginx, log buffered", " buffer=64k flush=1s")?];
    contestants.push(ground.haproxy()?);
    for (name, program) in &programs {
        contestants.push(runtime.block_on(ground.slipway(name, program))?);
    }
    let mut runs: Vec<Vec<Run>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for place in 0..contestants.len() {
            // Who comes first in a round is another one each time.
            let place = (place + round) % contestants.len();
            let contestant = &contestants[place];
            load(&ground, contestant, WARM_UP)?;
            let run = load(&ground, contestant, SECONDS)?;
            eprintln!("round {}/{ROUNDS}: {:<20} {:.1} µs a request", round + 1, contestant.name, run.cpu_us);
            runs[place].push(run);
        }
    }
    let columns = ["proxy", "CPU µs a request", "p50 ms", "p99 ms", "requests a second", "failed", "lines dropped"];
    let mut table = Table::new("router", &columns);
    let mut raw = Vec::new();
    for (contestant, runs) in contestants.iter().zip(&runs) {
        let dropped = contestant.lines_dropped()?;
        let failed: u64 = runs.iter().map(|run| run.failed).sum();
        let column = |of: fn(&Run) -> f64, digits| spread(runs.iter().map(of), digits);
        table.row(vec![
            contestant.name.clone(),
            column(|run| run.cpu_us, 1),
            column(|run| run.p50_us / 1000.0, 2),
            column(|run| run.p99_us / 1000.0, 2),
            column(|run| run.per_second, 0),
            failed.to_string(),
            dropped.map_or_else(|| "-".to_owned(), |lines| lines.to_string()),
        ]);
        raw.push(json!({ "proxy": contestant.name, "runs": runs, "lines_dropped": dropped }));
    }
    println!("medians of {ROUNDS} rounds (least..most)");
    table.finish(&json!({ "connections": CONNECTIONS, "seconds": SECONDS, "proxies": raw }))
}

/// Lets wrk ask one contestant for a while.
fn load(ground: &Ground, contestant: &Contestant, duration: &str) -> anyhow::Result<Run> {
    let before = cpu_seconds(contestant.pid())?;
    let output = ground
        .on_second_core("wrk")
        .args(["-t1", "-c", CONNECTIONS, "-d", duration, "-s"])
        .arg(&ground.report)
        .args(["-H", &format!("Host: {}", contestants::HOST), "-H", "User-Agent: wrk (Slipway's benchmark)"])
        .arg(format!("http://127.0.0.1:{}/a/path?with=a-query", contestant.port))
        .output()
        .context("cannot start wrk")?;
    let cpu = cpu_seconds(contestant.pid())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().rev().find(|line| line.starts_with('{'));
    let report: Value = serde_json::from_str(report.with_context(|| format!("wrk gave no figures: {text}"))?)?;
    let number = |name: &str| report[name].as_f64().with_context(|| format!("no {name} in {report}"));
    let (requests, failed) = (number("requests")?, number("failed")?);
    ensure!(requests > 0.0, "{} answered no request: {}", contestant.name, contestant.last_output());
    Ok(Run {
        cpu_us: cpu * 1e6 / requests,
        p50_us: number("p50_us")?,
        p99_us: number("p99_us")?,
        per_second: requests * 1e6 / number("duration_us")?,
        requests: requests as u64,
        failed: failed as u64,
    })
}

/// What wrk prints at the end, for [`load`].
const REPORT: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"duration_us":%d,"failed":%d,"p50_us":%.1f,"p99_us":%.1f}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// `median (least..most)`.
fn spread(figures: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.first(), sorted.last()) {
        (Some(median), Some(least), Some(most)) => format!("{median:.digits$} ({least:.digits$}..{most:.digits$})"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_given_with_their_spread() {
        assert_eq!(spread([3.26, 1.0, 2.04].into_iter(), 1), "2.0 (1.0..3.3)");
        assert_eq!(spread([7.0].into_iter(), 0), "7 (7..7)");
        assert_eq!(spread(std::iter::empty(), 1), "-");
    }
}
