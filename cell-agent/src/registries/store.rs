//! The cache of fetched packages on this host's disk: one file each, with a label at its end that describes it. A file gets
//! its name by rename when it is complete and checked, so every file is whole, also after a power cut. The least recently
//! used file is removed when the cache exceeds its size limit.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digests::Digests;
use super::guests::Share;

const MAGIC: &[u8; 4] = b"SWR1";
/// Length and magic, behind the label.
const FOOT: u64 = 8;
const MAX_LABEL: u64 = 64 << 10;
/// Room is asked for in pieces.
const PIECE: u64 = 1 << 20;
/// What a file takes at least.
const BLOCK: u64 = 4096;
/// Answers that wait to be read, beside the cache: nothing that is kept goes for them.
const ANSWERS: u64 = 1 << 30;
/// Of them one build's: the largest document, with room for others.
const ANSWERS_OF_ONE: u64 = ANSWERS / 4;

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
    /// When, in milliseconds since 1970.
    pub(super) fetched: u64,
}

/// A file that is held open: it can be read also when it is dropped meanwhile.
#[derive(Debug)]
pub(super) struct CachedFile {
    pub(super) file: Arc<File>,
    pub(super) label: Label,
    /// Of what is handed on and not kept: its room on the disk, for as long as somebody reads it.
    _room: Option<Draft>,
}

/// The first bytes of a file.
pub(super) fn content(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    limit: u64,
    /// Nobody would bring back what goes, so nothing goes.
    lasting: bool,
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
    /// For answers.
    answers: u64,
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
    pub(super) fn open(root: &Path, limit: u64, lasting: bool) -> io::Result<Self> {
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
        let store = Self { root: root.to_owned(), limit, lasting, inner: Mutex::new(inner) };
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

    /// Whether something is kept under this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lock().entries.contains_key(&name_of(key))
    }

    /// What is kept under this key; it was used now.
    pub(super) fn get(&self, key: &str) -> Option<CachedFile> {
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
                Some(CachedFile { file: Arc::new(file), label, _room: None })
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
        if self.lasting {
            return;
        }
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

    /// Makes room for so many bytes more, of the bound and on the disk. Where an empty cache would have none, nothing goes.
    fn room(&self, inner: &mut Inner, bytes: u64) -> io::Result<()> {
        let mut free = crate::reserve::room(&self.root)?.bytes;
        let may_go = if self.lasting { 0 } else { inner.bytes };
        let is_vain = inner.bytes - may_go + inner.reserved + bytes > self.limit || bytes > free.saturating_add(may_go);
        while is_vain || inner.bytes + inner.reserved + bytes > self.limit || bytes > free {
            let oldest = inner.by_use.first_key_value().map(|(_, name)| *name);
            let Some(oldest) = oldest.filter(|_| !is_vain) else {
                return Err(full(format!(
                    "{} MiB of {} are being fetched, {} MiB are free on the disk",
                    inner.reserved >> 20,
                    self.limit >> 20,
                    free >> 20
                )));
            };
            inner.take(&oldest);
            self.unlink(&oldest);
            free = crate::reserve::room(&self.root)?.bytes;
        }
        Ok(())
    }

    fn room_for_answer(&self, inner: &Inner, bytes: u64) -> io::Result<()> {
        if inner.answers + bytes <= ANSWERS && bytes <= crate::reserve::room(&self.root)?.bytes {
            return Ok(());
        }
        Err(full(format!("{} MiB of answers wait to be read", inner.answers >> 20)))
    }

    /// Most bytes that are kept.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// A file that is not complete yet, for a build.
    pub(super) fn draft(self: &Arc<Self>, share: &Arc<Share>) -> io::Result<Draft> {
        self.file_of(Purpose::Keep, share)
    }

    /// A file that is nothing but an answer to a build.
    pub(super) fn answer(self: &Arc<Self>, share: &Arc<Share>) -> io::Result<Draft> {
        self.file_of(Purpose::Answer, share)
    }

    fn file_of(self: &Arc<Self>, purpose: Purpose, share: &Arc<Share>) -> io::Result<Draft> {
        let file = tempfile::NamedTempFile::new_in(self.root.join("drafts"))?;
        Ok(Draft {
            shared: Arc::new(file.reopen()?),
            file: Some(file),
            store: Arc::clone(self),
            share: Arc::clone(share),
            purpose,
            written: 0,
            reserved: 0,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Keep,
    Answer,
}

/// A file that is not complete yet; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Draft {
    store: Arc<Store>,
    file: Option<tempfile::NamedTempFile>,
    shared: Arc<File>,
    share: Arc<Share>,
    purpose: Purpose,
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

    /// What its build has reserved, and may have. A single file may have all that a file may have.
    fn of_build(&self) -> (&AtomicU64, u64) {
        match self.purpose {
            Purpose::Keep => (&self.share.fetched, self.store.limit / 2),
            Purpose::Answer => (&self.share.answers, ANSWERS_OF_ONE),
        }
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if bytes <= self.reserved {
            return Ok(());
        }
        let more = (bytes - self.reserved).max(PIECE);
        let (own, most) = self.of_build();
        let mut inner = self.store.lock();
        let before = own.load(Ordering::Relaxed);
        if before > self.reserved && before + more > most {
            return Err(full(format!("{} MiB of this build are under way", before >> 20)));
        }
        match self.purpose {
            Purpose::Keep => {
                self.store.room(&mut inner, more)?;
                inner.reserved += more;
            }
            Purpose::Answer => {
                self.store.room_for_answer(&inner, more)?;
                inner.answers += more;
            }
        }
        own.fetch_add(more, Ordering::Relaxed);
        drop(inner);
        self.reserved += more;
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
    pub(super) fn keep(mut self, label: Label) -> io::Result<CachedFile> {
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
        Ok(CachedFile { file: self.shared(), label, _room: None })
    }

    /// Hands it on to those who wait for it, and to nobody who comes later.
    pub(super) fn hand_on(self, label: Label) -> CachedFile {
        CachedFile { file: self.shared(), label, _room: Some(self) }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let mut inner = self.store.lock();
        match self.purpose {
            Purpose::Keep => inner.reserved -= self.reserved,
            Purpose::Answer => inner.answers -= self.reserved,
        }
        self.of_build().0.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

fn full(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, format!("the cache of registries has no room for it: {why}"))
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
    if &magic != MAGIC || size > MAX_LABEL {
        return Err(damaged());
    }
    let begin = length.checked_sub(FOOT + size).ok_or_else(damaged)?;
    let mut text = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut text, begin)?;
    let label: Label = serde_json::from_slice(&text)?;
    if label.length == begin { Ok(label) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests;
