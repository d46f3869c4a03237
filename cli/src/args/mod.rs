//! The command line as clap reads it. Names, short names and flags are those of the `cf` command line where it has them.

mod apps;
mod deploy;
mod operator;
mod push;
mod services;
mod spaces;

use clap::{Args, Subcommand};

pub use apps::{
    AppArgs, AppsArgs, DeleteArgs, EventsArgs, HealthCheckArgs, InstanceArgs, LogsArgs, ManifestArgs, RenameArgs,
    RunArgs, RunTaskArgs, ScaleArgs, SetEnvArgs, TerminateTaskArgs, UnsetEnvArgs,
};
pub use deploy::{RestartArgs, RollbackArgs, Strategy, StrategyArgs};
pub use operator::{
    BindSecurityGroupArgs, BuildpackArgs, CreateBuildpackArgs, CreateUserArgs, DeleteNamedArgs, DomainArgs, FlagArgs,
    FlagState, GroupArgs, GroupPhase, Lifecycle, QuotaArgs, QuotaLimits, RoleArgs, RulesArgs, SetGroupArgs,
    SetQuotaArgs, ShareDomainArgs, UpdateBuildpackArgs, UserRole,
};
pub(crate) use push::HealthCheck;
pub use push::PushArgs;
pub use services::{BindServiceArgs, RouteServiceArgs, ServiceArgs, UnbindServiceArgs, UserProvidedArgs};
pub use spaces::{
    AppProtocol, CreateOrgArgs, CreateSpaceArgs, CurlArgs, DeleteRouteArgs, LoginArgs, MapRouteArgs, MappingArgs,
    NamedArgs, RenameThingArgs, RouteArgs, TargetArgs,
};

/// Flags that every command takes.
#[derive(Args, Clone, Debug, Default)]
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
    /// Org and space for this command only; also in SLIPWAY_TARGET
    #[arg(long = "target", global = true, value_name = "ORG/SPACE")]
    pub place: Option<String>,
}

/// What a developer, or whoever looks after orgs, people and limits, can do through the API.
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
    /// Set a new password for yourself
    Passwd,

    /// Push an app: upload, build, start, route
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
    /// Stop and start an app, or replace its instances one by one
    #[command(visible_alias = "rs")]
    Restart(RestartArgs),
    /// Build the newest package of an app again, and run the app with the new droplet
    #[command(visible_alias = "rg")]
    Restage(RestartArgs),
    /// Show or change instances, memory and disk
    Scale(ScaleArgs),
    /// Give an app another name
    Rename(RenameArgs),
    /// Delete an app
    #[command(visible_alias = "d")]
    Delete(DeleteArgs),
    /// Choose how the platform asks whether an app is well
    SetHealthCheck(HealthCheckArgs),
    /// Write the manifest of an app as it is now
    CreateAppManifest(ManifestArgs),
    /// Replace one instance of an app
    RestartAppInstance(InstanceArgs),

    /// Show the last lines of an app's log, and lines as they come
    Logs(LogsArgs),
    /// Show what happened to an app
    Events(EventsArgs),
    /// Run a command with the app's files and show its output
    Run(RunArgs),
    /// Run a command with the app's files, in the background
    #[command(visible_alias = "rt")]
    RunTask(RunTaskArgs),
    /// List the tasks of an app
    Tasks(AppArgs),
    /// End a task
    TerminateTask(TerminateTaskArgs),

    /// List the versions of an app that can be brought back
    Revisions(AppArgs),
    /// Bring an earlier version of an app back
    Rollback(RollbackArgs),
    /// Give a deployment up: the old version serves again
    CancelDeployment(AppArgs),
    /// Let a canary go on to its next step
    ContinueDeployment(AppArgs),

    /// Show an app's environment variables
    #[command(visible_alias = "e")]
    Env(AppArgs),
    /// Set environment variables
    #[command(visible_alias = "se")]
    SetEnv(SetEnvArgs),
    /// Remove environment variables
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
    /// Delete the routes of the targeted space that lead nowhere
    DeleteOrphanedRoutes(DeleteOrphanedRoutesArgs),
    /// List the domains of the targeted org
    Domains,
    /// Make a domain of the targeted org, or of all orgs
    CreateDomain(DomainArgs),
    /// Delete a domain with all its routes
    DeleteDomain(DeleteNamedArgs),
    /// Let another org use a domain of the targeted org
    ShareDomain(ShareDomainArgs),
    /// Stop sharing a domain with another org
    UnshareDomain(ShareDomainArgs),

    /// List the services of the targeted space
    #[command(visible_alias = "s")]
    Services,
    /// Show a service and what is bound to it
    Service(ServiceArgs),
    /// Make a service out of credentials, a log drain or a route service of your own
    #[command(visible_alias = "cups")]
    CreateUserProvidedService(UserProvidedArgs),
    /// Change a service of your own
    #[command(visible_alias = "uups")]
    UpdateUserProvidedService(UserProvidedArgs),
    /// Delete a service
    #[command(visible_alias = "ds")]
    DeleteService(DeleteNamedArgs),
    /// Give an app the credentials of a service
    #[command(visible_alias = "bs")]
    BindService(BindServiceArgs),
    /// Take the credentials of a service from an app
    #[command(visible_alias = "us")]
    UnbindService(UnbindServiceArgs),
    /// Send the requests of a route through a service
    BindRouteService(RouteServiceArgs),
    /// Stop sending the requests of a route through a service
    UnbindRouteService(RouteServiceArgs),

    /// List orgs
    #[command(visible_alias = "o")]
    Orgs,
    /// Show one org
    Org(NamedArgs),
    /// Make an org
    #[command(visible_alias = "co")]
    CreateOrg(CreateOrgArgs),
    /// Give an org another name
    RenameOrg(RenameThingArgs),
    /// Delete an org with everything in it
    DeleteOrg(DeleteNamedArgs),
    /// List the spaces of the targeted org
    Spaces,
    /// Show one space
    Space(NamedArgs),
    /// Make a space
    #[command(visible_alias = "csp")]
    CreateSpace(CreateSpaceArgs),
    /// Give a space of the targeted org another name
    RenameSpace(RenameThingArgs),
    /// Delete a space with everything in it
    DeleteSpace(DeleteNamedArgs),

    /// List users
    Users,
    /// Make a user
    CreateUser(CreateUserArgs),
    /// Delete a user
    DeleteUser(DeleteNamedArgs),
    /// List who has which role in the targeted org and its spaces
    Roles,
    /// Give a user a role
    SetRole(RoleArgs),
    /// Take a role from a user
    UnsetRole(RoleArgs),

    /// List buildpacks
    Buildpacks,
    /// Upload a buildpack
    CreateBuildpack(CreateBuildpackArgs),
    /// Change a buildpack
    UpdateBuildpack(UpdateBuildpackArgs),
    /// Delete a buildpack
    DeleteBuildpack(DeleteNamedArgs),
    /// List stacks
    Stacks,
    /// Delete the build cache of one app, or of all apps
    ClearCache(ClearCacheArgs),

    /// List the quotas of orgs, and of the targeted org's spaces
    Quotas,
    /// Make a quota
    CreateQuota(QuotaArgs),
    /// Change a quota
    UpdateQuota(QuotaArgs),
    /// Delete a quota
    DeleteQuota(DeleteQuotaArgs),
    /// Put an org or a space under a quota
    SetQuota(SetQuotaArgs),
    /// List security groups
    SecurityGroups,
    /// Show the rules of a security group
    SecurityGroup(NamedArgs),
    /// Make a security group from a file of rules
    CreateSecurityGroup(RulesArgs),
    /// Replace the rules of a security group
    UpdateSecurityGroup(RulesArgs),
    /// Delete a security group
    DeleteSecurityGroup(DeleteNamedArgs),
    /// Apply a security group to a space, or to every space
    BindSecurityGroup(BindSecurityGroupArgs),
    /// Stop applying a security group to a space, or everywhere
    UnbindSecurityGroup(BindSecurityGroupArgs),
    /// List feature flags
    FeatureFlags,
    /// Switch a feature flag
    SetFeatureFlag(FlagArgs),
    /// Show the environment variables of all apps, or of all builds
    EnvGroup(GroupArgs),
    /// Set or remove environment variables of all apps, or of all builds
    SetEnvGroup(SetGroupArgs),

    /// Send a request to the API with the stored token
    Curl(CurlArgs),
}

/// `delete-orphaned-routes`.
#[derive(Args, Debug)]
pub struct DeleteOrphanedRoutesArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `clear-cache`.
#[derive(Args, Debug)]
pub struct ClearCacheArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Of all apps of the platform
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// `delete-quota`.
#[derive(Args, Debug)]
pub struct DeleteQuotaArgs {
    /// Name of the quota
    #[arg(value_name = "QUOTA")]
    pub name: String,
    /// A quota for spaces of the targeted org
    #[arg(long)]
    pub space: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}
