//! What `slipway up` can be told.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::layout::Layout;

/// What `slipway up` can be told.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct UpOptions {
    /// Where everything is kept [default: /var/lib/slipway]
    #[arg(long, env = "SLIPWAY_STATE")]
    pub state: Option<PathBuf>,
    /// Domain of the platform and of its apps [default: slipway.localhost]
    #[arg(long)]
    pub domain: Option<String>,
    /// Address to listen on for apps [default: loopback when the domain ends in .localhost, otherwise all addresses]
    #[arg(long)]
    pub listen: Option<IpAddr>,
    /// Port for HTTP, 0 = any [default: 80, or 8080 when that is taken]
    #[arg(long = "http")]
    pub http_port: Option<u16>,
    /// Port for HTTPS, 0 = any [default: 443, or 8443 when that is taken]
    #[arg(long = "https")]
    pub https_port: Option<u16>,
    /// Answer DNS for the platform's names, on this port [default: 53, or 5300 when that is taken; `off` ends it]
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub dns: Option<DnsPort>,
    /// Memory that may be reserved for apps, in per cent of what this machine has for them [default: 300]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(100..=10_000))]
    pub memory_overcommit: Option<u64>,
    /// Disk that may be reserved for apps, in per cent of what this machine has for them [default: 400]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(100..=10_000))]
    pub disk_overcommit: Option<u64>,
    /// Allow log drains and route services in this network, beside public addresses and the platform's own; may be repeated, and
    /// is kept for later starts until it is given again [`none` clears it]
    #[arg(long = "allow-network", value_name = "CIDR")]
    pub allow_networks: Vec<AllowNetwork>,
    /// Directory of built layers [default: /var/cache/slipway/stacks]
    #[arg(long, env = "SLIPWAY_STACK_DIR")]
    pub stacks: Option<PathBuf>,
    /// Whether builds use this machine's settings of npm, pip and proxies, in any case without credentials [default: on]
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    pub host_settings: Option<bool>,
    /// File of package registries that builds reach through a proxy on this machine, which adds credentials that builds never
    /// see; kept for later starts until it is given again [`none` clears it]
    #[arg(long, value_name = "FILE")]
    pub registries: Option<PathBuf>,
}

impl UpOptions {
    /// The layout that these options mean.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(&self.state.clone().unwrap_or_else(Layout::default_state))
    }

    /// The directory of built layers that these options mean.
    #[must_use]
    pub fn stack_directory(&self) -> PathBuf {
        self.stacks.clone().unwrap_or_else(|| PathBuf::from("/var/cache/slipway/stacks"))
    }
}

/// What `--allow-network` says: a network, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowNetwork(pub Option<IpNet>);

impl std::str::FromStr for AllowNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse::<IpNet>().or_else(|_| address());
        network
            .map(|network| Self(Some(network.trunc())))
            .map_err(|_| "give a network like 10.8.0.0/16, or `none`".to_owned())
    }
}

/// What `--dns` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsPort {
    /// `off`.
    Off,
    /// No value: 53, or another when that is taken.
    Standard,
    /// The port of the last start, or another when that is taken.
    Like(u16),
    /// A number: this port, or any for 0.
    Exactly(u16),
}

impl std::str::FromStr for DnsPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::Standard),
            text => text.parse().map(Self::Exactly).map_err(|_| "give a port, or `off`".to_owned()),
        }
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write `on` or `off`".to_owned()),
    }
}
