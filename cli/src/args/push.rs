//! Arguments of `push`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::deploy::StrategyArgs;

/// `push`. Flags win over the manifest.
#[derive(Args, Clone, Debug, Default)]
pub struct PushArgs {
    /// Name of the app; chooses one of a manifest's apps [default: all of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Directory, or .zip, .jar or .war file of the app
    #[arg(short, long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Start command; 'null' goes back to the buildpack's own
    #[arg(short, long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub command: Option<String>,
    /// Buildpack; may be repeated, 'null' chooses by detection
    #[arg(short, long = "buildpack", value_name = "BUILDPACK")]
    pub buildpacks: Vec<String>,
    /// Number of instances
    #[arg(short, long, value_name = "INSTANCES")]
    pub instances: Option<u32>,
    /// Memory of each instance (256M, 1G)
    #[arg(short, long, value_name = "MEMORY")]
    pub memory: Option<String>,
    /// Disk of each instance (512M, 1G)
    #[arg(short = 'k', long, value_name = "DISK")]
    pub disk: Option<String>,
    /// Stack
    #[arg(short, long, value_name = "STACK")]
    pub stack: Option<String>,
    /// Manifest file, or a directory with one
    #[arg(short = 'f', value_name = "FILE", conflicts_with = "no_manifest")]
    pub manifest: Option<PathBuf>,
    /// Health check of the web process
    #[arg(short = 'u', long, value_enum, value_name = "TYPE")]
    pub health_check_type: Option<HealthCheck>,
    /// Seconds that a start may take
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: Option<u32>,
    /// Path of an HTTP health check
    #[arg(long, value_name = "PATH")]
    pub endpoint: Option<String>,
    /// Upload only: do not build, do not start; an app that runs is stopped
    #[arg(long)]
    pub no_start: bool,
    /// Give the app no route, and unmap those it has. For this push only; 'no-route: true' in the manifest applies to every push
    #[arg(long, conflicts_with = "random_route")]
    pub no_route: bool,
    /// Give the app a route of random words when it has none
    #[arg(long)]
    pub random_route: bool,
    /// Value for ((NAME)) in the manifest; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// YAML file with values for the manifest; may be repeated, the last one wins
    #[arg(long = "vars-file", value_name = "FILE")]
    pub variable_files: Vec<PathBuf>,
    /// Do not read manifest.yml
    #[arg(long)]
    pub no_manifest: bool,
    /// End when the first web instance runs, without waiting for the others
    #[arg(long)]
    pub no_wait: bool,
    /// How the new version takes over; rolling when the app runs
    #[command(flatten)]
    pub how: StrategyArgs,
}

/// Kinds of health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HealthCheck {
    /// The port accepts connections.
    Port,
    /// A path answers with 200.
    Http,
    /// The process runs.
    #[value(alias = "none")]
    Process,
}

impl HealthCheck {
    /// As the manifest writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Http => "http",
            Self::Process => "process",
        }
    }
}

impl PushArgs {
    /// Whether a flag is given that can be meant for one app only.
    #[must_use]
    pub fn has_app_flags(&self) -> bool {
        self.path.is_some()
            || self.command.is_some()
            || !self.buildpacks.is_empty()
            || self.instances.is_some()
            || self.memory.is_some()
            || self.disk.is_some()
            || self.stack.is_some()
            || self.health_check_type.is_some()
            || self.timeout.is_some()
            || self.endpoint.is_some()
            || self.no_route
            || self.random_route
    }
}
