//! The gRPC service of cells. Only a cell's certificate opens it, and a cell sees only its own specs.

use std::sync::Arc;

use slipway_api_types::CellId;
use slipway_chassis::chain;
use slipway_protocol::Role;
use slipway_protocol::v1;
use slipway_protocol::v1::cell_control_server::CellControl;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::members::MembersWatch;
use super::recorder::Submission;
use super::session;
use crate::sessions::SessionDeps;
use crate::sessions::peer::{Peer, member};

/// Specs of one request: a cell's whole set at the most.
const MAX_SPECS: usize = 4_096;
/// Of one answer: half of the largest message.
const MAX_SPEC_BYTES: usize = 32 << 20;

/// What all sessions of cells share.
pub struct CellServiceDeps {
    /// With those of routers.
    pub common: Arc<SessionDeps>,
    /// Observations go here.
    pub recorder: mpsc::Sender<Submission>,
    /// The planner's term while this controller plans: cells report to it.
    pub leading: watch::Receiver<Option<i64>>,
    /// Where members are.
    pub(crate) members: MembersWatch,
}

/// See the module.
#[derive(Clone)]
pub struct CellService(pub Arc<CellServiceDeps>);

#[tonic::async_trait]
impl CellControl for CellService {
    type SessionStream = ReceiverStream<Result<v1::CellCommand, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::CellMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = Peer::of(&request, Role::Cell, self.0.common.context.config.cluster_id)?;
        let (out, commands) = mpsc::channel(64);
        let parts = Arc::clone(&self.0);
        let tracked = parts.common.shutdown.clone();
        tracked.spawn(session::run(parts, peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(commands)))
    }

    async fn get_specs(&self, request: Request<v1::SpecRequest>) -> Result<Response<v1::SpecReply>, Status> {
        let cell = CellId(member(&request, Role::Cell, self.0.common.context.config.cluster_id)?);
        let digests: Vec<Vec<u8>> = request.into_inner().digests.into_iter().map(|digest| digest.to_vec()).collect();
        if digests.len() > MAX_SPECS {
            return Err(Status::invalid_argument(format!(
                "{} specs in one request; ask for at most {MAX_SPECS}",
                digests.len()
            )));
        }
        let context = &self.0.common.context;
        let rows = context.store.specs_of_cell(cell, &digests).await.map_err(|error| {
            tracing::warn!(error = %chain(&error), "specs cannot be read");
            Status::unavailable("the database does not answer; ask again")
        })?;
        let mut specs = Vec::with_capacity(rows.len());
        let mut size = 0;
        for (digest, sealed) in rows {
            size += sealed.len();
            // The rest is asked for again: with many bindings as files an answer would outgrow a message.
            if size > MAX_SPEC_BYTES && !specs.is_empty() {
                break;
            }
            match context.vault.open(&format!("spec/{}", hex::encode(&digest)), &sealed) {
                Ok(body) => specs.push(v1::SpecBody { digest: digest.into(), body: body.into() }),
                // Missing from the answer: the cell refuses that assignment and says so.
                Err(error) => tracing::error!(error = %chain(&error), "a spec cannot be opened"),
            }
        }
        Ok(Response::new(v1::SpecReply { specs }))
    }
}
