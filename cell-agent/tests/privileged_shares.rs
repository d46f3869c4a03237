//! What all sandboxes together may take, and how one hears that it has taken what it may. Needs root, busybox-static,
//! nftables and btrfs-progs.

mod privileged;

use std::path::PathBuf;
use std::time::Duration;

use privileged::Cell;
use slipway_cell_agent::sandbox::SandboxRuntime as _;

/// The cell's own group of a controller, whichever layout of cgroups the host has.
fn group(cell: &Cell, controller: &str) -> PathBuf {
    let name = format!("slipway-{}", cell.config.name);
    let candidates = [controller, "unified", ""].map(|part| PathBuf::from("/sys/fs/cgroup").join(part).join(&name));
    candidates.into_iter().find(|path| path.is_dir()).expect("a group")
}

fn number(path: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().parse().unwrap_or_else(|_| panic!("{}: {text:?} is no number", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sandboxes_together_leave_the_host_a_reserve() {
    let cell = Cell::new().await;
    let pids = group(&cell, "pids").join("pids.max");
    let most = number("/proc/sys/kernel/pid_max".as_ref()).min(number("/proc/sys/kernel/threads-max".as_ref()));
    assert!(number(&pids) < most, "{}", number(&pids));
    let memory = group(&cell, "memory");
    let (file, sockets) = (memory.join("memory.max"), memory.join("memory.kmem.tcp.limit_in_bytes"));
    let limit = if file.exists() { number(&file) } else { number(&memory.join("memory.limit_in_bytes")) };
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = info.lines().next().unwrap().split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(limit < total << 10, "{limit} of {total} KiB");
    if sockets.exists() {
        assert!(number(&sockets) < limit, "version 1 counts what lies in sockets apart");
    }
    // The parts of the platform are not below it.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(!own.contains(&format!("slipway-{}", cell.config.name)), "{own}");

    // And what runs is: each may have 64 processes, and both together have 40.
    std::fs::write(&pids, "40").unwrap();
    let crowd = "for i in $(seq 1 25); do sleep 1000 & done; echo all; wait";
    let first = cell.script(0, crowd);
    cell.runtime.start(first.clone()).await.unwrap();
    cell.until_output(first.id, "all").await;
    let (exit, output) = cell.run(cell.script(1, crowd)).await;
    assert!(exit.code != 0 && output.contains("fork") && !output.contains("all"), "{exit:?} {output}");
    cell.runtime.stop(first.id, Duration::ZERO).await.unwrap();
    cell.runtime.destroy(first.id).await.unwrap();
    let alone = cell.script(2, crowd);
    cell.runtime.start(alone.clone()).await.unwrap();
    cell.until_output(alone.id, "all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_pages_and_the_memory_of_sockets_are_limited() {
    let cell = Cell::new().await;
    let spec = cell.script(0, "echo up; sleep 1000");
    cell.runtime.start(spec.clone()).await.unwrap();
    let name = format!("{}.{}", spec.id.assignment, spec.id.incarnation);
    let sockets = group(&cell, "memory").join(&name).join("app/memory.kmem.tcp.limit_in_bytes");
    if sockets.exists() {
        assert_eq!(number(&sockets), 32 << 20, "half of its memory");
    }
    let huge = group(&cell, "hugetlb");
    let files: Vec<PathBuf> = std::fs::read_dir(&huge).unwrap().map(|entry| entry.unwrap().path()).collect();
    let limits: Vec<&PathBuf> = files
        .iter()
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with("limit_in_bytes"))
        })
        .collect();
    for path in &limits {
        assert_eq!(number(path), 0, "{}", path.display());
    }
    if !limits.is_empty() {
        // The app is below it, in whichever hierarchy that is.
        let list = std::fs::read_to_string(huge.join(&name).join("app/cgroup.procs")).unwrap();
        assert!(!list.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_that_programs_know_and_the_cell_sees() {
    let cell = Cell::new().await;
    let script = "exec 2>&1; dd if=/dev/zero of=/tmp/big bs=64k count=1000; echo end; sleep 1000";
    let spec = cell.script(0, script);
    cell.runtime.start(spec.clone()).await.unwrap();
    cell.until_output(spec.id, "end").await;
    let output = cell.output(spec.id);
    // EDQUOT, or ENOSPC: nothing that means something else.
    assert!(output.contains("uota exceeded") || output.contains("No space left"), "{output}");
    let quota = spec.limits.disk_bytes;
    let used = cell.runtime.usage(spec.id).await.unwrap().disk_bytes;
    assert!(used <= quota && used + (1 << 20) >= quota, "{used} of {quota}: it is seen as full at once");
}
