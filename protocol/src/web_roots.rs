//! Certificate authorities of the web, as this host knows them, for parts that call services of developers.

use std::path::{Path, PathBuf};

use rustls_native_certs::CertificateResult;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Variables by which an operator names the host's authorities.
const NAMED: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebRootsError {
    /// What the host trusts cannot be read.
    #[error("the host's certificate authorities cannot be read")]
    Host(#[source] rustls_native_certs::Error),
    /// A file that is trusted beside it cannot be read.
    #[error("{path} cannot be read as PEM certificates")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
}

/// The host's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR`, else where its distribution keeps them), and those of
/// `more`. A host without any trusts nobody but `more`.
///
/// # Errors
/// When `more` or what the variables name cannot be read, or nothing of what the distribution has.
pub fn load(more: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, WebRootsError> {
    let named = NAMED.iter().any(|name| std::env::var_os(name).is_some());
    let mut roots = of_host(rustls_native_certs::load_native_certs(), named)?;
    if let Some(path) = more {
        let failed = |source| WebRootsError::File { path: path.to_owned(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.push(certificate.map_err(failed)?);
        }
    }
    Ok(roots)
}

/// A stray file in a distribution's directory is no reason to serve nobody; one that an operator has named is.
fn of_host(found: CertificateResult, named: bool) -> Result<Vec<CertificateDer<'static>>, WebRootsError> {
    let strict = named || found.certs.is_empty();
    for error in found.errors {
        if strict {
            return Err(WebRootsError::Host(error));
        }
        tracing::warn!(%error, "a file among the host's certificate authorities is left out");
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    const WHOLE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn files_without_certificates_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("roots.pem");
        std::fs::write(&path, BROKEN).expect("write");
        let error = load(Some(&path)).expect_err("half a certificate");
        assert!(matches!(error, WebRootsError::File { path: named, .. } if named == path));
        let error = load(Some(&directory.path().join("absent"))).expect_err("absent");
        assert!(error.to_string().contains("absent"));
    }

    #[test]
    fn a_stray_file_of_the_host_is_left_out_and_one_that_is_named_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let found = || rustls_native_certs::load_certs_from_paths(None, Some(directory.path()));
        assert!(of_host(found(), true).expect("no file is no error").is_empty());
        std::fs::write(directory.path().join("stray"), BROKEN).expect("write");
        assert!(matches!(of_host(found(), false), Err(WebRootsError::Host(_))), "nothing of it can be read");
        std::fs::write(directory.path().join("good"), WHOLE).expect("write");
        assert_eq!(of_host(found(), false).expect("one is good").len(), 1);
        assert!(matches!(of_host(found(), true), Err(WebRootsError::Host(_))));
    }
}
