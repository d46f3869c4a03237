//! Both layouts, as files of a temporary directory.

use super::*;

const WHOLE: Whole = Whole { pids: 700, memory_bytes: 1_000_000, disk: Some((8, 16)), disk_bytes_per_s: 5000 };

fn limits() -> Limits {
    Limits { memory_bytes: 64 << 20, disk_bytes: 0, pids: 50, cpu_weight: 100, nofile: 1024 }
}

#[test]
fn version_2_is_found_and_limited() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma").unwrap();
    let cgroups = Cgroups::detect(root.path(), "t", &Guards::default()).unwrap();
    std::fs::create_dir(root.path().join("slipway-t")).unwrap();
    for file in ["io.weight", "io.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max"] {
        std::fs::write(root.path().join("slipway-t").join(file), "max").unwrap();
    }
    let warnings = cgroups.prepare(&WHOLE).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let all = |file: &str| std::fs::read_to_string(root.path().join("slipway-t").join(file)).unwrap();
    assert_eq!((all("pids.max"), all("memory.max")), ("700".to_owned(), "1000000".to_owned()));
    assert_eq!((all("io.weight"), all("io.max")), ("50".to_owned(), "8:16 rbps=5000 wbps=5000".to_owned()));
    for size in ["2MB.max", "2MB.rsvd.max", "1GB.max"] {
        assert_eq!(all(&format!("hugetlb.{size}")), "0", "{size}");
    }
    assert_eq!(all("cgroup.subtree_control"), "+memory +pids +cpu +io");
    let above = std::fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(above, "+memory +pids +cpu +io +hugetlb");
    cgroups.create("one", &limits()).unwrap();
    let app = root.path().join("slipway-t/one/app");
    assert_eq!(cgroups.mode(), Mode::V2);
    assert_eq!(std::fs::read_to_string(app.join("memory.max")).unwrap(), "67108864");
    assert_eq!(std::fs::read_to_string(app.join("memory.oom.group")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(app.join("pids.max")).unwrap(), "50");
    assert_eq!(std::fs::read_to_string(root.path().join("slipway-t/one/cpu.weight")).unwrap(), "100");
    assert_eq!(cgroups.oom_counter("one"), app.join("memory.events"));
    std::fs::write(app.join("memory.current"), "1000\n").unwrap();
    std::fs::write(app.join("memory.stat"), "anon 1\ninactive_file 400\n").unwrap();
    std::fs::write(app.join("cpu.stat"), "usage_usec 7\n").unwrap();
    std::fs::write(app.join("pids.current"), "3\n").unwrap();
    std::fs::write(app.join("memory.events"), "oom 3\noom_kill 2\n").unwrap();
    let usage = cgroups.usage("one").unwrap();
    assert_eq!((usage.memory_bytes, usage.cpu_nanos, usage.pids, usage.oom_kills), (600, 7000, 3, 2));
    assert_eq!(cgroups.list(), ["one"]);
}

#[test]
fn the_older_layout_is_found_and_shared_hierarchies_are_joined_once() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["memory", "pids", "cpu,cpuacct", "blkio", "unified"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    for name in ["cpu", "cpuacct"] {
        std::os::unix::fs::symlink("cpu,cpuacct", root.path().join(name)).unwrap();
    }
    let at = |path: &str| root.path().join(path);
    std::fs::write(at("unified/cgroup.controllers"), "hugetlb").unwrap();
    std::fs::write(at("unified/cgroup.subtree_control"), "").unwrap();
    for (group, files) in [
        ("memory/slipway-t", &["memory.kmem.tcp.limit_in_bytes"][..]),
        ("memory/slipway-t/one/app", &["memory.kmem.tcp.limit_in_bytes"]),
        ("blkio/slipway-t", &["blkio.bfq.weight", "blkio.throttle.write_bps_device"]),
        ("unified/slipway-t", &["hugetlb.2MB.max"]),
    ] {
        std::fs::create_dir_all(at(group)).unwrap();
        for file in files {
            std::fs::write(at(group).join(file), "").unwrap();
        }
    }
    let cgroups = Cgroups::detect(root.path(), "t", &Guards::default()).unwrap();
    assert_eq!(cgroups.prepare(&WHOLE).unwrap(), Vec::<String>::new());
    cgroups.create("one", &limits()).unwrap();
    assert_eq!(cgroups.mode(), Mode::Hybrid);
    for (file, value) in [
        ("pids/slipway-t/pids.max", "700"),
        ("memory/slipway-t/memory.limit_in_bytes", "1000000"),
        ("memory/slipway-t/memory.kmem.tcp.limit_in_bytes", "250000"),
        ("memory/slipway-t/one/app/memory.kmem.tcp.limit_in_bytes", "33554432"),
        ("blkio/slipway-t/blkio.bfq.weight", "50"),
        ("blkio/slipway-t/blkio.throttle.write_bps_device", "8:16 5000"),
        ("unified/slipway-t/hugetlb.2MB.max", "0"),
        ("unified/cgroup.subtree_control", "+hugetlb"),
    ] {
        assert_eq!(std::fs::read_to_string(at(file)).unwrap(), value, "{file}");
    }
    assert_eq!(cgroups.app_groups("one").len(), 5);
    let app = root.path().join("memory/slipway-t/one/app");
    assert_eq!(std::fs::read_to_string(app.join("memory.limit_in_bytes")).unwrap(), "67108864");
    // The kernel has no swap accounting here, and that is no error.
    assert!(!app.join("memory.memsw.limit_in_bytes").exists());
    let shares = root.path().join("cpu,cpuacct/slipway-t/one/cpu.shares");
    assert_eq!(std::fs::read_to_string(shares).unwrap(), "1024");
}

#[test]
fn a_missing_controller_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = Cgroups::detect(root.path(), "t", &Guards::default()).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn weights_become_shares() {
    assert_eq!((shares(1), shares(100), shares(10_000)), (10, 1024, 102_400));
}
