//! Digests of what a version holds, so that two peers can tell "same" from "same number".
//!
//! A set's digest is the XOR over the SHA-256 of each member's encoding: it does not depend on order, and adding or
//! removing one member costs one hash. Peers are authenticated and not hostile to each other, so collisions by
//! construction (which XOR allows) are not a concern here; names of blobs and specs are plain SHA-256.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1::{Assignment, Pool, Route};

/// 32 bytes; all zero for an empty set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SetDigest(pub [u8; 32]);

impl SetDigest {
    /// Adds a member, or removes one that is there (XOR is its own inverse).
    pub fn toggle(&mut self, tag: u8, encoded: &[u8]) {
        let mut hash = Sha256::new();
        hash.update([tag]);
        hash.update(encoded);
        let member: [u8; 32] = hash.finalize().into();
        for (mine, theirs) in self.0.iter_mut().zip(member) {
            *mine ^= theirs;
        }
    }

    /// Adds or removes a route.
    pub fn toggle_route(&mut self, route: &Route) {
        self.toggle(b'r', &route.encode_to_vec());
    }

    /// Adds or removes a pool.
    pub fn toggle_pool(&mut self, pool: &Pool) {
        self.toggle(b'p', &pool.encode_to_vec());
    }

    /// Digest of a cell's whole set. It covers the egress policies, because assignments name them by their content.
    #[must_use]
    pub fn of_assignments<'a>(assignments: impl IntoIterator<Item = &'a Assignment>) -> Self {
        let mut digest = Self::default();
        for assignment in assignments {
            digest.toggle(b'a', &assignment.encode_to_vec());
        }
        digest
    }

    /// Digest of a whole routing table.
    #[must_use]
    pub fn of_table<'a>(
        routes: impl IntoIterator<Item = &'a Route>,
        pools: impl IntoIterator<Item = &'a Pool>,
    ) -> Self {
        let mut digest = Self::default();
        for route in routes {
            digest.toggle_route(route);
        }
        for pool in pools {
            digest.toggle_pool(pool);
        }
        digest
    }

    /// As the wire carries it.
    #[must_use]
    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl std::fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0[..8]))
    }
}

/// SHA-256 of some bytes: the name of a blob or of a spec.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: &str) -> Route {
        Route { id: id.into(), ..Route::default() }
    }

    #[test]
    fn a_digest_ignores_order_and_removal_undoes_addition() {
        let (a, b) = (route("a"), route("b"));
        let both = SetDigest::of_table([&a, &b], []);
        assert_eq!(both, SetDigest::of_table([&b, &a], []));
        let mut digest = both;
        digest.toggle_route(&b);
        assert_eq!(digest, SetDigest::of_table([&a], []));
        assert_ne!(digest, SetDigest::default());
    }
}
