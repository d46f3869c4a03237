//! Reading a tar entry by entry, whoever made it: every name and kind is checked, everything is counted, and no part of
//! the archive is taken into memory whole. What is done with an entry is up to the caller.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::plan::{Bounded, Budget, entry_path};
use super::tarball::UnpackedTree;
use super::{ArchiveError, Limits};

/// Longest extension record (long name, PAX header) that is read into memory.
const MAX_EXTENSION: u64 = 64 << 10;

/// One entry that an archive may have.
#[derive(Debug)]
pub(super) struct Member {
    /// Its place; empty for the root itself, which is a directory.
    pub(super) path: PathBuf,
    /// A file, a directory or a link.
    pub(super) kind: EntryType,
    /// Of links: where they lead, as the archive says it.
    pub(super) target: Option<PathBuf>,
}

/// The entry's content, and its header.
pub(super) type Content<'a, R> = tar::Entry<'a, Bounded<R>>;

/// Looks at an uncompressed tar without unpacking it, and reads it to its very end. `look` is given each file with its
/// size and content, of which it may read as much as it likes.
///
/// What is refused is what [`super::unpack_droplet`] refuses, as far as one can tell without a disk.
///
/// # Errors
/// When the archive is damaged, hostile or too large; what `look` gives.
pub fn scan_tar<E: From<ArchiveError>>(
    stream: impl Read,
    limits: Limits,
    mut look: impl FnMut(&Path, u64, &mut dyn Read) -> Result<(), E>,
) -> Result<UnpackedTree, E> {
    walk(stream, limits, |member, content| match member.kind {
        EntryType::Regular | EntryType::Continuous => {
            let size = content.size();
            look(&member.path, size, content)
        }
        _ => Ok(()),
    })
}

/// Gives each entry to `each`, and reads the stream to its very end. Bytes and entries are counted against the limits.
pub(super) fn walk<R: Read, E: From<ArchiveError>>(
    stream: R,
    limits: Limits,
    mut each: impl FnMut(&Member, &mut Content<'_, R>) -> Result<(), E>,
) -> Result<UnpackedTree, E> {
    // Headers and padding: at most 2 KiB an entry beside its extension records.
    let stream_limit = limits.max_bytes.saturating_add(limits.max_entries.saturating_mul(4096)).saturating_add(1 << 20);
    let mut archive = Archive::new(Bounded::new(stream, stream_limit));
    let mut budget = Budget::new(limits);
    let mut next = Extension::default();
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
        let member = member(&entry, extension)?;
        if matches!(kind, EntryType::Regular | EntryType::Continuous) {
            budget.take(entry.size())?;
        }
        each(&member, &mut entry)?;
    }
    if !seen {
        return Err(ArchiveError::Damaged { detail: "it is empty or no tar".into(), source: None }.into());
    }
    // The digest is over the whole stream, and a cut behind the last entry is a cut too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ArchiveError::damaged)?;
    Ok(budget.tree())
}

fn member(entry: &tar::Entry<'_, impl Read>, extension: Extension) -> Result<Member, ArchiveError> {
    let header = entry.header();
    let kind = header.entry_type();
    let path = entry_path(&extension.path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
    let shown = || path.display().to_string();
    if path.as_os_str().is_empty() && kind != EntryType::Directory {
        return Err(ArchiveError::Escapes { entry: ".".into(), why: "it would replace the directory itself" });
    }
    let target = match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => None,
        EntryType::Symlink | EntryType::Link => {
            let target = extension.link.or_else(|| header.link_name_bytes().map(|bytes| bytes.into_owned()));
            Some(link_target(target, &path)?)
        }
        EntryType::Char | EntryType::Block => return Err(ArchiveError::Kind { entry: shown(), kind: "device" }),
        EntryType::Fifo => return Err(ArchiveError::Kind { entry: shown(), kind: "pipe" }),
        _ => return Err(ArchiveError::Kind { entry: shown(), kind: "entry of an unknown kind" }),
    };
    Ok(Member { path, kind, target })
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
                                detail: "an extended header gives a size, which is not allowed".into(),
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
        return Err(ArchiveError::Damaged { detail: "an extended header has more than 64 KiB".into(), source: None });
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}
