//! The configuration of each part, and how it is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;
use slipway_cell_agent::config::{Advertise, CellConfig};
use slipway_controller::config::{ControllerConfig, Limits};
use slipway_router::RouterConfig;

use crate::UpError;
use crate::closed::WEB_AUTHORITY;
use crate::dns::DnsConfig;
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::postgres::Postgres;
use crate::previous::{DNS, ROUTER, held_by_router, stored_value};
use crate::settings::Settings;

/// The parts that are this same program and always run, in the order in which they start.
const PARTS: [&str; 3] = ["controller", "cell", ROUTER];
/// The parts of this platform that are this same program, in the order in which they start.
#[must_use]
pub fn parts(layout: &Layout) -> Vec<&'static str> {
    let dns = layout.config(DNS).exists().then_some(DNS);
    PARTS.into_iter().chain(dns).collect()
}

/// Where developers may send the platform beside public addresses: the platform's own ports, because a route service or a log
/// server may be an app of it, under the name that others use; and what the operator has named.
fn open_places(settings: &Settings, held: &[SocketAddr]) -> Vec<String> {
    let mut addresses = vec![settings.reached_at()];
    // Names below localhost lead there, whatever else the router listens on.
    if settings.listen.is_unspecified() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    let ports = [settings.http_port, settings.https_port];
    let listen_sockets = addresses.iter().flat_map(|address| ports.map(|port| listeners(*address, port, held)));
    let listen_sockets = listen_sockets.flatten().map(|address| address.to_string());
    listen_sockets.chain(settings.allow_networks.iter().flatten().map(ToString::to_string)).collect()
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
    let held = held_by_router(layout);
    let places = open_places(settings, &held);
    let controller = ControllerConfig {
        id: settings.controller_id,
        cluster_id: settings.cluster_id,
        database_url: Postgres::url(layout, "slipway"),
        blob_directory: layout.state("blobs"),
        layer_directory: Some(stacks.to_owned()),
        api_listen: loopback(settings.api_port),
        cluster_listen: loopback(settings.cluster_port),
        admin_listen: settings.controller_admin_port.map(loopback),
        tls_directory: layout.tls("controller"),
        encryption_key_file: layout.state("encryption.key"),
        admin_password_file: layout.state("admin-password"),
        system_domain: settings.domain.clone(),
        app_domain: settings.domain.clone(),
        public_url: settings.api_url(),
        ready_file: Some(layout.ready("controller")),
        drain_networks: places.clone(),
        trusted_proxies: Vec::new(),
        zone: "local".to_owned(),
        limits: Limits {
            memory_overcommit_percent: settings.memory_overcommit,
            disk_overcommit_percent: settings.disk_overcommit,
            ..stored_value(&layout.config("controller"), "limits", "table of limits")?.unwrap_or_default()
        },
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
        admin_listen: settings.cell_admin_port.map(loopback),
        advertise: Advertise::Direct,
        advertise_host: IpAddr::from(Ipv4Addr::LOCALHOST),
        memory_mb: 0,
        disk_mb: 0,
        slots: 1024,
        network: settings.network.clone(),
        name: settings.short_name(),
        resolvers: Vec::new(),
        staging_uses_host_settings: settings.host_settings,
        log_ring_bytes: 4 << 20,
        cache_mb: 20 * 1024,
        shares: stored_value(&layout.config("cell"), "shares", "table of shares")?.unwrap_or_default(),
        registries: settings.registries.clone(),
        ready_file: Some(layout.ready("cell")),
    };
    save(&layout.config("cell"), &cell)?;
    let own = layout.config(ROUTER);
    let router = RouterConfig {
        id: settings.router_id,
        cluster_id: settings.cluster_id,
        zone: "local".to_owned(),
        http_listen: listeners(settings.listen, settings.http_port, &held),
        https_listen: listeners(settings.listen, settings.https_port, &held),
        certificate: Some(layout.state("tls/web/cert.pem")),
        certificate_key: Some(layout.state("tls/web/key.pem")),
        // A route service may be an app of this platform; its certificate is of the platform's own authority.
        trusted_authorities: Some(layout.state(WEB_AUTHORITY)),
        route_service_networks: places,
        controllers: vec![loopback(settings.cluster_port)],
        tls_directory: layout.tls(ROUTER),
        state_directory: layout.state(ROUTER),
        query_listen: loopback(0),
        admin_listen: loopback(settings.admin_port),
        cores: 0,
        max_header_bytes: 1 << 20,
        response_timeout_s: 900,
        client_stall_timeout_s: 60,
        tunnel_idle_timeout_s: stored_value(&own, "tunnel_idle_timeout_s", "number")?.unwrap_or(3600),
        max_connections: stored_value(&own, "max_connections", "number")?.unwrap_or(0),
        max_connections_per_endpoint: stored_value(&own, "max_connections_per_endpoint", "number")?.unwrap_or(500),
        trusted_proxies: stored_value(&own, "trusted_proxies", "list of networks")?,
        force_forwarded_proto_https: stored_value(&own, "force_forwarded_proto_https", "true or false")?
            .unwrap_or(false),
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
    use slipway_protocol::egress_guard::EgressGuard;

    use super::*;
    use crate::options::UpOptions;
    use crate::previous::{BEFORE, allowed_before, registry_variables, router_config};

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

    fn egress_guards(layout: &Layout) -> [EgressGuard; 2] {
        let controller: ControllerConfig =
            slipway_chassis::config::load(&layout.config("controller")).expect("a configuration");
        let router = router_config(layout).expect("a configuration");
        [controller.drain_networks, router.route_service_networks]
            .map(|places| EgressGuard::new(&places).expect("places"))
    }

    fn allows(layout: &Layout, address: &str) -> bool {
        let [drains, services] =
            egress_guards(layout).map(|egress_guard| egress_guard.allows(address.parse().expect(address)));
        assert_eq!(drains, services, "{address}");
        drains
    }

    #[test]
    fn developers_reach_public_addresses_and_the_platform_s_own_doors() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let mut settings = crate::settings::tests::example();
        write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        for open in ["127.0.0.1:8080", "127.0.0.1:8443", "1.1.1.1:514", "[2606:4700::1111]:443"] {
            assert!(allows(&layout, open), "{open}");
        }
        let ports = [settings.api_port, settings.cluster_port].into_iter().chain(settings.admin_ports());
        let parts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        let others = [
            "127.0.0.1:22",
            "127.0.0.2:8080",
            "[::1]:22",
            "10.62.0.9:8080",
            "172.17.0.2:8080",
            "192.168.1.1:443",
            "[fd00::1]:443",
            "169.254.169.254:80",
        ];
        for closed in parts.iter().map(String::as_str).chain(others) {
            assert!(!allows(&layout, closed), "{closed}");
        }
        // What the operator names, every port of it; the doors follow the platform.
        settings.allow_networks = Some(vec!["192.168.0.0/16".parse().expect("a network")]);
        settings.listen = "127.0.0.9".parse().expect("an address");
        write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        for open in ["192.168.1.1:443", "127.0.0.9:8080"] {
            assert!(allows(&layout, open), "{open}");
        }
        for closed in ["127.0.0.1:8080", "172.17.0.2:8080"] {
            assert!(!allows(&layout, closed), "{closed}");
        }
    }

    #[test]
    fn networks_allowed_by_an_earlier_version_are_taken_over() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        assert!(allowed_before(&layout).expect("nothing there").is_empty());
        write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        let change = |part: &str, key: &str, value: &[&str]| {
            let path = layout.config(part);
            let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(&path).expect("read")).expect("toml");
            table.insert(key.to_owned(), value.to_vec().into());
            std::fs::write(path, toml::to_string(&table).expect("toml")).expect("written");
        };
        // As they were written: what was open is open no more.
        change("controller", "drain_networks", &BEFORE);
        change(ROUTER, "route_service_networks", &[&BEFORE[..], &["127.0.0.1/32"]].concat());
        assert!(allowed_before(&layout).expect("read").is_empty());
        change("controller", "drain_networks", &["10.8.0.0/16", "127.0.0.0/8"]);
        change(ROUTER, "route_service_networks", &["10.9.0.0/16", "10.8.0.0/16", "127.0.0.1/32"]);
        let found = allowed_before(&layout).expect("read");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.8.0.0/16", "10.9.0.0/16"]);
        for (text, message) in [("drain_networks = 5", "no list of networks"), ("drain_networks = [", "TOML")] {
            std::fs::write(layout.config("controller"), text).expect("written");
            let refused = allowed_before(&layout).expect_err(text).to_string();
            assert!(refused.contains(message) && refused.contains("controller.toml"), "{refused}");
        }
    }

    #[test]
    fn whether_builds_use_the_hosts_settings_is_remembered() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        let start = |settings: &Settings| write_configs(&layout, settings, Path::new("/layers"));
        start(&settings).expect("the first start");
        let host_settings = || -> bool {
            let config: CellConfig = slipway_chassis::config::load(&layout.config("cell")).expect("a config");
            config.staging_uses_host_settings
        };
        // The settings are decided before the configurations are written.
        let again = |flag: Option<bool>| {
            let options = UpOptions { host_settings: flag, ..UpOptions::default() };
            start(&Settings::load_or_decide(&layout, &options).expect("settings")).expect("written");
            host_settings()
        };
        assert!(host_settings() && again(None), "the default of what up really writes");
        assert!(!again(Some(false)) && !again(None), "the flag holds at later starts");
        let text = std::fs::read_to_string(layout.config("cell")).expect("read");
        let edited = |value: &str| {
            text.replace("staging_uses_host_settings = false", &format!("staging_uses_host_settings = {value}"))
        };
        std::fs::write(layout.config("cell"), edited("true")).expect("written");
        assert!(again(None) && !again(Some(false)), "an operator's change is kept, the flag is the last word");
        std::fs::write(layout.config("cell"), edited("\"perhaps\"")).expect("written");
        let options = UpOptions::default();
        let refused = Settings::load_or_decide(&layout, &options).expect_err("no switch").to_string();
        assert!(refused.contains("no true or false") && refused.contains("cell.toml"), "{refused}");
    }

    #[test]
    fn the_registries_file_stays_until_another_is_given() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout { state: directory.path().join("state"), run: directory.path().join("run") };
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let start = |registries: Option<PathBuf>| {
            let options = UpOptions { registries, http_port: Some(0), https_port: Some(0), ..UpOptions::default() };
            let settings = Settings::load_or_decide(&layout, &options).map_err(|error| error.to_string())?;
            write_configs(&layout, &settings, Path::new("/layers")).expect("written");
            let config: CellConfig = slipway_chassis::config::load(&layout.config("cell")).expect("a config");
            Ok::<_, String>(config.registries)
        };
        assert_eq!(start(None), Ok(None));
        let good = file("good.toml", "[npm]\ntoken_env = \"PATH\"\n");
        let registry_proxy = start(Some(good.clone())).expect("taken").expect("a door");
        assert_eq!((&registry_proxy.file, registry_proxy.port), (&good, 4873));
        assert_eq!(registry_variables(&layout), ["PATH"]);
        let path = layout.config("cell");
        let text = std::fs::read_to_string(&path).expect("read").replace("port = 4873", "port = 5000");
        std::fs::write(&path, text).expect("written");
        assert_eq!(
            start(None).expect("kept").map(|registry_proxy| (registry_proxy.file, registry_proxy.port)),
            Some((good.clone(), 5000))
        );
        for (name, text, words) in [
            ("bad.toml", "[npm]\nupstream = \"nowhere\"\n", "npm.upstream"),
            ("no-token.toml", "[npm]\ntoken_file = \"/nonexistent/token\"\n", "/nonexistent/token"),
        ] {
            let error = start(Some(file(name, text))).expect_err(name);
            assert!(error.contains(name) && error.contains(words) && error.contains("--registries none"), "{error}");
        }
        assert_eq!(
            start(None).expect("kept").map(|registry_proxy| registry_proxy.file),
            Some(good.clone()),
            "a refusal changes nothing"
        );
        std::fs::remove_file(&good).expect("removed");
        assert!(start(None).expect_err("it is gone").contains("good.toml"));
        assert_eq!(start(Some("none".into())), Ok(None));
        assert_eq!(start(None), Ok(None));
    }

    #[test]
    fn router_settings_of_an_operator_stay() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let mut settings = crate::settings::tests::example();
        write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        let mut table: toml::Table =
            toml::from_str(&std::fs::read_to_string(layout.config(ROUTER)).expect("read")).expect("toml");
        table.insert("trusted_proxies".to_owned(), vec!["10.7.0.0/16"].into());
        table.insert("force_forwarded_proto_https".to_owned(), true.into());
        table.insert("max_connections".to_owned(), 700.into());
        table.insert("max_connections_per_endpoint".to_owned(), 70.into());
        table.insert("tunnel_idle_timeout_s".to_owned(), 7.into());
        std::fs::write(layout.config(ROUTER), toml::to_string(&table).expect("toml")).expect("written");
        settings.http_port += 1;
        write_configs(&layout, &settings, Path::new("/layers")).expect("written again");
        let config = router_config(&layout).expect("a config");
        assert_eq!(config.http_listen[0].port(), settings.http_port, "the rest is written anew");
        assert_eq!(config.trusted_proxies, Some(vec!["10.7.0.0/16".to_owned()]));
        assert!(config.force_forwarded_proto_https);
        let numbers = (config.max_connections, config.max_connections_per_endpoint, config.tunnel_idle_timeout_s);
        assert_eq!(numbers, (700, 70, 7));
    }

    #[test]
    fn the_shares_of_the_cell_are_the_operator_s() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        let start = || write_configs(&layout, &settings, Path::new("/layers")).expect("written");
        start();
        let path = layout.config("cell");
        let cell = || slipway_chassis::config::load::<CellConfig>(&path).expect("a config");
        assert_eq!(cell().shares, Default::default());
        let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(&path).expect("read")).expect("toml");
        table.insert("shares".to_owned(), toml::Table::from_iter([("connections".to_owned(), 77.into())]).into());
        std::fs::write(&path, toml::to_string(&table).expect("toml")).expect("written");
        start();
        let shares = cell().shares;
        assert_eq!((shares.connections, shares.bandwidth_mbit), (77, 1000), "what is left out has its default");
    }

    #[test]
    fn limits_that_an_operator_has_set_stay_and_the_rest_follows_the_version() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        let start = || write_configs(&layout, &settings, Path::new("/layers"));
        let path = layout.config("controller");
        let text = || std::fs::read_to_string(&path).expect("read");
        start().expect("the first start");
        assert!(!text().contains("maximum_app_disk_mb"), "a default is not written: {}", text());
        let own = format!("{}\n", text().replace("[limits]", "[limits]\nmaximum_app_disk_mb = 8192"));
        std::fs::write(&path, own).expect("written");
        start().expect("the second start");
        start().expect("the third start");
        let config: ControllerConfig = slipway_chassis::config::load(&path).expect("a config");
        assert_eq!(config.limits.maximum_app_disk_mb, 8192);
        assert_eq!(config.limits.stored_mb_per_organization, Limits::default().stored_mb_per_organization);
        assert_eq!(config.limits.memory_overcommit_percent, settings.memory_overcommit);
        std::fs::write(&path, "[limits]\nmaximum_app_disk = 1").expect("written");
        let refused = start().expect_err("no such limit").to_string();
        assert!(refused.contains("no table of limits") && refused.contains("controller.toml"), "{refused}");
    }
}
