//! The command line as clap reads it. Names, short names and flags are those of the `cf` command line.

mod apps;
mod push;
mod spaces;

use clap::{Args, Subcommand};

pub use apps::{
    AppArgs, AppsArgs, DeleteArgs, EnvArgs, InstanceArgs, LogsArgs, RunTaskArgs, ScaleArgs, SetEnvArgs, UnsetEnvArgs,
};
#[cfg(test)]
pub(crate) use push::HealthCheck;
pub use push::PushArgs;
pub use spaces::{
    AppProtocol, CreateOrgArgs, CreateSpaceArgs, CurlArgs, DeleteRouteArgs, LoginArgs, MapRouteArgs, MappingArgs,
    RouteArgs, TargetArgs,
};

/// Flags that every command takes.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct GlobalOptions {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print data and failures only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show each request (never tokens or bodies)
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Do not draw progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// What a developer can do.
#[derive(Debug, Subcommand)]
pub enum DeveloperCommand {
    /// Log in to a platform
    #[command(visible_alias = "l")]
    Login(LoginArgs),
    /// Forget the stored login
    #[command(visible_alias = "lo")]
    Logout,
    /// Show or choose the org and space that commands work on
    #[command(visible_alias = "t")]
    Target(TargetArgs),
    /// List orgs
    #[command(visible_alias = "o")]
    Orgs,
    /// List the spaces of the targeted org
    Spaces,
    /// Make an org
    #[command(visible_alias = "co")]
    CreateOrg(CreateOrgArgs),
    /// Make a space
    #[command(visible_alias = "csp")]
    CreateSpace(CreateSpaceArgs),
    /// Push an app: upload, stage, start, route
    #[command(visible_alias = "p")]
    Push(Box<PushArgs>),
    /// List the apps of the targeted space
    #[command(visible_alias = "a")]
    Apps(AppsArgs),
    /// Show one app and its instances
    App(AppArgs),
    /// Start an app
    #[command(visible_alias = "st")]
    Start(AppArgs),
    /// Stop an app
    #[command(visible_alias = "sp")]
    Stop(AppArgs),
    /// Stop and start an app
    #[command(visible_alias = "rs")]
    Restart(AppArgs),
    /// Stage the newest package again and restart
    #[command(visible_alias = "rg")]
    Restage(AppArgs),
    /// Show or change instances, memory and disk
    Scale(ScaleArgs),
    /// Delete an app
    #[command(visible_alias = "d")]
    Delete(DeleteArgs),
    /// Show an app's logs as they come, or the last lines
    Logs(LogsArgs),
    /// Show an app's environment variables
    #[command(visible_alias = "e")]
    Env(EnvArgs),
    /// Set an environment variable
    #[command(visible_alias = "se")]
    SetEnv(SetEnvArgs),
    /// Remove an environment variable
    #[command(visible_alias = "ue")]
    UnsetEnv(UnsetEnvArgs),
    /// List the routes of the targeted space
    #[command(visible_alias = "r")]
    Routes,
    /// Make a route
    CreateRoute(RouteArgs),
    /// Let a route lead to an app; makes the route when needed
    MapRoute(MapRouteArgs),
    /// Let a route no longer lead to an app
    UnmapRoute(MappingArgs),
    /// Delete a route
    DeleteRoute(DeleteRouteArgs),
    /// List the domains of the targeted org
    Domains,
    /// Show what happened to an app
    Events(AppArgs),
    /// Replace one instance of an app
    RestartAppInstance(InstanceArgs),
    /// Run a command once, with the app's droplet
    #[command(visible_alias = "rt")]
    RunTask(RunTaskArgs),
    /// List the tasks of an app
    Tasks(AppArgs),
    /// List buildpacks
    Buildpacks,
    /// List stacks
    Stacks,
    /// Send a request to the API with the stored token
    Curl(CurlArgs),
}
