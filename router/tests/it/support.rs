//! A cluster of one router, a controller that says what a test wants, and backends.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use slipway_chassis::Shutdown;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::router_command::Command;
use slipway_protocol::v1::router_control_server::{RouterControl, RouterControlServer};
use slipway_protocol::v1::router_message::Message;
use slipway_protocol::v1::{
    Hello, Pool, PoolEndpoint, Route, RouterAck, RouterCommand, RouterMessage, TableSnapshot, Version, WeightedPool,
};
use slipway_protocol::{ClusterAuthority, Credentials, PeerIdentity, Role};
use slipway_router::{Inherited, RouterConfig, RunError};
use slipway_test_support::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct RecordedMessages {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) acks: Vec<RouterAck>,
}

/// Speaks the router protocol; sends the current snapshot on each Hello whose digest differs, and what a test says.
#[derive(Clone)]
pub(crate) struct Controller {
    cluster: Uuid,
    id: Uuid,
    pub(crate) seen: Arc<Mutex<RecordedMessages>>,
    snapshot: Arc<Mutex<TableSnapshot>>,
    say: broadcast::Sender<Command>,
}

type Stream = ReceiverStream<Result<RouterCommand, tonic::Status>>;

#[tonic::async_trait]
impl RouterControl for Controller {
    type SessionStream = Stream;

    async fn session(
        &self,
        request: tonic::Request<tonic::Streaming<RouterMessage>>,
    ) -> Result<tonic::Response<Stream>, tonic::Status> {
        PeerIdentity::of_request(&request, Role::Router)?;
        let (me, mut incoming, mut say) = (self.clone(), request.into_inner(), self.say.subscribe());
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            let send = async |command| sender.send(Ok(RouterCommand { command: Some(command) })).await.is_ok();
            loop {
                tokio::select! {
                    Ok(command) = say.recv() => { send(command).await; }
                    message = incoming.message() => match message {
                        Ok(Some(RouterMessage { message: Some(Message::Hello(hello)) })) => {
                            let snapshot = me.snapshot.lock().expect("lock").clone();
                            let differs = hello.digest != snapshot.digest;
                            // What became durable between two sessions is told by the Hello alone.
                            let held = RouterAck { applied: hello.version, durable: hello.durable, ..RouterAck::default() };
                            me.seen.lock().expect("lock").acks.push(held);
                            me.seen.lock().expect("lock").hellos.push(hello);
                            let mine = Hello { cluster_id: me.cluster.to_string(), node_id: me.id.to_string(), ..Hello::default() };
                            send(Command::Hello(mine)).await;
                            if differs {
                                send(Command::Snapshot(snapshot)).await;
                            }
                        }
                        Ok(Some(RouterMessage { message: Some(Message::Heartbeat(beat)) })) => {
                            send(Command::Heartbeat(beat)).await;
                        }
                        Ok(Some(RouterMessage { message: Some(Message::Ack(ack)) })) => {
                            me.seen.lock().expect("lock").acks.push(ack);
                        }
                        Ok(Some(_)) => {}
                        _ => return,
                    }
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }
}

impl Controller {
    pub(crate) fn say(&self, command: Command) {
        self.say.send(command).expect("a session listens");
    }

    /// Puts a table in force and waits until the router says so, durably.
    pub(crate) async fn publish(&self, routes: Vec<Route>, pools: Vec<Pool>) {
        let seq = self.snapshot.lock().expect("lock").version.map_or(1, |version| version.seq + 1);
        let snapshot = snapshot(seq, routes, pools);
        *self.snapshot.lock().expect("lock") = snapshot.clone();
        // Without a session the next Hello brings it.
        let _ = self.say.send(Command::Snapshot(snapshot));
        self.acknowledged(Version::new(1, seq)).await;
    }

    pub(crate) async fn acknowledged(&self, version: Version) {
        eventually("durable acknowledgement", PATIENCE, async || {
            let seen = self.seen.lock().expect("lock");
            let last = seen.acks.last().cloned();
            match last {
                Some(ack) if ack.applied == Some(version) && ack.durable == Some(version) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

pub(crate) fn snapshot(seq: u64, routes: Vec<Route>, pools: Vec<Pool>) -> TableSnapshot {
    let digest = SetDigest::of_table(&routes, &pools).to_bytes();
    TableSnapshot { version: Some(Version::new(1, seq)), digest, routes, pools }
}

pub(crate) fn route(host: &str, pool: &str) -> Route {
    let targets = vec![WeightedPool { pool: pool.into(), weight: 0 }];
    Route { id: format!("route-{host}"), host: host.into(), targets, ..Route::default() }
}

pub(crate) fn pool(id: &str, addresses: &[SocketAddr]) -> Pool {
    let endpoint = |(index, address): (usize, &SocketAddr)| PoolEndpoint {
        assignment_id: format!("{id}-{index}"),
        index: index as u32,
        host: address.ip().to_string(),
        port: address.port().into(),
        ..PoolEndpoint::default()
    };
    let endpoints = addresses.iter().enumerate().map(endpoint).collect();
    Pool { id: id.into(), app_id: format!("app-{id}"), endpoints, ..Pool::default() }
}

/// A cluster; its controller can be stopped, its router started again.
pub(crate) struct Cluster {
    pub(crate) authority: ClusterAuthority,
    pub(crate) id: Uuid,
    pub(crate) router_id: Uuid,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) controller: Controller,
    pub(crate) controller_address: SocketAddr,
    controller_task: tokio::task::JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let id = Uuid::new_v4();
        let (authority, _) = ClusterAuthority::generate(id).expect("authority");
        let (controller_id, router_id) = (Uuid::new_v4(), Uuid::new_v4());
        let directory = tempfile::tempdir().expect("directory");
        let issue = |role, id| authority.issue(role, id, &[]).expect("credentials");
        issue(Role::Router, router_id).save(&directory.path().join("tls")).expect("save");
        let tls = issue(Role::Controller, controller_id).server_tls();
        let controller = Controller {
            cluster: id,
            id: controller_id,
            seen: Arc::default(),
            snapshot: Arc::default(),
            say: broadcast::channel(64).0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let controller_address = listener.local_addr().expect("address");
        let server = tonic::transport::Server::builder()
            .tls_config(tls)
            .expect("tls")
            .add_service(RouterControlServer::new(controller.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let controller_task = tokio::spawn(async move { server.await.expect("controller") });
        Self { authority, id, router_id, directory, controller, controller_address, controller_task }
    }

    pub(crate) fn stop_controller(&self) {
        self.controller_task.abort();
    }

    pub(crate) fn credentials(&self, role: Role) -> Credentials {
        self.authority.issue(role, Uuid::new_v4(), &[]).expect("credentials")
    }

    pub(crate) async fn router(&self) -> Router {
        self.router_with(|_| {}).await
    }

    /// A router whose configuration the test changes.
    pub(crate) async fn router_with(&self, change: impl FnOnce(&mut RouterConfig)) -> Router {
        self.router_passed(Inherited::none(), change).await
    }

    /// The same, with sockets that are open already.
    pub(crate) async fn router_passed(&self, passed: Inherited, change: impl FnOnce(&mut RouterConfig)) -> Router {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let at = |name: &str| self.directory.path().join(name);
        let (certificate, key) = self.authority.issue_web(&["app.test".to_owned()]).expect("web");
        std::fs::write(at("web.pem"), certificate).expect("write");
        std::fs::write(at("web.key"), key.expose()).expect("write");
        let ready = at("ready.json");
        let _ = std::fs::remove_file(&ready);
        let mut config = RouterConfig {
            id: self.router_id,
            cluster_id: self.id,
            zone: "z1".into(),
            http_listen: vec![any],
            https_listen: vec![any],
            certificate: Some(at("web.pem")),
            certificate_key: Some(at("web.key")),
            trusted_authorities: Some(at("tls").join("ca.pem")),
            route_service_networks: vec!["127.0.0.0/8".into(), "::1/128".into()],
            controllers: vec![self.controller_address],
            tls_directory: at("tls"),
            state_directory: at("state"),
            query_listen: any,
            admin_listen: any,
            cores: 2,
            max_header_bytes: 16 * 1024,
            // Far above what a test waits for: one that is about a limit sets it.
            response_timeout_s: 600,
            client_stall_timeout_s: 600,
            tunnel_idle_timeout_s: 600,
            max_connections: 0,
            max_connections_per_endpoint: 500,
            trusted_proxies: None,
            force_forwarded_proto_https: false,
            drain_delay_ms: 50,
            drain_timeout_s: 600,
            log_ring_bytes: 1 << 20,
            ready_file: Some(ready.clone()),
        };
        change(&mut config);
        let shutdown = Shutdown::new();
        let task = tokio::spawn(slipway_router::run(config, passed, shutdown.clone()));
        let addresses = eventually("ready file", PATIENCE, async || {
            std::fs::read_to_string(&ready).map(|text| serde_json::from_str::<serde_json::Value>(&text).expect("json"))
        })
        .await;
        let address = |value: &serde_json::Value| value.as_str().expect("text").parse().expect("address");
        Router {
            http: address(&addresses["http"][0]),
            https: address(&addresses["https"][0]),
            query: address(&addresses["query"]),
            admin: address(&addresses["admin"]),
            shutdown,
            task,
        }
    }
}

pub(crate) struct Router {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) query: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Router {
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.task).await.expect("stops").expect("joins").expect("ends well");
    }

    /// Sends raw bytes and reads until the router closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http).await.expect("connect");
        // A refusal may come, and the connection end, before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One GET with its own connection: status, `X-Cf-RouterError`, body.
    pub(crate) async fn get(&self, host: &str, path: &str) -> (u16, String) {
        let answer = self.raw(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        (status(&answer), answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(crate) fn reply(text: impl Into<Bytes>) -> Reply {
    Response::new(Full::new(text.into()).boxed_unsync())
}

/// An address that refuses connections for as long as the socket is kept: its port is taken, so nobody else comes to
/// listen there, and nobody listens.
pub(crate) fn nobody() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    (socket.local_addr().expect("address"), socket)
}

/// A handler as hyper wants it.
fn answering<F, R>(
    handle: F,
) -> impl Service<
    Request<Incoming>,
    Response = Reply,
    Error = Infallible,
    Future = impl Future<Output = Result<Reply, Infallible>> + Send,
>
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    service_fn(move |request| {
        let answer = handle(request);
        async move { Ok(answer.await) }
    })
}

/// A backend of the test's own making. It ends when dropped, with all its connections.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<Mutex<usize>>,
    tasks: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub(crate) async fn start<F, R>(handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        Self::accepting(move |stream| {
            let handle = handle.clone();
            async move {
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), answering(handle)).with_upgrades().await;
            }
        })
        .await
    }

    /// One that speaks HTTP/2 and nothing else, and takes so many requests at a time on a connection.
    pub(crate) async fn http2<F, R>(most_streams: u32, handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        Self::accepting(move |stream| {
            let handle = handle.clone();
            async move {
                let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http
                    .max_concurrent_streams(most_streams)
                    .serve_connection(TokioIo::new(stream), answering(handle))
                    .await;
            }
        })
        .await
    }

    pub(crate) async fn accepting<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&connections);
        let tasks = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                *counter.lock().expect("lock") += 1;
                all.spawn(serve(stream));
            }
        });
        Self { address, connections, tasks }
    }

    /// Answers each request with this text.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::start(move |_| async move { reply(text) }).await
    }
}

impl Backend {
    /// Answers once it has all of the request.
    pub(crate) async fn saying_after_the_body() -> Self {
        Self::start(|request| async move {
            let whole = request.into_body().collect().await.is_ok();
            reply(format!("whole: {whole}"))
        })
        .await
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// A backend that speaks for itself: it gets the number of the connection, from 0, and the connection.
pub(crate) struct RawBackend {
    pub(crate) address: SocketAddr,
    tasks: tokio::task::JoinHandle<()>,
}

impl RawBackend {
    /// What `speak` gives back stays open until the backend ends.
    pub(crate) async fn start<F, R, K>(speak: F) -> Self
    where
        F: Fn(usize, TcpStream) -> R + Send + 'static,
        R: Future<Output = K> + Send + 'static,
        K: Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let tasks = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                let speaking = speak(number, stream);
                all.spawn(async move {
                    let _held = speaking.await;
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, tasks }
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// Reads one head; empty when the other side closed before.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(char::from(byte)),
            Err(_) => return String::new(),
        }
    }
    head
}

pub(crate) fn access_ring(directory: &Path, app: &str) -> Vec<String> {
    let all = slipway_log_ring::Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 1000 };
    let lines = slipway_log_ring::Reader::new(&directory.join("state/access").join(app)).range(all).expect("read");
    lines.into_iter().map(|line| String::from_utf8(line.text).expect("text")).collect()
}

/// What the kernel holds of one connection.
pub(crate) struct Queues {
    /// Whether this is the end that connected to the address, and not the address's own.
    pub(crate) leads_there: bool,
    /// Bytes that were sent, and that the other end has not received.
    pub(crate) sent: u64,
    /// Bytes that were received, and that the program has not read.
    pub(crate) received: u64,
}

/// The queues of the connections of an address, as /proc/net/tcp has them.
pub(crate) fn queues_of(address: SocketAddr) -> Vec<Queues> {
    let end = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let of_line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (sent, received) = columns.get(4)?.split_once(':')?;
        let bytes = |text: &str| u64::from_str_radix(text, 16).ok();
        let leads_there = columns[2].ends_with(&end);
        let is_of = leads_there || columns[1].ends_with(&end);
        // What listens has other numbers there.
        let listens = columns[3] == "0A";
        (is_of && !listens).then_some(Queues { leads_there, sent: bytes(sent)?, received: bytes(received)? })
    };
    table.lines().skip(1).filter_map(of_line).collect()
}
