//! The last good table and the deltas after it, on disk, so that a router that starts without any controller routes at
//! once.
//!
//! One file, `table.journal`: a header (magic, cluster id), then records `len u32 | crc32 u32 | kind u8 | payload`, little
//! endian, where the payload is an encoded snapshot (kind 1, the first record) or delta (kind 2). The file is written
//! anew, by rename, when the deltas outgrow the table. A torn tail ends the reading; what came before it counts.
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

use crate::table::{Applied, Table};

const MAGIC: &[u8; 8] = b"SLPRTR1\n";
const SNAPSHOT: u8 = 1;
const DELTA: u8 = 2;
/// Waiting deltas beyond this are replaced by one whole table.
const MOST_WAITING: usize = 16 << 20;
/// The file is not written anew for less than this much of deltas.
const LEAST_GROWTH: u64 = 1 << 20;
/// A full disk is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("routing table journal {path}")]
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
        let (table, clean) = match std::fs::read(&path) {
            Ok(bytes) => load(&bytes, cluster),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Table::default(), false),
            Err(error) => return Err(failed(error)),
        };
        if let Some(version) = table.version() {
            tracing::info!(%version, routes = table.route_count(), "routing table loaded from disk");
        }
        let (durable_sender, durable) = watch::channel(table.version());
        let waiting = Waiting {
            deltas: Vec::new(),
            bytes: 0,
            whole: !clean,
            table: Arc::new(table.clone()),
            dirty: false,
            stop: false,
        };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), wake: Condvar::new() });
        let writer = Writer { path: path.clone(), cluster, file: None, size: 0, base: 0, durable: durable_sender };
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
        if waiting.whole || waiting.bytes > MOST_WAITING {
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
                    record(&mut bytes, DELTA, delta);
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
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.cluster.as_bytes());
        record(&mut bytes, SNAPSHOT, &table.to_snapshot().encode_to_vec());
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(directory)?.sync_all()?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.size = bytes.len() as u64;
        self.base = self.size;
        Ok(())
    }
}

fn record(bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[kind]);
    hash.update(payload);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&hash.finalize().to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
}

/// The table that the file leads to, and whether all of the file was good.
fn load(bytes: &[u8], cluster: Uuid) -> (Table, bool) {
    let mut table = Table::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(cluster.as_bytes())) else {
        tracing::warn!("the routing table on disk is of another format or another cluster; it is not used");
        return (table, false);
    };
    while let Some((kind, payload, after)) = next_record(rest) {
        match apply(&table, kind, payload) {
            Ok(Applied::Changed(next)) => table = next,
            Ok(Applied::Same) => {}
            Err(reason) => {
                tracing::warn!(reason, "a record of the routing table on disk is not usable; those before it count");
                return (table, false);
            }
        }
        rest = after;
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "the routing table on disk has a damaged tail; what came before it counts");
    }
    // The writer appends only to files of its own making, so a good file, too, is written anew at the next change.
    (table, rest.is_empty())
}

fn apply(table: &Table, kind: u8, payload: &[u8]) -> Result<Applied, String> {
    let applied = match kind {
        SNAPSHOT => table.with_snapshot(&TableSnapshot::decode(payload).map_err(|error| error.to_string())?),
        DELTA => table.with_delta(&TableDelta::decode(payload).map_err(|error| error.to_string())?),
        other => return Err(format!("unknown kind {other}")),
    };
    applied.map_err(|error| error.to_string())
}

fn next_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let content = bytes.get(8..9 + length)?;
    (crc32fast::hash(content) == crc).then(|| (content[0], &content[1..], &bytes[9 + length..]))
}

#[cfg(test)]
mod tests {
    use slipway_protocol::digest::SetDigest;
    use slipway_protocol::v1::Route;

    use super::*;
    use crate::sync::TableStore;

    fn route(number: u64) -> Route {
        Route { id: format!("r{number}"), host: format!("h{number}.test"), ..Route::default() }
    }

    /// A store at version 1.`seq`, with `seq` routes: one snapshot, then deltas.
    async fn grow(directory: &Path, cluster: Uuid, seq: u64) {
        let store = TableStore::open(directory, cluster).expect("open");
        let mut digest = SetDigest::default();
        let version = |seq| Some(Version::new(1, seq));
        digest.toggle_route(&route(1));
        let first = TableSnapshot {
            version: version(1),
            digest: digest.to_bytes(),
            routes: vec![route(1)],
            ..TableSnapshot::default()
        };
        store.apply_snapshot(&first).expect("snapshot");
        let mut durable = store.durable();
        durable.wait_for(|at| *at == version(1)).await.expect("durable");
        for number in 2..=seq {
            digest.toggle_route(&route(number));
            let delta = TableDelta {
                from: version(number - 1),
                to: version(number),
                digest: digest.to_bytes(),
                upsert_routes: vec![route(number)],
                ..TableDelta::default()
            };
            store.apply_delta(&delta).expect("delta");
            durable.wait_for(|at| *at == version(number)).await.expect("durable");
        }
        store.close();
    }

    fn held(directory: &Path, cluster: Uuid) -> Option<u64> {
        let store = TableStore::open(directory, cluster).expect("open");
        let table = store.current().load();
        assert_eq!(table.digest(), table.digest_anew());
        table.version().map(|version| version.seq)
    }

    #[tokio::test]
    async fn a_table_survives_and_a_torn_tail_costs_the_tail() {
        let directory = tempfile::tempdir().expect("directory");
        let (cluster, file) = (Uuid::new_v4(), directory.path().join("table.journal"));
        assert_eq!(held(directory.path(), cluster), None);
        grow(directory.path(), cluster, 4).await;
        assert_eq!(held(directory.path(), cluster), Some(4));

        let good = std::fs::read(&file).expect("read");
        std::fs::write(&file, &good[..good.len() - 3]).expect("tear");
        assert_eq!(held(directory.path(), cluster), Some(3));

        let mut flipped = good.clone();
        let last = flipped.len() - 10;
        flipped[last] ^= 1;
        std::fs::write(&file, flipped).expect("flip");
        assert_eq!(held(directory.path(), cluster), Some(3));

        for cut in 0..good.len() {
            std::fs::write(&file, &good[..cut]).expect("cut");
            let seq = load(&std::fs::read(&file).expect("read"), cluster).0.version().map_or(0, |version| version.seq);
            assert!(seq < 4, "{cut} bytes gave {seq}");
        }
    }

    #[tokio::test]
    async fn another_clusters_table_is_not_used() {
        let directory = tempfile::tempdir().expect("directory");
        grow(directory.path(), Uuid::new_v4(), 1).await;
        assert_eq!(held(directory.path(), Uuid::new_v4()), None);
    }

    #[tokio::test]
    async fn goes_on_after_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        let cluster = Uuid::new_v4();
        grow(directory.path(), cluster, 2).await;
        let store = TableStore::open(directory.path(), cluster).expect("open");
        let mut digest = store.current().load().digest();
        digest.toggle_route(&route(3));
        let delta = TableDelta {
            from: Some(Version::new(1, 2)),
            to: Some(Version::new(1, 3)),
            digest: digest.to_bytes(),
            upsert_routes: vec![route(3)],
            ..TableDelta::default()
        };
        store.apply_delta(&delta).expect("delta");
        store.close();
        assert_eq!(held(directory.path(), cluster), Some(3));
    }
}
