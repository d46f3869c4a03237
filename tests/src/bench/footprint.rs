//! Resident memory of each process of the platform, idle and with 20 instances.
//!
//! RSS counts shared pages in every process that maps them; PSS shares them out, so only PSS may be added up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::Table;
use crate::script::WORKER;
use crate::{Platform, ScriptApp};

const INSTANCES: usize = 20;

/// KiB of one group of processes.
#[derive(Clone, Copy, Default, serde::Serialize)]
struct Memory {
    processes: usize,
    rss_kib: u64,
    pss_kib: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When the platform cannot be used.
pub fn run() -> anyhow::Result<()> {
    let platform = Platform::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(10)).await });
    let idle = measure(&platform)?;
    let pushed = ScriptApp { name: "sleeper", script: "exec sleep 1000000", manifest: WORKER }.push(&platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    platform.ok(&["scale", "sleeper", "-i", &INSTANCES.to_string()])?;
    runtime.block_on(Platform::eventually("all instances run", Duration::from_secs(120), || async {
        let count = measure(&platform)?.get("init").map_or(0, |memory| memory.processes);
        ensure!(count >= INSTANCES, "{count} of {INSTANCES} inits");
        Ok(())
    }))?;
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(10)).await });
    let busy = measure(&platform)?;
    let mut table =
        Table::new("footprint", &["process", "idle RSS", "idle PSS", "20 instances RSS", "20 instances PSS"]);
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let mut totals = [0_u64; 2];
    for (name, memory) in &busy {
        let before = idle.get(name).copied().unwrap_or_default();
        if name != "app" {
            totals[0] += before.pss_kib;
            totals[1] += memory.pss_kib;
        }
        let label = if memory.processes > 1 { format!("{name} ({})", memory.processes) } else { name.clone() };
        table.row(vec![label, mib(before.rss_kib), mib(before.pss_kib), mib(memory.rss_kib), mib(memory.pss_kib)]);
    }
    table.row(vec![
        "platform (PSS, without apps)".into(),
        String::new(),
        mib(totals[0]),
        String::new(),
        mib(totals[1]),
    ]);
    table.finish(&json!({"idle": idle, "with_20_instances": busy}))
}

/// Memory by part; `init` and `app` are the processes inside sandboxes.
fn measure(platform: &Platform) -> anyhow::Result<BTreeMap<String, Memory>> {
    let mut parts = BTreeMap::new();
    for part in ["supervisor", "controller", "cell", "router", "postgres"] {
        parts.insert(platform.part(part)?.pid, part);
    }
    let postgres = platform.part("postgres")?.pid;
    let marker = format!("slipway-{}", platform.short_name()?);
    let mut found: BTreeMap<String, Memory> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let name = if let Some(part) = parts.get(&pid) {
            (*part).to_owned()
        } else if parent(pid) == Some(postgres) {
            "postgres".to_owned()
        } else if cgroups.contains(&marker) {
            if cgroups.contains("/init") { "init".to_owned() } else { "app".to_owned() }
        } else {
            continue;
        };
        let memory = found.entry(name).or_default();
        memory.processes += 1;
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        memory.rss_kib += field(&rollup, "Rss:");
        memory.pss_kib += field(&rollup, "Pss:");
    }
    Ok(found)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}
