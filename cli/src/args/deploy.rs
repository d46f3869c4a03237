//! Arguments of what brings another version to an app.

use clap::{Args, ValueEnum};

/// How another version takes over from the one that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Instance by instance: the old version serves until the new one does.
    Rolling,
    /// As rolling, but it stops at steps and waits for `slipway continue-deployment`.
    Canary,
    /// The old version is stopped, then the new one is started.
    #[value(alias = "none")]
    Recreate,
}

impl Strategy {
    /// As the API has it; recreating is no deployment.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            Self::Rolling => Some("rolling"),
            Self::Canary => Some("canary"),
            Self::Recreate => None,
        }
    }
}

/// How another version takes over.
#[derive(Args, Clone, Debug, Default)]
pub struct StrategyArgs {
    /// How the new version takes over from one that runs
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub strategy: Option<Strategy>,
    /// Percent of the instances that are new at each step of a canary, such as 10,50
    #[arg(long, value_name = "PERCENTS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100))]
    pub instance_steps: Vec<u32>,
    /// Number of new instances that are started at the same time
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: Option<u32>,
}

/// `restart` and `restage`.
#[derive(Args, Debug)]
pub struct RestartArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// How
    #[command(flatten)]
    pub how: StrategyArgs,
}

/// `rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// Name of the app [default: the one of manifest.yml, else the directory's name]
    #[arg(value_name = "APP")]
    pub name: Option<String>,
    /// Revision to bring back, as `revisions` shows it [default: the newest one that served before the current one]
    #[arg(long, visible_alias = "version", value_name = "NUMBER")]
    pub revision: Option<u64>,
    /// How
    #[command(flatten)]
    pub how: StrategyArgs,
}
