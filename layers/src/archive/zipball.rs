//! Zip packages: what `push` uploads, and buildpacks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::plan::{Budget, entry_path, stays_inside};
use super::tree::{Attributes, Tree};
use super::{ArchiveError, Limits, LinkPolicy, UnpackedTree};

/// The kind in a Unix mode.
const KIND: u32 = 0o170_000;

/// Unpacks a zip into `destination`, which must exist, as files of this process's user (or of `owner`, as root). Links
/// are made only when `links` permits. A zip from a system without Unix modes gives 0755 for every file, so that
/// scripts can be run.
///
/// # Errors
/// When the archive is damaged, hostile or too large, or on I/O; what was written must then be removed by the caller.
pub fn unpack_zip(
    path: &Path,
    destination: &Path,
    limits: Limits,
    links: LinkPolicy,
    owner: Option<(u32, u32)>,
) -> Result<UnpackedTree, ArchiveError> {
    let file = BufReader::new(File::open(path).map_err(|e| ArchiveError::io(path, e))?);
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    let mut tree = Tree::open(destination, owner)?;
    let mut budget = Budget::new(limits);
    let mut symlinks: Vec<(PathBuf, PathBuf)> = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        budget.entry()?;
        let name = entry_path(entry.name_raw())?;
        let mode = entry.unix_mode();
        let shown = || name.display().to_string();
        let attributes = |default| Attributes { mode: mode.unwrap_or(default), owner: None, mtime: None };
        match mode.unwrap_or(0) & KIND {
            0 | 0o100_000 | 0o040_000 | 0o120_000 => {}
            0o010_000 => return Err(ArchiveError::Kind { entry: shown(), kind: "pipe" }),
            0o140_000 => return Err(ArchiveError::Kind { entry: shown(), kind: "socket" }),
            _ => return Err(ArchiveError::Kind { entry: shown(), kind: "device" }),
        }
        if entry.is_dir() {
            if !name.as_os_str().is_empty() {
                tree.directory(&name, attributes(0o755))?;
            }
        } else if name.as_os_str().is_empty() {
            return Err(ArchiveError::Escapes { entry: ".".into(), why: "it would replace the directory itself" });
        } else if entry.is_symlink() {
            let mut target = Vec::new();
            (&mut entry).take(4096).read_to_end(&mut target).map_err(ArchiveError::damaged)?;
            if target.is_empty() || target.len() >= 4096 || target.contains(&0) {
                return Err(ArchiveError::Damaged {
                    detail: format!("the link {} has no target", shown()),
                    source: None,
                });
            }
            let target = PathBuf::from(OsStr::from_bytes(&target));
            if links == LinkPolicy::Inside && !stays_inside(&name, &target) {
                return Err(ArchiveError::Escapes { entry: shown(), why: "its link leads outside" });
            }
            symlinks.push((name, target));
        } else {
            let announced = entry.size();
            if announced > budget.left() {
                return Err(ArchiveError::TooLarge { limit: limits.max_bytes, unit: "bytes" });
            }
            // The announced size is a claim: the bytes that come are what counts.
            let written = tree.file(&name, &mut entry, budget.left(), attributes(0o755))?;
            budget.take(written)?;
        }
    }
    // Links last: nothing can be written through one, whatever the order of the archive.
    for (name, target) in symlinks {
        tree.symlink(&name, &target, Attributes { mode: 0o777, owner: None, mtime: None })?;
    }
    Ok(budget.tree())
}

fn damaged(error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(source) => ArchiveError::damaged(source),
        other => ArchiveError::Damaged { detail: other.to_string(), source: None },
    }
}
