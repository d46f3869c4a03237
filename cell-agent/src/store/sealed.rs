//! One small file that survives a power cut: written beside, synced, renamed, directory synced. Carries a format
//! version and a CRC; secret content is encrypted with the cell's own key.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use slipway_chassis::files::{self, Durability};
use slipway_seal::SealKey;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SLWJ";
const FORMAT: u8 = 1;
const PLAIN: u8 = 0;
const ENCRYPTED: u8 = 1;
/// Magic, format, kind and checksum.
const HEAD_BYTES: usize = 10;
/// Files are bound to nothing but the key: it is of this journal alone.
const PLACE: &[u8] = b"";

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

/// Reads the key that seals secret files, or makes one on the first start.
///
/// # Errors
/// When the file is there and is not a key, or cannot be written.
pub fn load_or_make_key(path: &Path) -> Result<SealKey, FileError> {
    match std::fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => SealKey::try_from(bytes.as_slice())
            .map_err(|_| FileError::Damaged { path: path.to_owned(), what: "it is not a key of 32 bytes".to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = SealKey::generate();
            replace(path, key.as_slice())?;
            Ok(SealKey::from(&*key))
        }
        Err(error) => Err(io("read", path)(error)),
    }
}

/// Writes a file; encrypted when a key is given.
///
/// # Errors
/// When the file system refuses; the earlier content is then still there.
pub fn write(path: &Path, content: &[u8], key: Option<&SealKey>) -> Result<(), FileError> {
    let mut bytes = vec![0; HEAD_BYTES];
    let kind = match key {
        None => {
            bytes.extend_from_slice(content);
            PLAIN
        }
        Some(key) => {
            key.seal_onto(&mut bytes, PLACE, content).map_err(|_| FileError::Damaged {
                path: path.to_owned(),
                what: "its content is too large to be encrypted".to_owned(),
            })?;
            ENCRYPTED
        }
    };
    let (head, body) = bytes.split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(MAGIC);
    head[4..6].copy_from_slice(&[FORMAT, kind]);
    head[6..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
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
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| damaged("it is too short"))?;
    if &head[..4] != MAGIC {
        return Err(damaged("it is not a journal file"));
    }
    if head[4] != FORMAT {
        return Err(damaged(&format!("format {} is not known to this version", head[4])));
    }
    if crc32fast::hash(body).to_le_bytes() != head[6..] {
        return Err(damaged("its checksum does not match"));
    }
    match (head[5], key) {
        (PLAIN, None) => Ok(Some(body.to_vec())),
        (ENCRYPTED, Some(key)) => key.open(PLACE, body).map(Some).map_err(|_| damaged("the key does not open it")),
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
    fn written_files_are_read_back_and_damage_is_detected() {
        let directory = tempfile::tempdir().expect("directory");
        let key = load_or_make_key(&directory.path().join("key")).expect("key");
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
        let mine = load_or_make_key(&directory.path().join("mine")).expect("key");
        let other = load_or_make_key(&directory.path().join("other")).expect("key");
        let path = directory.path().join("entry");
        write(&path, b"x", Some(&mine)).expect("write");
        assert!(matches!(read(&path, Some(&other)), Err(FileError::Damaged { .. })));
        let again = load_or_make_key(&directory.path().join("mine")).expect("key");
        assert!(read(&path, Some(&again)).expect("read").is_some());
    }

    /// Made by a version that had a cipher of its own.
    #[test]
    fn files_of_earlier_versions_open() {
        let file = "534c574a0101ac3798f330ec26636d247af705354c094b8a995c0ed3459b0f57483c85a868b5104c6bcece81";
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("entry");
        std::fs::write(&path, hex::decode(file).expect("hex")).expect("write");
        std::fs::write(directory.path().join("key"), [7; 32]).expect("write");
        let key = load_or_make_key(&directory.path().join("key")).expect("key");
        assert_eq!(read(&path, Some(&key)).expect("read").as_deref(), Some(&b"secret"[..]));
    }
}
