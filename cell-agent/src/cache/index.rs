//! The index of the cache: what it holds, who uses it, and what may be evicted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use slipway_layers::Digest;
use tokio::sync::OwnedMutexGuard;

use super::CacheError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Layer,
    Droplet,
}

impl Kind {
    fn directory(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Droplet => "droplets",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) digest: Digest,
}

#[derive(Debug)]
struct Item {
    size: u64,
    used: u64,
    lease: Weak<Inside>,
}

/// A lease of a directory of the cache: it is not evicted while this value lives.
#[derive(Clone, Debug)]
pub struct CacheLease(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    path: PathBuf,
    size: u64,
}

impl CacheLease {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

/// Keeps everything in the cache while it lives.
#[derive(Debug)]
pub struct Hold(Arc<()>);

impl Hold {
    /// How many hold, this one and the index included.
    fn count(marker: &Arc<()>) -> usize {
        Arc::strong_count(marker)
    }
}

#[derive(Debug, Default)]
struct Inner {
    items: BTreeMap<Key, Item>,
    clock: u64,
}

#[derive(Debug)]
pub(super) struct Index {
    root: PathBuf,
    limit: u64,
    inner: Mutex<Inner>,
    turns: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    holds: Hold,
}

impl Index {
    pub(super) fn open(root: &Path, limit: u64) -> Result<Self, CacheError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { path, source }
        };
        let temporary = root.join("tmp");
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
        }
        let mut inner = Inner::default();
        for directory in [&temporary, &root.join("layers"), &root.join("droplets"), &root.join(SIZES)] {
            std::fs::create_dir_all(directory).map_err(io(directory))?;
        }
        for earlier in EARLIER_SIZES {
            std::fs::remove_dir_all(root.join(earlier)).ok();
        }
        for kind in [Kind::Layer, Kind::Droplet] {
            let directory = root.join(kind.directory());
            for entry in std::fs::read_dir(&directory).map_err(io(&directory))? {
                let entry = entry.map_err(io(&directory))?;
                let name = entry.file_name();
                let Some(digest) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                    // An unpacking that did not end.
                    std::fs::remove_dir_all(entry.path()).map_err(io(&entry.path()))?;
                    continue;
                };
                let key = Key { kind, digest };
                let size = read_size(root, key).unwrap_or_else(|| tree_size(&entry.path()));
                inner.items.insert(key, Item { size, used: 0, lease: Weak::new() });
            }
        }
        Ok(Self {
            root: root.to_owned(),
            limit,
            inner: Mutex::new(inner),
            turns: Mutex::default(),
            holds: Hold(Arc::new(())),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.holds.0))
    }

    pub(super) fn directory(&self, kind: Kind) -> PathBuf {
        self.root.join(kind.directory())
    }

    pub(super) fn path(&self, key: Key) -> PathBuf {
        self.directory(key.kind).join(key.digest.to_string())
    }

    /// One fetch of a digest at a time: the second one finds the result of the first.
    pub(super) async fn turn(&self, key: Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|other, turn| *other == key || Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key).or_default())
        };
        turn.lock_owned().await
    }

    pub(super) fn lease(&self, key: Key) -> Option<CacheLease> {
        let path = self.path(key);
        let mut inner = self.inner();
        inner.clock += 1;
        let now = inner.clock;
        let item = inner.items.get_mut(&key)?;
        item.used = now;
        if let Some(inside) = item.lease.upgrade() {
            return Some(CacheLease(inside));
        }
        let inside = Arc::new(Inside { path, size: item.size });
        item.lease = Arc::downgrade(&inside);
        Some(CacheLease(inside))
    }

    pub(super) fn insert(&self, key: Key, size: u64) -> Result<CacheLease, CacheError> {
        let path = self.size_path(key);
        std::fs::write(&path, size.to_string()).map_err(|source| CacheError::Io { path, source })?;
        let inside = Arc::new(Inside { path: self.path(key), size });
        let mut inner = self.inner();
        inner.clock += 1;
        let item = Item { size, used: inner.clock, lease: Arc::downgrade(&inside) };
        inner.items.insert(key, item);
        Ok(CacheLease(inside))
    }

    fn size_path(&self, key: Key) -> PathBuf {
        size_path(&self.root, key)
    }

    /// Takes out what nobody uses, least recently used first, until `extra` more bytes stay within the bound. Returns the
    /// directories that are to be deleted, which takes too long to be done while everybody waits for the index.
    pub(super) fn shrink(&self, extra: u64) -> Vec<PathBuf> {
        let mut all_doomed = Vec::new();
        if Hold::count(&self.holds.0) > 1 {
            return all_doomed;
        }
        let mut inner = self.inner();
        let mut total: u64 = inner.items.values().map(|item| item.size).sum();
        let mut idle: Vec<(u64, Key)> = inner
            .items
            .iter()
            .filter(|(_, item)| item.lease.strong_count() == 0)
            .map(|(key, item)| (item.used, *key))
            .collect();
        idle.sort_unstable();
        for (_, key) in idle {
            if total.saturating_add(extra) <= self.limit {
                break;
            }
            // A directory with its digest's name is always complete. The same one may come and go again meanwhile.
            inner.clock += 1;
            let doomed = self.root.join("tmp").join(format!("doomed-{}-{}", inner.clock, key.digest));
            match std::fs::rename(self.path(key), &doomed) {
                Ok(()) => all_doomed.push(doomed),
                Err(error) => {
                    tracing::warn!(%error, digest = %key.digest, "a directory of the cache could not be removed");
                }
            }
            std::fs::remove_file(self.size_path(key)).ok();
            if let Some(item) = inner.items.remove(&key) {
                total = total.saturating_sub(item.size);
            }
        }
        all_doomed
    }
}

/// Where the sizes of items are noted, in blocks of the disk.
const SIZES: &str = "block-sizes";
/// Of times when files cost nothing but their bytes, and when many small ones cost half of what they take.
const EARLIER_SIZES: [&str; 2] = ["sizes", "disk-sizes"];

fn size_path(root: &Path, key: Key) -> PathBuf {
    root.join(SIZES).join(format!("{}-{}", key.kind.directory(), key.digest))
}

fn read_size(root: &Path, key: Key) -> Option<u64> {
    std::fs::read_to_string(size_path(root, key)).ok()?.trim().parse().ok()
}

/// What takes place on a disk below a directory, as [`slipway_layers::on_disk`] counts it; what cannot be read counts nothing.
pub(super) fn tree_size(path: &Path) -> u64 {
    let mut size: u64 = 0;
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let bytes = match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    open.push(entry.path());
                    0
                }
                Ok(metadata) => metadata.len(),
                Err(_) => continue,
            };
            size = size.saturating_add(slipway_layers::on_disk(bytes));
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &Index, name: &str, size: u64) -> (Key, CacheLease) {
        let key = Key { kind: Kind::Layer, digest: Digest::of(name.as_bytes()) };
        std::fs::create_dir(index.path(key)).expect("directory");
        std::fs::write(index.path(key).join("file"), vec![0; 10]).expect("file");
        (key, index.insert(key, size).expect("insert"))
    }

    #[test]
    fn leased_items_stay_and_the_least_recently_used_are_evicted_first() {
        let root = tempfile::tempdir().expect("directory");
        let index = Index::open(root.path(), 100).expect("open");
        let (used, lease) = put(&index, "used", 60);
        let (old, _) = put(&index, "old", 20);
        let (newer, _) = put(&index, "newer", 20);
        let doomed = index.shrink(10);
        assert!(doomed.len() == 1 && doomed[0].join("file").exists(), "deleting it is left to the caller: {doomed:?}");
        assert!(index.path(used).exists() && !index.path(old).exists() && index.path(newer).exists());
        let hold = index.hold();
        index.shrink(u64::MAX);
        assert!(index.path(newer).exists());
        drop(hold);
        index.shrink(u64::MAX);
        assert!(index.path(used).exists() && !index.path(newer).exists());
        drop(lease);
        index.shrink(u64::MAX);
        assert!(!index.path(used).exists());
        assert!(index.lease(used).is_none());
    }

    #[test]
    fn small_files_take_the_room_of_whole_blocks() {
        let root = tempfile::tempdir().expect("directory");
        std::fs::create_dir(root.path().join("d")).expect("directory");
        for (number, bytes) in [0, 0, 1, 4096, 4097].into_iter().enumerate() {
            std::fs::write(root.path().join("d").join(number.to_string()), vec![0; bytes]).expect("file");
        }
        assert_eq!(tree_size(root.path()), 7 * 4096);
    }

    #[test]
    fn sizes_of_an_earlier_time_are_found_out_anew() {
        let root = tempfile::tempdir().expect("directory");
        let digest = Digest::of(b"x");
        std::fs::create_dir_all(root.path().join("droplets").join(digest.to_string()).join("d")).expect("droplet");
        for earlier in EARLIER_SIZES {
            std::fs::create_dir(root.path().join(earlier)).expect("sizes");
            std::fs::write(root.path().join(earlier).join(format!("droplets-{digest}")), "0").expect("size");
        }
        let index = Index::open(root.path(), 100).expect("open");
        let lease = index.lease(Key { kind: Kind::Droplet, digest }).expect("kept");
        assert_eq!(lease.size(), 4096);
        assert!(EARLIER_SIZES.iter().all(|earlier| !root.path().join(earlier).exists()));
    }

    #[test]
    fn a_restart_keeps_what_is_complete_and_drops_the_rest() {
        let root = tempfile::tempdir().expect("directory");
        let index = Index::open(root.path(), 100).expect("open");
        let (key, _) = put(&index, "layer", 60);
        let half = index.directory(Kind::Layer).join(".unpack-123");
        std::fs::create_dir(&half).expect("half");
        std::fs::write(root.path().join("tmp/partial"), "x").expect("partial");
        let again = Index::open(root.path(), 100).expect("again");
        assert_eq!(again.lease(key).expect("kept").size(), 60);
        assert!(!half.exists());
        assert!(!root.path().join("tmp/partial").exists());
    }
}
