//! The developer's half of the slipway command line: an HTTP client of the v3 API and of nothing else.
//!
//! [`DeveloperCommand`] and [`GlobalOptions`] are clap pieces that a program flattens into its own parser; [`run`] does
//! one command and gives the exit code. [`run_with`] does the same for a whole command line with the outside world
//! (variables, directories, prompts, both outputs) passed in.
//!
//! Data goes to stdout, talk to stderr, so that `url=$(slipway push)` works. Every failure ends with what to do, and
//! its kind decides the exit code ([`Exit`]).

pub mod args;
mod client;
mod commands;
mod environment;
mod error;
mod exit;
mod hints;
mod manifest;
mod printer;
mod push;
mod settings;
mod size;

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::Arc;

use clap::Parser;

pub use args::{DeveloperCommand, GlobalOptions};
pub use client::ClientError;
pub use environment::{Ask, Environment};
pub use error::{CliError, Target};
pub use exit::Exit;
pub use manifest::ManifestError;
pub use printer::Output;
pub use push::{FilesError, PushError};
pub use settings::SettingsError;
pub use size::SizeError;

use printer::Printer;

/// A parser of the developer commands alone, for programs that have no commands of their own.
#[derive(Debug, Parser)]
#[command(name = "slipway", about = "Push apps and look after them", version)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub options: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: DeveloperCommand,
}

/// Does one command with the process's own outputs. An interrupt (Ctrl-C, SIGTERM) ends it with [`Exit::Interrupted`]
/// and drops what it was doing, temporary files included.
pub async fn run(command: DeveloperCommand, options: GlobalOptions, environment: Environment) -> Exit {
    let output = Output {
        out: Box::new(std::io::stdout()),
        err: Box::new(std::io::stderr()),
        terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    tokio::select! {
        // The command first: one that has finished is not reported as interrupted.
        biased;
        exit = Box::pin(execute(command, options, environment, output)) => exit,
        () = interrupted() => Exit::Interrupted,
    }
}

/// Parses `args` (the program's name first) and does the command, writing to `output`.
///
/// A command line that cannot be understood gives [`Exit::Usage`]; `--help` and `--version` give [`Exit::Success`].
pub async fn run_with<I, T>(args: I, environment: Environment, mut output: Output) -> Exit
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match Cli::try_parse_from(args) {
        Ok(cli) => Box::pin(execute(cli.command, cli.options, environment, output)).await,
        Err(error) => {
            let to = if error.use_stderr() { &mut output.err } else { &mut output.out };
            // Nobody is left to tell when even the explanation cannot be written.
            let _ = write!(to, "{error}");
            if error.use_stderr() { Exit::Usage } else { Exit::Success }
        }
    }
}

async fn execute(command: DeveloperCommand, options: GlobalOptions, environment: Environment, output: Output) -> Exit {
    let printer = Arc::new(Printer::new(output, options));
    match commands::dispatch(command, environment, Arc::clone(&printer)).await {
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
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
