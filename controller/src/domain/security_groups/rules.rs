//! What a security group may say: a list of permissions, each with protocol, destinations and ports or an ICMP type.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use crate::domain::{DomainError, DomainResult};

const KEYS: &[&str] = &["code", "description", "destination", "log", "ports", "protocol", "type"];
const MAX_DESTINATIONS: usize = 6000;
/// More rules than this in one group would make a chain that every packet walks through.
const MAX_RULES: usize = 1000;

/// Checks rules and gives them as they are stored.
///
/// # Errors
/// [`DomainError::Invalid`] with every problem, each with the number of its rule.
pub(super) fn check_rules(rules: &Value) -> DomainResult<()> {
    let Value::Array(rules) = rules else { return Err(DomainError::invalid("Rules must be an array")) };
    if rules.len() > MAX_RULES {
        return Err(DomainError::invalid(format!("Rules must not be more than {MAX_RULES}")));
    }
    let mut problems = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let mut found = Vec::new();
        match rule {
            Value::Object(rule) => check_rule(rule, &mut found),
            _ => found.push("must be an object".to_owned()),
        }
        problems.extend(found.into_iter().map(|problem| format!("Rules[{number}]: {problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(DomainError::Invalid(problems.join(", "))) }
}

fn check_rule(rule: &Map<String, Value>, problems: &mut Vec<String>) {
    let unknown: Vec<String> = rule
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("\"{}\"", key.chars().take(80).collect::<String>()))
        .collect();
    if !unknown.is_empty() {
        problems.push(format!("unknown field(s): [{}]", unknown.join(", ")));
    }
    let given = |key: &str| rule.get(key).filter(|value| !value.is_null());
    let protocol = rule.get("protocol").and_then(Value::as_str).unwrap_or_default();
    if !["tcp", "udp", "icmp", "icmpv6", "all"].contains(&protocol) {
        problems.push("protocol must be 'tcp', 'udp', 'icmp', 'icmpv6' or 'all'".to_owned());
    }
    match rule.get("destination") {
        Some(Value::String(text)) => check_destinations(text, problems),
        None | Some(Value::Null) => problems.push(
            "nil destination; destination must be a comma-delimited list of valid CIDRs, IP addresses, or IP address ranges"
                .to_owned(),
        ),
        Some(_) => problems.push("destination must be a string".to_owned()),
    }
    if given("description").is_some_and(|value| !value.is_string()) {
        problems.push("description must be a string".to_owned());
    }
    if given("log").is_some_and(|value| !value.is_boolean()) {
        problems.push("log must be a boolean".to_owned());
    }
    match protocol {
        "tcp" | "udp" => {
            let ports = given("ports");
            if ports.is_none() {
                problems.push("ports are required for protocols of type TCP and UDP".to_owned());
            }
            if !ports.and_then(Value::as_str).is_some_and(are_ports) {
                problems.push(
                    "ports must be a valid single port, comma separated list of ports, or range or ports, formatted as a string"
                        .to_owned(),
                );
            }
        }
        "icmp" => {
            for key in ["code", "type"] {
                if given(key).is_none() {
                    problems.push(format!("{key} is required for protocols of type ICMP"));
                }
                if !given(key).and_then(Value::as_i64).is_some_and(|value| (-1..=255).contains(&value)) {
                    problems.push(format!("{key} must be an integer between -1 and 255 (inclusive)"));
                }
            }
        }
        "icmpv6" => problems.push("icmpv6 cannot be used if enable_ipv6 is false".to_owned()),
        "all" if given("ports").is_some() => {
            problems.push("ports are not allowed for protocols of type all".to_owned());
        }
        _ => {}
    }
}

fn check_destinations(text: &str, problems: &mut Vec<String>) {
    if text.chars().any(char::is_whitespace) {
        problems.push("destination must not contain whitespace".to_owned());
        return;
    }
    let destinations: Vec<&str> = text.split(',').collect();
    if destinations.len() > MAX_DESTINATIONS {
        problems.push(format!("maximum destinations per rule exceeded - must be under {MAX_DESTINATIONS}"));
        return;
    }
    for destination in destinations {
        if let Some(problem) = check_destination(destination) {
            problems.push(problem.to_owned());
        }
    }
}

fn check_destination(destination: &str) -> Option<&'static str> {
    if destination.is_empty() {
        return Some("empty destination specified in comma-delimited list");
    }
    let leading_zero = |address: &str| {
        let address = address.split('/').next().unwrap_or_default();
        address.split('.').any(|octet| octet.len() > 1 && octet.starts_with('0'))
    };
    let parts: Vec<&str> = destination.split('-').collect();
    if parts.iter().any(|part| leading_zero(part)) {
        return Some("destination octets cannot contain leading zeros");
    }
    match parts.as_slice() {
        [one] => (!is_network(one))
            .then_some("destination must contain valid CIDR(s), IP address(es), or IP address range(s)"),
        [first, last] => match (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
            (Ok(first), Ok(last)) => (first > last).then_some(
                "beginning of IP address range is numerically greater than the end of its range (range endpoints are inverted)",
            ),
            _ => Some("destination IP address range is invalid"),
        },
        _ => Some("destination must contain valid CIDR(s), IP address(es), or IP address range(s)"),
    }
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    // Digits only: a sign or a space would be understood by nobody else.
    let bits_are_good = bits.len() <= 2
        && bits.bytes().all(|byte| byte.is_ascii_digit())
        && bits.parse::<u8>().is_ok_and(|bits| bits <= 32);
    address.parse::<Ipv4Addr>().is_ok() && bits_are_good
}

fn are_ports(text: &str) -> bool {
    let port = |text: &str| {
        let text = text.trim();
        (text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
            .filter(|port| *port > 0)
    };
    // A range stands alone; a list has single ports.
    if let Some((low, high)) = text.split_once('-') {
        return matches!((port(low), port(high)), (Some(low), Some(high)) if low <= high);
    }
    text.split(',').all(|item| port(item).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(rule: Value) -> String {
        check_rules(&json!([rule])).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn good_rules_pass() {
        for rule in [
            json!({ "protocol": "tcp", "destination": "10.0.0.0/8,192.168.0.1-192.168.0.9", "ports": "443" }),
            json!({ "protocol": "udp", "destination": "8.8.8.8", "ports": "53,5353", "log": true, "description": "dns" }),
            json!({ "protocol": "tcp", "destination": "0.0.0.0/0", "ports": "8000-9000" }),
            json!({ "protocol": "icmp", "destination": "0.0.0.0/0", "type": 8, "code": -1 }),
            json!({ "protocol": "all", "destination": "0.0.0.0-9.255.255.255" }),
        ] {
            assert_eq!(problem(rule.clone()), "", "{rule}");
        }
        assert!(check_rules(&json!([])).is_ok());
    }

    #[test]
    fn bad_rules_are_reported_with_their_number() {
        let tcp =
            |destination: &str, ports: &str| json!({ "protocol": "tcp", "destination": destination, "ports": ports });
        for (rule, text) in [
            (json!(1), "Rules[0]: must be an object"),
            (json!({ "protocol": "sctp", "destination": "1.1.1.1" }), "protocol must be 'tcp', 'udp'"),
            (json!({ "protocol": "all", "destination": "1.1.1.1", "x": 1 }), "unknown field(s): [\"x\"]"),
            (json!({ "protocol": "all" }), "nil destination"),
            (json!({ "protocol": "all", "destination": 7 }), "destination must be a string"),
            (json!({ "protocol": "all", "destination": "1.1.1.1", "ports": "1" }), "ports are not allowed"),
            (json!({ "protocol": "tcp", "destination": "1.1.1.1" }), "ports are required"),
            (
                json!({ "protocol": "icmp", "destination": "1.1.1.1", "type": 256, "code": 0 }),
                "type must be an integer",
            ),
            (json!({ "protocol": "icmp", "destination": "1.1.1.1", "type": 0 }), "code is required"),
            (json!({ "protocol": "icmpv6", "destination": "1.1.1.1", "type": 0, "code": 0 }), "enable_ipv6"),
            (json!({ "protocol": "all", "destination": "1.1.1.1", "log": "yes" }), "log must be a boolean"),
            (tcp("1.1.1.1 ", "1"), "must not contain whitespace"),
            (tcp("1.1.1.1,", "1"), "empty destination"),
            (tcp("1.1.1.01", "1"), "leading zeros"),
            (tcp("1.1.1.9-1.1.1.1", "1"), "inverted"),
            (tcp("1.1.1.9-x", "1"), "range is invalid"),
            (tcp("1.1.1.1/33", "1"), "valid CIDR(s)"),
            (tcp("1.1.1.1/+8", "1"), "valid CIDR(s)"),
            (tcp("example.com", "1"), "valid CIDR(s)"),
            (tcp("1.1.1.1", "0"), "ports must be"),
            (tcp("1.1.1.1", "9-1"), "ports must be"),
            (tcp("1.1.1.1", "70000"), "ports must be"),
        ] {
            let found = problem(rule.clone());
            assert!(found.starts_with("Rules[0]: ") && found.contains(text), "{rule}: {found:?}");
        }
        assert_eq!(check_rules(&json!({})).expect_err("no list").to_string(), "Rules must be an array");
    }
}
