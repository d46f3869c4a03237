//! Blobs for cells, by content. An upload that is cut off leaves nothing.

use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use slipway_chassis::chain;
use slipway_protocol::Role;
use slipway_protocol::v1::blobs_server::Blobs;
use slipway_protocol::v1::{BlobChunk, BlobInfo, BlobRequest};
use tokio::io::AsyncWriteExt as _;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::blobs::{BlobDigest, BlobError, BlobStore};
use crate::reserve::ReserveReached;
use crate::sessions::peer::member;
use crate::store::Store;
use crate::store::blobs::blob_is_open_to;

/// Bytes of one message.
const CHUNK: usize = 256 * 1024;
/// How often the disk is looked at while an upload comes, bytes.
const LOOK_EVERY: u64 = 8 << 20;

/// The service.
#[derive(Clone)]
pub struct BlobService {
    /// The object store.
    pub blobs: BlobStore,
    /// Says what is whose.
    pub store: Store,
    /// Of which cluster a cell must be.
    pub cluster: Uuid,
    /// Where uploads wait until they are whole; on the disk of the object store when that is local.
    pub scratch: PathBuf,
    /// Largest upload, bytes.
    pub most_bytes: u64,
}

#[tonic::async_trait]
impl Blobs for BlobService {
    type GetStream = BoxStream<'static, Result<BlobChunk, Status>>;

    async fn get(&self, request: Request<BlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        let cell = member(&request, Role::Cell, self.cluster)?;
        let request = request.into_inner();
        let digest = BlobDigest::try_from(&request.digest[..])
            .map_err(|_| Status::invalid_argument(format!("a digest of {} bytes; it has 32", request.digest.len())))?;
        let open = blob_is_open_to(&self.store, cell, &digest).await.map_err(|error| {
            tracing::warn!(error = %chain(&error), "whether a cell may have a blob cannot be read");
            Status::unavailable("the database does not answer; ask again")
        })?;
        if !open {
            tracing::warn!(cell.id = %cell, blob = hex::encode(digest), "a cell asked for a blob of apps that are not on it");
            return Err(Status::permission_denied("no assignment of this cell names that blob"));
        }
        let stream = self.blobs.read(&digest, request.offset).await.map_err(|error| failed(&digest, &error))?;
        let chunks = stream.flat_map(move |piece| {
            let pieces: Vec<Result<BlobChunk, Status>> = match piece {
                Ok(bytes) => split(bytes).map(|data| Ok(BlobChunk { data })).collect(),
                Err(error) => vec![Err(failed(&digest, &error))],
            };
            futures::stream::iter(pieces)
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn put(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<BlobInfo>, Status> {
        let cell = member(&request, Role::Cell, self.cluster)?;
        let mut stream = request.into_inner();
        let broken = |error: std::io::Error| {
            tracing::error!(error = %chain(&error), directory = %self.scratch.display(), "an upload cannot be kept");
            Status::resource_exhausted("the controller cannot keep the upload; see its log")
        };
        let full = |error: ReserveReached| {
            tracing::warn!(error = %chain(&error), cell.id = %cell, "an upload of a cell is refused");
            Status::resource_exhausted(error.to_string())
        };
        self.blobs.room(0).map_err(full)?;
        // Removed with the value, whatever ends this call.
        let file = tempfile::NamedTempFile::new_in(&self.scratch).map_err(broken)?;
        let mut writer = tokio::fs::File::from_std(file.reopen().map_err(broken)?);
        let (mut size, mut looked) = (0_u64, 0_u64);
        while let Some(chunk) = stream.message().await? {
            size = size.saturating_add(chunk.data.len() as u64);
            if size > self.most_bytes {
                return Err(Status::resource_exhausted(format!("the blob is larger than {} bytes", self.most_bytes)));
            }
            if size - looked >= LOOK_EVERY {
                looked = size;
                self.blobs.room(0).map_err(full)?;
            }
            writer.write_all(&chunk.data).await.map_err(broken)?;
        }
        writer.flush().await.map_err(broken)?;
        drop(writer);
        // It is copied once more.
        self.blobs.room(size).map_err(full)?;
        let (digest, size) = self.blobs.put_file(file.path()).await.map_err(|error| {
            tracing::error!(error = %chain(&error), "an upload cannot be stored");
            Status::unavailable("the object store does not answer; try again")
        })?;
        tracing::debug!(cell.id = %cell, blob = hex::encode(digest), bytes = size, "a cell uploaded a blob");
        Ok(Response::new(BlobInfo { digest: Bytes::copy_from_slice(&digest), size }))
    }
}

fn split(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    (0..bytes.len()).step_by(CHUNK).map(move |start| bytes.slice(start..bytes.len().min(start + CHUNK)))
}

fn failed(digest: &BlobDigest, error: &BlobError) -> Status {
    if let BlobError::Store(object_store::Error::NotFound { .. }) = error {
        return Status::not_found(format!("there is no blob {}", hex::encode(digest)));
    }
    tracing::warn!(blob = hex::encode(digest), error = %chain(error), "a blob cannot be read");
    Status::unavailable("the object store does not answer; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_whole() {
        let bytes = Bytes::from(vec![7; 2 * CHUNK + 5]);
        let sizes: Vec<usize> = split(bytes).map(|piece| piece.len()).collect();
        assert_eq!(sizes, [CHUNK, CHUNK, 5]);
    }
}
