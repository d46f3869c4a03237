//! Names, links and counts: the part of unpacking that needs no disk.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::tarball::{UnpackedTree, on_disk};
use super::{ArchiveError, Limits};

/// Linux' own limit for a path.
const MAX_NAME: usize = 4096;
/// Deeper trees are attacks on whoever walks them with recursion.
const MAX_DEPTH: usize = 256;

/// The relative path of an entry; empty for the root itself.
pub(super) fn entry_path(name: &[u8]) -> Result<PathBuf, ArchiveError> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
    if name.len() > MAX_NAME || name.contains(&0) {
        return Err(ArchiveError::Damaged { detail: format!("unusable name {:?}", shown()), source: None });
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if part.len() <= 255 => path.push(part),
            Component::Normal(_) => {
                return Err(ArchiveError::Damaged { detail: format!("over-long name {:?}", shown()), source: None });
            }
            Component::CurDir => {}
            Component::ParentDir => return Err(ArchiveError::Escapes { entry: shown(), why: "it has `..`" }),
            Component::RootDir | Component::Prefix(_) => {
                return Err(ArchiveError::Escapes { entry: shown(), why: "it is absolute" });
            }
        }
    }
    if path.components().count() > MAX_DEPTH {
        return Err(ArchiveError::Damaged { detail: format!("{:?} is nested too deeply", shown()), source: None });
    }
    Ok(path)
}

/// Whether a link at `path` with this target stays inside the tree, whatever its other links are: a target that never
/// climbs above the tree by its own text.
pub(super) fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Counts what an archive has become so far.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    bytes: u64,
    entries: u64,
    disk: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, entries: 0, disk: 0 }
    }

    /// One entry more.
    pub(super) fn entry(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        self.disk = self.disk.saturating_add(on_disk(0));
        if self.entries > self.limits.max_entries {
            return Err(ArchiveError::TooLarge { limit: self.limits.max_entries, unit: "files" });
        }
        Ok(())
    }

    /// Bytes that may still be written.
    pub(super) fn left(&self) -> u64 {
        self.limits.max_bytes - self.bytes
    }

    /// The bytes of the last entry, a file.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.disk = self.disk.saturating_add(on_disk(bytes) - on_disk(0));
        if self.bytes > self.limits.max_bytes {
            self.bytes = self.limits.max_bytes;
            return Err(ArchiveError::TooLarge { limit: self.limits.max_bytes, unit: "bytes" });
        }
        Ok(())
    }

    /// What it has become.
    pub(super) fn tree(&self) -> UnpackedTree {
        UnpackedTree { bytes: self.bytes, entries: self.entries, disk: self.disk }
    }
}

/// A decompressed stream gave more bytes than permitted.
#[derive(Debug, thiserror::Error)]
#[error("the stream is longer than {0} bytes")]
pub(super) struct StreamTooLong(pub(super) u64);

/// Ends a stream with an error at its limit.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    limit: u64,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, limit, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(StreamTooLong(self.limit)))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_usage_is_counted_in_blocks() {
        let mut budget = Budget::new(Limits::default());
        for bytes in [0, 1, 4096, 4097] {
            budget.entry().expect("room");
            budget.take(bytes).expect("room");
        }
        // A directory.
        budget.entry().expect("room");
        assert_eq!(budget.tree(), UnpackedTree { bytes: 8194, entries: 5, disk: 6 * 4096 });
        assert_eq!(on_disk(u64::MAX), u64::MAX);
    }

    #[test]
    fn names() {
        for (name, path) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("./", ""), ("a/./b", "a/b"), ("..a", "..a")] {
            assert_eq!(entry_path(name.as_bytes()).unwrap(), Path::new(path), "{name}");
        }
        for name in ["..", "a/../b", "../a", "/a", "//a"] {
            assert!(matches!(entry_path(name.as_bytes()), Err(ArchiveError::Escapes { .. })), "{name}");
        }
        let long = "x".repeat(300);
        let deep = "d/".repeat(300);
        for name in ["a\0b", &long, &deep] {
            assert!(matches!(entry_path(name.as_bytes()), Err(ArchiveError::Damaged { .. })), "{name:?}");
        }
    }

    #[test]
    fn links() {
        for (path, target, inside) in [
            ("a", "b", true),
            ("d/a", "../b", true),
            ("d/a", "../../b", false),
            ("a", "..", false),
            ("a", "/etc/passwd", false),
            ("a", "b/../c", true),
            ("a", "b/../../c", false),
        ] {
            assert_eq!(stays_inside(Path::new(path), Path::new(target)), inside, "{path} -> {target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_name_never_leaves(name in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Ok(path) = entry_path(&name) {
                proptest::prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }

        #[test]
        fn an_accepted_link_never_leaves(parts in proptest::collection::vec("(\\.\\.|a|b|\\.)", 0..8), depth in 1usize..4) {
            let path: PathBuf = std::iter::repeat_n("d", depth).collect();
            let target: PathBuf = parts.iter().collect();
            let mut at = i32::try_from(depth).unwrap() - 1;
            let mut lowest = at;
            for part in &parts {
                at += match part.as_str() { ".." => -1, "." => 0, _ => 1 };
                lowest = lowest.min(at);
            }
            proptest::prop_assert_eq!(stays_inside(&path, &target), lowest >= 0);
        }
    }
}
