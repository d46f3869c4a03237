//! Processes of the benchmark: pinned, ended with their value, and what they use of the processor.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use nix::unistd::SysconfVar;

/// A program in the background; it ends, with what it started, when this is dropped.
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts it with its output in a file.
    pub(super) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in tree(self.pid()) {
            // One that has ended by itself is what is wanted.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Seconds that a process and its children have spent on a processor, in the kernel and outside.
pub(super) fn cpu_seconds(pid: i32) -> anyhow::Result<f64> {
    let ticks = nix::unistd::sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not tell its clock's ticks")?;
    let mut total = 0;
    for pid in tree(pid) {
        let fields = stat(pid).with_context(|| format!("process {pid} has ended"))?;
        total += fields.get(11..13).context("the kernel's line is short")?.iter().sum::<u64>();
    }
    Ok(total as f64 / ticks as f64)
}

/// A process, and its children.
fn tree(pid: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |other: &i32| stat(*other).is_some_and(|fields| fields.get(1) == Some(&u64::from(pid.cast_unsigned())));
    [pid].into_iter().chain(pids.filter(child)).collect()
}

/// The fields of `/proc/PID/stat` from the state on; what is no number counts as 0.
fn stat(pid: i32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}
