//! A real controller in this process, over real sockets and a real Postgres behind a proxy that can be cut.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slipway_chassis::Shutdown;
use slipway_controller::config::{ControllerConfig, Limits};
use slipway_controller::store::Store;
use slipway_controller::store::change_log::ChangeKind;
use slipway_controller::vault::Vault;
use slipway_protocol::dial::{Dialer, ExpectedPeer};
use slipway_protocol::v1;
use slipway_protocol::v1::blobs_client::BlobsClient;
use slipway_protocol::{ClusterAuthority, Credentials, Role};
use slipway_test_support::{PATIENCE, TestDatabase, eventually};
use sqlx::PgPool;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::client::TestClient;

pub(crate) const LIMIT: Duration = PATIENCE;

/// Whether Postgres can be reached, and how often it could not.
#[derive(Clone, Copy)]
struct Line {
    up: bool,
    cuts: u64,
}

/// Forwards a Unix socket to the tests' Postgres until it is cut.
pub(crate) struct Proxy(watch::Sender<Line>);

impl Proxy {
    fn start(directory: &std::path::Path, target: PathBuf) -> Self {
        let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).expect("listen");
        let sender = watch::Sender::new(Line { up: true, cuts: 0 });
        let line = sender.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (begun, mut line, target) = (*line.borrow(), line.clone(), target.clone());
                if !begun.up {
                    continue;
                }
                tokio::spawn(async move {
                    let forward = async {
                        let mut server = UnixStream::connect(target).await.expect("Postgres");
                        tokio::io::copy_bidirectional(&mut client, &mut server).await
                    };
                    // Also one that had not got through when the line was cut.
                    tokio::select! {
                        biased;
                        _ = line.wait_for(|now| now.cuts != begun.cuts) => {}
                        _ = forward => {}
                    }
                });
            }
        });
        Self(sender)
    }

    pub(crate) fn down(&self) {
        self.0.send_modify(|line| *line = Line { up: false, cuts: line.cuts + 1 });
    }

    pub(crate) fn up(&self) {
        self.0.send_modify(|line| line.up = true);
    }
}

pub(crate) struct Harness {
    pub(crate) database: TestDatabase,
    pub(crate) authority: ClusterAuthority,
    pub(crate) config: ControllerConfig,
    pub(crate) proxy: Proxy,
    pub(crate) cluster: String,
    pub(crate) api: String,
    running: Option<(Shutdown, tokio::task::JoinHandle<()>)>,
    directory: tempfile::TempDir,
}

impl Harness {
    /// A controller that never calls a cell lost: most tests mean cells that blink, however long the machine takes for it.
    pub(crate) async fn start() -> Self {
        Self::with_loss_after(100_000).await
    }

    /// One that calls a cell lost as soon as it has been away for a second.
    pub(crate) async fn that_loses_cells() -> Self {
        Self::with_loss_after(1).await
    }

    async fn with_loss_after(cell_lost_after_s: u64) -> Self {
        // The client wants a provider even though these tests speak plain HTTP; a second installation is refused.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = TestDatabase::create().await;
        let directory = tempfile::tempdir().expect("tempdir");
        let options: sqlx::postgres::PgConnectOptions = database.url.parse().expect("url");
        let socket = options.get_socket().expect("the tests' Postgres listens on a Unix socket").clone();
        let sockets = directory.path().join("pg");
        std::fs::create_dir(&sockets).expect("mkdir");
        let proxy = Proxy::start(&sockets, socket.join(format!(".s.PGSQL.{}", options.get_port())));

        let (id, cluster_id) = (Uuid::new_v4(), Uuid::new_v4());
        let (authority, _) = ClusterAuthority::generate(cluster_id).expect("authority");
        let tls = directory.path().join("tls");
        authority.issue(Role::Controller, id, &["127.0.0.1".into()]).expect("issue").save(&tls).expect("save");
        std::fs::write(directory.path().join("key"), "07".repeat(32)).expect("key");
        std::fs::write(directory.path().join("password"), "a-long-password").expect("password");
        let config = ControllerConfig {
            id,
            cluster_id,
            database_url: format!(
                "postgres://{}@localhost/{}?host={}",
                options.get_username(),
                database.name(),
                sockets.display()
            ),
            blob_directory: directory.path().join("blobs"),
            layer_directory: Some(directory.path().join("layers")),
            api_listen: "127.0.0.1:0".parse().expect("address"),
            admin_listen: None,
            cluster_listen: "127.0.0.1:0".parse().expect("address"),
            tls_directory: tls,
            encryption_key_file: directory.path().join("key"),
            admin_password_file: directory.path().join("password"),
            system_domain: "slipway.test".into(),
            app_domain: "apps.test".into(),
            public_url: "http://api.slipway.test".into(),
            ready_file: Some(directory.path().join("ready")),
            drain_networks: Vec::new(),
            trusted_proxies: Vec::new(),
            zone: "default".into(),
            // A machine that stands still for some seconds is not a database that is away.
            limits: Limits { cell_lost_after_s, database_wait_s: LIMIT.as_secs(), ..Limits::default() },
        };
        let mut harness = Self {
            database,
            authority,
            config,
            proxy,
            cluster: String::new(),
            api: String::new(),
            running: None,
            directory,
        };
        harness.run().await;
        harness
    }

    /// Starts the controller (again).
    pub(crate) async fn run(&mut self) {
        let shutdown = Shutdown::new();
        let (config, stop) = (self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            slipway_controller::run(config, stop).await.expect("the controller runs");
        });
        self.running = Some((shutdown, task));
        let path = self.directory.path().join("ready");
        let ready: serde_json::Value = eventually("ready file", LIMIT, || async {
            std::fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
        })
        .await;
        self.cluster = ready["cluster"].as_str().expect("cluster").to_owned();
        self.api = format!("http://{}", ready["api"].as_str().expect("api"));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.begin();
            task.await.expect("the controller ends");
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    pub(crate) fn credentials(&self, role: Role, id: Uuid) -> Credentials {
        self.authority.issue(role, id, &["127.0.0.1".into()]).expect("issue")
    }

    pub(crate) fn channel(&self, credentials: &Credentials) -> tonic::transport::Channel {
        let address = self.cluster.parse().expect("an address");
        let dialer = Dialer::new(credentials).expect("a dialler");
        dialer.channel(address, ExpectedPeer::CONTROLLER, |endpoint| endpoint).expect("a channel")
    }

    /// A connection of a new member.
    pub(crate) async fn dial(
        &self,
        role: Role,
        alpn: &'static [u8],
    ) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let dialer = Dialer::new(&self.credentials(role, Uuid::new_v4())).expect("a dialler");
        dialer.dial(self.cluster.parse().expect("an address"), ExpectedPeer::CONTROLLER, alpn).await.expect("dialled")
    }

    /// A client of the API: the administrator.
    pub(crate) async fn admin(&self) -> TestClient {
        let form = [("grant_type", "password"), ("username", "admin"), ("password", "a-long-password")];
        let nobody = TestClient::new(&self.api, None);
        let request = nobody.request(reqwest::Method::POST, "/oauth/token").basic_auth("cf", Some("")).form(&form);
        let (status, body) = nobody.send(request).await;
        assert_eq!(status, 200, "{body}");
        TestClient::new(&self.api, Some(body["access_token"].as_str().expect("a token")))
    }

    /// Puts a blob into the object store as a cell does.
    pub(crate) async fn put(&self, blob: &'static [u8]) {
        let mut client = BlobsClient::new(self.channel(&self.credentials(Role::Cell, Uuid::new_v4())));
        let chunk = v1::BlobChunk { data: Bytes::from_static(blob) };
        client.put(futures::stream::iter([chunk])).await.expect("put");
    }

    /// A directory on the object store's disk.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.config.blob_directory.clone()
    }

    /// An app of one process with a route, started. Answers (app, process).
    pub(crate) async fn app(&self, name: &str, instances: i32, memory_mb: i64) -> (Uuid, Uuid) {
        let (app, process, route) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let digest = self.spec(name, memory_mb).await;
        let mut tx = slipway_controller::store::begin(self.pool()).await.expect("begin");
        let statements = [
            format!(
                "insert into app (guid, space_guid, name, state) select '{app}', guid, '{name}', 'STARTED' from space limit 1"
            ),
            format!(
                "insert into route (guid, space_guid, domain_guid, host) select '{route}', s.guid, d.guid, '{name}' from space s, domain d limit 1"
            ),
            format!(
                "insert into route_destination (guid, route_guid, app_guid) values ('{}', '{route}', '{app}')",
                Uuid::new_v4()
            ),
        ];
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *tx).await.expect("insert");
        }
        sqlx::query("insert into process (guid, app_guid, type, instances, spec) values ($1, $2, 'web', $3, $4)")
            .bind(process)
            .bind(app)
            .bind(instances)
            .bind(&digest[..])
            .execute(&mut *tx)
            .await
            .expect("process");
        self.other_controller()
            .commit(tx, &[(ChangeKind::App, app), (ChangeKind::Process, process)])
            .await
            .expect("commit");
        (app, process)
    }

    /// A sealed spec.
    pub(crate) async fn spec(&self, name: &str, memory_mb: i64) -> [u8; 32] {
        let body = v1::WorkloadSpec { command: name.into(), ..v1::WorkloadSpec::default() }.encode_to_vec();
        let digest = slipway_protocol::digest::sha256(&body);
        let sealed = Vault::new(&[7; 32]).seal(&format!("spec/{}", hex::encode(digest)), &body).expect("seal");
        sqlx::query("insert into spec (digest, kind, body, memory_mb, disk_mb) values ($1, 'lrp', $2, $3, 64) on conflict do nothing")
            .bind(&digest[..])
            .bind(sealed)
            .bind(memory_mb)
            .execute(self.pool())
            .await
            .expect("spec");
        digest
    }

    /// The store as another controller has it: what it commits wakes nothing here.
    fn other_controller(&self) -> Store {
        Store::new(self.pool().clone(), Arc::default())
    }

    /// Runs a statement that changes desired state.
    pub(crate) async fn desire(&self, statement: &str, kind: ChangeKind, id: Uuid) {
        let mut tx = slipway_controller::store::begin(self.pool()).await.expect("begin");
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut *tx).await.expect("statement");
        self.other_controller().commit(tx, &[(kind, id)]).await.expect("commit");
    }

    pub(crate) async fn count(&self, statement: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement.to_owned())).fetch_one(self.pool()).await.expect("count")
    }

    /// Waits until a count is as wanted.
    pub(crate) async fn until(&self, statement: &str, wanted: i64) {
        eventually(statement, LIMIT, || async {
            let found = self.count(statement).await;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some((shutdown, _)) = &self.running {
            shutdown.begin();
        }
    }
}
