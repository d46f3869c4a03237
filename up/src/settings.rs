//! What a platform has decided for itself and remembers: ids, domain, ports, network.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use slipway_cell_agent::config::RegistryProxyConfig;
use slipway_cell_agent::registries::RegistriesFile;
use slipway_chassis::chain;
use uuid::Uuid;

use crate::UpError;
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::options::{DnsPort, UpOptions};
use crate::ports::{self, pick, pick_dns, reached_at};
use crate::previous;
use crate::process::ChildRecord;

/// Kept in `<state>/settings.json`; ports are looked at again at each start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The controller of this machine.
    pub controller_id: Uuid,
    /// The cell of this machine.
    pub cell_id: Uuid,
    /// The router of this machine.
    pub router_id: Uuid,
    /// `slipway.localhost`.
    pub domain: String,
    /// Where the router listens.
    pub listen: IpAddr,
    /// Plain HTTP.
    pub http_port: u16,
    /// HTTPS.
    pub https_port: u16,
    /// gRPC of the controller.
    pub cluster_port: u16,
    /// The API behind the router.
    pub api_port: u16,
    /// Health and metrics of the router.
    pub admin_port: u16,
    /// Health and metrics of the controller; none before the first start of a version that has it.
    #[serde(default)]
    pub controller_admin_port: Option<u16>,
    /// The same of the cell.
    #[serde(default)]
    pub cell_admin_port: Option<u16>,
    /// Addresses of instances.
    pub network: String,
    /// Where the resolver of the platform's names listens; `None` = there is none.
    #[serde(default)]
    pub dns_port: Option<u16>,
    /// Memory that may be reserved, in per cent of what there is.
    #[serde(default = "memory_overcommit")]
    pub memory_overcommit: u64,
    /// Disk that may be reserved, in per cent of what there is.
    #[serde(default = "disk_overcommit")]
    pub disk_overcommit: u64,
    /// Where layers are; `None` = started by a version that did not note it.
    #[serde(default)]
    pub stacks: Option<PathBuf>,
    /// Networks beside public addresses that drains and route services may be in; `None` = started by a version that kept them
    /// in the configurations of the parts.
    #[serde(default)]
    pub allow_networks: Option<Vec<IpNet>>,
    /// Builds use this machine's settings of package managers, without credentials.
    #[serde(default = "yes")]
    pub host_settings: bool,
    /// By which builds reach registries; `None` = by themselves.
    #[serde(default)]
    pub registries: Option<RegistryProxyConfig>,
}

fn yes() -> bool {
    true
}

/// Of the apps on one machine most are idle most of the time, and a limit is what an app may use at worst: a page of
/// static files is given a gibibyte by default and takes a few mebibytes. All together are bounded by the machine.
fn memory_overcommit() -> u64 {
    300
}

/// A build may fill 4 GiB and most take a hundredth of it. A start for which the disk has no room is refused in any case.
fn disk_overcommit() -> u64 {
    400
}

impl Settings {
    /// Loads what an earlier start decided, or decides; then applies the options and looks for usable ports.
    ///
    /// # Errors
    /// When the file is damaged, or a port that was asked for is taken.
    pub fn load_or_decide(layout: &Layout, options: &UpOptions) -> Result<Self, UpError> {
        let path = layout.state("settings.json");
        let previous: Option<Self> = match std::fs::read(&path) {
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes)
                    .map_err(|error| UpError::Damaged { path: path.clone(), detail: error.to_string() })?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(UpError::File { path, source }),
        };
        let allow_networks =
            match (&*options.allow_networks, previous.as_ref().and_then(|previous| previous.allow_networks.clone())) {
                ([], Some(previous)) => previous,
                ([], None) => previous::allowed_before(layout)?,
                (given, _) => given.iter().filter_map(|given| given.0).collect(),
            };
        let domain = options
            .domain
            .clone()
            .or_else(|| previous.as_ref().map(|previous| previous.domain.clone()))
            .unwrap_or_else(|| "slipway.localhost".to_owned());
        let listen =
            options.listen.or_else(|| previous.as_ref().map(|previous| previous.listen)).unwrap_or_else(|| {
                // A *.localhost name leads to this machine only, so nobody else need be let in.
                if domain.ends_with("localhost") { Ipv4Addr::LOCALHOST.into() } else { Ipv4Addr::UNSPECIFIED.into() }
            });
        let (http, https) = (
            previous.as_ref().map(|previous| previous.http_port),
            previous.as_ref().map(|previous| previous.https_port),
        );
        let held = previous::held_by_router(layout);
        let http_port = pick(listen, options.http_port, http, [80, 8080], "--http PORT", &[], &held)?;
        let https_port = pick(listen, options.https_port, https, [443, 8443], "--https PORT", &[http_port], &held)?;
        // All of them are different, although none is held after the look.
        let mut chosen = vec![http_port, https_port];
        let mut internal = |previous_port: Option<u16>| -> Result<u16, UpError> {
            let port = ports::internal(previous_port, &chosen)?;
            chosen.push(port);
            Ok(port)
        };
        let resolver_at = reached_at(listen);
        let previous_dns = previous.as_ref().and_then(|previous| previous.dns_port);
        // As with the router: a resolver that was left behind holds its port for its successor.
        let held_dns = previous_dns.filter(|_| {
            ChildRecord::load(&layout.pid(previous::DNS)).is_some()
                && previous.as_ref().is_some_and(|previous| previous.listen == listen)
        });
        let dns_port = match (options.dns.or(previous_dns.map(DnsPort::Like)), held_dns) {
            (None | Some(DnsPort::Off), _) => None,
            (Some(DnsPort::Standard), Some(held)) => Some(held),
            (Some(DnsPort::Like(port) | DnsPort::Exactly(port)), Some(held)) if port == held => Some(held),
            (Some(DnsPort::Standard), None) => Some(pick_dns(resolver_at, None, None)?),
            (Some(DnsPort::Like(port)), _) => Some(pick_dns(resolver_at, None, Some(port))?),
            (Some(DnsPort::Exactly(port)), _) => Some(pick_dns(resolver_at, Some(port), None)?),
        };
        let settings = Self {
            cluster_id: previous.as_ref().map_or_else(Uuid::new_v4, |previous| previous.cluster_id),
            controller_id: previous.as_ref().map_or_else(Uuid::new_v4, |previous| previous.controller_id),
            cell_id: previous.as_ref().map_or_else(Uuid::new_v4, |previous| previous.cell_id),
            router_id: previous.as_ref().map_or_else(Uuid::new_v4, |previous| previous.router_id),
            cluster_port: internal(previous.as_ref().map(|previous| previous.cluster_port))?,
            api_port: internal(previous.as_ref().map(|previous| previous.api_port))?,
            admin_port: internal(previous.as_ref().map(|previous| previous.admin_port))?,
            controller_admin_port: Some(internal(
                previous.as_ref().and_then(|previous| previous.controller_admin_port),
            )?),
            cell_admin_port: Some(internal(previous.as_ref().and_then(|previous| previous.cell_admin_port))?),
            network: match &previous {
                Some(previous) => previous.network.clone(),
                None => free_network()?,
            },
            domain,
            listen,
            http_port,
            https_port,
            dns_port,
            memory_overcommit: options.memory_overcommit.unwrap_or_else(|| {
                previous.as_ref().map_or_else(memory_overcommit, |previous| previous.memory_overcommit)
            }),
            disk_overcommit: options
                .disk_overcommit
                .unwrap_or_else(|| previous.as_ref().map_or_else(disk_overcommit, |previous| previous.disk_overcommit)),
            stacks: Some(options.stack_directory()),
            allow_networks: Some(allow_networks),
            host_settings: match options.host_settings {
                Some(asked) => asked,
                None => previous::host_settings(layout)?,
            },
            registries: registries(layout, options)?,
        };
        let text = serde_json::to_string_pretty(&settings)
            .map_err(|error| UpError::File { path: path.clone(), source: std::io::Error::other(error) })?;
        write_atomically(&path, text.as_bytes(), 0o640)?;
        Ok(settings)
    }

    /// Where controller, cell and router show their health and metrics, on loopback.
    #[must_use]
    pub fn admin_ports(&self) -> Vec<u16> {
        [self.controller_admin_port, self.cell_admin_port, Some(self.admin_port)].into_iter().flatten().collect()
    }

    /// What these options ask for and a platform that runs with these settings does not have; one sentence each.
    #[must_use]
    pub fn differing(&self, options: &UpOptions) -> Vec<String> {
        let describe = |flag: &str, asked: &dyn Display, current: &dyn Display| {
            format!("{flag} {asked} is not in force, it runs with {current}")
        };
        let mut found = Vec::new();
        if let Some(asked) = options.domain.as_ref().filter(|asked| **asked != self.domain) {
            found.push(describe("--domain", asked, &self.domain));
        }
        if let Some(asked) = options.listen.filter(|asked| *asked != self.listen) {
            found.push(describe("--listen", &asked, &self.listen));
        }
        for (flag, asked, current) in
            [("--http", options.http_port, self.http_port), ("--https", options.https_port, self.https_port)]
        {
            // 0 asks for any.
            if let Some(asked) = asked.filter(|asked| *asked != 0 && *asked != current) {
                found.push(describe(flag, &asked, &current));
            }
        }
        for (flag, asked, current) in [
            ("--memory-overcommit", options.memory_overcommit, self.memory_overcommit),
            ("--disk-overcommit", options.disk_overcommit, self.disk_overcommit),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != current) {
                found.push(describe(flag, &asked, &current));
            }
        }
        let resolver = self.dns_port.map_or_else(|| "no resolver".to_owned(), |port| format!("port {port}"));
        match (options.dns, self.dns_port) {
            (Some(DnsPort::Off), Some(_)) => found.push(format!("--dns=off is not in force, it runs with {resolver}")),
            (Some(DnsPort::Standard), None) => found.push(format!("--dns is not in force, it runs with {resolver}")),
            (Some(DnsPort::Exactly(asked)), current)
                if current.is_none_or(|current| asked != 0 && asked != current) =>
            {
                found.push(format!("--dns={asked} is not in force, it runs with {resolver}"));
            }
            _ => {}
        }
        let asked: Vec<IpNet> = options.allow_networks.iter().filter_map(|given| given.0).collect();
        let current = self.allow_networks.as_deref().unwrap_or_default();
        if !options.allow_networks.is_empty() && asked != current {
            let list = |networks: &[IpNet]| match networks {
                [] => "none".to_owned(),
                some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            };
            found.push(describe("--allow-network", &list(&asked), &list(current)));
        }
        if let (Some(asked), Some(current)) = (&options.stacks, &self.stacks)
            && asked != current
        {
            found.push(describe("--stacks", &asked.display(), &current.display()));
        }
        if let Some(asked) = options.host_settings.filter(|asked| *asked != self.host_settings) {
            let word = |on: bool| if on { "on" } else { "off" };
            found.push(describe("--host-settings", &word(asked), &word(self.host_settings)));
        }
        let none = PathBuf::from("none");
        let current = self.registries.as_ref().map_or(&none, |registry_proxy| &registry_proxy.file);
        if let Some(asked) = options.registries.as_ref().and_then(|asked| asked_file(asked).ok())
            && asked != *current
        {
            found.push(describe("--registries", &asked.display(), &current.display()));
        }
        found
    }

    /// Files of the registries' credentials that all accounts of this machine may read.
    #[must_use]
    pub fn open_files(&self) -> Vec<PathBuf> {
        let registry_proxy = self.registries.as_ref();
        let file = registry_proxy
            .and_then(|registry_proxy| Some((&registry_proxy.file, RegistriesFile::read(&registry_proxy.file).ok()?)));
        file.map(|(path, file)| file.open_files(path)).unwrap_or_default()
    }

    /// `http://api.slipway.localhost:8080`, without the port when it is 80.
    #[must_use]
    pub fn api_url(&self) -> String {
        let port = if self.http_port == 80 { String::new() } else { format!(":{}", self.http_port) };
        format!("http://api.{}{port}", self.domain)
    }

    /// The address at which this machine and others reach the router.
    #[must_use]
    pub fn reached_at(&self) -> IpAddr {
        reached_at(self.listen)
    }

    /// Distinguishes bridges, cgroups and tables of several platforms on one kernel.
    #[must_use]
    pub fn short_name(&self) -> String {
        hex::encode(&self.cluster_id.as_bytes()[..3])
    }
}

/// The file that `--registries` names, whole; `none` stays what it is.
fn asked_file(asked: &Path) -> std::io::Result<PathBuf> {
    if asked == Path::new("none") { Ok(asked.to_owned()) } else { std::path::absolute(asked) }
}

/// What `--registries` says, or else what was kept; only a file that can be used.
fn registries(layout: &Layout, options: &UpOptions) -> Result<Option<RegistryProxyConfig>, UpError> {
    let previous = previous::registries(layout)?;
    let registry_proxy = match &options.registries {
        None => previous,
        Some(asked) => {
            let file = asked_file(asked).map_err(UpError::file(asked))?;
            let port = previous.map_or_else(|| RegistryProxyConfig::new(PathBuf::new()).port, |previous| previous.port);
            (file != Path::new("none")).then_some(RegistryProxyConfig { file, port })
        }
    };
    if let Some(registry_proxy) = &registry_proxy {
        let refused = |detail: String| UpError::Registries { path: registry_proxy.file.clone(), detail };
        let file = RegistriesFile::read(&registry_proxy.file).map_err(|error| refused(chain(&error).to_string()))?;
        let unusable = file.unusable();
        if !unusable.is_empty() {
            return Err(refused(unusable.join("; ")));
        }
    }
    Ok(registry_proxy)
}

/// A /20 of [`NETWORKS`], then of [`OTHER_NETWORKS`], that no route of this host overlaps. Any of them, not the first: of two
/// platforms that are started at once neither has a route yet that the other could see.
fn free_network() -> Result<String, UpError> {
    let path = Path::new("/proc/net/route");
    let table = std::fs::read_to_string(path).map_err(UpError::file(path))?;
    let taken: Vec<ipnet::Ipv4Net> = table.lines().skip(1).filter_map(route_network).collect();
    let begin = rand::rng().random_range(0..NETWORKS.len());
    choose_network(&taken, begin).map(|network| network.to_string()).ok_or_else(|| UpError::Damaged {
        path: path.to_owned(),
        detail: "no free network below 10.0.0.0/8".to_owned(),
    })
}

/// Numbers of the /20 networks below 10.0.0.0/8 that a platform may have: 10.62.0.0 to 10.127.255.255. What is below is often
/// somebody's own.
const NETWORKS: Range<u32> = 62 * 16..128 * 16;
/// Where none of them is free.
const OTHER_NETWORKS: Range<u32> = 16 * 16..62 * 16;

/// The first free one from the `begin`th on, around.
fn choose_network(taken: &[ipnet::Ipv4Net], begin: usize) -> Option<ipnet::Ipv4Net> {
    let usual = NETWORKS.cycle().skip(begin).take(NETWORKS.len());
    usual
        .chain(OTHER_NETWORKS)
        .map(|number| ipnet::Ipv4Net::new_assert(((10 << 24) | (number << 12)).into(), 20))
        .find(|candidate| !taken.iter().any(|net| net.contains(candidate) || candidate.contains(net)))
}

/// Destination of one line of /proc/net/route; the default route is left out.
fn route_network(line: &str) -> Option<ipnet::Ipv4Net> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = u32::from_str_radix(fields.get(1)?, 16).ok()?.swap_bytes();
    let mask = u32::from_str_radix(fields.get(7)?, 16).ok()?.swap_bytes();
    if mask == 0 {
        return None;
    }
    ipnet::Ipv4Net::new(address.into(), u8::try_from(mask.leading_ones()).ok()?).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{SocketAddr, TcpListener, UdpSocket};

    use super::*;

    /// Settings of a platform that nobody starts.
    pub(crate) fn example() -> Settings {
        Settings {
            cluster_id: Uuid::nil(),
            controller_id: Uuid::nil(),
            cell_id: Uuid::nil(),
            router_id: Uuid::nil(),
            domain: "slipway.localhost".to_owned(),
            listen: Ipv4Addr::LOCALHOST.into(),
            http_port: 8080,
            https_port: 8443,
            cluster_port: 1,
            api_port: 2,
            admin_port: 3,
            controller_admin_port: Some(4),
            cell_admin_port: Some(5),
            network: "10.62.0.0/20".to_owned(),
            dns_port: None,
            memory_overcommit: memory_overcommit(),
            disk_overcommit: disk_overcommit(),
            stacks: Some("/layers".into()),
            allow_networks: Some(Vec::new()),
            host_settings: true,
            registries: None,
        }
    }

    #[test]
    fn settings_of_a_version_without_overcommit_are_read() {
        let mut old = serde_json::to_value(example()).expect("JSON");
        let fields = old.as_object_mut().expect("an object");
        fields.remove("memory_overcommit").and_then(|_| fields.remove("disk_overcommit")).expect("both were there");
        let read: Settings = serde_json::from_value(old).expect("read");
        assert_eq!((read.memory_overcommit, read.disk_overcommit), (300, 400));
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: UpOptions,
    }

    fn parsed(arguments: &[&str]) -> Result<UpOptions, clap::Error> {
        let all = ["up"].iter().chain(arguments);
        <Line as clap::Parser>::try_parse_from(all).map(|line| line.options)
    }

    #[test]
    fn the_flag_that_an_error_names_is_understood() {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let holder = TcpListener::bind((address, 0)).expect("bind");
        let taken = holder.local_addr().expect("address").port();
        let Err(UpError::Port { flag, .. }) = pick_dns(address, Some(taken), None) else { panic!("it is taken") };
        let options = parsed(&[&flag.replace("PORT", "5353")]).expect("understood");
        assert_eq!(options.dns, Some(DnsPort::Exactly(5353)));
        assert!(parsed(&["--dns", "5353"]).is_err(), "a value must follow an equals sign");
        assert_eq!("off".parse(), Ok(DnsPort::Off));
        assert!("53x".parse::<DnsPort>().is_err());
    }

    #[test]
    fn networks_that_are_allowed_stay_until_others_are() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout { state: directory.path().join("state"), run: directory.path().join("run") };
        let start = |arguments: &[&str]| {
            let options = parsed(&[&["--http", "0", "--https", "0"], arguments].concat()).expect("understood");
            let networks = Settings::load_or_decide(&layout, &options).expect("settings").allow_networks;
            networks.expect("decided").iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(start(&[]).is_empty(), "none by default");
        let two = ["--allow-network", "10.8.3.4/16", "--allow-network", "fd00::1"];
        assert_eq!(start(&two), ["10.8.0.0/16", "fd00::1/128"]);
        assert_eq!(start(&[]), ["10.8.0.0/16", "fd00::1/128"]);
        assert_eq!(start(&["--allow-network", "192.168.7.0/24"]), ["192.168.7.0/24"]);
        assert!(start(&["--allow-network", "none"]).is_empty());
        for bad in ["10.8", "10.8.0.0/33", "localhost"] {
            assert!(parsed(&["--allow-network", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_that_a_running_platform_ignores_are_named() {
        let settings = example();
        let same = [
            "--domain",
            "slipway.localhost",
            "--http",
            "8080",
            "--https",
            "0",
            "--dns=off",
            "--stacks",
            "/layers",
            "--host-settings",
            "on",
            "--registries",
            "none",
        ];
        assert_eq!(settings.differing(&parsed(&same).expect("options")), Vec::<String>::new());
        let other = [
            ["--domain", "x.test"],
            ["--listen", "0.0.0.0"],
            ["--http", "80"],
            ["--https", "443"],
            ["--stacks", "/other"],
            ["--memory-overcommit", "100"],
            ["--host-settings", "off"],
            ["--registries", "/etc/registries.toml"],
        ];
        let mut all: Vec<&str> = other.concat();
        all.extend(["--dns=53", "--allow-network", "10.8.0.0/16"]);
        let differing = settings.differing(&parsed(&all).expect("options"));
        let expected = [
            "--domain x.test is not in force, it runs with slipway.localhost",
            "--listen 0.0.0.0 is not in force, it runs with 127.0.0.1",
            "--http 80 is not in force, it runs with 8080",
            "--https 443 is not in force, it runs with 8443",
            "--memory-overcommit 100 is not in force, it runs with 300",
            "--dns=53 is not in force, it runs with no resolver",
            "--allow-network 10.8.0.0/16 is not in force, it runs with none",
            "--stacks /other is not in force, it runs with /layers",
            "--host-settings off is not in force, it runs with on",
            "--registries /etc/registries.toml is not in force, it runs with none",
        ];
        assert_eq!(differing, expected);
    }

    #[test]
    fn a_route_line_is_read() {
        let line = "eth0\t00003E0A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0";
        assert_eq!(route_network(line).expect("network").to_string(), "10.62.0.0/20");
        assert_eq!(route_network("eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0"), None);
        assert_eq!(route_network("rubbish"), None);
    }

    #[test]
    fn networks_that_overlap_a_route_are_passed_over() {
        let net = |text: &str| text.parse::<ipnet::Ipv4Net>().expect("a network");
        assert_eq!(choose_network(&[], 0), Some(net("10.62.0.0/20")));
        let last = NETWORKS.len() - 1;
        assert_eq!(choose_network(&[], last), Some(net("10.127.240.0/20")));
        assert_eq!(choose_network(&[net("10.127.250.0/24")], last), Some(net("10.62.0.0/20")), "around");
        assert_eq!(choose_network(&[net("10.62.0.0/16")], 0), Some(net("10.63.0.0/20")));
        assert_eq!(choose_network(&[net("10.64.0.0/10"), net("10.62.0.0/15")], 7), Some(net("10.16.0.0/20")));
        assert_eq!(choose_network(&[net("10.0.0.0/8")], 0), None);
    }

    #[test]
    fn all_addresses_mean_one_that_can_be_reached() {
        assert!(!reached_at(Ipv4Addr::UNSPECIFIED.into()).is_unspecified());
        assert_eq!(reached_at(Ipv4Addr::LOCALHOST.into()), IpAddr::from(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn ports_that_the_platform_itself_holds_are_reused_by_the_next_start() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout { state: directory.path().join("state"), run: directory.path().join("run") };
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let (http, https, dns) = (listener(), listener(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"));
        let port = |address: std::io::Result<SocketAddr>| address.expect("address").port();
        let (http_port, https_port, dns_port) =
            (port(http.local_addr()), port(https.local_addr()), port(dns.local_addr()));
        let left = Settings { http_port, https_port, dns_port: Some(dns_port), ..example() };
        let text = serde_json::to_vec(&left).expect("JSON");
        write_atomically(&layout.state("settings.json"), &text, 0o644).expect("written");
        crate::parts::write_configs(&layout, &left, Path::new("/layers")).expect("written");
        let options = UpOptions::default();
        let own = ChildRecord::of(i32::try_from(std::process::id()).expect("fits")).expect("runs");
        own.save(&layout.pid(previous::ROUTER)).and_then(|()| own.save(&layout.pid(previous::DNS))).expect("saved");
        for _ in 0..2 {
            let next = Settings::load_or_decide(&layout, &options).expect("settings");
            let ports = (next.http_port, next.https_port, next.dns_port);
            assert_eq!(ports, (http_port, https_port, Some(dns_port)));
        }
        // Without router and resolver, somebody else has the ports.
        std::fs::remove_dir_all(&layout.run).expect("removed");
        let next = Settings::load_or_decide(&layout, &options).expect("settings");
        assert!(next.http_port != http_port && next.https_port != https_port && next.dns_port != Some(dns_port));
    }
}
