//! From a received upload to a package that is ready.
//!
//! Until the last step nothing but temporary files and blobs (which only content names) has changed: an upload that is
//! refused, or breaks off, leaves the package `AWAITING_UPLOAD`, and the client may try again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use sha1_checked::{Digest as _, Sha1};
use slipway_api_types::ErrorCode;
use slipway_api_types::requests::ResourceEntry;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::archive::{self, ArchiveError, ArchiveLimits, CheckedPackage, KnownFile, Remembered, Scratch};
use crate::blobs::{BlobDigest, BlobError, storing};
use crate::context::Context;
use crate::domain::audit::AuditSubject;
use crate::domain::lifecycle::record;
use crate::domain::{DomainError, DomainResult, stored};
use crate::store::apps::app_lock_tx;
use crate::store::list::Visible;
use crate::store::packages::{PackageRow, package_ready_tx};
use crate::store::retention::bits_expire_tx;
use crate::store::space_files::FileRow;

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
    /// The spaces whose packages whoever uploads may read.
    pub readable: Visible,
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
    actor: &AuditSubject,
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
    let (directory, bits) = (received.directory.path().to_owned(), received.bits.clone());
    let reserve = context.blobs.reserve().cloned();
    let checking = tokio::task::spawn_blocking(move || {
        let scratch = Scratch { directory: &directory, remember: true, reserve: reserve.as_ref() };
        let checked = archive::check_package(bits.as_deref(), &known.files, limits, scratch)?;
        let source = match (checked.rewritten, bits) {
            (false, Some(bits)) => bits,
            _ => scratch.complete(),
        };
        Ok((checked, source, known.rows))
    });
    let (checked, source, rows) =
        checking.await.map_err(|error| DomainError::internal("judging an upload", error))?.map_err(refusal)?;
    let file = context.blobs.digest(&source).await.map_err(blob)?;
    stored::charge(context, package.app_guid, &file).await?;
    context.blobs.put_digested(&file).await.map_err(blob)?;
    remember(context, package.app_guid, &checked, rows).await?;

    let mut tx = context.store.begin().await?;
    let (digest, size) = (file.digest, i64::try_from(file.size).unwrap_or(i64::MAX));
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
        ArchiveError::Io(error) => storing("judging an upload", error),
        error => DomainError::invalid(format!("The package was refused: {error}")),
    }
}

fn blob(error: BlobError) -> DomainError {
    error.while_doing("storing a package")
}

/// Files that a client left out because the platform has them: local copies, and their rows.
#[derive(Debug, Default)]
struct KnownFiles {
    files: Vec<KnownFile>,
    rows: Vec<FileRow>,
}

async fn known_files(context: &Context, received: &Received) -> DomainResult<KnownFiles> {
    let mut known = KnownFiles::default();
    if received.resources.is_empty() {
        return Ok(known);
    }
    let blobs = lookup(context, &received.readable, &received.resources).await?;
    let mut local: HashMap<BlobDigest, PathBuf> = HashMap::new();
    for (entry, row) in received.resources.iter().zip(blobs) {
        let missing = || {
            DomainError::invalid(format!(
                "The platform does not have the file {:?} with SHA-1 {} any more; send the file itself.",
                entry.path, entry.checksum.value
            ))
        };
        let row = row.ok_or_else(missing)?;
        let digest = BlobDigest::try_from(row.blob.as_slice()).map_err(|_| missing())?;
        let path = match local.get(&digest) {
            Some(path) => path.clone(),
            None => {
                let path = received.directory.path().join(format!("known-{}", hex::encode(digest)));
                if !context.blobs.exists(&digest).await.map_err(blob)? {
                    return Err(missing());
                }
                context.blobs.room(entry.size_in_bytes)?;
                if !copy_out(context, &digest, &path, &row).await? {
                    return Err(missing());
                }
                local.insert(digest, path.clone());
                known.rows.push(row);
                path
            }
        };
        let mode = u32::from_str_radix(&entry.mode, 8).unwrap_or(0o644) & 0o777;
        known.files.push(KnownFile { path: entry.path.clone(), mode, size: entry.size_in_bytes, local: path });
    }
    Ok(known)
}

/// For each entry, the file of a package of these spaces.
///
/// # Errors
/// When the database fails.
pub async fn lookup(
    context: &Context,
    spaces: &Visible,
    entries: &[ResourceEntry],
) -> DomainResult<Vec<Option<FileRow>>> {
    let keys: Vec<Option<(Vec<u8>, i64)>> = entries
        .iter()
        .map(|entry| {
            let sha1 = hex::decode(&entry.checksum.value).ok().filter(|sha1| sha1.len() == 20)?;
            Some((sha1, i64::try_from(entry.size_in_bytes).ok()?))
        })
        .collect();
    let (sha1s, sizes): (Vec<Vec<u8>>, Vec<i64>) = keys.iter().flatten().cloned().unzip();
    let rows = context.store.files_known(spaces, &sha1s, &sizes).await?;
    let mut found: HashMap<(Vec<u8>, i64), Option<FileRow>> = HashMap::new();
    for row in rows {
        let key = (row.sha1.clone(), row.size);
        // Two contents with one SHA-1: which of them is meant nobody can tell.
        found.entry(key).and_modify(|there| *there = None).or_insert(Some(row));
    }
    Ok(keys.into_iter().map(|key| found.get(&key?).cloned().flatten()).collect())
}

/// Copies a known file out of the store. Whether it is what its row says.
async fn copy_out(context: &Context, digest: &BlobDigest, path: &Path, row: &FileRow) -> DomainResult<bool> {
    let mut stream = context.blobs.read(digest, 0).await.map_err(blob)?;
    let io = |error| storing("copying a known file", error);
    let mut file = tokio::fs::File::create(path).await.map_err(io)?;
    let (mut hash, mut size) = (Sha1::new(), 0_u64);
    while let Some(chunk) = stream.try_next().await.map_err(blob)? {
        hash.update(&chunk);
        size += chunk.len() as u64;
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)?;
    let sha1 = hash.try_finalize();
    Ok(!sha1.has_collision() && sha1.hash()[..] == row.sha1[..] && i64::try_from(size) == Ok(row.size))
}

async fn remember(context: &Context, app: Uuid, checked: &CheckedPackage, mut rows: Vec<FileRow>) -> DomainResult<()> {
    let puts: Vec<_> = checked.remembered.iter().map(|file| put_known(context, file)).collect();
    let new: Vec<FileRow> = futures::stream::iter(puts).buffered(PUT_AT_ONCE).try_collect().await?;
    rows.extend(new);
    if let Some(app) = context.store.app_get(app).await?.filter(|_| !rows.is_empty()) {
        context.store.files_remember(app.space_guid, &rows).await?;
    }
    Ok(())
}

async fn put_known(context: &Context, file: &Remembered) -> DomainResult<FileRow> {
    let (digest, size) = context.blobs.put_file(&file.local).await.map_err(blob)?;
    Ok(FileRow { sha1: file.sha1.to_vec(), size: i64::try_from(size).unwrap_or(i64::MAX), blob: digest.to_vec() })
}
