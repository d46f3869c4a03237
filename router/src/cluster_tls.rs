//! Mutual TLS with controllers, the only members that a router dials.

use std::net::SocketAddr;
use std::path::Path;

use slipway_protocol::Credentials;
use slipway_protocol::dial::{DialError, Dialer, ExpectedPeer};
use slipway_protocol::identity::IdentityError;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use crate::keepalive::keep_alive;

/// The router's own credentials, ready to dial.
pub(crate) struct ClusterTls(Dialer);

impl ClusterTls {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// When they are missing, damaged, do not fit together or are of another cluster.
    pub(crate) fn load(directory: &Path, cluster: Uuid) -> Result<Self, DialError> {
        let credentials = Credentials::load(directory)?;
        let own = credentials.own_identity()?;
        if own.cluster != cluster {
            let found = format!("it is of cluster {}; this router's configuration says {cluster}", own.cluster);
            return Err(IdentityError::Name(found).into());
        }
        Ok(Self(Dialer::new(&credentials)?))
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
        let stream = self.0.dial(address, ExpectedPeer::CONTROLLER, alpn).await?;
        keep_alive(stream.get_ref().0).map_err(|source| DialError::Io { address, source })?;
        Ok(stream)
    }
}
