//! Processes by pid file. A pid alone may have been given to somebody else since; pid and start time may not.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::UpError;
use crate::files::write_atomically;

/// A process that was started by this platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildRecord {
    /// Its id.
    pub pid: i32,
    start: u64,
}

impl ChildRecord {
    /// Recognises a running process; `None` when there is none with this id.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?;
        (stat.state != 'Z').then_some(Self { pid, start: stat.starttime })
    }

    /// Writes the pid file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(self, path: &Path) -> Result<(), UpError> {
        write_atomically(path, format!("{} {}\n", self.pid, self.start).as_bytes(), 0o644)
    }

    /// Reads a pid file; `None` when the process is gone.
    #[must_use]
    pub fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let saved = Self { pid: pid.parse().ok()?, start: start.parse().ok()? };
        saved.is_running().then_some(saved)
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it still runs.
    pub fn signal(self, signal: Signal) {
        if self.is_running() {
            // Gone between the check and here is as good.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Signals, waits, and kills after `grace`. Returns whether it went by itself.
    pub async fn end(self, signal: Signal, grace: Duration) -> bool {
        self.signal(signal);
        if self.gone_within(grace).await {
            return true;
        }
        self.signal(Signal::SIGKILL);
        self.gone_within(Duration::from_secs(10)).await;
        false
    }

    async fn gone_within(self, limit: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            if !self.is_running() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        !self.is_running()
    }

    /// Resident memory in bytes: (all, private and anonymous).
    #[must_use]
    pub fn resident(self) -> Option<u64> {
        let status = procfs::process::Process::new(self.pid).and_then(|process| process.status()).ok()?;
        Some(status.vmrss? * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_by_pid_and_start() {
        let mut child = tokio::process::Command::new("sleep").arg("1000").spawn().expect("spawn");
        let pid = i32::try_from(child.id().expect("pid")).expect("fits");
        let known = ChildRecord::of(pid).expect("runs");
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("pid");
        known.save(&path).expect("save");
        assert_eq!(ChildRecord::load(&path), Some(known));
        std::fs::write(&path, format!("{pid} 1\n")).expect("write");
        assert_eq!(ChildRecord::load(&path), None, "another process with the same pid is not ours");
        assert!(known.end(Signal::SIGTERM, Duration::from_secs(60)).await);
        child.wait().await.expect("reaped");
        assert!(!known.is_running());
    }
}
