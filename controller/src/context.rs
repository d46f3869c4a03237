//! What every request handler and background task holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use slipway_api_types::AssignmentId;
use slipway_chassis::driver::Registry;
use slipway_protocol::v1;

use crate::admission::Uploads;
use crate::auth::guard::Guard;
use crate::auth::keys::KeyCache;
use crate::blobs::BlobStore;
use crate::config::ControllerConfig;
use crate::notifiers::TaskNotifiers;
use crate::store::Store;
use crate::vault::Vault;

/// Shared by all of one controller. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The configuration, as loaded.
    pub config: Arc<ControllerConfig>,
    /// All SQL.
    pub store: Store,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// Packages, droplets, layers by SHA-256.
    pub blobs: BlobStore,
    /// How many uploads are received and judged at a time.
    pub uploads: Arc<Uploads>,
    /// What only cells know.
    pub cells: Arc<dyn CellQueries>,
    /// What routers have acknowledged.
    pub routers: Arc<dyn RouterProof>,
    /// Wakes background tasks.
    pub wake: Arc<TaskNotifiers>,
    /// The background tasks of this controller. Start with `default()`.
    pub tasks: Registry,
    /// Keys that sign and check tokens, read from the store when they are needed. Start with `default()`.
    pub keys: KeyCache,
    /// What keeps one caller from taking this controller from the others. Start with `default()`.
    pub guard: Arc<Guard>,
}

/// A log read from every place that may hold lines, within a deadline.
#[derive(Clone, Debug, Default)]
pub struct LogAnswer {
    /// Merged, in the order that was asked for, at most `limit`.
    pub lines: Vec<v1::LogLine>,
    /// Cells and routers that did not answer in time, by name: the reader is shown a marker, never a silent gap.
    pub unanswered: Vec<String>,
}

/// Questions that only cells (and, for logs, routers) can answer.
#[async_trait]
pub trait CellQueries: Send + Sync {
    /// Latest usage of these assignments; the ones not known are left out.
    async fn usage(&self, assignments: &[AssignmentId]) -> HashMap<AssignmentId, v1::Usage>;

    /// Asks the cells and routers that may hold lines of the app, and merges what comes back. One `asker` (a user, a drain)
    /// has a few questions at a time; its others wait.
    async fn read_logs(&self, asker: &str, query: v1::LogQuery) -> LogAnswer;
}

/// Outcome of waiting for routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Every live router has it in force.
    Applied,
    /// These had not acknowledged at the deadline.
    Lagging(Vec<String>),
    /// No router is connected: nothing can be proven.
    NoRouter,
}

/// Waits until what is stored is in force at the routers.
#[async_trait]
pub trait RouterProof: Send + Sync {
    /// Waits until every live router has applied this version.
    async fn wait_applied(&self, version: v1::Version, limit: Duration) -> Proof;

    /// The version that every live router has applied; `None` without routers.
    fn applied_by_all(&self) -> Option<v1::Version>;
}
