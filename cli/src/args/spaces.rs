//! Arguments of the commands about logins, orgs, spaces and routes.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `login`.
#[derive(Args)]
pub struct LoginArgs {
    /// Address of the API
    #[arg(value_name = "API")]
    pub address: Option<String>,
    /// Address of the API
    #[arg(short, value_name = "API", conflicts_with = "address")]
    pub api: Option<String>,
    /// User name
    #[arg(short)]
    pub user: Option<String>,
    /// Password. Other users of this machine can read it in the list of processes: type it when asked, pipe it in, or set SLIPWAY_PASSWORD
    #[arg(short)]
    pub password: Option<String>,
    /// Org to target
    #[arg(short)]
    pub org: Option<String>,
    /// Space to target
    #[arg(short)]
    pub space: Option<String>,
    /// Accept any certificate
    #[arg(long)]
    pub skip_ssl_validation: bool,
    /// As administrator of the platform on this machine; needs to read its state directory
    #[arg(long, conflicts_with_all = ["address", "api", "user", "password"])]
    pub local: bool,
    /// Org and space to target, from the flag that every command takes
    #[arg(skip)]
    pub at: Option<String>,
    /// Where the platform on this machine listens, which is not asked for but known
    #[arg(skip)]
    pub listens_at: Option<IpAddr>,
}

impl fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginArgs").field("api", &self.api).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Something by its name.
#[derive(Args, Debug)]
pub struct NamedArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Gives something another name.
#[derive(Args, Debug)]
pub struct RenameThingArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    pub new: String,
}

/// `target`.
#[derive(Args, Debug)]
pub struct TargetArgs {
    /// Org, or org and space
    #[arg(value_name = "ORG[/SPACE]", conflicts_with_all = ["org", "space"])]
    pub at: Option<String>,
    /// Org
    #[arg(short)]
    pub org: Option<String>,
    /// Space
    #[arg(short)]
    pub space: Option<String>,
}

/// `create-org`.
#[derive(Args, Debug)]
pub struct CreateOrgArgs {
    /// Name of the org
    #[arg(value_name = "ORG")]
    pub name: String,
}

/// `create-space`.
#[derive(Args, Debug)]
pub struct CreateSpaceArgs {
    /// Name of the space
    #[arg(value_name = "SPACE")]
    pub name: String,
    /// Org, when not the targeted one
    #[arg(short)]
    pub org: Option<String>,
}

/// A route.
#[derive(Args, Debug)]
pub struct RouteArgs {
    /// Domain
    pub domain: String,
    /// Host part
    #[arg(short = 'n', long, default_value = "")]
    pub hostname: String,
    /// Path part
    #[arg(long, default_value = "")]
    pub path: String,
}

/// `map-route`.
#[derive(Args, Debug)]
pub struct MapRouteArgs {
    /// What leads where
    #[command(flatten)]
    pub mapping: MappingArgs,
    /// Protocol that the app speaks at its port; a new mapping gets http1, an existing one keeps its protocol
    #[arg(long, value_enum)]
    pub app_protocol: Option<AppProtocol>,
}

/// `unmap-route`, and most of `map-route`.
#[derive(Args, Debug)]
pub struct MappingArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub name: String,
    /// The route
    #[command(flatten)]
    pub route: RouteArgs,
}

/// A version of HTTP between router and app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AppProtocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 without TLS, as gRPC servers speak it
    Http2,
}

impl AppProtocol {
    /// As the API has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// `delete-route`.
#[derive(Args, Debug)]
pub struct DeleteRouteArgs {
    /// The route
    #[command(flatten)]
    pub route: RouteArgs,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `curl`.
#[derive(Args, Debug)]
pub struct CurlArgs {
    /// Path, such as /v3/apps
    pub path: String,
    /// Method; GET, or POST with -d
    #[arg(short = 'X')]
    pub method: Option<String>,
    /// Header, as 'Name: value'; may be repeated
    #[arg(short = 'H')]
    pub headers: Vec<String>,
    /// Body, or @FILE
    #[arg(short)]
    pub data: Option<String>,
    /// Show the answer's headers
    #[arg(short, long)]
    pub include: bool,
    /// Write the body to a file
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Fail when the answer is an error
    #[arg(long)]
    pub fail: bool,
}
