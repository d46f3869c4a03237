//! The table in force, and everyone who must know when it changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use prost::Message as _;
use slipway_protocol::v1::{TableDelta, TableSnapshot, Version};
use tokio::sync::watch;
use uuid::Uuid;

use super::journal::{Entry, Journal, JournalError};
use crate::table::{Applied, ApplyError, Table};

/// How the sessions with controllers go; for metrics.
#[derive(Debug, Default)]
pub struct SyncStatus {
    /// A session is open.
    pub connected: AtomicBool,
    /// Messages that were refused.
    pub refused: AtomicU64,
    /// Sessions begun.
    pub sessions: AtomicU64,
}

/// Holds the table. One writer (the session), any number of readers.
pub struct TableStore {
    current: Arc<ArcSwap<Table>>,
    changed: watch::Sender<u64>,
    journal: Journal,
    /// See [`SyncStatus`].
    pub status: SyncStatus,
}

impl TableStore {
    /// Loads the last good table from the journal in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be used. A damaged journal is no error: what is good of it counts.
    pub fn open(directory: &Path, cluster: Uuid) -> Result<Self, JournalError> {
        let (journal, table) = Journal::open(directory, cluster)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(table)),
            changed: watch::Sender::new(0),
            journal,
            status: SyncStatus::default(),
        })
    }

    /// The table in force. Cores keep an [`arc_swap::Cache`] of it: a swap is seen by the next load of each core.
    #[must_use]
    pub fn current(&self) -> &Arc<ArcSwap<Table>> {
        &self.current
    }

    /// Told after each swap.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Newest version that is on disk.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Option<Version>> {
        self.journal.durable()
    }

    /// Puts a snapshot in force. On return every core's next decision uses it.
    ///
    /// # Errors
    /// [`ApplyError`]; the old table stays.
    pub fn apply_snapshot(&self, snapshot: &TableSnapshot) -> Result<(), ApplyError> {
        let applied = self.current.load().with_snapshot(snapshot)?;
        self.swap(applied, Entry::Whole);
        Ok(())
    }

    /// Puts a delta in force. On return every core's next decision uses it.
    ///
    /// # Errors
    /// [`ApplyError`]; the old table stays.
    pub fn apply_delta(&self, delta: &TableDelta) -> Result<(), ApplyError> {
        let applied = self.current.load().with_delta(delta)?;
        self.swap(applied, Entry::Delta(delta.encode_to_vec()));
        Ok(())
    }

    fn swap(&self, applied: Applied, entry: Entry) {
        let Applied::Changed(table) = applied else { return };
        let table = Arc::new(table);
        self.current.store(Arc::clone(&table));
        self.journal.push(entry, table);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes what is waiting and ends the journal's thread.
    pub fn close(&self) {
        self.journal.close();
    }

    /// Counts a refused message.
    pub(super) fn refused(&self) {
        self.status.refused.fetch_add(1, Ordering::Relaxed);
    }
}
