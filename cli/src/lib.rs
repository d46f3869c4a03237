//! The developer's half of the slipway command line: an HTTP client of the v3 API and of nothing else.
//!
//! [`DeveloperCommand`] and [`GlobalOptions`] are clap pieces that a program flattens into its own parser; [`run`] does
//! one command and gives the exit code. [`run_with`] does the same for a whole command line with the outside world
//! (variables, directories, prompts, both outputs) passed in.
//!
//! Data goes to stdout, talk to stderr, so that `url=$(slipway push)` works. Every failure ends with what to do, and
//! its kind decides the exit code ([`Exit`]).

#![forbid(unsafe_code)]

pub mod args;
mod client;
mod commands;
mod environment;
mod error;
mod exit;
mod hints;
mod manifest;
mod manpages;
mod printer;
pub mod program;
mod push;
mod settings;
mod size;
mod under_way;

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use args::{DeveloperCommand, GlobalOptions};
pub use client::ClientError;
pub use environment::{Ask, Environment};
pub use error::{CliError, Target};
pub use exit::Exit;
pub use manifest::ManifestError;
pub use printer::Output;
pub use program::ProgramCommand;
pub use push::{FilesError, PushError};
pub use settings::SettingsError;
pub use size::SizeError;

use printer::Printer;
use under_way::UnderWay;

/// For how long an interrupted command may tell the platform about it.
const LAST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// A parser of the commands of this library alone, for programs that have none of their own.
#[derive(Debug, Parser)]
#[command(name = "slipway", about = "Slipway: push your code and forget the machine", version)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub options: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What the library can do.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process, and it is taken apart at once")]
pub enum CliCommand {
    /// Through the API.
    #[command(flatten)]
    Developer(DeveloperCommand),
    /// By itself.
    #[command(flatten)]
    Program(ProgramCommand),
}

/// Does one command with the process's own outputs. An interrupt (Ctrl-C, SIGTERM) ends it with [`Exit::Interrupted`]:
/// what it was doing is dropped, temporary files included, and what it had begun on the platform is ended or named.
pub async fn run(command: DeveloperCommand, options: GlobalOptions, environment: Environment) -> Exit {
    Box::pin(execute(command, options, environment, Output::of_process(), interrupted)).await
}

/// Does a command about the program itself. `whole` is the program as clap knows it.
#[must_use]
pub fn run_program(what: ProgramCommand, options: GlobalOptions, whole: clap::Command) -> Exit {
    let printer = Printer::new(Output::of_process(), options);
    conclude(program::run(what, whole, &printer), &printer)
}

/// Parses `args` (the program's name first) and does the command, writing to `output`.
///
/// A command line that cannot be understood gives [`Exit::Usage`]; `--help` and `--version` give [`Exit::Success`].
pub async fn run_with<I, T>(args: I, environment: Environment, output: Output) -> Exit
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    run_until(args, environment, output, std::future::pending).await
}

/// As [`run_with`]; interrupted when what `interrupt` gives ends, the first time and once more while it cleans up.
pub async fn run_until<I, T, F, W>(args: I, environment: Environment, mut output: Output, interrupt: F) -> Exit
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
    F: Fn() -> W,
    W: Future<Output = ()>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let whole = program::dressed(Cli::command());
    let parsed = whole.clone().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(Cli { options, command: CliCommand::Developer(command) }) => {
            Box::pin(execute(command, options, environment, output, interrupt)).await
        }
        Ok(Cli { options, command: CliCommand::Program(what) }) => {
            let printer = Printer::new(output, options);
            conclude(program::run(what, whole, &printer), &printer)
        }
        Err(error) => {
            let to = if error.use_stderr() { &mut output.err } else { &mut output.out };
            // Nobody is left to tell when even the explanation cannot be written.
            let _ = write!(to, "{}", program::explain(&error, &whole, &args));
            if error.use_stderr() { Exit::Usage } else { Exit::Success }
        }
    }
}

async fn execute<F, W>(
    command: DeveloperCommand,
    options: GlobalOptions,
    environment: Environment,
    output: Output,
    interrupt: F,
) -> Exit
where
    F: Fn() -> W,
    W: Future<Output = ()>,
{
    let place = options.place.clone();
    let printer = Arc::new(Printer::new(output, options));
    let under_way = UnderWay::default();
    let world = commands::World { environment, place, under_way: under_way.clone() };
    tokio::select! {
        // The command first: one that has finished is not reported as interrupted.
        biased;
        done = Box::pin(commands::dispatch(command, world.clone(), Arc::clone(&printer))) => {
            return conclude(done, &printer);
        }
        () = interrupt() => {}
    }
    let unfinished = under_way.take();
    if unfinished.is_some() || under_way.has_changed() {
        let words = async {
            let session = commands::Session::open(world, Arc::clone(&printer))?;
            under_way::clean_up(unfinished, &session).await
        };
        tokio::select! {
            reported = tokio::time::timeout(LAST_MESSAGE_TIMEOUT, Box::pin(words)) => {
                if !matches!(reported, Ok(Ok(()))) {
                    printer.warn("interrupted, and the platform could not be told; what it was doing goes on there");
                }
            }
            () = interrupt() => {}
        }
    }
    Exit::Interrupted
}

/// The exit code of a command that has ended; a failure is told.
fn conclude(done: Result<Exit, CliError>, printer: &Printer) -> Exit {
    match done {
        Ok(exit) => exit,
        // The reader of the output went away, as `head` does: it has what it wanted.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            let exit = exit::of(&error);
            printer.failure(&error, &hints::of(&error), exit);
            exit
        }
    }
}

/// Ends when the process is asked to stop.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let interrupted = async {
        // Without a handler the signal keeps its default effect, which ends the process as well.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminated => {}
        () = interrupted => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_each_command_once() {
        assert_eq!(super::program::misplaced(&super::Cli::command()), Vec::<String>::new());
    }
}
