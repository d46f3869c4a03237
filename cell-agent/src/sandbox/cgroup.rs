//! Cgroups: the limits of a sandbox. Version 2 first; the older layout, one hierarchy per controller, beside it.
//!
//! Below `slipway-<name>` each sandbox has a group with two children: `init`, without limits, so that the killer of memory
//! cannot take the supervisor and with it the reason, and `app`, with all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Limits, SandboxError, SandboxUsage, host};

/// How this kernel's cgroups are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One hierarchy.
    V2,
    /// One per controller.
    Hybrid,
}

/// The cgroups of one cell.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    mode: Mode,
    /// Directory of the cell's group in each hierarchy, with the controllers found there.
    hierarchies: Vec<(PathBuf, Vec<&'static str>)>,
}

const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

impl Cgroups {
    /// Finds out the layout below `root` (`/sys/fs/cgroup`).
    pub(super) fn detect(root: &Path, name: &str) -> Result<Self, SandboxError> {
        let group = format!("slipway-{name}");
        if root.join("cgroup.controllers").exists() {
            let hierarchies = vec![(root.join(group), CONTROLLERS.to_vec())];
            return Ok(Self { mode: Mode::V2, hierarchies });
        }
        let mut hierarchies: Vec<(PathBuf, Vec<&'static str>)> = Vec::new();
        for controller in CONTROLLERS {
            // `cpu` and `cpuacct` are often one hierarchy under two names.
            let path = root.join(controller);
            let directory = path.canonicalize().map_err(host(format!("find cgroup controller {}", path.display())))?;
            let directory = directory.join(&group);
            match hierarchies.iter_mut().find(|(known, _)| *known == directory) {
                Some((_, controllers)) => controllers.push(controller),
                None => hierarchies.push((directory, vec![controller])),
            }
        }
        Ok(Self { mode: Mode::Hybrid, hierarchies })
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes the cell's own groups.
    pub(super) fn prepare(&self) -> Result<(), SandboxError> {
        for (directory, _) in &self.hierarchies {
            make(directory)?;
            if self.mode == Mode::V2 {
                enable_above(directory.parent().unwrap_or(directory))?;
                enable(directory).map_err(host(format!("enable controllers in {}", directory.display())))?;
            }
        }
        Ok(())
    }

    /// Makes the groups of a sandbox with its limits.
    pub(super) fn create(&self, id: &str, limits: &Limits) -> Result<(), SandboxError> {
        for (directory, controllers) in &self.hierarchies {
            let group = directory.join(id);
            make(&group)?;
            if self.mode == Mode::V2 {
                enable(&group).map_err(host(format!("enable controllers in {}", group.display())))?;
            }
            make(&group.join("init"))?;
            let app = group.join("app");
            make(&app)?;
            for controller in controllers {
                self.limit(controller, &group, &app, limits)?;
            }
        }
        Ok(())
    }

    fn limit(&self, controller: &str, group: &Path, app: &Path, limits: &Limits) -> Result<(), SandboxError> {
        let memory = limits.memory_bytes.to_string();
        match (controller, self.mode) {
            ("memory", Mode::V2) => {
                set(app, "memory.max", &memory)?;
                // Absent where the kernel has no swap.
                set_if_present(app, "memory.swap.max", "0")?;
                set(app, "memory.oom.group", "1")
            }
            ("memory", Mode::Hybrid) => {
                set(app, "memory.limit_in_bytes", &memory)?;
                if app.join("memory.memsw.limit_in_bytes").exists() {
                    return set(app, "memory.memsw.limit_in_bytes", &memory);
                }
                // Without accounting of swap the limit would only move the excess to the disk.
                set_if_present(app, "memory.swappiness", "0")
            }
            ("pids", _) => set(app, "pids.max", &limits.pids.to_string()),
            // Weights count among siblings, and the siblings are the sandboxes.
            ("cpu", Mode::V2) => set(group, "cpu.weight", &limits.cpu_weight.clamp(1, 10_000).to_string()),
            ("cpu", Mode::Hybrid) => set(group, "cpu.shares", &shares(limits.cpu_weight).to_string()),
            _ => Ok(()),
        }
    }

    /// Directories which the supervisor joins.
    pub(super) fn init_groups(&self, id: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|(directory, _)| directory.join(id).join("init")).collect()
    }

    /// Directories which the app joins.
    pub(super) fn app_groups(&self, id: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|(directory, _)| directory.join(id).join("app")).collect()
    }

    /// The file with a line `oom_kill N`.
    pub(super) fn oom_counter(&self, id: &str) -> PathBuf {
        let file = match self.mode {
            Mode::V2 => "memory.events",
            Mode::Hybrid => "memory.oom_control",
        };
        self.app(id, "memory").join(file)
    }

    fn app(&self, id: &str, controller: &str) -> PathBuf {
        let found = self.hierarchies.iter().find(|(_, controllers)| controllers.contains(&controller));
        found.map(|(directory, _)| directory.join(id).join("app")).unwrap_or_default()
    }

    /// What the app uses.
    pub(super) fn usage(&self, id: &str) -> Result<SandboxUsage, SandboxError> {
        let memory = self.app(id, "memory");
        let (file, inactive) = match self.mode {
            Mode::V2 => ("memory.current", "inactive_file"),
            Mode::Hybrid => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let used = number(&memory.join(file))?;
        // Pages of files that were not used lately go as soon as anybody needs room.
        let reclaimable = field(&read(&memory.join("memory.stat"))?, inactive);
        let cpu_nanos = match self.mode {
            Mode::V2 => field(&read(&self.app(id, "cpu").join("cpu.stat"))?, "usage_usec") * 1000,
            Mode::Hybrid => number(&self.app(id, "cpuacct").join("cpuacct.usage"))?,
        };
        let pids = number(&self.app(id, "pids").join("pids.current"))?;
        Ok(SandboxUsage {
            cpu_nanos,
            memory_bytes: used.saturating_sub(reclaimable),
            disk_bytes: 0,
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
            oom_kills: field(&read(&self.oom_counter(id))?, "oom_kill"),
        })
    }

    /// Kills whatever is in the sandbox's groups.
    pub(super) fn kill(&self, id: &str) {
        if self.mode == Mode::V2 {
            for (directory, _) in &self.hierarchies {
                // Absent before 5.14, and then the list below does it.
                let _ = std::fs::write(directory.join(id).join("cgroup.kill"), "1");
            }
        }
        for group in self.app_groups(id).into_iter().chain(self.init_groups(id)) {
            let list = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in list.lines().filter_map(|line| line.parse().ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Removes the groups of a sandbox, killing what is left in them. Groups that are not there are no error.
    pub(super) fn remove(&self, id: &str) -> Result<(), SandboxError> {
        let mut result = Ok(());
        for (directory, _) in &self.hierarchies {
            let group = directory.join(id);
            for path in [group.join("app"), group.join("init"), group] {
                if let Err(error) = self.remove_directory(id, &path) {
                    result = Err(host(format!("remove cgroup {}", path.display()))(error));
                }
            }
        }
        result
    }

    /// A group is busy until the last process has been collected, shortly after its death.
    #[allow(
        clippy::disallowed_methods,
        reason = "called where blocking is allowed; the kernel tells nobody of the moment"
    )]
    fn remove_directory(&self, id: &str, path: &Path) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                    self.kill(id);
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
    }

    /// Names of all sandboxes that have a group in any hierarchy.
    pub(super) fn list(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (directory, _) in &self.hierarchies {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            names.extend(
                entries
                    .filter_map(Result::ok)
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .filter_map(|entry| entry.file_name().into_string().ok()),
            );
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Removes the cell's own groups, which must be empty.
    pub(super) fn dismantle(&self) {
        for (directory, _) in &self.hierarchies {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// 1..10000 with 100 as the usual, to 2..262144 with 1024 as the usual.
fn shares(weight: u32) -> u64 {
    (u64::from(weight.clamp(1, 10_000)) * 1024 / 100).max(2)
}

fn make(directory: &Path) -> Result<(), SandboxError> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(host(format!("make cgroup {}", directory.display()))),
    }
}

/// Gives the children of a group the controllers, all in one write: each costs the kernel a walk through the group.
fn enable(group: &Path) -> io::Result<()> {
    std::fs::write(group.join("cgroup.subtree_control"), "+memory +pids +cpu")
}

/// As [`enable`], for the group above the cell's. Only the root of all groups may hold processes beside children: where
/// the host is itself a container, its processes move into a group of their own first.
fn enable_above(group: &Path) -> Result<(), SandboxError> {
    let failed = || host(format!("enable memory, pids and cpu in {}", group.join("cgroup.subtree_control").display()));
    match enable(group) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let aside = group.join("host-processes");
            make(&aside)?;
            let mut passes = 10;
            loop {
                for pid in std::fs::read_to_string(group.join("cgroup.procs")).map_err(failed())?.lines() {
                    // One that has ended meanwhile needs no place.
                    let _ = std::fs::write(aside.join("cgroup.procs"), pid);
                }
                passes -= 1;
                match enable(group) {
                    // Somebody who was not moved yet has started another process since the list was read.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && passes > 0 => {}
                    other => return other.map_err(failed()),
                }
            }
        }
        other => other.map_err(failed()),
    }
}

fn set(group: &Path, file: &str, value: &str) -> Result<(), SandboxError> {
    let path = group.join(file);
    std::fs::write(&path, value).map_err(host(format!("write {value} to {}", path.display())))
}

fn set_if_present(group: &Path, file: &str, value: &str) -> Result<(), SandboxError> {
    if group.join(file).exists() { set(group, file, value) } else { Ok(()) }
}

fn read(path: &Path) -> Result<String, SandboxError> {
    std::fs::read_to_string(path).map_err(host(format!("read {}", path.display())))
}

fn number(path: &Path) -> Result<u64, SandboxError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no number"));
        host(format!("read {}", path.display()))(error)
    })
}

fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { memory_bytes: 64 << 20, disk_bytes: 0, pids: 50, cpu_weight: 100, nofile: 1024 }
    }

    #[test]
    fn version_2_is_found_and_limited() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let cgroups = Cgroups::detect(root.path(), "t").unwrap();
        cgroups.prepare().unwrap();
        cgroups.create("one", &limits()).unwrap();
        let app = root.path().join("slipway-t/one/app");
        assert_eq!(cgroups.mode(), Mode::V2);
        assert_eq!(std::fs::read_to_string(app.join("memory.max")).unwrap(), "67108864");
        assert_eq!(std::fs::read_to_string(app.join("memory.oom.group")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(app.join("pids.max")).unwrap(), "50");
        assert_eq!(std::fs::read_to_string(root.path().join("slipway-t/one/cpu.weight")).unwrap(), "100");
        assert_eq!(cgroups.oom_counter("one"), app.join("memory.events"));
        std::fs::write(app.join("memory.current"), "1000\n").unwrap();
        std::fs::write(app.join("memory.stat"), "anon 1\ninactive_file 400\n").unwrap();
        std::fs::write(app.join("cpu.stat"), "usage_usec 7\n").unwrap();
        std::fs::write(app.join("pids.current"), "3\n").unwrap();
        std::fs::write(app.join("memory.events"), "oom 3\noom_kill 2\n").unwrap();
        let usage = cgroups.usage("one").unwrap();
        assert_eq!((usage.memory_bytes, usage.cpu_nanos, usage.pids, usage.oom_kills), (600, 7000, 3, 2));
        assert_eq!(cgroups.list(), ["one"]);
    }

    #[test]
    fn the_older_layout_is_found_and_shared_hierarchies_are_joined_once() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["memory", "pids", "cpu,cpuacct"] {
            std::fs::create_dir(root.path().join(directory)).unwrap();
        }
        for name in ["cpu", "cpuacct"] {
            std::os::unix::fs::symlink("cpu,cpuacct", root.path().join(name)).unwrap();
        }
        let cgroups = Cgroups::detect(root.path(), "t").unwrap();
        cgroups.prepare().unwrap();
        cgroups.create("one", &limits()).unwrap();
        assert_eq!(cgroups.mode(), Mode::Hybrid);
        assert_eq!(cgroups.app_groups("one").len(), 3);
        let app = root.path().join("memory/slipway-t/one/app");
        assert_eq!(std::fs::read_to_string(app.join("memory.limit_in_bytes")).unwrap(), "67108864");
        // The kernel has no swap accounting here, and that is no error.
        assert!(!app.join("memory.memsw.limit_in_bytes").exists());
        let shares = root.path().join("cpu,cpuacct/slipway-t/one/cpu.shares");
        assert_eq!(std::fs::read_to_string(shares).unwrap(), "1024");
    }

    #[test]
    fn a_missing_controller_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = Cgroups::detect(root.path(), "t").unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn weights_become_shares() {
        assert_eq!((shares(1), shares(100), shares(10_000)), (10, 1024, 102_400));
    }
}
