//! Arguments of the commands about apps.

use clap::Args;

use super::push::HealthCheck;

/// A command about one app.
#[derive(Args, Debug)]
pub struct AppArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
}

/// `apps`.
#[derive(Args, Debug)]
pub struct AppsArgs {
    /// Do not ask how many instances run
    #[arg(long)]
    pub no_stats: bool,
}

/// `scale`.
#[derive(Args, Debug)]
pub struct ScaleArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Process to scale
    #[arg(short = 'p', long, default_value = "web")]
    pub process: String,
    /// Number of instances
    #[arg(short, long)]
    pub instances: Option<u32>,
    /// Memory of each instance (256M, 1G); restarts the app when it changes
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Disk of each instance (512M, 1G); restarts the app when it changes
    #[arg(short = 'k', long)]
    pub disk: Option<String>,
    /// Restart without asking
    #[arg(short, long)]
    pub force: bool,
}

/// `rename`.
#[derive(Args, Debug)]
pub struct RenameArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    pub new: String,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Delete its routes as well
    #[arg(short, long)]
    pub routes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `set-health-check`.
#[derive(Args, Debug)]
pub struct HealthCheckArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Kind of check
    #[arg(value_enum, value_name = "TYPE")]
    pub kind: HealthCheck,
    /// Process that is checked
    #[arg(short = 'p', long, default_value = "web")]
    pub process: String,
    /// Path of an HTTP check
    #[arg(long, value_name = "PATH")]
    pub endpoint: Option<String>,
    /// Seconds that one answer may take
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub invocation_timeout: Option<u32>,
}

/// `create-app-manifest`.
#[derive(Args, Debug)]
pub struct ManifestArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// File to write in place of standard output
    #[arg(short, long, value_name = "FILE")]
    pub path: Option<std::path::PathBuf>,
}

/// `events`.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Also show events that changed nothing, such as reading the variables
    #[arg(long)]
    pub all: bool,
}

/// `logs`. Without a flag it shows the last 20 lines and follows.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Show the last lines and end
    #[arg(long)]
    pub recent: bool,
    /// Number of earlier lines to show first (at most 1000); with -f, 0 shows new lines only [default with -f: 20]
    #[arg(short = 'n', long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub lines: Option<u32>,
    /// Only lines of the last while (30s, 10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only lines of these sources: app, rtr, stg, task, cell, api; several with commas
    #[arg(long, value_name = "SOURCE", value_delimiter = ',')]
    pub source: Vec<String>,
    /// Go on with lines as they come, after those that --recent, -n or --since show
    #[arg(short, long, alias = "tail", short_alias = 't')]
    pub follow: bool,
}

/// `set-env`.
#[derive(Args, Debug)]
pub struct SetEnvArgs {
    /// APP NAME=VALUE …, or APP NAME VALUE; without APP, the app of manifest.yml is meant, otherwise the one named as the directory
    #[arg(value_name = "APP NAME=VALUE", required = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// `unset-env`.
#[derive(Args, Debug)]
pub struct UnsetEnvArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Names of the variables
    #[arg(value_name = "NAME", required = true)]
    pub variables: Vec<String>,
}

/// `restart-app-instance`.
#[derive(Args, Debug)]
pub struct InstanceArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Index of the instance
    pub index: u32,
    /// Process type
    #[arg(long, default_value = "web")]
    pub process: String,
}

/// `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Memory (256M, 1G)
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Disk (512M, 1G)
    #[arg(short = 'k', long)]
    pub disk: Option<String>,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `run-task`.
#[derive(Args, Debug)]
pub struct RunTaskArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// The command, as one string for a shell
    #[arg(value_name = "COMMAND", required_unless_present = "flag_command", conflicts_with = "flag_command")]
    pub command: Option<String>,
    /// The command, as one string for a shell
    #[arg(id = "flag_command", short, long = "command", value_name = "COMMAND", allow_hyphen_values = true)]
    pub flag_command: Option<String>,
    /// Name of the task
    #[arg(long = "name")]
    pub task: Option<String>,
    /// Memory (256M, 1G)
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Disk (512M, 1G)
    #[arg(short = 'k', long)]
    pub disk: Option<String>,
    /// Show its output and wait until it ends
    #[arg(short, long)]
    pub wait: bool,
}

/// `terminate-task`.
#[derive(Args, Debug)]
pub struct TerminateTaskArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Number of the task, as `tasks` shows it
    #[arg(value_name = "ID")]
    pub id: u64,
}
