//! The configuration of each part, and how it is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_cell_agent::config::{Advertise, CellConfig};
use slipway_controller::config::{ControllerConfig, Limits};
use slipway_router::RouterConfig;

use crate::UpError;
use crate::dns::DnsConfig;
use crate::layout::Layout;
use crate::postgres::Postgres;
use crate::process::Known;
use crate::settings::{Settings, write_atomically};

/// The parts that are this same program and always run, in the order in which they start.
const PARTS: [&str; 3] = ["controller", "cell", ROUTER];
/// The router: the one part whose sockets the supervisor holds.
pub const ROUTER: &str = "router";
/// The resolver: it runs when it has a configuration.
pub const DNS: &str = "dns";

/// The parts of this platform that are this same program, in the order in which they start.
#[must_use]
pub fn parts(layout: &Layout) -> Vec<&'static str> {
    let dns = layout.config(DNS).exists().then_some(DNS);
    PARTS.into_iter().chain(dns).collect()
}

/// Where a log server or a route service of this machine or its network is. The rest of the private networks,
/// 10.0.0.0/8, is where the apps are ([`Settings::network`]); link-local holds the metadata of cloud machines.
const OWN_NETWORKS: [&str; 5] = ["127.0.0.0/8", "::1/128", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// These, and the router itself: a route service may be an app of this platform, under the name that others use.
fn own_networks(router: IpAddr) -> Vec<String> {
    OWN_NETWORKS.map(str::to_owned).into_iter().chain([IpNet::from(router).to_string()]).collect()
}

/// What the operator has made of the default. The router's own address in it follows the platform to another `--listen`.
fn route_service_networks(layout: &Layout, router: IpAddr) -> Result<Vec<String>, UpError> {
    let default = own_networks(router);
    let Some(mut kept) = kept(&layout.config(ROUTER), "route_service_networks")? else { return Ok(default) };
    let before = match router_config(layout).ok().and_then(|config| config.http_listen.first().copied()) {
        Some(listen) => own_networks(crate::settings::reached_at(listen.ip())),
        None => return Ok(kept),
    };
    if let (Some(old), Some(new)) = (before.last(), default.last())
        && let Some(place) = kept.iter().position(|network| network == old)
    {
        kept[place].clone_from(new);
    }
    Ok(kept)
}

/// What an operator may change in a configuration: it stays when the others are written anew at each start.
fn kept(path: &Path, key: &str) -> Result<Option<Vec<String>>, UpError> {
    kept_as(path, key, "list of networks")
}

/// The same for anything; `what` it must be, for people.
fn kept_as<T: DeserializeOwned>(path: &Path, key: &str, what: &str) -> Result<Option<T>, UpError> {
    let damaged = |detail: String| UpError::Damaged { path: path.to_owned(), detail };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(UpError::file(path)(error)),
    };
    // Written anew, what was meant would be lost.
    let advice = "mend it, or remove it to begin with the defaults";
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| damaged(format!("{error}; {advice}")))?;
    let Some(value) = table.remove(key) else { return Ok(None) };
    let found = value.clone().try_into::<T>();
    found.map(Some).map_err(|error| damaged(format!("{key} = {value} is no {what} ({}); {advice}", error.message())))
}

/// The controller's configuration with those limits only that are not the defaults: what stands there is what an operator
/// has set, and a later version may have other defaults.
fn with_own_limits(controller: &ControllerConfig) -> Result<toml::Table, toml::ser::Error> {
    let mut table = toml::Table::try_from(controller)?;
    let defaults = toml::Table::try_from(Limits::default())?;
    if let Some(toml::Value::Table(limits)) = table.get_mut("limits") {
        limits.retain(|key, value| defaults.get(key) != Some(value));
    }
    Ok(table)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port)
}

/// Writes the configurations; that of the resolver only when there shall be one.
///
/// # Errors
/// When one cannot be written.
pub fn write_configs(layout: &Layout, settings: &Settings, stacks: &Path) -> Result<(), UpError> {
    let controller = ControllerConfig {
        id: settings.controller_id,
        cluster_id: settings.cluster_id,
        database_url: Postgres::url(layout, "slipway"),
        blob_directory: layout.state("blobs"),
        layer_directory: Some(stacks.to_owned()),
        api_listen: loopback(settings.api_port),
        cluster_listen: loopback(settings.cluster_port),
        tls_directory: layout.tls("controller"),
        encryption_key_file: layout.state("encryption.key"),
        admin_password_file: layout.state("admin-password"),
        system_domain: settings.domain.clone(),
        app_domain: settings.domain.clone(),
        public_url: settings.api_url(),
        ready_file: Some(layout.ready("controller")),
        drain_networks: kept(&layout.config("controller"), "drain_networks")?
            .unwrap_or_else(|| OWN_NETWORKS.map(str::to_owned).to_vec()),
        zone: "local".to_owned(),
        limits: kept_as(&layout.config("controller"), "limits", "table of limits")?.unwrap_or_default(),
    };
    let path = layout.config("controller");
    let own = with_own_limits(&controller)
        .map_err(|error| UpError::File { path: path.clone(), source: std::io::Error::other(error) })?;
    save(&path, &own)?;
    let cell = CellConfig {
        id: settings.cell_id,
        cluster_id: settings.cluster_id,
        zone: "local".to_owned(),
        tags: Vec::new(),
        isolation_segment: String::new(),
        state_directory: layout.state("cell"),
        run_directory: layout.run("cell"),
        controllers: vec![loopback(settings.cluster_port)],
        tls_directory: layout.tls("cell"),
        query_listen: loopback(0),
        advertise: Advertise::Direct,
        advertise_host: IpAddr::from(Ipv4Addr::LOCALHOST),
        memory_mb: 0,
        disk_mb: 0,
        slots: 1024,
        network: settings.network.clone(),
        name: settings.short_name(),
        resolvers: Vec::new(),
        staging_uses_host_settings: true,
        log_ring_bytes: 4 << 20,
        cache_mb: 20 * 1024,
        ready_file: Some(layout.ready("cell")),
    };
    save(&layout.config("cell"), &cell)?;
    let held = held_by_router(layout);
    let router = RouterConfig {
        id: settings.router_id,
        cluster_id: settings.cluster_id,
        zone: "local".to_owned(),
        http_listen: listeners(settings.listen, settings.http_port, &held),
        https_listen: listeners(settings.listen, settings.https_port, &held),
        certificate: Some(layout.state("tls/web/cert.pem")),
        certificate_key: Some(layout.state("tls/web/key.pem")),
        // A route service may be an app of this platform; its certificate is of the platform's own authority.
        trusted_authorities: Some(layout.state("tls/ca.pem")),
        route_service_networks: route_service_networks(layout, settings.reached_at())?,
        controllers: vec![loopback(settings.cluster_port)],
        tls_directory: layout.tls(ROUTER),
        state_directory: layout.state(ROUTER),
        query_listen: loopback(0),
        admin_listen: loopback(settings.admin_port),
        cores: 0,
        max_header_bytes: 64 * 1024,
        response_timeout_s: 900,
        client_stall_timeout_s: 60,
        // No load balancer is in front that would have to notice first.
        drain_delay_ms: 0,
        drain_timeout_s: 10,
        log_ring_bytes: 2 << 20,
        ready_file: Some(layout.ready(ROUTER)),
    };
    save(&layout.config(ROUTER), &router)?;
    let path = layout.config(DNS);
    let Some(port) = settings.dns_port else {
        return match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(UpError::File { path, source }),
            _ => Ok(()),
        };
    };
    let address = settings.reached_at();
    let dns = DnsConfig {
        domain: settings.domain.clone(),
        listen: SocketAddr::new(address, port),
        addresses: listeners(address, settings.http_port, &held).iter().map(SocketAddr::ip).collect(),
        ready_file: Some(layout.ready(DNS)),
    };
    save(&path, &dns)
}

/// The router's configuration, as it was written last.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn router_config(layout: &Layout) -> Result<RouterConfig, UpError> {
    let path = layout.config(ROUTER);
    slipway_chassis::config::load(&path)
        .map_err(|error| UpError::Damaged { path, detail: slipway_chassis::chain(&error).to_string() })
}

/// Where a router listens that a supervisor has left behind when it was killed. These addresses are taken, but by this
/// platform: its successor listens there too.
pub(crate) fn held_by_router(layout: &Layout) -> Vec<SocketAddr> {
    if Known::load(&layout.pid(ROUTER)).is_none() {
        return Vec::new();
    }
    let config = router_config(layout);
    config.map_or_else(|_| Vec::new(), |config| [config.http_listen, config.https_listen].concat())
}

/// One address, and its sibling on IPv6 loopback where the host has one: `*.localhost` resolves to both.
fn listeners(address: IpAddr, port: u16, held: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut listeners = vec![SocketAddr::new(address, port)];
    if address == IpAddr::from(Ipv4Addr::LOCALHOST) {
        let sibling = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
        if held.contains(&sibling) || std::net::TcpListener::bind(sibling).is_ok() {
            listeners.push(sibling);
        }
    }
    listeners
}

fn save(path: &Path, config: &impl Serialize) -> Result<(), UpError> {
    let text = toml::to_string(config)
        .map_err(|error| UpError::File { path: path.to_owned(), source: std::io::Error::other(error) })?;
    write_atomically(path, text.as_bytes(), 0o600)
}

/// This program, for starting the parts.
///
/// # Errors
/// When the system does not tell.
pub fn program() -> Result<PathBuf, UpError> {
    std::env::current_exe().map_err(UpError::file("/proc/self/exe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_trusts_apps_of_the_same_platform_as_route_services() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        let router: RouterConfig = slipway_chassis::config::load(&layout.config(ROUTER)).expect("a configuration");
        let trusted = router.trusted_authorities.expect("an authority");
        crate::secrets::ensure(&layout, &settings).expect("keys");
        let shown = std::fs::read_to_string(layout.state("tls/web/cert.pem")).expect("the certificate of the web");
        let authority = std::fs::read_to_string(trusted).expect("the authority that is trusted");
        assert!(shown.ends_with(&authority), "it signed what the router itself shows");
    }

    #[test]
    fn limits_that_an_operator_has_set_stay_and_the_rest_follows_the_version() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        let start = || write_configs(&layout, &settings, Path::new("/layers")).expect("a start");
        let path = layout.config("controller");
        let text = || std::fs::read_to_string(&path).expect("read");
        start();
        assert!(!text().contains("maximum_app_disk_mb"), "a default is not written: {}", text());
        let own = format!("{}\n", text().replace("[limits]", "[limits]\nmaximum_app_disk_mb = 8192"));
        std::fs::write(&path, own).expect("written");
        start();
        start();
        let config: ControllerConfig = slipway_chassis::config::load(&path).expect("a config");
        assert_eq!(config.limits.maximum_app_disk_mb, 8192);
        assert_eq!(config.limits.stored_mb_per_organization, Limits::default().stored_mb_per_organization);
    }

    #[test]
    fn what_an_operator_has_changed_stays() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let mut settings = crate::settings::tests::example();
        let start = |settings: &Settings| write_configs(&layout, settings, Path::new("/layers"));
        let drains = || -> Vec<String> {
            let config: ControllerConfig =
                slipway_chassis::config::load(&layout.config("controller")).expect("a config");
            config.drain_networks
        };
        let services = || router_config(&layout).expect("a config").route_service_networks;
        let change = |part: &str, key: &str, value: Option<&[&str]>| {
            let path = layout.config(part);
            let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(&path).expect("read")).expect("toml");
            match value {
                Some(value) => drop(table.insert(key.to_owned(), value.to_vec().into())),
                None => drop(table.remove(key)),
            }
            std::fs::write(path, toml::to_string(&table).expect("toml")).expect("written");
        };
        start(&settings).expect("the first start");
        let router = own_networks(settings.reached_at()).pop().expect("the router");
        assert_eq!(drains(), OWN_NETWORKS);
        assert_eq!(services(), own_networks(settings.reached_at()));

        change("controller", "drain_networks", Some(&["10.8.0.0/16"]));
        change(ROUTER, "route_service_networks", Some(&["10.9.0.0/16", &router]));
        let port = settings.http_port + 1;
        settings.http_port = port;
        start(&settings).expect("the second start");
        assert_eq!(drains(), ["10.8.0.0/16"]);
        assert_eq!(services(), ["10.9.0.0/16", &router]);
        assert_eq!(router_config(&layout).expect("a config").http_listen[0].port(), port, "the rest is written anew");

        // None at all is a choice too. The router has moved, and with it what was meant by its address.
        change("controller", "drain_networks", Some(&[]));
        settings.listen = "127.0.0.9".parse().expect("an address");
        start(&settings).expect("the third start");
        assert!(drains().is_empty());
        assert_eq!(services(), ["10.9.0.0/16", "127.0.0.9/32"]);

        change("controller", "drain_networks", None);
        start(&settings).expect("the fourth start");
        assert_eq!(drains(), OWN_NETWORKS);

        for (text, told) in [
            ("drain_networks = 5", "no list of networks"),
            ("drain_networks = [", "TOML"),
            ("[limits]\nmaximum_app_disk = 1", "no table of limits"),
        ] {
            std::fs::write(layout.config("controller"), text).expect("written");
            let refused = start(&settings).expect_err(text).to_string();
            assert!(refused.contains(told) && refused.contains("controller.toml"), "{refused}");
            assert_eq!(std::fs::read_to_string(layout.config("controller")).expect("read"), text);
        }
    }
}
