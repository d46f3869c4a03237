//! Cold and warm push of each example, split by phase, beside the bare package manager's own time for the same install.
//!
//! *Cold* is the first push of an app on a platform that has unpacked its layers but has never seen the app: no build
//! cache, no known files. *Warm* pushes the same source again. The package manager runs on this host in a fresh copy of
//! the example, with its own cache empty (cold) or filled (warm).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Table, median_and_spread};
use crate::Platform;

const ROUNDS: usize = 3;

const PHASES: [&str; 6] = ["prepare_ms", "upload_ms", "stage_ms", "place_ms", "start_ms", "route_ms"];

struct Example {
    name: &'static str,
    app: &'static str,
    bare: Option<(&'static str, &'static [&'static str])>,
}

const EXAMPLES: [Example; 4] = [
    Example { name: "node", app: "node", bare: Some(("npm", &["ci", "--omit=dev", "--no-audit", "--no-fund"])) },
    Example {
        name: "python",
        app: "python",
        bare: Some(("python3", &["-m", "pip", "install", "-q", "--target", "deps", "-r", "requirements.txt"])),
    },
    Example { name: "static", app: "static", bare: None },
    Example { name: "binary", app: "binary", bare: None },
];

/// Runs the benchmark.
///
/// # Errors
/// When a push fails.
pub fn run() -> anyhow::Result<()> {
    let platform = Platform::start()?;
    let mut table = Table::new(
        "push",
        &["example", "push", "upload", "stage", "place", "start", "route", "total", "package manager alone"],
    );
    let mut raw = Vec::new();
    for example in &EXAMPLES {
        let directory = Platform::repository().join("examples").join(example.name);
        if directory.join("build.sh").exists() {
            let built = Command::new("bash").arg("build.sh").current_dir(&directory).status()?;
            ensure!(built.success(), "build.sh of {} failed", example.name);
        }
        // The first push of a platform also unpacks layers; that belongs to no app.
        push(&platform, &directory)?;
        for warm in [false, true] {
            let mut runs = Vec::new();
            let mut alone = Vec::new();
            for round in 0..ROUNDS {
                if !warm {
                    platform.ok(&["delete", example.app, "-f", "-r"])?;
                }
                runs.push(push(&platform, &directory)?);
                alone.extend(bare(&platform, example, &directory, warm, round)?);
                eprintln!("{} {} {}/{ROUNDS}", example.name, if warm { "warm" } else { "cold" }, round + 1);
            }
            let column = |phase: &str| {
                let figures: Vec<u64> = runs.iter().filter_map(|run| run[phase].as_u64()).collect();
                median_and_spread(&figures)
            };
            let kind = if warm { "warm" } else { "cold" };
            let mut row = vec![example.name.to_owned(), kind.to_owned()];
            row.extend(["upload_ms", "stage_ms", "place_ms", "start_ms", "route_ms", "total_ms"].map(column));
            row.push(median_and_spread(&alone));
            table.row(row);
            raw.push(json!({"example": example.name, "push": kind, "runs": runs, "package_manager_ms": alone}));
        }
    }
    println!("milliseconds, median of {ROUNDS} (least..most)");
    table.finish(&Value::Array(raw))
}

/// One push; the phases as the client measured them.
fn push(platform: &Platform, directory: &Path) -> anyhow::Result<Value> {
    let manifest = directory.join("manifest.yml");
    let outcome =
        platform.ok(&["--json", "push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()])?;
    let answer = outcome.json()?;
    let timings = answer.get("timings").or_else(|| answer.get(0).and_then(|app| app.get("timings")));
    let timings = timings.cloned().context("the push did not tell its timings")?;
    ensure!(PHASES.iter().any(|phase| timings.get(phase).is_some()), "no known phase in {timings}");
    Ok(timings)
}

/// The package manager alone, in a fresh copy; `None` where the example has no dependencies or the host no such program.
fn bare(
    platform: &Platform,
    example: &Example,
    directory: &Path,
    warm: bool,
    round: usize,
) -> anyhow::Result<Option<u64>> {
    let Some((program, arguments)) = example.bare else { return Ok(None) };
    let copy: PathBuf = platform.path("bare").join(format!("{}-{warm}-{round}", example.name));
    std::fs::create_dir_all(&copy)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    let cache = if warm { platform.path("bare-cache") } else { copy.join("cache") };
    let run = || {
        Command::new(program)
            .args(arguments)
            .current_dir(&copy)
            .env("npm_config_cache", &cache)
            .env("PIP_CACHE_DIR", &cache)
            .output()
    };
    if warm && round == 0 {
        // Fills the cache; a program that is missing shows itself here or below.
        if run().is_err() {
            return Ok(None);
        }
        for made in ["node_modules", "deps"] {
            let path = copy.join(made);
            if path.exists() {
                std::fs::remove_dir_all(path)?;
            }
        }
    }
    let start = Instant::now();
    match run() {
        Ok(output) if output.status.success() => Ok(Some(u64::try_from(start.elapsed().as_millis())?)),
        _ => Ok(None),
    }
}
