//! The hello of a peer, checked, and what follows when it has seen more than the database.

use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::{self, Version};
use tonic::Status;
use uuid::Uuid;

use super::{SessionDeps, unavailable};

/// Cluster and id of a hello, against the certificate.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn check_hello(hello: &v1::Hello, cluster: Uuid, peer: Uuid) -> Result<(), Status> {
    if hello.cluster_id != cluster.to_string() {
        return Err(Status::failed_precondition(format!(
            "this is cluster {cluster}, the hello is for {:?}; check cluster_id and the list of controllers",
            hello.cluster_id
        )));
    }
    if hello.node_id != peer.to_string() {
        return Err(Status::permission_denied(format!(
            "the certificate is of {peer}, the hello of {:?}",
            hello.node_id
        )));
    }
    Ok(())
}

/// A digest of the wire; `None` when the peer holds nothing.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn digest_of(bytes: &[u8]) -> Result<Option<SetDigest>, Status> {
    match bytes {
        [] => Ok(None),
        bytes => bytes
            .try_into()
            .map(|digest| Some(SetDigest(digest)))
            .map_err(|_| Status::invalid_argument(format!("a digest of {} bytes; it has 32", bytes.len()))),
    }
}

/// By how much the epoch of a peer may be above the store's. Each restored backup raises it by one; a peer that shows more
/// is damaged or lies, and following it would use the numbers up.
const MAX_EPOCHS: u64 = 1_000;

/// A peer knows more than the store, or something else at the same version: a backup was restored, or a failover lost
/// commits. Running things are adopted under a higher epoch, nothing is stopped for it.
pub(crate) async fn raise_epoch(deps: &SessionDeps, shown: Version, peer: &str) -> Result<Version, Status> {
    let now = deps.placement.version().await.map_err(unavailable)?;
    if shown.epoch > now.epoch.saturating_add(MAX_EPOCHS) {
        tracing::error!(peer, shown = %shown, now = %now, "a peer shows an epoch that no store has reached; it is refused");
        return Err(Status::failed_precondition(format!(
            "epoch {} cannot be: the store is at {}. Remove this node's state directory, and start it again",
            shown.epoch, now.epoch
        )));
    }
    // Also at an equal version with another digest the store must end above it.
    let above = Version::new(shown.epoch, shown.seq.saturating_add(1));
    let version = deps.placement.epoch_raise(above).await.map_err(unavailable)?;
    tracing::error!(
        peer, shown = %shown, now = %version,
        "the database is older than what a peer has seen (a restored backup, or a failover that lost commits): the epoch was raised; running instances are adopted"
    );
    deps.context.wake.tail.wake();
    deps.cells.wake_all();
    Ok(version)
}
