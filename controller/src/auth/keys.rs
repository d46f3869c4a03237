//! The keys that sign and check tokens: RSA-2048, made once, the private half sealed in the store.
//!
//! Checking needs a public key for each request; they are kept in memory and read again when a token names an unknown
//! one, at most once a second, so that forged key names cannot turn into load on the database. What is kept is how a key
//! reads, not whether it is in force: that is asked with each token, in the query that asks whether the token was revoked, and
//! before each signature. So a key that is retired in the database signs and proves nothing from the next request on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};

use super::rs256::{CheckingKey, KeyError, SigningKey};
use crate::domain::{DomainError, DomainResult};
use crate::store::Store;
use crate::vault::Vault;

/// How long a miss is believed.
const MISS: Duration = Duration::from_secs(1);

/// A key that signs.
#[derive(Clone)]
pub struct Signer {
    /// Its name, in the header of each token.
    pub kid: String,
    /// The private half.
    pub key: SigningKey,
}

impl Signer {
    /// A token that says these claims.
    ///
    /// # Errors
    /// When the key is damaged.
    pub fn sign(&self, claims: &impl serde::Serialize) -> DomainResult<String> {
        self.key.sign(&self.kid, claims).map_err(|error| DomainError::internal("a token cannot be signed", error))
    }
}

/// Keys in memory. Cheap to clone.
#[derive(Clone, Default)]
pub struct KeyCache {
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyCache(…)")
    }
}

#[derive(Default)]
struct Inner {
    signer: Option<Signer>,
    checkers: HashMap<String, CheckingKey>,
    read_at: Option<Instant>,
}

/// A new key pair: name, private and public half as PEM. Takes a second or more of one core: run it off the async
/// threads.
///
/// # Errors
/// When the operating system has no randomness.
pub fn generate() -> DomainResult<(String, zeroize::Zeroizing<String>, String)> {
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, 2048)
        .map_err(|error| DomainError::internal("an RSA key cannot be made", error))?;
    let private = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| DomainError::internal("an RSA key cannot be encoded", error))?;
    let public = key
        .as_public_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| DomainError::internal("an RSA key cannot be encoded", error))?;
    let kid = format!("slipway-{}", uuid::Uuid::new_v4().simple());
    Ok((kid, private, public))
}

/// A stored key that cannot be used.
pub(super) fn damaged(kid: &str, error: KeyError) -> DomainError {
    DomainError::internal(format!("the signing key {kid} is damaged"), error)
}

/// Place under which a private half is sealed.
#[must_use]
pub fn place(kid: &str) -> String {
    format!("signing_key/{kid}")
}

impl KeyCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// When the store fails, or holds no usable key.
    pub async fn signer(&self, store: &Store, vault: &Vault) -> DomainResult<Signer> {
        let in_force = store.signing_key_newest().await?;
        if let Some(signer) = self.lock().signer.clone().filter(|signer| Some(&signer.kid) == in_force.as_ref()) {
            return Ok(signer);
        }
        self.read(store, vault).await?;
        self.lock().signer.clone().ok_or_else(|| {
            DomainError::internal(
                "no token can be signed",
                "no signing key in the store is in force; a controller that starts makes one",
            )
        })
    }

    /// The key with this name, if the platform made it. It may have been retired since it was read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn checker(&self, store: &Store, vault: &Vault, kid: &str) -> DomainResult<Option<CheckingKey>> {
        {
            let inner = self.lock();
            if let Some(key) = inner.checkers.get(kid) {
                return Ok(Some(key.clone()));
            }
            if inner.read_at.is_some_and(|at| at.elapsed() < MISS) {
                return Ok(None);
            }
        }
        self.read(store, vault).await?;
        Ok(self.lock().checkers.get(kid).cloned())
    }

    async fn read(&self, store: &Store, vault: &Vault) -> DomainResult<()> {
        let rows = store.signing_keys().await?;
        let mut fresh = Inner { read_at: Some(Instant::now()), ..Inner::default() };
        for row in rows.into_iter().filter(|row| row.retired_at.is_none()) {
            let bad = |error: KeyError| damaged(&row.kid, error);
            let checker = CheckingKey::from_pem(row.public_pem.as_bytes()).map_err(bad)?;
            if fresh.signer.is_none() {
                let pem = zeroize::Zeroizing::new(vault.open(&place(&row.kid), &row.private_pem)?);
                let key = SigningKey::from_pem(&pem).map_err(bad)?;
                fresh.signer = Some(Signer { kid: row.kid.clone(), key });
            }
            fresh.checkers.insert(row.kid, checker);
        }
        *self.lock() = fresh;
        Ok(())
    }
}
