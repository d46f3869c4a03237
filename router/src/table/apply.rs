//! From one table to the next.

use std::sync::Arc;

use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::{Pool, Route, TableDelta, TableSnapshot, Version};

use super::{HostRoutes, PoolEntry, RouteEntry, Table};

/// Why a message did not become a table. The old table stays in force.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A required part is missing.
    #[error("the {message} carries no {part}")]
    Missing {
        /// "snapshot" or "delta".
        message: &'static str,
        /// What is missing.
        part: &'static str,
    },
    /// The delta starts from something else.
    #[error("the delta starts from {from}, the table is at {held}")]
    WrongFrom {
        /// Where the delta starts.
        from: Version,
        /// What is held, "nothing" or a version.
        held: String,
    },
    /// Going back would undo what was acknowledged.
    #[error("version {offered} is older than {held}, which is in force")]
    Older {
        /// What was offered.
        offered: Version,
        /// What is held.
        held: Version,
    },
    /// The same version with other content: a controller has lost commits and not raised its epoch.
    #[error("version {version} of the routing table is in force already, with another content")]
    Conflict {
        /// The version.
        version: Version,
    },
    /// The content is not what the sender says it is.
    #[error("the content at {version} has digest {found}, the sender says {said}")]
    WrongDigest {
        /// Version that was to be reached.
        version: Version,
        /// Digest of the content, hex.
        found: String,
        /// Digest in the message, hex.
        said: String,
    },
}

/// What a message led to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once per change of the table and taken apart at once")]
pub enum Applied {
    /// This table is next.
    Changed(Table),
    /// The very version that is in force already.
    Same,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("version", &self.version).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Table {
    /// The table that a snapshot describes. Endpoints that this table has too keep their keys.
    ///
    /// # Errors
    /// [`ApplyError`]; this table is untouched in any case.
    pub fn with_snapshot(&self, snapshot: &TableSnapshot) -> Result<Applied, ApplyError> {
        let version = snapshot.version.ok_or(ApplyError::Missing { message: "snapshot", part: "version" })?;
        if let Some(held) = self.version {
            if version < held {
                return Err(ApplyError::Older { offered: version, held });
            }
            if version == held {
                return if snapshot.digest == self.digest.to_bytes() {
                    Ok(Applied::Same)
                } else {
                    Err(ApplyError::Conflict { version })
                };
            }
        }
        let mut next = Self { next_key: self.next_key, ..Self::default() };
        for pool in &snapshot.pools {
            next.put_pool(pool.clone(), self.pools.get(pool.id.as_str()).map(|entry| &**entry));
        }
        for route in &snapshot.routes {
            next.put_route(route.clone());
        }
        next.finish(version, &snapshot.digest)
    }

    /// The table after a delta.
    ///
    /// # Errors
    /// [`ApplyError`]; this table is untouched in any case.
    pub fn with_delta(&self, delta: &TableDelta) -> Result<Applied, ApplyError> {
        let from = delta.from.ok_or(ApplyError::Missing { message: "delta", part: "from" })?;
        let to = delta.to.ok_or(ApplyError::Missing { message: "delta", part: "to" })?;
        if self.version == Some(to) && delta.digest == self.digest.to_bytes() {
            return Ok(Applied::Same);
        }
        if self.version != Some(from) {
            let held = self.version.map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            return Err(ApplyError::WrongFrom { from, held });
        }
        if to < from {
            return Err(ApplyError::Older { offered: to, held: from });
        }
        let mut next = self.clone();
        for id in &delta.remove_routes {
            next.take_route(id);
        }
        for id in &delta.remove_pools {
            next.take_pool(id);
        }
        for pool in &delta.upsert_pools {
            next.put_pool(pool.clone(), self.pools.get(pool.id.as_str()).map(|entry| &**entry));
        }
        for route in &delta.upsert_routes {
            next.put_route(route.clone());
        }
        next.finish(to, &delta.digest)
    }

    fn finish(mut self, version: Version, said: &[u8]) -> Result<Applied, ApplyError> {
        if said != self.digest.0 {
            return Err(ApplyError::WrongDigest {
                version,
                found: hex::encode(self.digest.0),
                said: hex::encode(said),
            });
        }
        self.version = Some(version);
        Ok(Applied::Changed(self))
    }

    fn put_pool(&mut self, pool: Pool, old: Option<&PoolEntry>) {
        self.take_pool(&pool.id);
        self.digest.toggle_pool(&pool);
        let next_key = &mut self.next_key;
        let entry = PoolEntry::new(pool, old, || {
            *next_key += 1;
            *next_key
        });
        self.pools.insert(entry.pool.id.as_str().into(), Arc::new(entry));
    }

    fn take_pool(&mut self, id: &str) {
        if let Some(old) = self.pools.remove(id) {
            self.digest.toggle_pool(&old.pool);
        }
    }

    fn put_route(&mut self, route: Route) {
        self.take_route(&route.id);
        self.digest.toggle_route(&route);
        self.next_key += 1;
        let entry = Arc::new(RouteEntry::new(self.next_key, route));
        let (wild, host) = place_of(&entry.route.host);
        let map = if wild { &mut self.wildcard } else { &mut self.exact };
        let mut routes: HostRoutes = map.get(host).cloned().unwrap_or_default();
        // The platform's own routes first, whatever the path: no other one may take their requests.
        let order =
            |one: &RouteEntry| (!one.route.system, std::cmp::Reverse(one.route.path.len()), one.route.id.clone());
        let at = routes.iter().position(|other| order(other) > order(&entry)).unwrap_or(routes.len());
        routes.insert(at, Arc::clone(&entry));
        map.insert(host.into(), routes);
        self.routes.insert(entry.route.id.as_str().into(), entry);
    }

    fn take_route(&mut self, id: &str) {
        let Some(old) = self.routes.remove(id) else { return };
        self.digest.toggle_route(&old.route);
        let (wild, host) = place_of(&old.route.host);
        let map = if wild { &mut self.wildcard } else { &mut self.exact };
        let Some(mut routes) = map.get(host).cloned() else { return };
        routes.retain(|entry| entry.route.id != old.route.id);
        if routes.is_empty() {
            map.remove(host);
        } else {
            map.insert(host.into(), routes);
        }
    }

    /// Digest of what is really held, computed anew. For checks: [`Table::digest`] is kept up step by step.
    #[must_use]
    pub fn digest_anew(&self) -> SetDigest {
        SetDigest::of_table(
            self.routes.values().map(|entry| &entry.route),
            self.pools.values().map(|entry| &entry.pool),
        )
    }
}

/// Which of the two maps a host is in, and its key there.
fn place_of(host: &str) -> (bool, &str) {
    match host.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, host),
    }
}
