//! Cgroups: the limits of a sandbox. Version 2 first; the older layout, one hierarchy per controller, beside it.
//!
//! Below `slipway-<name>` each sandbox has a group with two children: `init`, without limits, so that the killer of memory
//! cannot take the supervisor and with it the reason, and `app`, with all of them. All sandboxes together have limits too
//! ([`Whole`]): what is left belongs to the host and to the parts of the platform, which are never below that group.

mod whole;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slipway_helper::guards::{Guard, Guards};

use super::{Limits, SandboxError, SandboxUsage, host};
pub(super) use whole::Whole;

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
    guards: Guards,
}

/// Without these there are no limits and so no sandboxes.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];
/// Used where the kernel and whoever mounted the hierarchies offer them: name with version 2, and before.
const OPTIONAL: [(&str, &str); 2] = [("io", "blkio"), ("hugetlb", "hugetlb")];

impl Cgroups {
    /// Finds out the layout below `root` (`/sys/fs/cgroup`).
    pub(super) fn detect(root: &Path, name: &str, guards: &Guards) -> Result<Self, SandboxError> {
        let group = format!("slipway-{name}");
        if root.join("cgroup.controllers").exists() {
            let offered = controllers(root);
            let optional = OPTIONAL.iter().map(|(name, _)| *name).filter(|name| offered.iter().any(|one| one == name));
            let controllers = CONTROLLERS.into_iter().chain(optional).collect();
            let hierarchies = vec![(root.join(group), controllers)];
            return Ok(Self { mode: Mode::V2, hierarchies, guards: guards.clone() });
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
        for (unified, name) in OPTIONAL {
            if let Ok(directory) = root.join(name).canonicalize() {
                hierarchies.push((directory.join(&group), vec![name]));
            } else if controllers(&root.join("unified")).iter().any(|offered| offered == unified) {
                // What has no hierarchy of its own is left to the one of version 2 beside them.
                hierarchies.push((root.join("unified").join(&group), vec![unified]));
            }
        }
        Ok(Self { mode: Mode::Hybrid, hierarchies, guards: guards.clone() })
    }

    /// Whether a controller is there under one of its names.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.hierarchies.iter().any(|(_, controllers)| controllers.iter().any(|one| names.contains(one)))
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes the cell's own groups, with the limits of all sandboxes together. Answers, in words, what could not be limited.
    pub(super) fn prepare(&self, whole: &Whole) -> Result<Vec<String>, SandboxError> {
        let mut warnings = Vec::new();
        for (directory, controllers) in &self.hierarchies {
            let above = directory.parent().unwrap_or(directory);
            if self.mode == Mode::V2 {
                enable_above(above, controllers)?;
            } else if above.join("cgroup.subtree_control").exists()
                && let Err(error) = enable(above, controllers)
            {
                warnings.push(format!("{} are not limited: {} ({error})", controllers.join(", "), above.display()));
            }
            make(directory)?;
            if self.mode == Mode::V2 {
                // Limits of huge pages hold for all below: a sandbox needs no group of that controller.
                let below: Vec<&str> = controllers.iter().copied().filter(|name| *name != "hugetlb").collect();
                enable(directory, &below).map_err(host(format!("enable controllers in {}", directory.display())))?;
            }
            for controller in controllers {
                warnings.extend(whole.limit(controller, self.mode, directory, &self.guards));
            }
        }
        Ok(warnings)
    }

    /// Makes the groups of a sandbox with its limits.
    pub(super) fn create(&self, id: &str, limits: &Limits) -> Result<(), SandboxError> {
        for (directory, controllers) in &self.hierarchies {
            let group = directory.join(id);
            make(&group)?;
            if self.mode == Mode::V2 {
                enable(&group, &CONTROLLERS).map_err(host(format!("enable controllers in {}", group.display())))?;
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
        let no_swap = self.guards.hold(Guard::NoSwap);
        match (controller, self.mode) {
            ("memory", Mode::V2) => {
                set(app, "memory.max", &memory)?;
                if no_swap {
                    // Absent where the kernel has no swap.
                    set_if_present(app, "memory.swap.max", "0")?;
                }
                set(app, "memory.oom.group", "1")
            }
            ("memory", Mode::Hybrid) => {
                set(app, "memory.limit_in_bytes", &memory)?;
                // Version 2 counts what lies in sockets as memory; here it has an account of its own, or none.
                set_if_present(app, "memory.kmem.tcp.limit_in_bytes", &socket_memory(limits.memory_bytes).to_string())?;
                if !no_swap {
                    return Ok(());
                }
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
            ("io" | "blkio", _) => {
                whole::weigh(group, limits.cpu_weight);
                Ok(())
            }
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

/// What may lie unread in the TCP sockets of one app: enough for a hundred fast connections of a small one.
fn socket_memory(memory_bytes: u64) -> u64 {
    (memory_bytes / 2).max(16 << 20)
}

/// What a group of version 2 offers; empty where it is none.
fn controllers(group: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    list.split_ascii_whitespace().map(str::to_owned).collect()
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
fn enable(group: &Path, controllers: &[&str]) -> io::Result<()> {
    // Version 2 counts processor time without being told.
    let wanted: Vec<String> =
        controllers.iter().filter(|name| **name != "cpuacct").map(|name| format!("+{name}")).collect();
    std::fs::write(group.join("cgroup.subtree_control"), wanted.join(" "))
}

/// As [`enable`], for the group above the cell's. Only the root of all groups may hold processes beside children: where
/// the host is itself a container, its processes move into a group of their own first.
fn enable_above(group: &Path, controllers: &[&str]) -> Result<(), SandboxError> {
    let file = group.join("cgroup.subtree_control");
    let failed = || host(format!("enable {} in {}", controllers.join(", "), file.display()));
    match enable(group, controllers) {
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
                match enable(group, controllers) {
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
mod tests;
