//! What all sandboxes of a cell together may take. Each has limits of its own, but nobody adds them up: thirty apps that may
//! have a thousand processes each are all the numbers that a small host has, and then its own programs cannot start any.

use std::path::{Path, PathBuf};

use slipway_helper::guards::{Guard, Guards};

use super::{Mode, set_if_present};

/// The usual weight is 100: under load, whatever else runs on the host comes first.
const IO_WEIGHT: u32 = 50;
/// Parts of the host's processes and memory that are left to the host: an eighth, but not less than this, and never more
/// than half of a small one.
const SHARE: u64 = 8;
const LEAST_PIDS: u64 = 2048;
const LEAST_MEMORY: u64 = 512 << 20;

/// Limits of the cell's own group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Whole {
    /// Processes and threads.
    pub(super) pids: u64,
    /// Bytes; 0 = the host's memory is not known, and not limited.
    pub(super) memory_bytes: u64,
    /// The disk that holds writable layers, by major and minor number.
    pub(super) disk: Option<(u64, u64)>,
    /// Bytes a second; 0 = not limited.
    pub(super) disk_bytes_per_s: u64,
}

impl Whole {
    /// All that this host has but a reserve. `disk` is a path on the disk that is to be shared.
    pub(in crate::sandbox) fn of_host(disk: &Path, disk_mib_per_s: u64) -> Self {
        let number = |path: &str| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
        let numbers = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
        let most = numbers.into_iter().flatten().min().unwrap_or(32_768);
        Self {
            pids: without_reserve(most, LEAST_PIDS),
            memory_bytes: without_reserve(crate::host::memory_bytes(), LEAST_MEMORY),
            disk: device(disk),
            disk_bytes_per_s: disk_mib_per_s.saturating_mul(1 << 20),
        }
    }

    /// Sets what one controller limits. A limit that cannot be set is told: each sandbox has its own all the same, and no app
    /// stands still for it.
    pub(super) fn limit(&self, controller: &str, mode: Mode, group: &Path, guards: &Guards) -> Vec<String> {
        // What an earlier agent has set is taken back where a guard is left out.
        let none = if mode == Mode::V2 { "max" } else { "-1" };
        let reserve = |amount: u64, none: &str| match guards.hold(Guard::Reserve) {
            true => amount.to_string(),
            false => none.to_owned(),
        };
        let (memory, pids) = (reserve(self.memory_bytes, none), reserve(self.pids, "max"));
        let mut wanted: Vec<(PathBuf, String)> = Vec::new();
        let mut want = |file: &str, value: &str| wanted.push((group.join(file), value.to_owned()));
        match (controller, mode) {
            ("pids", _) => want("pids.max", &pids),
            ("memory", _) if self.memory_bytes == 0 => {}
            ("memory", Mode::V2) => want("memory.max", &memory),
            ("memory", Mode::Hybrid) => {
                want("memory.limit_in_bytes", &memory);
                let sockets = group.join("memory.kmem.tcp.limit_in_bytes");
                if sockets.exists() {
                    wanted.push((sockets, reserve(self.memory_bytes / 4, none)));
                }
            }
            ("io" | "blkio", _) => {
                weigh(group, IO_WEIGHT);
                wanted.extend(self.throttle(controller, group));
            }
            // Nobody asks for them in an app; the host's operator has set them aside for something else.
            ("hugetlb", _) => {
                // The hierarchy may be version 2's also beside those of version 1.
                let most = |path: &Path| match path.extension().is_some_and(|kind| kind == "max") {
                    _ if guards.hold(Guard::NoHugePages) => "0".to_owned(),
                    true => "max".to_owned(),
                    false => "-1".to_owned(),
                };
                wanted.extend(huge_pages(group).into_iter().map(|path| (path.clone(), most(&path))));
            }
            _ => {}
        }
        let failed = |(path, value): (PathBuf, String)| {
            let error = std::fs::write(&path, &value).err()?;
            Some(format!(
                "all instances together are not limited: {} could not be set to {value} ({error})",
                path.display()
            ))
        };
        wanted.into_iter().filter_map(failed).collect()
    }

    fn throttle(&self, controller: &str, group: &Path) -> Vec<(PathBuf, String)> {
        let (Some((major, minor)), bytes @ 1..) = (self.disk, self.disk_bytes_per_s) else { return Vec::new() };
        if controller == "io" {
            return vec![(group.join("io.max"), format!("{major}:{minor} rbps={bytes} wbps={bytes}"))];
        }
        let files = ["read", "write"].map(|way| group.join(format!("blkio.throttle.{way}_bps_device")));
        files.into_iter().filter(|path| path.exists()).map(|path| (path, format!("{major}:{minor} {bytes}"))).collect()
    }
}

/// Gives a group its weight at the disks, where their scheduler knows weights; elsewhere there is nothing to be set.
pub(super) fn weigh(group: &Path, weight: u32) {
    for (file, most) in
        [("io.weight", 10_000), ("io.bfq.weight", 1000), ("blkio.bfq.weight", 1000), ("blkio.weight", 1000)]
    {
        // Refused where no disk has that scheduler.
        let _ = set_if_present(group, file, &weight.clamp(1, most).to_string());
    }
}

/// The files that limit huge pages, of each size; not the counters beside them.
fn huge_pages(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(group) else { return Vec::new() };
    let limit =
        |name: &str| name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with(".limit_in_bytes"));
    entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(limit)).map(|entry| entry.path()).collect()
}

fn without_reserve(all: u64, least: u64) -> u64 {
    all - (all / SHARE).max(least).min(all / 2)
}

/// The whole disk below a path: limits are for disks, not for their partitions. None for what lies on no disk.
fn device(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let existing = path.ancestors().find(|path| path.exists())?;
    let device = existing.metadata().ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let shown = PathBuf::from(format!("/sys/dev/block/{major}:{minor}")).canonicalize().ok()?;
    let disk = if shown.join("partition").exists() { shown.parent()?.to_owned() } else { shown };
    let text = std::fs::read_to_string(disk.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_a_reserve() {
        assert_eq!(without_reserve(4_194_304, LEAST_PIDS), 3_670_016);
        assert_eq!(without_reserve(8192, LEAST_PIDS), 6144);
        assert_eq!(without_reserve(1000, LEAST_PIDS), 500, "a host that is too small for both is shared");
        assert_eq!(without_reserve(16 << 30, LEAST_MEMORY), 14 << 30);
    }

    #[test]
    fn this_host_has_more_than_it_gives() {
        let whole = Whole::of_host(Path::new("/"), 7);
        let all: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
        assert!(whole.pids > 0 && whole.pids < all, "{whole:?}");
        assert!(whole.memory_bytes > 64 << 20 && whole.memory_bytes < crate::host::memory_bytes(), "{whole:?}");
        assert_eq!(whole.disk_bytes_per_s, 7 << 20);
    }

    #[test]
    fn a_refused_limit_is_reported_with_its_file() {
        let whole = Whole { pids: 1, memory_bytes: 2, disk: None, disk_bytes_per_s: 0 };
        let warnings = whole.limit("pids", Mode::V2, Path::new("/no/such/group"), &Guards::default());
        assert!(warnings.len() == 1 && warnings[0].contains("/no/such/group/pids.max"), "{warnings:?}");
    }
}
