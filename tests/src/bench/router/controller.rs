//! A controller that knows one table and gives it to the router that comes.

use std::net::SocketAddr;

use anyhow::Context as _;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::router_command::Command;
use slipway_protocol::v1::router_control_server::{RouterControl, RouterControlServer};
use slipway_protocol::v1::router_message::Message;
use slipway_protocol::v1::{Hello, Pool, Route, RouterCommand, RouterMessage, TableSnapshot, Version};
use slipway_protocol::{ClusterAuthority, PeerIdentity, Role};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// The table, and who gives it.
#[derive(Clone)]
pub(super) struct OneTable {
    cluster: Uuid,
    id: Uuid,
    table: TableSnapshot,
}

impl OneTable {
    /// Serves until the runtime ends; returns where.
    pub(super) async fn serve(
        authority: &ClusterAuthority,
        cluster: Uuid,
        routes: Vec<Route>,
        pools: Vec<Pool>,
    ) -> anyhow::Result<SocketAddr> {
        let digest = SetDigest::of_table(&routes, &pools).to_bytes();
        let table = TableSnapshot { version: Some(Version::new(1, 1)), digest, routes, pools };
        let id = Uuid::new_v4();
        let tls = authority.issue(Role::Controller, id, &[])?.server_tls();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder()
            .tls_config(tls)?
            .add_service(RouterControlServer::new(Self { cluster, id, table }))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { server.await.context("the benchmark's controller has ended") });
        Ok(address)
    }

    fn answers(&self, message: RouterMessage) -> Vec<Command> {
        match message.message {
            Some(Message::Hello(hello)) => {
                let own =
                    Hello { cluster_id: self.cluster.to_string(), node_id: self.id.to_string(), ..Hello::default() };
                let table = (hello.digest != self.table.digest).then(|| Command::Snapshot(self.table.clone()));
                [Command::Hello(own)].into_iter().chain(table).collect()
            }
            Some(Message::Heartbeat(beat)) => vec![Command::Heartbeat(beat)],
            _ => Vec::new(),
        }
    }
}

#[tonic::async_trait]
impl RouterControl for OneTable {
    type SessionStream = ReceiverStream<Result<RouterCommand, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<RouterMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        PeerIdentity::of_request(&request, Role::Router)?;
        let (me, mut incoming) = (self.clone(), request.into_inner());
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                for command in me.answers(message) {
                    if sender.send(Ok(RouterCommand { command: Some(command) })).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
