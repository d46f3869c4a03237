//! Routes and pools as the proxy reads them: parsed once when they enter the table, not once for each request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::HeaderValue;
use http::header::HeaderName;
use slipway_protocol::v1::{Pool, PoolEndpoint, Route};

use super::RouteService;

/// Names one endpoint or route in this process. The same endpoint keeps its key from table to table; a key is never
/// given twice.
pub type EndpointKey = u64;

/// How an endpoint of a pool is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Balance {
    /// The less loaded of two random ones.
    TwoChoices,
    /// One after the other.
    RoundRobin,
    /// The least loaded of all.
    LeastConnection,
    /// The same value of a header goes to the same endpoint, while that one has no more than `factor` times the
    /// average load (0 = whatever its load).
    Hash {
        /// Header whose value is hashed.
        header: HeaderName,
        /// Bound on the load, as a multiple of the average.
        factor: f64,
    },
}

/// A part of a route's traffic.
#[derive(Clone, Debug)]
pub struct Target {
    /// Pool that takes it; a pool that the table does not hold has no endpoints.
    pub pool: Arc<str>,
    /// Share, at least 1.
    pub weight: u32,
}

/// A route, ready to use.
#[derive(Debug)]
pub struct RouteEntry {
    /// Names it for state that cores keep about it.
    pub key: u64,
    /// As it came.
    pub route: Route,
    /// Where its traffic goes.
    pub targets: Vec<Target>,
    /// How endpoints are chosen.
    pub balance: Balance,
    /// Where requests go first.
    pub service: Option<RouteService>,
}

impl RouteEntry {
    /// Parses a route.
    pub(super) fn new(key: u64, route: Route) -> Self {
        let targets = route
            .targets
            .iter()
            .map(|target| Target { pool: target.pool.as_str().into(), weight: target.weight.max(1) })
            .collect();
        let balance = balance_of(&route);
        let service = RouteService::of(&route);
        Self { key, route, targets, balance, service }
    }
}

/// A word this version does not know comes from a newer controller: the route is kept as it is (its digest counts)
/// and served by the default, because a route that balances otherwise is better than a host that is gone.
fn balance_of(route: &Route) -> Balance {
    match route.load_balancing.as_str() {
        "" => Balance::TwoChoices,
        "round-robin" => Balance::RoundRobin,
        "least-connection" => Balance::LeastConnection,
        "hash" => match HeaderName::from_bytes(route.hash_header.as_bytes()) {
            Ok(header) => {
                let factor = route.hash_balance.parse::<f64>().ok().filter(|factor| factor.is_finite());
                Balance::Hash { header, factor: factor.unwrap_or(0.0).max(0.0) }
            }
            Err(_) => {
                tracing::warn!(route.id, header = ?route.hash_header, "hash_header is no header name; the default is used");
                Balance::TwoChoices
            }
        },
        other => {
            tracing::warn!(route.id, algorithm = ?other, "unknown load balancing; the default is used");
            Balance::TwoChoices
        }
    }
}

/// An address that can take requests.
#[derive(Debug)]
pub struct Endpoint {
    /// See [`EndpointKey`].
    pub key: EndpointKey,
    /// Pool it belongs to.
    pub pool_id: Arc<str>,
    /// With the address: what it is.
    pub assignment_id: String,
    /// Instance index.
    pub index: u32,
    /// Requests and tunnels under way, of all cores.
    pub under_way: Arc<AtomicUsize>,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Dialled with mutual TLS of the cluster.
    pub tls: bool,
    /// Spoken to by HTTP/2, without asking.
    pub http2: bool,
    /// App that access lines belong to; empty for the platform's own.
    pub app_id: Arc<str>,
    /// `X-Cf-ApplicationId`, `X-Cf-InstanceId`, `X-Cf-InstanceIndex`; `None` for the platform's own.
    pub headers: Option<InstanceHeaders>,
}

/// Header values that tell an app which instance was chosen.
#[derive(Debug)]
pub struct InstanceHeaders {
    /// App guid.
    pub app: HeaderValue,
    /// Assignment id.
    pub instance: HeaderValue,
    /// Index.
    pub index: HeaderValue,
}

/// The endpoints of one process at one port.
#[derive(Debug)]
pub struct PoolEntry {
    /// As it came.
    pub pool: Pool,
    /// Those that can be dialled.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How many were left out because their address makes no sense.
    pub unusable: usize,
}

impl PoolEntry {
    /// Endpoints that were in `old` keep their key, so that their idle connections and their health stay.
    pub(super) fn new(pool: Pool, old: Option<&PoolEntry>, mut next_key: impl FnMut() -> u64) -> Self {
        let pool_id: Arc<str> = pool.id.as_str().into();
        let app_id: Arc<str> = pool.app_id.as_str().into();
        let mut endpoints = Vec::with_capacity(pool.endpoints.len());
        let mut unusable = 0;
        for wire in &pool.endpoints {
            let Some(address) = address_of(wire) else {
                tracing::warn!(
                    pool.id,
                    host = ?wire.host,
                    port = wire.port,
                    "an endpoint without a usable address was left out"
                );
                unusable += 1;
                continue;
            };
            let same = |one: &&Arc<Endpoint>| {
                one.assignment_id == wire.assignment_id
                    && one.address == address
                    && one.tls == wire.tls
                    && one.http2 == pool.http2
            };
            let before = old.and_then(|old| old.endpoints.iter().find(same));
            // The very same value stays, so that cores see at a glance that nothing changed.
            if let Some(before) = before.filter(|one| one.index == wire.index && *one.app_id == *app_id) {
                endpoints.push(Arc::clone(before));
                continue;
            }
            let key = before.map_or_else(&mut next_key, |before| before.key);
            endpoints.push(Arc::new(Endpoint {
                key,
                under_way: before.map_or_else(Arc::default, |before| Arc::clone(&before.under_way)),
                pool_id: Arc::clone(&pool_id),
                assignment_id: wire.assignment_id.clone(),
                index: wire.index,
                address,
                tls: wire.tls,
                http2: pool.http2,
                app_id: Arc::clone(&app_id),
                headers: headers_of(&pool.app_id, wire),
            }));
        }
        Self { pool, endpoints, unusable }
    }
}

fn address_of(wire: &PoolEndpoint) -> Option<SocketAddr> {
    let host: IpAddr = wire.host.parse().ok()?;
    let port = u16::try_from(wire.port).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(host, port))
}

fn headers_of(app_id: &str, wire: &PoolEndpoint) -> Option<InstanceHeaders> {
    if app_id.is_empty() {
        return None;
    }
    Some(InstanceHeaders {
        app: HeaderValue::from_str(app_id).ok()?,
        instance: HeaderValue::from_str(&wire.assignment_id).ok()?,
        index: HeaderValue::from(wire.index),
    })
}
