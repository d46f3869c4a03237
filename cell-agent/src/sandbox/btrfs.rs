//! Subvolumes with a quota, by ioctl: a tenth of a millisecond each, where the program takes several.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

const MAGIC: u8 = 0x94;
const NAME: usize = 4088;
/// The root directory of every subvolume.
const FIRST_OBJECT: u64 = 256;
const ENABLE: u64 = 1;
const ENABLE_SIMPLE: u64 = 4;
const LIMIT_REFERENCED: u64 = 1;

#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; NAME],
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct GroupLimit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
struct GroupCreate {
    create: u64,
    group: u64,
}

#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

nix::ioctl_write_ptr!(subvolume_create, MAGIC, 14, VolumeArguments);
nix::ioctl_write_ptr!(subvolume_destroy, MAGIC, 15, VolumeArguments);
nix::ioctl_readwrite!(inode_lookup, MAGIC, 18, InodeLookup);
nix::ioctl_readwrite!(quota_control, MAGIC, 40, QuotaControl);
nix::ioctl_write_ptr!(group_create, MAGIC, 42, GroupCreate);
nix::ioctl_read!(group_limit, MAGIC, 43, GroupLimit);

/// Whether the directory lies on btrfs.
pub(super) fn is_btrfs(directory: &Path) -> bool {
    nix::sys::statfs::statfs(directory).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::BTRFS_SUPER_MAGIC)
}

/// Switches accounting on: the simple kind where the kernel has it (it counts for whom a block was written, which is
/// exact here and costs nothing), else the full one.
pub(super) fn enable_quota(root: &Path) -> io::Result<()> {
    let file = File::open(root)?;
    let mut result = Ok(0);
    for command in [ENABLE_SIMPLE, ENABLE] {
        let mut arguments = QuotaControl { command, status: 0 };
        // SAFETY: the structure is the one that the request wants and outlives the call.
        result = unsafe { quota_control(file.as_raw_fd(), &raw mut arguments) };
        if result.is_ok() {
            break;
        }
    }
    result?;
    Ok(())
}

/// Makes a subvolume that may hold `bytes`.
pub(super) fn create(parent: &Path, name: &str, bytes: u64) -> io::Result<()> {
    let directory = File::open(parent)?;
    let arguments = volume_arguments(name)?;
    // SAFETY: as above.
    unsafe { subvolume_create(directory.as_raw_fd(), &raw const arguments) }?;
    let limited = limit(&parent.join(name), bytes);
    if limited.is_err() {
        let _ = destroy(parent, name);
    }
    limited
}

/// Sets the quota of a subvolume.
pub(super) fn limit(subvolume: &Path, bytes: u64) -> io::Result<()> {
    let file = File::open(subvolume)?;
    let mut arguments = GroupLimit {
        group: number(&file)?,
        flags: LIMIT_REFERENCED,
        max_referenced: bytes,
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: as above.
    unsafe { group_limit(file.as_raw_fd(), &raw mut arguments) }?;
    Ok(())
}

/// Removes a subvolume with all it holds.
pub(super) fn destroy(parent: &Path, name: &str) -> io::Result<()> {
    let directory = File::open(parent)?;
    let group = File::open(parent.join(name)).and_then(|file| number(&file));
    let arguments = volume_arguments(name)?;
    // SAFETY: as above.
    unsafe { subvolume_destroy(directory.as_raw_fd(), &raw const arguments) }?;
    if let Ok(group) = group {
        let arguments = GroupCreate { create: 0, group };
        // Refused until the blocks are freed in the background; the group of a subvolume that is gone costs only its row.
        // SAFETY: as above.
        let _ = unsafe { group_create(directory.as_raw_fd(), &raw const arguments) };
    }
    Ok(())
}

/// Bytes that count against a subvolume's quota; as of the last commit of the file system, at most 30 s ago.
pub(super) fn used(subvolume: &Path) -> io::Result<u64> {
    let number = number(&File::open(subvolume)?)?;
    let group = format!("qgroups/0_{number}/referenced");
    for entry in std::fs::read_dir("/sys/fs/btrfs")? {
        let entry = entry?;
        // The file system is found by its device, which is that of the loop or disk below it.
        if owns(&entry.path(), subvolume) {
            let text = std::fs::read_to_string(entry.path().join(group))?;
            return text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no accounting in /sys/fs/btrfs"))
}

fn owns(filesystem: &Path, subvolume: &Path) -> bool {
    let Ok(source) = source_device(subvolume) else { return false };
    filesystem.join("devices").join(source).exists()
}

fn source_device(path: &Path) -> io::Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(target)) = (fields.next(), fields.next()) else { continue };
        if path.starts_with(target) && best.is_none_or(|(length, _)| target.len() >= length) {
            best = Some((target.len(), source));
        }
    }
    best.and_then(|(_, source)| source.strip_prefix("/dev/"))
        .map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no device is mounted there"))
}

fn volume_arguments(name: &str) -> io::Result<VolumeArguments> {
    let mut arguments = VolumeArguments { fd: 0, name: [0; NAME] };
    if name.len() >= NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long"));
    }
    arguments.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(arguments)
}

fn number(subvolume: &File) -> io::Result<u64> {
    let mut arguments = InodeLookup { tree: 0, object: FIRST_OBJECT, name: [0; 4080] };
    // SAFETY: as above.
    unsafe { inode_lookup(subvolume.as_raw_fd(), &raw mut arguments) }?;
    Ok(arguments.tree)
}
