//! Writable layers and staging volumes, each with a quota.
//!
//! A btrfs holds them, because a subvolume with a limit is made and removed in a tenth of a millisecond: the state
//! directory's own file system if it is one, else a sparse file mounted through a loop device. Where neither can be had
//! they are plain directories without a quota, and the host's facts say so.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{SandboxError, btrfs, host, run};
use crate::reserve;

/// btrfs needs a little over 109 MiB.
const SMALLEST: u64 = 256 << 20;

/// Where writable layers are.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    quota: bool,
    /// The sparse file that holds it, unless it is part of the host's own file system.
    image: Option<PathBuf>,
}

impl Scratch {
    /// Makes it ready: finds it mounted, mounts it again after a reboot, or makes it. Returns it with what people
    /// should know.
    pub(super) fn open(state: &Path, bytes: u64) -> Result<(Self, Vec<String>), SandboxError> {
        let root = state.join("scratch");
        std::fs::create_dir_all(&root).map_err(host(format!("make {}", root.display())))?;
        let mut warnings = Vec::new();
        let quota = match ensure_btrfs(&root, &state.join("scratch.img"), bytes) {
            Ok(()) => true,
            Err(error) => {
                warnings.push(format!(
                    "disk limits are not enforced: no btrfs for {} ({error}); install btrfs-progs and make loop devices available",
                    root.display()
                ));
                false
            }
        };
        for part in ["i", "v"] {
            let path = root.join(part);
            std::fs::create_dir_all(&path).map_err(host(format!("make {}", path.display())))?;
        }
        // Names in here are those of workloads; nobody else has business here.
        set_mode(&root, 0o700)?;
        let image = Some(state.join("scratch.img")).filter(|image| quota && image.exists());
        Ok((Self { root, quota, image }, warnings))
    }

    /// For `HostFacts`.
    pub(super) fn mode(&self) -> &'static str {
        if self.quota { "btrfs-qgroup" } else { "none" }
    }

    /// Path of a sandbox's writable layer.
    pub(super) fn instance(&self, id: &str) -> PathBuf {
        self.root.join("i").join(id)
    }

    /// Makes the writable layer of a sandbox; what an earlier one of this name left is removed first.
    pub(super) fn create_instance(&self, id: &str, bytes: u64) -> Result<PathBuf, SandboxError> {
        self.remove_instance(id)?;
        let path = self.instance(id);
        self.create(&path, bytes)?;
        Ok(path)
    }

    /// Refuses, with figures, what the disk cannot hold now. Limits may add up to more than the disk; what is not there
    /// when a sandbox starts would be missing in the middle of its work.
    pub(super) fn room(&self, bytes: u64) -> Result<(), SandboxError> {
        let failed = |path: &Path| host(format!("read the free space of {}", path.display()));
        let free = |path: &Path| {
            let stat = nix::sys::statvfs::statvfs(path).map_err(|error| failed(path)(error.into()))?;
            Ok((
                stat.blocks_available() * stat.fragment_size(),
                (stat.blocks() - stat.blocks_free()) * stat.fragment_size(),
            ))
        };
        let (mut available, used) = free(&self.root)?;
        let below = |path: &Path| reserve::room(path).map_err(failed(path));
        if self.image.is_none() {
            // It lies on the host's own file system: what is the host's stays, inodes too.
            let room = below(&self.root)?;
            available = available.min(room.bytes);
            if room.files == Some(0) {
                let detail = format!("no more files can be made on the disk of {}", self.root.display());
                return Err(SandboxError::Exhausted { what: "disk", detail });
            }
        }
        if let Some(image) = &self.image {
            use std::os::unix::fs::MetadataExt as _;
            // A sparse file whose blocks cannot be had breaks the file system inside.
            let below = below(image.parent().unwrap_or(image))?.bytes;
            // Blocks that the file already holds are used again before new ones are taken.
            let held = image.metadata().map_err(failed(image))?.blocks() * 512;
            available = available.min(below + held.saturating_sub(used));
        }
        if bytes <= available {
            return Ok(());
        }
        let detail = format!(
            "the writable layer needs {} MiB of disk, {} MiB are free for {}",
            bytes >> 20,
            available >> 20,
            self.root.display()
        );
        Err(SandboxError::Exhausted { what: "disk", detail })
    }

    /// Removes the writable layer of a sandbox, if there is one.
    pub(super) fn remove_instance(&self, id: &str) -> Result<(), SandboxError> {
        self.remove(&self.instance(id))
    }

    /// Names of the writable layers that exist.
    pub(super) fn instances(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root.join("i")) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Removes all staging volumes: their builds went with the agent that made them. Answers what could not be removed.
    pub(super) fn remove_volumes(&self) -> Vec<SandboxError> {
        let Ok(entries) = std::fs::read_dir(self.root.join("v")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| self.remove(&entry.path()).err()).collect()
    }

    /// Path of a staging volume, made when absent, with this quota. It belongs to the sandbox's `vcap`.
    pub(super) fn volume(&self, volume: Uuid, bytes: u64) -> Result<PathBuf, SandboxError> {
        let path = self.root.join("v").join(volume.to_string());
        if path.exists() {
            if self.quota {
                btrfs::limit(&path, bytes).map_err(disk(format!("limit {}", path.display())))?;
            }
        } else {
            self.room(bytes)?;
            self.create(&path, bytes)?;
            let vcap = 2000;
            std::os::unix::fs::chown(&path, Some(vcap), Some(vcap))
                .map_err(host(format!("give away {}", path.display())))?;
        }
        Ok(path)
    }

    /// Removes a staging volume, if there is one.
    pub(super) fn remove_volume(&self, volume: Uuid) -> Result<(), SandboxError> {
        self.remove(&self.root.join("v").join(volume.to_string()))
    }

    /// Bytes of a sandbox's writable layer.
    pub(super) fn used(&self, id: &str) -> u64 {
        // Without accounting there is no figure that would not cost a walk through all files.
        if self.quota { btrfs::used(&self.instance(id)).unwrap_or(0) } else { 0 }
    }

    fn create(&self, path: &Path, bytes: u64) -> Result<(), SandboxError> {
        let made = match (self.quota, path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (true, Some(parent), Some(name)) => btrfs::create(parent, name, bytes),
            _ => std::fs::create_dir(path),
        };
        made.map_err(disk(format!("make {}", path.display())))
    }

    fn remove(&self, path: &Path) -> Result<(), SandboxError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Ok(());
        };
        if !path.exists() {
            return Ok(());
        }
        let removed = match btrfs::destroy(parent, name) {
            // A plain directory: from a time without quotas, or never a subvolume.
            Err(_) if path.exists() => std::fs::remove_dir_all(path),
            other => other,
        };
        removed.map_err(host(format!("remove {}", path.display())))
    }

    /// Unmounts the volume; it is found again by the next [`Scratch::open`].
    pub(super) fn close(&self) -> Result<(), SandboxError> {
        if mounted(&self.root) {
            nix::mount::umount2(&self.root, nix::mount::MntFlags::MNT_DETACH)
                .map_err(|error| host(format!("unmount {}", self.root.display()))(error.into()))?;
        }
        Ok(())
    }
}

fn disk(step: String) -> impl FnOnce(io::Error) -> SandboxError {
    move |error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            SandboxError::Exhausted { what: "disk", detail: format!("{step}: {error}") }
        }
        _ => host(step)(error),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SandboxError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(host(format!("set mode of {}", path.display())))
}

/// Whether something is mounted on the directory.
pub(super) fn mounted(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    directory.parent().is_some_and(|parent| device(parent) != device(directory))
}

fn ensure_btrfs(root: &Path, image: &Path, bytes: u64) -> io::Result<()> {
    if !btrfs::is_btrfs(root) {
        let fresh = !image.exists();
        if fresh {
            format(image, bytes)?;
        }
        let (image_name, root_name) = (image.to_string_lossy(), root.to_string_lossy());
        let mount = || run("mount", &["-t", "btrfs", "-o", "loop,noatime,nosuid,nodev", &image_name, &root_name], "");
        if let Err(error) = mount() {
            if fresh {
                let _ = std::fs::remove_file(image);
                return Err(error);
            }
            // Nothing in it is needed: writable layers end with their instance, a build starts anew.
            format(image, bytes)?;
            mount()?;
        }
    }
    btrfs::enable_quota(root)
}

fn format(image: &Path, bytes: u64) -> io::Result<()> {
    let draft = image.with_extension("new");
    // Sparse: blocks are taken as they are written.
    std::fs::File::create(&draft)?.set_len(bytes.max(SMALLEST))?;
    // One copy of metadata: a second one on the same disk protects nothing that is worth protecting here.
    run("mkfs.btrfs", &["-q", "-f", "-m", "single", &draft.to_string_lossy()], "")?;
    std::fs::rename(&draft, image)
}
