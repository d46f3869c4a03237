//! The user namespace: 65,536 ids of the host, seen as 0 to 65535. Ids of different slots never meet.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use slipway_helper::spec::Failure;

use super::at;

/// Ids of one sandbox.
pub(super) const IDS: u32 = 65_536;

/// Makes a user namespace whose ids begin at `base` on the host. A child that does nothing holds it until it is opened.
pub(super) fn create(base: u32) -> Result<OwnedFd, Failure> {
    // SAFETY: a plain fork with one more namespace; the child only waits to be killed.
    let child =
        unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) };
    let child = match nix::errno::Errno::result(child).map_err(at("make a user namespace"))? {
        0 => loop {
            nix::unistd::pause();
        },
        child => Pid::from_raw(i32::try_from(child).unwrap_or(i32::MAX)),
    };
    let opened = open(child, base);
    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    opened
}

fn open(child: Pid, base: u32) -> Result<OwnedFd, Failure> {
    let map = format!("0 {base} {IDS}\n");
    for name in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{name}"), &map).map_err(at(format!("map ids from {base} ({name})")))?;
    }
    let file = std::fs::File::open(format!("/proc/{child}/ns/user")).map_err(at("open the user namespace"))?;
    Ok(file.into())
}
