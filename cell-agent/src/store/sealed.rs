//! One small file that survives a power cut: written beside, synced, renamed, directory synced. Carries a format
//! version and a CRC; secret content is encrypted with the cell's own key.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::RngCore as _;
use slipway_chassis::files::{self, Durability};

const MAGIC: &[u8; 4] = b"SLWJ";
const FORMAT: u8 = 1;
const PLAIN: u8 = 0;
const ENCRYPTED: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Why a journal file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("{action} {path}")]
    Io {
        /// What was done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Not what was written: another format, a wrong checksum, a wrong key.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

/// The key that seals secret files. Refuses to print.
#[derive(Clone)]
pub struct SealKey(Aes256Gcm);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// Reads the key, or makes one on the first start.
    ///
    /// # Errors
    /// When the file is there and is not a key, or cannot be written.
    pub fn load_or_make(path: &Path) -> Result<Self, FileError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut key = vec![0_u8; 32];
                rand::rng().fill_bytes(&mut key);
                replace(path, &key)?;
                key
            }
            Err(error) => return Err(io("read", path)(error)),
        };
        let cipher = Aes256Gcm::new_from_slice(&bytes).map_err(|_| FileError::Damaged {
            path: path.to_owned(),
            what: "it is not a key of 32 bytes".to_owned(),
        })?;
        Ok(Self(cipher))
    }
}

/// Writes a file; encrypted when a key is given.
///
/// # Errors
/// When the file system refuses; the earlier content is then still there.
pub fn write(path: &Path, content: &[u8], key: Option<&SealKey>) -> Result<(), FileError> {
    let (kind, body) = match key {
        None => (PLAIN, content.to_vec()),
        Some(SealKey(cipher)) => {
            let mut nonce = [0_u8; NONCE_BYTES];
            rand::rng().fill_bytes(&mut nonce);
            let sealed = cipher.encrypt(&Nonce::from(nonce), content).map_err(|_| FileError::Damaged {
                path: path.to_owned(),
                what: "its content is too large to be encrypted".to_owned(),
            })?;
            let mut body = nonce.to_vec();
            body.extend_from_slice(&sealed);
            (ENCRYPTED, body)
        }
    };
    let mut bytes = Vec::with_capacity(body.len() + 10);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[FORMAT, kind]);
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    replace(path, &bytes)
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// [`FileError::Damaged`] when it is not what was written.
pub fn read(path: &Path, key: Option<&SealKey>) -> Result<Option<Vec<u8>>, FileError> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes).map_err(io("read", path))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let damaged = |what: &str| FileError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let (head, body) = bytes.split_at_checked(10).ok_or_else(|| damaged("it is too short"))?;
    if &head[..4] != MAGIC {
        return Err(damaged("it is not a journal file"));
    }
    if head[4] != FORMAT {
        return Err(damaged(&format!("format {} is not known to this version", head[4])));
    }
    if crc32fast::hash(body).to_le_bytes() != head[6..10] {
        return Err(damaged("its checksum does not match"));
    }
    match (head[5], key) {
        (PLAIN, None) => Ok(Some(body.to_vec())),
        (ENCRYPTED, Some(SealKey(cipher))) => {
            let (nonce, sealed) = body.split_at_checked(NONCE_BYTES).ok_or_else(|| damaged("it is too short"))?;
            let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| damaged("it is too short"))?;
            let content =
                cipher.decrypt(&Nonce::from(nonce), sealed).map_err(|_| damaged("the key does not open it"))?;
            Ok(Some(content))
        }
        _ => Err(damaged("it is not sealed as expected")),
    }
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// When the file system refuses.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    files::write(path, bytes, 0o600, Durability::Lasting).map_err(io("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_seen() {
        let directory = tempfile::tempdir().expect("directory");
        let key = SealKey::load_or_make(&directory.path().join("key")).expect("key");
        let path = directory.path().join("entry");
        for key in [None, Some(&key)] {
            assert!(read(&path, key).expect("missing is not an error").is_none());
            write(&path, b"secret words", key).expect("write");
            assert_eq!(read(&path, key).expect("read").as_deref(), Some(&b"secret words"[..]));
            let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let raw = std::fs::read(&path).expect("raw");
            assert_eq!(key.is_some(), !raw.windows(6).any(|window| window == b"secret"));
            for damage in 0..raw.len() {
                let mut bad = raw.clone();
                bad[damage] ^= 1;
                std::fs::write(&path, &bad).expect("damage");
                assert!(matches!(read(&path, key), Err(FileError::Damaged { .. })), "byte {damage}");
            }
            std::fs::write(&path, &raw[..5]).expect("truncate");
            assert!(matches!(read(&path, key), Err(FileError::Damaged { .. })));
            remove(&path).expect("remove");
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let mine = SealKey::load_or_make(&directory.path().join("mine")).expect("key");
        let other = SealKey::load_or_make(&directory.path().join("other")).expect("key");
        let path = directory.path().join("entry");
        write(&path, b"x", Some(&mine)).expect("write");
        assert!(matches!(read(&path, Some(&other)), Err(FileError::Damaged { .. })));
        let again = SealKey::load_or_make(&directory.path().join("mine")).expect("key");
        assert!(read(&path, Some(&again)).expect("read").is_some());
    }
}
