//! Who is who inside the cluster: one certificate authority, certificates bound to a role and an id.
//!
//! The role and id travel as a URI name in the certificate, `slipway://<cluster>/<role>/<id>`. TLS proves that the
//! cluster's authority signed it; [`PeerIdentity::from_der`] reads it; every service checks the role itself, so a
//! cell's certificate opens nothing that belongs to a router.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use slipway_chassis::files::{self, Durability};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use uuid::Uuid;

/// Every certificate carries this DNS name, so that a peer can be dialled by address.
pub const CLUSTER_DNS_NAME: &str = "slipway.internal";

/// What a certificate's owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Owns Postgres and every decision.
    Controller,
    /// Runs workloads on one host.
    Cell,
    /// Proxies requests.
    Router,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Cell => "cell",
            Self::Router => "router",
        })
    }
}

impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "controller" => Ok(Self::Controller),
            "cell" => Ok(Self::Cell),
            "router" => Ok(Self::Router),
            other => Err(IdentityError::Name(format!("unknown role {other:?}"))),
        }
    }
}

/// Why an identity could not be made, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key or certificate could not be made or parsed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate carries no usable cluster name.
    #[error("the certificate does not name a member of a cluster: {0}")]
    Name(String),
    /// No certificate was shown.
    #[error("the peer showed no certificate of the cluster's authority")]
    Anonymous,
    /// A member of the cluster, but not one that may do this.
    #[error("a {found} may not do this; only a {wanted} may")]
    WrongRole {
        /// Role of the caller.
        found: Role,
        /// Role that is needed.
        wanted: Role,
    },
}

/// The cluster's own certificate authority. The private key exists in one place: where members are admitted.
pub struct ClusterAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    cluster: Uuid,
}

impl ClusterAuthority {
    /// Makes a new authority for a cluster.
    ///
    /// # Errors
    /// When no key can be generated.
    pub fn generate(cluster: Uuid) -> Result<(Self, KeyPem), IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("Slipway cluster {cluster}"));
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = KeyPem(key.serialize_pem());
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok((Self { certificate_pem, issuer, cluster }, key_pem))
    }

    /// Loads an authority from its two files.
    ///
    /// # Errors
    /// When a file is missing or is not a certificate authority's.
    pub fn load(cluster: Uuid, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let certificate_pem = read(certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, KeyPair::from_pem(&read(key)?)?)?;
        Ok(Self { certificate_pem, issuer, cluster })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues the certificate of one member; `addresses` are IPs or DNS names beside [`CLUSTER_DNS_NAME`].
    ///
    /// # Errors
    /// When an address is not a valid name.
    pub fn issue(&self, role: Role, id: Uuid, addresses: &[String]) -> Result<Credentials, IdentityError> {
        let key = KeyPair::generate()?;
        let mut names = vec![CLUSTER_DNS_NAME.to_owned()];
        names.extend_from_slice(addresses);
        let mut params = CertificateParams::new(names)?;
        let uri = format!("slipway://{}/{role}/{id}", self.cluster);
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        params.distinguished_name.push(DnType::CommonName, format!("{role} {id}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            authority_pem: self.certificate_pem.clone(),
            certificate_pem: certificate.pem(),
            key_pem: KeyPem(key.serialize_pem()),
        })
    }

    /// Issues a certificate for serving HTTPS to end users (no cluster role), e.g. for `*.slipway.localhost`.
    ///
    /// # Errors
    /// When a name is not a valid DNS name.
    pub fn issue_web(&self, names: &[String]) -> Result<(String, KeyPem), IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("slipway", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), KeyPem(key.serialize_pem())))
    }
}

/// A private key in PEM; refuses to print itself.
#[derive(Clone)]
pub struct KeyPem(String);

impl KeyPem {
    pub(crate) fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(…)")
    }
}

/// What a member needs to speak: the authority, its own certificate and key.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// PEM of the authority's certificate.
    pub authority_pem: String,
    /// PEM of the own certificate.
    pub certificate_pem: String,
    /// PEM of the own key.
    pub key_pem: KeyPem,
}

impl Credentials {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` from one directory.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        Ok(Self {
            authority_pem: read(&directory.join("ca.pem"))?,
            certificate_pem: read(&directory.join("cert.pem"))?,
            key_pem: KeyPem(read(&directory.join("key.pem"))?),
        })
    }

    /// Writes the three files, the key with mode 0600.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(file(directory))?;
        for (name, text) in
            [("ca.pem", &self.authority_pem), ("cert.pem", &self.certificate_pem), ("key.pem", &self.key_pem.0)]
        {
            let path = directory.join(name);
            files::write(&path, text, 0o600, Durability::Whole).map_err(file(&path))?;
        }
        Ok(())
    }

    /// The identity in the own certificate.
    ///
    /// # Errors
    /// When the certificate does not name a member.
    pub fn own_identity(&self) -> Result<PeerIdentity, IdentityError> {
        use rustls_pki_types::pem::PemObject as _;
        let der = rustls_pki_types::CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| IdentityError::Name(error.to_string()))?;
        PeerIdentity::from_der(&der)
    }

    /// TLS for a gRPC server: only members of this cluster get in.
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate_pem, self.key_pem.expose()))
            .client_ca_root(Certificate::from_pem(&self.authority_pem))
    }
}

/// Who the other end is, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster: Uuid,
    /// What it is.
    pub role: Role,
    /// Which one it is.
    pub id: Uuid,
}

impl PeerIdentity {
    /// Reads the identity from a verified certificate (DER).
    ///
    /// # Errors
    /// When there is no `slipway://` name in it, or a malformed one.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| IdentityError::Name(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::Name(error.to_string()))?
            .ok_or_else(|| IdentityError::Name("no alternative names".to_owned()))?;
        let uri = names.value.general_names.iter().find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix("slipway://"),
            _ => None,
        });
        let uri = uri.ok_or_else(|| IdentityError::Name("no slipway:// name".to_owned()))?;
        let bad = || IdentityError::Name(format!("malformed name {uri:?}"));
        let mut parts = uri.split('/');
        let (Some(cluster), Some(role), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            cluster: cluster.parse().map_err(|_| bad())?,
            role: role.parse()?,
            id: id.parse().map_err(|_| bad())?,
        })
    }

    /// The IP addresses that a verified certificate (DER) names; none of one that cannot be read.
    #[must_use]
    pub fn addresses(der: &[u8]) -> Vec<IpAddr> {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return Vec::new() };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
        let address = |name: &x509_parser::extensions::GeneralName<'_>| match name {
            x509_parser::extensions::GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_canonical()),
            },
            _ => None,
        };
        names.value.general_names.iter().filter_map(address).collect()
    }

    /// The identity behind a gRPC request, which must have the wanted role.
    ///
    /// # Errors
    /// [`tonic::Status`] `unauthenticated` or `permission_denied`.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub fn of_request<T>(request: &tonic::Request<T>, wanted: Role) -> Result<Self, tonic::Status> {
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|list| list.first());
        let Some(first) = first else {
            return Err(tonic::Status::unauthenticated(IdentityError::Anonymous.to_string()));
        };
        let identity = Self::from_der(first).map_err(|error| tonic::Status::unauthenticated(error.to_string()))?;
        if identity.role != wanted {
            let error = IdentityError::WrongRole { found: identity.role, wanted };
            return Err(tonic::Status::permission_denied(error.to_string()));
        }
        Ok(identity)
    }
}

pub(crate) fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_member() {
        let cluster = Uuid::new_v4();
        let id = Uuid::new_v4();
        let (authority, _) = ClusterAuthority::generate(cluster).expect("authority");
        let credentials = authority.issue(Role::Cell, id, &["127.0.0.1".to_owned()]).expect("credentials");
        let identity = credentials.own_identity().expect("identity");
        assert_eq!(identity, PeerIdentity { cluster, role: Role::Cell, id });
    }

    #[test]
    fn a_certificate_tells_its_addresses() {
        use rustls_pki_types::pem::PemObject as _;
        let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let names = ["10.1.2.3", "fd00::1", "a.test"].map(str::to_owned);
        let credentials = authority.issue(Role::Cell, Uuid::new_v4(), &names).expect("credentials");
        let der =
            rustls_pki_types::CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).expect("der");
        let expected: [IpAddr; 2] = ["10.1.2.3", "fd00::1"].map(|text| text.parse().expect("an address"));
        assert_eq!(PeerIdentity::addresses(&der), expected);
        assert!(PeerIdentity::addresses(b"rubbish").is_empty());
    }

    #[test]
    fn a_web_certificate_identifies_no_member() {
        use rustls_pki_types::pem::PemObject as _;
        let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        let (pem, _) = authority.issue_web(&["*.example.test".to_owned()]).expect("web");
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("der");
        assert!(PeerIdentity::from_der(&der).is_err());
    }

    #[test]
    fn keys_do_not_print() {
        let (_, key) = ClusterAuthority::generate(Uuid::new_v4()).expect("authority");
        assert_eq!(format!("{key:?}"), "KeyPem(…)");
    }
}
