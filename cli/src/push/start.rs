//! Waits until an app runs. The platform says RUNNING only after its routers have acknowledged the instance, so that is
//! also when the app answers.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::last_lines::show_last_lines;
use super::{PushError, elapsed, limit};
use crate::client::Client;
use crate::client::views::{App, Process, Stats, StatsList};
use crate::commands::Session;
use crate::error::{CliError, printable};

/// Between two looks in the first [`EAGER`]: a warm start takes a fraction of a second, and the phases of a start are
/// told as finely as this.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks after that.
const PAUSE: Duration = Duration::from_millis(100);
/// For how long to look often.
const EAGER: Duration = Duration::from_secs(3);
/// How long an app may be nowhere before that counts as having no room: cells come back, other apps go.
pub(super) const NO_ROOM: Duration = Duration::from_secs(30);
/// After so long without a word the start is said to go on.
pub(super) const SILENCE: Duration = Duration::from_secs(15);
/// Seconds for which an instance must have run whose check only asks whether its program runs. Longer makes starts of workers
/// slower; shorter takes a program that fails at its start for a good one.
const STEADY_S: f64 = 5.0;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// Every instance of every process.
    All,
    /// One instance of the web process.
    FirstOfWeb,
}

/// The instances of a run before this one, which say nothing about the new one.
#[derive(Debug, Default)]
pub(crate) struct Before {
    guids: HashSet<String>,
    /// Web instances that ran.
    running: usize,
    /// Web instances that were wanted.
    wanted: u32,
}

impl Before {
    /// The instances there are now.
    pub(crate) async fn of(client: &Client, app: &App) -> Result<Self, CliError> {
        if !app.is_started() {
            return Ok(Self::default());
        }
        let mut before = Self::default();
        for process in processes(client, app).await? {
            let rows = stats(client, &process).await?;
            if process.kind == "web" {
                before.running += rows.iter().filter(|row| row.state == "RUNNING").count();
                before.wanted = before.wanted.max(process.instances);
            }
            before.guids.extend(rows.into_iter().filter_map(|row| row.instance_guid));
        }
        Ok(before)
    }

    /// Whether anything of it serves.
    pub(crate) fn web_runs(&self) -> bool {
        self.running > 0
    }

    /// Web instances that were wanted.
    pub(crate) fn web_wanted(&self) -> u32 {
        self.wanted
    }

    fn is_new(&self, row: &Stats) -> bool {
        row.instance_guid.as_ref().is_none_or(|guid| !self.guids.contains(guid))
    }
}

pub(crate) async fn processes(client: &Client, app: &App) -> Result<Vec<Process>, CliError> {
    Ok(client.list_as(&format!("/v3/apps/{}/processes", app.guid)).await?)
}

pub(crate) async fn stats(client: &Client, process: &Process) -> Result<Vec<Stats>, CliError> {
    stats_of(client, &process.guid).await
}

/// The instances of a process.
pub(super) async fn stats_of(client: &Client, process: &str) -> Result<Vec<Stats>, CliError> {
    let list: StatsList = client.get(&format!("/v3/processes/{process}/stats")).await?;
    Ok(list.resources)
}

/// When each phase of a start was first seen to be over, in milliseconds since the wait began; of the process that
/// took longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartTimings {
    /// Every instance has a cell.
    pub(crate) placed_ms: u64,
    /// Every instance is healthy and ready.
    pub(crate) ready_ms: u64,
    /// Every live router has acknowledged every instance.
    pub(crate) routed_ms: u64,
}

impl StartTimings {
    /// Notes what `rows` show at `now` milliseconds. A phase that is over stays over, also when an instance crashes.
    pub(super) fn note(&mut self, rows: &[Stats], wanted: u32, before: &Before, now: u64) {
        let rows: Vec<&Stats> = rows.iter().filter(|row| before.is_new(row)).collect();
        let all = |holds: fn(&Stats) -> bool| rows.len() >= wanted as usize && rows.iter().all(|row| holds(row));
        let placed = all(|row| row.instance_guid.is_some());
        let ready = placed && all(|row| row.routable == Some(true));
        let routed = ready && all(|row| row.state == "RUNNING");
        for (phase, over) in [(&mut self.placed_ms, placed), (&mut self.ready_ms, ready), (&mut self.routed_ms, routed)]
        {
            if *phase == 0 && over {
                *phase = now.max(1);
            }
        }
    }

    /// Everything is over at `now` milliseconds, whether each phase was seen or not.
    pub(super) fn ends(&mut self, now: u64) {
        self.routed_ms = now.max(1);
        self.ready_ms = if self.ready_ms == 0 { self.routed_ms } else { self.ready_ms };
        self.placed_ms = if self.placed_ms == 0 { self.ready_ms } else { self.placed_ms };
    }

    fn later(self, other: Self) -> Self {
        Self {
            placed_ms: self.placed_ms.max(other.placed_ms),
            ready_ms: self.ready_ms.max(other.ready_ms),
            routed_ms: self.routed_ms.max(other.routed_ms),
        }
    }
}

/// What the rows of one process say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All that is waited for runs; some others do not, for these reasons.
    Runs(Vec<String>),
    /// Every instance crashed.
    Crashed(String),
    /// No instance is anywhere.
    Nowhere(String),
    /// Not yet.
    Waits,
}

/// Whether an instance runs, but not yet for as long as its check `process` takes to mean anything.
fn is_unsteady(process: &Process, row: &Stats) -> bool {
    let by_program = process.health_check.kind == "process";
    by_program && row.state == "RUNNING" && row.uptime.is_none_or(|uptime| uptime < STEADY_S)
}

/// Judges the rows of one process.
fn verdict_of(process: &Process, rows: &[Stats], before: &Before, wait_for: WaitFor) -> Verdict {
    let rows: Vec<&Stats> = rows.iter().filter(|row| before.is_new(row)).collect();
    let wanted = process.instances as usize;
    if wanted == 0 {
        return Verdict::Runs(Vec::new());
    }
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let (running, down) = (count("RUNNING"), count("DOWN"));
    let steady = rows.iter().filter(|row| row.state == "RUNNING" && !is_unsteady(process, row)).count();
    let crashed = rows.iter().filter(|row| row.has_crashed()).count();
    let reason = |is: fn(&Stats) -> bool| {
        let details = rows.iter().filter(|row| is(row)).find_map(|row| row.details.clone());
        printable(&details.unwrap_or_else(|| "the platform gave no reason".to_owned()))
    };
    if steady >= wanted || (wait_for == WaitFor::FirstOfWeb && running > 0) {
        Verdict::Runs(Vec::new())
    } else if rows.len() >= wanted && crashed == rows.len() {
        Verdict::Crashed(reason(Stats::has_crashed))
    } else if rows.len() >= wanted && steady > 0 && steady + crashed == rows.len() {
        // Some run and the others will not without a change: worth a warning, not a failure.
        let broken = rows.iter().filter(|row| row.has_crashed());
        let reason = reason(Stats::has_crashed);
        Verdict::Runs(broken.map(|row| format!("instance {} crashed: {reason}", row.index)).collect())
    } else if rows.len() >= wanted && down == rows.len() && rows.iter().any(|row| row.details.is_some()) {
        Verdict::Nowhere(reason(|row| row.state == "DOWN"))
    } else {
        Verdict::Waits
    }
}

/// Waits until the app runs; shows its last lines when it crashes instead.
pub(crate) async fn wait_until_running(
    session: &Session,
    app: &App,
    before: &Before,
    wait_for: WaitFor,
) -> Result<StartTimings, CliError> {
    let client = session.client()?;
    let begun = Instant::now();
    let mut waiting = processes(client, app).await?;
    waiting.retain(|process| process.instances > 0 && (wait_for == WaitFor::All || process.kind == "web"));
    let mut waiting: Vec<(Process, StartTimings)> =
        waiting.into_iter().map(|process| (process, StartTimings::default())).collect();
    let limit = limit(session, "CF_STARTUP_TIMEOUT", 5);
    let mut slowest = StartTimings::default();
    let mut nowhere_since: Option<Instant> = None;
    let (mut shown_state, mut spoke) = (String::new(), Instant::now());
    while !waiting.is_empty() {
        let mut nowhere = None;
        let mut states = Vec::new();
        let mut still = Vec::new();
        for (process, mut timings) in waiting {
            let rows = stats(client, &process).await?;
            timings.note(&rows, process.instances, before, elapsed(begun));
            match verdict_of(&process, &rows, before, wait_for) {
                Verdict::Runs(problems) => {
                    for problem in problems {
                        session.printer.warn(&format!("{} {problem}", process.kind));
                    }
                    slowest = slowest.later(timings);
                    continue;
                }
                Verdict::Crashed(reason) => {
                    show_last_lines(session, app).await;
                    return Err(PushError::Crashed { app: app.name.clone(), reason }.into());
                }
                Verdict::Nowhere(reason) => nowhere = Some(reason),
                Verdict::Waits => {}
            }
            let unsteady = rows.iter().any(|row| before.is_new(row) && is_unsteady(&process, row));
            let steady =
                if unsteady { format!(", the check `process` counts after {STEADY_S} s") } else { String::new() };
            states.push(format!("{}: {}{steady}", process.kind, summary(&rows)));
            still.push((process, timings));
        }
        waiting = still;
        match nowhere {
            None => nowhere_since = None,
            Some(reason) => {
                let since = *nowhere_since.get_or_insert_with(Instant::now);
                if since.elapsed() > NO_ROOM {
                    return Err(PushError::NotPlaced { app: app.name.clone(), reason }.into());
                }
            }
        }
        let state = states.join("; ");
        // Waiting for room is told at once: it may take long, and somebody can do something about it.
        let waits = states.iter().any(|state| state.contains(WAITS));
        if !state.is_empty() && state != shown_state && (waits || begun.elapsed() > Duration::from_secs(1)) {
            session.printer.say(&format!("   {state}"));
            shown_state.clone_from(&state);
            spoke = Instant::now();
        }
        if spoke.elapsed() > SILENCE {
            session.printer.say(&still_waiting(app, begun));
            spoke = Instant::now();
        }
        if !waiting.is_empty() && begun.elapsed() > limit {
            show_last_lines(session, app).await;
            let minutes = limit.as_secs().div_ceil(60);
            return Err(PushError::StartTimeout { app: app.name.clone(), minutes, state: format!(": {state}") }.into());
        }
        if !waiting.is_empty() {
            tokio::time::sleep(if begun.elapsed() < EAGER { SHORT_PAUSE } else { PAUSE }).await;
        }
    }
    Ok(slowest)
}

/// Said after a while in which nothing changed.
pub(super) fn still_waiting(app: &App, begun: Instant) -> String {
    format!(
        "   still waiting after {} s; an instance has 60 s to start, or its `timeout` (-t). `slipway logs {} -n 20` shows \
         what it says",
        begun.elapsed().as_secs(),
        app.name
    )
}

/// Of an instance that no cell has.
const WAITS: &str = "waiting for room";

/// `2 running, 1 starting (pulling layers)`.
pub(crate) fn summary(rows: &[Stats]) -> String {
    let mut parts = Vec::new();
    for state in ["RUNNING", "STARTING", "CRASHED", "DOWN"] {
        let of_state: Vec<&Stats> = rows.iter().filter(|row| row.state == state).collect();
        if !of_state.is_empty() {
            let details = of_state.iter().find_map(|row| row.details.as_deref());
            let details = details.map(|text| format!(" ({})", printable(text))).unwrap_or_default();
            let word = match (state, details.is_empty()) {
                ("DOWN", false) => WAITS.to_owned(),
                // Without a reason it has none: it is a moment old.
                ("DOWN", true) => "waiting to start".to_owned(),
                _ => state.to_lowercase(),
            };
            parts.push(format!("{} {word}{details}", of_state.len()));
        }
    }
    if parts.is_empty() { "no instance yet".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, guid: &str, details: Option<&str>) -> Stats {
        serde_json::from_value(serde_json::json!({
            "type": "web", "index": 0, "state": state, "instance_guid": guid, "details": details
        }))
        .expect("a row")
    }

    fn process(check: &str, instances: u32) -> Process {
        serde_json::from_value(serde_json::json!({
            "guid": "p", "type": "web", "instances": instances, "health_check": { "type": check }
        }))
        .expect("a process")
    }

    #[test]
    fn rows_are_judged() {
        use WaitFor::{All, FirstOfWeb};
        // It starts again so soon that nobody sees it crashed.
        let again = Stats { crashes: 1, ..row("STARTING", "a", Some("exit 3")) };
        let runs = |text: &[&str]| Verdict::Runs(text.iter().map(|&t| t.to_owned()).collect());
        for (rows, wanted, wait_for, verdict) in [
            (vec![], 1, All, Verdict::Waits),
            (vec![], 0, All, runs(&[])),
            (vec![row("RUNNING", "a", None)], 1, All, runs(&[])),
            (vec![row("RUNNING", "old", None)], 1, All, Verdict::Waits),
            (vec![row("RUNNING", "a", None), row("STARTING", "b", None)], 2, All, Verdict::Waits),
            (vec![row("RUNNING", "a", None), row("STARTING", "b", None)], 2, FirstOfWeb, runs(&[])),
            (vec![row("CRASHED", "a", Some("exit 3"))], 1, All, Verdict::Crashed("exit 3".into())),
            (vec![row("CRASHED", "a", Some("exit 3"))], 2, All, Verdict::Waits),
            (vec![again], 1, All, Verdict::Crashed("exit 3".into())),
            (
                vec![row("RUNNING", "a", None), row("CRASHED", "b", Some("exit 3"))],
                2,
                All,
                runs(&["instance 0 crashed: exit 3"]),
            ),
            (vec![row("DOWN", "a", None)], 1, All, Verdict::Waits),
            (vec![row("DOWN", "a", Some("no room"))], 1, All, Verdict::Nowhere("no room".into())),
        ] {
            let before = Before { guids: HashSet::from(["old".to_owned()]), ..Before::default() };
            assert_eq!(verdict_of(&process("port", wanted), &rows, &before, wait_for), verdict, "{rows:?}");
        }
    }

    #[test]
    fn a_program_that_only_just_runs_is_not_trusted_when_nothing_else_is_checked() {
        let runs = |uptime: f64| Stats { uptime: Some(uptime), ..row("RUNNING", "a", None) };
        let verdict = |kind: &str, rows: &[Stats], wait_for| {
            verdict_of(&process(kind, rows.len() as u32), rows, &Before::default(), wait_for)
        };
        let good = Verdict::Runs(Vec::new());
        assert_eq!(verdict("process", &[runs(4.0)], WaitFor::All), Verdict::Waits);
        assert_eq!(verdict("process", &[runs(5.0)], WaitFor::All), good);
        assert_eq!(verdict("process", &[runs(5.0), runs(1.0)], WaitFor::All), Verdict::Waits);
        assert_eq!(verdict("process", &[row("CRASHED", "b", None), runs(1.0)], WaitFor::All), Verdict::Waits);
        assert_eq!(verdict("port", &[runs(0.0)], WaitFor::All), good);
        assert_eq!(verdict("process", &[runs(0.0)], WaitFor::FirstOfWeb), good, "nothing is waited for");
    }

    #[test]
    fn each_phase_of_a_start_is_noted_once() {
        let before = Before { guids: HashSet::from(["old".to_owned()]), ..Before::default() };
        let mut timings = StartTimings::default();
        timings.note(&[row("RUNNING", "old", None)], 1, &before, 5);
        assert_eq!(timings, StartTimings::default());
        let mut new = row("STARTING", "new", None);
        timings.note(std::slice::from_ref(&new), 1, &before, 10);
        new.routable = Some(true);
        timings.note(std::slice::from_ref(&new), 1, &before, 20);
        timings.note(std::slice::from_ref(&new), 1, &before, 25);
        new.state = "RUNNING".to_owned();
        timings.note(&[new], 1, &before, 30);
        assert_eq!(timings, StartTimings { placed_ms: 10, ready_ms: 20, routed_ms: 30 });
    }

    #[test]
    fn a_summary_counts_states() {
        let rows = [row("RUNNING", "a", None), row("STARTING", "b", Some("fetching")), row("RUNNING", "c", None)];
        assert_eq!(summary(&rows), "2 running, 1 starting (fetching)");
        assert_eq!(summary(&[]), "no instance yet");
        assert_eq!(summary(&[row("DOWN", "d", None)]), "1 waiting to start");
        assert_eq!(summary(&[row("DOWN", "d", Some("needs 64 MiB"))]), "1 waiting for room (needs 64 MiB)");
    }
}
