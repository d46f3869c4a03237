//! `slipway status`: what runs, and why anything does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_cell_agent::usage::{self, CellUsage};
use slipway_chassis::clock;

use crate::UpError;
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::parts;
use crate::process::ChildRecord;
use crate::settings::Settings;

/// Written by the supervisor whenever something changes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// By name.
    pub parts: BTreeMap<String, PartStatus>,
}

/// One supervised process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PartStatus {
    /// Its process, while it runs.
    pub pid: Option<i32>,
    /// When it was started last, seconds since the epoch.
    pub since: u64,
    /// How often it ended without being asked to.
    pub restarts: u32,
    /// How it ended last time, e.g. `exit status: 1`.
    pub last_end: Option<String>,
}

impl SupervisorStatus {
    /// Saves it where `slipway status` looks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<(), UpError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| UpError::File { path: layout.run("status.json"), source: std::io::Error::other(error) })?;
        write_atomically(&layout.run("status.json"), &text, 0o644)
    }

    /// What the supervisor saved last; empty without one.
    #[must_use]
    pub fn load(layout: &Layout) -> Self {
        std::fs::read(layout.run("status.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// `supervisor`, `postgres`, `controller`, `cell`, `router`.
    pub part: String,
    /// `ready`, `starting`, `not running`.
    pub state: &'static str,
    /// Its process.
    pub pid: Option<i32>,
    /// Resident bytes.
    pub resident_bytes: Option<u64>,
    /// Seconds since its start.
    pub up_seconds: Option<u64>,
    /// Ends without being asked.
    pub restarts: u32,
    /// Why it is not ready, or what is wrong beside it.
    pub notes: Vec<String>,
}

/// Looks at the platform of this state directory.
#[must_use]
pub fn report(layout: &Layout) -> Vec<Line> {
    let status = SupervisorStatus::load(layout);
    let now = clock::since_1970().as_secs();
    let supervisor = ChildRecord::load(&layout.pid("supervisor"));
    let mut lines = vec![Line {
        part: "supervisor".to_owned(),
        state: if supervisor.is_some() { "ready" } else { "not running" },
        pid: supervisor.map(|known| known.pid),
        resident_bytes: supervisor.and_then(ChildRecord::resident),
        up_seconds: None,
        restarts: 0,
        notes: if supervisor.is_some() { Vec::new() } else { vec!["start it with `slipway up`".to_owned()] },
    }];
    for part in ["postgres"].into_iter().chain(parts::parts(layout)) {
        let known = ChildRecord::load(&layout.pid(part));
        let entry = status.parts.get(part).cloned().unwrap_or_default();
        let ready = known.is_some() && (part == "postgres" || layout.ready(part).exists());
        let mut notes = Vec::new();
        // Of a platform that is down the logs are of another day.
        if !ready && supervisor.is_some() {
            let log = layout.log(part);
            notes.extend(entry.last_end.as_ref().map(|end| format!("ended with {end}; its log: {}", log.display())));
            notes.extend(last_problem(layout, part));
        }
        if part == "cell" {
            notes.extend(cell_room(layout));
            notes.extend(cell_warnings(layout));
        }
        lines.push(Line {
            part: part.to_owned(),
            state: match (known.is_some(), ready) {
                (_, true) => "ready",
                (true, false) => "starting",
                (false, false) => "not running",
            },
            pid: known.map(|known| known.pid),
            resident_bytes: known.and_then(ChildRecord::resident),
            up_seconds: known.map(|_| now.saturating_sub(entry.since)),
            restarts: entry.restarts,
            notes,
        });
    }
    lines
}

/// A length of time for people: `2 h 5 min`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (whole, unit, rest, part) = match seconds {
        0..60 => (seconds, "s", 0, ""),
        60..3_600 => (seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => (seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => (seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    };
    if rest == 0 { format!("{whole} {unit}") } else { format!("{whole} {unit} {rest} {part}") }
}

/// The newest line of a part's log that speaks of trouble.
fn last_problem(layout: &Layout, part: &str) -> Option<String> {
    let text = std::fs::read(layout.log(part)).ok()?;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(16 * 1024)..]).into_owned();
    tail.lines()
        .rev()
        .find(|line| ["ERROR", "WARN", "FATAL", "error:", "panicked"].iter().any(|word| line.contains(word)))
        .map(|line| line.trim().to_owned())
}

/// How much of this machine is reserved for apps, and how much they use.
fn cell_room(layout: &Layout) -> Vec<String> {
    let read = |path| std::fs::read(path).ok();
    let usage = read(layout.run("cell").join(usage::FILE)).and_then(|text| serde_json::from_slice(&text).ok());
    let settings = read(layout.state("settings.json")).and_then(|text| serde_json::from_slice::<Settings>(&text).ok());
    match (usage, settings) {
        (Some(usage), Some(settings)) => room(&usage, &settings),
        _ => Vec::new(),
    }
}

fn room(usage: &CellUsage, settings: &Settings) -> Vec<String> {
    let line = |what: &str, [reserved, used, has]: [u64; 3], percent: u64| {
        let [most, reserved, used, has] = [has.saturating_mul(percent) / 100, reserved, used, has].map(gib);
        format!(
            "{what}: {reserved} of {most} GiB reserved for {}, {used} of {has} GiB used",
            what_runs(usage.workloads)
        )
    };
    vec![
        line("memory", [usage.memory_reserved_mb, usage.memory_used_mb, usage.memory_mb], settings.memory_overcommit),
        line("disk", [usage.disk_reserved_mb, usage.disk_used_mb, usage.disk_mb], settings.disk_overcommit),
    ]
}

fn what_runs(workloads: u64) -> String {
    match workloads {
        1 => "1 instance or build".to_owned(),
        many => format!("{many} instances and builds"),
    }
}

/// With one digit behind the point.
fn gib(mib: u64) -> String {
    let tenths = mib.saturating_mul(10) / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What the cell found wrong with its host, from its ready file.
fn cell_warnings(layout: &Layout) -> Vec<String> {
    #[derive(Deserialize)]
    struct Ready {
        #[serde(default)]
        warnings: Vec<String>,
    }
    std::fs::read(layout.ready("cell"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Ready>(&bytes).ok())
        .map(|ready| ready.warnings)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_used_memory_is_shown() {
        let usage = CellUsage {
            workloads: 12,
            memory_mb: 18 * 1024,
            memory_reserved_mb: 22_426,
            memory_used_mb: 1_741,
            disk_mb: 40 * 1024,
            disk_reserved_mb: 1024,
            disk_used_mb: 51,
        };
        let settings = crate::settings::tests::example();
        assert_eq!(
            room(&usage, &settings),
            [
                "memory: 21.9 of 54.0 GiB reserved for 12 instances and builds, 1.7 of 18.0 GiB used",
                "disk: 1.0 of 160.0 GiB reserved for 12 instances and builds, 0.0 of 40.0 GiB used",
            ]
        );
    }

    #[test]
    fn old_lines_of_a_platform_that_is_down_are_no_problem() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout { state: directory.path().into(), run: directory.path().into() };
        let log = layout.log("controller");
        std::fs::create_dir_all(log.parent().expect("a directory")).expect("directory");
        std::fs::write(&log, "2026-01-01T00:00:00Z ERROR the database is away\n").expect("log");
        assert!(last_problem(&layout, "controller").is_some());
        let controller = report(&layout).into_iter().find(|line| line.part == "controller").expect("a line");
        assert_eq!((controller.state, controller.notes), ("not running", Vec::new()));
    }

    #[test]
    fn a_length_of_time_has_two_units_at_most() {
        for (seconds, text) in
            [(5, "5 s"), (65, "1 min 5 s"), (7_500, "2 h 5 min"), (3_600, "1 h"), (200_000, "2 d 7 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn without_a_cell_no_usage_is_shown() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(cell_room(&Layout { state: directory.path().into(), run: directory.path().into() }).is_empty());
    }
}
