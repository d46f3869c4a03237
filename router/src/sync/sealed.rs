//! The records of the journal on disk. A table holds secrets of route services, so each record is sealed with a key of
//! this router's own, `table.key` beside the journal: who has the journal alone learns how many records there are and
//! how long. Who has the whole directory, or is root on the host, has the key too.

use std::io::ErrorKind;
use std::path::Path;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::RngCore as _;
use slipway_chassis::files::{self, Durability};
use uuid::Uuid;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// The key, and the cluster that each record is bound to. Refuses to print.
#[derive(Clone)]
pub(super) struct Sealer {
    cipher: Aes256Gcm,
    cluster: Uuid,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// Reads the key, or makes one. One that is damaged is replaced: it only ever opened a copy of what the controllers
    /// have, and a router that refused to start would serve nobody.
    pub(super) fn load_or_make(path: &Path, cluster: Uuid) -> std::io::Result<Self> {
        let kept = match std::fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(bytes) = kept {
            if let Some(cipher) = cipher(&bytes) {
                return Ok(Self { cipher, cluster });
            }
            tracing::warn!(
                path = %path.display(),
                "the key of the routing table on disk is damaged; a new one is made, and the table comes anew from a controller"
            );
        }
        let mut key = [0_u8; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        replace(path, &key)?;
        let cipher = cipher(&key).ok_or_else(|| std::io::Error::other("a key of 32 bytes was refused"))?;
        Ok(Self { cipher, cluster })
    }

    /// Appends `len u32 | crc32 u32 | kind u8 | nonce | sealed payload`.
    pub(super) fn record(&self, bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut nonce = [0_u8; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: payload, aad: &self.bound(kind) };
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| std::io::Error::other("a record is too large to be sealed"))?;
        let mut hash = crc32fast::Hasher::new();
        for part in [&[kind][..], &nonce, &sealed] {
            hash.update(part);
        }
        bytes.extend_from_slice(&((NONCE_BYTES + sealed.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(&hash.finalize().to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(())
    }

    /// What a record holds; `None` when it was sealed with another key, for another cluster or as another kind.
    pub(super) fn open(&self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = body.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: &self.bound(kind) };
        self.cipher.decrypt(&Nonce::from(nonce), payload).ok()
    }

    fn bound(&self, kind: u8) -> Vec<u8> {
        [self.cluster.as_bytes(), &[kind][..]].concat()
    }
}

fn cipher(key: &[u8]) -> Option<Aes256Gcm> {
    Aes256Gcm::new_from_slice(key).ok()
}

/// The kind and body of the next record, and what is behind it; `None` at the end and at a torn or damaged one.
pub(super) fn next_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let content = bytes.get(8..9 + length)?;
    (crc32fast::hash(content) == crc).then(|| (content[0], &content[1..], &bytes[9 + length..]))
}

/// Puts a file in place as a whole or not at all, for its owner alone.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    files::write(path, bytes, 0o600, Durability::Lasting)
}
