//! Tar streams, compressed with zstd or gzip.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::plan::{entry_path, stays_inside};
use super::tree::{Attributes, Tree};
use super::walk::{Member, walk};
use super::{ArchiveError, Limits, LinkPolicy};

/// What came out of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackedTree {
    /// Bytes of all files.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// What they take on a disk at the most, see [`on_disk`].
    pub disk: u64,
}

/// Most file systems give out blocks of this size; an inode is as dear as one.
const BLOCK: u64 = 4096;

/// What a file of so many bytes, or another entry of none, takes on a disk: whole blocks, and one at least. A million empty
/// files have no bytes, and leave no disk that could hold another file.
#[must_use]
pub fn on_disk(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// How entries become files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TarOptions {
    pub(crate) limits: Limits,
    pub(crate) links: LinkPolicy,
    /// Everything belongs to this user and group; `None` = whoever the archive says when `keep_owner`, else this process.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) keep_owner: bool,
}

/// Unpacks a droplet or a build cache into `destination`, which must exist: owned by `owner` (user, group) when given
/// (the process must then be root), with its times, without setuid and setgid bits.
///
/// `format` is `tar.zst` or `tar.gz`.
///
/// # Errors
/// When the archive is damaged, hostile or too large, or on I/O; what was written must then be removed by the caller.
pub fn unpack_droplet(
    path: &Path,
    format: &str,
    destination: &Path,
    limits: Limits,
    owner: Option<(u32, u32)>,
) -> Result<UnpackedTree, ArchiveError> {
    let file = File::open(path).map_err(|e| ArchiveError::io(path, e))?;
    let options = TarOptions { limits, links: LinkPolicy::Any, owner, keep_owner: false };
    unpack_tar(decompress(file, format)?, destination, options)
}

/// The tar within a file of this format, `tar.zst` or `tar.gz`.
///
/// # Errors
/// [`ArchiveError::Format`]; when the decoder cannot be made.
pub fn decompress(file: File, format: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
    let reader = BufReader::with_capacity(1 << 20, file);
    match format {
        "tar.zst" => Ok(Box::new(zstd_stream(reader)?)),
        "tar.gz" | "tgz" => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
        other => Err(ArchiveError::Format(other.to_owned())),
    }
}

/// Unpacks a `tar.zst` that is open already, so that what is unpacked is what was checked. Everything belongs to this
/// process.
///
/// # Errors
/// As [`unpack_droplet`].
pub fn unpack_open(
    file: File,
    destination: &Path,
    limits: Limits,
    links: LinkPolicy,
) -> Result<UnpackedTree, ArchiveError> {
    let stream = zstd_stream(BufReader::with_capacity(1 << 20, file))?;
    unpack_tar(stream, destination, TarOptions { limits, links, owner: None, keep_owner: false })
}

fn zstd_stream(reader: BufReader<File>) -> Result<zstd::Decoder<'static, BufReader<File>>, ArchiveError> {
    let mut stream = zstd::Decoder::with_buffer(reader).map_err(ArchiveError::damaged)?;
    // Bounds the decoder's memory, whatever window the archive asks for.
    stream.window_log_max(27).map_err(ArchiveError::damaged)?;
    Ok(stream)
}

/// Unpacks an uncompressed tar stream and reads it to its very end.
pub(crate) fn unpack_tar(
    stream: impl Read,
    destination: &Path,
    options: TarOptions,
) -> Result<UnpackedTree, ArchiveError> {
    let mut tree = Tree::open(destination, options.owner)?;
    let mut directories: Vec<(PathBuf, i64)> = Vec::new();
    let unpacked = walk(stream, options.limits, |member, content| -> Result<(), ArchiveError> {
        let header = content.header();
        let attributes = Attributes {
            mode: header.mode().map_err(ArchiveError::damaged)?,
            owner: options.keep_owner.then(|| owner_of(header)).transpose()?,
            mtime: Some(i64::try_from(header.mtime().map_err(ArchiveError::damaged)?).unwrap_or(0)),
        };
        let Member { path, kind, target } = member;
        match (kind, target) {
            (EntryType::Directory, _) if path.as_os_str().is_empty() => {
                tree.directory(path, Attributes { mtime: None, ..attributes })?;
            }
            (EntryType::Directory, _) => {
                tree.directory(path, attributes)?;
                directories.push((path.clone(), attributes.mtime.unwrap_or(0)));
            }
            (EntryType::Symlink, Some(target)) => {
                if options.links == LinkPolicy::Inside && !stays_inside(path, target) {
                    let entry = path.display().to_string();
                    return Err(ArchiveError::Escapes { entry, why: "its link leads outside" });
                }
                tree.symlink(path, target, attributes)?;
            }
            (EntryType::Link, Some(target)) => tree.hard_link(path, &entry_path(target.as_os_str().as_bytes())?)?,
            // Whatever is left is a file.
            _ => {
                let size = content.size();
                let written = tree.file(path, content, size, attributes)?;
                if written != size {
                    let detail = format!("{} is cut off", path.display());
                    return Err(ArchiveError::Damaged { detail, source: None });
                }
            }
        }
        Ok(())
    })?;
    for (path, time) in directories.into_iter().rev() {
        tree.directory_time(&path, time)?;
    }
    Ok(unpacked)
}

fn owner_of(header: &tar::Header) -> Result<(u32, u32), ArchiveError> {
    let id = |id: io::Result<u64>| {
        let id = id.map_err(ArchiveError::damaged)?;
        u32::try_from(id)
            .ok()
            .filter(|id| *id < 65_536)
            .ok_or_else(|| ArchiveError::Damaged { detail: format!("owner {id} is outside of 0..65535"), source: None })
    };
    Ok((id(header.uid())?, id(header.gid())?))
}
