//! Receiving multipart uploads: streamed to a file, bounded, hashed on the way.

use std::path::{Path, PathBuf};

use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartError};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use slipway_api_types::requests::ResourceEntry;
use tokio::io::AsyncWriteExt as _;

use super::body;
use super::error::{ApiError, ApiResult};

/// Largest `resources` field: 200,000 entries of a sensible size.
const MAX_RESOURCES: usize = 64 << 20;
/// The optional header that announces the SHA-256 of the `bits` part, in hex.
pub const DIGEST_HEADER: &str = "x-slipway-sha256";

/// The parts of an upload.
#[derive(Debug, Default)]
pub struct Parts {
    /// Files that were left out.
    pub resources: Vec<ResourceEntry>,
    /// The file, if it came.
    pub bits: Option<PathBuf>,
    /// Its own name.
    pub filename: Option<String>,
}

/// What of a form is received, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the file.
    pub bits: u64,
    /// Entries of `resources`; `None` when this upload has no such field.
    pub resources: Option<u64>,
}

/// Receives `resources` and `bits` (in any order) into `directory`. The SHA-256 that the header announces must be that
/// of the file. Other fields are read past.
///
/// # Errors
/// 400 when the form breaks off, is none, or has a part twice; 422 when it is larger than its bounds or does not have
/// the digest announced.
pub async fn receive(mut form: Multipart, directory: &Path, bounds: Bounds, headers: &HeaderMap) -> ApiResult<Parts> {
    let mut parts = Parts::default();
    let mut named = false;
    // One that is no text is none that could match.
    let digest = headers.get(DIGEST_HEADER).map(|value| value.to_str().unwrap_or_default());
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("resources") if bounds.resources.is_some() => {
                if std::mem::replace(&mut named, true) {
                    return Err(ApiError::bad_request("The form has the part 'resources' twice."));
                }
                let bytes = small(field).await?;
                if !bytes.iter().all(u8::is_ascii_whitespace) {
                    parts.resources = body::parse(&bytes)?;
                }
                let most = bounds.resources.unwrap_or_default();
                if parts.resources.len() as u64 > most {
                    return Err(ApiError::unprocessable(format!(
                        "The part 'resources' names {} files; this platform takes at most {most}.",
                        parts.resources.len()
                    )));
                }
            }
            Some("bits" | "buildpack") if parts.bits.is_none() => {
                parts.filename = field.file_name().map(ToOwned::to_owned);
                let path = directory.join("bits");
                let found = large(field, &path, bounds.bits).await?;
                check(digest, found)?;
                parts.bits = Some(path);
            }
            Some("bits" | "buildpack") => return Err(ApiError::bad_request("The form has the part 'bits' twice.")),
            _ => pass_over(field).await?,
        }
    }
    if parts.bits.is_none() && digest.is_some() {
        return Err(ApiError::unprocessable(format!("The header {DIGEST_HEADER} was sent, but no part 'bits'.")));
    }
    Ok(parts)
}

/// Reads a form to its end and forgets it: closing early makes clients see a broken connection, not the answer.
pub async fn drain(mut form: Multipart) {
    while let Ok(Some(mut field)) = form.next_field().await {
        while let Ok(Some(_)) = field.chunk().await {}
    }
}

fn check(announced: Option<&str>, found: [u8; 32]) -> ApiResult<()> {
    let found = hex::encode(found);
    match announced.map(str::trim) {
        Some(announced) if !announced.eq_ignore_ascii_case(&found) => Err(ApiError::unprocessable(format!(
            "The upload has the SHA-256 {found}, but {announced} was announced: it was damaged on the way; send it again."
        ))),
        _ => Ok(()),
    }
}

fn broken(error: MultipartError) -> ApiError {
    tracing::debug!(error = %error.body_text(), "an upload broke off");
    ApiError::bad_request(format!(
        "The upload broke off or is not a multipart form: {}. Send it again.",
        error.body_text()
    ))
}

/// Reads a field to its end and keeps nothing of it.
async fn pass_over(mut field: Field<'_>) -> ApiResult<()> {
    while field.chunk().await.map_err(broken)?.is_some() {}
    Ok(())
}

async fn small(mut field: Field<'_>) -> ApiResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > MAX_RESOURCES {
            return Err(ApiError::unprocessable(format!("A field of the form is larger than {MAX_RESOURCES} bytes.")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn large(mut field: Field<'_>, path: &Path, limit: u64) -> ApiResult<[u8; 32]> {
    let io = |error| ApiError::internal("receiving an upload", error);
    let mut file = tokio::io::BufWriter::with_capacity(1 << 18, tokio::fs::File::create(path).await.map_err(io)?);
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        size += chunk.len() as u64;
        // Received to the end all the same, so that the client reads the answer.
        if size <= limit {
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(io)?;
        }
    }
    if size > limit {
        return Err(ApiError::unprocessable(format!(
            "The upload has {size} bytes; this platform takes at most {limit}."
        )));
    }
    file.flush().await.map_err(io)?;
    Ok(hash.finalize().into())
}
