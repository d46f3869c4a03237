//! The routing table: a pure value. Snapshots and deltas make a new table from an old one and never touch the old one,
//! so a request sees one table from start to end of a decision, and a bad message changes nothing.
//!
//! Maps are persistent: the next table shares all but the changed paths with the one before it, so a delta costs what
//! it changes and not what the table holds.

mod apply;
mod entry;
mod host;
mod route_service;

use std::sync::Arc;

use imbl::{HashMap, Vector};
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::{TableSnapshot, Version};

pub use apply::{Applied, ApplyError};
pub use entry::{Balance, Endpoint, EndpointKey, PoolEntry, RouteEntry, Target};
pub use host::{BadHost, normal_host};
pub use route_service::{RouteService, ServiceTarget};

/// Which routes one host has: the platform's own first, then the longest path; among equal paths the smallest id first,
/// so that every router decides alike when two routes claim the same place.
type HostRoutes = Vector<Arc<RouteEntry>>;

/// A routing table at one version.
#[derive(Clone, Default)]
pub struct Table {
    version: Option<Version>,
    digest: SetDigest,
    routes: HashMap<Arc<str>, Arc<RouteEntry>>,
    pools: HashMap<Arc<str>, Arc<PoolEntry>>,
    /// By full host name.
    exact: HashMap<Arc<str>, HostRoutes>,
    /// By what follows `*.`.
    wildcard: HashMap<Arc<str>, HostRoutes>,
    /// Grows over the life of the process; names endpoints and routes for the cores' own state.
    next_key: u64,
}

impl Table {
    /// What it holds; `None` before the first snapshot.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Digest of its content.
    #[must_use]
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    /// Number of routes.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// Number of pools.
    #[must_use]
    pub fn pool_count(&self) -> usize {
        self.pools.len()
    }

    /// A pool by its id.
    #[must_use]
    pub fn pool(&self, id: &str) -> Option<&Arc<PoolEntry>> {
        self.pools.get(id)
    }

    /// All pools, in no order.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<PoolEntry>> {
        self.pools.values()
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteEntry>> {
        self.routes.values()
    }

    /// The route for a host (lower case, without port, see [`normal_host`]) and a path.
    ///
    /// The exact host comes first, then the most specific wildcard; within a host the longest path that ends on a
    /// segment border. A host that has routes, none of which takes the path, leaves the request to its wildcards.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<RouteEntry>> {
        if let Some(found) = self.exact.get(host).and_then(|routes| longest(routes, path)) {
            return Some(found);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, domain)) = rest.split_once('.') {
            if let Some(found) = self.wildcard.get(domain).and_then(|routes| longest(routes, path)) {
                return Some(found);
            }
            rest = domain;
        }
        None
    }

    /// True while this endpoint is in this pool: a connection to it may carry a request.
    #[must_use]
    pub fn holds(&self, endpoint: &Endpoint) -> bool {
        self.pools.get(&*endpoint.pool_id).is_some_and(|pool| pool.endpoints.iter().any(|one| one.key == endpoint.key))
    }

    /// The whole table as one message, for the journal.
    #[must_use]
    pub fn to_snapshot(&self) -> TableSnapshot {
        TableSnapshot {
            version: self.version,
            digest: self.digest.to_bytes(),
            routes: self.routes.values().map(|entry| entry.route.clone()).collect(),
            pools: self.pools.values().map(|entry| entry.pool.clone()).collect(),
        }
    }
}

fn longest<'a>(routes: &'a HostRoutes, path: &str) -> Option<&'a Arc<RouteEntry>> {
    routes.iter().find(|entry| host::path_matches(&entry.route.path, path))
}

#[cfg(test)]
mod tests;
