//! `init`: builds one sandbox around itself, starts one program in it, keeps its output and the record of its end.
//!
//! Three processes follow each other. The first, started by the agent, makes users and network, enters the new process
//! namespace by a fork and is gone. The second is process 1 of the sandbox: it mounts the root, gives up the host's file
//! system for good, and stays as the supervisor. The third enters the user namespace, gives up every privilege and
//! becomes the app. All namespaces but the user namespace belong to the host's users, so that root inside holds no
//! power over mounts, network or host name, whatever capability it has.

mod app;
mod files;
mod network;
mod output;
mod root;
mod supervise;
mod termination;
mod unsent;
mod users;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::sched::CloneFlags;
use nix::unistd::ForkResult;
use slipway_helper::guards::Guard;
use slipway_helper::spec::{Failure, InitSpec, Status};

/// Names the step that failed; the kernel's number goes with it.
fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let step = step.into();
    move |error| Failure { step, errno: error.into().raw_os_error().unwrap_or(0), invalid: false }
}

/// As [`at`], when the order is at fault.
fn invalid<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let step = step.into();
    move |error| Failure { step, errno: error.into().raw_os_error().unwrap_or(0), invalid: true }
}

/// Fails here when a test asks for it.
fn checkpoint(spec: &InitSpec, step: &str) -> Result<(), Failure> {
    match &spec.fail_at {
        Some(wanted) if wanted == step => {
            Err(Failure { step: format!("{step} (asked to fail)"), errno: 0, invalid: false })
        }
        _ => Ok(()),
    }
}

/// Where progress is reported to the agent; closed by the execution of the program.
struct Report(File);

impl Report {
    fn send(&mut self, status: &Status) {
        if let Ok(mut line) = serde_json::to_vec(status) {
            line.push(b'\n');
            // When the agent has died meanwhile nobody reads; the sandbox goes on and is adopted.
            let _ = self.0.write_all(&line);
        }
    }
}

pub(crate) fn main() -> i32 {
    let mut report = match take_report() {
        Ok(report) => report,
        Err(error) => {
            eprintln!("init: standard streams: {error}");
            return 2;
        }
    };
    match start(&mut report) {
        Ok(()) => 0,
        Err(failure) => {
            report.send(&Status::Failed(failure));
            2
        }
    }
}

/// The report's number; what the agent left open under it is closed by that, what is open above it in [`close_inherited`].
const REPORT: i32 = 3;

/// Moves the report away from standard output.
fn take_report() -> io::Result<Report> {
    nix::sys::prctl::set_dumpable(false)?;
    // SAFETY: nothing of this program is open yet but its standard streams.
    let report = nix::errno::Errno::result(unsafe { libc::dup3(libc::STDOUT_FILENO, REPORT, libc::O_CLOEXEC) })?;
    // SAFETY: the descriptor was made by the line above and belongs to nobody else.
    let report = unsafe { OwnedFd::from_raw_fd(report) };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(Report(File::from(report)))
}

/// Whoever started the agent may have left files open for all that follow it, and the app is one of those: a directory of
/// the host would be a way out of the sandbox.
fn close_inherited() -> io::Result<()> {
    // SAFETY: this program has opened nothing that it still uses but the report, which is below.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, libc::c_uint::MAX, 0) };
    nix::errno::Errno::result(closed)?;
    Ok(())
}

fn read_spec() -> Result<InitSpec, Failure> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(at("read the order"))?;
    let null = File::open("/dev/null").map_err(at("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(at("close the order"))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure {
        step: format!("understand the order: {error}"),
        errno: 0,
        invalid: true,
    })
}

fn start(report: &mut Report) -> Result<(), Failure> {
    let spec = read_spec()?;
    if spec.guards.hold(Guard::Descriptors) {
        close_inherited().map_err(at("close what the agent left open"))?;
    }
    if !spec.guards.hold(Guard::Dumpable) {
        nix::sys::prctl::set_dumpable(true).map_err(at("become dumpable"))?;
    }
    // A terminal's interrupt must not reach what runs.
    if spec.guards.hold(Guard::InitSession) {
        nix::unistd::setsid().map_err(at("leave the agent's session"))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    checkpoint(&spec, "init-cgroup")?;
    for directory in &spec.init_cgroups {
        let path = directory.join("cgroup.procs");
        std::fs::write(&path, "0").map_err(at(format!("join {}", path.display())))?;
    }
    checkpoint(&spec, "users")?;
    let users = users::create(&spec)?;
    checkpoint(&spec, "network")?;
    network::create(&spec)?;
    let mut namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    namespaces.set(CloneFlags::CLONE_NEWIPC, spec.guards.hold(Guard::IpcNamespace));
    namespaces.set(CloneFlags::CLONE_NEWUTS, spec.guards.hold(Guard::HostName));
    nix::sched::unshare(namespaces).map_err(at("make namespaces"))?;
    checkpoint(&spec, "fork")?;
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }.map_err(at("fork process 1"))? {
        ForkResult::Parent { child } => {
            report.send(&Status::Pid(child.as_raw()));
            Ok(())
        }
        ForkResult::Child => {
            let failure = match inside(spec, &users, report) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            report.send(&Status::Failed(failure));
            std::process::exit(2)
        }
    }
}

/// Life of process 1.
fn inside(spec: InitSpec, users: &OwnedFd, report: &mut Report) -> Result<std::convert::Infallible, Failure> {
    // What lies on the host is opened before the host is out of reach.
    let mut supervisor = supervise::Supervisor::open(&spec)?;
    let cgroups = app::open_cgroups(&spec)?;
    checkpoint(&spec, "root")?;
    root::build(&spec, users)?;
    // Without a name of its own it would be the host's.
    if spec.guards.hold(Guard::HostName) {
        nix::unistd::sethostname(&spec.hostname).map_err(invalid(format!("set host name {:?}", spec.hostname)))?;
    }
    checkpoint(&spec, "log")?;
    let mut pipes = supervisor.open_output(&spec)?.into_iter();
    checkpoint(&spec, "app")?;
    let mut programs = Vec::new();
    for argv in std::iter::once(&spec.argv).chain(spec.companions.iter().map(|one| &one.argv)) {
        // One pair of pipes was made for each.
        let Some(pipes) = pipes.next() else { break };
        programs.push(app::start(&spec, argv, users, &cgroups, pipes, report)?);
    }
    drop(cgroups);
    // Only the programs' copies of the report are left: it ends when all of them are executed.
    report.0 = File::open("/dev/null").map_err(at("close the report"))?;
    let names = spec.companions.into_iter().map(|one| one.name).collect();
    supervisor.run(&programs, names)
}
