//! What a program finds around it: who it is, what is open and mounted, what `/proc` tells, what it may take.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Line, call, line, result};

pub(super) fn all() -> Vec<Line> {
    let stat = |path: &str| std::fs::metadata(path);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let limit =
        |resource| getrlimit(resource).map_or_else(|errno| errno.to_string(), |(soft, hard)| format!("{soft} {hard}"));
    let status = read("/proc/self/status");
    let field = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let own_session = nix::unistd::getsid(None) == Ok(nix::unistd::getpid());
    let hidden = read("/proc/self/cgroup").lines().all(|line| line.ends_with(":/"));
    let root = |path: &str| stat(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let mut lines = vec![
        line("descriptors", descriptors()),
        line("session", if own_session { "own" } else { "another's" }),
        line("user", format!("{} / {}", field("Uid"), field("Gid"))),
        line("groups", format!("[{}]", field("Groups"))),
        line("capabilities", ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(field).join(" ")),
        line("bounding-set", field("CapBnd")),
        line("no-new-privileges", field("NoNewPrivs")),
        line("cgroups", if hidden { "hidden" } else { "seen" }),
        line("host-name", read("/proc/sys/kernel/hostname").trim()),
        line("core-limit", limit(Resource::RLIMIT_CORE)),
        line("open-files", limit(Resource::RLIMIT_NOFILE)),
        line("above-root", if root("/..") == root("/") { "nothing" } else { "another tree" }),
        line("process-1", result(stat("/proc/1"))),
        line("proc", telling().join(" ")),
        line("proc-sys", flags("/proc/sys", FsFlags::ST_RDONLY)),
        line("layer-owner", stat("/home/vcap").map_or(0, |metadata| metadata.uid())),
        line("device-in-layer", result(File::open("/bin/device"))),
        line("lent-write", result(File::options().create(true).append(true).open("/lent/new"))),
        line("others-file", result(File::open("/lent/secret"))),
        line("ipv6", read("/proc/net/if_inet6").lines().count()),
        line("network", network()),
        line(
            "redirects",
            ["all", "eth0"]
                .map(|of| read(&format!("/proc/sys/net/ipv4/conf/{of}/accept_redirects")).trim().to_owned())
                .join(" "),
        ),
        line("foreign-memory", result(foreign_memory())),
        line("shared-memory", statvfs("/dev/shm").map_or(0, |stat| (stat.blocks() * stat.fragment_size()) >> 20)),
        line("inotify", count(140, || call(libc::SYS_inotify_init1, [0; 6]).is_ok())),
        line("terminals", terminals()),
    ];
    lines.extend(mounts());
    lines
}

/// From the host: whether root without any power over processes can look into this one.
pub(super) fn peer(process: &str) -> String {
    // What the other has is kept: having less would be reason enough for a refusal.
    let retained = std::iter::once(Capability::CAP_KILL).collect();
    let dropped = [CapSet::Effective, CapSet::Permitted].map(|set| caps::set(None, set, &retained).is_ok());
    if dropped != [true; 2] {
        return "capabilities were not given up".to_owned();
    }
    result(std::fs::read_link(format!("/proc/{process}/root")))
}

/// How often something goes before it does not.
fn count(most: usize, mut again: impl FnMut() -> bool) -> usize {
    (0..most).take_while(|_| again()).count()
}

/// Numbers of open files beyond the three and the one that lists them.
fn descriptors() -> String {
    let Ok(listed) = std::fs::read_dir("/proc/self/fd") else { return "not listed".to_owned() };
    let names: Vec<_> = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let open = |name: &String| Path::new("/proc/self/fd").join(name).symlink_metadata().is_ok();
    let extra: Vec<_> =
        names.into_iter().filter(|name| !matches!(name.as_str(), "0" | "1" | "2") && open(name)).collect();
    format!("[{}]", extra.join(" "))
}

fn flags(path: &str, flag: FsFlags) -> &'static str {
    if statvfs(path).is_ok_and(|stat| stat.flags().contains(flag)) { "set" } else { "not set" }
}

/// Names in `/proc` that tell something: a file that has a byte, a directory that has an entry.
fn telling() -> Vec<String> {
    let Ok(listed) = std::fs::read_dir("/proc") else { return Vec::new() };
    let tells = |path: &Path| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => false,
        Ok(metadata) if metadata.is_dir() => std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        // Not waiting: the kernel's messages are read as they come.
        _ => File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .is_ok_and(|mut file| std::io::Read::read(&mut file, &mut [0]).is_ok_and(|read| read > 0)),
    };
    let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| tells(&Path::new("/proc").join(name)))
        .collect();
    names.sort_unstable();
    names
}

/// The address of the interface with the network that it says is on the wire.
fn network() -> String {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return "not told".to_owned() };
    let mask = |one: nix::ifaddrs::InterfaceAddress| Some(one.netmask?.as_sockaddr_in()?.ip().to_string());
    all.filter(|one| one.interface_name == "eth0").find_map(mask).unwrap_or_default()
}

/// Memory that a process of the host has left for everybody.
fn foreign_memory() -> Result<libc::c_long, nix::errno::Errno> {
    let key = std::env::var("PROBE_KEY").ok().and_then(|key| key.parse().ok()).unwrap_or(1);
    call(libc::SYS_shmget, [key, 0, 0, 0, 0, 0])
}

fn terminals() -> usize {
    let mut held = Vec::new();
    count(80, || {
        let opened = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
        opened.map(|terminal| held.push(terminal)).is_ok()
    })
}

fn mounts() -> Vec<Line> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let host = std::env::var("PROBE_HOST").unwrap_or_default();
    let mut points = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for mount in text.lines() {
        let Some(point) = mount.split(' ').nth(4) else { continue };
        points.insert(point);
        // What a test lends lies where the test has it.
        if point != "/lent" && mount.contains(&host) {
            shown.insert(point);
        }
    }
    let lacking = |flag| {
        let points = points.iter().filter(|point| flags(point, flag) == "not set");
        format!("[{}]", points.copied().collect::<Vec<_>>().join(" "))
    };
    vec![
        line("mounts-with-setuid", lacking(FsFlags::ST_NOSUID)),
        line("mounts-with-devices", lacking(FsFlags::ST_NODEV)),
        line("mounts-of-the-host", format!("{shown:?}")),
    ]
}
