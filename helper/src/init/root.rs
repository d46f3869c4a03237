//! The root file system: an overlay of id-mapped layers and one writable directory, small `/dev`, `/proc` without the
//! host, nothing of the host's tree.
//!
//! Layers come from strangers, so a path inside may be a link to anywhere. Every path is therefore resolved by the
//! kernel within the new root (`RESOLVE_IN_ROOT`), and mounts are moved onto descriptors, never onto names.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use slipway_helper::guards::{Guard, Guards};
use slipway_helper::spec::{BindSpec, Failure, InitSpec};

use super::{at, invalid};

pub(super) const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
const ATTR_IDMAP: u64 = 0x0010_0000;

/// What programs need of `/proc` beside their own processes: who counts processors and memory (node, Java, Python), tells
/// the load, or looks for a kernel's file systems and groups. All else tells about the host and its other tenants, or steers
/// them, and is blank: also what later kernels bring.
const NEEDED: [&str; 10] =
    ["cgroups", "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "sysvipc", "uptime", "version"];

/// Names on the stage: what a blank file and a blank directory are copies of.
const BLANK: &str = "blank";
const VOID: &str = "void";

/// Builds the root and makes it the only file system this process sees.
pub(super) fn build(spec: &InitSpec, users: &OwnedFd) -> Result<(), Failure> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(at("separate the mounts from the host's"))?;
    let root = Root { fd: overlay(spec, users)?, base: spec.id_base, guards: spec.guards.clone() };
    root.proc()?;
    root.dev()?;
    root.etc(spec)?;
    let helper = |name: &str| BindSpec {
        source: spec.helper.clone(),
        target: Path::new("/tmp/lifecycle").join(name),
        writable: false,
        id_mapped: false,
    };
    // Caller's binds come in their order: a later one may lie inside an earlier one.
    for bind in spec.binds.iter().chain(&[helper("launcher"), helper("builder")]) {
        root.bind(bind, users)?;
    }
    super::files::make(&root, spec)?;
    // The mount point is the new root itself, so that the old one lies on top of it and comes off without a name.
    rustix::process::fchdir(&root.fd).map_err(at("enter the new root"))?;
    rustix::process::pivot_root(".", ".").map_err(at("change the root"))?;
    if spec.guards.hold(Guard::HostTree) {
        rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(at("give up the host's root"))?;
    }
    rustix::process::chdir("/").map_err(at("enter the new root"))
}

fn overlay(spec: &InitSpec, users: &OwnedFd) -> Result<OwnedFd, Failure> {
    let stage = &spec.stage;
    rustix::mount::mount("tmpfs", stage, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"size=64k,mode=700")
        .map_err(at(format!("mount {}", stage.display())))?;
    // Names stay short: a kernel page bounds the options, and a path with a comma or colon would break them.
    rustix::process::chdir(stage).map_err(at(format!("enter {}", stage.display())))?;
    blanks()?;
    let make = |name: &str| rustix::fs::mkdir(name, Mode::from_raw_mode(0o700)).map_err(at(format!("make {name}")));
    let mut lower = Vec::new();
    for (index, layer) in spec.layers.iter().enumerate() {
        let name = format!("l{index}");
        make(&name)?;
        let clone = clone_tree(CWD, layer).map_err(at(format!("open layer {}", layer.display())))?;
        let mapped = spec.guards.hold(Guard::MappedLayers);
        let attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | if mapped { ATTR_IDMAP } else { 0 };
        set_attributes(&clone, attributes, mapped.then_some(users))
            .map_err(at(format!("map ids of layer {}", layer.display())))?;
        attach(&clone, CWD, &name).map_err(at(format!("attach layer {}", layer.display())))?;
        lower.push(name);
    }
    if lower.is_empty() {
        return Err(Failure { step: "mount the root: the workload has no layers".to_owned(), errno: 0, invalid: true });
    }
    lower.reverse();
    let lower = lower.join(":");
    make("s")?;
    make("root")?;
    let scratch = clone_tree(CWD, &spec.scratch).map_err(at(format!("open {}", spec.scratch.display())))?;
    attach(&scratch, CWD, "s").map_err(at(format!("attach {}", spec.scratch.display())))?;
    for name in ["s/u", "s/w"] {
        rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)).map_err(at(format!("make {name}")))?;
    }
    // Otherwise `/` belongs to nobody.
    own(CWD, "s/u", spec.id_base).map_err(at("give away the upper directory"))?;
    mount_overlay(&lower, &spec.guards)?;
    for layer in lower.split(':') {
        rustix::mount::unmount(layer, UnmountFlags::DETACH).map_err(at(format!("detach {layer}")))?;
    }
    open_directory(CWD, Path::new("root"), ResolveFlags::empty()).map_err(at("open the root"))
}

/// `metacopy`: changing the mode of a layer's file must not copy it. `volatile`: nothing here survives, so nothing need
/// be synced. Older kernels know neither.
fn mount_overlay(lower: &str, guards: &Guards) -> Result<(), Failure> {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::NOSUID, guards.hold(Guard::NoSetuid));
    flags.set(MountFlags::NODEV, guards.hold(Guard::NoDevices));
    let mut last = Errno::INVAL;
    for more in [",metacopy=on,volatile", ",volatile", ""] {
        let options = format!("lowerdir={lower},upperdir=s/u,workdir=s/w{more}");
        let options = std::ffi::CString::new(options).unwrap_or_default();
        match rustix::mount::mount("overlay", "root", "overlay", flags, options.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
        if last != Errno::INVAL {
            break;
        }
    }
    Err(at("mount the root overlay")(last))
}

/// What is laid over files and directories of `/proc`: copies of these cannot be written, which `/dev/null` could. They are
/// mounts of their own, because kernels before 6.15 copy only what is attached somewhere.
fn blanks() -> Result<(), Failure> {
    let made = rustix::fs::mkdir(VOID, Mode::from_raw_mode(0o555)).and_then(|()| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(BLANK, flags, Mode::from_raw_mode(0o444)).map(drop)
    });
    made.map_err(at("make a blank file"))?;
    for name in [BLANK, VOID] {
        let tree = clone_tree(CWD, Path::new(name)).map_err(at("copy a blank file"))?;
        set_attributes(&tree, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, None)
            .map_err(at("protect a blank file"))?;
        attach(&tree, CWD, name).map_err(at("attach a blank file"))?;
    }
    Ok(())
}

pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) base: u32,
    guards: Guards,
}

impl Root {
    fn proc(&self) -> Result<(), Failure> {
        let hidden = [("hidepid", "2")];
        let options: &[_] = if self.guards.hold(Guard::HiddenProcesses) { &hidden } else { &[] };
        let proc = filesystem("proc", options, MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV)
            .map_err(at("make /proc"))?;
        onto(&proc, &self.directory(Path::new("/proc"))?).map_err(at("mount /proc"))?;
        let proc = self.directory(Path::new("/proc"))?;
        if self.guards.hold(Guard::BlankProc) {
            for (name, kind) in unneeded(&proc).map_err(at("list /proc"))? {
                let shown = || format!("blank /proc/{}", name.to_string_lossy());
                let blank = if kind == FileType::Directory { VOID } else { BLANK };
                let copy = clone_tree(CWD, Path::new(blank)).map_err(at(shown()))?;
                attach(&copy, &proc, &name).map_err(at(shown()))?;
            }
        }
        if self.guards.hold(Guard::ReadOnlyProc) {
            let place = open_directory(&proc, Path::new("sys"), IN_ROOT).map_err(at("find /proc/sys"))?;
            let copy = clone_fd(&place).map_err(at("protect /proc/sys"))?;
            set_attributes(&copy, ATTR_RDONLY, None).map_err(at("protect /proc/sys"))?;
            onto(&copy, &place).map_err(at("protect /proc/sys"))?;
        }
        Ok(())
    }

    fn dev(&self) -> Result<(), Failure> {
        let owner = self.base.to_string();
        let options = [("mode", "755"), ("size", "64k"), ("uid", owner.as_str()), ("gid", owner.as_str())];
        let dev = filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOEXEC).map_err(at("make /dev"))?;
        let nodes =
            [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
        for (name, major, minor) in nodes {
            let made = rustix::fs::mknodat(
                &dev,
                name,
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                rustix::fs::makedev(major, minor),
            )
            // The mask of this process takes the write permission away again.
            .and_then(|()| rustix::fs::chmodat(&dev, name, Mode::from_raw_mode(0o666), AtFlags::empty()))
            .and_then(|()| own(&dev, name, self.base));
            made.map_err(at(format!("make /dev/{name}")))?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, target) in links {
            rustix::fs::symlinkat(target, &dev, name).map_err(at(format!("make /dev/{name}")))?;
        }
        for name in ["pts", "shm"] {
            rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).map_err(at(format!("make /dev/{name}")))?;
        }
        onto(&dev, &self.directory(Path::new("/dev"))?).map_err(at("mount /dev"))?;
        let terminals = (self.base + 5).to_string();
        // Terminals are counted for all sandboxes together, 4,096 of them by default: without a bound one takes all.
        let options =
            [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", terminals.as_str()), ("max", "64")];
        let most = if self.guards.hold(Guard::Terminals) { options.len() } else { options.len() - 1 };
        let pts =
            filesystem("devpts", &options[..most], MountAttrFlags::MOUNT_ATTR_NOEXEC).map_err(at("make /dev/pts"))?;
        attach(&pts, &dev, "pts").map_err(at("mount /dev/pts"))?;
        // Its pages count for whoever writes them, so the memory limit holds here too.
        let size = if self.guards.hold(Guard::SharedMemory) { "64m" } else { "50%" };
        let options = [("mode", "1777"), ("size", size), ("uid", owner.as_str()), ("gid", owner.as_str())];
        let shm = filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(at("make /dev/shm"))?;
        attach(&shm, &dev, "shm").map_err(at("mount /dev/shm"))
    }

    fn etc(&self, spec: &InitSpec) -> Result<(), Failure> {
        let directory = self.directory(Path::new("/etc"))?;
        let hosts = format!("127.0.0.1 localhost\n{} {}\n", spec.network.address, spec.hostname);
        let hostname = format!("{}\n", spec.hostname);
        for (name, text) in [("resolv.conf", &spec.resolv_conf), ("hosts", &hosts), ("hostname", &hostname)] {
            let written = match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => self.new_file(&directory, name),
                Err(error) => Err(error),
            };
            let mut file = File::from(written.map_err(at(format!("make /etc/{name}")))?);
            file.write_all(text.as_bytes()).map_err(at(format!("write /etc/{name}")))?;
        }
        Ok(())
    }

    fn bind(&self, bind: &BindSpec, users: &OwnedFd) -> Result<(), Failure> {
        let shown = format!("bind {} at {}", bind.source.display(), bind.target.display());
        let tree = clone_tree(CWD, &bind.source).map_err(at(&shown))?;
        let writable = bind.writable || !self.guards.hold(Guard::ReadOnlyBinds);
        let attributes = ATTR_NOSUID
            | ATTR_NODEV
            | if writable { 0 } else { ATTR_RDONLY }
            | if bind.id_mapped { ATTR_IDMAP } else { 0 };
        set_attributes(&tree, attributes, bind.id_mapped.then_some(users)).map_err(at(&shown))?;
        let is_directory = rustix::fs::fstat(&tree)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            .map_err(at(&shown))?;
        let place = if is_directory { self.directory(&bind.target)? } else { self.file(&bind.target)? };
        onto(&tree, &place).map_err(at(shown))
    }

    /// A directory inside, made with its parents when absent.
    pub(super) fn directory(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let shown = format!("find directory {} inside", path.display());
        let mut parent = self.fd.try_clone().map_err(at(&shown))?;
        let inside = if self.guards.hold(Guard::ResolvedInside) { IN_ROOT } else { ResolveFlags::empty() };
        let mut walked = PathBuf::from(".");
        for component in path.components() {
            let name = match component {
                Component::RootDir => continue,
                Component::Normal(name) => name,
                _ => return Err(invalid(shown)(std::io::Error::from_raw_os_error(libc::EINVAL))),
            };
            walked.push(name);
            let opened = match open_directory(&self.fd, &walked, inside) {
                Err(Errno::NOENT) => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                    .and_then(|()| own(&parent, name, self.base))
                    .and_then(|()| match walked.as_os_str().as_encoded_bytes() {
                        b"./tmp" => rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o1777), AtFlags::empty()),
                        _ => Ok(()),
                    })
                    .and_then(|()| open_directory(&self.fd, &walked, inside)),
                other => other,
            };
            parent = opened.map_err(invalid(&shown))?;
        }
        Ok(parent)
    }

    /// A file inside, made empty when absent.
    fn file(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let shown = format!("find file {} inside", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(invalid(shown)(std::io::Error::from_raw_os_error(libc::EINVAL)));
        };
        let parent = self.directory(parent)?;
        match self.new_file(&parent, name) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(at(shown)(error)),
        }
        // The name itself may be a link of the layer; not following it means mounting over the link.
        rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(at(shown))
    }

    fn new_file<P: rustix::path::Arg>(&self, directory: &OwnedFd, name: P) -> Result<OwnedFd, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
        let (uid, gid) = owner(self.base);
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        Ok(file)
    }
}

/// Names in `/proc` that are neither processes nor kept, with their kinds. Links lead to a process and stay.
fn unneeded(proc: &OwnedFd) -> Result<Vec<(std::ffi::CString, FileType)>, Errno> {
    let mut found = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(proc, ".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&listed)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type());
        let text = name.to_bytes();
        let process = text.iter().all(u8::is_ascii_digit);
        let needed = NEEDED.iter().any(|needed| needed.as_bytes() == text) || matches!(text, b"." | b"..");
        if !process && !needed && kind != FileType::Symlink {
            found.push((name.to_owned(), kind));
        }
    }
    Ok(found)
}

pub(super) const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

pub(super) fn open_directory<F: AsFd>(at: F, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn owner(base: u32) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(base), rustix::fs::Gid::from_raw(base))
}

fn own<F: AsFd, P: rustix::path::Arg>(directory: F, name: P, base: u32) -> Result<(), Errno> {
    let (uid, gid) = owner(base);
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn filesystem(kind: &str, options: &[(&str, &str)], more: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *name)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *name, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | more;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn clone_tree<F: AsFd>(at: F, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(at, path, flags)
}

fn clone_fd(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, c"", flags)
}

fn attach<F: AsFd, P: rustix::path::Arg>(tree: &OwnedFd, at: F, name: P) -> Result<(), Errno> {
    rustix::mount::move_mount(tree, c"", at, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(super) fn onto(tree: &OwnedFd, place: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", place, c"", flags)
}

pub(super) fn set_attributes(tree: &OwnedFd, set: u64, users: Option<&OwnedFd>) -> Result<(), nix::errno::Errno> {
    /// The kernel's `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        users: u64,
    }
    let users = users.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or_default());
    let attributes = Attributes { set, clear: 0, propagation: 0, users };
    // SAFETY: the pointers are valid for the call and the size is that of the structure.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    nix::errno::Errno::result(done).map(drop)
}
