//! Start, serve, drain.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use slipway_chassis::files::{self, Durability};
use slipway_chassis::{Shutdown, chain};
use slipway_protocol::Credentials;
use slipway_protocol::egress_guard::EgressGuard;
use slipway_protocol::v1::query_server::QueryServer;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::access_log;
use crate::admin::Admin;
use crate::cluster_tls::ClusterTls;
use crate::config::RouterConfig;
use crate::limits::{Descriptors, Holders};
use crate::metrics::CoreMetrics;
use crate::proxy::forwarding::Forwarding;
use crate::proxy::{self, Shared};
use crate::query::LogQueries;
use crate::sockets::{self, Inherited, InheritedError};
use crate::sync::{self, JournalError, SessionSettings, TableStore};
use crate::web_tls::{WebCertificate, WebTlsError};

/// Changed certificates are in use after this at the latest.
const REFRESH: Duration = Duration::from_secs(5);
/// What is not about requests has this long to end.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// Why a router could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is taken or may not be used.
    #[error("cannot listen on {address} ({purpose})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key in the configuration.
        purpose: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The sockets that were passed cannot be used.
    #[error("cannot use the listening sockets that this router was passed")]
    Inherited(#[from] InheritedError),
    /// The journal's directory cannot be used.
    #[error("cannot use the state directory")]
    Journal(#[from] JournalError),
    /// A file or directory cannot be used.
    #[error("cannot write {path}: see {key} in the router's configuration, and whether its disk is full")]
    File {
        /// The file.
        path: PathBuf,
        /// The key in the configuration.
        key: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The authorities of route services cannot be used.
    #[error("cannot use the certificate authorities of the web (trusted_authorities)")]
    Authorities(#[from] slipway_protocol::web_roots::WebRootsError),
    /// No protocol version is left.
    #[error("TLS toward route services cannot be set up")]
    ServiceTls(#[source] rustls::Error),
    /// The credentials of the cluster cannot be used.
    #[error("cannot use the cluster credentials in {directory}")]
    Credentials {
        /// `tls_directory`.
        directory: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate for end users cannot be used.
    #[error("cannot serve HTTPS")]
    Web(#[from] WebTlsError),
    /// The Query service cannot be set up.
    #[error("cannot serve log queries")]
    Query(#[from] tonic::transport::Error),
    /// A thread cannot be started.
    #[error("cannot start a worker thread of the router")]
    Core(#[source] std::io::Error),
    /// A thread that serves requests has ended; the process must start again.
    #[error("a worker thread of the router ended unexpectedly")]
    CoreEnded,
}

/// Runs a router until `shutdown`, then drains: readiness goes first, then no more connections are taken, then what
/// is under way may finish. Starts its own threads, one per core; call it inside a multi-thread runtime.
///
/// Addresses that have `inherited` sockets use them, the others are bound. Nothing is accepted before the table is loaded
/// from disk: what waits in inherited sockets would be told that its host is unknown.
///
/// # Errors
/// [`RunError`] when it cannot start; nothing is left running then.
pub async fn run(config: RouterConfig, mut inherited: Inherited, shutdown: Shutdown) -> Result<(), RunError> {
    let cores = config.core_count();
    let descriptors = Descriptors::claim(config.max_connections);
    let bad_credentials = |source| RunError::Credentials { directory: config.tls_directory.clone(), source };
    let credentials = Credentials::load(&config.tls_directory).map_err(|error| bad_credentials(error.into()))?;
    let load_tls = || ClusterTls::load(&config.tls_directory, config.cluster_id);
    let cluster_tls = Arc::new(ArcSwap::from_pointee(load_tls().map_err(|error| bad_credentials(error.into()))?));
    let web = match (&config.certificate, &config.certificate_key) {
        (Some(certificate), Some(key)) => Some(WebCertificate::load(certificate, key)?),
        _ => None,
    };
    let web_tls = web.as_ref().map(WebCertificate::server_config).transpose()?;
    let store = Arc::new(TableStore::open(&config.state_directory, config.cluster_id)?);
    let access = config.state_directory.join("access");

    let (http, http_sockets) = listen_all(&config.http_listen, &mut inherited, cores, "http_listen")?;
    let (https, https_sockets) = listen_all(&config.https_listen, &mut inherited, cores, "https_listen")?;
    inherited.finish()?;
    let (query, query_listener) = listen(config.query_listen, "query_listen").await?;
    let (admin_address, admin_listener) = listen(config.admin_listen, "admin_listen").await?;

    let file = |path: &Path, key| {
        let path = path.to_owned();
        move |source| RunError::File { path, key, source }
    };
    let (log, log_thread) =
        access_log::start(&access, config.log_ring_bytes).map_err(file(&access, "state_directory"))?;
    let drain = CancellationToken::new();
    // Dropped on every way out, so that an error below leaves no thread behind.
    let drain_guard = drain.clone().drop_guard();
    let shared = Arc::new(Shared {
        store: Arc::clone(&store),
        log,
        cluster_tls: Arc::clone(&cluster_tls),
        service_tls: service_tls(&config)?,
        service_egress: service_egress(&config),
        web_tls,
        descriptors,
        apps: Holders::default(),
        clients: Holders::default(),
        most_per_endpoint: config.max_connections_per_endpoint,
        forwarding: forwarding(&config),
        max_header_bytes: config.max_header_bytes,
        heads: Arc::default(),
        response_timeout: Duration::from_secs(config.response_timeout_s),
        client_stall: Duration::from_secs(config.client_stall_timeout_s),
        tunnel_idle: Duration::from_secs(config.tunnel_idle_timeout_s),
        drain: drain.clone(),
        drain_timeout: Duration::from_secs(config.drain_timeout_s),
    });

    // Sessions, queries and pages go on while requests drain.
    let ending = Shutdown::new();
    let ending_guard = ending.token().drop_guard();
    let queries = LogQueries { root: access, store: Arc::clone(&store), router: config.id, cluster: config.cluster_id };
    let end = ending.clone();
    let query_server = tonic::transport::Server::builder()
        .tls_config(credentials.server_tls())?
        .add_service(QueryServer::new(queries))
        .serve_with_incoming_shutdown(TcpListenerStream::new(query_listener), async move { end.requested().await });
    ending.spawn(async move {
        if let Err(error) = query_server.await {
            tracing::error!(error = %chain(&error), "log queries ended");
        }
    });
    let metrics: Vec<_> = (0..cores).map(|_| Arc::new(CoreMetrics::default())).collect();
    let draining = Arc::new(AtomicBool::new(false));
    let pages = Admin::new(Arc::clone(&shared), metrics.clone(), Arc::clone(&draining));
    ending.spawn(slipway_chassis::admin::serve(Arc::new(pages), admin_listener, ending.clone()));
    let settings = SessionSettings {
        id: config.id,
        cluster: config.cluster_id,
        zone: config.zone.clone(),
        controllers: config.controllers.clone(),
        tls_directory: config.tls_directory.clone(),
        query,
    };
    ending.spawn(sync::run(settings, Arc::clone(&store), ending.clone()));
    let directory = config.tls_directory.clone();
    ending.spawn(refresh(web, cluster_tls, directory, config.cluster_id, ending.clone()));

    let mut running = start_cores(&shared, &metrics, http_sockets, https_sockets)?;
    drop(shared);
    if let Some(path) = &config.ready_file {
        let ready = serde_json::json!({ "http": http, "https": https, "query": query, "admin": admin_address });
        files::write(path, ready.to_string(), 0o640, Durability::None).map_err(file(path, "ready_file"))?;
    }
    tracing::info!(?http, ?https, %query, admin = %admin_address, cores, "router is up");

    let early = tokio::select! {
        () = shutdown.requested() => false,
        _ = running.join_next() => true,
    };
    draining.store(true, Ordering::Relaxed);
    if !early {
        tracing::info!("draining");
        tokio::time::sleep(Duration::from_millis(config.drain_delay_ms)).await;
    }
    drop(drain_guard);
    let mut failed = early;
    while let Some(ended) = running.join_next().await {
        failed |= !matches!(ended, Ok(true));
    }
    drop(ending_guard);
    let left = ending.finish(LAST_MOMENTS).await;
    if left > 0 {
        tracing::warn!(tasks = left, "tasks were left behind");
    }
    let last = tokio::task::spawn_blocking(move || {
        store.close();
        log_thread.join().is_ok()
    });
    if !matches!(tokio::time::timeout(LAST_MOMENTS, last).await, Ok(Ok(true))) {
        tracing::warn!("the last access lines may be missing");
    }
    if failed { Err(RunError::CoreEnded) } else { Ok(()) }
}

/// One thread per core; the set yields `true` for each that ended well.
fn start_cores(
    shared: &Arc<Shared>,
    metrics: &[Arc<CoreMetrics>],
    http: Vec<Vec<TcpListener>>,
    https: Vec<Vec<TcpListener>>,
) -> Result<tokio::task::JoinSet<bool>, RunError> {
    let mut running = tokio::task::JoinSet::new();
    for (number, ((metrics, http), https)) in metrics.iter().zip(http).zip(https).enumerate() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let (shared, metrics) = (Arc::clone(shared), Arc::clone(metrics));
        std::thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || {
                let result = proxy::run_core(shared, metrics, http, https);
                if let Err(error) = &result {
                    tracing::error!(core = number, %error, "a core cannot run");
                }
                // Nobody listens when the router gave up before.
                let _ = ended.send(result.is_ok());
            })
            .map_err(RunError::Core)?;
        running.spawn(async move { end.await.unwrap_or(false) });
    }
    Ok(running)
}

/// Sockets by core: the inherited ones of an address, or new ones.
fn listen_all(
    addresses: &[SocketAddr],
    inherited: &mut Inherited,
    cores: usize,
    purpose: &'static str,
) -> Result<(Vec<SocketAddr>, Vec<Vec<TcpListener>>), RunError> {
    let mut bound = Vec::new();
    let mut by_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
    for address in addresses {
        let failed = |source| RunError::Listen { address: *address, purpose, source };
        let passed = inherited.take(*address);
        let (at, opened) = match passed.len() {
            0 => sockets::bind(*address, cores).map_err(failed)?,
            count => {
                tracing::info!(%address, sockets = count, "uses inherited sockets");
                (*address, passed)
            }
        };
        bound.push(at);
        for (core, own) in by_core.iter_mut().zip(sockets::share(opened, cores).map_err(failed)?) {
            core.extend(own);
        }
    }
    Ok((bound, by_core))
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<(SocketAddr, tokio::net::TcpListener), RunError> {
    let failed = |source| RunError::Listen { address, purpose, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Takes renewed certificates into use.
async fn refresh(
    web: Option<Arc<WebCertificate>>,
    cluster: Arc<ArcSwap<ClusterTls>>,
    directory: PathBuf,
    cluster_id: uuid::Uuid,
    ending: Shutdown,
) {
    let stamp = || std::fs::metadata(directory.join("cert.pem")).and_then(|metadata| metadata.modified()).ok();
    let mut seen = stamp();
    loop {
        tokio::select! {
            () = ending.requested() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
        if let Some(web) = &web {
            web.refresh();
        }
        let now = stamp();
        if now != seen {
            match ClusterTls::load(&directory, cluster_id) {
                Ok(new) => {
                    cluster.store(Arc::new(new));
                    seen = now;
                }
                // The three files may be half renewed; they are read again next time.
                Err(error) => tracing::warn!(error = %chain(&error), "new cluster credentials are not usable yet"),
            }
        }
    }
}

/// Where route services may be.
fn service_egress(config: &RouterConfig) -> EgressGuard {
    EgressGuard::new(&config.route_service_networks).unwrap_or_else(|network| {
        // A configuration is checked before it comes here.
        tracing::error!(
            network,
            "route_service_networks names no network here; route services are at public addresses only"
        );
        EgressGuard::default()
    })
}

/// Whose word about others is believed.
fn forwarding(config: &RouterConfig) -> Forwarding {
    let made = Forwarding::new(config.trusted_proxies.as_deref(), config.force_forwarded_proto_https);
    made.unwrap_or_else(|network| {
        // A configuration is checked before it comes here.
        tracing::error!(network, "trusted_proxies names no network here; nobody is believed");
        Forwarding::new(Some(&[]), config.force_forwarded_proto_https).unwrap_or_default()
    })
}

/// TLS toward route services: a certificate of an authority that the host trusts, HTTP/1.1.
fn service_tls(config: &RouterConfig) -> Result<Arc<rustls::ClientConfig>, RunError> {
    let mut roots = rustls::RootCertStore::empty();
    // A host's bundle may hold a certificate that is beyond this library; the others serve.
    let (used, left) =
        roots.add_parsable_certificates(slipway_protocol::web_roots::load(config.trusted_authorities.as_deref())?);
    tracing::debug!(used, left, "certificate authorities of the web");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RunError::ServiceTls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}
