//! Messages between controller, cells and routers, and their mutual TLS identity.
//!
//! * [`v1`]: the generated messages and services of `proto/cluster.proto`.
//! * [`identity`]: the cluster's own certificate authority; each certificate is bound to one [`Role`] and one id.
//! * [`dial`]: connections to members, each to the one that is meant.
//! * [`web_authority`]: the authority for what end users see.
//! * [`web_roots`]: the web's certificate authorities, for outgoing connections.
//! * [`egress_guard`]: which addresses may be connected to on behalf of a developer.
//! * [`instance`]: the guid of each start of an instance.
//! * [`version`]: the order of versions, and digests of sets and tables.

#![forbid(unsafe_code)]

pub mod accept;
pub mod dial;
pub mod digest;
pub mod egress_guard;
pub mod identity;
pub mod instance;
pub mod version;
pub mod web_authority;
pub mod web_roots;

/// Generated from `proto/cluster.proto`.
pub mod v1 {
    #![allow(clippy::all, clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated code")]
    tonic::include_proto!("slipway.cluster.v1");
}

/// Source type of lines in which a log speaks of itself, of lines that are missing say; the same as on Cloud Foundry.
pub const LOG_ITSELF: &str = "LGR";

pub use identity::{ClusterAuthority, Credentials, PeerIdentity, Role};
pub use web_authority::WebAuthority;
