//! The whole table of a cell, as text.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use std::fmt::Write as _;

use slipway_helper::guards::Guard;

use super::super::elements::mark;
use super::super::settings::{APP_PORT, FIRST_PORT, RuntimeConfig};
use super::super::{EgressRule, Members};
use super::{PROBE_MARK, chain_name, chain_text};

/// Where clouds tell a machine who it is, credentials included, beside 169.254.0.0/16: Alibaba, Azure, Oracle. They look
/// like public addresses, and Azure's is its resolver as well, so they come after the resolvers.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

const EVERYBODY: &str = "0.0.0.0-255.255.255.255";

/// The table of connections is one for the whole host, and most of what stands in it has ended: waiting a minute or two less
/// for what comes late makes it last under a flood.
const AGING: &str = r#"  ct timeout brief {
    protocol tcp;
    l3proto ip;
    policy = { syn_sent : 30, fin_wait : 30, last_ack : 10, time_wait : 10, close : 5 }
  }
  ct timeout questions {
    protocol udp;
    l3proto ip;
    policy = { unreplied : 10, replied : 60 }
  }
  chain aging {
    meta l4proto tcp ct timeout set "brief"
    meta l4proto udp ct timeout set "questions"
  }
"#;

/// The whole table, replacing an earlier one in the same transaction. `bounded`: with what one instance may take of the
/// host's table of connections, for kernels that can count.
pub(super) fn rules(
    config: &RuntimeConfig,
    table: &str,
    live: &[(Ipv4Addr, Vec<EgressRule>)],
    open: &[Ipv4Addr],
    bounded: bool,
) -> String {
    let bridge = config.bridge();
    let network = config.network;
    let chains: BTreeSet<String> = live.iter().map(|(_, rules)| chain_text(&chain_name(rules), rules)).collect();
    let egress: Vec<String> =
        live.iter().map(|(address, rules)| format!("{address} : jump {}", chain_name(rules))).collect();
    let open: Vec<String> = open.iter().map(ToString::to_string).collect();
    let hold = |guard| config.guards.hold(guard);
    let names = if hold(Guard::ResolverPort) { "th dport 53 " } else { "" };
    let resolvers: String = config
        .resolvers
        .iter()
        .map(|resolver| format!("    ip daddr {resolver} meta l4proto {{ tcp, udp }} {names}accept\n"))
        .collect();
    let platform: String = config
        .platform
        .iter()
        .filter(|_| hold(Guard::Platform))
        .map(|peer| format!("    ip daddr {} tcp dport {} reject with tcp reset\n", peer.ip(), peer.port()))
        .collect();
    let members = if hold(Guard::Platform) { "    ip daddr . tcp dport @closed reject with tcp reset\n" } else { "" };
    let mut refused = Vec::new();
    let mut neighbours = String::new();
    if hold(Guard::Neighbours) {
        neighbours = format!("    oifname \"{bridge}\" reject with icmp type admin-prohibited\n");
        refused.push(network.to_string());
    }
    if hold(Guard::Metadata) {
        refused.push("169.254.0.0/16".to_owned());
        refused.extend(METADATA.map(|address| address.to_string()));
    }
    let refused = match refused.as_slice() {
        [] => String::new(),
        list => format!("    ip daddr {{ {} }} reject with icmp type admin-prohibited\n", list.join(", ")),
    };
    let host = match hold(Guard::HostPorts) {
        true => "    meta l4proto tcp reject with tcp reset\n    reject with icmp type admin-prohibited\n",
        false => "",
    };
    // Builds alone are in the set, while they have their address.
    let registries = config.registries_port.map_or_else(String::new, |port| {
        let builds = if hold(Guard::Registries) { "ip saddr @builds " } else { "" };
        format!("    {builds}ip daddr {} tcp dport {port} accept\n", config.gateway())
    });
    let gate = match hold(Guard::Gate) {
        true => "    ip daddr @ready accept\n    meta l4proto tcp reject with tcp reset\n    reject\n",
        false => "",
    };
    let marked = |address: Ipv4Addr| format!("{address} : {:#x}", mark(address));
    let marks: Vec<String> = (0..config.slots).map(|slot| marked(config.address(slot))).collect();
    let (ports, translate) = if config.host_ports { host_ports(config, &bridge) } else { Default::default() };
    let (counters, begins) = if bounded { bounds(config) } else { Default::default() };
    let aging = if bounded { AGING } else { "  chain aging {\n  }\n" };
    format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  set ready {{ type ipv4_addr; {open} }}
  set builds {{ type ipv4_addr; }}
{chains}  map egress {{ type ipv4_addr : verdict; {egress} }}
  # Of other members of the cluster, as controllers tell it.
  set closed {{ type ipv4_addr . inet_service; flags interval; }}
{ports}
  # Connections are found again by the address that began them: they are forgotten with its sandbox.
  map marks {{ type ipv4_addr : mark; {marks} }}
{aging}{counters}  chain to_instance {{
    # Late or damaged packets of a connection that lives: an answer to one would end the connection.
    ct state invalid drop
    ct state established,related accept
    jump aging
{gate}  }}
  chain from_instance {{
    ct state invalid drop
    ct state established,related accept
    ct mark set ip saddr map @marks
    jump begins
{resolvers}{neighbours}{refused}{platform}{members}    ip saddr vmap @egress
    reject with icmp type admin-prohibited
  }}
  chain begins {{
    # Later packets of what was counted and not answered yet: a program may send for ever to somebody who only listens.
    ct status confirmed return
{begins}    jump aging
  }}
  chain to_host {{
    ct state invalid drop
    ct state established,related accept
    ct mark set ip saddr map @marks
    jump begins
{resolvers}{registries}{host}  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    # By address: a translated packet still carries the interface it had before.
    ip daddr {network} ip daddr != {gateway} meta mark {PROBE_MARK} accept
    ip daddr {network} ip daddr != {gateway} jump to_instance
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{bridge}" jump to_host
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" jump from_instance
    oifname "{bridge}" ct state invalid drop
    oifname "{bridge}" ct status dnat jump to_instance
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" reject with icmp type admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} oifname != "{bridge}" masquerade
  }}
{translate}}}
"#,
        gateway = config.gateway(),
        open = elements(&open),
        egress = elements(&egress),
        marks = elements(&marks),
        chains = chains.into_iter().collect::<String>(),
    )
}

/// What one address may begin: the sets that count, and the rules. Too many at once are refused, so that the program hears
/// of it; too many in a second are dropped, which makes it wait.
fn bounds(config: &RuntimeConfig) -> (String, String) {
    let (shares, size) = (config.shares, config.slots);
    let (mut sets, mut rules) = (String::new(), String::new());
    if shares.connections > 0 && config.guards.hold(Guard::Connections) {
        _ = writeln!(sets, "  set open {{ type ipv4_addr; size {size}; flags dynamic; }}");
        let most = shares.connections;
        _ = writeln!(rules, "    add @open {{ ip saddr ct count over {most} }} reject with icmp type admin-prohibited");
    }
    if shares.connections_per_s > 0 && config.guards.hold(Guard::ConnectionRate) {
        let (rate, burst) = (shares.connections_per_s, shares.connections_per_s.saturating_mul(4));
        _ = writeln!(sets, "  set begun {{ type ipv4_addr; size {size}; flags dynamic; }}");
        _ = writeln!(rules, "    add @begun {{ ip saddr limit rate over {rate}/second burst {burst} packets }} drop");
    }
    (sets, rules)
}

/// Other elements of the sets of members, in one transaction.
pub(super) fn members(config: &RuntimeConfig, table: &str, members: &Members) -> String {
    let mut text = format!("flush set ip {table} closed\n");
    let closed: Vec<String> =
        members.closed.iter().map(|(host, first, last)| format!("{host} . {first}-{last}")).collect();
    if !closed.is_empty() {
        _ = writeln!(text, "add element ip {table} closed {{ {} }}", closed.join(", "));
    }
    if config.host_ports {
        _ = writeln!(text, "flush set ip {table} routers");
        let routers: Vec<String> = match &members.routers {
            Some(list) => list.iter().map(ToString::to_string).collect(),
            None => vec![EVERYBODY.to_owned()],
        };
        if !routers.is_empty() {
            _ = writeln!(text, "add element ip {table} routers {{ {} }}", routers.join(", "));
        }
    }
    text
}

/// The second line behind "nobody inside can send as another": at the port of a slot only the slot's address comes in, and
/// nothing but IPv4 and the question for the bridge's hardware address. In the family of bridges, where ports are seen.
pub(super) fn origins(config: &RuntimeConfig, table: &str) -> String {
    let own = |slot: u32| format!("\"{}\" . {}", config.interface(slot), config.address(slot));
    let own: Vec<String> = (0..config.slots).map(own).collect();
    let ports = format!("{}*", config.interface_prefix());
    format!(
        r#"add table bridge {table}
delete table bridge {table}
table bridge {table} {{
  set own {{ type ifname . ipv4_addr; {own} }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{ports}" jump origin
  }}
  chain origin {{
    ether type ip iifname . ip saddr @own accept
    ether type arp iifname . arp saddr ip @own accept
    drop
  }}
}}
"#,
        own = elements(&own),
    )
}

fn elements(list: &[String]) -> String {
    if list.is_empty() { String::new() } else { format!("elements = {{ {} }};", list.join(", ")) }
}

/// The translation of host ports, for all slots at once: a start need not touch it.
fn host_ports(config: &RuntimeConfig, bridge: &str) -> (String, String) {
    let entry = |slot: u32| {
        let port = u32::from(FIRST_PORT) + slot;
        format!("{port} : {} . {APP_PORT}", config.address(slot))
    };
    let entries: Vec<String> = (0..config.slots).map(entry).collect();
    let map = format!("  map ports {{ type inet_service : ipv4_addr . inet_service; {} }}\n", elements(&entries));
    let chains = format!(
        r#"  # Everybody, until a controller has told who the routers are.
  set routers {{ type ipv4_addr; flags interval; elements = {{ {EVERYBODY} }}; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{bridge}" ip saddr @routers fib daddr type local dnat ip to tcp dport map @ports
  }}
  chain output_nat {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to tcp dport map @ports
  }}
"#
    );
    (map, chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_rules() {
        let config = RuntimeConfig {
            name: "t".into(),
            state_directory: "/state".into(),
            run_directory: "/run".into(),
            network: "10.9.0.0/24".parse().unwrap(),
            slots: 2,
            disk_bytes: 0,
            host_ports: true,
            resolvers: vec![METADATA[1]],
            platform: vec![],
            shares: Default::default(),
            registries_port: Some(4873),
            fail_at: None,
            guards: Default::default(),
        };
        let text = rules(&config, "slipway_t", &[], &[], true);
        let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).unwrap();
        for address in ["169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192"] {
            // Azure's is its resolver, too: names are answered, and nothing else.
            assert!((line("daddr 168.63.129.16 meta")..line("vmap @egress")).contains(&line(address)), "{address}");
        }
        for chain in ["to_instance", "from_instance", "to_host"] {
            let (_, body) = text.split_once(&format!("chain {chain} {{\n")).unwrap();
            let first = body.lines().map(str::trim).find(|line| !line.starts_with('#')).unwrap();
            assert_eq!(first, "ct state invalid drop", "{chain}");
        }
        for chain in ["from_instance", "to_host"] {
            let (_, body) = text.split_once(&format!("chain {chain} {{\n")).unwrap();
            let (body, _) = body.split_once("\n  }").unwrap();
            let place = |wanted: &str| body.find(wanted).unwrap_or_else(|| panic!("{chain} has no {wanted}"));
            assert!(
                place("jump begins") < place("udp } th dport 53"),
                "{chain}: questions to a resolver count as well"
            );
        }
        let (_, to_host) = text.split_once("chain to_host {\n").unwrap();
        let door = "ip saddr @builds ip daddr 10.9.0.1 tcp dport 4873 accept";
        assert!(to_host.find(door).unwrap() < to_host.find("reject").unwrap(), "{to_host}");
        // A program that sends for ever to somebody who only listens has begun one flow: later packets are not counted.
        let (_, begins) = text.split_once("chain begins {\n").unwrap();
        assert!(begins.find("ct status confirmed return") < begins.find("add @open"), "{begins}");
        for bound in ["ct count over 4096", "limit rate over 1000/second burst 4000", "time_wait : 10"] {
            assert!(text.contains(bound), "{bound}");
            assert!(!rules(&config, "slipway_t", &[], &[], false).contains(bound), "{bound} on a kernel that cannot");
        }
        let shares = crate::config::Shares { connections: 0, connections_per_s: 0, ..config.shares };
        let free = rules(&RuntimeConfig { shares, registries_port: None, ..config }, "slipway_t", &[], &[], true);
        assert!(!free.contains("@builds"), "without registries nothing more is open");
        assert!(!free.contains("ct count") && !free.contains("limit rate"), "0 is no limit");
    }
}
