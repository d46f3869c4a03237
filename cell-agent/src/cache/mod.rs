//! Unpacked layers and droplets, and blobs for builds, by digest. Each is fetched once at a time, checked, complete or
//! absent; what nobody uses is dropped when the bound is passed, least recently used first.

mod fetch;
mod index;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::Backoff;
use slipway_layers::{ArchiveError, Digest, Limits, MAX_DROPLET_ENTRIES, StoreError};
use slipway_protocol::v1::{self, Refusal};

use crate::controllers::{CallError, Controllers};
use crate::reserve::FreeSpace;
pub use index::{CacheLease, Hold};
use index::{Index, Key, Kind};

/// Tries at a blob that arrives wrong or is refused, before the cell says that it cannot get it.
const TRIES: u32 = 4;

/// Why something is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The disk, or the bound of the cache, is too small.
    #[error("{what} needs {} MiB of disk, {} MiB are free", need >> 20, free >> 20)]
    NoSpace {
        /// What for.
        what: String,
        /// Bytes.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// The disk can hold no more files, whatever their size.
    #[error("{what} has more files than the {free} that the disk has room for")]
    NoFiles {
        /// What for.
        what: String,
        /// Files.
        free: u64,
    },
    /// It cannot be had, or is not what its digest says.
    #[error("{what} cannot be fetched: {why}")]
    Unavailable {
        /// What for.
        what: String,
        /// In words.
        why: String,
    },
    /// This machine failed.
    #[error("the cache failed at {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl CacheError {
    /// What the cell reports.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NoSpace { .. } | Self::NoFiles { .. } => Refusal::NoSpace,
            Self::Unavailable { .. } => Refusal::LayerUnavailable,
            Self::Io { .. } => Refusal::CellBroken,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    controllers: Arc<Controllers>,
    index: Arc<Index>,
}

impl Cache {
    /// Opens the cache below the state directory; drops what was half done.
    ///
    /// # Errors
    /// When a directory cannot be made or read.
    pub fn open(state: &Path, limit_bytes: u64, controllers: Arc<Controllers>) -> Result<Self, CacheError> {
        let root = state.join("cache");
        let index = Arc::new(Index::open(&root, limit_bytes)?);
        Ok(Self { root, controllers, index })
    }

    /// Nothing is dropped while this is held: what a found sandbox uses is not known yet.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.index.hold()
    }

    /// An unpacked layer, fetched when it is not here.
    ///
    /// # Errors
    /// See [`CacheError`]; nothing is left behind.
    pub async fn layer(&self, layer: &v1::Layer) -> Result<CacheLease, CacheError> {
        let what = format!("layer {} {}", layer.line, layer.version);
        let digest = parse(&layer.digest, &what)?;
        let key = Key { kind: Kind::Layer, digest };
        let _turn = self.index.turn(key).await;
        if let Some(lease) = self.index.lease(key) {
            return Ok(lease);
        }
        self.room(&what, layer.blob_size.saturating_add(layer.size)).await?;
        let mut tries = 0;
        loop {
            let blob = self.fetch(&layer.blob, layer.blob_size, &what).await?;
            let parent = self.index.directory(Kind::Layer);
            let path = blob.to_path_buf();
            let unpacked = blocking(move || {
                slipway_layers::unpack_layer(&path, digest, &parent).map(|directory| index::tree_size(&directory))
            });
            match unpacked.await? {
                Ok(size) => return self.index.insert(key, size),
                // A wrong blob is gone with its temporary file; the next one may be right.
                Err(error @ (StoreError::WrongDigest { .. } | StoreError::Archive { .. })) => {
                    if let StoreError::Archive { source: ArchiveError::NoSpace { .. }, .. } = error {
                        return Err(self.no_space(&what, layer.size));
                    }
                    tries += 1;
                    if tries >= TRIES {
                        return Err(CacheError::Unavailable { what, why: slipway_chassis::chain(&error).to_string() });
                    }
                }
                Err(StoreError::Io { path, source }) => return Err(self.io(&what, layer.size, path, source)),
            }
        }
    }

    /// An unpacked droplet: a layer directory whose `home/vcap` is the droplet's content, owned by 2000:2000.
    ///
    /// # Errors
    /// See [`CacheError`]; nothing is left behind.
    pub async fn droplet(&self, blob: &v1::Blob) -> Result<CacheLease, CacheError> {
        let what = "the droplet".to_owned();
        let digest = parse(&blob.digest, &what)?;
        let key = Key { kind: Kind::Droplet, digest };
        let _turn = self.index.turn(key).await;
        if let Some(lease) = self.index.lease(key) {
            return Ok(lease);
        }
        self.room(&what, blob.size.saturating_mul(4)).await?;
        let fetched = self.fetch(&blob.digest, blob.size, &what).await?;
        self.unpack_droplet(key, &fetched, &blob.format).await
    }

    /// Takes a droplet that was made here, so that its first start needs no download.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn adopt_droplet(&self, blob: &v1::Blob, file: &Path) -> Result<CacheLease, CacheError> {
        let digest = parse(&blob.digest, "the droplet")?;
        let key = Key { kind: Kind::Droplet, digest };
        let _turn = self.index.turn(key).await;
        if let Some(lease) = self.index.lease(key) {
            return Ok(lease);
        }
        self.unpack_droplet(key, file, &blob.format).await
    }

    async fn unpack_droplet(&self, key: Key, file: &Path, format: &str) -> Result<CacheLease, CacheError> {
        let mut may_drop = true;
        loop {
            let (target, parent) = (self.index.path(key), self.index.directory(Kind::Droplet));
            let (file, format) = (file.to_owned(), format.to_owned());
            // What a droplet becomes is known at its end, and a few hundred kilobytes become gigabytes if somebody wants that:
            // it gets what the disk has, less what journal and logs need.
            let room = fetch::room(&self.root)?;
            let (most, most_entries) = (Limits::default().max_bytes, MAX_DROPLET_ENTRIES);
            let files = room.files.unwrap_or(u64::MAX);
            let limits = Limits { max_bytes: most.min(room.bytes), max_entries: most_entries.min(files) };
            let unpacked = blocking(move || fetch::unpack_droplet(&file, &format, &parent, &target, limits));
            match unpacked.await? {
                Ok(size) => return self.index.insert(key, size),
                Err(ArchiveError::TooLarge { unit, .. })
                    if (unit == "bytes" && room.bytes < most) || (unit == "files" && files < most_entries) =>
                {
                    if !std::mem::take(&mut may_drop) {
                        return Err(match unit {
                            "files" => CacheError::NoFiles { what: "the droplet".to_owned(), free: files },
                            _ => self.no_space("the droplet", room.bytes),
                        });
                    }
                    self.shrink(u64::MAX).await?;
                }
                Err(ArchiveError::NoSpace { .. }) => return Err(self.no_space("the droplet", 0)),
                Err(ArchiveError::Io { path, source }) => return Err(self.io("the droplet", 0, path, source)),
                Err(error) => {
                    let (what, why) = ("the droplet".to_owned(), slipway_chassis::chain(&error).to_string());
                    return Err(CacheError::Unavailable { what, why });
                }
            }
        }
    }

    /// What is here already, without fetching: keeps a running instance's layers from being dropped.
    #[must_use]
    pub fn pin(&self, spec: &v1::WorkloadSpec) -> Vec<CacheLease> {
        let layers = spec.layers.iter().map(|layer| (Kind::Layer, &layer.digest));
        let droplet = spec.droplet.iter().map(|blob| (Kind::Droplet, &blob.digest));
        layers
            .chain(droplet)
            .filter_map(|(kind, digest)| Digest::try_from(&digest[..]).ok().map(|digest| Key { kind, digest }))
            .filter_map(|key| self.index.lease(key))
            .collect()
    }

    /// A blob as a temporary file, checked, removed when dropped.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn blob(&self, blob: &v1::Blob, what: &str) -> Result<tempfile::TempPath, CacheError> {
        parse(&blob.digest, what)?;
        self.room(what, blob.size).await?;
        self.fetch(&blob.digest, blob.size, what).await
    }

    /// Fetches with retries: for ever while no controller answers, a few times when what comes is wrong.
    async fn fetch(&self, digest: &[u8], size: u64, what: &str) -> Result<tempfile::TempPath, CacheError> {
        let digest = parse(digest, what)?;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut tries = 0;
        let mut partial = fetch::Partial::new(&self.root.join("tmp"), digest, size)?;
        loop {
            let why = match partial.attempt(&self.controllers).await {
                Ok(path) => return Ok(path),
                Err(fetch::FetchError::Io { path, source }) => return Err(self.io(what, size, path, source)),
                Err(fetch::FetchError::Call(CallError::Unreachable(status))) => {
                    tracing::debug!(%status, what, "no controller serves the blob; trying again");
                    None
                }
                Err(error) => Some(slipway_chassis::chain(&error).to_string()),
            };
            if let Some(why) = why {
                tries += 1;
                tracing::warn!(what, tries, why, "a blob was not fetched");
                if tries >= TRIES {
                    return Err(CacheError::Unavailable { what: what.to_owned(), why });
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Makes room, or says with figures that there is none.
    async fn room(&self, what: &str, need: u64) -> Result<(), CacheError> {
        self.shrink(need).await?;
        let fits = |room: &FreeSpace| need <= room.bytes && room.files != Some(0);
        if fits(&fetch::room(&self.root)?) {
            return Ok(());
        }
        // The disk is short although the bound is kept: drop everything that is not in use.
        self.shrink(u64::MAX).await?;
        let room = fetch::room(&self.root)?;
        if fits(&room) {
            return Ok(());
        }
        let what = what.to_owned();
        Err(match room.files {
            Some(0) => CacheError::NoFiles { what, free: 0 },
            _ => CacheError::NoSpace { what, need, free: room.bytes },
        })
    }

    /// Drops what nobody uses, until `extra` more bytes stay within the bound.
    async fn shrink(&self, extra: u64) -> Result<(), CacheError> {
        let doomed = self.index.shrink(extra);
        if doomed.is_empty() {
            return Ok(());
        }
        blocking(move || {
            for path in doomed {
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::warn!(%error, path = %path.display(), "a directory of the cache could not be removed");
                }
            }
        })
        .await
    }

    fn no_space(&self, what: &str, need: u64) -> CacheError {
        let free = self.free_bytes();
        CacheError::NoSpace { what: what.to_owned(), need: need.max(free + 1), free }
    }

    fn io(&self, what: &str, need: u64, path: PathBuf, source: std::io::Error) -> CacheError {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => self.no_space(what, need),
            _ => CacheError::Io { path, source },
        }
    }

    /// Bytes free on the cache's disk, without what is left to the host.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        fetch::room(&self.root).map_or(0, |room| room.bytes)
    }
}

fn parse(bytes: &[u8], what: &str) -> Result<Digest, CacheError> {
    Digest::try_from(bytes).map_err(|error| CacheError::Unavailable { what: what.to_owned(), why: error.to_string() })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CacheError::Io { path: PathBuf::from("unpacking"), source: std::io::Error::other(error) })
}
