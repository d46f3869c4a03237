//! RS256, the one algorithm of tokens: `ring` signs and checks signatures, `jsonwebtoken` reads tokens and judges claims.
//!
//! `jsonwebtoken` would bring its own arithmetic, with a release of `rsa` that leaks the key through time
//! (RUSTSEC-2023-0071), or aws-lc. So it gets ours, which knows no other algorithm: a token that names another is refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{Error as BadSignature, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a stored key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PEM of the right kind.
    #[error("invalid PEM: {0}")]
    Pem(pem::Error),
    /// No RSA key pair, or numbers that do not belong together.
    #[error("invalid private key: {0}")]
    Private(ring::error::KeyRejected),
    /// No RSA key.
    #[error("invalid public key")]
    Public,
}

/// Why a token was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims have no JSON form.
    #[error("the claims of the token cannot be encoded")]
    Claims(#[from] serde_json::Error),
    /// The numbers of the key do not belong together, or the operating system has no randomness.
    #[error("the key cannot sign")]
    Key,
}

/// The private half of a key pair. Cheap to clone.
#[derive(Clone)]
pub struct SigningKey(Arc<RsaKeyPair>);

impl SigningKey {
    /// Reads PKCS#8 in PEM.
    ///
    /// # Errors
    /// When it is no RSA key of 2048 bits or more.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let der = zeroize::Zeroizing::new(PrivatePkcs8KeyDer::from_pem_slice(text).map_err(KeyError::Pem)?);
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(KeyError::Private)?;
        Ok(Self(Arc::new(pair)))
    }

    /// A token that names this key `kid`.
    ///
    /// # Errors
    /// When the claims have no JSON form or the key is damaged.
    pub fn sign(&self, kid: &str, claims: &impl Serialize) -> Result<String, SignError> {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut token);
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| SignError::Key)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The public half of a key pair.
#[derive(Clone)]
pub struct CheckingKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    key: DecodingKey,
}

impl CheckingKey {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    /// When it is no RSA key.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(KeyError::Pem)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| KeyError::Public)?;
        let Ok(PublicKey::RSA(numbers)) = info.parsed() else { return Err(KeyError::Public) };
        let (modulus, exponent) = (digits(numbers.modulus), digits(numbers.exponent));
        // Before the first key there is nothing to check. It is refused from the second key on, when ours is there.
        let _ = PROVIDER.install_default();
        let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Ok(Self { modulus, exponent, key })
    }

    /// What a token says, if this key signed it and its claims hold.
    ///
    /// # Errors
    /// When they do not.
    pub fn check<T: DeserializeOwned>(&self, token: &str, claims: &Validation) -> jsonwebtoken::errors::Result<T> {
        Ok(jsonwebtoken::decode(token, &self.key, claims)?.claims)
    }

    /// The modulus as a JWK has it.
    #[must_use]
    pub fn modulus(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.modulus)
    }

    /// The exponent as a JWK has it.
    #[must_use]
    pub fn exponent(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.exponent)
    }
}

/// Without the zeros in front that DER puts there for the sign; `ring` and JWK want none.
fn digits(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// What `jsonwebtoken` checks signatures with. Signing and JWK are not asked of it.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(Checker(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Checker(RsaPublicKeyComponents<Vec<u8>>);

impl Verifier<Vec<u8>> for Checker {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), BadSignature> {
        self.0.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| BadSignature::new())
    }
}

impl JwtVerifier for Checker {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    // Made with `rsa` 0.9 and its arithmetic in `jsonwebtoken`. The first prime is the smaller one, as in half of the keys of
    // that release. The key is for this test alone.
    const PRIVATE: &[u8] = include_bytes!("testdata/signing-key.pem");
    const PUBLIC: &[u8] = include_bytes!("testdata/checking-key.pem");
    const TOKEN: &str = include_str!("testdata/token.txt");
    const KID: &str = "slipway-before";

    fn claims() -> Value {
        json!({
            "sub": "ann", "iss": "https://uaa.apps.test/oauth/token/one", "aud": ["cf", "cloud_controller"],
            "exp": 4_102_444_800_i64,
        })
    }

    fn validation() -> Validation {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["cloud_controller"]);
        validation.set_issuer(&["https://uaa.apps.test/oauth/token/one"]);
        validation
    }

    #[test]
    fn a_token_of_an_earlier_release_is_still_good_and_would_be_signed_alike() {
        let token = TOKEN.trim();
        let checked: Value = CheckingKey::from_pem(PUBLIC).unwrap().check(token, &validation()).unwrap();
        assert_eq!(checked, claims());
        assert_eq!(jsonwebtoken::decode_header(token).unwrap().kid.as_deref(), Some(KID));
        assert_eq!(SigningKey::from_pem(PRIVATE).unwrap().sign(KID, &claims()).unwrap(), token);
    }

    #[test]
    fn a_new_key_pair_signs_and_its_published_numbers_check() {
        let (kid, private, public) = crate::auth::keys::generate().unwrap();
        assert!(
            private.starts_with("-----BEGIN PRIVATE KEY-----\n") && public.starts_with("-----BEGIN PUBLIC KEY-----\n")
        );
        let token = SigningKey::from_pem(private.as_bytes()).unwrap().sign(&kid, &claims()).unwrap();
        let key = CheckingKey::from_pem(public.as_bytes()).unwrap();
        let [n, e] = [key.modulus(), key.exponent()].map(|number| URL_SAFE_NO_PAD.decode(number).unwrap());
        assert_eq!((n.len(), n[0] >> 7, e.as_slice()), (256, 1, &[1, 0, 1][..]));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signature).unwrap();
        assert_eq!(key.check::<Value>(&token, &validation()).unwrap(), claims());
        // Another key's signature does not count.
        assert!(key.check::<Value>(TOKEN.trim(), &validation()).is_err());
    }

    #[test]
    fn tokens_with_other_algorithms_or_claims_are_refused() {
        let key = CheckingKey::from_pem(PUBLIC).unwrap();
        for algorithm in [Algorithm::RS384, Algorithm::PS256, Algorithm::HS256, Algorithm::EdDSA] {
            let mut other = Validation::new(algorithm);
            other.set_audience(&["cloud_controller"]);
            assert!(key.check::<Value>(TOKEN.trim(), &other).is_err(), "{algorithm:?}");
            // Nor when the check would allow it and the token names it.
            let parts: Vec<&str> = TOKEN.trim().split('.').collect();
            let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Header::new(algorithm)).unwrap());
            assert!(
                key.check::<Value>(&format!("{header}.{}.{}", parts[1], parts[2]), &other).is_err(),
                "{algorithm:?}"
            );
        }
        let mut other = validation();
        other.set_audience(&["somebody-else"]);
        assert!(key.check::<Value>(TOKEN.trim(), &other).is_err());
    }

    #[test]
    fn damaged_keys_are_refused() {
        let damaged = String::from_utf8_lossy(PRIVATE).replacen("rsHl", "rsHm", 1).replacen("MIIEvA", "MIIEvB", 1);
        assert!(matches!(SigningKey::from_pem(damaged.as_bytes()), Err(KeyError::Private(_))));
        assert!(matches!(SigningKey::from_pem(PUBLIC), Err(KeyError::Pem(_))));
        assert!(matches!(SigningKey::from_pem(b"nonsense"), Err(KeyError::Pem(_))));
        assert!(matches!(CheckingKey::from_pem(PRIVATE), Err(KeyError::Pem(_))));
        let short = b"-----BEGIN PUBLIC KEY-----\nMIIBIjAN\n-----END PUBLIC KEY-----\n";
        assert!(matches!(CheckingKey::from_pem(short), Err(KeyError::Public)));
    }
}
