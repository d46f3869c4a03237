//! Running tools: output goes to a log file, and a failure shows its end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not installed.
    #[error("{program} is not installed; install the Debian package {package} and try again")]
    Missing {
        /// The program.
        program: String,
        /// Where it comes from.
        package: &'static str,
    },
    /// It could not be started or waited for.
    #[error("{program} could not be run")]
    Io {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("{program} failed with {status}; the whole output is in {}:\n{tail}", log.display())]
    Failed {
        /// The program.
        program: String,
        /// As it ended.
        status: std::process::ExitStatus,
        /// Last lines of its output.
        tail: String,
        /// All of its output.
        log: PathBuf,
    },
}

/// Package of Debian that has a program.
fn package_of(program: &str) -> &'static str {
    match program {
        "mmdebstrap" => "mmdebstrap",
        "curl" => "curl",
        _ => "util-linux",
    }
}

/// Runs a command to its end with its output appended to `log`, and `input` as its standard input.
pub(crate) fn run(command: &mut Command, input: Option<&str>, log: &Path) -> Result<(), RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => RunError::Missing { program: program.clone(), package: package_of(&program) },
        _ => RunError::Io { program: program.clone(), source },
    };
    let output = OpenOptions::new().create(true).append(true).open(log).map_err(io)?;
    let start = output.metadata().map_err(io)?.len();
    command.stdout(output.try_clone().map_err(io)?).stderr(output);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(io)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A tool that does not read its input says so by its status.
        let _ = stdin.write_all(text.as_bytes());
    }
    let status = child.wait().map_err(io)?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).unwrap_or_default();
    let text =
        String::from_utf8_lossy(text.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(25)..].join("\n");
    Err(RunError::Failed { program, status, tail, log: log.to_owned() })
}

/// A command in mount and process namespaces of its own: whatever it mounts and starts ends with it, also when it or this
/// program is killed. Otherwise a killed run would go on writing below the next one.
pub(crate) fn contained(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        run(Command::new("sh").args(["-c", "cat"]), Some("hello"), &log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "hello");
        let error = run(Command::new("sh").args(["-c", "echo because; exit 3"]), None, &log).unwrap_err();
        assert!(error.to_string().contains("because") && !error.to_string().contains("hello"), "{error}");
        let error = run(&mut Command::new("slipway-no-such-program"), None, &log).unwrap_err();
        assert!(matches!(error, RunError::Missing { .. }));
    }
}
