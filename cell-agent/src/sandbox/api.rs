//! The seam between the agent and the sandbox.
//!
//! A *sandbox* is one incarnation of one assignment. Its address, ids and interface are pure functions of the slot; its
//! writable layer is new each time. An instance that restarts gets a new sandbox under the same slot.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

/// Names one incarnation of one assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SandboxId {
    /// The assignment.
    pub assignment: Uuid,
    /// Which start of it.
    pub incarnation: u64,
}

/// A directory of the host that is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether the inside may write.
    pub writable: bool,
    /// Map the owner (host id 0..65535 on disk <-> the slot's range), so that files made inside belong to plain ids on disk.
    pub id_mapped: bool,
}

/// A file that a sandbox finds. Its content is a secret and does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct SandboxFile {
    /// Relative, plain names only.
    pub path: PathBuf,
    /// Text.
    pub content: String,
}

impl std::fmt::Debug for SandboxFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Limits of one sandbox; enforced, not advisory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, of the app's cgroup (the init has its own).
    pub memory_bytes: u64,
    /// Bytes of the writable layer (and of `volume`, when there is one).
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// 1..10,000; relative share of CPU.
    pub cpu_weight: u32,
    /// Open files a process.
    pub nofile: u32,
}

/// What may go out. The platform's own addresses are refused before these are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// `tcp`, `udp`, `icmp`, `all`.
    pub protocol: String,
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, inclusive.
    pub last: Ipv4Addr,
    /// Inclusive ranges; empty = all.
    pub ports: Vec<(u16, u16)>,
    /// Type and code of `icmp`; `None` = every one.
    pub icmp: (Option<u8>, Option<u8>),
}

/// A program beside the one of a sandbox.
#[derive(Clone, Debug)]
pub struct Companion {
    /// For people, and for its lines.
    pub name: String,
    /// The program, absolute, and its arguments.
    pub argv: Vec<String>,
}

/// Everything a start needs. Secrets (`env`) reach the init by memfd, never by arguments or files.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Which one.
    pub id: SandboxId,
    /// Slot on this cell.
    pub slot: u32,
    /// Unpacked layers on the host, lowest first; the last is the droplet for an LRP.
    pub layers: Vec<PathBuf>,
    /// Further directories.
    pub binds: Vec<Bind>,
    /// A quota'd scratch directory of the host that lives as long as the assignment (staging), mounted here inside.
    pub volume: Option<(Uuid, PathBuf)>,
    /// Files in memory below [`slipway_helper::spec::FILES_ROOT`], read only, for the user alone.
    pub files: Vec<SandboxFile>,
    /// The program, absolute, and its arguments.
    pub argv: Vec<String>,
    /// Further programs, with the same environment, user and limits. When one of them ends, all do.
    pub companions: Vec<Companion>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// Whose account the program has, of those that the stack lists. Not root.
    pub user: String,
    /// Host name inside.
    pub hostname: String,
    /// Limits.
    pub limits: Limits,
    /// Egress permissions.
    pub egress: Vec<EgressRule>,
    /// Whether it may reach registries by the cell, where the cell has some: builds alone.
    pub registries: bool,
    /// Directory of the log ring; made by the sandbox.
    pub log_directory: PathBuf,
    /// Size of the ring.
    pub log_bytes: u64,
    /// 0 = not limited.
    pub log_rate_bytes: u64,
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// The memory limit killed it.
    pub out_of_memory: bool,
    /// For people, e.g. `out of memory: limit 64 MiB`; empty for a plain exit.
    pub reason: String,
    /// The platform's own fault (the init failed), not the app's.
    pub platform_fault: bool,
    /// Unix milliseconds.
    pub at_unix_ms: i64,
}

/// What a sandbox uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxUsage {
    /// Since its start.
    pub cpu_nanos: u64,
    /// Without reclaimable cache.
    pub memory_bytes: u64,
    /// Of the writable layer.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Processes that the kernel has killed because of the memory limit.
    pub oom_kills: u64,
}

/// A sandbox found running after the agent was restarted.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Which one.
    pub id: SandboxId,
    /// Its slot.
    pub slot: u32,
    /// Set when it has ended while nobody looked.
    pub exit: Option<Exit>,
}

/// Why a sandbox operation failed, by who must act.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The spec cannot be run anywhere (bad path, unknown user).
    #[error("the workload cannot be run: {0}")]
    Invalid(String),
    /// This cell is out of something.
    #[error("the cell is out of {what}: {detail}")]
    Exhausted {
        /// `disk`, `memory`, `pids`, `slots`.
        what: &'static str,
        /// Figures.
        detail: String,
    },
    /// A step failed on this host.
    #[error("{step} failed")]
    Host {
        /// The step, with the path or id it was about.
        step: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox {0:?}")]
    Unknown(SandboxId),
}

/// Facts about the host, found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// `v2` or `hybrid`.
    pub cgroup_mode: &'static str,
    /// `btrfs-qgroup`, `project-quota`, `loop`, `none`.
    pub disk_quota_mode: &'static str,
    /// What keeps this host from doing all it should, in words for `slipway status`.
    pub warnings: Vec<String>,
}

/// Members of the cluster, for the rules of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Ports (first, last) that no sandbox may reach, whatever its rules say. They do not overlap.
    pub closed: Vec<(Ipv4Addr, u16, u16)>,
    /// Who alone reaches host ports from outside; `None` = everybody.
    pub routers: Option<Vec<Ipv4Addr>>,
}

/// Makes, finds and ends sandboxes. All methods may be called from any task; each sandbox's calls come one at a time.
#[async_trait]
pub trait SandboxRuntime: Send + Sync + 'static {
    /// Prepares the host: bridge, nft table, cgroup roots, scratch volume. Idempotent; removes leftovers of a crash or
    /// power cut that no live sandbox owns.
    async fn prepare(&self) -> Result<HostFacts, SandboxError>;

    /// All sandboxes of this cell that exist on the host, running or ended.
    async fn adopt(&self) -> Result<Vec<Adopted>, SandboxError>;

    /// Starts a sandbox; returns once the program was executed. Nothing is left behind on failure.
    async fn start(&self, spec: SandboxSpec) -> Result<(), SandboxError>;

    /// Resolves when it ends; at once when it has ended. May be called again after an adoption.
    async fn wait(&self, id: SandboxId) -> Result<Exit, SandboxError>;

    /// Sends SIGTERM to the app, SIGKILL to all of it after `grace`; resolves when it has ended.
    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<Exit, SandboxError>;

    /// Removes what is left of an ended sandbox (mount, cgroup, interface, scratch), but not its log ring.
    async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError>;

    /// Removes an assignment's volume (staging).
    async fn remove_volume(&self, volume: Uuid) -> Result<(), SandboxError>;

    /// Path on the host of an assignment's volume, made with this quota when absent.
    async fn volume(&self, volume: Uuid, disk_bytes: u64) -> Result<PathBuf, SandboxError>;

    /// What it uses.
    async fn usage(&self, id: SandboxId) -> Result<SandboxUsage, SandboxError>;

    /// Lets traffic to the slot's address through, or refuses it (connection reset, at once).
    async fn gate(&self, slot: u32, open: bool) -> Result<(), SandboxError>;

    /// Replaces what a running sandbox may send to, at once and without a moment in which nothing or everything passes.
    /// Connections that are established go on. An adopted sandbox keeps what was last set.
    async fn permit(&self, id: SandboxId, egress: Vec<EgressRule>) -> Result<(), SandboxError>;

    /// Replaces which ports of members no sandbox may reach, and who reaches the host ports of sandboxes.
    async fn members(&self, members: Members) -> Result<(), SandboxError>;

    /// Address of a slot, as instances and this host see it.
    fn address(&self, slot: u32) -> Ipv4Addr;

    /// Runs a check inside the sandbox's network from the host: can a TCP connection to its port be made?
    /// Independent of the gate.
    async fn probe_tcp(&self, slot: u32, port: u16, timeout: Duration) -> bool;

    /// HTTP GET on its port, independent of the gate; the status, if one came.
    async fn probe_http(&self, slot: u32, port: u16, path: &str, timeout: Duration) -> Option<u16>;

    /// TCP addresses on which programs of the sandbox listen, as the sandbox sees them, for telling why a check failed.
    /// Empty when that cannot be found out.
    async fn listeners(&self, _id: SandboxId) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Connections to a port of the sandbox that no program has taken yet. `None` when nobody listens there, or when that
    /// cannot be found out.
    async fn unaccepted(&self, _id: SandboxId, _port: u16) -> Option<u32> {
        None
    }
}
