//! Arguments of the commands about services.

use clap::Args;

use super::spaces::RouteArgs;

/// A command about one service.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub name: String,
}

/// `create-user-provided-service` and `update-user-provided-service`.
#[derive(Args)]
pub struct UserProvidedArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub name: String,
    /// Credentials: KEY=VALUE (may be repeated), a JSON object, or @FILE with one
    #[arg(short = 'p', long = "credentials", value_name = "CREDENTIALS", allow_hyphen_values = true)]
    pub credentials: Vec<String>,
    /// Where log lines of bound apps are sent: syslog://, syslog-tls:// or https://
    #[arg(short = 'l', long, value_name = "URL")]
    pub syslog_drain: Option<String>,
    /// URL of the service through which requests of bound routes pass: https://
    #[arg(short = 'r', long, value_name = "URL")]
    pub route_service: Option<String>,
    /// Tags, separated by commas
    #[arg(short = 't', long, value_name = "TAGS", value_delimiter = ',')]
    pub tags: Vec<String>,
}

impl std::fmt::Debug for UserProvidedArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserProvidedArgs").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `bind-service`.
#[derive(Args, Debug)]
pub struct BindServiceArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub app: String,
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Name of the binding
    #[arg(long, value_name = "NAME")]
    pub binding_name: Option<String>,
}

/// `unbind-service`.
#[derive(Args, Debug)]
pub struct UnbindServiceArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    pub app: String,
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// `bind-route-service` and `unbind-route-service`.
#[derive(Args, Debug)]
pub struct RouteServiceArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The route
    #[command(flatten)]
    pub route: RouteArgs,
}
