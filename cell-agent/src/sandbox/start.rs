//! One start. The order is the security argument: limits exist before the process, the process is cut off from the
//! network until its rules stand, and the program runs only when everything else does (in `init`, where users come last).
//! Every step registers how it is taken back.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Component;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_chassis::sizes::LEAST_MEMORY_MB;
use slipway_helper::spec::{BindSpec, CompanionSpec, Failure, FileSpec, InitSpec, NetworkSpec, Status};
use slipway_log_ring::MAX_SIDECARS;

use super::linux::Host;
use super::records::{self, Record};
use super::{SandboxError, SandboxFile, SandboxSpec, host, network};

/// A start takes milliseconds; a layer that makes it hang (a pipe in place of a file) must not hold the agent.
const LONGEST: Duration = Duration::from_secs(30);

/// What has been made so far, taken back in reverse when the start fails.
struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
}

type Step<'a> = Box<dyn FnOnce() -> Result<(), SandboxError> + 'a>;

impl<'a> Undo<'a> {
    fn push(&mut self, step: &'static str, undo: impl FnOnce() -> Result<(), SandboxError> + 'a) {
        self.steps.push((step, Box::new(undo)));
    }

    fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some((step, undo)) = self.steps.pop() {
            if let Err(error) = undo() {
                tracing::warn!(step, error = &error as &dyn std::error::Error, "a failed start left something behind");
            }
        }
    }
}

/// Starts a sandbox and returns its process 1, unless that has ended already. Blocks for some milliseconds.
pub(super) fn start(on: &Host, spec: &SandboxSpec) -> Result<Option<OwnedFd>, SandboxError> {
    check(on, spec)?;
    let name = records::name(spec.id);
    let config = &on.config;
    let address = config.address(spec.slot);
    let mut undo = Undo { steps: Vec::new() };

    on.checkpoint("record")?;
    let run_directory = on.records.create(spec.id)?;
    undo.push("record", || on.records.remove(spec.id));

    on.checkpoint("cgroups")?;
    undo.push("cgroups", || on.cgroups.remove(&name));
    on.cgroups.create(&name, &spec.limits)?;

    on.checkpoint("scratch")?;
    on.scratch.room(spec.limits.disk_bytes)?;
    let scratch = on.scratch.create_instance(&name, spec.limits.disk_bytes)?;
    undo.push("scratch", || on.scratch.remove_instance(&name));

    let mut binds = Vec::new();
    if let Some((volume, target)) = &spec.volume {
        on.checkpoint("volume")?;
        let source = on.scratch.volume(*volume, spec.limits.disk_bytes)?;
        binds.push(BindSpec { source, target: target.clone(), writable: true, id_mapped: true });
    }
    binds.extend(spec.binds.iter().map(|bind| BindSpec {
        source: bind.source.clone(),
        target: bind.target.clone(),
        writable: bind.writable,
        id_mapped: bind.id_mapped,
    }));

    // Closed until somebody opens it, whatever an earlier incarnation left.
    on.checkpoint("firewall")?;
    undo.push("firewall", || on.firewall.forget(address));
    on.firewall.gate(address, false)?;
    on.firewall.admit(address, &spec.egress)?;
    if spec.registries {
        on.firewall.admit_build(address)?;
    }

    on.checkpoint("interface")?;
    let interface = config.interface(spec.slot);
    network::remove_interface(&interface)?;
    undo.push("interface", {
        let interface = interface.clone();
        move || network::remove_interface(&interface)
    });

    let order = InitSpec {
        run_directory,
        stage: on.stage.clone(),
        layers: spec.layers.clone(),
        scratch,
        binds,
        files: spec
            .files
            .iter()
            .map(|file| FileSpec { path: file.path.clone(), content: file.content.clone() })
            .collect(),
        id_base: config.id_base(spec.slot),
        argv: spec.argv.clone(),
        companions: spec
            .companions
            .iter()
            .map(|one| CompanionSpec { name: one.name.clone(), argv: one.argv.clone() })
            .collect(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        resolv_conf: config.resolv_conf(),
        helper: on.helper.clone(),
        init_cgroups: on.cgroups.init_groups(&name),
        app_cgroups: on.cgroups.app_groups(&name),
        oom_counter: on.cgroups.oom_counter(&name),
        memory_bytes: spec.limits.memory_bytes,
        nofile: spec.limits.nofile,
        network: NetworkSpec {
            bridge: config.bridge(),
            interface,
            address,
            gateway: config.gateway(),
            bandwidth: config.bandwidth_bytes(),
        },
        log_directory: spec.log_directory.clone(),
        log_bytes: spec.log_bytes,
        log_rate_bytes: spec.log_rate_bytes,
        filters: on.filters.clone(),
        fail_at: config.fail_at.clone(),
        guards: config.guards.clone(),
    };
    // From here on processes may live in the groups; removing those kills them, so it comes first when undone.
    undo.push("processes", || {
        on.cgroups.kill(&name);
        Ok(())
    });
    let pid = run_init(on, &order)?;

    on.checkpoint("adopt")?;
    let watched = records::watch(pid).map_err(host(format!("watch process {pid}")))?;
    // It may have run and ended already; the record of its end tells.
    let (started, pidfd) = watched.map_or((0, None), |watched| (watched.started, Some(watched.pidfd)));
    let egress = spec.egress.iter().map(Into::into).collect();
    on.records.write(&Record { id: spec.id, slot: spec.slot, pid, started, egress })?;
    undo.keep();
    Ok(pidfd)
}

/// What can be seen to be wrong before anything is made.
fn check(on: &Host, spec: &SandboxSpec) -> Result<(), SandboxError> {
    let invalid = |text: String| Err(SandboxError::Invalid(text));
    if spec.slot >= on.config.slots {
        let detail = format!("slot {} of {}", spec.slot, on.config.slots);
        return Err(SandboxError::Exhausted { what: "slots", detail });
    }
    if !spec.argv.first().is_some_and(|program| program.starts_with('/')) {
        return invalid(format!("the program {:?} is not an absolute path", spec.argv.first()));
    }
    if let Some(one) = spec.companions.iter().find(|one| !one.argv.first().is_some_and(|first| first.starts_with('/')))
    {
        return invalid(format!("the program {:?} of {:?} is not an absolute path", one.argv.first(), one.name));
    }
    if spec.companions.len() > MAX_SIDECARS {
        return invalid(format!("{} programs beside the command are more than {MAX_SIDECARS}", spec.companions.len()));
    }
    if !spec.cwd.is_absolute() {
        return invalid(format!("the working directory {} is not absolute", spec.cwd.display()));
    }
    if spec.hostname.is_empty()
        || spec.hostname.len() > 64
        || spec.hostname.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return invalid(format!("invalid host name {:?}", spec.hostname));
    }
    let plain = |file: &SandboxFile| {
        file.path.components().count() > 0 && file.path.components().all(|part| matches!(part, Component::Normal(_)))
    };
    if let Some(file) = spec.files.iter().find(|file| !plain(file)) {
        return invalid(format!("the file {} is not named by a plain relative path", file.path.display()));
    }
    if let Some(layer) = spec.layers.iter().find(|layer| !layer.is_dir()) {
        return invalid(format!("the layer {} is not unpacked on this cell", layer.display()));
    }
    if let Some(text) = too_little_memory(spec.limits.memory_bytes) {
        return invalid(text);
    }
    if spec.limits.pids < 2 {
        return invalid(format!("a limit of {} processes is below 2", spec.limits.pids));
    }
    Ok(())
}

fn too_little_memory(bytes: u64) -> Option<String> {
    let mib = bytes >> 20;
    (mib < LEAST_MEMORY_MB).then(|| format!("a memory limit of {mib} MiB is below {LEAST_MEMORY_MB} MiB"))
}

/// Runs `init` until the program was executed. Returns process 1 of the sandbox.
fn run_init(on: &Host, order: &InitSpec) -> Result<i32, SandboxError> {
    let mut child = Command::new(&on.helper)
        .arg("init")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(order_file(order).map_err(host("pass the order to init"))?))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(host(format!("execute {}", on.helper.display())))?;
    let answer = match child.stdout.take() {
        Some(output) => read_status(output),
        None => Err(host("read the answer of init")(io::ErrorKind::BrokenPipe.into())),
    };
    if answer.is_err() {
        // A first process that still runs when it failed hangs; one that has ended cannot be killed, which is well.
        let _ = child.kill();
    }
    let _ = child.wait();
    answer
}

/// In memory only, never on a disk: it holds the environment.
fn order_file(order: &InitSpec) -> io::Result<File> {
    let file = rustix::fs::memfd_create("order", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&serde_json::to_vec(order)?)?;
    file.rewind()?;
    Ok(file)
}

fn read_status(output: std::process::ChildStdout) -> Result<i32, SandboxError> {
    let end = std::time::Instant::now() + LONGEST;
    let mut reader = BufReader::new(output);
    let mut pid = None;
    let shown = || host("read the answer of init");
    loop {
        if reader.buffer().is_empty() {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut wanted = [PollFd::new(std::os::fd::AsFd::as_fd(reader.get_ref()), PollFlags::POLLIN)];
            match poll(&mut wanted, timeout) {
                Ok(0) => return Err(shown()(io::ErrorKind::TimedOut.into())),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(shown()(error.into())),
            }
        }
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(shown())? == 0 {
            // Closed by the execution of the program, or because init was killed before it could say anything.
            return pid.ok_or_else(|| shown()(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line).map_err(|error| shown()(error.into()))? {
            Status::Pid(number) => pid = Some(number),
            Status::Failed(failure) => return Err(failed(failure)),
        }
    }
}

fn failed(failure: Failure) -> SandboxError {
    let source = match failure.errno {
        0 => io::Error::other("see the step"),
        number => io::Error::from_raw_os_error(number),
    };
    match failure {
        Failure { invalid: true, errno: 0, step } => SandboxError::Invalid(step),
        Failure { invalid: true, step, .. } => SandboxError::Invalid(format!("{step}: {source}")),
        Failure { errno: libc::ENOSPC | libc::EDQUOT, step, .. } => {
            SandboxError::Exhausted { what: "disk", detail: format!("{step}: {source}") }
        }
        Failure { errno: libc::ENOMEM, step, .. } => {
            SandboxError::Exhausted { what: "memory", detail: format!("{step}: {source}") }
        }
        Failure { step, .. } => SandboxError::Host { step, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_to_start_is_reported_in_readable_units() {
        assert_eq!(too_little_memory(2 << 20).as_deref(), Some("a memory limit of 2 MiB is below 4 MiB"));
        assert_eq!(too_little_memory(4 << 20), None);
    }
}
