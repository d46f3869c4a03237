//! Sends cells the addresses of the cluster's members: an instance reaches none of their ports, whatever its security groups
//! say, and only routers reach the ports of instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::Shutdown;
use slipway_chassis::driver::{Definition, Next, Wake};
use slipway_protocol::v1;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use crate::context::Context;
use crate::sessions::peer::FIRST_HOST_PORT;
use crate::store::members::MemberRows;

/// The look at them, as a task. A member that is new is reached by instances for its period at the most.
const MEMBERS: Definition = Definition {
    name: "members",
    description: "Tells cells the addresses of the platform's members, which no app may reach",
    period: Duration::from_secs(5),
    woken_by: "",
};

/// The current list of members; `None` until it was read.
pub(crate) type MembersWatch = watch::Receiver<Option<Arc<v1::Members>>>;

/// Reads the members until shutdown.
pub(crate) fn start(context: Context, shutdown: &Shutdown) -> MembersWatch {
    let (send, members_watch) = watch::channel(None);
    let send = Arc::new(send);
    let tasks = context.tasks.clone();
    tasks.start(shutdown, MEMBERS, Wake::default(), move || {
        let (context, send) = (context.clone(), Arc::clone(&send));
        async move {
            let rows = context.store.members().await?;
            let now = Arc::new(members(&rows, &database(&context.config.database_url).await));
            send.send_if_modified(|current| {
                let changed = current.as_ref() != Some(&now);
                if changed {
                    *current = Some(now);
                }
                changed
            });
            Ok::<_, sqlx::Error>(Next::AfterPeriod)
        }
    });
    members_watch
}

/// Where Postgres is, when it is reached by the network. A name that is not answered now is asked again the next time.
async fn database(url: &str) -> Vec<SocketAddr> {
    let Ok(options) = url.parse::<PgConnectOptions>() else { return Vec::new() };
    if options.get_socket().is_some() || options.get_host().starts_with('/') {
        return Vec::new();
    }
    let found = tokio::net::lookup_host((options.get_host(), options.get_port())).await;
    found.map(Iterator::collect).unwrap_or_default()
}

fn members(rows: &MemberRows, database: &[SocketAddr]) -> v1::Members {
    let mut ports: BTreeMap<IpAddr, BTreeSet<(u16, u16)>> = BTreeMap::new();
    let single =
        rows.addresses.iter().filter_map(|text| text.parse::<SocketAddr>().ok()).chain(database.iter().copied());
    for address in single {
        ports.entry(address.ip()).or_default().insert((address.port(), address.port()));
    }
    for (host, slots) in &rows.host_ports {
        if let Ok(host) = host.parse::<IpAddr>() {
            let last = FIRST_HOST_PORT.saturating_add(slots.saturating_sub(1)).min(u32::from(u16::MAX));
            let (first, last) = (port(FIRST_HOST_PORT), port(last));
            ports.entry(host).or_default().insert((first, last));
        }
    }
    let closed = ports
        .into_iter()
        // Nobody inside reaches a host by its loopback address.
        .filter(|(host, _)| !host.is_loopback() && !host.is_unspecified())
        .flat_map(|(host, ports)| apart(ports).into_iter().map(move |range| (host.to_string(), range)))
        .map(|(host, (first, last))| v1::PortRange { host, first: first.into(), last: last.into() })
        .collect();
    let known = rows.routers.iter().all(|addresses| !addresses.is_empty());
    let routers: BTreeSet<&String> = rows.routers.iter().flatten().collect();
    let routers = known.then(|| v1::Addresses { addresses: routers.into_iter().cloned().collect() });
    v1::Members { closed, routers }
}

fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Ranges that do not overlap: the kernel's sets refuse those that do.
fn apart(ranges: BTreeSet<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut apart: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_members_are_closed_and_routers_named() {
        let text = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = MemberRows {
            addresses: text(&["10.0.0.1:7000", "10.0.0.2:61003", "10.0.0.2:7001", "127.0.0.1:9", "0.0.0.0:7000", ""]),
            host_ports: vec![("10.0.0.2".into(), 256), ("rubbish".into(), 4)],
            routers: vec![text(&["10.0.0.3", "10.0.1.3"]), text(&["10.0.0.3"])],
        };
        let announced = members(&rows, &["10.0.0.9:5432".parse().expect("an address")]);
        let closed: Vec<String> =
            announced.closed.iter().map(|range| format!("{} {}-{}", range.host, range.first, range.last)).collect();
        assert_eq!(closed, ["10.0.0.1 7000-7000", "10.0.0.2 7001-7001", "10.0.0.2 61000-61255", "10.0.0.9 5432-5432"]);
        assert_eq!(announced.routers.expect("known").addresses, ["10.0.0.3", "10.0.1.3"]);
        // One that has said nothing yet must not be shut out.
        let rows = MemberRows { routers: vec![text(&["10.0.0.3"]), vec![]], ..rows };
        assert_eq!(members(&rows, &[]).routers, None);
    }

    #[tokio::test]
    async fn a_database_by_the_network_is_a_member() {
        let found = database("postgres://slipway:secret@127.0.0.1:5433/slipway").await;
        assert_eq!(found, ["127.0.0.1:5433".parse().expect("an address")]);
        for local in ["postgres:///slipway?host=/run/postgresql", "rubbish"] {
            assert!(database(local).await.is_empty(), "{local}");
        }
    }
}
