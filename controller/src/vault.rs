//! Sealing of environment values, credentials and spec bodies before they reach Postgres.
//!
//! AES-256-GCM with a random 96-bit nonce per value; sealed form: one version byte, the nonce, the cipher text. The
//! associated data binds a value to its place, so that a row cannot be moved to another column or owner unnoticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use rand::RngCore as _;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be read.
    #[error("cannot read the encryption key {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The key file does not hold a key.
    #[error("the encryption key {0} must be 64 hexadecimal digits")]
    Malformed(PathBuf),
    /// Another key, another place, or damaged.
    #[error("a sealed value of {0:?} cannot be opened: it was sealed with another key, or is damaged")]
    Open(String),
    /// The cipher refused (only for values above 64 GiB).
    #[error("a value of {0:?} cannot be sealed")]
    Seal(String),
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    cipher: Arc<Aes256Gcm>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// A vault with this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: Arc::new(Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))) }
    }

    /// Reads the key from a file of 64 hex digits.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| VaultError::Read { path: path.to_owned(), source })?;
        let mut key = [0_u8; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| VaultError::Malformed(path.to_owned()))?;
        Ok(Self::new(&key))
    }

    /// Seals a value for a place such as `app.environment/<guid>`.
    ///
    /// # Errors
    /// Only when the value is too large for the cipher.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0_u8; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        let cipher_text =
            self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| VaultError::Seal(place.to_owned()))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + cipher_text.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&cipher_text);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for the same place.
    ///
    /// # Errors
    /// When it was sealed with another key or for another place, or is damaged.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let bad = || VaultError::Open(place.to_owned());
        let (version, rest) = sealed.split_first().ok_or_else(bad)?;
        if *version != VERSION || rest.len() < NONCE_BYTES {
            return Err(bad());
        }
        let (nonce, cipher_text) = rest.split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| bad())?;
        let payload = Payload { msg: cipher_text, aad: place.as_bytes() };
        self.cipher.decrypt(&Nonce::from(nonce), payload).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_in_its_place_and_with_its_key() {
        let vault = Vault::new(&[7; 32]);
        let sealed = vault.seal("app/1", b"secret").expect("seal");
        assert_eq!(vault.open("app/1", &sealed).expect("open"), b"secret");
        assert!(vault.open("app/2", &sealed).is_err());
        assert!(Vault::new(&[8; 32]).open("app/1", &sealed).is_err());
        assert!(vault.open("app/1", &sealed[..10]).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }
}
