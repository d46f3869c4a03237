//! From a received upload to a package that is ready.
//!
//! Until the last step nothing but temporary files and blobs (which only content names) has changed: an upload that is
//! refused, or breaks off, leaves the package `AWAITING_UPLOAD`, and the client may try again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use slipway_api_types::ErrorCode;
use slipway_api_types::requests::ResourceEntry;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::archive::{self, ArchiveError, ArchiveLimits, Judged, KnownFile, Remembered};
use crate::blobs::{BlobDigest, BlobError};
use crate::context::Context;
use crate::domain::audit::Party;
use crate::domain::lifecycle::record;
use crate::domain::{DomainError, DomainResult};
use crate::store::apps::app_lock_tx;
use crate::store::packages::{PackageRow, ResourceRow, package_ready_tx};
use crate::store::retention::bits_expire_tx;

/// Files that are stored at a time: each waits for its disk, and waiting for several costs little more than for one.
const PUT_AT_ONCE: usize = 8;

/// What was received.
#[derive(Debug)]
pub struct Received {
    /// Removed when this is dropped.
    pub directory: TempDir,
    /// The zip, if one came.
    pub bits: Option<PathBuf>,
    /// Files that the client left out because the platform has them.
    pub resources: Vec<ResourceEntry>,
}

/// Where uploads are received: on the disk of the blobs, because `/tmp` may be memory.
///
/// # Errors
/// When the directory cannot be made.
pub fn receiving_directory(context: &Context) -> DomainResult<TempDir> {
    let parent = context.config.blob_directory.join("incoming");
    std::fs::create_dir_all(&parent)
        .and_then(|()| TempDir::new_in(&parent))
        .map_err(|error| DomainError::internal(format!("making a directory in {}", parent.display()), error))
}

/// The refusal of a second finished upload.
#[must_use]
pub fn already_uploaded() -> DomainError {
    DomainError::refused(
        ErrorCode::PackageBitsAlreadyUploaded,
        "Bits may be uploaded only once. Create a new package to upload different bits.",
    )
}

/// Judges what was received and makes the package ready.
///
/// # Errors
/// [`DomainError::Invalid`] naming the entry or figure; `CF-PackageBitsAlreadyUploaded`; our own faults.
pub async fn finish(
    context: &Context,
    actor: &Party,
    package: &PackageRow,
    received: Received,
) -> DomainResult<PackageRow> {
    if received.bits.is_none() && received.resources.is_empty() {
        return Err(DomainError::invalid("Upload must include either resources or bits"));
    }
    let limits = ArchiveLimits {
        unpacked_bytes: context.config.limits.max_package_unpacked_bytes,
        files: context.config.limits.max_package_files,
    };
    archive::check_known(received.resources.iter().map(|entry| entry.size_in_bytes), limits).map_err(refusal)?;
    let known = known_files(context, &received).await?;
    let scratch = received.directory.path().to_owned();
    let complete = scratch.join("complete.zip");
    let (bits, target) = (received.bits.clone(), complete.clone());
    let judged =
        tokio::task::spawn_blocking(move || archive::judge(bits.as_deref(), &known, limits, &scratch, &target))
            .await
            .map_err(|error| DomainError::internal("judging an upload", error))?
            .map_err(refusal)?;
    let source = match (&judged, &received.bits) {
        (Judged { rewritten: false, .. }, Some(bits)) => bits.clone(),
        _ => complete,
    };
    let (digest, size) = context.blobs.put_file(&source).await.map_err(blob)?;
    remember(context, &judged).await?;

    let mut tx = context.store.begin().await?;
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    // The app first, as everywhere: whoever deletes it holds it when its packages go.
    let app = app_lock_tx(&mut tx, package.app_guid).await?;
    let row = package_ready_tx(&mut tx, package.guid, &digest, size).await?.ok_or_else(already_uploaded)?;
    if let Some(app) = app {
        bits_expire_tx(&mut tx, app.guid).await?;
        record(&mut tx, "audit.app.package.upload", actor, &app, json!({ "package_guid": row.guid })).await?;
    }
    tx.commit().await?;
    Ok(row)
}

fn refusal(error: ArchiveError) -> DomainError {
    match error {
        ArchiveError::Io(error) => DomainError::internal("judging an upload", error),
        error => DomainError::invalid(format!("The package was refused: {error}")),
    }
}

fn blob(error: BlobError) -> DomainError {
    error.while_doing("storing a package")
}

/// Local copies of the files that the client left out.
async fn known_files(context: &Context, received: &Received) -> DomainResult<Vec<KnownFile>> {
    if received.resources.is_empty() {
        return Ok(Vec::new());
    }
    let known = lookup(context, &received.resources).await?;
    let mut local: HashMap<BlobDigest, PathBuf> = HashMap::new();
    let mut files = Vec::with_capacity(received.resources.len());
    for (entry, blob) in received.resources.iter().zip(known) {
        let missing = || {
            DomainError::invalid(format!(
                "The platform does not have the file {:?} with SHA-1 {} any more; send the file itself.",
                entry.path, entry.checksum.value
            ))
        };
        let digest = blob.and_then(|blob| BlobDigest::try_from(blob.as_slice()).ok()).ok_or_else(missing)?;
        let path = match local.get(&digest) {
            Some(path) => path.clone(),
            None => {
                let path = received.directory.path().join(format!("known-{}", hex::encode(digest)));
                if !context.blobs.exists(&digest).await.map_err(self::blob)? {
                    return Err(missing());
                }
                copy_out(context, &digest, &path).await?;
                local.insert(digest, path.clone());
                path
            }
        };
        let mode = u32::from_str_radix(&entry.mode, 8).unwrap_or(0o644) & 0o777;
        files.push(KnownFile { path: entry.path.clone(), mode, size: entry.size_in_bytes, local: path });
    }
    Ok(files)
}

/// For each entry, the blob that holds it.
///
/// # Errors
/// When the database fails.
pub async fn lookup(context: &Context, entries: &[ResourceEntry]) -> DomainResult<Vec<Option<Vec<u8>>>> {
    let keys: Vec<Option<(Vec<u8>, i64)>> = entries
        .iter()
        .map(|entry| {
            let sha1 = hex::decode(&entry.checksum.value).ok().filter(|sha1| sha1.len() == 20)?;
            Some((sha1, i64::try_from(entry.size_in_bytes).ok()?))
        })
        .collect();
    let (sha1s, sizes): (Vec<Vec<u8>>, Vec<i64>) = keys.iter().flatten().cloned().unzip();
    let rows = context.store.resources_known(&sha1s, &sizes).await?;
    let found: HashMap<(Vec<u8>, i64), Vec<u8>> =
        rows.into_iter().map(|row| ((row.sha1, row.size), row.blob)).collect();
    Ok(keys.into_iter().map(|key| found.get(&key?).cloned()).collect())
}

async fn copy_out(context: &Context, digest: &BlobDigest, path: &Path) -> DomainResult<()> {
    let mut stream = context.blobs.read(digest, 0).await.map_err(blob)?;
    let io = |error| DomainError::internal("copying a known file", error);
    let mut file = tokio::fs::File::create(path).await.map_err(io)?;
    while let Some(chunk) = stream.try_next().await.map_err(blob)? {
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)
}

async fn remember(context: &Context, judged: &Judged) -> DomainResult<()> {
    let puts: Vec<_> = judged.remembered.iter().map(|file| put_known(context, file)).collect();
    let rows: Vec<ResourceRow> = futures::stream::iter(puts).buffered(PUT_AT_ONCE).try_collect().await?;
    if !rows.is_empty() {
        context.store.resources_remember(&rows).await?;
    }
    Ok(())
}

async fn put_known(context: &Context, file: &Remembered) -> DomainResult<ResourceRow> {
    let (digest, size) = context.blobs.put_file(&file.local).await.map_err(blob)?;
    Ok(ResourceRow { sha1: file.sha1.to_vec(), size: i64::try_from(size).unwrap_or(i64::MAX), blob: digest.to_vec() })
}
