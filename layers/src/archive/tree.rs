//! Writing below a directory without ever following a link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::ArchiveError;

/// The directory that an archive is unpacked into.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory of the last entry: archives are sorted, so most entries share it.
    last: Option<(PathBuf, OwnedFd)>,
    owner: Option<(u32, u32)>,
    /// For copying; one for all files, because most are smaller than the cost of getting another.
    buffer: Vec<u8>,
}

/// Owner, permissions and time of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    /// Overrides the tree's owner.
    pub(super) owner: Option<(u32, u32)>,
    /// Unix seconds.
    pub(super) mtime: Option<i64>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

impl Tree {
    /// `owner` is given to everything that brings none; `None` leaves it to the caller of the process.
    pub(super) fn open(root: &Path, owner: Option<(u32, u32)>) -> Result<Self, ArchiveError> {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty()).map_err(|e| ArchiveError::io(root, e.into()))?;
        Ok(Self { root, last: None, owner, buffer: vec![0; 128 << 10] })
    }

    /// The parent directory of `path`, made when absent, and the entry's own name.
    fn parent<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p std::ffi::OsStr), ArchiveError> {
        let name = path
            .file_name()
            .ok_or_else(|| ArchiveError::Damaged { detail: "an entry without a name".into(), source: None })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        if let Some((known, fd)) = &self.last
            && known == directory
        {
            return Ok((fd.try_clone().map_err(|e| ArchiveError::io(path, e))?, name));
        }
        let mut at = self.root.try_clone().map_err(|e| ArchiveError::io(path, e))?;
        for part in directory.components() {
            let part = part.as_os_str();
            at = match rustix::fs::openat(&at, part, DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(rustix::io::Errno::NOENT) => {
                    rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755))
                        .map_err(|e| ArchiveError::io(path, e.into()))?;
                    let next = rustix::fs::openat(&at, part, DIRECTORY, Mode::empty())
                        .map_err(|e| ArchiveError::io(path, e.into()))?;
                    self.own(&next, None).map_err(|e| ArchiveError::io(path, e))?;
                    next
                }
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                    return Err(ArchiveError::Escapes {
                        entry: path.display().to_string(),
                        why: "a directory on its way is a link or a file of the archive",
                    });
                }
                Err(error) => return Err(ArchiveError::io(path, error.into())),
            };
        }
        self.last = Some((directory.to_owned(), at.try_clone().map_err(|e| ArchiveError::io(path, e))?));
        Ok((at, name))
    }

    fn own(&self, fd: impl AsFd, owner: Option<(u32, u32)>) -> io::Result<()> {
        if let Some((user, group)) = owner.or(self.owner) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        Ok(())
    }

    /// Removes what a former entry of the same name left, unless it is a directory.
    fn clear(at: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::ISDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A directory; one that exists keeps its content and takes the attributes.
    pub(super) fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), ArchiveError> {
        let io = |e: rustix::io::Errno| ArchiveError::io(path, e.into());
        let fd = if path.as_os_str().is_empty() {
            self.root.try_clone().map_err(|e| ArchiveError::io(path, e))?
        } else {
            let (at, name) = self.parent(path)?;
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(io(error)),
            }
            match rustix::fs::openat(&at, name, DIRECTORY, Mode::empty()) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                    return Err(ArchiveError::Escapes {
                        entry: path.display().to_string(),
                        why: "a former entry of this name is a link or a file",
                    });
                }
                Err(error) => return Err(io(error)),
            }
        };
        // Whoever unpacks must be able to go on inside, also as a plain user.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(attributes.mode & 0o1777 | 0o700)).map_err(io)?;
        self.own(&fd, attributes.owner).map_err(|e| ArchiveError::io(path, e))
    }

    /// A regular file with at most `limit` bytes of `content`; gives back how many there were.
    pub(super) fn file(
        &mut self,
        path: &Path,
        content: &mut dyn Read,
        limit: u64,
        attributes: Attributes,
    ) -> Result<u64, ArchiveError> {
        let (at, name) = self.parent(path)?;
        let io = |e| ArchiveError::io(path, e);
        Self::clear(&at, name).map_err(io)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&at, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| match e {
            rustix::io::Errno::EXIST => ArchiveError::Damaged {
                detail: format!("{} is a directory and a file at once", path.display()),
                source: None,
            },
            other => io(other.into()),
        })?;
        let mut file = File::from(fd);
        let mut written = 0;
        loop {
            let read = content.read(&mut self.buffer).map_err(ArchiveError::damaged)?;
            if read == 0 {
                break;
            }
            written += read as u64;
            if written > limit {
                return Err(ArchiveError::TooLarge { limit, unit: "bytes" });
            }
            file.write_all(&self.buffer[..read]).map_err(io)?;
        }
        self.own(&file, attributes.owner).map_err(io)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode & 0o777)).map_err(|e| io(e.into()))?;
        if let Some(time) = attributes.mtime {
            rustix::fs::futimens(&file, &times(time)).map_err(|e| io(e.into()))?;
        }
        Ok(written)
    }

    /// A symbolic link.
    pub(super) fn symlink(&mut self, path: &Path, target: &Path, attributes: Attributes) -> Result<(), ArchiveError> {
        let (at, name) = self.parent(path)?;
        let io = |e: rustix::io::Errno| ArchiveError::io(path, e.into());
        Self::clear(&at, name).map_err(|e| ArchiveError::io(path, e))?;
        rustix::fs::symlinkat(target, &at, name).map_err(io)?;
        self.last = None;
        if let Some((user, group)) = attributes.owner.or(self.owner) {
            rustix::fs::chownat(
                &at,
                name,
                Some(Uid::from_raw(user)),
                Some(Gid::from_raw(group)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(io)?;
        }
        if let Some(time) = attributes.mtime {
            rustix::fs::utimensat(&at, name, &times(time), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        }
        Ok(())
    }

    /// A hard link to a regular file of the same tree.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let outside = || ArchiveError::Escapes {
            entry: path.display().to_string(),
            why: "it is a hard link to something that is no file of the archive",
        };
        let (from, from_name) = self.parent(target)?;
        let state = rustix::fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| outside())?;
        if !rustix::fs::FileType::from_raw_mode(state.st_mode).is_file() {
            return Err(outside());
        }
        let (at, name) = self.parent(path)?;
        if path != target {
            Self::clear(&at, name).map_err(|e| ArchiveError::io(path, e))?;
            rustix::fs::linkat(&from, from_name, &at, name, AtFlags::empty())
                .map_err(|e| ArchiveError::io(path, e.into()))?;
        }
        Ok(())
    }

    /// Sets the time of a directory; done last, because each new entry changes it.
    pub(super) fn directory_time(&mut self, path: &Path, time: i64) -> Result<(), ArchiveError> {
        let (at, name) = self.parent(path)?;
        rustix::fs::utimensat(&at, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| ArchiveError::io(path, e.into()))
    }
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
