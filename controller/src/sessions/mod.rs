//! What the sessions of cells and of routers share.
//!
//! * [`hello`]: the first message of both sides, and what follows when a peer has seen more than the database.
//! * `peer`: who speaks, and which addresses are believed of it.

pub(crate) mod hello;
pub(crate) mod peer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipway_chassis::{Shutdown, chain};
use slipway_placement::{PlacementError, PlacementStore};
use slipway_protocol::v1;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use uuid::Uuid;

use crate::cells::hub::CellHub;
use crate::cells::queries::Directory;
use crate::context::Context;

/// The first message must come within this time.
const FIRST: Duration = Duration::from_secs(10);
/// How long a peer may not read.
const STUCK: Duration = Duration::from_secs(10);

/// What all sessions share, whoever they are with.
pub struct SessionDeps {
    /// Of this controller.
    pub context: Context,
    /// Of this start of the controller.
    pub session: Uuid,
    /// Cells, assignments, versions.
    pub placement: Arc<dyn PlacementStore>,
    /// Which cells are here.
    pub cells: Arc<CellHub>,
    /// Whom to ask for logs.
    pub directory: Arc<Directory>,
    /// Ends all sessions.
    pub shutdown: Shutdown,
}

/// The first message of a peer, which must come soon.
///
/// # Errors
/// [`Status`] `deadline_exceeded`, or why the stream broke.
pub(crate) async fn first_message<M>(stream: &mut Streaming<M>) -> Result<Option<M>, Status> {
    tokio::time::timeout(FIRST, stream.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no hello came within {} s", FIRST.as_secs())))?
}

/// Sends a command to a `peer` ("cell", "router").
///
/// # Errors
/// [`Status`] when it went away or does not read.
pub(crate) async fn send<C>(out: &mpsc::Sender<Result<C, Status>>, command: C, peer: &str) -> Result<(), Status> {
    match tokio::time::timeout(STUCK, out.send(Ok(command))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled(format!("the {peer} went away"))),
        Err(_) => Err(Status::deadline_exceeded(format!("the {peer} did not read for {} s", STUCK.as_secs()))),
    }
}

/// What a peer is told when the store did not answer.
pub(crate) fn unavailable(error: PlacementError) -> Status {
    tracing::warn!(error = %chain(&error), "the placement store does not answer");
    Status::unavailable("the database does not answer; try again")
}

impl SessionDeps {
    /// This controller's hello, which says what it stands at.
    pub(crate) fn hello(&self, version: v1::Version, digest: Bytes) -> v1::Hello {
        let config = &self.context.config;
        v1::Hello {
            cluster_id: config.cluster_id.to_string(),
            node_id: config.id.to_string(),
            version: Some(version),
            digest,
            session: self.session.to_string(),
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::Hello::default()
        }
    }
}
