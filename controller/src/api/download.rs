//! Blobs as answers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};

use super::error::{ApiError, ApiResult};
use crate::blobs::{BlobDigest, BlobError};
use crate::context::Context;
use crate::gzip;

/// Streams a Zstandard blob as gzip. How long that will be is not known before it is made, so there is no
/// `Content-Length`: the end is told by the transfer, and one that fails half-way is seen to.
///
/// # Errors
/// When it is not in the object store.
pub async fn as_gzip(context: &Context, digest: &[u8], kind: &'static str, name: &str) -> ApiResult<Response> {
    let stream = gzip::from_zstd(read(context, digest).await?);
    answer(None, kind, name, Body::from_stream(stream))
}

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
    answer(size, kind, name, Body::from_stream(read(context, digest).await?))
}

async fn read(context: &Context, digest: &[u8]) -> ApiResult<BoxStream<'static, Result<Bytes, BlobError>>> {
    let digest = BlobDigest::try_from(digest).map_err(|error| ApiError::internal("reading a digest", error))?;
    context.blobs.read(&digest, 0).await.map_err(|error| ApiError::internal("reading a blob", error))
}

fn answer(size: Option<i64>, kind: &'static str, name: &str, body: Body) -> ApiResult<Response> {
    let mut response = Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
    if let Some(size) = size {
        response = response.header(CONTENT_LENGTH, size);
    }
    response.body(body).map_err(|error| ApiError::internal("answering with a blob", error))
}
