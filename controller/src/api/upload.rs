//! Receiving uploads: one of few at a time, streamed to a file, bounded, hashed on the way.

use std::path::{Path, PathBuf};

use axum::extract::Request;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use sha2::{Digest as _, Sha256};
use slipway_api_types::requests::ResourceEntry;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::body;
use super::error::{ApiError, ApiResult};
use super::form::{Form, Part};
use crate::admission::UploadPermit;
use crate::blobs::storing;
use crate::context::Context;
use crate::domain::packages::upload::receiving_directory;

/// Largest `resources` field. Clients name what the platform said that it has: some thousand files at the most.
const MAX_RESOURCES: usize = 8 << 20;
/// How often the disk is looked at while a file comes, bytes.
const LOOK_EVERY: u64 = 8 << 20;
/// The optional header that announces the SHA-256 of the `bits` part, in hex.
pub const DIGEST_HEADER: &str = "x-slipway-sha256";

/// The parts of an upload.
#[derive(Debug)]
pub struct Parts {
    /// Among those who upload, until everything is done.
    pub permit: UploadPermit,
    /// Where the file is; removed when this is dropped.
    pub directory: TempDir,
    /// The file, if it came.
    pub bits: Option<PathBuf>,
    /// Its own name.
    pub filename: Option<String>,
    resources: Vec<u8>,
    most_resources: u64,
}

/// What of a form is received, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the file.
    pub bits: u64,
    /// Entries of `resources`; `None` when this upload has no such field.
    pub resources: Option<u64>,
}

impl Parts {
    /// Files that were left out. Parsed when it is this upload's turn to be judged: it takes several times the bytes.
    ///
    /// # Errors
    /// 400 or 422 when it is not what is wanted, or too much of it.
    pub fn resources(&mut self) -> ApiResult<Vec<ResourceEntry>> {
        let bytes = std::mem::take(&mut self.resources);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Vec::new());
        }
        let resources: Vec<ResourceEntry> = body::parse(&bytes)?;
        if resources.len() as u64 > self.most_resources {
            return Err(ApiError::unprocessable(format!(
                "The part 'resources' names {} files; this platform takes at most {}.",
                resources.len(),
                self.most_resources
            )));
        }
        Ok(resources)
    }
}

/// Receives `resources` and `bits` (in any order), as soon as this organization may upload. The file must have the SHA-256
/// that the header announces. Other fields are ignored.
///
/// # Errors
/// 400 when the form is truncated, is not a form, or has a part twice; 422 when it is larger than its bounds or does not have
/// the digest announced; 503 when too many upload; 507 when the disk is full up to its reserve.
pub async fn receive(context: &Context, org: Uuid, bounds: Bounds, request: Request) -> ApiResult<Parts> {
    let room = |bytes| context.blobs.room(bytes).map_err(|full| ApiError::from(crate::domain::DomainError::from(full)));
    room(announced(request.headers()).min(bounds.bits))?;
    let permit = context.uploads.permit(org).await?;
    let directory = receiving_directory(context)?;
    // A header that is not text matches no digest.
    let digest = request.headers().get(DIGEST_HEADER).map(|value| value.to_str().unwrap_or_default().trim().to_owned());
    let mut form = Form::of(request, bounds.bits).await?;
    let most_resources = bounds.resources.unwrap_or_default();
    let mut parts = Parts { permit, directory, bits: None, filename: None, resources: Vec::new(), most_resources };
    let mut named = false;
    while let Some(mut part) = form.next().await? {
        match part.name() {
            Some("resources") if bounds.resources.is_some() => {
                if std::mem::replace(&mut named, true) {
                    return Err(ApiError::bad_request("The form has the part 'resources' twice."));
                }
                parts.resources = small(part).await?;
            }
            Some("bits" | "buildpack") if parts.bits.is_none() => {
                parts.filename = part.file_name();
                let path = parts.directory.path().join("bits");
                let found = large(part, &path, bounds.bits, &room).await?;
                check(digest.as_deref(), found)?;
                parts.bits = Some(path);
            }
            Some("bits" | "buildpack") => return Err(ApiError::bad_request("The form has the part 'bits' twice.")),
            _ => while part.chunk().await?.is_some() {},
        }
    }
    if parts.bits.is_none() && digest.is_some() {
        return Err(ApiError::unprocessable(format!("The header {DIGEST_HEADER} was sent, but no part 'bits'.")));
    }
    Ok(parts)
}

/// How much a client says that it sends; nothing when it does not say.
fn announced(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

fn check(announced: Option<&str>, found: [u8; 32]) -> ApiResult<()> {
    let found = hex::encode(found);
    match announced {
        Some(announced) if !announced.eq_ignore_ascii_case(&found) => Err(ApiError::unprocessable(format!(
            "The upload has the SHA-256 {found}, but {announced} was announced: it was damaged on the way; send it again."
        ))),
        _ => Ok(()),
    }
}

async fn small(mut part: Part<'_>) -> ApiResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await? {
        if bytes.len() + chunk.len() > MAX_RESOURCES {
            return Err(ApiError::unprocessable(format!(
                "The part 'resources' is larger than {MAX_RESOURCES} bytes; send the files themselves."
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn large(
    mut part: Part<'_>,
    path: &Path,
    limit: u64,
    room: &impl Fn(u64) -> ApiResult<()>,
) -> ApiResult<[u8; 32]> {
    let io = |error| ApiError::from(storing("receiving an upload", error));
    let mut file = tokio::io::BufWriter::with_capacity(1 << 18, tokio::fs::File::create(path).await.map_err(io)?);
    let mut hash = Sha256::new();
    let (mut size, mut looked) = (0_u64, 0_u64);
    while let Some(chunk) = part.chunk().await? {
        size += chunk.len() as u64;
        if size > limit {
            return Err(ApiError::unprocessable(format!(
                "The upload is larger than {limit} bytes; this platform takes at most {limit}."
            )));
        }
        if size - looked >= LOOK_EVERY {
            looked = size;
            room(0)?;
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)?;
    Ok(hash.finalize().into())
}
