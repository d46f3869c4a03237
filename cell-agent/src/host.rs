//! Facts about this host, and how the cell introduces itself.

use std::net::SocketAddr;
use std::path::Path;

use slipway_chassis::files::{self, Durability};
use slipway_protocol::v1::CellInfo;

use crate::config::{Advertise, CellConfig};
use crate::sandbox::HostFacts;

/// MiB for instances: as configured, or three quarters of the host's.
#[must_use]
pub(crate) fn memory_mb(config: &CellConfig) -> u64 {
    if config.memory_mb > 0 {
        return config.memory_mb;
    }
    (memory_bytes() >> 20) * 3 / 4
}

/// All the memory of this host; 0 when it cannot be read.
#[must_use]
pub(crate) fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kb: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0);
    total_kb << 10
}

/// MiB for instances and caches: as configured, or half of what is free.
#[must_use]
pub(crate) fn disk_mb(config: &CellConfig) -> u64 {
    if config.disk_mb > 0 {
        return config.disk_mb;
    }
    let Ok(stat) = nix::sys::statvfs::statvfs(&config.state_directory) else { return 0 };
    #[allow(clippy::useless_conversion, reason = "the width of these fields differs between targets")]
    let free = u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
    (free >> 20) / 2
}

/// The kernel's boot id; empty when it cannot be read.
#[must_use]
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// How the cell introduces itself.
#[must_use]
pub(crate) fn info(
    config: &CellConfig,
    facts: &HostFacts,
    query: SocketAddr,
    memory_mb: u64,
    disk_mb: u64,
) -> CellInfo {
    // Bound to every address: controllers dial the one that routers use as well.
    let host = if query.ip().is_unspecified() { config.advertise_host } else { query.ip() };
    CellInfo {
        zone: config.zone.clone(),
        tags: config.tags.clone(),
        isolation_segment: config.isolation_segment.clone(),
        memory_mb,
        disk_mb,
        slots: config.slots,
        stacks: Vec::new(),
        query_address: SocketAddr::new(host, query.port()).to_string(),
        architecture: std::env::consts::ARCH.to_owned(),
        cgroup_mode: facts.cgroup_mode.to_owned(),
        disk_quota_mode: facts.disk_quota_mode.to_owned(),
        advertise_mode: match config.advertise {
            Advertise::HostPort => "host-port",
            Advertise::Direct => "direct",
        }
        .to_owned(),
        advertise_host: config.advertise_host.to_string(),
        instance_network: config.network.clone(),
    }
}

/// Writes the ready file, or another that says how this run goes: a reader never sees half of it, and the next run
/// writes it anew.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write_ready(path: &Path, text: &str) -> std::io::Result<()> {
    files::write(path, text, 0o600, Durability::None)
}
