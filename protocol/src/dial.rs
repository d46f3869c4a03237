//! Dials members of the cluster. The authority's signature says that the peer is a member, the name in the certificate says
//! which one, and the caller says which one it expects: a cell that was broken into cannot pose as a controller or as another
//! cell. The peer is checked during the handshake, before the own certificate is shown and before anything is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::identity::{CLUSTER_DNS_NAME, Credentials, IdentityError, PeerIdentity, Role};

/// How long connection and handshake may take together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The peer that a dialler expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// What it must be.
    pub role: Role,
    /// Which one; `None` = any of them.
    pub id: Option<Uuid>,
}

impl ExpectedPeer {
    /// Any controller: all of them are equal.
    pub const CONTROLLER: Self = Self { role: Role::Controller, id: None };

    fn is(&self, cluster: Uuid, peer: &PeerIdentity) -> bool {
        peer.cluster == cluster && peer.role == self.role && self.id.is_none_or(|id| id == peer.id)
    }
}

impl std::fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "the {} {id}", self.role),
            None => write!(f, "a {}", self.role),
        }
    }
}

/// A member of the cluster could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The own credentials cannot be read.
    #[error("the cluster credentials cannot be read")]
    Credentials(#[from] IdentityError),
    /// The own credentials are damaged.
    #[error("the cluster credentials are not usable")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The own credentials do not fit together.
    #[error("the cluster credentials are not usable")]
    Tls(#[from] rustls::Error),
    /// The authority's certificate cannot be used.
    #[error("the certificate of the cluster's authority is not usable")]
    Authority(#[from] rustls::client::VerifierBuilderError),
    /// Not reachable, or not the one that is meant.
    #[error("cannot connect to {address}")]
    Io {
        /// The other end.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// The own credentials, ready to dial members of one cluster.
#[derive(Clone, Debug)]
pub struct Dialer {
    verifier: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    cluster: Uuid,
}

impl Dialer {
    /// Over these credentials, for members of their cluster.
    ///
    /// # Errors
    /// When they are damaged or name no member.
    pub fn new(credentials: &Credentials) -> Result<Self, DialError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(credentials.authority_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        let chain =
            CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = Arc::new(PrivateKeyDer::from_pem_slice(credentials.key_pem.expose().as_bytes())?);
        let dialer = Self { verifier, chain, key, cluster: credentials.own_identity()?.cluster };
        // Key and certificate that do not fit together are told here and not at each connection.
        dialer.config(ExpectedPeer::CONTROLLER, b"h2")?;
        Ok(dialer)
    }

    fn config(&self, wanted: ExpectedPeer, alpn: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let verifier = MemberVerifier { signed: Arc::clone(&self.verifier), cluster: self.cluster, wanted };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// Connects by this ALPN protocol to the member that is meant.
    ///
    /// # Errors
    /// When nobody answers within 5 s, or somebody else.
    pub async fn dial(
        &self,
        address: SocketAddr,
        wanted: ExpectedPeer,
        alpn: &[u8],
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let failed = |source| DialError::Io { address, source };
        let config = Arc::new(self.config(wanted, alpn)?);
        let name = ServerName::try_from(CLUSTER_DNS_NAME).map_err(|error| failed(std::io::Error::other(error)))?;
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config).connect(name, tcp).await
        };
        let late = |_| failed(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(TIMEOUT, connect).await.map_err(late)?.map_err(failed)
    }

    /// A gRPC channel that connects when it is used, and again when the connection is lost. `settings` adds what the caller
    /// wants of the endpoint: time limits, keep-alive.
    ///
    /// # Errors
    /// When the address cannot stand in a URI.
    pub fn channel(
        &self,
        address: SocketAddr,
        wanted: ExpectedPeer,
        settings: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, tonic::transport::Error> {
        let dialer = self.clone();
        let connector = tower::service_fn(move |_| {
            let dialer = dialer.clone();
            async move { dialer.dial(address, wanted, b"h2").await.map(TokioIo::new) }
        });
        // TLS is the connector's, so the address is one without it.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(settings(endpoint).connect_with_connector_lazy(connector))
    }
}

/// Accepts what the authority signed and names the wanted member.
#[derive(Debug)]
struct MemberVerifier {
    signed: Arc<WebPkiServerVerifier>,
    cluster: Uuid,
    wanted: ExpectedPeer,
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let refused = |what: String| rustls::Error::General(format!("{what}; {} is meant", self.wanted));
        match PeerIdentity::from_der(end_entity) {
            Ok(peer) if self.wanted.is(self.cluster, &peer) => Ok(verified),
            Ok(peer) => {
                Err(refused(format!("the {} {} of cluster {} answers there", peer.role, peer.id, peer.cluster)))
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ClusterAuthority;
    use rustls::ServerConfig;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// Answers one connection with these credentials; tells whether the client went through with the handshake.
    async fn member(credentials: &Credentials) -> (SocketAddr, tokio::task::JoinHandle<bool>) {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.expose().as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let answered = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.expect("accept");
            TlsAcceptor::from(Arc::new(config)).accept(tcp).await.is_ok()
        });
        (address, answered)
    }

    #[tokio::test]
    async fn only_the_expected_member_is_dialled() {
        let (cluster, id) = (Uuid::new_v4(), Uuid::new_v4());
        let (authority, _) = ClusterAuthority::generate(cluster).expect("authority");
        let issue = |role, id| authority.issue(role, id, &["127.0.0.1".to_owned()]).expect("credentials");
        let dialer = Dialer::new(&issue(Role::Controller, Uuid::new_v4())).expect("a dialler");
        let any = |role| ExpectedPeer { role, id: None };
        let one = |role, id| ExpectedPeer { role, id: Some(id) };
        for (shown, wanted, good) in [
            (issue(Role::Controller, id), ExpectedPeer::CONTROLLER, true),
            (issue(Role::Cell, id), ExpectedPeer::CONTROLLER, false),
            (issue(Role::Router, id), ExpectedPeer::CONTROLLER, false),
            (issue(Role::Cell, id), one(Role::Cell, id), true),
            (issue(Role::Cell, id), any(Role::Cell), true),
            (issue(Role::Cell, id), one(Role::Cell, Uuid::new_v4()), false),
            (issue(Role::Router, id), one(Role::Cell, id), false),
        ] {
            let (address, answered) = member(&shown).await;
            let dialled = dialer.dial(address, wanted, b"h2").await;
            assert_eq!(dialled.is_ok(), good, "{wanted}: {dialled:?}");
            if let Err(error) = &dialled {
                let cause = std::error::Error::source(error).expect("a cause").to_string();
                assert!(cause.contains("is meant") && cause.contains(&id.to_string()), "{cause}");
            }
            drop(dialled);
            assert_eq!(answered.await.expect("it ended"), good, "{wanted}");
        }
    }

    #[tokio::test]
    async fn certificates_of_another_cluster_or_of_the_web_are_refused() {
        let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let (other, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let own = authority.issue(Role::Cell, Uuid::new_v4(), &[]).expect("credentials");
        let dialer = Dialer::new(&own).expect("a dialler");
        let foreign = other.issue(Role::Controller, Uuid::new_v4(), &[]).expect("credentials");
        let (certificate_pem, key_pem) =
            authority.issue_web(&[CLUSTER_DNS_NAME.to_owned()]).expect("a web certificate");
        let web = Credentials { authority_pem: own.authority_pem.clone(), certificate_pem, key_pem };
        for shown in [foreign, web] {
            let (address, answered) = member(&shown).await;
            assert!(dialer.dial(address, ExpectedPeer::CONTROLLER, b"h2").await.is_err());
            assert!(!answered.await.expect("it ended"));
        }
    }
}
