//! A controller in this process: a database of its own, a real listener, real tokens; cells and routers are simulated.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]

pub mod apps;
pub mod client;
pub mod raw;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
pub use client::{TestClient, error};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_api_types::AssignmentId;
use slipway_chassis::Shutdown;
use slipway_chassis::driver::Registry;
use slipway_controller::admission::Uploads;
use slipway_controller::auth::{self, keys, tokens};
use slipway_controller::blobs::{BlobDigest, BlobStore};
use slipway_controller::config::{ControllerConfig, Limits};
use slipway_controller::context::{CellQueries, LogAnswer, Proof, RouterProof};
use slipway_controller::domain::outcomes;
use slipway_controller::jobs::{JOBS, Jobs};
use slipway_controller::members::FromRouter;
use slipway_controller::reserve::Reserve;
use slipway_controller::store::Store;
use slipway_controller::store::users::AccountRow;
use slipway_controller::vault::Vault;
use slipway_controller::{Context, api};
use slipway_protocol::v1;
use slipway_test_support::TestDatabase;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

pub const ADMIN_PASSWORD: &str = "a password of the tests";
/// Of all users that tests make.
pub const PASSWORD: &str = "a users password";

/// Stands in for all cells: answers what a test puts in.
#[derive(Default)]
pub struct SimulatedCells {
    pub usage: Mutex<HashMap<AssignmentId, v1::Usage>>,
    pub lines: Mutex<Vec<v1::LogLine>>,
    pub unanswered: Mutex<Vec<String>>,
}

#[async_trait]
impl CellQueries for SimulatedCells {
    async fn usage(&self, assignments: &[AssignmentId]) -> HashMap<AssignmentId, v1::Usage> {
        let known = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        assignments.iter().filter_map(|id| Some((*id, known.get(id)?.clone()))).collect()
    }

    async fn read_logs(&self, _asker: &str, query: v1::LogQuery) -> LogAnswer {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
        LogAnswer { lines, unanswered: self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

/// Stands in for all routers: answers every wait with what a test puts in, and remembers what was asked.
pub struct SimulatedRouters {
    pub proof: Mutex<Proof>,
    pub waited_for: Mutex<Vec<v1::Version>>,
}

#[async_trait]
impl RouterProof for SimulatedRouters {
    async fn wait_applied(&self, version: v1::Version, _limit: Duration) -> Proof {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner).push(version);
        self.proof.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn applied_by_all(&self) -> Option<v1::Version> {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }
}

/// A running controller. Everything of it goes away with the value.
pub struct TestController {
    pub context: Context,
    pub cells: Arc<SimulatedCells>,
    pub routers: Arc<SimulatedRouters>,
    pub address: SocketAddr,
    pub base: String,
    pub database: TestDatabase,
    shutdown: Shutdown,
    directory: TempDir,
}

impl Drop for TestController {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// One key pair for all tests of this process: making one takes longer than most tests.
async fn key() -> &'static (String, zeroize::Zeroizing<String>, String) {
    static KEY: OnceCell<(String, zeroize::Zeroizing<String>, String)> = OnceCell::const_new();
    KEY.get_or_init(|| async { tokio::task::spawn_blocking(|| keys::generate().expect("a key")).await.expect("joins") })
        .await
}

impl TestController {
    /// Bootstrapped, listening, with jobs running.
    pub async fn start() -> Self {
        // Long tests log in once; how long they take is up to the machine.
        Self::with_limits(Limits { access_token_s: 86_400, ..Limits::default() }).await
    }

    /// The same with other limits.
    pub async fn with_limits(limits: Limits) -> Self {
        // The client wants a provider even though these tests speak plain HTTP; a second installation is refused.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = TestDatabase::create().await;
        let directory = tempfile::tempdir().expect("a directory");
        let password_file = directory.path().join("admin-password");
        std::fs::write(&password_file, ADMIN_PASSWORD).expect("write the password");
        let config = ControllerConfig {
            id: Uuid::new_v4(),
            cluster_id: Uuid::new_v4(),
            database_url: database.url.clone(),
            blob_directory: directory.path().join("blobs"),
            layer_directory: None,
            api_listen: "127.0.0.1:0".parse().expect("an address"),
            admin_listen: None,
            cluster_listen: "127.0.0.1:0".parse().expect("an address"),
            tls_directory: directory.path().to_owned(),
            encryption_key_file: directory.path().join("key"),
            admin_password_file: password_file,
            system_domain: "slipway.test".to_owned(),
            app_domain: "apps.slipway.test".to_owned(),
            public_url: "http://api.slipway.test".to_owned(),
            ready_file: None,
            drain_networks: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            trusted_proxies: vec!["192.0.2.0/24".to_owned()],
            zone: "z1".to_owned(),
            limits,
        };
        let vault = Vault::new(&[42; 32]);
        let (kid, private, public) = key().await;
        let sealed = vault.seal(&keys::place(kid), private.as_bytes()).expect("seal");
        sqlx::query("insert into signing_key (kid, private_pem, public_pem) values ($1, $2, $3)")
            .bind(kid)
            .bind(sealed)
            .bind(public)
            .execute(&database.pool)
            .await
            .expect("store the key");
        let cells = Arc::new(SimulatedCells::default());
        let routers = Arc::new(SimulatedRouters { proof: Mutex::new(Proof::Applied), waited_for: Mutex::default() });
        let context = Context {
            blobs: BlobStore::local(&config.blob_directory, Store::new(database.pool.clone(), Arc::default()))
                .expect("a blob store")
                .with_reserve(Reserve::new(
                    &config.blob_directory,
                    config.limits.store_reserve_percent,
                    config.limits.store_reserve_mb,
                )),
            uploads: Uploads::new(&config.limits),
            config: Arc::new(config),
            store: Store::new(database.pool.clone(), Arc::default()),
            vault,
            cells: Arc::clone(&cells) as Arc<dyn CellQueries>,
            routers: Arc::clone(&routers) as Arc<dyn RouterProof>,
            wake: Arc::default(),
            tasks: Registry::default(),
            keys: keys::KeyCache::default(),
            guard: Arc::default(),
        };
        auth::bootstrap(&context).await.expect("bootstrap");
        let shutdown = Shutdown::new();
        context.tasks.start(&shutdown, JOBS, context.wake.jobs.clone(), Jobs::new(context.clone(), shutdown.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        // Every test is a router, so that it may say for whom it asks.
        let app = api::router(context.clone()).layer(axum::Extension(FromRouter));
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            let _ = axum::serve(listener, app).with_graceful_shutdown(async move { stop.requested().await }).await;
        });
        Self { context, cells, routers, address, base: format!("http://{address}"), database, shutdown, directory }
    }

    /// A client with this token (or none).
    pub fn client(&self, token: Option<&str>) -> TestClient {
        TestClient::new(&self.base, token)
    }

    /// Logs in and gives a client.
    pub async fn login(&self, user: &str, password: &str) -> TestClient {
        let (status, body) =
            self.token(&[("grant_type", "password"), ("username", user), ("password", password)]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        self.client(Some(body["access_token"].as_str().expect("a token")))
    }

    /// The administrator.
    pub async fn admin(&self) -> TestClient {
        self.login("admin", ADMIN_PASSWORD).await
    }

    /// `POST /oauth/token` as the CLI does it.
    pub async fn token(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        self.token_from(None, form).await
    }

    /// The same, of a client whose address a router tells.
    pub async fn token_from(&self, address: Option<&str>, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut request = reqwest::Client::new().post(format!("{}/oauth/token", self.base)).basic_auth("cf", Some(""));
        if let Some(address) = address {
            request = request.header("x-forwarded-for", address);
        }
        let response = request.form(form).send().await.expect("an answer");
        (response.status(), response.json().await.expect("json"))
    }

    /// The account of a user or client with this name.
    pub async fn account(&self, name: &str) -> AccountRow {
        let store = &self.context.store;
        let client = store.account_get(name).await.expect("an answer");
        client.or(store.accounts_named(name, None).await.expect("an answer").pop()).expect("an account")
    }

    /// What a token of the client `cf` itself would be for.
    pub async fn subject(&self, scopes: &[&str]) -> tokens::Subject {
        let client = self.account("cf").await;
        let scopes = scopes.iter().map(ToString::to_string).collect();
        tokens::Subject { client_id: client.guid, client_generation: client.generation, user: None, scopes }
    }

    /// A user without any role, logged in.
    pub async fn user(&self, name: &str) -> TestClient {
        let admin = self.admin().await;
        let (status, body) = admin
            .post(
                "/Users",
                json!({ "userName": name, "password": PASSWORD, "emails": [{ "value": name, "primary": true }] }),
            )
            .await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        self.login(name, PASSWORD).await
    }

    /// A user with a role in space `dev` (or in organization `dev`).
    pub async fn user_with(&self, name: &str, role: &str) -> TestClient {
        let client = self.user(name).await;
        let (org, space) = self.dev().await;
        let place = if role.starts_with("space_") {
            self.give(name, "organization_user", json!({ "organization": { "data": { "guid": org } } })).await;
            json!({ "space": { "data": { "guid": space } } })
        } else {
            json!({ "organization": { "data": { "guid": org } } })
        };
        self.give(name, role, place).await;
        client
    }

    async fn give(&self, name: &str, role: &str, mut relationships: Value) {
        relationships["user"] = json!({ "data": { "username": name } });
        let (status, body) =
            self.admin().await.post("/v3/roles", json!({ "type": role, "relationships": relationships })).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    /// Guids of organization and space `dev`.
    pub async fn dev(&self) -> (Uuid, Uuid) {
        sqlx::query_as("select org_guid, guid from space where name = 'dev'")
            .fetch_one(&self.database.pool)
            .await
            .expect("the first space")
    }

    /// An app row without anything, for tests of what is around apps.
    pub async fn bare_app(&self, space: Uuid, name: &str) -> Uuid {
        let guid = Uuid::new_v4();
        sqlx::query("insert into app (guid, space_guid, name) values ($1, $2, $3)")
            .bind(guid)
            .bind(space)
            .bind(name)
            .execute(&self.database.pool)
            .await
            .expect("an app");
        guid
    }

    /// Puts bytes into the object store; gives their digest.
    pub async fn put_blob(&self, bytes: &[u8]) -> BlobDigest {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        self.context.blobs.put_file(file.path()).await.expect("a blob").0
    }

    /// Puts a droplet into the object store and ends a build with it, as its cell would report it.
    pub async fn stage(&self, build: &str) {
        let droplet = apps::droplet();
        self.put_blob(&droplet).await;
        let guid = build.parse().expect("guid");
        for _ in 0..2 {
            // A cell reports until it is acknowledged: the second report changes nothing.
            let result = apps::build_result(&droplet);
            outcomes::build_completed(&self.context, AssignmentId::new(), guid, 1, Some(result), None)
                .await
                .expect("recorded");
        }
    }

    /// An app with this name, 64 MiB, a staged droplet and a route, started. Gives its guid.
    pub async fn pushed(&self, client: &TestClient, name: &str) -> String {
        apps::catalogue(&self.database.pool).await;
        let (_, space) = self.dev().await;
        let fields = "  memory: 64M\n  disk_quota: 128M\n  default-route: true\n  env: {GREETING: hello}\n";
        let app = apps::app_of(client, space, name, fields).await;
        let build = apps::build(client, &apps::ready_package(client, &app).await).await;
        self.stage(&build).await;
        apps::use_droplet(client, &app, &build).await;
        assert_eq!(apps::action(client, &app, "start").await, "STARTED");
        app
    }
}
