//! State that all instances of a cell share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipway_chassis::Shutdown;
use uuid::Uuid;

use crate::cache::Cache;
use crate::config::CellConfig;
use crate::controllers::Controllers;
use crate::logs::Logs;
use crate::policies::PolicyBook;
use crate::registries::Registries;
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
    /// By which builds reach registries, where the operator wants that.
    pub registries: Option<Registries>,
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
    /// MiB of disk that it may take, droplet included; 0 = not known.
    pub disk_mb: u64,
}

impl Live {
    /// What is reported when the disk quota is used up, of an instance that has written so many bytes. Nearly all of it is all of
    /// it: a write that did not fit in leaves less than the whole behind.
    #[must_use]
    pub fn full_disk(&self, written: u64) -> Option<String> {
        let most = self.disk_mb << 20;
        let used = written.saturating_add(self.droplet_bytes);
        // What its program writes at once, and what the file system needs beside it.
        let margin = (most / 64).clamp(1 << 20, 32 << 20);
        (most > 0 && used.saturating_add(margin) >= most).then(|| {
            format!(
                "the disk quota of {} MiB is used up: {} MiB by the droplet, {} MiB written",
                self.disk_mb,
                self.droplet_bytes >> 20,
                written >> 20
            )
        })
    }
}

/// Sandboxes that run, by assignment.
#[derive(Debug, Default)]
pub struct LiveTable(Mutex<BTreeMap<Uuid, Entry>>);

#[derive(Debug)]
struct Entry {
    live: Live,
    /// Its full disk was reported.
    reported: bool,
}

impl LiveTable {
    fn inner(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It runs.
    pub fn insert(&self, live: Live) {
        let mut inner = self.inner();
        // Reported once: an adopted sandbox is entered again once its spec is known.
        let reported = inner.get(&live.id.assignment).is_some_and(|entry| entry.live.id == live.id && entry.reported);
        inner.insert(live.id.assignment, Entry { live, reported });
    }

    /// It ended.
    pub fn remove(&self, assignment: Uuid) {
        self.inner().remove(&assignment);
    }

    /// The sandbox of an assignment, while it runs.
    #[must_use]
    pub fn get(&self, assignment: Uuid) -> Option<Live> {
        self.inner().get(&assignment).map(|entry| entry.live)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Live> {
        self.inner().values().map(|entry| entry.live).collect()
    }

    /// The report about a sandbox that has written so many bytes; once for each.
    #[must_use]
    pub fn report_full_disk(&self, id: SandboxId, written: u64) -> Option<String> {
        let mut inner = self.inner();
        let entry = inner.get_mut(&id.assignment).filter(|entry| entry.live.id == id && !entry.reported)?;
        let text = entry.live.full_disk(written)?;
        entry.reported = true;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_reported_once_for_each_start() {
        let table = LiveTable::default();
        let live = |incarnation| Live {
            id: SandboxId { assignment: Uuid::from_u128(1), incarnation },
            droplet_bytes: 20 << 20,
            memory_mb: 64,
            disk_mb: 64,
        };
        table.insert(live(1));
        assert_eq!(table.report_full_disk(live(1).id, 30 << 20), None);
        let text = table.report_full_disk(live(1).id, 43 << 20).expect("told");
        assert_eq!(text, "the disk quota of 64 MiB is used up: 20 MiB by the droplet, 43 MiB written");
        table.insert(live(1));
        assert_eq!(table.report_full_disk(live(1).id, 44 << 20), None, "once");
        assert_eq!(table.report_full_disk(live(2).id, 44 << 20), None, "it is not there");
        table.insert(live(2));
        assert!(table.report_full_disk(live(2).id, 44 << 20).is_some());
        table.insert(Live { disk_mb: 0, ..live(3) });
        assert_eq!(table.report_full_disk(live(3).id, 1 << 40), None, "its quota is not known");
    }
}
