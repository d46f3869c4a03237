//! Process 1 of the sandbox after the start: reaps, passes on signals, keeps the output, writes the record of the end.
//! It lives as long as the app, whatever becomes of the agent.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use caps::{CapSet, Capability};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use slipway_helper::spec::{EXIT_FILE, ExitRecord, Failure, InitSpec, KILL_SIGNAL};

use super::app::Pipes;
use super::at;
use super::output::{Log, Stream};
use super::termination::{End, Reaped, Termination};
use super::unsent;

const EVERYBODY: Pid = Pid::from_raw(-1);

/// What is held of the host: three files, no path.
pub(super) struct Supervisor {
    run_directory: File,
    log_directory: File,
    oom_counter: File,
    memory_bytes: u64,
    signals: SignalFd,
    streams: Vec<Stream>,
    log: Option<Log>,
    /// The sandbox was asked to end.
    ending: bool,
    termination: Termination,
}

impl Supervisor {
    /// Opens what lies on the host and blocks the signals that are handled later.
    pub(super) fn open(spec: &InitSpec) -> Result<Self, Failure> {
        let open = |path: &PathBuf| File::open(path).map_err(at(format!("open {}", path.display())));
        let mut handled = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, kill_signal()] {
            handled.add(signal);
        }
        handled.thread_set_mask().map_err(at("block signals"))?;
        let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(at("watch signals"))?;
        std::fs::create_dir_all(&spec.log_directory).map_err(at(format!("make {}", spec.log_directory.display())))?;
        Ok(Self {
            run_directory: open(&spec.run_directory)?,
            log_directory: open(&spec.log_directory)?,
            oom_counter: open(&spec.oom_counter)?,
            memory_bytes: spec.memory_bytes,
            signals,
            streams: Vec::new(),
            log: None,
            ending: false,
            termination: Termination::default(),
        })
    }

    /// Opens the ring and the pipes of each program, the command's first. The ring's directory is named through this process's own table of open
    /// files: the name holds when the host's tree is out of sight, also for segments that are begun later.
    pub(super) fn open_output(&mut self, spec: &InitSpec) -> Result<Vec<Pipes>, Failure> {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.log_directory.as_raw_fd()));
        let ring = slipway_log_ring::Writer::open(&directory, spec.log_bytes).map_err(|error| Failure {
            step: format!("open the log ring {}", spec.log_directory.display()),
            errno: error.source.raw_os_error().unwrap_or(0),
            invalid: false,
        })?;
        self.log = Some(Log::new(ring, spec.log_rate_bytes));
        let pipe = || {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(at("make a pipe"))?;
            // Only this end: a writer that does not expect it must not see a full pipe as an error.
            nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(at("make a pipe"))?;
            Ok((read, write))
        };
        let mut all = Vec::new();
        for program in 0..=spec.companions.len() {
            let ((out_read, out), (err_read, err)) = (pipe()?, pipe()?);
            let number = u8::try_from(program).unwrap_or(u8::MAX);
            self.streams.extend([Stream::out(out_read, number), Stream::err(err_read, number)]);
            all.push(Pipes { out, err });
        }
        Ok(all)
    }

    /// Watches until a program has ended; then ends everything else, records it and exits. While the sandbox is being
    /// ended it waits for the command, and for what a command that fell by the signal leaves behind: a companion that was
    /// quicker must not cut their leave short. `names` are those of the programs after the first.
    pub(super) fn run(mut self, programs: &[Pid], names: Vec<String>) -> Result<Infallible, Failure> {
        give_up_privileges()?;
        let mut buffer = vec![0; 32 * 1024];
        let status = loop {
            if let Some(status) = self.turn(programs, &mut buffer) {
                break status;
            }
        };
        // Nothing outlives the first program that ends: a sandbox has one life.
        let _ = kill(EVERYBODY, Signal::SIGKILL);
        while !matches!(waitpid(EVERYBODY, None), Err(nix::errno::Errno::ECHILD)) {}
        if let Some(log) = &mut self.log {
            for stream in &mut self.streams {
                while stream.pump(log, &mut buffer) {}
            }
            log.close();
        }
        self.let_the_kernel_send();
        self.record(status, &names);
        std::process::exit(0)
    }

    /// Waits for what the programs have written and the kernel has not sent yet, not beyond the grace of a stop.
    fn let_the_kernel_send(&mut self) {
        let begun = Instant::now();
        loop {
            while let Ok(Some(event)) = self.signals.read_signal() {
                match i32::try_from(event.ssi_signo).unwrap_or_default() {
                    KILL_SIGNAL => self.termination.killed = true,
                    libc::SIGCHLD => {}
                    _ => self.ending = true,
                }
            }
            let most = if self.ending { unsent::IN_A_STOP } else { unsent::AFTER_AN_END };
            if self.termination.killed || begun.elapsed() > most || !unsent::is_there() {
                return;
            }
            // A signal ends the pause.
            let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], unsent::PAUSE);
        }
    }

    /// Waits for something and deals with it. Returns which program ended the sandbox and how, once one has.
    fn turn(&mut self, programs: &[Pid], buffer: &mut [u8]) -> Option<End> {
        let timeout = match &self.log {
            Some(log) if log.waiting() => PollTimeout::from(250u16),
            _ => PollTimeout::NONE,
        };
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        polled.extend(self.streams.iter().filter_map(|s| s.fd()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // An interruption is as good as an event: everything below looks for itself.
        let _ = poll(&mut polled, timeout);
        drop(polled);
        if let Some(log) = &mut self.log {
            for stream in &mut self.streams {
                stream.pump(log, buffer);
            }
            log.turn();
        }
        let mut ended = None;
        while let Ok(Some(event)) = self.signals.read_signal() {
            let number = i32::try_from(event.ssi_signo).unwrap_or_default();
            if number == libc::SIGCHLD {
                let reaped = reap();
                let ends = reaped.iter().filter_map(|one| one.end(programs));
                ended = choose(ended.into_iter().chain(ends), self.ending);
                if self.ending {
                    ended = self.termination.reaped(&reaped, ended, programs, children, terminate);
                }
            } else if number == KILL_SIGNAL {
                self.ending = true;
                self.termination.killed = true;
                let _ = kill(EVERYBODY, Signal::SIGKILL);
            } else if !self.ending {
                // Once, and to the programs alone: a server with workers decides itself what they finish.
                self.ending = true;
                self.termination.begin(programs, children, terminate);
            }
        }
        ended
    }

    fn record(&self, (program, code, signal): End, names: &[String]) {
        // Whatever the status: a shell whose child was taken away ends as it likes.
        let out_of_memory = self.oom_kills() > 0;
        let reason = match signal {
            _ if out_of_memory => format!("out of memory: limit {} MiB", self.memory_bytes >> 20),
            Some(signal) => format!("killed by signal {signal}"),
            None => String::new(),
        };
        let reason = match program.checked_sub(1).and_then(|place| names.get(place)) {
            Some(name) if reason.is_empty() => format!("the sidecar {name:?} ended with status {code}"),
            Some(name) if !out_of_memory => format!("the sidecar {name:?} was {reason}"),
            _ => reason,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at_unix_ms = i64::try_from(now).unwrap_or(i64::MAX);
        let record = ExitRecord { code, signal, out_of_memory, reason, at_unix_ms };
        // If this fails the agent sees an init that ended without a record and says so.
        let _ = self.write_record(&record);
    }

    fn write_record(&self, record: &ExitRecord) -> std::io::Result<()> {
        use rustix::fs::{Mode, OFlags};
        let bytes = serde_json::to_vec(record)?;
        let draft = format!("{EXIT_FILE}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.run_directory, &draft, flags, Mode::from_raw_mode(0o600))?;
        File::from(file).write_all(&bytes)?;
        rustix::fs::renameat(&self.run_directory, &draft, &self.run_directory, EXIT_FILE)?;
        Ok(())
    }

    fn oom_kills(&self) -> u64 {
        let mut bytes = [0; 1024];
        let size = self.oom_counter.read_at(&mut bytes, 0).unwrap_or(0);
        parse_oom_kills(&String::from_utf8_lossy(&bytes[..size]))
    }
}

fn kill_signal() -> Signal {
    Signal::try_from(KILL_SIGNAL).unwrap_or(Signal::SIGUSR1)
}

/// `memory.events` of cgroup v2 and `memory.oom_control` of v1 name it alike.
fn parse_oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Collects all that have ended.
fn reap() -> Vec<Reaped> {
    let mut ended = Vec::new();
    loop {
        match waitpid(EVERYBODY, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push(Reaped { pid, code, signal: None }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended.push(Reaped { pid, code: 128 + signal as i32, signal: Some(signal as i32) });
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Children of this process; `None` where the kernel does not list them.
fn children() -> Option<Vec<Pid>> {
    let list = std::fs::read_to_string("/proc/thread-self/children").ok()?;
    Some(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect())
}

fn terminate(pid: Pid) {
    // One that has ended meanwhile needs no signal.
    let _ = kill(pid, Signal::SIGTERM);
}

/// Which of these ends is the sandbox's: the command's if it is there; a companion's unless the sandbox is being ended.
fn choose(ends: impl Iterator<Item = End>, ending: bool) -> Option<End> {
    ends.filter(|(program, ..)| *program == 0 || !ending).min_by_key(|(program, ..)| *program)
}

/// Ending processes is all that is left to do.
fn give_up_privileges() -> Result<(), Failure> {
    let failed = |error: caps::errors::CapsError| Failure {
        step: format!("give up capabilities: {error}"),
        errno: 0,
        invalid: false,
    };
    nix::sys::prctl::set_no_new_privs().map_err(at("forbid new privileges"))?;
    let retained = [Capability::CAP_KILL].into_iter().collect();
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &retained).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &retained).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_tell_of_memory_kills() {
        assert_eq!(parse_oom_kills("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7);
        assert_eq!(parse_oom_kills(""), 0);
    }

    #[test]
    fn a_companion_ends_the_sandbox_but_not_the_leave_of_the_command() {
        let (command, companion) = ((0, 0, None), (2, 7, None));
        assert_eq!(choose([companion].into_iter(), false), Some(companion));
        assert_eq!(choose([companion].into_iter(), true), None);
        assert_eq!(choose([companion, command].into_iter(), false), Some(command));
        assert_eq!(choose([companion, command].into_iter(), true), Some(command));
    }
}
