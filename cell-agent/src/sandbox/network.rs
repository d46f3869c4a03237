//! The bridge and what the host must allow.

use std::io;

use slipway_helper::guards::Guard;
use slipway_helper::netlink::{Socket, route};

use super::settings::RuntimeConfig;
use super::{SandboxError, host};

/// Makes the bridge, gives it its address, and lets the kernel forward.
pub(super) fn prepare(config: &RuntimeConfig) -> Result<(), SandboxError> {
    let bridge = config.bridge();
    let socket = Socket::route().map_err(host("open netlink"))?;
    match socket.request(vec![route::add_bridge(&bridge)]) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
    .map_err(host(format!("make bridge {bridge}")))?;
    let index = route::index(&bridge).map_err(host(format!("find bridge {bridge}")))?;
    let address = config.gateway();
    match socket.request(vec![route::add_address(index, address, config.network.prefix_len()), route::up(index)]) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
    .map_err(host(format!("give {address} to bridge {bridge}")))?;
    // Rules are for IPv4: over IPv6 the bridge would have an address around them.
    let without = if config.guards.hold(Guard::BridgeNoIpv6) { "1" } else { "0" };
    setting(&format!("ipv6/conf/{bridge}/disable_ipv6"), without)?;
    setting("ipv4/ip_forward", "1")
}

/// Why this kernel cannot limit what an interface carries, in words; `None` when it can, or need not.
pub(super) fn without_bandwidth(config: &RuntimeConfig) -> Option<String> {
    let bytes = config.bandwidth_bytes()?;
    // The bridge has no queue of its own: it is tried there, and taken back at once.
    let tried = Socket::route().and_then(|socket| {
        let bridge = route::index(&config.bridge())?;
        socket.request(vec![route::limit(bridge, bytes)])?;
        socket.request(vec![route::unlimit(bridge)])
    });
    let error = tried.err()?;
    Some(format!("the bandwidth of instances is not limited: this kernel has no token bucket (sch_tbf): {error}"))
}

fn setting(name: &str, value: &str) -> Result<(), SandboxError> {
    let path = format!("/proc/sys/net/{name}");
    match std::fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(host(format!("set {path} to {value}"))),
    }
}

/// Removes the interface of a slot, if there is one.
pub(super) fn remove_interface(name: &str) -> Result<(), SandboxError> {
    let socket = Socket::route().map_err(host("open netlink"))?;
    route::remove_if_present(&socket, name).map_err(host(format!("remove interface {name}")))
}

/// Names of this cell's interfaces.
pub(super) fn interfaces(config: &RuntimeConfig) -> Vec<String> {
    let prefix = config.interface_prefix();
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes the bridge.
pub(super) fn dismantle(config: &RuntimeConfig) -> Result<(), SandboxError> {
    remove_interface(&config.bridge())
}

/// What instances will miss.
pub(super) fn warnings(config: &RuntimeConfig) -> Vec<String> {
    if config.resolvers.is_empty() {
        return vec!["instances have no resolver: name one in `resolvers`, or in /etc/resolv.conf".to_owned()];
    }
    let local = config.resolvers.iter().filter(|resolver| resolver.is_loopback());
    local
        .map(|resolver| {
            format!("resolver {resolver} is out of reach of instances, whose loopback is their own: set `resolvers`")
        })
        .collect()
}
