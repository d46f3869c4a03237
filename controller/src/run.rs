//! One whole controller: waits for Postgres, brings the schema up to date, serves, and drains.
//!
//! Postgres may go away at any time after the start: the process stays, the API answers 503, sessions stand and
//! observations wait. A controller that is killed and started again adopts everything, because all that it knows is in
//! Postgres or is told again by cells and routers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt as _, TapIo};
use axum::{Extension, Router};
use slipway_api_types::ControllerId;
use slipway_chassis::driver::{Registry, Wake};
use slipway_chassis::files::{self, Durability};
use slipway_chassis::{Backoff, Shutdown, chain};
use slipway_protocol::accept::Acceptor;
use slipway_protocol::dial::{DialError, Dialer};
use slipway_protocol::identity::IdentityError;
use slipway_protocol::v1::blobs_server::BlobsServer;
use slipway_protocol::v1::cell_control_server::CellControlServer;
use slipway_protocol::v1::router_control_server::RouterControlServer;
use slipway_protocol::{Credentials, Role};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::admission::Uploads;
use crate::auth::keys::KeyCache;
use crate::blobs::{BlobError, BlobStore};
use crate::cells::blobs::BlobService;
use crate::cells::hub::CellHub;
use crate::cells::queries::{Directory, Queries};
use crate::cells::recorder;
use crate::cells::service::{CellService, CellServiceDeps};
use crate::config::ControllerConfig;
use crate::context::Context;
use crate::members::{self, FromRouter, ServiceConnections};
use crate::notifiers::TaskNotifiers;
use crate::reserve::Reserve;
use crate::routers::hub::RouterHub;
use crate::routers::publisher::Tables;
use crate::routers::service::{RouterService, RouterServiceDeps};
use crate::sessions::SessionDeps;
use crate::store::Store;
use crate::store::cluster::ControllerRow;
use crate::store::connections::{self, API_CONNECTIONS, API_LIMITS, PLACEMENT_CONNECTIONS, PLACEMENT_LIMITS};
use crate::store::placement::PgPlacement;
use crate::tasks::lease::{LEASE, Lease};
use crate::tasks::{self, Background};
use crate::vault::{Vault, VaultError};
use crate::{admin, api, auth, cells};
use slipway_placement::PlacementStore;

/// How long a start waits for Postgres.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long requests and sessions may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// A cell's batch of observations, or a set with thousands of assignments, passes tonic's default of 4 MiB.
const MAX_MESSAGE: usize = 64 << 20;

/// Why a controller could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The certificate is not one of a controller of this cluster.
    #[error("the credentials in {directory} cannot be used")]
    Credentials {
        /// `tls_directory`.
        directory: PathBuf,
        /// The cause.
        #[source]
        source: IdentityError,
    },
    /// The certificate, its key or the authority's certificate.
    #[error("the credentials cannot be used to connect to other members of the cluster")]
    Dialer(#[source] DialError),
    /// The certificate names somebody else.
    #[error("the certificate in {directory} is of {found}; it must be of controller {wanted}")]
    OtherIdentity {
        /// `tls_directory`.
        directory: PathBuf,
        /// Role and id of the certificate.
        found: String,
        /// Id of the configuration.
        wanted: Uuid,
    },
    /// The key that seals secrets.
    #[error("secrets cannot be sealed")]
    Vault(#[from] VaultError),
    /// The object store.
    #[error("the object store {directory} cannot be used")]
    Blobs {
        /// `blob_directory`.
        directory: PathBuf,
        /// The cause.
        #[source]
        source: BlobError,
    },
    /// The address of the database.
    #[error("database_url cannot be used")]
    DatabaseUrl(#[source] sqlx::Error),
    /// Postgres did not come.
    #[error("Postgres did not answer within {} s; is it running, and is database_url right?", DATABASE_TIMEOUT.as_secs())]
    Database(#[source] sqlx::Error),
    /// The schema.
    #[error("the database cannot be brought to this version's schema")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The first contents, or the database belongs to another cluster.
    #[error("the database cannot be prepared")]
    Bootstrap(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A listener.
    #[error("cannot listen on {address} ({what})")]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// `ready_file`.
    #[error("cannot write {path}")]
    ReadyFile {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Runs a controller until shutdown begins; returns when everything has drained.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: ControllerConfig, shutdown: Shutdown) -> Result<(), RunError> {
    let credentials = credentials(&config)?;
    let dialer = Dialer::new(&credentials).map_err(RunError::Dialer)?;
    let acceptor = Acceptor::new(&credentials, members::PROTOCOLS).map_err(RunError::Dialer)?;
    let vault = Vault::from_file(&config.encryption_key_file)?;
    let options: PgConnectOptions = config.database_url.parse().map_err(RunError::DatabaseUrl)?;
    let options = options.application_name("slipway-controller");
    let wait = Duration::from_secs(config.limits.database_wait_s);
    let wake = Arc::<TaskNotifiers>::default();
    let store = Store::new(connections::pool(options.clone(), API_CONNECTIONS, wait, API_LIMITS), Arc::clone(&wake));
    let placement = connections::pool(options, PLACEMENT_CONNECTIONS, wait, PLACEMENT_LIMITS);
    let blobs = BlobStore::local(&config.blob_directory, store.clone())
        .map_err(|source| RunError::Blobs { directory: config.blob_directory.clone(), source })?
        .with_reserve(Reserve::new(
            &config.blob_directory,
            config.limits.store_reserve_percent,
            config.limits.store_reserve_mb,
        ));
    if !open_database(&store, &shutdown).await? {
        return Ok(());
    }

    let api = listen("the API", config.api_listen).await?;
    let cluster = listen("cells and routers", config.cluster_listen).await?;
    let admin = match config.admin_listen {
        Some(address) => Some(listen("the operator", address).await?),
        None => None,
    };
    let pools = [("api", store.pool().clone()), ("placement", placement.clone())];
    let placement: Arc<dyn PlacementStore> = Arc::new(PgPlacement::new(placement));
    let (hub, directory, tables) = (Arc::<CellHub>::default(), Arc::<Directory>::default(), Arc::<Tables>::default());
    let tasks = Registry::default();
    let router_hub = Arc::new(RouterHub::new(Arc::clone(&tables), wake.acknowledgements.clone()));
    let config = Arc::new(config);
    let context = Context {
        config: Arc::clone(&config),
        store: store.clone(),
        vault,
        blobs,
        uploads: Uploads::new(&config.limits),
        cells: Arc::new(Queries::new(Arc::clone(&hub), store, Arc::clone(&directory), dialer)),
        routers: Arc::clone(&router_hub) as _,
        wake,
        tasks: tasks.clone(),
        keys: KeyCache::default(),
        guard: Arc::default(),
    };
    auth::bootstrap(&context).await.map_err(|error| RunError::Bootstrap(Box::new(error)))?;
    let own = ControllerRow { id: config.id, cluster_address: cluster.1.to_string() };
    context.store.controller_put(&own).await.map_err(RunError::Database)?;

    let (lease, leadership) = Lease::new(Arc::clone(&placement), ControllerId(config.id), Arc::clone(&context.wake));
    tasks.start(&shutdown, LEASE, Wake::default(), lease);
    let recorder = recorder::start(context.clone(), Arc::clone(&placement), &shutdown);
    let common = Arc::new(SessionDeps {
        context: context.clone(),
        session: Uuid::new_v4(),
        placement: Arc::clone(&placement),
        cells: Arc::clone(&hub),
        directory: Arc::clone(&directory),
        shutdown: shutdown.clone(),
    });
    let cells = Arc::new(CellServiceDeps {
        common: Arc::clone(&common),
        members: cells::members::start(context.clone(), &shutdown),
        recorder,
        leading: leadership.term.clone(),
    });
    let mut admin_address = None;
    if let Some((listener, address)) = admin {
        admin_address = Some(address);
        let parts = admin::Parts {
            pools,
            cells: Arc::clone(&hub),
            routers: Arc::clone(&router_hub),
            leading: leadership.term.clone(),
        };
        let pages = Arc::new(admin::Admin::new(parts, tasks.clone(), shutdown.clone()));
        shutdown.spawn(slipway_chassis::admin::serve(pages, listener, shutdown.clone()));
    }
    let layers = config
        .layer_directory
        .as_ref()
        .map(|directory| tasks::layers::start(context.clone(), directory.clone(), &tasks, &shutdown));
    let background = Background { context: &context, placement, leadership, own, shutdown: &shutdown };
    background.start(&hub, directory, &router_hub, &tables);
    let routers = Arc::new(RouterServiceDeps { common, hub: router_hub, tables });
    let (services, from_routers) = members::start(cluster.0, cluster.1, acceptor, &shutdown);
    serve_cluster(services, cells, routers, &shutdown);
    let by_routers = api::router(context.clone()).layer(Extension(FromRouter));
    // Only what was tapped tells its address: axum's own way to pass one on from a listener that is not axum's.
    serve_api(from_routers.tap_io(|_| ()), by_routers, &shutdown);
    serve_api(api.0.tap_io(|_| ()), api::router(context), &shutdown);
    if let Some(layers) = &layers {
        tasks::layers::looked(layers, &shutdown).await;
    }
    if let Some(path) = &config.ready_file {
        write_ready(path, api.1, cluster.1, admin_address)?;
    }
    tracing::info!(api = %api.1, cluster = %cluster.1, "the controller is ready");

    shutdown.requested().await;
    if let Some(path) = &config.ready_file {
        drop(std::fs::remove_file(path));
    }
    let left = shutdown.finish(DRAIN).await;
    if left > 0 {
        tracing::warn!(left, "some work did not end in time");
    }
    Ok(())
}

fn credentials(config: &ControllerConfig) -> Result<Credentials, RunError> {
    let directory = &config.tls_directory;
    let failed = |source| RunError::Credentials { directory: directory.clone(), source };
    let credentials = Credentials::load(directory).map_err(failed)?;
    let own = credentials.own_identity().map_err(failed)?;
    if own.role != Role::Controller || own.id != config.id || own.cluster != config.cluster_id {
        let found = format!("{} {} of cluster {}", own.role, own.id, own.cluster);
        return Err(RunError::OtherIdentity { directory: directory.clone(), found, wanted: config.id });
    }
    Ok(credentials)
}

/// Waits for Postgres and migrates. False when shutdown came first.
async fn open_database(store: &Store, shutdown: &Shutdown) -> Result<bool, RunError> {
    let deadline = tokio::time::Instant::now() + DATABASE_TIMEOUT;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match sqlx::query("select 1").execute(store.pool()).await {
            Ok(_) => break,
            Err(error) if tokio::time::Instant::now() > deadline => return Err(RunError::Database(error)),
            Err(error) => tracing::info!(error = %chain(&error), "waiting for Postgres"),
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(false),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
    slipway_migrations::migrate(store.pool()).await?;
    Ok(true)
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn serve_cluster(
    incoming: ServiceConnections,
    cells: Arc<CellServiceDeps>,
    routers: Arc<RouterServiceDeps>,
    shutdown: &Shutdown,
) {
    let context = &cells.common.context;
    let config = &context.config;
    let blobs = BlobService {
        blobs: context.blobs.clone(),
        store: context.store.clone(),
        cluster: config.cluster_id,
        scratch: config.blob_directory.clone(),
        most_bytes: config.limits.max_package_unpacked_bytes,
    };
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(CellControlServer::new(CellService(cells)).max_decoding_message_size(MAX_MESSAGE))
        .add_service(RouterControlServer::new(RouterService(routers)))
        .add_service(BlobsServer::new(blobs));
    let incoming = ReceiverStream::new(incoming);
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let served = server.serve_with_incoming_shutdown(incoming, async move { stop.requested().await }).await;
        if let Err(error) = served {
            tracing::error!(error = %chain(&error), "the service for cells and routers ended");
        }
    });
}

fn serve_api<L, F>(listener: TapIo<L, F>, api: Router, shutdown: &Shutdown)
where
    L: Listener<Addr = SocketAddr>,
    F: FnMut(&mut L::Io) + Send + 'static,
{
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let service = api.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, service).with_graceful_shutdown(async move { stop.requested().await }).await;
        if let Err(error) = served {
            tracing::error!(error = %chain(&error), "the API ended");
        }
    });
}

/// Written whole or not at all: whoever waits for it reads both addresses.
fn write_ready(path: &Path, api: SocketAddr, cluster: SocketAddr, admin: Option<SocketAddr>) -> Result<(), RunError> {
    let text = serde_json::json!({ "api": api, "cluster": cluster, "admin": admin }).to_string();
    files::write(path, text, 0o600, Durability::Whole)
        .map_err(|source| RunError::ReadyFile { path: path.to_owned(), source })
}
