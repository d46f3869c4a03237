//! From a received upload to a buildpack that builds can use.
//!
//! An upload that is not a buildpack does not fail its request, which has been accepted already: the upload's job fails with
//! the reason.

use std::path::{Path, PathBuf};

use serde_json::json;
use slipway_api_types::ErrorCode;
use tempfile::TempDir;
use uuid::Uuid;

use super::archive::{self, ArchiveError, ArchiveLimits, Scratch};
use super::buildpack_archive::{self, BuildpackArchiveError, BuildpackFacts};
use crate::blobs::BlobError;
use crate::context::Context;
use crate::domain::audit::AuditSubject;
use crate::domain::buildpacks::{check_unlocked, lock, record_tx};
use crate::domain::constraints::violates;
use crate::domain::{DomainError, DomainResult};
use crate::store::buildpacks::{BuildpackRow, buildpack_uploaded_tx};
use crate::store::done_jobs::{job_done_tx, job_refused_tx};

const OPERATION: &str = "buildpack.upload";
const RESOURCE: &str = "buildpack";

/// What was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// Removed when this is dropped.
    pub(crate) directory: TempDir,
    /// The zip, if one came.
    pub(crate) bits: Option<PathBuf>,
    /// Its own name.
    pub(crate) filename: Option<String>,
}

/// Judges what was received and gives it to the buildpack. Gives the buildpack as it is then, and the job that tells how it
/// ended.
///
/// # Errors
/// [`DomainError::Invalid`] without bits, or when the buildpack is locked; [`DomainError::NotFound`] when it is gone; our
/// own faults.
pub(crate) async fn finish(
    context: &Context,
    actor: &AuditSubject,
    row: BuildpackRow,
    received: Received,
) -> DomainResult<(BuildpackRow, Uuid)> {
    let bits = received.bits.ok_or_else(|| DomainError::invalid("A buildpack zip file must be uploaded as 'bits'"))?;
    let limits = &context.config.limits;
    let limits = ArchiveLimits { unpacked_bytes: limits.max_package_unpacked_bytes, files: limits.max_package_files };
    let (path, scratch) = (bits.clone(), received.directory.path().to_owned());
    let checked = tokio::task::spawn_blocking(move || check_package(&path, limits, &scratch))
        .await
        .map_err(|error| DomainError::internal("judging a buildpack", error))?;
    let filename = received.filename.unwrap_or_else(|| "buildpack.zip".to_owned());
    let work = Uploaded { bits: &bits, filename: &filename };
    match checked {
        Ok(facts) => keep(context, actor, &row, work, facts).await,
        Err(refusal) => refused(context, actor, row, refusal).await,
    }
}

/// Why a job ends badly: clients tell these apart by their codes.
struct Refusal {
    code: ErrorCode,
    detail: String,
}

struct Uploaded<'a> {
    bits: &'a Path,
    filename: &'a str,
}

/// Whether an upload is a buildpack. Blocking.
fn check_package(path: &Path, limits: ArchiveLimits, scratch: &Path) -> Result<BuildpackFacts, Refusal> {
    archive::check_package(Some(path), &[], limits, Scratch { directory: scratch, remember: false, reserve: None })
        .map_err(|error| match error {
            ArchiveError::NotZip(text) => {
                Refusal { code: ErrorCode::BuildpackZipError, detail: format!("Buildpack zip error: {text}") }
            }
            error => Refusal { code: ErrorCode::BuildpackInvalid, detail: format!("Buildpack is invalid: {error}") },
        })?;
    buildpack_archive::facts(path, limits.files).map_err(|error| match error {
        BuildpackArchiveError::Unreadable(text) => {
            Refusal { code: ErrorCode::BuildpackZipError, detail: format!("Buildpack zip error: {text}") }
        }
        error => Refusal { code: ErrorCode::BuildpackInvalid, detail: format!("Buildpack is invalid: {error}") },
    })
}

/// The stack that an archive says it is for: no other than the buildpack has.
fn stack_of(row: &BuildpackRow, facts: &BuildpackFacts) -> Result<Option<String>, Refusal> {
    match (&row.stack, &facts.stack) {
        (Some(own), Some(other)) if own != other => Err(Refusal {
            code: ErrorCode::BuildpackStacksDontMatch,
            detail: format!("Uploaded buildpack stack ({other}) does not match {own}"),
        }),
        (own, other) => Ok(other.clone().or_else(|| own.clone())),
    }
}

async fn keep(
    context: &Context,
    actor: &AuditSubject,
    row: &BuildpackRow,
    uploaded: Uploaded<'_>,
    facts: BuildpackFacts,
) -> DomainResult<(BuildpackRow, Uuid)> {
    if let Err(refusal) = stack_of(row, &facts) {
        return refused(context, actor, row.clone(), refusal).await;
    }
    if let Some(stack) = &facts.stack
        && !context.store.stack_exists(stack).await?
    {
        let detail = format!("Uploaded buildpack stack ({stack}) does not exist");
        let refusal = Refusal { code: ErrorCode::BuildpackStackDoesNotExist, detail };
        return refused(context, actor, row.clone(), refusal).await;
    }
    let stored = |error: BlobError| error.while_doing("storing a buildpack");
    let file = context.blobs.digest(uploaded.bits).await.map_err(stored)?;
    context.blobs.room(file.size).map_err(|full| stored(full.into()))?;
    context.blobs.put_digested(&file).await.map_err(stored)?;
    let (digest, size) = (file.digest, file.size);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let mut tx = context.store.begin().await?;
    // It may have been changed while the upload came.
    let row = lock(&mut tx, row.guid).await?;
    check_unlocked(&row)?;
    let stack = match stack_of(&row, &facts) {
        Ok(stack) => stack,
        Err(refusal) => {
            drop(tx);
            return refused(context, actor, row, refusal).await;
        }
    };
    let updated = buildpack_uploaded_tx(&mut tx, row.guid, &digest, size, uploaded.filename, stack.as_deref()).await;
    let updated = match updated {
        Ok(updated) => updated,
        Err(error) if violates(&error, "buildpack_name_key") => {
            drop(tx);
            let detail = format!(
                "The buildpack name {} is already in use for the stack {} and the lifecycle {}",
                row.name,
                stack.unwrap_or_default(),
                row.lifecycle
            );
            let refusal = Refusal { code: ErrorCode::BuildpackNameStackLifecycleTaken, detail };
            return refused(context, actor, row, refusal).await;
        }
        Err(error) => return Err(error.into()),
    };
    let job = job_done_tx(&mut tx, OPERATION, RESOURCE, row.guid, &json!([]), &actor.guid).await?;
    record_tx(&mut tx, "audit.buildpack.upload", actor, &row, json!({ "filename": uploaded.filename })).await?;
    tx.commit().await?;
    if let Some(old) = row.blob.as_ref().filter(|old| **old != digest) {
        context.blobs.remove_unused(std::slice::from_ref(old)).await;
    }
    Ok((updated, job))
}

async fn refused(
    context: &Context,
    actor: &AuditSubject,
    row: BuildpackRow,
    refusal: Refusal,
) -> DomainResult<(BuildpackRow, Uuid)> {
    let errors = json!([refusal.code.entry(refusal.detail)]);
    let mut connection = context.store.pool().acquire().await?;
    let job = job_refused_tx(&mut connection, OPERATION, RESOURCE, row.guid, &errors, &actor.guid).await?;
    Ok((row, job))
}
