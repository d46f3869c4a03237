//! What instances use, sampled every five seconds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use slipway_protocol::v1::{Usage, UsageReport};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::sandbox::SandboxId;
use crate::services::{Live, Services};

const PERIOD: Duration = Duration::from_secs(5);

struct Sample {
    id: SandboxId,
    at: Instant,
    cpu_nanos: u64,
    ring: BTreeMap<PathBuf, u64>,
    oom_kills: u64,
    /// Those of which the instance was told.
    oom_kills_reported: u64,
}

/// File in the run directory that says how much of the cell is reserved and used, for whoever looks at this host.
pub const FILE: &str = "usage.json";

/// Content of [`FILE`]. All in MiB but the number of workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellUsage {
    /// Instances, tasks and builds that run.
    pub workloads: u64,
    /// What the cell has for them.
    pub memory_mb: u64,
    /// What they may take together.
    #[serde(alias = "memory_promised_mb")]
    pub memory_reserved_mb: u64,
    /// What they take.
    pub memory_used_mb: u64,
    /// What the cell has for them.
    pub disk_mb: u64,
    /// What they may take together.
    #[serde(alias = "disk_promised_mb")]
    pub disk_reserved_mb: u64,
    /// What they take.
    pub disk_used_mb: u64,
}

/// The sampling, as a task.
pub(crate) const USAGE: Definition = Definition {
    name: "usage",
    description: "Samples what instances use, for controllers, metrics and the host",
    period: PERIOD,
    woken_by: "",
};

/// The last sample.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Of each instance, as controllers get it.
    pub report: UsageReport,
    /// Of the whole cell.
    pub cell: CellUsage,
}

/// Samples what instances use.
pub(crate) struct Sampler {
    services: Arc<Services>,
    memory_mb: u64,
    disk_mb: u64,
    before: BTreeMap<Uuid, Sample>,
    cores: usize,
    send: watch::Sender<Sampled>,
}

impl Sampler {
    /// For a cell that has so much for instances.
    pub(crate) fn new(services: Arc<Services>, memory_mb: u64, disk_mb: u64, send: watch::Sender<Sampled>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { services, memory_mb, disk_mb, before: BTreeMap::new(), cores, send }
    }
}

impl BackgroundTask for Sampler {
    type Error = Infallible;

    async fn run(&mut self) -> Result<Next, Infallible> {
        let live = self.services.live.all();
        self.before.retain(|id, sample| live.iter().any(|live| live.id.assignment == *id && live.id == sample.id));
        let mut report = UsageReport::default();
        let mut disk = 0;
        let taken: u64 = live.iter().map(|live| live.memory_mb).sum();
        let mut cell = CellUsage {
            memory_mb: self.memory_mb,
            memory_reserved_mb: taken,
            disk_mb: self.disk_mb,
            disk_reserved_mb: live.iter().map(|live| live.disk_mb).sum(),
            workloads: live.len() as u64,
            ..CellUsage::default()
        };
        for live in live {
            let memory = live.memory_mb;
            let Some(mut usage) = one(&self.services, live, &mut self.before).await else { continue };
            usage.cpu_entitlement = of_entitlement(usage.cpu_percent, memory, self.memory_mb, self.cores);
            disk += usage.disk_bytes;
            cell.memory_used_mb += usage.memory_bytes >> 20;
            report.usages.push(usage);
        }
        cell.disk_used_mb = disk >> 20;
        write(&self.services.config.run_directory, &cell).await;
        report.memory_free_mb = self.memory_mb.saturating_sub(taken);
        report.disk_free_mb = self.disk_mb.saturating_sub(disk >> 20).min(self.services.cache.free_bytes() >> 20);
        self.send.send_replace(Sampled { report, cell });
        // Rates are figured between two samples, so the pause has no jitter.
        Ok(Next::After(PERIOD))
    }
}

/// Nothing depends on the file, so a disk that refuses it is no reason to stop.
async fn write(directory: &std::path::Path, whole: &CellUsage) {
    let (path, text) = (directory.join(FILE), serde_json::to_string(whole).unwrap_or_default());
    let written = tokio::task::spawn_blocking(move || crate::host::write_ready(&path, &text)).await;
    if let Ok(Err(error)) = written {
        tracing::debug!(error = %slipway_chassis::chain(&error), "how much of the cell is used cannot be written");
    }
}

async fn one(services: &Services, live: Live, before: &mut BTreeMap<Uuid, Sample>) -> Option<Usage> {
    // It may have ended a moment ago.
    let used = services.runtime.usage(live.id).await.ok()?;
    if let Some(text) = services.live.report_full_disk(live.id, used.disk_bytes) {
        let (logs, id) = (Arc::clone(&services.logs), live.id.assignment);
        tokio::task::spawn_blocking(move || logs.say(id, &text)).await.ok();
    }
    let at = Instant::now();
    let ring = services.logs.segments(live.id.assignment);
    let (mut cpu_percent, mut log_rate) = (0.0, 0);
    let mut oom_kills_reported = used.oom_kills;
    if let Some(last) = before.get(&live.id.assignment) {
        let elapsed = at.duration_since(last.at);
        #[allow(clippy::cast_precision_loss, reason = "a percentage, and a rate, need no exactness")]
        let (spent, nanos) = (used.cpu_nanos.saturating_sub(last.cpu_nanos) as f64, elapsed.as_nanos() as f64);
        cpu_percent = if nanos > 0.0 { spent / nanos * 100.0 } else { 0.0 };
        let grown: u64 =
            ring.iter().map(|(path, size)| size.saturating_sub(last.ring.get(path).copied().unwrap_or(0))).sum();
        oom_kills_reported = last.oom_kills;
        if let Some(text) = survived(last.oom_kills.saturating_sub(last.oom_kills_reported), live.memory_mb) {
            let (logs, id) = (Arc::clone(&services.logs), live.id.assignment);
            tokio::task::spawn_blocking(move || logs.say(id, &text)).await.ok();
        }
        log_rate = u64::try_from(u128::from(grown) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
    }
    let (cpu_nanos, oom_kills) = (used.cpu_nanos, used.oom_kills);
    before.insert(live.id.assignment, Sample { id: live.id, at, cpu_nanos, ring, oom_kills, oom_kills_reported });
    Some(Usage {
        assignment_id: live.id.assignment.to_string(),
        cpu_nanos: used.cpu_nanos,
        cpu_percent,
        memory_bytes: used.memory_bytes,
        disk_bytes: used.disk_bytes.saturating_add(live.droplet_bytes),
        log_rate,
        pids: used.pids,
        cpu_entitlement: None,
    })
}

/// How much of its share of the cell's cores an instance uses; CPU weights follow memory, and so does the share.
#[allow(clippy::cast_precision_loss, reason = "a ratio needs no exactness")]
fn of_entitlement(cpu_percent: f64, memory_mb: u64, cell_memory_mb: u64, cores: usize) -> Option<f64> {
    let share = cores as f64 * memory_mb as f64 / cell_memory_mb.max(1) as f64;
    (share > 0.0).then(|| cpu_percent / 100.0 / share)
}

/// What an instance is told that still runs a sample after the kernel killed some of its processes: where a group cannot be
/// killed as a whole, a child of the program dies alone, and nothing else would say why.
fn survived(kills: u64, memory_mb: u64) -> Option<String> {
    let limit = if memory_mb == 0 { String::new() } else { format!(" of {memory_mb} MiB") };
    let processes = match kills {
        0 => return None,
        1 => "a process".to_owned(),
        kills => format!("{kills} processes"),
    };
    Some(format!("out of memory: the kernel killed {processes} of this instance at its limit{limit}; the rest goes on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_cores_follows_memory() {
        assert_eq!(of_entitlement(25.0, 512, 1024, 2), Some(0.25));
        assert_eq!(of_entitlement(200.0, 256, 1024, 2), Some(4.0), "more than its share while others are idle");
        assert_eq!(of_entitlement(10.0, 0, 1024, 2), None, "its memory is not known yet");
    }

    #[test]
    fn out_of_memory_kills_that_an_instance_survives_are_reported() {
        assert_eq!(survived(0, 64), None);
        assert!(survived(1, 64).is_some_and(|text| text.contains("killed a process") && text.contains("of 64 MiB")));
        assert!(survived(3, 0).is_some_and(|text| text.contains("3 processes") && text.contains("at its limit;")));
    }
}
