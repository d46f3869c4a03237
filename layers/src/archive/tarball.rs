//! Tar streams, compressed with zstd or gzip.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::plan::{Bounded, Budget, entry_path, stays_inside};
use super::tree::{Attributes, Tree};
use super::{ArchiveError, Limits, LinkPolicy};

/// Longest extension record (long name, PAX header) that is read into memory.
const MAX_EXTENSION: u64 = 64 << 10;

/// What came out of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackedTree {
    /// Bytes of all files.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
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
    match format {
        "tar.zst" => unpack_tar(decompressed(file)?, destination, options),
        "tar.gz" | "tgz" => {
            let file = BufReader::with_capacity(1 << 20, file);
            unpack_tar(flate2::bufread::MultiGzDecoder::new(file), destination, options)
        }
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
    unpack_tar(decompressed(file)?, destination, TarOptions { limits, links, owner: None, keep_owner: false })
}

fn decompressed(file: File) -> Result<impl Read, ArchiveError> {
    let file = BufReader::with_capacity(1 << 20, file);
    let mut stream = zstd::Decoder::with_buffer(file).map_err(ArchiveError::damaged)?;
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
    // Headers and padding: at most 2 KiB an entry beside its extension records.
    let stream_limit = options
        .limits
        .max_bytes
        .saturating_add(options.limits.max_entries.saturating_mul(4096))
        .saturating_add(1 << 20);
    let mut archive = Archive::new(Bounded::new(stream, stream_limit));
    let mut tree = Tree::open(destination, options.owner)?;
    let mut budget = Budget::new(options.limits);
    let mut next = Extension::default();
    let mut directories: Vec<(PathBuf, i64)> = Vec::new();
    let mut seen = false;
    for entry in archive.entries().map_err(ArchiveError::damaged)?.raw(true) {
        let mut entry = entry.map_err(ArchiveError::damaged)?;
        seen = true;
        let kind = entry.header().entry_type();
        if next.take(kind, &mut entry)? {
            continue;
        }
        let extension = std::mem::take(&mut next);
        budget.entry()?;
        let name = extension.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let path = entry_path(&name)?;
        let shown = || path.display().to_string();
        let header = entry.header();
        let attributes = Attributes {
            mode: header.mode().map_err(ArchiveError::damaged)?,
            owner: options.keep_owner.then(|| owner_of(header)).transpose()?,
            mtime: Some(i64::try_from(header.mtime().map_err(ArchiveError::damaged)?).unwrap_or(0)),
        };
        let target = extension.link.or_else(|| header.link_name_bytes().map(|bytes| bytes.into_owned()));
        if path.as_os_str().is_empty() {
            if kind != EntryType::Directory {
                return Err(ArchiveError::Escapes { entry: ".".into(), why: "it would replace the directory itself" });
            }
            tree.directory(&path, Attributes { mtime: None, ..attributes })?;
            continue;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                if size > budget.left() {
                    return Err(ArchiveError::TooLarge { limit: options.limits.max_bytes, unit: "bytes" });
                }
                let written = tree.file(&path, &mut entry, size, attributes)?;
                if written != size {
                    return Err(ArchiveError::Damaged { detail: format!("{} is cut off", shown()), source: None });
                }
                budget.take(written)?;
            }
            EntryType::Directory => {
                tree.directory(&path, attributes)?;
                directories.push((path, attributes.mtime.unwrap_or(0)));
            }
            EntryType::Symlink => {
                let target = link_target(target, &path)?;
                if options.links == LinkPolicy::Inside && !stays_inside(&path, &target) {
                    return Err(ArchiveError::Escapes { entry: shown(), why: "its link leads outside" });
                }
                tree.symlink(&path, &target, attributes)?;
            }
            EntryType::Link => {
                let target = entry_path(link_target(target, &path)?.as_os_str().as_bytes())?;
                tree.hard_link(&path, &target)?;
            }
            EntryType::Char | EntryType::Block => return Err(ArchiveError::Kind { entry: shown(), kind: "device" }),
            EntryType::Fifo => return Err(ArchiveError::Kind { entry: shown(), kind: "pipe" }),
            _ => return Err(ArchiveError::Kind { entry: shown(), kind: "entry of an unknown kind" }),
        }
    }
    if !seen {
        return Err(ArchiveError::Damaged { detail: "it is empty or no tar".into(), source: None });
    }
    // The digest is over the whole stream, and a cut behind the last entry is a cut too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ArchiveError::damaged)?;
    for (path, time) in directories.into_iter().rev() {
        tree.directory_time(&path, time)?;
    }
    Ok(UnpackedTree { bytes: budget.bytes, entries: budget.entries })
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

fn link_target(target: Option<Vec<u8>>, path: &Path) -> Result<PathBuf, ArchiveError> {
    match target {
        Some(bytes) if !bytes.is_empty() && bytes.len() < 4096 && !bytes.contains(&0) => {
            Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
        }
        _ => Err(ArchiveError::Damaged { detail: format!("the link {} has no target", path.display()), source: None }),
    }
}

/// Records that say something about the entry behind them. Read here rather than by the tar library, which would take
/// a name of any length into memory.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extension {
    /// Whether the entry was such a record.
    fn take(&mut self, kind: EntryType, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, ArchiveError> {
        match kind {
            EntryType::GNULongName => self.path = Some(text(entry)?),
            EntryType::GNULongLink => self.link = Some(text(entry)?),
            EntryType::XGlobalHeader => drop(text(entry)?),
            EntryType::XHeader => {
                let bytes = text(entry)?;
                for record in tar::PaxExtensions::new(&bytes) {
                    let record = record.map_err(ArchiveError::damaged)?;
                    match record.key_bytes() {
                        b"path" => self.path = Some(record.value_bytes().to_vec()),
                        b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                        b"size" => {
                            return Err(ArchiveError::Damaged {
                                detail: "a size in an extended header".into(),
                                source: None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION + 1).read_to_end(&mut bytes).map_err(ArchiveError::damaged)?;
    if bytes.len() as u64 > MAX_EXTENSION {
        return Err(ArchiveError::Damaged { detail: "an extended header of more than 64 KiB".into(), source: None });
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}
