//! The authority for what end users see: the platform's names over HTTPS. It is not the cluster's ([`crate::identity`]).
//!
//! Users are told to trust it, so its certificate says for which domain it may speak: whoever gets hold of its key is no
//! other site of the web for them, and no member of the cluster.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints,
};

use crate::identity::{IdentityError, KeyPem, read};

/// See the module.
pub struct WebAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl WebAuthority {
    /// Makes a new one, for this domain and all names below it.
    ///
    /// # Errors
    /// When no key can be generated, or the domain is no name.
    pub fn generate(domain: &str) -> Result<(Self, KeyPem), IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("Slipway web of {domain}"));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            // A permitted name says nothing of addresses.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = KeyPem::new(key.serialize_pem());
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok((Self { certificate_pem, issuer }, key_pem))
    }

    /// Loads one from its two files.
    ///
    /// # Errors
    /// When a file is missing or is not a certificate authority's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let certificate_pem = read(certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, KeyPair::from_pem(&read(key)?)?)?;
        Ok(Self { certificate_pem, issuer })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for these names and its key.
    ///
    /// # Errors
    /// When one is not a valid DNS name.
    pub fn issue(&self, names: &[String]) -> Result<(String, KeyPem), IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("slipway", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), KeyPem::new(key.serialize_pem())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    fn accepted(authority: &WebAuthority, certified: &str, asked: &str) -> bool {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(authority.certificate_pem())).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
        let (shown, _) = authority.issue(&[certified.to_owned()]).expect("issued");
        let name = ServerName::try_from(asked.to_owned()).expect("a name");
        verifier.verify_server_cert(&der(&shown), &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn the_web_authority_signs_for_its_domain_only() {
        let (authority, _) = WebAuthority::generate("slipway.test").expect("made");
        assert!(accepted(&authority, "slipway.test", "slipway.test"));
        assert!(accepted(&authority, "*.slipway.test", "app.slipway.test"));
        for (certified, asked) in [
            ("bank.example", "bank.example"),
            ("*.test", "other.test"),
            ("notslipway.test", "notslipway.test"),
            ("192.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
        ] {
            assert!(!accepted(&authority, certified, asked), "{certified}");
        }
    }
}
