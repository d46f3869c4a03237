//! The certificate for clients, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use slipway_chassis::chain;

/// HTTP/2 as TLS names it.
pub(crate) const HTTP2: &[u8] = b"h2";

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebTlsError {
    /// Missing, or not PEM of the right kind.
    #[error("{path} cannot be read as PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls_pki_types::pem::Error,
    },
    /// An unknown kind of key, or one of another certificate.
    #[error("private key {key} does not match certificate {certificate}")]
    Key {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// No protocol version is left.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The default certificate and its files.
#[derive(Debug)]
pub(crate) struct WebCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    seen: std::sync::Mutex<Option<[SystemTime; 2]>>,
}

impl WebCertificate {
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, WebTlsError> {
        let seen = modified(certificate, key);
        let current = ArcSwap::from_pointee(read(certificate, key)?);
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Arc::new(Self { certificate, key, current, seen: std::sync::Mutex::new(seen) }))
    }

    /// Reads the files again if they changed. Files that do not fit together (half a renewal) leave the old certificate.
    pub(crate) fn refresh(&self) {
        let now = modified(&self.certificate, &self.key);
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now == *seen {
            return;
        }
        match read(&self.certificate, &self.key) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(path = %self.certificate.display(), "new certificate in force");
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the new certificate is not used; the old one stays"),
        }
        *seen = now;
    }

    /// TLS for the listeners: HTTP/2 and 1.1, TLS 1.2 and 1.3.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, WebTlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(WebTlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(WebTlsError::Setup)?;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for WebCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn modified(certificate: &Path, key: &Path) -> Option<[SystemTime; 2]> {
    let at = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    Some([at(certificate)?, at(key)?])
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, WebTlsError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| WebTlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider())
        .map_err(|source| WebTlsError::Key { certificate: certificate.to_owned(), key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use slipway_protocol::ClusterAuthority;

    use super::*;

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let (certificate, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        let (authority, _) = ClusterAuthority::generate(uuid::Uuid::new_v4()).expect("authority");
        let mut stamp = SystemTime::UNIX_EPOCH;
        let mut write = |certificate_pem: &str, key_pem: &str| {
            std::fs::write(&certificate, certificate_pem).expect("write");
            std::fs::write(&key, key_pem).expect("write");
            stamp += std::time::Duration::from_secs(60);
            std::fs::File::options().write(true).open(&key).and_then(|file| file.set_modified(stamp)).expect("stamp");
        };
        let issue = || authority.issue_web(&["*.x.test".to_owned()]).expect("issue");
        let (first, first_key) = issue();
        write(&first, first_key.expose());
        let web = WebCertificate::load(&certificate, &key).expect("load");
        let shown = || web.current.load().cert[0].to_vec();
        let before = shown();
        let (second, second_key) = issue();
        write(&second, "-----BEGIN nonsense");
        web.refresh();
        assert_eq!(shown(), before);
        write(&second, first_key.expose());
        web.refresh();
        assert_eq!(shown(), before, "the key of another certificate");
        write(&second, second_key.expose());
        web.refresh();
        assert_ne!(shown(), before);
        assert!(WebCertificate::load(&directory.path().join("none"), &key).is_err());
    }
}
