//! Mutual TLS inside the cluster. The authority's signature says "a member"; the role in the certificate says which
//! kind, and a router talks to controllers only: a cell that was broken into cannot pose as one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use slipway_protocol::identity::{CLUSTER_DNS_NAME, IdentityError};
use slipway_protocol::{Credentials, PeerIdentity, Role};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use crate::keepalive::keep_alive;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A member of the cluster could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The own credentials cannot be used.
    #[error("the cluster credentials cannot be read")]
    Credentials(#[from] IdentityError),
    /// The own credentials are damaged.
    #[error("the cluster credentials are not usable")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The own credentials do not fit together.
    #[error("the cluster credentials are not usable")]
    Tls(#[from] rustls::Error),
    /// Not reachable, or the handshake failed.
    #[error("cannot connect to {address}")]
    Io {
        /// The other end.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Somebody else answers there.
    #[error("{0} is a member of the cluster, but not a controller of this one")]
    NotAController(SocketAddr),
}

/// The router's own credentials, ready to dial.
pub(crate) struct ClusterTls {
    config: ClientConfig,
    cluster: Uuid,
}

impl ClusterTls {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// When they are missing, damaged or do not fit together.
    pub(crate) fn load(directory: &Path, cluster: Uuid) -> Result<Self, DialError> {
        let credentials = Credentials::load(directory)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(credentials.authority_pem.as_bytes())?)?;
        let chain =
            CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.expose().as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { config, cluster })
    }

    /// Connects to a controller with this ALPN protocol.
    ///
    /// # Errors
    /// When it does not answer within 5 s, or is not a controller of this cluster.
    pub(crate) async fn dial_controller(
        &self,
        address: SocketAddr,
        alpn: &'static [u8],
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let failed = |source| DialError::Io { address, source };
        let mut config = self.config.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(CLUSTER_DNS_NAME).map_err(|error| failed(std::io::Error::other(error)))?;
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            keep_alive(&tcp)?;
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await
        };
        let late = |_| failed(std::io::ErrorKind::TimedOut.into());
        let stream = tokio::time::timeout(TIMEOUT, connect).await.map_err(late)?.map_err(failed)?;
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        match peer.map(|certificate| PeerIdentity::from_der(certificate)) {
            Some(Ok(peer)) if peer.role == Role::Controller && peer.cluster == self.cluster => Ok(stream),
            _ => Err(DialError::NotAController(address)),
        }
    }
}
