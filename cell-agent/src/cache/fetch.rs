//! Getting a blob into a temporary file, and a droplet into its directory.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use slipway_layers::{ArchiveError, Digest, Limits, unpack_droplet as unpack};

use super::CacheError;
use crate::controllers::{CallError, Controllers};
use crate::reserve::{self, FreeSpace};

/// The `vcap` of every stack.
const VCAP: u32 = 2000;

/// Why an attempt did not bring the blob.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no controller sent the blob")]
    Call(#[from] CallError),
    #[error("what came has the digest {found}, not {expected}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("more than the announced {0} bytes came")]
    TooLong(u64),
    #[error("it broke off after {got} of {size} bytes")]
    Short { got: u64, size: u64 },
    #[error("writing {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A download that goes on where it broke off.
pub(super) struct Partial {
    directory: PathBuf,
    digest: Digest,
    size: u64,
    file: Option<tempfile::NamedTempFile>,
    hash: Sha256,
    got: u64,
}

impl Partial {
    pub(super) fn new(directory: &Path, digest: Digest, size: u64) -> Result<Self, CacheError> {
        std::fs::create_dir_all(directory).map_err(|source| CacheError::Io { path: directory.to_owned(), source })?;
        Ok(Self { directory: directory.to_owned(), digest, size, file: None, hash: Sha256::new(), got: 0 })
    }

    /// Reads on from where the last attempt ended. A wrong blob is discarded.
    pub(super) async fn attempt(&mut self, controllers: &Controllers) -> Result<tempfile::TempPath, FetchError> {
        let digest = Bytes::copy_from_slice(self.digest.as_bytes());
        let mut stream = controllers.blob(&digest, self.got).await?;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => tempfile::NamedTempFile::new_in(&self.directory)
                .map_err(|source| FetchError::Io { path: self.directory.clone(), source })?,
        };
        loop {
            let chunk = match stream.message().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(status) => {
                    self.file = Some(file);
                    return Err(CallError::from(status).into());
                }
            };
            self.got += chunk.data.len() as u64;
            if self.size > 0 && self.got > self.size {
                let size = self.size;
                self.reset();
                return Err(FetchError::TooLong(size));
            }
            let (path, hash) = (file.path().to_owned(), std::mem::take(&mut self.hash));
            (file, self.hash) =
                write(file, hash, chunk.data).await.map_err(|source| FetchError::Io { path, source })?;
        }
        if self.got < self.size {
            let (got, size) = (self.got, self.size);
            self.reset();
            return Err(FetchError::Short { got, size });
        }
        let found = Digest::from(<[u8; 32]>::from(self.hash.clone().finalize()));
        if found != self.digest {
            let expected = self.digest;
            self.reset();
            return Err(FetchError::WrongDigest { expected, found });
        }
        Ok(file.into_temp_path())
    }

    fn reset(&mut self) {
        self.file = None;
        self.hash = Sha256::new();
        self.got = 0;
    }
}

/// Writes and hashes a chunk, away from the tasks: a disk may take long.
async fn write(
    mut file: tempfile::NamedTempFile,
    mut hash: Sha256,
    data: Bytes,
) -> std::io::Result<(tempfile::NamedTempFile, Sha256)> {
    let written = tokio::task::spawn_blocking(move || {
        hash.update(&data);
        file.write_all(&data)?;
        Ok((file, hash))
    });
    written.await.map_err(std::io::Error::other)?
}

/// What the disk has, less the host's reserve.
pub(super) fn room(path: &Path) -> Result<FreeSpace, CacheError> {
    reserve::room(path).map_err(|source| CacheError::Io { path: path.to_owned(), source })
}

/// Unpacks a droplet beside and renames it; answers its size on disk.
pub(super) fn unpack_droplet(
    file: &Path,
    format: &str,
    parent: &Path,
    target: &Path,
    limits: Limits,
) -> Result<u64, ArchiveError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Io { path, source }
    };
    let temporary = tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(io(parent))?;
    let root = temporary.path();
    let home = root.join("home/vcap");
    std::fs::create_dir_all(&home).map_err(io(&home))?;
    for directory in [root, &root.join("home"), &home] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).map_err(io(directory))?;
    }
    // A process that is not root (in tests) keeps its own files.
    let owner = nix::unistd::geteuid().is_root().then_some((VCAP, VCAP));
    let tree = unpack(file, format, &home, limits, owner)?;
    // What a droplet made elsewhere may lack, and every start expects.
    for name in ["app", "tmp", "logs", "deps", "profile.d"] {
        let path = home.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            std::fs::create_dir(&path).map_err(io(&path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(io(&path))?;
        }
        if let Some((user, group)) = owner {
            std::os::unix::fs::lchown(&path, Some(user), Some(group)).map_err(io(&path))?;
        }
    }
    if let Some((user, group)) = owner {
        chown(&home, Some(user), Some(group)).map_err(io(&home))?;
    }
    let root = temporary.keep();
    let renamed = std::fs::File::open(&root)
        .and_then(|directory| rustix::fs::syncfs(&directory).map_err(Into::into))
        .and_then(|()| std::fs::rename(&root, target));
    if let Err(source) = renamed {
        // The first error counts; what stays is swept by its name at the next start.
        std::fs::remove_dir_all(&root).ok();
        return Err(io(target)(source));
    }
    Ok(tree.disk)
}
