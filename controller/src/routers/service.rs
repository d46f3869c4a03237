//! The gRPC service of routers. Only a router's certificate opens it.

use std::sync::Arc;

use slipway_protocol::Role;
use slipway_protocol::v1;
use slipway_protocol::v1::router_control_server::RouterControl;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::hub::RouterHub;
use super::publisher::Tables;
use super::session;
use crate::sessions::SessionDeps;
use crate::sessions::peer::Peer;

/// What all sessions share.
pub struct RouterServiceDeps {
    /// With those of cells.
    pub common: Arc<SessionDeps>,
    /// Who is here.
    pub hub: Arc<RouterHub>,
    /// What is published.
    pub tables: Arc<Tables>,
}

/// See the module.
#[derive(Clone)]
pub struct RouterService(pub Arc<RouterServiceDeps>);

#[tonic::async_trait]
impl RouterControl for RouterService {
    type SessionStream = ReceiverStream<Result<v1::RouterCommand, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::RouterMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = Peer::of(&request, Role::Router, self.0.common.context.config.cluster_id)?;
        let (out, commands) = mpsc::channel(64);
        let parts = Arc::clone(&self.0);
        let tracked = parts.common.shutdown.clone();
        tracked.spawn(session::run(parts, peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(commands)))
    }
}
