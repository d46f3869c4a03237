//! Running foreign programs with a time limit and bounded output.
//!
//! A build script may print without end, fork into the background or never return. Output passes through a pipe, so that
//! it is cut at the limit while the program goes on; at the deadline, and when the program has ended, its whole process
//! group is killed.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::errors::Problem;
use crate::reason;

/// How often the end of a program is looked for: short beside any build step.
const POLL: Duration = Duration::from_millis(20);
/// How often a program that is being written is tried again: for two seconds.
const BUSY_TRIES: u32 = 100;
/// How long output is still read after the program has ended: somebody else may hold the pipe.
const LINGER: Duration = Duration::from_secs(2);
/// Text that is kept when output is captured (`bin/detect`, `bin/release`).
const CAPTURE: u64 = 1 << 20;

/// Runs the steps of one phase.
#[derive(Debug)]
pub struct Runner {
    deadline: Instant,
    limit: Duration,
    left: Arc<AtomicU64>,
}

impl Runner {
    /// All steps together take at most `limit` and print at most `output` bytes.
    #[must_use]
    pub fn new(limit: Duration, output: u64) -> Self {
        Self { deadline: Instant::now() + limit, limit, left: Arc::new(AtomicU64::new(output)) }
    }

    /// Prints a headline of the platform's own, as Cloud Foundry does.
    pub fn headline(&self, text: &str) {
        say(&format!("-----> {text}"));
    }

    /// Prints a detail of the platform's own.
    pub fn detail(&self, text: &str) {
        say(&format!("       {text}"));
    }

    /// Runs a program to its end; its output streams to this program's. Gives back the lines of it that say why it failed as
    /// well: clients that follow a build stop a moment before its end, so that these are the very lines that their users miss.
    ///
    /// # Errors
    /// [`Problem::TimedOut`], or [`Problem::Platform`] when it cannot be started.
    pub fn run(&self, command: &mut Command) -> Result<(ExitStatus, String), Problem> {
        let (reader, writer) = io::pipe().map_err(|error| platform(command, &error))?;
        command.stdout(writer.try_clone().map_err(|error| platform(command, &error))?).stderr(writer);
        let left = Arc::clone(&self.left);
        let (status, end) = self.supervise(command, move |sent| {
            let end = copy(reader, &left, to_stdout);
            // The receiver may have stopped waiting.
            let _ = sent.send(end);
        })?;
        Ok((status, reason::of(&end)))
    }

    /// Runs a program and gives back what it printed to standard output, at most 1 MiB; its errors stream through, and the
    /// lines of them that say why it failed are given back as well.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn capture(&self, command: &mut Command) -> Result<(ExitStatus, String, String), Problem> {
        let (output, writer) = io::pipe().map_err(|error| platform(command, &error))?;
        let (errors, error_writer) = io::pipe().map_err(|error| platform(command, &error))?;
        command.stdout(writer).stderr(error_writer);
        let left = Arc::clone(&self.left);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // The receiver may have stopped waiting.
            let _ = sender.send(copy(errors, &left, to_stdout));
        });
        let (status, bytes) = self.supervise(command, move |sent| {
            let mut bytes = Vec::new();
            let mut output = output;
            // What cannot be read is no output.
            let _ = (&mut output).take(CAPTURE).read_to_end(&mut bytes);
            let _ = io::copy(&mut output, &mut io::sink());
            let _ = sent.send(bytes);
        })?;
        let errors = receiver.recv_timeout(LINGER).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&bytes).into_owned(), reason::of(&errors)))
    }

    fn supervise(
        &self,
        command: &mut Command,
        read: impl FnOnce(mpsc::Sender<Vec<u8>>) + Send + 'static,
    ) -> Result<(ExitStatus, Vec<u8>), Problem> {
        self.supervise_until(|| Instant::now() >= self.deadline, command, read)
    }

    fn supervise_until(
        &self,
        over: impl Fn() -> bool,
        command: &mut Command,
        read: impl FnOnce(mpsc::Sender<Vec<u8>>) + Send + 'static,
    ) -> Result<(ExitStatus, Vec<u8>), Problem> {
        command.stdin(Stdio::null()).process_group(0);
        let mut child = spawn(command).map_err(|error| platform(command, &error))?;
        // The pipe ends when its last writer does: this program must not be one of them.
        let step = shown(command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || read(sender));
        let mut output = None;
        let status = loop {
            match receiver.recv_timeout(POLL) {
                Ok(bytes) => output = Some(bytes),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // The output has ended, the program has not: wait without the channel's pacing.
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::park_timeout(POLL),
            }
            if let Some(status) = child.try_wait().map_err(|error| platform(command, &error))? {
                break status;
            }
            if over() {
                kill(&child);
                child.wait().map_err(|error| platform(command, &error))?;
                return Err(Problem::TimedOut { limit: self.limit.as_secs(), step });
            }
        };
        kill(&child);
        let output = output.or_else(|| receiver.recv_timeout(LINGER).ok()).unwrap_or_default();
        Ok((status, output))
    }

    /// Runs a step of a built-in buildpack, which must succeed.
    ///
    /// # Errors
    /// [`Problem::StepFailed`] beside those of [`Runner::run`].
    pub fn step(&self, buildpack: &str, command: &mut Command) -> Result<(), Problem> {
        let step = shown(command);
        self.step_as(buildpack, &step, command)
    }

    /// As [`Runner::step`], with a name for the command: one with all the options that a build needs is read by nobody.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn step_as(&self, buildpack: &str, step: &str, command: &mut Command) -> Result<(), Problem> {
        self.detail(step);
        let (status, reason) = self.run(command).map_err(|problem| match problem {
            Problem::TimedOut { limit, .. } => Problem::TimedOut { limit, step: step.to_owned() },
            other => other,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(Problem::StepFailed {
            buildpack: buildpack.to_owned(),
            step: step.to_owned(),
            status: ended(status),
            reason,
        })
    }
}

/// How a program ended, for people.
#[must_use]
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "killed, most likely because the build's memory limit was reached".to_owned(),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> = std::iter::once(name).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Starts a program, also one that was written a moment ago: a child that another thread is just starting has, until it is
/// executed, whatever this process had open then, and the kernel executes nothing that somebody has open for writing.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut left = BUSY_TRIES;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && left > 0 => {
                left -= 1;
                std::thread::park_timeout(POLL);
            }
            other => return other,
        }
    }
}

fn platform(command: &Command, error: &io::Error) -> Problem {
    Problem::Platform(format!("{} could not be run: {error}", command.get_program().display()))
}

fn kill(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // A group that has ended is what we want.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Prints a whole line at once.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody listens any more: the build goes on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Said once, where the output of a build ends before the build does.
const CUT: &str = "\n-----> The output of this build is cut here: it is larger than is kept. The build goes on.\n";

/// Passes on what a program prints, as long as there is room for it, and reads the rest past. Gives back the end of it.
fn copy(mut reader: impl Read, left: &AtomicU64, show: impl Fn(&[u8])) -> Vec<u8> {
    let mut buffer = [0; 16 << 10];
    let mut end = Vec::new();
    while let Ok(read) = reader.read(&mut buffer) {
        if read == 0 {
            break;
        }
        end.extend_from_slice(&buffer[..read]);
        // Not with every piece: what is kept would be moved each time.
        if end.len() > 2 * reason::LOOKED_AT {
            end.drain(..end.len() - reason::LOOKED_AT);
        }
        let before = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(read as u64)))
            .unwrap_or(0);
        let shown = usize::try_from(before).unwrap_or(usize::MAX).min(read);
        if before > 0 && before <= read as u64 {
            show(&[&buffer[..shown], CUT.as_bytes()].concat());
        } else if shown > 0 {
            show(&buffer[..shown]);
        }
    }
    end
}

fn to_stdout(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn programs_end_well_or_badly() {
        let runner = Runner::new(Duration::from_secs(60), 1 << 20);
        assert!(runner.run(&mut sh("true")).unwrap().0.success());
        let Err(Problem::StepFailed { status, .. }) = runner.step("x", &mut sh("exit 7")) else { panic!() };
        assert_eq!(status, "exit status 7");
        let Err(Problem::StepFailed { status, .. }) = runner.step("x", &mut sh("kill -9 $$")) else { panic!() };
        assert!(status.contains("memory"));
        assert!(matches!(runner.run(&mut Command::new("/absent/program")), Err(Problem::Platform(_))));
        let (status, text, errors) = runner.capture(&mut sh("echo hello; echo why >&2; exit 3")).unwrap();
        assert_eq!((status.code(), text.as_str(), errors.as_str()), (Some(3), "hello\n", "why"));
    }

    #[test]
    fn a_program_that_is_still_open_for_writing_is_waited_for() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        let mut file =
            std::fs::File::options().write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
        file.write_all(b"#!/bin/sh\nexit 3\n").unwrap();
        let closing = std::thread::spawn(move || {
            std::thread::park_timeout(3 * POLL);
            drop(file);
        });
        let runner = Runner::new(Duration::from_secs(60), 1 << 20);
        assert_eq!(runner.run(&mut Command::new(&path)).unwrap().0.code(), Some(3));
        closing.join().unwrap();
    }

    #[test]
    fn a_failure_repeats_what_was_said() {
        let runner = Runner::new(Duration::from_secs(60), 1 << 20);
        let script = "seq 1 500; echo 10%; printf '50%%\\r\\033[31m100%%\\n\\n'; echo no such package >&2; exit 1";
        let Err(problem) = runner.step("x", &mut sh(script)) else { panic!() };
        let text = problem.to_error().text;
        assert!(text.contains("\n496\n497\n498\n499\n500\n10%\n[31m100%\nno such package\n"), "{text}");
        assert!(!text.contains("\n495"), "{text}");
        // However long, and also when nothing of it is shown any more.
        let silent = Runner::new(Duration::from_secs(60), 1);
        let Err(problem) = silent.step("x", &mut sh("head -c 100000 /dev/zero | tr '\\0' x; echo; echo why; exit 1"))
        else {
            panic!()
        };
        let text = problem.to_error().text;
        assert!(text.contains("xxx\nwhy\n") && text.len() < 2000, "{text}");
        let Err(problem) = runner.step("x", &mut sh("exit 1")) else { panic!() };
        assert!(problem.to_error().text.contains("It printed nothing."), "{problem:?}");
    }

    #[test]
    fn a_loop_is_ended_with_its_children() {
        let runner = Runner::new(Duration::ZERO, 1 << 20);
        let ended = runner.step_as("x", "its name", &mut sh("sleep 1000"));
        assert_eq!(ended, Err(Problem::TimedOut { limit: 0, step: "its name".into() }));

        // The time is over when the child is there, however long that takes.
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let ended = runner.supervise_until(|| pid.exists(), &mut sh(&script), |_| {});
        assert!(matches!(ended, Err(Problem::TimedOut { .. })));
        let child = std::fs::read_to_string(&pid).unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        // The signal was sent; the kernel delivers it when it gets to it.
        let patience = Instant::now() + Duration::from_secs(120);
        while !gone() && Instant::now() < patience {
            std::thread::park_timeout(POLL);
        }
        assert!(gone());
    }

    #[test]
    fn output_without_end_is_cut_and_the_program_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let done = directory.path().join("done");
        let runner = Runner::new(Duration::from_secs(60), 1000);
        let script = format!("head -c 20000000 /dev/zero | tr '\\0' x; touch {}", done.display());
        assert!(runner.run(&mut sh(&script)).unwrap().0.success());
        assert!(done.exists());
        assert_eq!(runner.left.load(Ordering::Relaxed), 0);

        // What is seen of it: as much as there is room for, and once that the rest is missing.
        let (left, seen) = (AtomicU64::new(40_000), std::cell::RefCell::new(Vec::new()));
        for _ in 0..2 {
            copy(io::repeat(b'x').take(30_000), &left, |bytes| seen.borrow_mut().extend_from_slice(bytes));
        }
        assert_eq!(String::from_utf8(seen.into_inner()).unwrap(), "x".repeat(40_000) + CUT);
    }

    #[test]
    fn background_process_does_not_hold_the_build() {
        let runner = Runner::new(Duration::from_secs(600), 1 << 20);
        assert!(runner.run(&mut sh("sleep 1000 & exit 0")).unwrap().0.success());
    }
}
