//! Sealing of environment values, credentials and spec bodies before they reach Postgres.
//!
//! The sealed form is one version byte and what [`slipway_seal`] gives. A value is bound to its place, so that a row
//! cannot be moved to another column or owner unnoticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_seal::{KEY_BYTES, OVERHEAD_BYTES, SealKey};
use zeroize::Zeroizing;

const VERSION: u8 = 1;

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
    key: Arc<SealKey>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// A vault with this key.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self { key: Arc::new(SealKey::from(key)) }
    }

    /// Reads the key from a file of 64 hex digits.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| VaultError::Read { path: path.to_owned(), source })?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| VaultError::Malformed(path.to_owned()))?;
        Ok(Self::new(&key))
    }

    /// Seals a value for a place such as `app.environment/<guid>`.
    ///
    /// # Errors
    /// Only when the value is too large for the cipher.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut sealed = Vec::with_capacity(1 + OVERHEAD_BYTES + plain.len());
        sealed.push(VERSION);
        self.key.seal_onto(&mut sealed, place.as_bytes(), plain).map_err(|_| VaultError::Seal(place.to_owned()))?;
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for the same place.
    ///
    /// # Errors
    /// When it was sealed with another key or for another place, or is damaged.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let bad = || VaultError::Open(place.to_owned());
        let rest = sealed.strip_prefix(&[VERSION]).ok_or_else(bad)?;
        self.key.open(place.as_bytes(), rest).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_in_its_place_and_with_its_key() {
        let vault = Vault::new(&[7; 32]);
        let sealed = vault.seal("app/1", b"secret").expect("seal");
        assert_eq!(vault.open("app/1", &sealed).expect("open"), b"secret");
        assert!(vault.open("app/2", &sealed).is_err());
        assert!(Vault::new(&[8; 32]).open("app/1", &sealed).is_err());
        assert!(vault.open("app/1", &sealed[..10]).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    /// Made by a version that had a cipher of its own.
    #[test]
    fn values_of_earlier_versions_open() {
        let sealed = "0150d10fd9a909696f469e12bad36037573d86da80c471f370659079a7cb6ab7e91c22";
        let sealed = hex::decode(sealed).expect("hex");
        assert_eq!(Vault::new(&[7; 32]).open("app/1", &sealed).expect("open"), b"secret");
    }
}
