//! The order that the agent gives to `init`: JSON in a memfd on standard input, because it holds the app's environment
//! and therefore secrets, which must not be seen in arguments or files.
//!
//! `init` answers on standard output, one JSON [`Status`] a line, and closes it when the program has been executed: end
//! of file without a failure means "it runs".

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the record of a sandbox's end inside its run directory.
pub const EXIT_FILE: &str = "exit.json";

/// Where [`InitSpec::files`] stand, inside.
pub const FILES_ROOT: &str = "/etc/cf-service-bindings";

/// Most inotify instances of one sandbox: what a kernel gives a user by default.
pub const INOTIFY_INSTANCES: u32 = 128;

/// Most inotify watches of one sandbox: enough for the tree of a large app; each takes a kilobyte of its memory limit.
pub const INOTIFY_WATCHES: u32 = 65_536;

/// Signal that makes `init` kill everything and record the end.
pub const KILL_SIGNAL: i32 = libc::SIGUSR1;

/// Everything `init` needs; all paths are the host's unless said otherwise.
#[derive(Clone, Serialize, Deserialize)]
pub struct InitSpec {
    /// Where [`EXIT_FILE`] goes.
    pub run_directory: PathBuf,
    /// An empty directory; mounts are built on it, seen by this sandbox only.
    pub stage: PathBuf,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Directory with quota; `u` and `w` are made in it.
    pub scratch: PathBuf,
    /// Further directories and files.
    pub binds: Vec<BindSpec>,
    /// Files in memory below [`FILES_ROOT`], read only, for the user alone.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// The host's id of the sandbox's root; 65,536 ids follow.
    pub id_base: u32,
    /// Program and arguments, inside.
    pub argv: Vec<String>,
    /// Further programs with the same environment, user and limits; when one of them ends, all do.
    #[serde(default)]
    pub companions: Vec<CompanionSpec>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Inside.
    pub cwd: PathBuf,
    /// Whose account the program has, of those that the stack lists. Not root.
    pub user: String,
    /// Host name inside.
    pub hostname: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// This program's file, for `/tmp/lifecycle`.
    pub helper: PathBuf,
    /// Cgroups of `init` itself, one per hierarchy.
    pub init_cgroups: Vec<PathBuf>,
    /// Cgroups of the app, one per hierarchy.
    pub app_cgroups: Vec<PathBuf>,
    /// File with a line `oom_kill N` for the app's cgroup.
    pub oom_counter: PathBuf,
    /// For the text about running out of memory.
    pub memory_bytes: u64,
    /// Most open files of a process.
    pub nofile: u32,
    /// Addresses.
    pub network: NetworkSpec,
    /// Directory of the log ring.
    pub log_directory: PathBuf,
    /// Its size.
    pub log_bytes: u64,
    /// Bytes a second; 0 = not limited.
    pub log_rate_bytes: u64,
    /// Seccomp programs, installed in this order; an instruction is its eight bytes in this machine's order.
    pub filters: Vec<Vec<u64>>,
    /// Makes this step fail, so that tests can see what a failure leaves behind.
    #[serde(default)]
    pub fail_at: Option<String>,
    /// What keeps the sandbox in.
    #[serde(default)]
    pub guards: crate::guards::Guards,
}

/// A program beside the first one.
#[derive(Clone, Serialize, Deserialize)]
pub struct CompanionSpec {
    /// For people.
    pub name: String,
    /// Program and arguments, inside.
    pub argv: Vec<String>,
}

/// A directory or file of the host that is seen inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindSpec {
    /// On the host.
    pub source: PathBuf,
    /// Inside, absolute.
    pub target: PathBuf,
    /// Whether the inside may write.
    pub writable: bool,
    /// Owners on disk are plain ids (0..65535) and seen as such inside.
    pub id_mapped: bool,
}

/// A file that is made in memory. Its content is a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct FileSpec {
    /// Below [`FILES_ROOT`], plain names only.
    pub path: PathBuf,
    /// Text.
    pub content: String,
}

/// The sandbox's end of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The host's bridge.
    pub bridge: String,
    /// The host's end of the pair.
    pub interface: String,
    /// The sandbox's address.
    pub address: Ipv4Addr,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Bytes a second in each direction, where they are limited.
    #[serde(default)]
    pub bandwidth: Option<u32>,
}

/// What `init` reports while it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The host's process id of `init`.
    Pid(i32),
    /// It came to nothing.
    Failed(Failure),
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which, with the path or value.
    pub step: String,
    /// The kernel's error number; 0 = none.
    pub errno: i32,
    /// The order is at fault, not the host.
    pub invalid: bool,
}

/// How the program ended; written by `init`, read by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// The memory limit killed it.
    pub out_of_memory: bool,
    /// For people; empty for a plain exit.
    pub reason: String,
    /// Unix milliseconds.
    pub at_unix_ms: i64,
}
