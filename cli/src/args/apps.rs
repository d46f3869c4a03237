//! Arguments of the commands about apps.

use clap::Args;

/// A command about one app.
#[derive(Args, Debug)]
pub struct AppArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
}

/// `apps`.
#[derive(Args, Debug)]
pub struct AppsArgs {
    /// Do not ask how many instances run
    #[arg(long)]
    pub no_stats: bool,
}

/// `env`.
pub type EnvArgs = AppArgs;

/// `scale`.
#[derive(Args, Debug)]
pub struct ScaleArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Process to scale
    #[arg(short = 'p', long, default_value = "web")]
    pub process: String,
    /// Number of instances
    #[arg(short)]
    pub instances: Option<u32>,
    /// Memory of each instance (256M, 1G); restarts the app
    #[arg(short)]
    pub memory: Option<String>,
    /// Disk of each instance (512M, 1G); restarts the app
    #[arg(short = 'k')]
    pub disk: Option<String>,
    /// Restart without asking
    #[arg(short, long)]
    pub force: bool,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Delete its routes as well
    #[arg(short)]
    pub routes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Show the last lines and end
    #[arg(long)]
    pub recent: bool,
}

/// `set-env`.
#[derive(Args, Debug)]
pub struct SetEnvArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Name of the variable
    pub variable: String,
    /// Its value
    #[arg(allow_hyphen_values = true)]
    pub value: String,
}

/// `unset-env`.
#[derive(Args, Debug)]
pub struct UnsetEnvArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// Name of the variable
    pub variable: String,
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

/// `run-task`.
#[derive(Args, Debug)]
pub struct RunTaskArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// The command
    #[arg(short, long, allow_hyphen_values = true)]
    pub command: String,
    /// Name of the task
    #[arg(long = "name")]
    pub task: Option<String>,
    /// Memory (256M, 1G)
    #[arg(short)]
    pub memory: Option<String>,
    /// Disk (512M, 1G)
    #[arg(short = 'k')]
    pub disk: Option<String>,
    /// Wait until it ends
    #[arg(short, long)]
    pub wait: bool,
}
