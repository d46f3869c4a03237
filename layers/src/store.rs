//! Unpacked layers on a cell: one directory each, named by the digest, complete or absent.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::archive::{ArchiveError, Limits, LinkPolicy, TarOptions, unpack_tar};
use crate::digest::{Digest, HashingReader};

/// Stack images are a few hundred megabytes; a thousandfold of that is a bomb, not a layer.
const LAYER_LIMITS: Limits = Limits { max_bytes: 64 << 30, max_entries: 4_000_000 };

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob is another one, or was damaged on its way.
    #[error("the layer's content has digest {found}, but {expected} was announced; fetch it again")]
    WrongDigest {
        /// As announced.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The tar cannot be unpacked.
    #[error("layer {digest} cannot be unpacked")]
    Archive {
        /// As announced.
        digest: Digest,
        /// The cause.
        #[source]
        source: ArchiveError,
    },
    /// This machine failed.
    #[error("storing a layer at {} failed", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Unpacks the blob of a layer to `parent/<digest>` and gives back that path; at once when it is there already. Owners,
/// modes and times are the layer's, so this needs root. A directory with the final name is always complete and has the
/// right content: it is unpacked beside, hashed, synced and then renamed.
///
/// # Errors
/// When the content is not what `expected` says, or on I/O. Nothing is left behind.
pub fn unpack_layer(blob: &Path, expected: Digest, parent: &Path) -> Result<PathBuf, StoreError> {
    let target = parent.join(expected.to_string());
    if target.is_dir() {
        return Ok(target);
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { path, source }
    };
    fs::create_dir_all(parent).map_err(io(parent))?;
    let temporary = tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(io(parent))?;
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).map_err(io(parent))?;
    let file = BufReader::with_capacity(1 << 20, File::open(blob).map_err(io(blob))?);
    let archive = |source| StoreError::Archive { digest: expected, source };
    let decoder = zstd::Decoder::with_buffer(file).map_err(|e| archive(ArchiveError::damaged(e)))?;
    let mut stream = HashingReader::new(decoder);
    let options = TarOptions { limits: LAYER_LIMITS, links: LinkPolicy::Any, owner: None, keep_owner: true };
    unpack_tar(&mut stream, temporary.path(), options).map_err(archive)?;
    let found = stream.finish();
    if found != expected {
        return Err(StoreError::WrongDigest { expected, found });
    }
    // One flush of the file system costs less than one per file.
    let directory = File::open(temporary.path()).map_err(io(temporary.path()))?;
    rustix::fs::syncfs(&directory).map_err(|e| io(temporary.path())(e.into()))?;
    let temporary = temporary.keep();
    match fs::rename(&temporary, &target) {
        Ok(()) => {}
        // Somebody else was faster with the same content.
        Err(_) if target.is_dir() => fs::remove_dir_all(&temporary).map_err(io(&temporary))?,
        Err(source) => {
            // The first error counts; what stays is swept by its prefix.
            let _ = fs::remove_dir_all(&temporary);
            return Err(io(&target)(source));
        }
    }
    let parent_directory = File::open(parent).map_err(io(parent))?;
    parent_directory.sync_all().map_err(io(parent))?;
    Ok(target)
}
