//! The rules between instances, the host and the world: one nftables table per cell.
//!
//! Loaded once, in one transaction. What changes afterwards is elements: the set `ready` is the gate (addresses that
//! may be reached), the set `builds` holds those that may ask the cell for packages, the map `egress` leads an address to the chain of its rules. Instances with the same rules share a
//! chain, so a start adds one element and no rule.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::elements::Elements;
use super::settings::RuntimeConfig;
use super::{EgressRule, Members, SandboxError, host, run};

/// Traffic of the agent's own checks passes the gate. Only root of the host can set a mark.
pub(super) const PROBE_MARK: u32 = 0x736c_7770;

/// The table of one cell.
#[derive(Debug)]
pub(super) struct Firewall {
    table: String,
    elements: Elements,
    chains: Mutex<Chains>,
    /// Builds reach registries by this cell.
    has_registries: bool,
}

/// Which chains are loaded, and which address uses which.
#[derive(Debug, Default)]
struct Chains {
    loaded: BTreeSet<String>,
    used: BTreeMap<Ipv4Addr, String>,
}

impl Firewall {
    /// Name of a cell's table.
    pub(super) fn table(config: &RuntimeConfig) -> String {
        format!("slipway_{}", config.name)
    }

    /// Loads the table in place of an earlier one. `live` are the addresses in use with their rules; the gates that were
    /// open for them stay open. Answers, in words, what this kernel's rules cannot do.
    pub(super) fn load(
        config: &RuntimeConfig,
        live: &[(Ipv4Addr, Vec<EgressRule>)],
    ) -> Result<(Self, Vec<String>), SandboxError> {
        let table = Self::table(config);
        let open: Vec<Ipv4Addr> =
            ready(&table)?.into_iter().filter(|address| live.iter().any(|(used, _)| used == address)).collect();
        let mut warnings = Vec::new();
        if let Err(error) = run("nft", &["-f", "-"], &table::rules(config, &table, live, &open, true)) {
            // Who reaches whom must hold; a kernel that cannot count connections is no reason to run nothing.
            let text = table::rules(config, &table, live, &open, false);
            run("nft", &["-f", "-"], &text).map_err(host(format!("load nftables table {table}")))?;
            warnings.push(format!("connections of instances are not bounded: {error}"));
        }
        warnings.extend(Self::check_origins(config));
        let elements = Elements::open(&table).map_err(host("open netlink for nftables"))?;
        let used: BTreeMap<_, _> = live.iter().map(|(address, rules)| (*address, chain_name(rules))).collect();
        let chains = Chains { loaded: used.values().cloned().collect(), used };
        let has_registries = config.registries_port.is_some();
        Ok((Self { table, elements, chains: Mutex::new(chains), has_registries }, warnings))
    }

    /// Replaces which ports of members are closed to instances, and who reaches host ports.
    pub(super) fn members(&self, config: &RuntimeConfig, members: &Members) -> Result<(), SandboxError> {
        let text = table::members(config, &self.table, members);
        run("nft", &["-f", "-"], &text).map(drop).map_err(host("load the addresses of members"))
    }

    /// Opens or closes the gate of an address.
    pub(super) fn gate(&self, address: Ipv4Addr, open: bool) -> Result<(), SandboxError> {
        let done = if open { self.elements.add("ready", address, None) } else { self.elements.clear("ready", address) };
        done.map_err(host(format!("{} the gate of {address}", if open { "open" } else { "close" })))
    }

    /// Lets an address ask the cell for packages, until it is forgotten.
    pub(super) fn admit_build(&self, address: Ipv4Addr) -> Result<(), SandboxError> {
        if !self.has_registries {
            return Ok(());
        }
        self.elements.add("builds", address, None).map_err(host(format!("let {address} reach registries")))
    }

    /// Lets an address send what the rules allow.
    pub(super) fn admit(&self, address: Ipv4Addr, rules: &[EgressRule]) -> Result<(), SandboxError> {
        check(rules)?;
        let chain = chain_name(rules);
        // Held to the end: a chain must not be removed between its look-up and its first use.
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if !chains.loaded.contains(&chain) {
            let text = format!("table ip {} {{\n{}}}\n", self.table, chain_text(&chain, rules));
            run("nft", &["-f", "-"], &text).map_err(host(format!("load egress rules {chain}")))?;
            chains.loaded.insert(chain.clone());
        }
        self.elements.add("egress", address, Some(&chain)).map_err(host(format!("admit {address}")))?;
        chains.used.insert(address, chain);
        Ok(())
    }

    /// Removes the chains that no address uses. Only when rules have changed: on the start and stop path the `nft` that
    /// it takes would cost milliseconds, and the next start mostly has the same rules.
    pub(super) fn prune(&self) -> Result<(), SandboxError> {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let used: BTreeSet<String> = chains.used.values().cloned().collect();
        let unused: Vec<String> = chains.loaded.difference(&used).cloned().collect();
        if unused.is_empty() {
            return Ok(());
        }
        let text: String = unused.iter().map(|chain| format!("delete chain ip {} {chain}\n", self.table)).collect();
        run("nft", &["-f", "-"], &text).map_err(host("remove egress rules that nobody uses"))?;
        chains.loaded = used;
        Ok(())
    }

    /// Takes back all that an address was allowed.
    pub(super) fn forget(&self, address: Ipv4Addr) -> Result<(), SandboxError> {
        let gate = self.gate(address, false);
        let build = if self.has_registries { self.elements.clear("builds", address) } else { Ok(()) };
        let build = build.map_err(host(format!("refuse registries to {address}")));
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        self.elements.remove("egress", address).map_err(host(format!("refuse {address}")))?;
        // Not before the element is gone: a chain that it leads to cannot be removed.
        chains.used.remove(&address);
        // After the rules: nothing begins another connection any more.
        if let Err(error) = self.elements.forget_connections(address) {
            // They end by themselves after a while, which is no reason to keep the slot for ever.
            tracing::warn!(%error, %address, "the connections of an ended sandbox were not forgotten");
        }
        build.and(gate)
    }

    /// Loads the check of source addresses. A kernel that has no rules for bridges does without: nobody inside a sandbox can
    /// send as another, this is the second line. Answers that in words.
    fn check_origins(config: &RuntimeConfig) -> Option<String> {
        let error = run("nft", &["-f", "-"], &table::origins(config, &Self::table(config))).err()?;
        Some(format!("source addresses of instances are not checked a second time: {error}"))
    }

    /// Removes a cell's tables; none is no error.
    pub(super) fn remove(config: &RuntimeConfig) -> Result<(), SandboxError> {
        let table = Self::table(config);
        let remove = |family: &str| {
            let text = format!("add table {family} {table}\ndelete table {family} {table}\n");
            run("nft", &["-f", "-"], &text).map(drop).map_err(host(format!("remove nftables table {family} {table}")))
        };
        // Absent where the kernel has no rules for bridges.
        let _ = remove("bridge");
        remove("ip")
    }
}

/// Addresses whose gate is open in the table that is loaded now.
///
/// What cannot be read is an error, not an empty list: every gate would be closed until each instance has been recovered.
fn ready(table: &str) -> Result<Vec<Ipv4Addr>, SandboxError> {
    let list = |arguments: &[&str]| {
        run("nft", arguments, "")
            .and_then(|text| Ok(serde_json::from_str::<serde_json::Value>(&text)?))
            .map_err(host(format!("read the gates of nftables table {table}")))
    };
    if !has_table(&list(&["-j", "list", "tables"])?, table) {
        return Ok(Vec::new());
    }
    let set = list(&["-j", "list", "set", "ip", table, "ready"])?;
    open_gates(&set).ok_or_else(|| {
        let text = format!("not a set of addresses: {set}");
        host(format!("read the gates of nftables table {table}"))(std::io::Error::other(text))
    })
}

fn has_table(tables: &serde_json::Value, name: &str) -> bool {
    let items = tables["nftables"].as_array().into_iter().flatten().map(|item| &item["table"]);
    items.into_iter().any(|table| table["family"] == "ip" && table["name"] == name)
}

/// The addresses of a set; `None` for anything else.
fn open_gates(list: &serde_json::Value) -> Option<Vec<Ipv4Addr>> {
    let set = list["nftables"].as_array()?.iter().map(|item| &item["set"]).find(|set| set.is_object())?;
    let elements = set["elem"].as_array().into_iter().flatten();
    elements.map(|element| element.as_str()?.parse().ok()).collect()
}

/// Foreign chains that drop what is forwarded: an accept in our table cannot overrule them.
pub(super) fn foreign_obstacles(config: &RuntimeConfig) -> Vec<String> {
    let Ok(text) = run("nft", &["-j", "list", "chains"], "") else { return Vec::new() };
    obstacles(&text, &Firewall::table(config))
}

fn obstacles(json: &str, own: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(json) else { return Vec::new() };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let chains = value["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop" && chain["table"] != own)
        .map(|chain| {
            let (family, table, name) = (text(&chain["family"]), text(&chain["table"]), text(&chain["name"]));
            format!(
                "the chain {name} of nftables table {family} {table} drops forwarded traffic: instances cannot reach \
                 the network unless it accepts the cell's bridge"
            )
        })
        .collect()
}

fn check(rules: &[EgressRule]) -> Result<(), SandboxError> {
    for rule in rules {
        if !["tcp", "udp", "icmp", "all"].contains(&rule.protocol.as_str()) {
            return Err(SandboxError::Invalid(format!(
                "egress protocol {:?} is not tcp, udp, icmp or all",
                rule.protocol
            )));
        }
        if rule.first > rule.last || rule.ports.iter().any(|(first, last)| first > last) {
            return Err(SandboxError::Invalid(format!("egress range of {} to {} is reversed", rule.first, rule.last)));
        }
    }
    Ok(())
}

/// The same list has the same name, on every cell.
fn chain_name(rules: &[EgressRule]) -> String {
    let mut hash = Sha256::new();
    for rule in rules {
        hash.update(rule_text(rule));
    }
    format!("egress_{}", hex::encode(&hash.finalize()[..8]))
}

fn rule_text(rule: &EgressRule) -> String {
    let mut text = format!("ip daddr {}-{} ", rule.first, rule.last);
    let ports: Vec<String> = rule.ports.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    match (rule.protocol.as_str(), ports.is_empty()) {
        ("all", true) => {}
        // Ports mean something to these two only.
        ("all", false) => _ = write!(text, "meta l4proto {{ tcp, udp }} th dport {{ {} }} ", ports.join(", ")),
        ("icmp", _) => {
            text.push_str("meta l4proto icmp ");
            let (kind, code) = rule.icmp;
            for (name, value) in [("type", kind), ("code", code)] {
                if let Some(value) = value {
                    _ = write!(text, "icmp {name} {value} ");
                }
            }
        }
        (protocol, true) => _ = write!(text, "meta l4proto {protocol} "),
        (protocol, false) => _ = write!(text, "{protocol} dport {{ {} }} ", ports.join(", ")),
    }
    text.push_str("accept\n");
    text
}

fn chain_text(name: &str, rules: &[EgressRule]) -> String {
    let lines: String = rules.iter().map(|rule| format!("    {}", rule_text(rule))).collect();
    format!("  chain {name} {{\n{lines}    reject with icmp type admin-prohibited\n  }}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: &str, ports: &[(u16, u16)]) -> EgressRule {
        EgressRule {
            protocol: protocol.into(),
            first: Ipv4Addr::new(0, 0, 0, 0),
            last: Ipv4Addr::new(9, 255, 255, 255),
            ports: ports.to_vec(),
            icmp: (None, None),
        }
    }

    #[test]
    fn rules_become_text() {
        assert_eq!(
            rule_text(&rule("tcp", &[(80, 80), (443, 445)])),
            "ip daddr 0.0.0.0-9.255.255.255 tcp dport { 80-80, 443-445 } accept\n"
        );
        assert_eq!(rule_text(&rule("all", &[])), "ip daddr 0.0.0.0-9.255.255.255 accept\n");
        assert!(rule_text(&rule("icmp", &[(1, 2)])).contains("l4proto icmp accept"));
        let ping = EgressRule { icmp: (Some(8), Some(0)), ..rule("icmp", &[]) };
        assert!(rule_text(&ping).contains("l4proto icmp icmp type 8 icmp code 0 accept"));
    }

    #[test]
    fn equal_lists_share_a_chain() {
        assert_eq!(chain_name(&[rule("tcp", &[])]), chain_name(&[rule("tcp", &[])]));
        assert_ne!(chain_name(&[rule("tcp", &[])]), chain_name(&[rule("udp", &[])]));
    }

    #[test]
    fn bad_rules_are_refused_before_anything_is_loaded() {
        assert!(check(&[rule("tcp; drop", &[])]).is_err());
        assert!(check(&[rule("tcp", &[(5, 4)])]).is_err());
        assert!(check(&[rule("udp", &[(4, 5)])]).is_ok());
    }

    #[test]
    fn foreign_drop_policies_are_named() {
        let json = r#"{"nftables":[{"chain":{"family":"ip","table":"filter","name":"FORWARD","hook":"forward","policy":"drop"}},
            {"chain":{"family":"ip","table":"mine","name":"forward","hook":"forward","policy":"drop"}},
            {"chain":{"family":"ip","table":"filter","name":"INPUT","hook":"input","policy":"drop"}}]}"#;
        let found = obstacles(json, "mine");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("FORWARD") && found[0].contains("ip filter"));
    }

    #[test]
    fn open_gates_are_read_and_bad_output_is_not_taken_for_closed_gates() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let list = json(r#"{"nftables":[{"metainfo":{}},{"set":{"name":"ready","elem":["10.1.0.2","10.1.0.3"]}}]}"#);
        assert_eq!(open_gates(&list).unwrap(), [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 3)]);
        assert_eq!(open_gates(&json(r#"{"nftables":[{"set":{"name":"ready"}}]}"#)).unwrap(), [] as [Ipv4Addr; 0]);
        for other in ["{}", r#"{"nftables":[{"metainfo":{}}]}"#, r#"{"nftables":[{"set":{"elem":["::1"]}}]}"#] {
            assert_eq!(open_gates(&json(other)), None, "{other}");
        }
        let tables = json(r#"{"nftables":[{"metainfo":{}},{"table":{"family":"ip","name":"slipway_a"}}]}"#);
        assert!(has_table(&tables, "slipway_a") && !has_table(&tables, "slipway_b"));
    }
}
