//! What the host sees of a sandbox: the session and the interface that it was given, what it may use, who reaches it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use slipway_cell_agent::sandbox::{SandboxId, SandboxRuntime as _};

use super::ABSENT;
use crate::privileged::Cell;

/// The slot of the neighbour, which listens and whose gate nobody opens.
const NEIGHBOUR: u32 = 0;

/// A line for each look at a sandbox that runs in slot 1.
pub(crate) fn looks(cell: &Cell, id: SandboxId) -> Vec<(String, String)> {
    let process = cell.process(id);
    let name = &cell.config.name;
    let own = format!("slipway-{name}/{}.{}/app", id.assignment, id.incarnation);
    let all = format!("slipway-{name}");
    let setting = |path: String| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let lines = [
        ("all-memory", limited(&group("memory", &all), &["memory.max", "memory.limit_in_bytes"])),
        ("all-processes", limited(&group("pids", &all), &["pids.max"])),
        ("bandwidth", bandwidth(name, process)),
        ("bridge-without-ipv6", setting(format!("/proc/sys/net/ipv6/conf/sw{name}br/disable_ipv6"))),
        ("closed-gate", closed_gate(cell)),
        ("connection-rate", connection_rate(name)),
        ("huge-pages", huge_pages(&group("hugetlb", &all))),
        ("isolated-port", setting(format!("/sys/class/net/sw{name}-1/brport/isolated"))),
        ("look", look(cell, process)),
        ("no-swap", no_swap(&group("memory", &own))),
        ("session", session(process)),
    ];
    lines.map(|(name, value)| (format!("host:{name}"), value)).into()
}

/// A group in the hierarchy of its controller: version 2's, one of its own, or version 2's beside those of version 1.
fn group(controller: &str, path: &str) -> PathBuf {
    let roots = ["/sys/fs/cgroup", &format!("/sys/fs/cgroup/{controller}"), "/sys/fs/cgroup/unified"];
    let found = roots.iter().map(|root| Path::new(root).join(path)).find(|group| group.is_dir());
    found.unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a file of these is there and holds a limit. Version 1 has a large number for none.
fn limited(group: &Path, files: &[&str]) -> String {
    let limit = files.iter().find_map(|file| number(&group.join(file)));
    if limit.is_some_and(|limit| limit < 1 << 60) { "limited" } else { "not limited" }.to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The queues at both ends of the interface.
fn bandwidth(cell: &str, process: i32) -> String {
    let outside = output("tc", &["qdisc", "show", "dev", &format!("sw{cell}-1")]);
    let inside = output("nsenter", &["-t", &process.to_string(), "-n", "tc", "qdisc", "show", "dev", "eth0"]);
    match [&inside, &outside].map(|queue| queue.contains("tbf")) {
        [true, true] => "limited inside and outside".to_owned(),
        [false, false] => "not limited".to_owned(),
        _ => format!("inside {inside}, outside {outside}"),
    }
}

/// A visitor of the host; the agent's own checks carry a mark.
fn closed_gate(cell: &Cell) -> String {
    let address = SocketAddr::new(cell.runtime.address(NEIGHBOUR).into(), 8080);
    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        Ok(_) => "open".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// By what the kernel has been told: an attempt would ask how fast this host is. `privileged_network` makes it.
fn connection_rate(cell: &str) -> String {
    let rules = output("nft", &["list", "table", "ip", &format!("slipway_{cell}")]);
    if rules.contains("limit rate over") { "limited" } else { "not limited" }.to_owned()
}

/// By what the kernel has been told: a host of tests mostly has no huge pages.
fn huge_pages(group: &Path) -> String {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    let limits: Vec<_> = entries
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with("limit_in_bytes"))
        })
        .map(|path| number(&path))
        .collect();
    match limits.as_slice() {
        [] => format!("{ABSENT}: this kernel has no limit of huge pages"),
        all if all.iter().all(|limit| *limit == Some(0)) => "0".to_owned(),
        _ => "not limited".to_owned(),
    }
}

/// Another process of root that has no power over processes.
fn look(cell: &Cell, process: i32) -> String {
    let helper = std::fs::read_dir(cell.config.run_directory.join("helper")).unwrap().next().unwrap().unwrap();
    output(&helper.path().to_string_lossy(), &["probe", "peer", &process.to_string()])
}

/// Whether the limit of memory cannot be passed by way of the disk: by what the kernel has been told, since a host of tests
/// mostly has no swap.
fn no_swap(group: &Path) -> String {
    let read = |file: &str| number(&group.join(file));
    let refused = match (read("memory.limit_in_bytes"), read("memory.memsw.limit_in_bytes")) {
        (None, _) if !group.join("memory.swap.max").exists() => return format!("{ABSENT}: this kernel has no swap"),
        (None, _) => read("memory.swap.max") == Some(0),
        (Some(_), None) => read("memory.swappiness") == Some(0),
        (limit, both) => limit == both,
    };
    if refused { "yes" } else { "no" }.to_owned()
}

fn session(process: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    let own = nix::unistd::getsid(None).unwrap().to_string();
    if session == own { "the agent's" } else { "own" }.to_owned()
}
