//! The part of a file system that uploads leave free.
//!
//! Everything of a platform may be on one disk: the database, the journals of cells, the files of running apps. When it is
//! full, all of that stops. So uploads are refused before: the rest is for what runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How often a writer looks, bytes. All that may be received at a time overshoots by this much each.
const LOOK_EVERY: u64 = 8 << 20;

/// Watches one file system.
#[derive(Clone, Debug)]
pub struct Reserve {
    directory: PathBuf,
    percent: u64,
    least_bytes: u64,
}

/// The file system's reserve for the platform itself is reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The platform's store is nearly full: {free} of {total} {unit} are free, and {reserved} are kept for what runs. Apps go on; \
     uploads wait until somebody has deleted packages, droplets or apps, or the operator has made room"
)]
pub struct ReserveReached {
    /// Free now.
    free: u64,
    /// There are.
    total: u64,
    /// Not for uploads.
    reserved: u64,
    /// Of what.
    unit: &'static str,
}

impl Reserve {
    /// Keeps `percent` of the file system of `directory`, and at least `least_mb` MiB; and `percent` of its inodes.
    #[must_use]
    pub fn new(directory: &Path, percent: u64, least_mb: u64) -> Self {
        Self { directory: directory.to_owned(), percent, least_bytes: least_mb.saturating_mul(1 << 20) }
    }

    /// Whether so many bytes more leave the reserve untouched.
    ///
    /// # Errors
    /// [`ReserveReached`] with the figures. A file system that does not answer refuses nothing: writing will tell.
    pub fn check(&self, more: u64) -> Result<(), ReserveReached> {
        let Ok(found) = rustix::fs::statvfs(&self.directory) else { return Ok(()) };
        self.compare(&found, more)
    }

    fn compare(&self, found: &rustix::fs::StatVfs, more: u64) -> Result<(), ReserveReached> {
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let (total, free) = (bytes(found.f_blocks), bytes(found.f_bavail));
        let reserved = self.share(total).max(self.least_bytes);
        if free.saturating_sub(more) < reserved {
            return Err(ReserveReached { free: free >> 20, total: total >> 20, reserved: reserved >> 20, unit: "MiB" });
        }
        // Some file systems make inodes as they need them, and say that there are none.
        let reserved = self.share(found.f_files);
        if found.f_files > 0 && found.f_favail < reserved {
            return Err(ReserveReached { free: found.f_favail, total: found.f_files, reserved, unit: "inodes" });
        }
        Ok(())
    }

    fn share(&self, total: u64) -> u64 {
        u64::try_from(u128::from(total) * u128::from(self.percent) / 100).unwrap_or(u64::MAX)
    }
}

/// Writes until the reserve is reached; then fails with [`io::ErrorKind::StorageFull`] and [`ReserveReached`] in it.
#[derive(Debug)]
pub struct ReserveWriter<W> {
    inner: W,
    reserve: Option<Reserve>,
    unlooked: u64,
}

impl<W> ReserveWriter<W> {
    /// Writes to `inner`; without a reserve, to the end of the disk.
    pub fn new(inner: W, reserve: Option<&Reserve>) -> Self {
        Self { inner, reserve: reserve.cloned(), unlooked: 0 }
    }

    /// What it writes to.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for ReserveWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unlooked >= LOOK_EVERY {
            self.reserve.as_ref().map_or(Ok(()), |reserve| reserve.check(0))?;
            self.unlooked = 0;
        }
        let written = self.inner.write(bytes)?;
        self.unlooked += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: io::Seek> io::Seek for ReserveWriter<W> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl From<ReserveReached> for io::Error {
    fn from(error: ReserveReached) -> Self {
        Self::new(io::ErrorKind::StorageFull, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(reserve: &Reserve, change: impl Fn(&mut rustix::fs::StatVfs), more: u64) -> Option<String> {
        let mut found = rustix::fs::statvfs("/").expect("a file system");
        (found.f_frsize, found.f_blocks, found.f_bavail) = (4096, 25 << 20, 25 << 20);
        (found.f_files, found.f_favail) = (1000, 1000);
        change(&mut found);
        reserve.compare(&found, more).err().map(|error| error.to_string())
    }

    #[test]
    fn bytes_and_inodes_are_reserved() {
        // 100 GiB of which 5 % are kept.
        let reserve = Reserve::new(Path::new("/"), 5, 1024);
        let gib = |free: u64| move |found: &mut rustix::fs::StatVfs| found.f_bavail = free << 18;
        assert_eq!(compared(&reserve, gib(6), 1 << 30), None);
        let text = compared(&reserve, gib(6), (1 << 30) + 1).expect("one byte too many");
        assert!(text.contains("6144 of 102400 MiB are free, and 5120 are kept"), "{text}");
        assert!(compared(&Reserve::new(Path::new("/"), 5, 8192), gib(7), 0).is_some(), "the least counts");
        let text = compared(&reserve, |found| found.f_favail = 49, 0).expect("too few inodes");
        assert!(text.contains("49 of 1000 inodes"), "{text}");
        assert_eq!(compared(&reserve, |found| (found.f_files, found.f_favail) = (0, 0), 0), None, "as btrfs says it");
    }

    #[test]
    fn a_writer_stops_at_the_reserve() {
        let piece = vec![0; 1 << 20];
        let mut full = ReserveWriter::new(io::sink(), Some(&Reserve::new(Path::new("/"), 0, u64::MAX)));
        let written = (0..64).take_while(|_| full.write_all(&piece).is_ok()).count();
        assert_eq!(written as u64, LOOK_EVERY >> 20);
        let error = full.write_all(&piece).expect_err("still full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        for reserve in [Some(Reserve::new(Path::new("/"), 0, 0)), None] {
            let mut roomy = ReserveWriter::new(io::sink(), reserve.as_ref());
            assert!((0..64).all(|_| roomy.write_all(&piece).is_ok()));
        }
    }
}
