//! What every instance of a cell shares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipway_chassis::Shutdown;
use slipway_protocol::v1::StagingLines;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::cache::Cache;
use crate::config::CellConfig;
use crate::controllers::Controllers;
use crate::logs::Logs;
use crate::policies::PolicyBook;
use crate::sandbox::{SandboxId, SandboxRuntime};
use crate::specs::SpecBook;
use crate::store::Journal;
use crate::store::outbox::Outbox;

/// See the module. One value, shared.
pub struct Services {
    /// How processes are contained.
    pub runtime: Arc<dyn SandboxRuntime>,
    /// The cell's file.
    pub config: CellConfig,
    /// What survives the agent.
    pub journal: Arc<Journal>,
    /// Observations on their way.
    pub outbox: Arc<Outbox>,
    /// Specs by digest.
    pub specs: Arc<SpecBook>,
    /// Egress policies by id.
    pub policies: Arc<PolicyBook>,
    /// Layers and droplets.
    pub cache: Cache,
    /// For uploads.
    pub controllers: Arc<Controllers>,
    /// Rings of all instances.
    pub logs: Arc<Logs>,
    /// Sandboxes that run, for usage reports.
    pub live: LiveTable,
    /// Output of builds as it happens.
    pub staging_lines: broadcast::Sender<StagingLines>,
    /// Tells everyone to finish.
    pub shutdown: Shutdown,
}

/// A sandbox that runs.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Which one.
    pub id: SandboxId,
    /// Bytes of its droplet.
    pub droplet_bytes: u64,
    /// MiB that it may take.
    pub memory_mb: u64,
    /// MiB of disk that it may take.
    pub disk_mb: u64,
}

/// Sandboxes that run, by assignment.
#[derive(Debug, Default)]
pub struct LiveTable(Mutex<BTreeMap<Uuid, Live>>);

impl LiveTable {
    fn inner(&self) -> MutexGuard<'_, BTreeMap<Uuid, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It runs.
    pub fn insert(&self, live: Live) {
        self.inner().insert(live.id.assignment, live);
    }

    /// It ended.
    pub fn remove(&self, assignment: Uuid) {
        self.inner().remove(&assignment);
    }

    /// The sandbox of an assignment, while it runs.
    #[must_use]
    pub fn get(&self, assignment: Uuid) -> Option<Live> {
        self.inner().get(&assignment).copied()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Live> {
        self.inner().values().copied().collect()
    }
}

/// Unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    now_ns() / 1_000_000
}

/// Unix nanoseconds.
#[must_use]
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
