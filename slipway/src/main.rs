//! The one shipped program: `slipway controller | cell | router | up | down | status | stack build | push | …`.

mod local;
mod servers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slipway_cli::{DeveloperCommand, GlobalOptions};

/// Push your code and forget the machine.
#[derive(Parser)]
#[command(name = "slipway", version, about, max_term_width = 100)]
struct Program {
    #[command(flatten)]
    globals: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Platform(servers::PlatformCommand),
    #[command(flatten)]
    Developer(DeveloperCommand),
}

fn main() -> ExitCode {
    // One crypto provider for every TLS user in this program; there is no second caller that could have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let program = Program::parse();
    match program.command {
        Command::Platform(command) => servers::run(command, &program.globals),
        Command::Developer(command) => local::run_developer(command, program.globals),
    }
}
