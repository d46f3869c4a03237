//! Where the members of the cluster are. Controllers say it at the begin of each session and when it changes; it is kept
//! beside the journal, so that an agent which starts while no controller answers has the rules it had.

use std::net::Ipv4Addr;

use bytes::Bytes;
use prost::Message as _;
use slipway_chassis::chain;
use slipway_protocol::v1::Members;

use crate::sandbox;
use crate::services::Services;

/// Brings the kept list into force.
pub(crate) async fn restore(services: &Services) {
    let Some(stored) = services.journal.members() else { return };
    let restored = match Members::decode(stored) {
        Ok(members) => apply(services, &members).await,
        Err(error) => {
            tracing::warn!(%error, "the kept list of members cannot be read; a controller says it again");
            false
        }
    };
    // What is kept counts as in force: the next session must not find it.
    if !restored && let Err(error) = services.journal.forget_members() {
        tracing::warn!(error = %chain(&error), "the kept list of members was not removed");
    }
}

/// Brings a list into force and keeps it. Each controller says it: mostly it is the one that is in force.
pub(crate) async fn take(services: &Services, members: Members) {
    let body = Bytes::from(members.encode_to_vec());
    let known = services.journal.members().is_some_and(|stored| stored == body);
    if known {
        return;
    }
    // What is not in force is not kept: the next session brings it again.
    if apply(services, &members).await
        && let Err(error) = services.journal.put_members(&body)
    {
        tracing::warn!(error = %chain(&error), "the list of members was not kept");
    }
}

async fn apply(services: &Services, members: &Members) -> bool {
    let applied = services.runtime.members(rules(members)).await;
    if let Err(error) = &applied {
        tracing::error!(error = %chain(error), "the ports of members are not closed to instances");
    }
    applied.is_ok()
}

/// What is no IPv4 address is not reached from inside, and reaches no host port.
fn rules(members: &Members) -> sandbox::Members {
    let port = |number: u32| u16::try_from(number).ok();
    let closed = members
        .closed
        .iter()
        .filter_map(|range| Some((range.host.parse::<Ipv4Addr>().ok()?, port(range.first)?, port(range.last)?)));
    let routers = |list: &slipway_protocol::v1::Addresses| {
        list.addresses.iter().filter_map(|address| address.parse::<Ipv4Addr>().ok()).collect()
    };
    sandbox::Members {
        closed: closed.filter(|(_, first, last)| first <= last).collect(),
        routers: members.routers.as_ref().map(routers),
    }
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::{Addresses, PortRange};

    use super::*;

    #[test]
    fn invalid_rules_are_left_out() {
        let range = |host: &str, first, last| PortRange { host: host.into(), first, last };
        let members = Members {
            closed: vec![
                range("10.0.0.1", 7, 9),
                range("::1", 7, 7),
                range("10.0.0.2", 9, 7),
                range("10.0.0.3", 7, 70_000),
            ],
            routers: Some(Addresses { addresses: vec!["10.0.0.4".into(), "rubbish".into()] }),
        };
        let rules = rules(&members);
        assert_eq!(rules.closed, [(Ipv4Addr::new(10, 0, 0, 1), 7, 9)]);
        assert_eq!(rules.routers, Some(vec![Ipv4Addr::new(10, 0, 0, 4)]));
    }
}
