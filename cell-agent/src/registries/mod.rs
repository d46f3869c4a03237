//! A caching proxy for package registries, on the host's side of builds. A build is a stranger's code and gets no credential; where
//! the operator names registries in a file, the agent asks them in its stead, adds the credential outside the sandbox, and keeps
//! what it fetched, checked, for all builds of the cell.
//!
//! From the outside in: `server` (who may connect), `guests` (the builds that may), `paths` (what can be asked for at all), `handler`
//! (what is answered) and `answers` (in which form), `npm`, `pypi` and `html` (documents and where they lead), `fetch` (once for
//! all who ask), `store` (the disk), `upstream` (registries, redirects, credentials). `file` is the operator's file.

mod answers;
mod credential;
mod digests;
mod fault;
mod fetch;
mod file;
mod freshness;
mod guests;
mod handler;
mod html;
mod npm;
mod order;
mod paths;
mod pypi;
mod server;
mod store;
mod upstream;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_chassis::Shutdown;
use slipway_chassis::config::ConfigError;
use tokio::net::TcpListener;
use uuid::Uuid;

use self::fetch::Fetcher;
pub use self::file::{NpmSettings, RegistriesFile, RegistrySettings};
pub use self::guests::Admission;
use self::guests::Guests;
use self::handler::RequestHandler;
use self::npm::Npm;
use self::pypi::Pypi;
pub use self::server::ReportLine;
use self::store::Store;
use self::upstream::{Registry, Upstream};
use crate::config::CellConfig;
use crate::logs::Logs;
use crate::staging::host_settings::{OutgoingSettings, ProxyAddresses};

/// Where the cache is, below the state directory.
const CACHE: &str = "registries";
const USUAL_LIMIT: u64 = 8 << 30;

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// The operator's file.
    #[error("the file of the registries cannot be used")]
    File(#[from] ConfigError),
    /// The cache's directory.
    #[error("the cache of registries at {path} cannot be used")]
    Cache {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The address that builds reach.
    #[error(
        "cannot listen on {address} for builds: another program uses the port; set another `port` in the section [registries] of cell.toml"
    )]
    Listen {
        /// The address.
        address: SocketAddrV4,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificates or a proxy of this host.
    #[error("this host's certificates or its proxy cannot be used for requests to registries")]
    Client(#[from] reqwest::Error),
    /// A value that the check of the file has let pass.
    #[error("the file of the registries cannot be used: {0}")]
    Value(String),
}

/// The proxy of a cell.
#[derive(Debug)]
pub struct Registries {
    guests: Arc<Guests>,
    proxy: ProxyAddresses,
}

/// What the proxy is made of.
pub struct Setup<'a> {
    /// The operator's file.
    pub file: &'a Path,
    /// Where builds reach the proxy: the bridge's own address, and a port.
    pub address: SocketAddrV4,
    /// The cell's state directory.
    pub state: &'a Path,
    /// How this host reaches registries.
    pub way_out: &'a OutgoingSettings,
    /// Says a line to a build, in its log.
    pub say: ReportLine,
}

impl Registries {
    /// The proxy of a cell, where its operator wants one. The bridge must have its address already.
    pub(crate) async fn of_cell(
        config: &CellConfig,
        logs: &Arc<Logs>,
        shutdown: &Shutdown,
    ) -> Result<Option<Self>, RegistriesError> {
        let (Some(door), Some(gateway)) = (&config.registries, config.gateway()) else { return Ok(None) };
        let logs = Arc::clone(logs);
        let setup = Setup {
            file: &door.file,
            address: SocketAddrV4::new(gateway, door.port),
            state: &config.state_directory,
            way_out: &OutgoingSettings::collect(),
            say: Arc::new(move |build, line| logs.say(build, line)),
        };
        Self::start(setup, shutdown).await.map(Some)
    }

    /// Listens, and serves the builds that are admitted until shutdown.
    ///
    /// # Errors
    /// When the file makes no sense, or this host refuses.
    pub async fn start(setup: Setup<'_>, shutdown: &Shutdown) -> Result<Self, RegistriesError> {
        let file = RegistriesFile::read(setup.file)?;
        for problem in file.unusable() {
            tracing::error!(problem, "a credential of a registry cannot be read: builds will not get its packages");
        }
        for path in file.open_files(setup.file) {
            tracing::warn!(path = %path.display(), "other accounts of this machine may read this file: chmod 600");
        }
        let root = setup.state.join(CACHE);
        let limit = file.cache_mb.map_or_else(|| usual_limit(setup.state), |mb| mb << 20);
        let opened = Store::open(&root, limit, file.offline);
        let store = Arc::new(opened.map_err(|source| RegistriesError::Cache { path: root, source })?);

        let listener = TcpListener::bind(setup.address).await;
        let listener = listener.map_err(|source| RegistriesError::Listen { address: setup.address, source })?;
        let address = match listener.local_addr() {
            Ok(std::net::SocketAddr::V4(address)) => address,
            _ => setup.address,
        };
        let (npm, pypi) = registries(&file, address).map_err(RegistriesError::Value)?;
        let npm_registries = npm.iter().flat_map(|npm| npm.scopes.values().chain([&npm.usual]));
        let registries: Vec<_> = npm_registries.chain(pypi.iter().map(|pypi| &pypi.registry)).map(Arc::clone).collect();
        let upstream = Upstream::new(setup.way_out, &registries)?;
        let proxy = ProxyAddresses {
            host: *address.ip(),
            npm: npm.as_ref().map(|npm| npm.door.clone()),
            npm_scopes: npm.iter().flat_map(|npm| npm.scopes.keys().cloned()).collect(),
            npm_replaced_host: file.npm.as_ref().map(NpmSettings::replaced_host).unwrap_or_default(),
            pypi: pypi.as_ref().map(|_| format!("http://{address}/pypi/simple/")),
        };
        tracing::info!(
            %address,
            registries = registries.iter().map(|registry| registry.base.as_str()).collect::<Vec<_>>().join(" "),
            cache_mb = limit >> 20,
            offline = file.offline,
            "builds reach registries by this cell"
        );
        let handler = Arc::new(RequestHandler::new(Fetcher::new(store, upstream, file.offline), npm, pypi));
        let guests = Arc::new(Guests::new(setup.say));
        shutdown.spawn(server::serve(listener, Arc::clone(&guests), handler, shutdown.clone()));
        Ok(Self { guests, proxy })
    }

    /// Lets a build ask until the value is dropped.
    #[must_use]
    pub fn admit(&self, address: Ipv4Addr, build: Uuid) -> Admission {
        self.guests.admit(address, build)
    }

    /// What a build was told of faults, for those who ask why it failed: package managers keep some of it to themselves. Once.
    #[must_use]
    pub fn take_reported(&self, build: Uuid) -> BTreeSet<String> {
        self.guests.take_reported(build)
    }

    /// What builds are told of it.
    #[must_use]
    pub fn proxy(&self) -> &ProxyAddresses {
        &self.proxy
    }
}

fn registries(file: &RegistriesFile, address: SocketAddrV4) -> Result<(Option<Npm>, Option<Pypi>), String> {
    let registry = |name: String, settings: &RegistrySettings, base| {
        let (credential, file_hosts) = (settings.credential()?, settings.file_hosts.clone());
        Ok::<_, String>(Arc::new(Registry { name, base, credential, file_hosts }))
    };
    let npm = |registries: &NpmSettings| {
        let scopes = registries.scopes.iter().map(|(scope, settings)| {
            let base = RegistriesFile::npm_base(settings)?;
            Ok((scope.clone(), registry(format!("npm scope {scope}"), settings, base)?))
        });
        let usual = registry("npm".to_owned(), &registries.settings, RegistriesFile::npm_base(&registries.settings)?)?;
        Ok::<_, String>(Npm {
            usual,
            scopes: scopes.collect::<Result<_, String>>()?,
            door: format!("http://{address}/npm/"),
        })
    };
    let pypi = |settings: &RegistrySettings| {
        let registry = registry("pypi".to_owned(), settings, RegistriesFile::pypi_base(settings)?)?;
        Ok::<_, String>(Pypi { registry, door: format!("http://{address}/pypi/files/") })
    };
    Ok((file.npm.as_ref().map(npm).transpose()?, file.pypi.as_ref().map(pypi).transpose()?))
}

fn usual_limit(state: &Path) -> u64 {
    let Ok(stat) = nix::sys::statvfs::statvfs(state) else { return USUAL_LIMIT };
    #[allow(clippy::useless_conversion, reason = "the width of these fields differs between targets")]
    let all = u64::from(stat.blocks()).saturating_mul(u64::from(stat.fragment_size()));
    USUAL_LIMIT.min(all / 10)
}
