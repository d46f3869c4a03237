//! A controller for tests: real mutual TLS, real gRPC; sets and specs are what the test says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slipway_protocol::digest::{SetDigest, sha256};
use slipway_protocol::v1::blobs_server::{Blobs, BlobsServer};
use slipway_protocol::v1::cell_command::Command;
use slipway_protocol::v1::cell_control_server::{CellControl, CellControlServer};
use slipway_protocol::v1::cell_message::Message;
use slipway_protocol::v1::{
    Assignment, AssignmentSet, BlobChunk, BlobInfo, BlobRequest, CellCommand, CellMessage, EgressPolicy,
    EgressPolicyBody, EgressRule, Heartbeat, Hello, Members, Observation, ObservationsAck, Purge, Reporter, SpecBody,
    SpecReply, SpecRequest, Version, WorkloadSpec,
};
use slipway_protocol::{ClusterAuthority, PeerIdentity, Role};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

#[derive(Default)]
struct State {
    cluster: String,
    specs: BTreeMap<Bytes, Bytes>,
    blobs: BTreeMap<Bytes, Bytes>,
    set: AssignmentSet,
    seen: Vec<Observation>,
    applied: Option<Version>,
    acknowledge: bool,
    fetched: Vec<Bytes>,
    withheld: Vec<Bytes>,
    uploaded: Vec<Bytes>,
    policies: Vec<EgressPolicyBody>,
    purged: Vec<String>,
}

/// As a controller does: a cell gives up one that says nothing.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone)]
pub(crate) struct FakeController {
    state: Arc<Mutex<State>>,
    commands: broadcast::Sender<Command>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for FakeController {
    fn drop(&mut self) {
        // Clones inside the server do not keep it alive: the test's own is the last but those.
        if Arc::strong_count(&self.state) <= 3 {
            self.stop.cancel();
        }
    }
}

impl FakeController {
    /// Starts one.
    pub(crate) async fn start(authority: &ClusterAuthority, cluster: Uuid) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let credentials = authority.issue(Role::Controller, Uuid::new_v4(), &[]).expect("credentials");
        let version = Some(Version::new(1, 1));
        let set = AssignmentSet {
            version,
            digest: SetDigest::default().to_bytes(),
            assignments: Vec::new(),
            policies: Vec::new(),
        };
        let state = State { cluster: cluster.to_string(), set, acknowledge: true, ..State::default() };
        let stop = CancellationToken::new();
        let controller = Self {
            state: Arc::new(Mutex::new(state)),
            commands: broadcast::channel(64).0,
            address,
            stop: stop.clone(),
        };
        let server = tonic::transport::Server::builder()
            .tls_config(credentials.server_tls())
            .expect("tls")
            .add_service(CellControlServer::new(controller.clone()))
            .add_service(BlobsServer::new(controller.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.cancelled().await });
        tokio::spawn(server);
        controller
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a blob available.
    pub(crate) fn put_blob(&self, bytes: Vec<u8>) -> Bytes {
        let digest = Bytes::copy_from_slice(&sha256(&bytes));
        self.state().blobs.insert(digest.clone(), bytes.into());
        digest
    }

    /// Serves other bytes under a digest.
    pub(crate) fn damage_blob(&self, digest: &Bytes) {
        self.state().blobs.insert(digest.clone(), Bytes::from_static(b"damaged on its way"));
    }

    /// Answers from now on as a controller does that cannot reach its object store.
    pub(crate) fn withhold_blob(&self, digest: &Bytes) {
        self.state().withheld.push(digest.clone());
    }

    /// Makes a spec available.
    pub(crate) fn put_spec(&self, spec: &WorkloadSpec) -> Bytes {
        let body: Bytes = spec.encode_to_vec().into();
        let digest = Bytes::copy_from_slice(&sha256(&body));
        self.state().specs.insert(digest.clone(), body);
        digest
    }

    /// Does not know a spec any more.
    pub(crate) fn forget_spec(&self, digest: &Bytes) {
        self.state().specs.remove(digest);
    }

    /// Sends a policy with every set from now on.
    pub(crate) fn put_policy(&self, destination: &str) -> Bytes {
        let rule = EgressRule { protocol: "all".into(), destination: destination.into(), ..EgressRule::default() };
        let body: Bytes = EgressPolicy { rules: vec![rule] }.encode_to_vec().into();
        let id = Bytes::copy_from_slice(&sha256(&body));
        self.state().policies.push(EgressPolicyBody { id: id.clone(), body });
        id
    }

    /// A new set, at the next sequence number.
    pub(crate) fn desire(&self, assignments: Vec<Assignment>) -> Version {
        let seq = self.state().set.version.unwrap_or_default().seq + 1;
        self.desire_at(Version::new(1, seq), assignments);
        Version::new(1, seq)
    }

    /// A new set, at this version.
    pub(crate) fn desire_at(&self, version: Version, assignments: Vec<Assignment>) {
        let digest = SetDigest::of_assignments(&assignments).to_bytes();
        let policies = self.state().policies.clone();
        let set = AssignmentSet { version: Some(version), digest, assignments, policies };
        self.state().set = set.clone();
        // Without a session the next one gets it.
        self.commands.send(Command::Set(set)).ok();
    }

    /// A new set, at this sequence number.
    pub(crate) fn desire_at_next(&self, assignments: Vec<Assignment>, seq: u64) -> Version {
        self.desire_at(Version::new(1, seq), assignments);
        Version::new(1, seq)
    }

    /// Tells the cells of now where members are.
    pub(crate) fn tell_members(&self, members: Members) {
        self.commands.send(Command::Members(members)).ok();
    }

    /// Tells the cell to forget, and each later session as well.
    pub(crate) fn purge(&self, id: &str) {
        self.state().purged.push(id.to_owned());
        self.commands.send(Command::Purge(Purge { assignment_ids: vec![id.to_owned()] })).ok();
    }

    /// Whether observations are acknowledged; those that wait are, when it is switched on.
    pub(crate) fn acknowledge(&self, acknowledge: bool) {
        let last = {
            let mut state = self.state();
            state.acknowledge = acknowledge;
            state.seen.iter().map(|observation| observation.counter).max().unwrap_or(0)
        };
        if acknowledge {
            self.commands.send(Command::Ack(ObservationsAck { counter: last })).ok();
        }
    }

    /// Everything that was observed, in the order of arrival.
    pub(crate) fn seen(&self) -> Vec<Observation> {
        self.state().seen.clone()
    }

    /// Forgets what was observed.
    pub(crate) fn forget_seen(&self) {
        self.state().seen.clear();
    }

    /// The version that the cell has in force.
    pub(crate) fn applied(&self) -> Option<Version> {
        self.state().applied
    }

    /// How often a blob was asked for.
    pub(crate) fn fetches(&self, digest: &Bytes) -> usize {
        self.state().fetched.iter().filter(|other| *other == digest).count()
    }

    /// A blob that a cell uploaded or the test put.
    pub(crate) fn has_blob(&self, digest: &Bytes) -> bool {
        self.state().blobs.contains_key(digest)
    }

    /// How often a blob was uploaded.
    pub(crate) fn uploads(&self, digest: &Bytes) -> usize {
        self.state().uploaded.iter().filter(|other| *other == digest).count()
    }

    fn hear(&self, message: Message) -> Option<Command> {
        let mut state = self.state();
        match message {
            Message::Observations(observations) => {
                let last = observations.observations.last()?.counter;
                state.seen.extend(observations.observations);
                return state.acknowledge.then_some(Command::Ack(ObservationsAck { counter: last }));
            }
            Message::Applied(applied) => state.applied = applied.version,
            // Of a session that begins later: what was applied meanwhile is not told again.
            Message::Hello(hello) => state.applied = hello.version,
            _ => {}
        }
        None
    }
}

#[tonic::async_trait]
impl CellControl for FakeController {
    type SessionStream = ReceiverStream<Result<CellCommand, Status>>;

    async fn session(&self, request: Request<Streaming<CellMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        PeerIdentity::of_request(&request, Role::Cell)?;
        let mut messages = request.into_inner();
        let (send, receive) = tokio::sync::mpsc::channel(64);
        let mut commands = self.commands.subscribe();
        let controller = self.clone();
        tokio::spawn(async move {
            let wrap = |command| Ok(CellCommand { command: Some(command) });
            let Some(Ok(CellMessage { message: Some(hello @ Message::Hello(_)) })) = messages.next().await else {
                return;
            };
            controller.hear(hello);
            let (set, cluster_id, assignment_ids) = {
                let state = controller.state();
                (state.set.clone(), state.cluster.clone(), state.purged.clone())
            };
            let hello = Hello { cluster_id, ..Hello::default() };
            let purge = Purge { assignment_ids };
            let reporter = Reporter { report_here: true };
            for command in
                [Command::Hello(hello), Command::Set(set), Command::Purge(purge), Command::Reporter(reporter)]
            {
                if send.send(wrap(command)).await.is_err() {
                    return;
                }
            }
            let mut beats = tokio::time::interval(HEARTBEAT);
            loop {
                let command = tokio::select! {
                    _ = beats.tick() => Some(Command::Heartbeat(Heartbeat::default())),
                    message = messages.next() => match message {
                        Some(Ok(CellMessage { message: Some(message) })) => controller.hear(message),
                        Some(Ok(_)) => None,
                        _ => return,
                    },
                    Ok(command) = commands.recv() => Some(command),
                    () = controller.stop.cancelled() => return,
                };
                if let Some(command) = command
                    && send.send(wrap(command)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn get_specs(&self, request: Request<SpecRequest>) -> Result<Response<SpecReply>, Status> {
        let state = self.state();
        let specs = request.into_inner().digests.into_iter().filter_map(|digest| {
            let body = state.specs.get(&digest)?.clone();
            Some(SpecBody { digest, body })
        });
        Ok(Response::new(SpecReply { specs: specs.collect() }))
    }
}

#[tonic::async_trait]
impl Blobs for FakeController {
    type GetStream = ReceiverStream<Result<BlobChunk, Status>>;

    async fn get(&self, request: Request<BlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        let BlobRequest { digest, offset } = request.into_inner();
        self.state().fetched.push(digest.clone());
        if self.state().withheld.contains(&digest) {
            return Err(Status::unavailable("not now"));
        }
        let blob = self.state().blobs.get(&digest).cloned();
        let blob = blob.ok_or_else(|| Status::not_found("no such blob"))?;
        let rest = blob.slice(usize::try_from(offset).unwrap_or(usize::MAX).min(blob.len())..);
        let (send, receive) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            for data in rest.chunks(256 << 10) {
                if send.send(Ok(BlobChunk { data: rest.slice_ref(data) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn put(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<BlobInfo>, Status> {
        let mut stream = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await? {
            bytes.extend_from_slice(&chunk.data);
        }
        let size = bytes.len() as u64;
        let digest = self.put_blob(bytes);
        self.state().uploaded.push(digest.clone());
        Ok(Response::new(BlobInfo { digest, size }))
    }
}
