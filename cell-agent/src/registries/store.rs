//! What was fetched, on this host's disk: one file for each thing, with a label at its end that says what it is. A file appears
//! by rename when it is complete and checked, so what is there is whole, also after a power cut. What was not used for longest
//! goes when the bound is passed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digests::Digests;

const MAGIC: &[u8; 4] = b"SWR1";
/// Length and magic, behind the label.
const FOOT: u64 = 8;
const MOST_LABEL: u64 = 64 << 10;
/// Room is asked for in pieces.
const PIECE: u64 = 1 << 20;
/// What a file takes at least.
const BLOCK: u64 = 4096;

/// What one file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// What it is kept as.
    pub(super) key: String,
    /// Bytes of its content.
    pub(super) length: u64,
    /// Where it came from in the end; addresses in it are relative to that.
    pub(super) from: String,
    /// By which its registry tells whether it has changed.
    pub(super) etag: Option<String>,
    /// Its registry's word on what it is.
    pub(super) content_type: String,
    pub(super) digests: Digests,
    /// It had the digest that its registry names.
    pub(super) checked: bool,
}

/// A file that is held open: it can be read also when it is dropped meanwhile.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) file: Arc<File>,
    pub(super) label: Label,
}

impl Kept {
    /// All of its content.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.label.length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    limit: u64,
    inner: Mutex<Inner>,
}

type Name = [u8; 32];

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Name, Entry>,
    /// By the turn of their last use.
    by_use: BTreeMap<u64, Name>,
    turn: u64,
    bytes: u64,
    /// For what is being fetched.
    reserved: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    size: u64,
    turn: u64,
}

impl Inner {
    fn put(&mut self, name: Name, size: u64) {
        self.take(&name);
        self.turn += 1;
        self.entries.insert(name, Entry { size, turn: self.turn });
        self.by_use.insert(self.turn, name);
        self.bytes += size;
    }

    fn take(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.by_use.remove(&entry.turn);
        self.bytes -= entry.size;
        Some(entry)
    }

    fn touch(&mut self, name: &Name) {
        if let Some(entry) = self.entries.get(name).copied() {
            self.put(*name, entry.size);
        }
    }
}

impl Store {
    /// Opens what an earlier agent has kept.
    pub(super) fn open(root: &Path, limit: u64) -> io::Result<Self> {
        let drafts = root.join("drafts");
        match std::fs::remove_dir_all(&drafts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&drafts)?;
        let mut found: Vec<(SystemTime, Name, u64)> = Vec::new();
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(parse) else { continue };
            let metadata = entry.metadata()?;
            found.push((metadata.modified()?, name, size_on_disk(metadata.len())));
        }
        found.sort_unstable();
        let mut inner = Inner::default();
        for (_, name, size) in found {
            inner.put(name, size);
        }
        let store = Self { root: root.to_owned(), limit, inner: Mutex::new(inner) };
        // The bound may have become smaller.
        store.room(&mut store.lock(), 0).ok();
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(hex::encode(name))
    }

    /// What is kept under this key; it was used now.
    pub(super) fn get(&self, key: &str) -> Option<Kept> {
        let name = name_of(key);
        if !self.lock().entries.contains_key(&name) {
            return None;
        }
        let read = File::open(self.path(&name)).and_then(|file| Ok((label(&file)?, file)));
        match read {
            Ok((label, file)) if label.key == key => {
                self.lock().touch(&name);
                // For the order after a restart. That it was not noted costs a download later.
                let _ = file.set_modified(SystemTime::now());
                Some(Kept { file: Arc::new(file), label })
            }
            other => {
                let error = other.err().map_or_else(|| "another key".to_owned(), |error| error.to_string());
                tracing::warn!(key, error, "a file of the registries' cache is damaged and is dropped");
                self.remove(key);
                None
            }
        }
    }

    /// Drops what is kept under this key.
    pub(super) fn remove(&self, key: &str) {
        let name = name_of(key);
        let mut inner = self.lock();
        if inner.take(&name).is_some() {
            self.unlink(&name);
        }
    }

    fn unlink(&self, name: &Name) {
        let path = self.path(name);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a file of the registries' cache was not removed");
        }
    }

    /// Makes room for so many bytes more, of the bound and on the disk.
    fn room(&self, inner: &mut Inner, bytes: u64) -> io::Result<()> {
        loop {
            let free = crate::reserve::room(&self.root)?.bytes;
            if inner.bytes + inner.reserved + bytes <= self.limit && bytes <= free {
                return Ok(());
            }
            let Some(oldest) = inner.by_use.first_key_value().map(|(_, name)| *name) else {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "the cache of registries has no room for it: {} MiB of {} are being fetched, {} MiB are free on the disk",
                        inner.reserved >> 20,
                        self.limit >> 20,
                        free >> 20
                    ),
                ));
            };
            inner.take(&oldest);
            self.unlink(&oldest);
        }
    }

    /// Most bytes that are kept.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// A file that is not complete yet.
    pub(super) fn draft(self: &Arc<Self>) -> io::Result<Draft> {
        let file = tempfile::NamedTempFile::new_in(self.root.join("drafts"))?;
        Ok(Draft {
            shared: Arc::new(file.reopen()?),
            file: Some(file),
            store: Arc::clone(self),
            written: 0,
            reserved: 0,
        })
    }
}

/// A file that is not complete yet; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Draft {
    store: Arc<Store>,
    file: Option<tempfile::NamedTempFile>,
    shared: Arc<File>,
    written: u64,
    reserved: u64,
}

impl Draft {
    /// For those who read while it is written.
    pub(super) fn shared(&self) -> Arc<File> {
        Arc::clone(&self.shared)
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.reserved {
            let more = (bytes - self.reserved).max(PIECE);
            let mut inner = self.store.lock();
            self.store.room(&mut inner, more)?;
            inner.reserved += more;
            self.reserved += more;
        }
        Ok(())
    }

    /// Adds bytes at its end.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reserve(self.written + bytes.len() as u64)?;
        self.shared.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes it what is kept under the label's key.
    pub(super) fn keep(mut self, label: Label) -> io::Result<Kept> {
        let text = serde_json::to_vec(&label)?;
        let mut tail = text.clone();
        tail.write_all(&u32::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes())?;
        tail.write_all(MAGIC)?;
        self.reserve(self.written + tail.len() as u64)?;
        self.shared.write_all_at(&tail, self.written)?;
        self.shared.sync_all()?;
        let name = name_of(&label.key);
        let Some(file) = self.file.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut inner = self.store.lock();
        file.persist(self.store.path(&name)).map_err(|error| error.error)?;
        inner.put(name, size_on_disk(self.written + tail.len() as u64));
        drop(inner);
        Ok(Kept { file: self.shared(), label })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.store.lock().reserved -= self.reserved;
    }
}

fn name_of(key: &str) -> Name {
    Sha256::digest(key).into()
}

fn parse(name: &str) -> Option<Name> {
    hex::decode(name).ok()?.try_into().ok()
}

fn size_on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).max(1) * BLOCK
}

fn label(file: &File) -> io::Result<Label> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it has no label");
    let length = file.metadata()?.len();
    let mut foot = [0; 8];
    file.read_exact_at(&mut foot, length.checked_sub(FOOT).ok_or_else(damaged)?)?;
    let [a, b, c, d, magic @ ..] = foot;
    let size = u64::from(u32::from_be_bytes([a, b, c, d]));
    if &magic != MAGIC || size > MOST_LABEL {
        return Err(damaged());
    }
    let begin = length.checked_sub(FOOT + size).ok_or_else(damaged)?;
    let mut text = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut text, begin)?;
    let label: Label = serde_json::from_slice(&text)?;
    if label.length == begin { Ok(label) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Arc<Store>, key: &str, content: &[u8]) -> io::Result<Kept> {
        let mut draft = store.draft()?;
        draft.write(content)?;
        draft.keep(Label {
            key: key.to_owned(),
            length: content.len() as u64,
            from: "https://npm.example/x".to_owned(),
            etag: Some("\"1\"".to_owned()),
            content_type: "text/plain".to_owned(),
            digests: Digests::default(),
            checked: false,
        })
    }

    fn opened(root: &Path, limit: u64) -> Arc<Store> {
        Arc::new(Store::open(root, limit).expect("a store"))
    }

    #[test]
    fn what_is_kept_survives_and_what_is_half_is_gone() {
        let home = tempfile::tempdir().expect("directory");
        let root = home.path().join("registries");
        let store = opened(&root, 64 << 20);
        assert!(store.get("one").is_none());
        put(&store, "one", b"content").expect("kept");
        put(&store, "one", b"newer content").expect("kept");
        let mut half = store.draft().expect("a draft");
        half.write(b"half").expect("written");
        let half = half.file.take().expect("a file").keep().expect("left behind");
        let again = opened(&root, 64 << 20);
        let kept = again.get("one").expect("kept");
        assert_eq!(
            (kept.read().expect("read"), kept.label.etag.as_deref()),
            (b"newer content".to_vec(), Some("\"1\""))
        );
        assert!(!half.1.exists(), "a draft of an agent that was killed");
        again.remove("one");
        assert!(again.get("one").is_none() && opened(&root, 64 << 20).get("one").is_none());
        assert_eq!(kept.read().expect("held open"), b"newer content");
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let home = tempfile::tempdir().expect("directory");
        let store = opened(home.path(), 8 << 20);
        let large = vec![7; 3 << 20];
        put(&store, "a", &large).expect("kept");
        put(&store, "b", &large).expect("kept");
        assert!(store.get("a").is_some());
        put(&store, "c", &large).expect("kept");
        assert!(store.get("b").is_none(), "a was used later");
        assert!(store.get("a").is_some() && store.get("c").is_some());
        let error = put(&store, "d", &vec![7; 9 << 20]).expect_err("larger than everything");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(store.lock().reserved, 0);
        put(&store, "e", &large).expect("there is room again");
        assert!(store.lock().bytes <= store.limit());
        drop(store);
        assert!(opened(home.path(), 0).get("e").is_none(), "a smaller bound holds at once");
    }

    #[test]
    fn a_damaged_file_is_dropped() {
        let home = tempfile::tempdir().expect("directory");
        let store = opened(home.path(), 64 << 20);
        put(&store, "one", b"content").expect("kept");
        let path = store.path(&name_of("one"));
        let whole = std::fs::read(&path).expect("read");
        for damaged in [&whole[..whole.len() - 1], &whole[1..], b"", b"SWR1", b"\xff\xff\xff\xffSWR1"] {
            put(&store, "one", b"content").expect("kept");
            std::fs::write(&path, damaged).expect("written");
            assert!(store.get("one").is_none());
            assert!(!path.exists());
        }
        put(&store, "two", b"content").expect("kept");
        put(&store, "one", b"content").expect("kept");
        std::fs::copy(store.path(&name_of("two")), &path).expect("copied");
        assert!(store.get("one").is_none(), "what lies under another's name is not it");
    }
}
