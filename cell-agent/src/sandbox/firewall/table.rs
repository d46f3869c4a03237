//! The whole table of a cell, as text.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use slipway_helper::guards::Guard;

use super::super::EgressRule;
use super::super::elements::mark;
use super::super::settings::{APP_PORT, FIRST_PORT, RuntimeConfig};
use super::{PROBE_MARK, chain_name, chain_text};

/// Where clouds tell a machine who it is, credentials included, beside 169.254.0.0/16: Alibaba, Azure, Oracle. They look
/// like public addresses, and Azure's is its resolver as well, so they come after the resolvers.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// The whole table, replacing an earlier one in the same transaction.
pub(super) fn rules(
    config: &RuntimeConfig,
    table: &str,
    live: &[(Ipv4Addr, Vec<EgressRule>)],
    open: &[Ipv4Addr],
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
    let marked = |address: Ipv4Addr| format!("{address} : {:#x}", mark(address));
    let marks: Vec<String> = (0..config.slots).map(|slot| marked(config.address(slot))).collect();
    let (ports, translate) = if config.host_ports { host_ports(config, &bridge) } else { Default::default() };
    format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  set ready {{ type ipv4_addr; {open} }}
{chains}  map egress {{ type ipv4_addr : verdict; {egress} }}
{ports}
  # Connections are found again by the address that began them: they are forgotten with its sandbox.
  map marks {{ type ipv4_addr : mark; {marks} }}
  chain to_instance {{
    # Late or damaged packets of a connection that lives: an answer to one would end the connection.
    ct state invalid drop
    ct state established,related accept
    ip daddr @ready accept
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain from_instance {{
    ct state invalid drop
    ct state established,related accept
    ct mark set ip saddr map @marks
{resolvers}{neighbours}{refused}{platform}    ip saddr vmap @egress
    reject with icmp type admin-prohibited
  }}
  chain to_host {{
    ct state invalid drop
    ct state established,related accept
{resolvers}{host}  }}
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
        r#"  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{bridge}" fib daddr type local dnat ip to tcp dport map @ports
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
            fail_at: None,
            guards: Default::default(),
        };
        let text = rules(&config, "slipway_t", &[], &[]);
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
    }
}
