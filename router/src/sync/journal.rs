//! The last good table and the deltas after it, on disk, so that a router that starts without any controller routes at
//! once.
//!
//! One file, `table.journal`: a header (magic, cluster id), then records ([`super::sealed`]), little endian, each with an
//! encoded snapshot (kind 1, the first record) or delta (kind 2). The file is written anew, by rename, when the deltas
//! outgrow the table. A torn tail ends the reading; what came before it counts. A file that an earlier version has left in
//! clear is read, and written anew at once.
//!
//! A thread of its own writes: disks stall, and neither the session nor the proxy may wait for them. What waits is
//! bounded: when the disk falls behind, waiting deltas are replaced by one whole table.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message as _;
use slipway_protocol::v1::{TableDelta, TableSnapshot, Version};
use tokio::sync::watch;
use uuid::Uuid;

use super::sealed::{Sealer, next_record, replace};
use crate::table::{Applied, Table};

const MAGIC: &[u8; 8] = b"SLPRTR2\n";
/// Of the version that sealed nothing.
const CLEAR: &[u8; 8] = b"SLPRTR1\n";
const SNAPSHOT: u8 = 1;
const DELTA: u8 = 2;
/// Waiting deltas beyond this are replaced by one whole table.
const MAX_WAITING: usize = 16 << 20;
/// The file is not written anew for less than this much of deltas.
const LEAST_GROWTH: u64 = 1 << 20;
/// A full disk is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path} of the routing table cannot be used")]
pub struct JournalError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What leads to the next table.
pub(super) enum Entry {
    /// Write the table itself.
    Whole,
    /// An encoded delta.
    Delta(Vec<u8>),
}

struct Waiting {
    deltas: Vec<Vec<u8>>,
    bytes: usize,
    whole: bool,
    /// The newest table, and whether it is newer than what is on disk.
    table: Arc<Table>,
    dirty: bool,
    stop: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle to the writing thread.
pub(super) struct Journal {
    shared: Arc<Shared>,
    durable: watch::Receiver<Option<Version>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Reads what is there and starts the writer.
    pub(super) fn open(directory: &Path, cluster: Uuid) -> Result<(Self, Table), JournalError> {
        let path = directory.join("table.journal");
        let failed = |source| JournalError { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let key = directory.join("table.key");
        let sealer = Sealer::load_or_make(&key, cluster).map_err(|source| JournalError { path: key, source })?;
        let (table, found) = match std::fs::read(&path) {
            Ok(bytes) => load(&bytes, cluster, &sealer),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Table::default(), JournalState::Damaged),
            Err(error) => return Err(failed(error)),
        };
        if let Some(version) = table.version() {
            tracing::info!(%version, routes = table.route_count(), "routing table loaded from disk");
        }
        let (durable_sender, durable) = watch::channel(table.version());
        let waiting = Waiting {
            deltas: Vec::new(),
            bytes: 0,
            whole: found != JournalState::Good,
            table: Arc::new(table.clone()),
            // Secrets in clear do not stay until the table happens to change.
            dirty: found == JournalState::Clear,
            stop: false,
        };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), wake: Condvar::new() });
        let writer =
            Writer { path: path.clone(), cluster, sealer, file: None, size: 0, base: 0, durable: durable_sender };
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("table-journal".to_owned())
            .spawn(move || writer.run(&for_thread))
            .map_err(failed)?;
        Ok((Self { shared, durable, thread: Mutex::new(Some(thread)) }, table))
    }

    pub(super) fn durable(&self) -> watch::Receiver<Option<Version>> {
        self.durable.clone()
    }

    pub(super) fn push(&self, entry: Entry, table: Arc<Table>) {
        let mut waiting = self.shared.lock();
        match entry {
            Entry::Whole => waiting.whole = true,
            Entry::Delta(bytes) => {
                waiting.bytes += bytes.len();
                waiting.deltas.push(bytes);
            }
        }
        if waiting.whole || waiting.bytes > MAX_WAITING {
            waiting.whole = true;
            waiting.deltas.clear();
            waiting.bytes = 0;
        }
        waiting.table = table;
        waiting.dirty = true;
        drop(waiting);
        self.shared.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    path: PathBuf,
    cluster: Uuid,
    sealer: Sealer,
    file: Option<File>,
    /// Bytes in the file, and how many of them the whole table took.
    size: u64,
    base: u64,
    durable: watch::Sender<Option<Version>>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        let mut complained = false;
        loop {
            let mut waiting = shared.lock();
            while !waiting.dirty && !waiting.stop {
                waiting = shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.dirty {
                return;
            }
            let stopping = waiting.stop;
            let deltas = std::mem::take(&mut waiting.deltas);
            let whole = std::mem::take(&mut waiting.whole);
            let table = Arc::clone(&waiting.table);
            waiting.bytes = 0;
            waiting.dirty = false;
            drop(waiting);

            match self.write(whole, &deltas, &table) {
                Ok(()) => {
                    complained = false;
                    self.durable.send_replace(table.version());
                }
                Err(error) => {
                    if !complained {
                        tracing::error!(path = %self.path.display(), %error, "the routing table cannot be saved; trying again");
                        complained = true;
                    }
                    if stopping {
                        return;
                    }
                    // Half a record may be on disk: only a whole new file is right from here.
                    let mut waiting = shared.lock();
                    waiting.whole = true;
                    waiting.dirty = true;
                    drop(shared.wake.wait_timeout_while(waiting, RETRY, |waiting| !waiting.stop));
                }
            }
        }
    }

    fn write(&mut self, whole: bool, deltas: &[Vec<u8>], table: &Table) -> std::io::Result<()> {
        let outgrown = self.size > self.base.saturating_mul(2) + LEAST_GROWTH;
        match &mut self.file {
            Some(file) if !whole && !outgrown => {
                let mut bytes = Vec::new();
                for delta in deltas {
                    self.sealer.record(&mut bytes, DELTA, delta)?;
                }
                file.write_all(&bytes)?;
                file.sync_data()?;
                self.size += bytes.len() as u64;
                Ok(())
            }
            _ => self.rewrite(table),
        }
    }

    fn rewrite(&mut self, table: &Table) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.cluster.as_bytes());
        self.sealer.record(&mut bytes, SNAPSHOT, &table.to_snapshot().encode_to_vec())?;
        replace(&self.path, &bytes)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.size = bytes.len() as u64;
        self.base = self.size;
        Ok(())
    }
}

/// What state a journal was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalState {
    /// Good to its end.
    Good,
    /// Readable, but unencrypted: written by an older version.
    Clear,
    /// Damaged in part, or missing.
    Damaged,
}

/// The table that the file leads to, and what the file is.
fn load(bytes: &[u8], cluster: Uuid, sealer: &Sealer) -> (Table, JournalState) {
    let mut table = Table::default();
    let (clear, rest) = match (bytes.strip_prefix(MAGIC), bytes.strip_prefix(CLEAR)) {
        (Some(rest), _) => (false, Some(rest)),
        (None, rest) => (true, rest),
    };
    let Some(mut rest) = rest.and_then(|rest| rest.strip_prefix(cluster.as_bytes())) else {
        tracing::warn!("the routing table on disk is of another format or another cluster; it is not used");
        return (table, JournalState::Damaged);
    };
    // Whatever is wrong with one in clear, it does not stay.
    let flawed = if clear { JournalState::Clear } else { JournalState::Damaged };
    while let Some((kind, body, after)) = next_record(rest) {
        let payload = if clear { Some(body.to_vec()) } else { sealer.open(kind, body) };
        let Some(payload) = payload else {
            tracing::warn!(
                "a record of the routing table on disk was not sealed with this router's key; it and what follows is \
                 dropped, and comes anew from a controller"
            );
            return (table, flawed);
        };
        match apply(&table, kind, &payload) {
            Ok(Applied::Changed(next)) => table = next,
            Ok(Applied::Same) => {}
            Err(reason) => {
                tracing::warn!(reason, "a record of the routing table on disk is not usable; those before it count");
                return (table, flawed);
            }
        }
        rest = after;
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "the routing table on disk has a damaged tail; what came before it counts");
        return (table, flawed);
    }
    // The writer appends only to files of its own making, so a good file, too, is written anew at the next change.
    (table, if clear { JournalState::Clear } else { JournalState::Good })
}

fn apply(table: &Table, kind: u8, payload: &[u8]) -> Result<Applied, String> {
    let applied = match kind {
        SNAPSHOT => table.with_snapshot(&TableSnapshot::decode(payload).map_err(|error| error.to_string())?),
        DELTA => table.with_delta(&TableDelta::decode(payload).map_err(|error| error.to_string())?),
        other => return Err(format!("unknown kind {other}")),
    };
    applied.map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
