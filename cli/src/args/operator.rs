//! Arguments of the commands about people, limits, buildpacks and the platform as a whole.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Deletes something by its name.
#[derive(Args, Debug)]
pub struct DeleteNamedArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `create-domain`.
#[derive(Args, Debug)]
pub struct DomainArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    pub name: String,
    /// For all orgs, not for the targeted one alone; administrators only
    #[arg(long)]
    pub shared: bool,
}

/// `share-domain` and `unshare-domain`.
#[derive(Args, Debug)]
pub struct ShareDomainArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    pub name: String,
    /// The other org
    #[arg(value_name = "ORG")]
    pub org: String,
}

/// `create-user`.
#[derive(Args)]
pub struct CreateUserArgs {
    /// Name of the user
    #[arg(value_name = "USER")]
    pub name: String,
    /// Password. Other users of this machine can read it in the list of processes: type it when asked, pipe it in, or set SLIPWAY_NEW_PASSWORD
    #[arg(short, long)]
    pub password: Option<String>,
    /// Identity provider that checks the user's password, if it is not this platform
    #[arg(long)]
    pub origin: Option<String>,
}

impl std::fmt::Debug for CreateUserArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateUserArgs").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a user may do, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UserRole {
    /// Is in the org, and sees nothing of it.
    OrgUser,
    /// Manages the org, its people and its spaces.
    OrgManager,
    /// Sees everything of the org.
    OrgAuditor,
    /// Sees what the org uses.
    OrgBillingManager,
    /// Pushes and changes apps of the space.
    SpaceDeveloper,
    /// Manages the space and its people.
    SpaceManager,
    /// Looks after running apps of the space, and changes nothing else.
    SpaceSupporter,
    /// Sees everything of the space.
    SpaceAuditor,
}

impl UserRole {
    /// As the API has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::OrgUser => "organization_user",
            Self::OrgManager => "organization_manager",
            Self::OrgAuditor => "organization_auditor",
            Self::OrgBillingManager => "organization_billing_manager",
            Self::SpaceDeveloper => "space_developer",
            Self::SpaceManager => "space_manager",
            Self::SpaceSupporter => "space_supporter",
            Self::SpaceAuditor => "space_auditor",
        }
    }

    /// As this command line has it, from the API's word.
    pub(crate) fn shown(word: &str) -> String {
        word.replace("organization_", "org_").replace('_', "-")
    }

    /// Whether it is one of a space.
    pub(crate) fn is_of_space(self) -> bool {
        self.word().starts_with("space_")
    }
}

/// `set-role` and `unset-role`.
#[derive(Args, Debug)]
pub struct RoleArgs {
    /// Name of the user
    #[arg(value_name = "USER")]
    pub user: String,
    /// The role
    #[arg(value_enum, value_name = "ROLE")]
    pub role: UserRole,
    /// Where [default: what is targeted]
    #[arg(value_name = "ORG[/SPACE]")]
    pub at: Option<String>,
    /// Identity provider of the user; needed when several users have this name
    #[arg(long)]
    pub origin: Option<String>,
}

/// Where a buildpack stands and what holds for it.
#[derive(Args, Debug)]
pub struct BuildpackArgs {
    /// Position in the order in which buildpacks are tried, from 1
    #[arg(short = 'i', long, value_name = "POSITION", value_parser = clap::value_parser!(u32).range(1..))]
    pub position: Option<u32>,
    /// Stack that it is for
    #[arg(short = 's', long)]
    pub stack: Option<String>,
}

/// `create-buildpack`.
#[derive(Args, Debug)]
pub struct CreateBuildpackArgs {
    /// Name of the buildpack
    #[arg(value_name = "BUILDPACK")]
    pub name: String,
    /// A .zip file, or a directory with bin/detect and either bin/compile or both bin/supply and bin/finalize
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Where it stands
    #[command(flatten)]
    pub settings: BuildpackArgs,
    /// Create it disabled: builds do not use it yet
    #[arg(long)]
    pub disable: bool,
}

/// `update-buildpack`.
#[derive(Args, Debug)]
pub struct UpdateBuildpackArgs {
    /// Name of the buildpack
    #[arg(value_name = "BUILDPACK")]
    pub name: String,
    /// A .zip file or a directory with its new files
    #[arg(short, long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Where it stands
    #[command(flatten)]
    pub settings: BuildpackArgs,
    /// New name
    #[arg(long, value_name = "NAME")]
    pub rename: Option<String>,
    /// Builds may use it
    #[arg(long, conflicts_with = "disable")]
    pub enable: bool,
    /// No build may use it
    #[arg(long)]
    pub disable: bool,
    /// Its files cannot be replaced
    #[arg(long, conflicts_with = "unlock")]
    pub lock: bool,
    /// Its files can be replaced
    #[arg(long)]
    pub unlock: bool,
}

/// What a quota allows; what is not given stays as it is, `unlimited` takes a limit away.
#[derive(Args, Debug, Default)]
pub struct QuotaLimits {
    /// Memory of all instances together (10G)
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Memory of one instance (1G)
    #[arg(short = 'i', long, value_name = "SIZE")]
    pub instance_memory: Option<String>,
    /// Instances of all apps together
    #[arg(short = 'a', long, value_name = "COUNT")]
    pub app_instances: Option<String>,
    /// Tasks of one app at a time
    #[arg(long, value_name = "COUNT")]
    pub app_tasks: Option<String>,
    /// Bytes of log lines in a second, of all instances together (16K)
    #[arg(short = 'l', long, value_name = "SIZE")]
    pub log_rate: Option<String>,
    /// Routes
    #[arg(short = 'r', long, value_name = "COUNT")]
    pub routes: Option<String>,
    /// Services
    #[arg(short = 's', long, value_name = "COUNT")]
    pub services: Option<String>,
    /// Number of domains; only a quota for orgs has it
    #[arg(long, value_name = "COUNT")]
    pub domains: Option<String>,
}

/// `create-quota` and `update-quota`.
#[derive(Args, Debug)]
pub struct QuotaArgs {
    /// Name of the quota
    #[arg(value_name = "QUOTA")]
    pub name: String,
    /// A quota for spaces of the targeted org, not for orgs
    #[arg(long)]
    pub space: bool,
    /// What it allows
    #[command(flatten)]
    pub limits: QuotaLimits,
}

/// `set-quota`.
#[derive(Args, Debug)]
pub struct SetQuotaArgs {
    /// An org, or a space of one
    #[arg(value_name = "ORG[/SPACE]")]
    pub at: String,
    /// Name of the quota; `none` removes the quota of a space
    #[arg(value_name = "QUOTA")]
    pub quota: String,
}

/// `create-security-group` and `update-security-group`.
#[derive(Args, Debug)]
pub struct RulesArgs {
    /// Name of the group
    #[arg(value_name = "GROUP")]
    pub name: String,
    /// JSON file with a list of rules: protocol, destination, ports
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// For what of a space a security group holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lifecycle {
    /// Apps and tasks.
    #[default]
    Running,
    /// Builds.
    Staging,
}

impl Lifecycle {
    /// As the API has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Staging => "staging",
        }
    }
}

/// `bind-security-group` and `unbind-security-group`.
#[derive(Args, Debug)]
pub struct BindSecurityGroupArgs {
    /// Name of the group
    #[arg(value_name = "GROUP")]
    pub name: String,
    /// A space [default: the targeted one]
    #[arg(value_name = "ORG/SPACE", conflicts_with = "everywhere")]
    pub at: Option<String>,
    /// In every space
    #[arg(long)]
    pub everywhere: bool,
    /// Whether it applies to running apps or to builds
    #[arg(long, value_enum, default_value = "running")]
    pub lifecycle: Lifecycle,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlagState {
    /// Everybody may.
    On,
    /// Administrators only may.
    Off,
}

/// `set-feature-flag`.
#[derive(Args, Debug)]
pub struct FlagArgs {
    /// Name of the flag, as `feature-flags` shows it
    #[arg(value_name = "FLAG")]
    pub name: String,
    /// What it shall be
    #[arg(value_enum, value_name = "STATE")]
    pub state: FlagState,
}

/// Whose variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupPhase {
    /// Of all apps and tasks.
    Running,
    /// Of all builds.
    Staging,
}

impl GroupPhase {
    /// As the API has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Staging => "staging",
        }
    }
}

/// `env-group`.
#[derive(Args, Debug)]
pub struct GroupArgs {
    /// Whose variables
    #[arg(value_enum)]
    pub group: GroupPhase,
}

/// `set-env-group`.
#[derive(Args, Debug)]
pub struct SetGroupArgs {
    /// Whose variables
    #[arg(value_enum)]
    pub group: GroupPhase,
    /// Variables; one without `=` is removed
    #[arg(value_name = "NAME=VALUE", required = true)]
    pub variables: Vec<String>,
}
