//! How a process is contained. [`api`] is the seam between the agent (what runs, when it restarts, what is reported)
//! and the sandbox (namespaces, mounts, cgroups, network, init).
//!
//! [`LinuxRuntime`] is the real one. Its parts: `cgroup` (limits, both cgroup versions), `scratch` and `btrfs` (writable
//! layers with quotas), `network` (bridge, interfaces), `firewall` and `elements` (rules, and their cheap changes), `seccomp`
//! (filters), `helper_file` (the embedded static program), `records` (what outlives the agent), `start` (one start, step by
//! step), `probe` (checks from the host), `listeners` (where its programs listen), `shared` (what all sandboxes share of the
//! kernel), `hardening` (settings of the host that leave a guard alone).

pub mod api;
mod btrfs;
mod cgroup;
mod elements;
mod firewall;
mod hardening;
mod helper_file;
mod linux;
mod listeners;
mod network;
mod probe;
mod records;
mod scratch;
mod seccomp;
mod settings;
mod shared;
mod start;

pub use api::*;
pub use linux::LinuxRuntime;
pub use settings::RuntimeConfig;

/// Names a step with the path or id it was about, for errors of this host.
fn host(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> SandboxError {
    let step = step.into();
    move |source| SandboxError::Host { step, source }
}

/// Runs a program of the host to its end; for preparation, never for a start.
fn run(program: &str, arguments: &[&str], input: &str) -> std::io::Result<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says why by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{program} ended with {}: {}", output.status, text.trim())))
}
