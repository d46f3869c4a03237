//! The object store, by content: a blob's name is the SHA-256 of its bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};
use slipway_api_types::ErrorCode;
use tokio::io::AsyncReadExt as _;

use crate::domain::DomainError;
use crate::reserve::{Reserve, ReserveReached};
use crate::store::Store;
use crate::store::blobs::{
    blob_clear_tx, blob_forget_tx, blob_is_held_tx, blob_is_used_tx, blob_postpone_tx, blob_suspect_tx,
};
use crate::store::stored::SETTLE_S;

const CHUNK: usize = 256 * 1024;
/// A file of packages that no upload has spoken of for this long, in seconds, is sent once more when it comes again. Kept
/// for ever, every version of every file that anybody ever pushed would be.
const FILE_UNUSED_S: f64 = 30.0 * 86_400.0;
/// Blobs of one sweep.
const SWEEP_MOST: i64 = 500;

/// 32 bytes, SHA-256.
pub type BlobDigest = [u8; 32];

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store failed.
    #[error("the blob store failed")]
    Store(#[from] object_store::Error),
    /// A local file failed.
    #[error("a local blob file cannot be read or written")]
    File(#[from] std::io::Error),
    /// Puts cannot be noted.
    #[error("the blob cannot be recorded in the database")]
    Database(#[from] sqlx::Error),
    /// The rest of the disk is for what runs.
    #[error(transparent)]
    ReserveReached(#[from] ReserveReached),
    /// The bytes are not the ones that were announced.
    #[error("the content has digest {found}, but {wanted} was announced")]
    WrongDigest {
        /// What came.
        found: String,
        /// What was announced.
        wanted: String,
    },
}

impl BlobError {
    /// What a request is told that failed while doing this: trouble with the database is told as such.
    #[must_use]
    pub fn while_doing(self, what: &str) -> DomainError {
        match self {
            Self::Database(error) => error.into(),
            Self::ReserveReached(error) => error.into(),
            Self::File(error) => storing(what, error),
            error => DomainError::internal(what, error),
        }
    }
}

/// A local file that belongs to an upload failed: a full disk is told as such.
#[must_use]
pub fn storing(what: &str, error: std::io::Error) -> DomainError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ReserveReached>());
    match inner {
        Some(full) => full.clone().into(),
        None if matches!(error.kind(), StorageFull | QuotaExceeded) => DomainError::refused(
            ErrorCode::InsufficientStorage,
            format!("The disk of the platform's store is full ({what})."),
        ),
        None => DomainError::internal(what, error),
    }
}

impl From<ReserveReached> for DomainError {
    fn from(error: ReserveReached) -> Self {
        Self::refused(ErrorCode::InsufficientStorage, format!("{error}."))
    }
}

/// A local file, and the name that its content has in the store.
#[derive(Clone, Debug)]
pub struct Digested {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256.
    pub digest: BlobDigest,
    /// Bytes.
    pub size: u64,
}

/// Packages, droplets, layers, caches. Cheap to clone.
///
/// A blob is stored before the row that speaks of it is written, and removed after the last such row is gone. So that the
/// two do not meet, each put is noted in the database first, and a removal holds that note while it looks and deletes:
/// what was put within [`SETTLE_S`] stays, and is looked at again later ([`BlobStore::sweep`]).
#[derive(Clone)]
pub struct BlobStore {
    store: Arc<dyn ObjectStore>,
    notes: Store,
    /// Of the file system that the store is on, if it is on one of this machine.
    reserve: Option<Reserve>,
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStore").field("store", &self.store).finish_non_exhaustive()
    }
}

impl BlobStore {
    /// A store in a local directory, which is made when absent. `notes` is the database in which puts are noted.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn local(directory: &Path, notes: Store) -> Result<Self, BlobError> {
        std::fs::create_dir_all(directory)?;
        // A row that speaks of a blob is on disk when it is committed; the blob must be there before it. Without this a
        // power cut leaves a droplet that reads as staged and is an empty file.
        let store = LocalFileSystem::new_with_prefix(directory)?.with_automatic_cleanup(true).with_fsync(true);
        let store = Arc::new(store);
        Ok(Self { store, notes, reserve: None })
    }

    /// The same, with a part of its file system that uploads leave free. What is stored is not looked at any more: whoever
    /// receives an upload asks before ([`BlobStore::room`]), and the layers of a stack are the operator's.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve: Some(reserve), ..self }
    }

    /// Whether an upload of so many bytes may come.
    ///
    /// # Errors
    /// [`ReserveReached`] with the figures.
    pub fn room(&self, bytes: u64) -> Result<(), ReserveReached> {
        self.reserve.as_ref().map_or(Ok(()), |reserve| reserve.check(bytes))
    }

    /// What watches the file system of the store, if it is on this machine.
    #[must_use]
    pub fn reserve(&self) -> Option<&Reserve> {
        self.reserve.as_ref()
    }

    /// The name that a file's content would have.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn digest(&self, path: &Path) -> Result<Digested, BlobError> {
        let (digest, size) = digest_of(path).await?;
        Ok(Digested { path: path.to_owned(), digest, size })
    }

    /// Stores a file whose digest is known.
    ///
    /// # Errors
    /// When the file cannot be read, or the store or the database fails.
    pub async fn put_digested(&self, file: &Digested) -> Result<(), BlobError> {
        self.put(&file.path, &file.digest, file.size).await
    }

    /// Stores a file under its own digest; returns digest and size. Storing the same content twice is free.
    ///
    /// # Errors
    /// When the file cannot be read, or the store or the database fails.
    pub async fn put_file(&self, path: &Path) -> Result<(BlobDigest, u64), BlobError> {
        let (digest, size) = digest_of(path).await?;
        self.put(path, &digest, size).await?;
        Ok((digest, size))
    }

    /// Stores a file that should have this digest; otherwise nothing is stored.
    ///
    /// # Errors
    /// [`BlobError::WrongDigest`]; when the file cannot be read, or the store or the database fails.
    pub async fn put_file_as(&self, path: &Path, wanted: &BlobDigest) -> Result<(), BlobError> {
        let (digest, size) = digest_of(path).await?;
        if digest != *wanted {
            return Err(BlobError::WrongDigest { found: hex::encode(digest), wanted: hex::encode(wanted) });
        }
        self.put(path, &digest, size).await
    }

    async fn put(&self, path: &Path, digest: &BlobDigest, size: u64) -> Result<(), BlobError> {
        self.notes.blob_put(digest).await?;
        match self.size_of(digest).await? {
            Some(there) if there == size => return Ok(()),
            // Cut short by a failing disk: believed for its name, it could never be stored again.
            Some(there) => {
                tracing::error!(blob = hex::encode(digest), there, size, "a blob is damaged; it is stored again");
            }
            None => {}
        }
        let mut buffer = vec![0_u8; CHUNK];
        let mut file = tokio::fs::File::open(path).await?;
        let upload = self.store.put_multipart(&object_path(digest)).await?;
        let mut writer = WriteMultipart::new(upload);
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            writer.write(&buffer[..read]);
        }
        writer.finish().await?;
        Ok(())
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exists(&self, digest: &BlobDigest) -> Result<bool, BlobError> {
        Ok(self.size_of(digest).await?.is_some())
    }

    /// `None` when the blob is not there.
    async fn size_of(&self, digest: &BlobDigest) -> Result<Option<u64>, BlobError> {
        match self.store.head(&object_path(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Streams a blob from `offset` on.
    ///
    /// # Errors
    /// When it is not there or the store fails.
    pub async fn read(
        &self,
        digest: &BlobDigest,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let range = (offset > 0).then_some(GetRange::Offset(offset));
        let options = GetOptions { range, ..GetOptions::default() };
        let result = self.store.get_opts(&object_path(digest), options).await?;
        Ok(Box::pin(result.into_stream().map_err(BlobError::from)))
    }

    /// Removes the blobs of these that nothing speaks of, except those that were put a moment ago: a later sweep looks at
    /// them. A failure leaves garbage for the sweep too; it is logged.
    pub async fn remove_unused(&self, blobs: &[Vec<u8>]) {
        for blob in blobs {
            let Ok(digest) = BlobDigest::try_from(blob.as_slice()) else { continue };
            if let Err(error) = self.remove_if_unused(&digest).await {
                tracing::warn!(blob = hex::encode(digest), error = %slipway_chassis::chain(&error), "a blob was not removed");
            }
        }
    }

    /// Gives up files of packages that nobody uses, looks at blobs that have settled since somebody put them or gave them
    /// up, and removes what nothing speaks of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self) -> Result<(), BlobError> {
        self.notes.files_forget(FILE_UNUSED_S, SWEEP_MOST).await?;
        self.notes.stored_forget().await?;
        let suspect = self.notes.blobs_suspect(SETTLE_S, SWEEP_MOST).await?;
        self.remove_unused(&suspect).await;
        Ok(())
    }

    async fn remove_if_unused(&self, digest: &BlobDigest) -> Result<(), BlobError> {
        let mut tx = self.notes.begin().await?;
        // From here to the commit nobody can say that it is putting this content.
        if !blob_suspect_tx(&mut tx, digest, SETTLE_S).await? {
            return Ok(tx.commit().await?);
        }
        if blob_is_used_tx(&mut tx, digest).await? {
            blob_clear_tx(&mut tx, digest).await?;
            return Ok(tx.commit().await?);
        }
        if blob_is_held_tx(&mut tx, digest).await? {
            // Nobody says when that ends: it is looked at again.
            blob_postpone_tx(&mut tx, digest).await?;
            return Ok(tx.commit().await?);
        }
        match self.store.delete(&object_path(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        blob_forget_tx(&mut tx, digest).await?;
        Ok(tx.commit().await?)
    }
}

async fn digest_of(path: &Path) -> Result<(BlobDigest, u64), BlobError> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok((hash.finalize().into(), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// `sha256/ab/abcdef…`: two hex digits of fan-out keep directories small.
fn object_path(digest: &BlobDigest) -> ObjectPath {
    let name = hex::encode(digest);
    ObjectPath::from(format!("sha256/{}/{name}", &name[..2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_on_disk_before_a_row_speaks_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://localhost/none").expect("an address");
        let blobs = BlobStore::local(directory.path(), Store::new(pool, Arc::default())).expect("a store");
        // No test can cut the power; the store says of itself what it does.
        assert!(format!("{blobs:?}").contains("fsync: true"), "{blobs:?}");
    }
}
