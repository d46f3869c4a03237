//! Cells and routers: as registered, and what they say of themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use slipway_api_types::{CellId, RouterId};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use super::CellState;

/// A registered cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its id.
    pub id: CellId,
    /// Its zone.
    pub zone: String,
    /// Placement tags.
    pub tags: BTreeSet<String>,
    /// Isolation segment; `None` = the shared one.
    pub segment: Option<String>,
    /// Stacks it has unpacked: starting there is quicker, nothing more.
    pub stacks: BTreeSet<String>,
    /// Memory for instances, MiB.
    pub memory_mb: u64,
    /// Disk for instances, MiB.
    pub disk_mb: u64,
    /// How many slots it can address.
    pub slots: u16,
    /// What the controllers' sessions say.
    pub state: CellState,
    /// An operator wants nothing new on it.
    pub cordoned: bool,
    /// `host:port` of its Query service.
    pub query_address: String,
    /// Highest counter recorded.
    pub last_counter: u64,
    /// It may run what the store has lost: what it reports and the store does not know goes on running.
    pub holds_unknown: bool,
}

/// What a cell says of itself when its session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRegistration {
    /// Its id, as its certificate says.
    pub id: CellId,
    /// Of this start of its process.
    pub session: Uuid,
    /// The version that it holds; zero when it holds nothing.
    pub shown: Version,
    /// Kernel boot id.
    pub boot_id: String,
    /// Its program.
    pub binary_version: String,
    /// Its zone.
    pub zone: String,
    /// Placement tags.
    pub tags: BTreeSet<String>,
    /// Isolation segment; `None` = the shared one.
    pub segment: Option<String>,
    /// Stacks it has unpacked.
    pub stacks: BTreeSet<String>,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
    /// 1..=4096.
    pub slots: u16,
    /// `host:port` of its Query service.
    pub query_address: String,
    /// CPU architecture.
    pub architecture: String,
    /// `v2` or `hybrid`.
    pub cgroup_mode: String,
    /// How it limits disk.
    pub disk_quota_mode: String,
    /// `host-port` or `direct`.
    pub advertise_mode: String,
    /// What routers dial in `host-port` mode.
    pub advertise_host: String,
}

/// A registered router, as far as placement depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSeen {
    /// Its id.
    pub id: RouterId,
    /// It has a session.
    pub connected: bool,
    /// Cut off at the cells: it need not acknowledge anything.
    pub fenced: bool,
    /// In force on every core.
    pub applied: Version,
    /// On its disk.
    pub durable: Version,
    /// `host:port` of its Query service.
    pub query_address: String,
}

/// What a router says of itself when its session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRegistration {
    /// Its id, as its certificate says.
    pub id: RouterId,
    /// Of this start of its process.
    pub session: Uuid,
    /// Its zone.
    pub zone: String,
    /// `host:port` of its Query service.
    pub query_address: String,
    /// Where it comes from, and what its certificate names.
    pub addresses: BTreeSet<IpAddr>,
    /// What it holds in force.
    pub applied: Version,
    /// What it holds on disk.
    pub durable: Version,
}

/// What one router has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterProgress {
    /// The router.
    pub id: RouterId,
    /// In force.
    pub applied: Version,
    /// On disk.
    pub durable: Version,
}
