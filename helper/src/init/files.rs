//! Files of the order: credentials of services, in memory only, for the program's user alone.

use std::fs::File;
use std::io::Write as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use slipway_helper::spec::{FILES_ROOT, Failure, InitSpec};

use super::root::{ATTR_RDONLY, IN_ROOT, Root, filesystem, onto, open_directory, set_attributes};
use super::{at, invalid};

/// Memory is given out by it.
const PAGE: usize = 4096;

/// Files of the order, in memory only, for the program's user alone. Nothing in a layer has a part in it but the
/// directory that they are mounted on.
pub(super) fn make(root: &Root, spec: &InitSpec) -> Result<(), Failure> {
    if spec.files.is_empty() {
        return Ok(());
    }
    let (uid, gid) = account(root, &spec.user)?;
    // A page for each started page of content, each file, each directory on its path, and the root.
    let pages: usize =
        spec.files.iter().map(|file| file.content.len().div_ceil(PAGE) + file.path.components().count() + 1).sum();
    let size = ((pages + 1) * PAGE).to_string();
    let (owner, group) = (uid.as_raw().to_string(), gid.as_raw().to_string());
    let options = [("mode", "500"), ("size", size.as_str()), ("uid", owner.as_str()), ("gid", group.as_str())];
    let flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let shown = format!("make {FILES_ROOT}");
    let tree = filesystem("tmpfs", &options, flags).map_err(at(&shown))?;
    for file in &spec.files {
        let bad = |error: std::io::Error| invalid(format!("make {FILES_ROOT}/{}", file.path.display()))(error);
        let refused = |error: Errno| bad(error.into());
        let mut parent = tree.try_clone().map_err(at(&shown))?;
        let mut names = file.path.components().peekable();
        while let Some(component) = names.next() {
            let Component::Normal(name) = component else {
                return Err(refused(Errno::INVAL));
            };
            if names.peek().is_some() {
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o500)) {
                    Ok(()) => {
                        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(refused)?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(refused(error)),
                }
                parent = open_directory(&parent, Path::new(name), ResolveFlags::BENEATH).map_err(refused)?;
            } else {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o400)).map_err(refused)?;
                rustix::fs::fchown(&made, Some(uid), Some(gid)).map_err(refused)?;
                File::from(made).write_all(file.content.as_bytes()).map_err(bad)?;
            }
        }
    }
    set_attributes(&tree, ATTR_RDONLY, None).map_err(at(&shown))?;
    onto(&tree, &root.directory(Path::new(FILES_ROOT))?).map_err(at(shown))
}

/// The host's ids of a user of the stack.
fn account(root: &Root, user: &str) -> Result<(rustix::fs::Uid, rustix::fs::Gid), Failure> {
    let mut list = String::new();
    // Not blocking: a layer may have a pipe in place of the list.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let shown = "read /etc/passwd of the stack";
    let fd = rustix::fs::openat2(&root.fd, "etc/passwd", flags, Mode::empty(), IN_ROOT).map_err(invalid(shown))?;
    std::io::Read::read_to_string(&mut File::from(fd), &mut list).map_err(invalid(shown))?;
    let account = super::app::parse_account(&list, user).ok_or_else(|| super::app::no_account(user))?;
    Ok((rustix::fs::Uid::from_raw(root.base + account.uid), rustix::fs::Gid::from_raw(root.base + account.gid)))
}
