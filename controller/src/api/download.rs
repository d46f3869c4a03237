//! Blobs as answers.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};

use super::error::{ApiError, ApiResult};
use crate::blobs::BlobDigest;
use crate::context::Context;

/// Streams a blob. No `Content-Encoding`: clients would save it unpacked.
///
/// # Errors
/// When it is not in the object store.
pub async fn blob(
    context: &Context,
    digest: &[u8],
    size: Option<i64>,
    kind: &'static str,
    name: &str,
) -> ApiResult<Response> {
    let digest = BlobDigest::try_from(digest).map_err(|error| ApiError::internal("reading a digest", error))?;
    let stream = context.blobs.read(&digest, 0).await.map_err(|error| ApiError::internal("reading a blob", error))?;
    let mut response = Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
    if let Some(size) = size {
        response = response.header(CONTENT_LENGTH, size);
    }
    response.body(Body::from_stream(stream)).map_err(|error| ApiError::internal("answering with a blob", error))
}
