//! The embedded static program: `init` of each sandbox, and seen inside as launcher and builder.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest as _, Sha256};

use super::scratch::mounted;
use super::{SandboxError, host};

static HELPER: &[u8] = include_bytes!(env!("SLIPWAY_HELPER_FILE"));

/// For a child of the agent to execute its program.
const LONGEST: Duration = Duration::from_secs(5);

/// Where it is below the run directory.
fn place(run: &Path) -> PathBuf {
    run.join("helper")
}

/// Puts it below `run` on a file system of its own, in memory, that is read only from then on, and returns its path. What is
/// executed as root of the host for each start is seen by all tenants: so it cannot be written by whatever way one of them
/// finds to it, and the path of the state directory does not show inside. One of an earlier agent is taken away; sandboxes
/// that use it have it still.
pub(super) fn put_out(run: &Path) -> Result<PathBuf, SandboxError> {
    let directory = place(run);
    let path = directory.join(hex::encode(&Sha256::digest(HELPER)[..12]));
    std::fs::create_dir_all(&directory).map_err(host(format!("make {}", directory.display())))?;
    if mounted(&directory) {
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == HELPER.len() as u64) {
            return Ok(path);
        }
        remove(run)?;
    }
    let size = format!("mode=755,size={}k", HELPER.len() / 1024 + 64);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let kind = Some("tmpfs");
    mount(kind, &directory, kind, flags, Some(size.as_str()))
        .map_err(|error| host(format!("mount {}", directory.display()))(error.into()))?;
    let write = || {
        let mut options = std::fs::File::options();
        options.write(true).create_new(true).mode(0o755).open(&path)?.write_all(HELPER)?;
        let protect = || mount(kind, &directory, kind, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
        let end = Instant::now() + LONGEST;
        loop {
            match protect() {
                // A child of this process that was forked meanwhile has a copy of the open file until it executes something.
                Err(Errno::EBUSY) if Instant::now() < end => {
                    #[expect(clippy::disallowed_methods, reason = "preparation has a thread that may block")]
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return Ok(other?),
            }
        }
    };
    if let Err(error) = write() {
        // One that can be written, or half of one, must not be found by the next preparation.
        let _ = remove(run);
        return Err(host(format!("write {}", path.display()))(error));
    }
    Ok(path)
}

/// Takes it away; what runs has it still.
pub(super) fn remove(run: &Path) -> Result<(), SandboxError> {
    let directory = place(run);
    if mounted(&directory) {
        umount2(&directory, MntFlags::MNT_DETACH)
            .map_err(|error| host(format!("unmount {}", directory.display()))(error.into()))?;
    }
    Ok(())
}
