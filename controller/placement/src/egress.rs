//! From the rules of security groups to the policy that a cell is given.

use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use slipway_protocol::digest::sha256;
use slipway_protocol::v1;

/// The policy of all groups that hold, named by its content. The order of the groups has no meaning: each permits.
#[must_use]
pub fn policy<'a>(groups: impl IntoIterator<Item = &'a Value>) -> v1::EgressPolicyBody {
    let rules = groups.into_iter().flat_map(rules).collect();
    let body = Bytes::from(v1::EgressPolicy { rules }.encode_to_vec());
    v1::EgressPolicyBody { id: Bytes::copy_from_slice(&sha256(&body)), body }
}

/// The permissions of one security group's `rules`. A destination list (`a,b`) becomes one rule per destination.
/// Members that the wire does not carry (description, log) are dropped; a rule without protocol or destination
/// permits nothing.
fn rules(group: &Value) -> Vec<v1::EgressRule> {
    let text = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let number = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    let mut out = Vec::new();
    for rule in group.as_array().into_iter().flatten() {
        let (protocol, ports) = (text(rule, "protocol"), text(rule, "ports"));
        if !matches!(protocol.as_str(), "tcp" | "udp" | "icmp" | "all") {
            continue;
        }
        for destination in text(rule, "destination").split(',').map(str::trim).filter(|part| !part.is_empty()) {
            out.push(v1::EgressRule {
                protocol: protocol.clone(),
                destination: destination.to_owned(),
                ports: ports.clone(),
                icmp_type: number(rule, "type"),
                icmp_code: number(rule, "code"),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_split_and_nonsense_permits_nothing() {
        let found = rules(&json!([
            {"protocol": "tcp", "destination": "10.0.0.0/8, 192.168.0.1-192.168.0.9", "ports": "443"},
            {"protocol": "icmp", "destination": "1.1.1.1", "type": 8, "code": -1},
            {"protocol": "all"}, {"destination": "0.0.0.0/0"}, 7,
        ]));
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].destination, "192.168.0.1-192.168.0.9");
        assert_eq!((found[2].icmp_type, found[2].icmp_code), (Some(8), Some(-1)));
        assert!(rules(&json!({})).is_empty());
    }

    #[test]
    fn a_policy_is_named_by_what_it_permits() {
        let one = json!([{"protocol": "tcp", "destination": "10.0.0.1", "ports": "443"}]);
        let other = json!([{"protocol": "tcp", "destination": "10.0.0.1", "ports": "444"}]);
        assert_eq!(policy([&one]), policy([&one]));
        assert_ne!(policy([&one]).id, policy([&other]).id);
        assert_eq!(policy([]).id.len(), 32, "to reach nothing is a policy too");
    }
}
