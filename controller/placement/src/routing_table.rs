//! The routing table as a pure function: rows of the store in, routes and pools out, the same on every controller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::{self, Version};
use uuid::Uuid;

use crate::system_names::{SYSTEM_HOSTS, is_system_name};

/// The pool of the platform's own host names.
pub const SYSTEM_POOL: &str = "system:controllers";

/// What an app listens on unless a destination says otherwise.
const DEFAULT_PORT: u16 = 8080;

/// Rows of the store that the table follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingInput {
    /// Where the store stood.
    pub version: Version,
    /// One for each route.
    pub routes: Vec<RouteRow>,
    /// One for each (destination, process).
    pub destinations: Vec<DestinationRow>,
    /// One for each routable assignment.
    pub endpoints: Vec<EndpointRow>,
    /// Controllers' API addresses, `(id, host:port, tls)`.
    pub controllers: Vec<(Uuid, String, bool)>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// Its guid.
    pub id: Uuid,
    /// Empty = the domain itself.
    pub host: String,
    /// The domain's name.
    pub domain: String,
    /// Empty, or from the first slash on.
    pub path: String,
    /// As the API stored them.
    pub options: Option<serde_json::Value>,
    /// The binding of its route service, if it has one.
    pub service_binding: Option<Uuid>,
    /// Where its requests go first.
    pub route_service_url: Option<String>,
    /// What they come back signed with; sealed as it is stored, open in what [`build`] gets.
    pub route_service_secret: Option<Vec<u8>>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRow {
    /// The route.
    pub route: Uuid,
    /// None = the app's default port.
    pub port: Option<u16>,
    /// None = shared equally.
    pub weight: Option<u32>,
    /// Whether the app is spoken to by HTTP/2.
    pub http2: bool,
    /// The app.
    pub app: Uuid,
    /// Its name.
    pub app_name: String,
    /// Its space's name.
    pub space_name: String,
    /// Its organization's name.
    pub organization_name: String,
    /// The process that serves it.
    pub process: Uuid,
    /// Its type.
    pub process_type: String,
}

/// A routable instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// The assignment; with the address, the identity of the endpoint.
    pub assignment: Uuid,
    /// The process.
    pub process: Uuid,
    /// Which instance.
    pub index: u32,
    /// What the cell reported for the app's default port.
    pub host: String,
    /// What the cell reported for the app's default port.
    pub port: u16,
    /// The cell.
    pub cell: Uuid,
    /// Its zone.
    pub zone: String,
    /// Routers reach the instance's own address, at any port.
    pub direct: bool,
}

/// A table at a version. Members are shared between consecutive tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Which version it belongs to.
    pub version: Version,
    /// By route id.
    pub routes: BTreeMap<String, Arc<v1::Route>>,
    /// By pool id.
    pub pools: BTreeMap<String, Arc<v1::Pool>>,
    /// Over all members.
    pub digest: SetDigest,
}

impl Table {
    /// How many routes and pools it names: what it holds of its own.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.routes.len() + self.pools.len()
    }

    /// The whole table for the wire.
    #[must_use]
    pub fn snapshot(&self) -> v1::TableSnapshot {
        v1::TableSnapshot {
            version: Some(self.version),
            digest: self.digest.to_bytes(),
            routes: self.routes.values().map(|route| (**route).clone()).collect(),
            pools: self.pools.values().map(|pool| (**pool).clone()).collect(),
        }
    }

    /// What leads from `self` to `newer`.
    #[must_use]
    pub fn delta(&self, newer: &Self) -> v1::TableDelta {
        let (upsert_routes, remove_routes) = changes(&self.routes, &newer.routes);
        let (upsert_pools, remove_pools) = changes(&self.pools, &newer.pools);
        v1::TableDelta {
            from: Some(self.version),
            to: Some(newer.version),
            digest: newer.digest.to_bytes(),
            upsert_routes,
            remove_routes,
            upsert_pools,
            remove_pools,
        }
    }
}

fn changes<M: Clone + PartialEq>(
    old: &BTreeMap<String, Arc<M>>,
    new: &BTreeMap<String, Arc<M>>,
) -> (Vec<M>, Vec<String>) {
    let differs = |(id, member): &(&String, &Arc<M>)| {
        old.get(*id).is_none_or(|before| !Arc::ptr_eq(before, member) && before != *member)
    };
    let upserts = new.iter().filter(differs).map(|(_, member)| (**member).clone()).collect();
    let removals = old.keys().filter(|id| !new.contains_key(*id)).cloned().collect();
    (upserts, removals)
}

/// Computes the table. `previous` only saves memory and hashing: the result does not depend on it.
#[must_use]
pub fn build(input: &RoutingInput, system_domain: &str, previous: &Table) -> Table {
    let mut routes = BTreeMap::new();
    let mut pools = BTreeMap::new();
    for host in SYSTEM_HOSTS {
        let route = v1::Route {
            id: format!("system:{host}"),
            host: format!("{host}.{}", system_domain.to_lowercase()),
            targets: vec![v1::WeightedPool { pool: SYSTEM_POOL.to_owned(), weight: 0 }],
            system: true,
            ..v1::Route::default()
        };
        routes.insert(route.id.clone(), route);
    }
    pools.insert(SYSTEM_POOL.to_owned(), system_pool(input));

    let mut endpoints: BTreeMap<Uuid, Vec<&EndpointRow>> = BTreeMap::new();
    for endpoint in &input.endpoints {
        endpoints.entry(endpoint.process).or_default().push(endpoint);
    }
    let weights = Weights::new(input, &endpoints);
    let mut targets: BTreeMap<Uuid, BTreeSet<(String, u32)>> = BTreeMap::new();
    for destination in &input.destinations {
        let port = destination.port.unwrap_or(DEFAULT_PORT);
        let id = pool_id(destination, port);
        targets.entry(destination.route).or_default().insert((id.clone(), weights.of(destination)));
        pools.entry(id.clone()).or_insert_with(|| {
            pool(id, destination, port, endpoints.get(&destination.process).map_or(&[], Vec::as_slice))
        });
    }
    for row in &input.routes {
        let targets = targets.remove(&row.id).unwrap_or_default();
        let route = route(row, targets);
        // Such a route cannot be made; one that is there all the same must not get what is meant for the platform.
        if is_system_name(&route.host, system_domain) {
            continue;
        }
        routes.insert(route.id.clone(), route);
    }
    finish(input.version, routes, pools, previous)
}

/// Shares of targets. A destination leads to all processes of its type: during a deployment two, and then each gets
/// requests by the number of its instances, so that no instance gets more than another.
struct Weights<'a> {
    endpoints: &'a BTreeMap<Uuid, Vec<&'a EndpointRow>>,
    /// Processes and instances of each destination.
    behind: BTreeMap<DestinationKey<'a>, (usize, usize)>,
    /// Routes with a destination that leads to several processes.
    split: BTreeSet<Uuid>,
}

/// Route, app, type, port, whether by HTTP/2.
type DestinationKey<'a> = (Uuid, Uuid, &'a str, Option<u16>, bool);

impl<'a> Weights<'a> {
    /// What a weight is divided into among processes: shares are exact to one in as many.
    const PARTS: u64 = 10_000;

    fn new(input: &'a RoutingInput, endpoints: &'a BTreeMap<Uuid, Vec<&'a EndpointRow>>) -> Self {
        let mut behind: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        let mut split = BTreeSet::new();
        for destination in &input.destinations {
            let (processes, instances) = behind.entry(Self::key(destination)).or_default();
            *processes += 1;
            *instances += endpoints.get(&destination.process).map_or(0, Vec::len);
            if *processes > 1 {
                split.insert(destination.route);
            }
        }
        Self { endpoints, behind, split }
    }

    fn key(destination: &DestinationRow) -> DestinationKey<'_> {
        (destination.route, destination.app, &destination.process_type, destination.port, destination.http2)
    }

    /// 0 = as any other.
    fn of(&self, destination: &DestinationRow) -> u32 {
        if !self.split.contains(&destination.route) {
            return destination.weight.unwrap_or(0);
        }
        let whole = u64::from(destination.weight.unwrap_or(1)).saturating_mul(Self::PARTS);
        let (processes, all) = self.behind.get(&Self::key(destination)).copied().unwrap_or_default();
        let own = self.endpoints.get(&destination.process).map_or(0, Vec::len);
        let share = match (processes, all) {
            (0 | 1, _) => whole,
            (_, 0) => 0,
            (_, all) => whole.saturating_mul(own as u64) / all as u64,
        };
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

fn system_pool(input: &RoutingInput) -> v1::Pool {
    let endpoints = input.controllers.iter().filter_map(|(id, address, tls)| {
        let (host, port) = address.rsplit_once(':')?;
        Some(v1::PoolEndpoint {
            assignment_id: id.to_string(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse::<u16>().ok()?.into(),
            tls: *tls,
            ..v1::PoolEndpoint::default()
        })
    });
    let mut endpoints: Vec<_> = endpoints.collect();
    endpoints.sort_by(|a, b| a.assignment_id.cmp(&b.assignment_id));
    v1::Pool { id: SYSTEM_POOL.to_owned(), endpoints, ..v1::Pool::default() }
}

/// One process may be reached in both ways, by different routes: what connections speak is a matter of the pool.
fn pool_id(destination: &DestinationRow, port: u16) -> String {
    let protocol = if destination.http2 { ":http2" } else { "" };
    format!("{}:{port}{protocol}", destination.process)
}

fn pool(id: String, destination: &DestinationRow, port: u16, endpoints: &[&EndpointRow]) -> v1::Pool {
    // Only the default port is mapped on a cell's host; any other one can be reached at the instance itself or not
    // at all, and then the pool is empty and says so.
    let mut endpoints: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| port == DEFAULT_PORT || endpoint.direct)
        .map(|endpoint| v1::PoolEndpoint {
            assignment_id: endpoint.assignment.to_string(),
            index: endpoint.index,
            host: endpoint.host.clone(),
            port: if port == DEFAULT_PORT { endpoint.port.into() } else { port.into() },
            cell_id: endpoint.cell.to_string(),
            zone: endpoint.zone.clone(),
            tls: false,
        })
        .collect();
    endpoints.sort_by(|a, b| (a.index, &a.assignment_id).cmp(&(b.index, &b.assignment_id)));
    v1::Pool {
        id,
        app_id: destination.app.to_string(),
        process_id: destination.process.to_string(),
        process_type: destination.process_type.clone(),
        endpoints,
        app_name: destination.app_name.clone(),
        space_name: destination.space_name.clone(),
        organization_name: destination.organization_name.clone(),
        http2: destination.http2,
    }
}

fn route(row: &RouteRow, targets: BTreeSet<(String, u32)>) -> v1::Route {
    let option = |key: &str| {
        let value = row.options.as_ref().and_then(|options| options.get(key));
        match value {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    };
    let host = if row.host.is_empty() { row.domain.clone() } else { format!("{}.{}", row.host, row.domain) };
    v1::Route {
        id: row.id.to_string(),
        host: host.to_lowercase(),
        path: row.path.clone(),
        targets: targets.into_iter().map(|(pool, weight)| v1::WeightedPool { pool, weight }).collect(),
        load_balancing: option("loadbalancing"),
        hash_header: option("hash_header"),
        hash_balance: option("hash_balance"),
        system: false,
        route_service_url: row.route_service_url.clone().unwrap_or_default(),
        route_service_secret: match &row.route_service_url {
            Some(_) => row.route_service_secret.clone().unwrap_or_default().into(),
            None => bytes::Bytes::new(),
        },
    }
}

/// Shares members that did not change with the previous table and moves the digest by those that did.
fn finish(
    version: Version,
    routes: BTreeMap<String, v1::Route>,
    pools: BTreeMap<String, v1::Pool>,
    previous: &Table,
) -> Table {
    let mut digest = previous.digest;
    let routes = share(routes, &previous.routes, |route| digest.toggle_route(route));
    let pools = share(pools, &previous.pools, |pool| digest.toggle_pool(pool));
    Table { version, routes, pools, digest }
}

fn share<M: PartialEq>(
    new: BTreeMap<String, M>,
    old: &BTreeMap<String, Arc<M>>,
    mut toggle: impl FnMut(&M),
) -> BTreeMap<String, Arc<M>> {
    for (id, before) in old {
        if !new.contains_key(id) {
            toggle(before);
        }
    }
    new.into_iter()
        .map(|(id, member)| {
            let shared = match old.get(&id) {
                Some(before) if **before == member => Arc::clone(before),
                before => {
                    if let Some(before) = before {
                        toggle(before);
                    }
                    toggle(&member);
                    Arc::new(member)
                }
            };
            (id, shared)
        })
        .collect()
}

#[cfg(test)]
mod tests;
