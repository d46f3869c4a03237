//! Unpacking archives that somebody else made: packages, uploaded droplets, buildpacks.
//!
//! What goes wrong without this: an entry named `../../etc/passwd` or one below a link that an earlier entry made writes
//! on the host, a megabyte becomes a terabyte, a hard link hands out a file of the cell. So each name is checked, each
//! directory on the way is opened without following links, and everything is counted against limits as it comes.

mod plan;
mod tarball;
mod tree;
mod walk;
mod zipball;

use std::io;
use std::path::PathBuf;

pub(crate) use tarball::{TarOptions, unpack_tar};
pub use tarball::{UnpackedTree, decompress, on_disk, unpack_droplet, unpack_open};
pub use walk::scan_tar;
pub use zipball::unpack_zip;

/// What an archive may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, and of the uncompressed stream.
    pub max_bytes: u64,
    /// Entries.
    pub max_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, max_entries: 1_000_000 }
    }
}

/// Entries of a droplet. Each takes an inode of the cell's disk, of which a disk of 100 GB has six million for everybody on
/// it; the largest dependencies of real apps have a quarter of this.
pub const MAX_DROPLET_ENTRIES: u64 = 200_000;

/// Which symbolic links are made. None is ever followed while unpacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Only those that stay inside the tree: for packages, which are also read by programs that follow links.
    Inside,
    /// All: for droplets, whose links lead to `/usr` or `/home/vcap/deps` of the sandbox they are mounted in.
    Any,
}

/// Why an archive was not unpacked. Whatever was written before is to be thrown away by the caller.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive cannot be read to its end.
    #[error("the archive is damaged or cut off ({detail}); upload it again")]
    Damaged {
        /// What did not fit.
        detail: String,
        /// The cause.
        #[source]
        source: Option<io::Error>,
    },
    /// An entry would be written outside.
    #[error("the archive's entry {entry:?} leads out of its directory ({why}); remove it from the archive")]
    Escapes {
        /// Its name.
        entry: String,
        /// How.
        why: &'static str,
    },
    /// An entry of a kind that an app cannot have.
    #[error("the archive's entry {entry:?} is a {kind}; only files, directories and links are allowed")]
    Kind {
        /// Its name.
        entry: String,
        /// Its kind.
        kind: &'static str,
    },
    /// Too much.
    #[error(
        "the archive holds more than the permitted {limit} {unit}; make it smaller, or list what is not needed in .cfignore"
    )]
    TooLarge {
        /// Permitted.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The disk is full, or its quota.
    #[error("there is no space left for {}", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// This machine failed.
    #[error("unpacking {} failed", path.display())]
    Io {
        /// What was being written or read.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The format is none of those known.
    #[error("an archive of format {0:?} cannot be unpacked; use tar.zst or tar.gz")]
    Format(String),
}

impl ArchiveError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, source },
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn damaged(source: io::Error) -> Self {
        // Our own limit speaks through the stream that it guards.
        if let Some(limit) = source.get_ref().and_then(|inner| inner.downcast_ref::<plan::StreamTooLong>()) {
            return Self::TooLarge { limit: limit.0, unit: "bytes" };
        }
        Self::Damaged { detail: source.to_string(), source: Some(source) }
    }
}
