//! Records that outlive the agent: one directory per sandbox below the run directory, with `sandbox.json` and, after its end,
//! `exit.json`. The run directory is empty after a reboot, so a record always speaks of this boot.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slipway_chassis::clock;
use slipway_helper::spec::{EXIT_FILE, ExitRecord};
use uuid::Uuid;

use super::{EgressRule, Exit, SandboxError, SandboxId, host};

const RECORD_FILE: &str = "sandbox.json";

/// What is needed to find a sandbox again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: SandboxId,
    pub(super) slot: u32,
    /// Process 1 of the sandbox, as the host numbers it.
    pub(super) pid: i32,
    /// When that process was started, in the kernel's ticks: a number that was given to another process is recognised.
    pub(super) started: u64,
    pub(super) egress: Vec<EgressRecord>,
}

/// As [`EgressRule`], on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EgressRecord {
    protocol: String,
    first: std::net::Ipv4Addr,
    last: std::net::Ipv4Addr,
    ports: Vec<(u16, u16)>,
    #[serde(default)]
    icmp: (Option<u8>, Option<u8>),
}

impl From<&EgressRule> for EgressRecord {
    fn from(rule: &EgressRule) -> Self {
        let (protocol, ports) = (rule.protocol.clone(), rule.ports.clone());
        Self { protocol, first: rule.first, last: rule.last, ports, icmp: rule.icmp }
    }
}

impl From<&EgressRecord> for EgressRule {
    fn from(rule: &EgressRecord) -> Self {
        let (protocol, ports) = (rule.protocol.clone(), rule.ports.clone());
        Self { protocol, first: rule.first, last: rule.last, ports, icmp: rule.icmp }
    }
}

/// Name of a sandbox in cgroups, scratch and run directory.
pub(super) fn name(id: SandboxId) -> String {
    format!("{}.{}", id.assignment, id.incarnation)
}

fn parse_name(name: &str) -> Option<SandboxId> {
    let (assignment, incarnation) = name.split_once('.')?;
    Some(SandboxId { assignment: Uuid::parse_str(assignment).ok()?, incarnation: incarnation.parse().ok()? })
}

/// The records of one cell.
#[derive(Clone, Debug)]
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(super) fn open(run_directory: &Path) -> Result<Self, SandboxError> {
        let directory = run_directory.join("sandboxes");
        std::fs::create_dir_all(&directory).map_err(host(format!("make {}", directory.display())))?;
        Ok(Self { directory })
    }

    /// A sandbox's directory.
    pub(super) fn path(&self, id: SandboxId) -> PathBuf {
        self.directory.join(name(id))
    }

    /// Makes the directory of a sandbox.
    pub(super) fn create(&self, id: SandboxId) -> Result<PathBuf, SandboxError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.path(id);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(host(format!("make {}", path.display())))?;
        Ok(path)
    }

    /// Writes the record of a running sandbox.
    pub(super) fn write(&self, record: &Record) -> Result<(), SandboxError> {
        let directory = self.path(record.id);
        let draft = directory.join(format!("{RECORD_FILE}.new"));
        let write = || {
            std::fs::write(&draft, serde_json::to_vec(record)?)?;
            std::fs::rename(&draft, directory.join(RECORD_FILE))
        };
        write().map_err(host(format!("write the record in {}", directory.display())))
    }

    /// Writes other egress rules into the record of a sandbox, for whoever adopts it.
    pub(super) fn write_egress(&self, id: SandboxId, egress: &[EgressRule]) -> Result<(), SandboxError> {
        let path = self.path(id).join(RECORD_FILE);
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
        let record = read.map_err(host(format!("read {}", path.display())))?;
        self.write(&Record { egress: egress.iter().map(Into::into).collect(), ..record })
    }

    /// Removes a sandbox's directory, if there is one.
    pub(super) fn remove(&self, id: SandboxId) -> Result<(), SandboxError> {
        let path = self.path(id);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(host(format!("remove {}", path.display()))),
        }
    }

    /// All directories: those with a readable record, and the ids of those without (a start that was cut off).
    pub(super) fn list(&self) -> Result<(Vec<Record>, Vec<SandboxId>), SandboxError> {
        let shown = || format!("list {}", self.directory.display());
        let (mut records, mut broken) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.directory).map_err(host(shown()))? {
            let entry = entry.map_err(host(shown()))?;
            let Some(id) = entry.file_name().to_str().and_then(parse_name) else { continue };
            let bytes = std::fs::read(entry.path().join(RECORD_FILE)).unwrap_or_default();
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.id == id => records.push(record),
                _ => broken.push(id),
            }
        }
        records.sort_by_key(|record| record.id);
        Ok((records, broken))
    }

    /// Process 1 of a sandbox, if it runs.
    pub(super) fn running(&self, id: SandboxId) -> Result<Option<i32>, SandboxError> {
        let path = self.path(id).join(RECORD_FILE);
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
        let record = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(host(format!("read {}", path.display())))?,
        };
        let watched = watch(record.pid).map_err(host(format!("watch process {}", record.pid)))?;
        Ok(watched.filter(|watched| watched.started == record.started).map(|_| record.pid))
    }

    /// How a sandbox ended that is known to have ended.
    pub(super) fn exit(&self, id: SandboxId) -> Exit {
        let path = self.path(id).join(EXIT_FILE);
        let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<ExitRecord>(&bytes)?));
        match read {
            Ok(record) => Exit {
                code: record.code,
                signal: record.signal,
                out_of_memory: record.out_of_memory,
                reason: record.reason,
                platform_fault: false,
                at_unix_ms: record.at_unix_ms,
            },
            Err(error) => Exit {
                code: 255,
                signal: None,
                out_of_memory: false,
                reason: format!("the sandbox ended without a record: {error}"),
                platform_fault: true,
                at_unix_ms: clock::unix_ms(),
            },
        }
    }
}

/// A process, by a handle that never names another process.
#[derive(Debug)]
pub(super) struct ProcessHandle {
    pub(super) pidfd: OwnedFd,
    pub(super) started: u64,
}

/// Takes hold of a running process; none, or one that has ended, gives `None`.
pub(super) fn watch(pid: i32) -> io::Result<Option<ProcessHandle>> {
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    let pidfd = match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Read after the handle was taken: what is read belongs to the process that is held, or that process has ended.
    Ok(started(pid).map(|started| ProcessHandle { pidfd, started }))
}

/// Field 22 of `/proc/<pid>/stat`; a zombie has ended.
fn started(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything, also spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId { assignment: Uuid::from_u128(7), incarnation: 3 }
    }

    #[test]
    fn records_survive_and_cut_off_starts_are_seen() {
        let home = tempfile::tempdir().unwrap();
        let records = Records::open(home.path()).unwrap();
        records.create(id()).unwrap();
        let other = SandboxId { incarnation: 4, ..id() };
        records.create(other).unwrap();
        records.write(&Record { id: id(), slot: 9, pid: 1, started: 2, egress: vec![] }).unwrap();
        std::fs::create_dir(home.path().join("sandboxes/foreign")).unwrap();
        let (found, broken) = records.list().unwrap();
        assert_eq!((found.len(), found[0].slot), (1, 9));
        assert_eq!(broken, [other]);
        assert!(records.create(id()).is_err());
        records.remove(id()).unwrap();
        records.remove(id()).unwrap();
    }

    #[test]
    fn an_end_without_a_record_is_the_platforms_fault() {
        let home = tempfile::tempdir().unwrap();
        let records = Records::open(home.path()).unwrap();
        let path = records.create(id()).unwrap();
        assert!(records.exit(id()).platform_fault);
        std::fs::write(
            path.join(EXIT_FILE),
            r#"{"code":137,"signal":9,"out_of_memory":true,"reason":"x","at_unix_ms":5}"#,
        )
        .unwrap();
        let exit = records.exit(id());
        assert!(exit.out_of_memory && !exit.platform_fault && exit.at_unix_ms == 5);
    }

    #[test]
    fn a_process_that_is_gone_is_not_watched() {
        let own = watch(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
        assert!(own.started > 0);
        assert!(watch(i32::MAX).unwrap().is_none());
    }
}
