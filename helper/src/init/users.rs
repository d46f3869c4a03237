//! The user namespace: 65,536 ids of the host, seen as 0 to 65535. Ids of different slots never meet.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use slipway_helper::guards::Guard;
use slipway_helper::spec::{Failure, INOTIFY_INSTANCES, INOTIFY_WATCHES, InitSpec};

use super::at;

/// Ids of one sandbox.
pub(super) const IDS: u32 = 65_536;

/// What the users of one sandbox may take of a thing that the kernel counts for all namespaces together, on the account
/// of whoever made them: without a bound of its own one sandbox takes all, and the host's own programs have none left.
const BOUNDS: [(&str, u32); 2] =
    [("max_inotify_instances", INOTIFY_INSTANCES), ("max_inotify_watches", INOTIFY_WATCHES)];

/// Makes the user namespace of the order, whose ids begin at its base on the host. A child that does nothing holds it until it is opened.
pub(super) fn create(spec: &InitSpec) -> Result<OwnedFd, Failure> {
    let bounds: &[_] = if spec.guards.hold(Guard::Inotify) { &BOUNDS } else { &[] };
    let (mut reader, writer) = io::pipe().map_err(at("make a pipe"))?;
    // SAFETY: a plain fork with one more namespace; the child only sets bounds and waits to be killed.
    let child =
        unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) };
    let child = match nix::errno::Errno::result(child).map_err(at("make a user namespace"))? {
        0 => {
            drop(reader);
            set_bounds(bounds, writer);
            loop {
                nix::unistd::pause();
            }
        }
        child => Pid::from_raw(i32::try_from(child).unwrap_or(i32::MAX)),
    };
    drop(writer);
    let mut answer = [0; 4];
    let opened = match reader.read_exact(&mut answer).map(|()| i32::from_ne_bytes(answer)) {
        Ok(0) => open(child, spec.id_base),
        Ok(errno) => Err(at("bound what a user namespace may take")(io::Error::from_raw_os_error(errno))),
        Err(error) => Err(at("bound what a user namespace may take")(error)),
    };
    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    opened
}

/// In the new namespace: these files are those of the namespace of whoever opens them. Tells the number of the error.
fn set_bounds(bounds: &[(&str, u32)], mut writer: io::PipeWriter) {
    let mut errno = 0;
    for (name, most) in bounds {
        match std::fs::write(format!("/proc/sys/user/{name}"), most.to_string()) {
            // A kernel without it has nothing to be bounded.
            Err(error) if error.kind() != io::ErrorKind::NotFound => errno = error.raw_os_error().unwrap_or(libc::EIO),
            _ => {}
        }
    }
    // If nobody hears it, whoever waits sees the end of the pipe.
    let _ = writer.write_all(&errno.to_ne_bytes());
}

fn open(child: Pid, base: u32) -> Result<OwnedFd, Failure> {
    let map = format!("0 {base} {IDS}\n");
    for name in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{name}"), &map).map_err(at(format!("map ids from {base} ({name})")))?;
    }
    let file = std::fs::File::open(format!("/proc/{child}/ns/user")).map_err(at("open the user namespace"))?;
    Ok(file.into())
}
