//! Certificate authorities of the web, as this host knows them, for parts that call services of developers.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Where distributions keep them: Debian, Red Hat, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read as PEM certificates")]
pub struct WebRootsError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: rustls_pki_types::pem::Error,
}

/// The host's authorities (`SSL_CERT_FILE`, else the first bundle that is there), and those of `more`. A host without
/// any bundle trusts nobody but `more`.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn load(more: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, WebRootsError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let mut roots = Vec::new();
    for path in bundle.iter().map(PathBuf::as_path).chain(more) {
        let failed = |source| WebRootsError { path: path.to_owned(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.push(certificate.map_err(failed)?);
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("roots.pem");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        std::fs::write(&path, pem).expect("write");
        let error = load(Some(&path)).expect_err("half a certificate");
        assert_eq!(error.path, path);
        let error = load(Some(&directory.path().join("absent"))).expect_err("absent");
        assert!(error.to_string().contains("absent"));
    }
}
