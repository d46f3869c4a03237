//! The other end of [`dial`](crate::dial): a port at which only members of the cluster are spoken to, with what each is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use uuid::Uuid;

use crate::dial::DialError;
use crate::identity::{Credentials, PeerIdentity};

/// How long a handshake may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The own credentials, ready to answer members of one cluster.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    cluster: Uuid,
}

impl Acceptor {
    /// Over these credentials, for members of their cluster. The client's choice among `protocols` (ALPN) is in the stream.
    ///
    /// # Errors
    /// When they are damaged or name no member.
    pub fn new(credentials: &Credentials, protocols: &[&[u8]]) -> Result<Self, DialError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(credentials.authority_pem.as_bytes())?)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let chain =
            CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.expose().as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { tls: TlsAcceptor::from(Arc::new(config)), cluster: credentials.own_identity()?.cluster })
    }

    /// Ends the TLS of one connection, and tells who the other end is.
    ///
    /// # Errors
    /// When the handshake takes longer than 5 s, or the other end is no member of this cluster.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(TlsStream<TcpStream>, PeerIdentity)> {
        let stream = tokio::time::timeout(TIMEOUT, self.tls.accept(tcp)).await??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or_else(|| io::Error::other("no certificate was shown"))?;
        let peer = PeerIdentity::from_der(certificate).map_err(io::Error::other)?;
        if peer.cluster != self.cluster {
            return Err(io::Error::other(format!("{} {} is of cluster {}", peer.role, peer.id, peer.cluster)));
        }
        Ok((stream, peer))
    }
}

#[cfg(test)]
mod tests {
    use rustls::ClientConfig;
    use rustls_pki_types::ServerName;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::dial::{Dialer, ExpectedPeer};
    use crate::identity::{CLUSTER_DNS_NAME, ClusterAuthority, Role};

    #[tokio::test]
    async fn the_member_and_its_protocol_are_reported() {
        let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let issue = |role, id| authority.issue(role, id, &[]).expect("credentials");
        let acceptor =
            Acceptor::new(&issue(Role::Controller, Uuid::new_v4()), &[b"h2", b"http/1.1"]).expect("acceptor");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        for (role, alpn) in [(Role::Router, &b"http/1.1"[..]), (Role::Cell, b"h2")] {
            let id = Uuid::new_v4();
            let dialer = Dialer::new(&issue(role, id)).expect("a dialler");
            let accept = async { acceptor.accept(listener.accept().await.expect("accept").0).await };
            let (dialled, accepted) = tokio::join!(dialer.dial(address, ExpectedPeer::CONTROLLER, alpn), accept);
            let (stream, peer) = accepted.expect("a member");
            dialled.expect("dialled");
            assert_eq!((peer.role, peer.id), (role, id));
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        }
    }

    #[tokio::test]
    async fn peers_without_a_member_s_certificate_are_refused() {
        let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let (other, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let own = authority.issue(Role::Controller, Uuid::new_v4(), &[]).expect("credentials");
        let acceptor = Acceptor::new(&own, &[b"h2"]).expect("acceptor");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        // Trusts everybody, as a dialler of the cluster does not, and shows another cluster's certificate or none.
        let stranger = other.issue(Role::Router, Uuid::new_v4(), &[]).expect("credentials");
        for shown in [Some(stranger), None] {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(own.authority_pem.as_bytes()).expect("a certificate"))
                .expect("a root");
            let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots);
            let mut config = match shown {
                Some(shown) => {
                    let chain =
                        CertificateDer::from_pem_slice(shown.certificate_pem.as_bytes()).expect("a certificate");
                    let key = PrivateKeyDer::from_pem_slice(shown.key_pem.expose().as_bytes()).expect("a key");
                    config.with_client_auth_cert(vec![chain], key).expect("they fit")
                }
                None => config.with_no_client_auth(),
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            let dial = async {
                let tcp = TcpStream::connect(address).await.expect("connect");
                let name = ServerName::try_from(CLUSTER_DNS_NAME).expect("a name");
                TlsConnector::from(Arc::new(config)).connect(name, tcp).await
            };
            let accept = async { acceptor.accept(listener.accept().await.expect("accept").0).await };
            let (_dialled, accepted) = tokio::join!(dial, accept);
            accepted.expect_err("a stranger");
        }
    }
}
