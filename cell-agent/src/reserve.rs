//! What is left to the host on a disk, whatever instances and the cache would like: without room for journals and logs, and
//! for the files of the platform's database that may lie on the same disk, everything on the host stands still.

use std::path::Path;

/// Bytes that stay free: a hundredth of the disk, within these bounds.
const LEAST_BYTES: u64 = 64 << 20;
const MAX_BYTES: u64 = 1 << 30;
/// Of the files that a disk can hold, the part that stays free.
const FILES_SHARE: u64 = 20;

/// What may still be taken of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeSpace {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files and directories; none where the disk makes room for them as they come.
    pub(crate) files: Option<u64>,
}

/// What the disk of a path has, less the reserve.
pub(crate) fn room(path: &Path) -> std::io::Result<FreeSpace> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the width of these fields differs between targets")]
    let (block, free, all, files_free, files) = (
        u64::from(stat.fragment_size()),
        u64::from(stat.blocks_available()),
        u64::from(stat.blocks()),
        u64::from(stat.files_available()),
        u64::from(stat.files()),
    );
    Ok(less_reserve(free.saturating_mul(block), all.saturating_mul(block), files_free, files))
}

fn less_reserve(free: u64, all: u64, files_free: u64, files: u64) -> FreeSpace {
    let reserve = (all / 100).clamp(LEAST_BYTES, MAX_BYTES);
    FreeSpace {
        bytes: free.saturating_sub(reserve),
        files: (files > 0).then(|| files_free.saturating_sub(files / FILES_SHARE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_of_bytes_and_files_is_left_free() {
        let small = less_reserve(100 << 20, 200 << 20, 50, 1000);
        assert_eq!(small, FreeSpace { bytes: 36 << 20, files: Some(0) });
        let large = less_reserve(500 << 30, 1 << 40, 900, 1000);
        assert_eq!(large, FreeSpace { bytes: 499 << 30, files: Some(850) });
        let growing = less_reserve(2 << 30, 10 << 30, 0, 0);
        assert_eq!(growing.files, None, "btrfs makes them as they come");
        assert_eq!(less_reserve(1, 1 << 30, 0, 10), FreeSpace { bytes: 0, files: Some(0) });
    }
}
