//! What an earlier start has left: configurations of the parts, and parts that still run.

use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use slipway_cell_agent::config::RegistryProxyConfig;
use slipway_cell_agent::registries::RegistriesFile;
use slipway_router::RouterConfig;

use crate::UpError;
use crate::layout::Layout;
use crate::ports::reached_at;
use crate::process::ChildRecord;

/// The router: the one part whose sockets the supervisor holds.
pub(crate) const ROUTER: &str = "router";
/// The resolver: it runs when it has a configuration.
pub(crate) const DNS: &str = "dns";

/// The router's configuration, as it was written last.
///
/// # Errors
/// When there is none, or it is damaged.
pub(crate) fn router_config(layout: &Layout) -> Result<RouterConfig, UpError> {
    let path = layout.config(ROUTER);
    slipway_chassis::config::load(&path)
        .map_err(|error| UpError::Damaged { path, detail: slipway_chassis::chain(&error).to_string() })
}

/// Where a router listens that a supervisor has left behind when it was killed. These addresses are taken, but by this
/// platform: its successor listens there too.
pub(crate) fn held_by_router(layout: &Layout) -> Vec<SocketAddr> {
    if ChildRecord::load(&layout.pid(ROUTER)).is_none() {
        return Vec::new();
    }
    let config = router_config(layout);
    config.map_or_else(|_| Vec::new(), |config| [config.http_listen, config.https_listen].concat())
}

/// What an earlier version wrote by itself, beside the address of the router.
pub(crate) const BEFORE: [&str; 5] = ["127.0.0.0/8", "::1/128", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// Networks that an operator of an earlier version wrote into the configurations of the parts. What that version wrote there
/// itself is not what he wanted, but what was open.
pub(crate) fn allowed_before(layout: &Layout) -> Result<Vec<IpNet>, UpError> {
    let mut found = Vec::new();
    for (part, key) in [("controller", "drain_networks"), (ROUTER, "route_service_networks")] {
        let router = router_config(layout).ok().and_then(|config| config.http_listen.first().copied());
        let router = router.map(|listen| IpNet::from(reached_at(listen.ip())));
        for text in stored_value::<Vec<String>>(&layout.config(part), key, "list of networks")?.unwrap_or_default() {
            let Ok(network) = text.parse::<IpNet>() else { continue };
            if !BEFORE.contains(&text.as_str()) && Some(network) != router && !found.contains(&network) {
                found.push(network);
            }
        }
    }
    Ok(found)
}

/// Whether builds use this machine's settings of package managers: what the operator has made of it, else yes. They hold no
/// credentials, and a machine behind a proxy or with certificates of its own reaches no registry without them.
///
/// # Errors
/// When the configuration of the cell is damaged.
pub(crate) fn host_settings(layout: &Layout) -> Result<bool, UpError> {
    Ok(stored_value(&layout.config("cell"), "staging_uses_host_settings", "true or false")?.unwrap_or(true))
}

/// The operator's file of registries, and the port at which builds reach them: what an earlier start, or the operator, has noted.
///
/// # Errors
/// When the configuration of the cell is damaged.
pub(crate) fn registries(layout: &Layout) -> Result<Option<RegistryProxyConfig>, UpError> {
    stored_value(&layout.config("cell"), "registries", "table with `file` and `port`")
}

/// Variables with credentials that the operator's file of registries names. Where it cannot be read, the cell says why.
pub(crate) fn registry_variables(layout: &Layout) -> Vec<String> {
    let registry_proxy = registries(layout).ok().flatten();
    let file = registry_proxy.and_then(|registry_proxy| RegistriesFile::read(&registry_proxy.file).ok());
    file.map(|file| file.variables()).unwrap_or_default()
}

/// A value of a configuration that an earlier start wrote; `what` describes it in errors.
pub(crate) fn stored_value<T: DeserializeOwned>(path: &Path, key: &str, what: &str) -> Result<Option<T>, UpError> {
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
