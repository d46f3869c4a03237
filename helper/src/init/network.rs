//! The network namespace: a loopback and one interface that leads to the host's bridge and nowhere else.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use nix::sched::{CloneFlags, unshare};
use slipway_helper::guards::{Guard, Guards};
use slipway_helper::netlink::{Socket, route};
use slipway_helper::spec::{Failure, InitSpec};

use super::at;

const LOOPBACK: u32 = 1;

/// Enters a new network namespace and connects it.
pub(super) fn create(order: &InitSpec) -> Result<(), Failure> {
    let (spec, guards) = (&order.network, &order.guards);
    let host = Socket::route().map_err(at("open netlink on the host"))?;
    let bridge = route::index(&spec.bridge).map_err(at(format!("find bridge {}", spec.bridge)))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(at("make a network namespace"))?;
    settings(guards)?;
    let own = File::open("/proc/self/ns/net").map_err(at("open the network namespace"))?;
    // Ports are isolated: two instances on one bridge reach each other through the host's rules only.
    let mut pair = vec![route::add_pair(&spec.interface, bridge, own.as_raw_fd(), hardware_address(spec.address))];
    if guards.hold(Guard::IsolatedPort) {
        pair.push(route::isolate_port(&spec.interface));
    }
    host.request(pair).map_err(at(format!("make interface {}", spec.interface)))?;
    if let Some(bandwidth) = spec.bandwidth {
        // What comes in for the sandbox leaves the host's end.
        let limit = host.index(&spec.interface).and_then(|index| host.request(vec![route::limit(index, bandwidth)]));
        limit.map_err(at(format!("limit the bandwidth of {}", spec.interface)))?;
    }
    let inside = Socket::route().map_err(at("open netlink inside"))?;
    let index = route::index("eth0").map_err(at("find eth0"))?;
    // A single address and a gateway, not a network: neighbours are then refused by rule at once, not by a timeout.
    let prefix = if guards.hold(Guard::SingleAddress) { 32 } else { 24 };
    inside
        .request(vec![
            route::up(LOOPBACK),
            route::up(index),
            route::add_address(index, spec.address, prefix),
            route::default_route(index, spec.gateway),
        ])
        .map_err(at(format!("configure address {}", spec.address)))?;
    let Some(bandwidth) = spec.bandwidth else { return Ok(()) };
    // Out of the app's reach: the namespace belongs to the host's users.
    inside.request(vec![route::limit(index, bandwidth)]).map_err(at("limit the bandwidth of eth0"))
}

/// The address decides it: a new incarnation under the same address is not hidden by the host's neighbour cache.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x53, a, b, c, d]
}

/// `/proc/sys/net` is that of the namespace of whoever looks, so the host's mount serves.
fn settings(guards: &Guards) -> Result<(), Failure> {
    // The rules of the host are for IPv4; over IPv6 an instance would reach the bridge around them.
    let no_ipv6 = if guards.hold(Guard::NoIpv6) { "1" } else { "0" };
    // The host, which forwards between neighbours on one bridge, tells each that there is a shorter way.
    let redirects = if guards.hold(Guard::NoRedirects) { "0" } else { "1" };
    let wanted = [
        ("ipv4/conf/all/accept_redirects", redirects),
        ("ipv4/conf/default/accept_redirects", redirects),
        ("ipv6/conf/all/disable_ipv6", no_ipv6),
        ("ipv6/conf/default/disable_ipv6", no_ipv6),
        // Ports are the instance's own, and nobody inside has a capability in this namespace.
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 4294967294"),
    ];
    for (name, value) in wanted {
        let path = format!("/proc/sys/net/{name}");
        match std::fs::write(&path, value) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(at(format!("set {path}")))?,
        }
    }
    Ok(())
}
