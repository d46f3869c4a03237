//! What a sandbox keeps in, seen from inside one. Needs root, busybox-static, nftables and btrfs-progs.

mod privileged;

use std::time::Duration;

use privileged::{Cell, LIMIT};
use slipway_cell_agent::sandbox::{SandboxError, SandboxFile, SandboxRuntime as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_has_its_own_user_and_no_privilege() {
    let cell = Cell::new().await;
    let (exit, output) = cell
        .run(cell.script(
            0,
            "exec 2>&1; id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/self/status; hostname; \
             grep -c . /proc/self/mountinfo; stat -c %u:%g /; cat /proc/1/environ; echo end",
        ))
        .await;
    assert_eq!((exit.code, exit.signal), (0, None), "{output}");
    assert!(output.starts_with("2000\n2000\n2000\n"), "{output}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(output.contains(&format!("{set}:\t0000000000000000")), "{set}: {output}");
    }
    assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("sandbox\n") && !output.contains("geheim"), "{output}");
    assert!(output.contains("\n0:0\n"), "the root directory belongs to nobody: {output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_come_as_files_for_the_app_alone() {
    let cell = Cell::new().await;
    let mut spec = cell.script(
        0,
        "exec 2>&1; cd /etc/cf-service-bindings; cat db/uri; echo; cat vcap_services; echo; stat -c '%a %u:%g %n' . db db/uri; \
         echo x > db/uri && echo BAD write; rm -f db/uri && echo BAD remove; grep -c cf-service-bindings /proc/mounts; \
         grep cf-service-bindings /proc/mounts; echo end",
    );
    let file = |path: &str, content: &str| SandboxFile { path: path.into(), content: content.into() };
    let large = "x".repeat(900_000);
    spec.files = vec![
        file("db/uri", "pg://secret"),
        file("vcap_services", "{}"),
        file("db/large", &large),
        file("cache.1/type", "redis"),
    ];
    let (exit, output) = cell.run(spec).await;
    assert_eq!(exit.code, 0, "{output}");
    assert!(output.starts_with("pg://secret\n{}\n"), "{output}");
    for line in ["500 2000:2000 .", "500 2000:2000 db", "400 2000:2000 db/uri"] {
        assert!(output.contains(&format!("{line}\n")), "{line}: {output}");
    }
    assert!(!output.contains("BAD"), "{output}");
    assert!(output.contains("tmpfs ro,"), "{output}");

    for path in ["../passwd", "/etc/passwd", "a/../b", ""] {
        let mut spec = cell.script(1, "true");
        spec.files = vec![file(path, "x")];
        let error = cell.runtime.start(spec).await.expect_err(path);
        assert!(matches!(error, SandboxError::Invalid(_)), "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_cannot_mount_unshare_or_make_devices() {
    let cell = Cell::new().await;
    let spec = cell.script(
        0,
        "mount -t tmpfs x /tmp && echo BAD mount; mount -o remount,rw /proc/sys && echo BAD remount; \
         umount /proc && echo BAD umount; unshare -U true && echo BAD user; unshare -n true && echo BAD net; \
         mknod /tmp/sda b 8 0 && echo BAD mknod; echo 1 > /proc/sys/kernel/core_uses_pid && echo BAD sysctl; \
         echo b > /proc/sysrq-trigger && echo BAD sysrq; head -c 1 /proc/kcore | grep -q . && echo BAD kcore; \
         hostname other && echo BAD hostname; echo x > /tmp/lifecycle/launcher && echo BAD launcher; echo end",
    );
    let (exit, output) = cell.run(spec).await;
    assert!(output.contains("end\n") && exit.code == 0, "{output}");
    assert!(!output.contains("BAD"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_as_root_of_a_sandbox() {
    let cell = Cell::new().await;
    let layer = cell.directory("more/etc");
    std::fs::write(layer.join("passwd"), "root:x:0:0::/:/bin/sh\nvcap:x:0:0::/:/bin/sh\n").unwrap();
    // By name, and by a layer that gives root's number to the account.
    for (user, more) in [("root", false), ("vcap", true)] {
        let mut spec = cell.script(0, "id -u");
        spec.user = user.into();
        if more {
            spec.layers.push(layer.parent().unwrap().to_owned());
        }
        let refused = cell.runtime.start(spec).await.unwrap_err();
        assert!(
            matches!(&refused, SandboxError::Invalid(text) if text.contains("must not be root")),
            "{user}: {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_kernel_resources_are_limited_for_each_sandbox() {
    let cell = Cell::new().await;
    let mut spec = cell.script(
        0,
        "cat /proc/sys/user/max_inotify_instances /proc/sys/user/max_inotify_watches; \
         for i in $(seq 1 80); do (exec 3<>/dev/ptmx; echo terminal; exec sleep 1000) & done; sleep 1000",
    );
    spec.limits.pids = 200;
    cell.runtime.start(spec.clone()).await.unwrap();
    // Each of those that ask for a terminal says that it has one, or why not.
    privileged::eventually("eighty answers", privileged::LIMIT, || async {
        let output = cell.output(spec.id);
        if output.lines().count() == 82 { Ok(()) } else { Err(output) }
    })
    .await;
    let output = cell.output(spec.id);
    assert!(output.starts_with("128\n65536\n"), "{output}");
    assert_eq!(output.lines().filter(|line| *line == "terminal").count(), 64, "{output}");
    // All sandboxes together stay within what the host has.
    for (name, each) in [("max_user_instances", 128), ("max_user_watches", 65_536)] {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap();
        assert!(text.trim().parse::<u64>().unwrap() > each * u64::from(cell.config.slots), "{name}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_or_signals_others() {
    let cell = Cell::new().await;
    let neighbour = cell.script(0, "echo up; sleep 1000");
    cell.runtime.start(neighbour.clone()).await.unwrap();
    cell.until_output(neighbour.id, "up").await;
    let (_, output) = cell
        .run(
            cell.script(1, "kill -9 1 && echo BAD init; kill -9 -1; ls /proc | grep -c '^[0-9]'; kill -10 1; echo end"),
        )
        .await;
    assert!(output.contains("end\n") && !output.contains("BAD"), "{output}");
    // Only its own processes: the shell and its two helpers; hidepid hides process 1.
    let seen: u32 = output.lines().find_map(|line| line.parse().ok()).unwrap();
    assert!(seen <= 3, "{output}");
    let wait = tokio::time::timeout(Duration::from_millis(200), cell.runtime.wait(neighbour.id)).await;
    assert!(wait.is_err(), "the neighbour has ended: {wait:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_limited_and_the_reason_is_reported() {
    let cell = Cell::new().await;
    let neighbour = cell.script(0, "echo up; sleep 1000");
    cell.runtime.start(neighbour.clone()).await.unwrap();
    cell.until_output(neighbour.id, "up").await;
    let (exit, output) = cell.run(cell.script(1, "exec tail -c 500m /dev/zero")).await;
    assert!(exit.out_of_memory && !exit.platform_fault, "{exit:?} {output}");
    assert_eq!(exit.reason, "out of memory: limit 64 MiB");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    let usage = cell.runtime.usage(neighbour.id).await.unwrap();
    assert!(usage.pids >= 1 && usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20, "{usage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_ran_out_of_memory_is_the_reason_too() {
    let cell = Cell::new().await;
    let (exit, output) = cell.run(cell.script(0, "tail -c 500m /dev/zero >/dev/null; echo after; exit 5")).await;
    assert!(exit.out_of_memory && exit.code != 0 && !exit.platform_fault, "{exit:?} {output}");
    assert_eq!(exit.reason, "out of memory: limit 64 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_weight_decides_who_gets_the_processors() {
    let cell = Cell::new().await;
    // On one processor, so that they must share it whatever else the host does with the others.
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let processor = (0..nix::sched::CpuSet::count()).find(|number| allowed.is_set(*number).unwrap()).unwrap();
    let busy = format!("exec taskset -c {processor} sh -c 'while true; do :; done'");
    let (mut light, mut heavy) = (cell.script(0, &busy), cell.script(1, &busy));
    (light.limits.cpu_weight, heavy.limits.cpu_weight) = (10, 1000);
    let used = async |id| cell.runtime.usage(id).await.unwrap().cpu_nanos;
    for spec in [&light, &heavy] {
        cell.runtime.start(spec.clone()).await.unwrap();
        // More than its start takes: from here on it wants the processor all the time.
        privileged::eventually("the loop runs", LIMIT, || async {
            let used = used(spec.id).await;
            if used > 200_000_000 { Ok(()) } else { Err(used) }
        })
        .await;
    }
    let (light_before, heavy_before) = (used(light.id).await, used(heavy.id).await);
    privileged::eventually("a second of processor time", LIMIT, || async {
        let heavy_used = used(heavy.id).await - heavy_before;
        if heavy_used > 1_000_000_000 { Ok(()) } else { Err(heavy_used) }
    })
    .await;
    let (light_used, heavy_used) = (used(light.id).await - light_before, used(heavy.id).await - heavy_before);
    // A hundred to one by weight; a quarter leaves room for what else this host does.
    assert!(light_used * 4 < heavy_used, "light {light_used} ns, heavy {heavy_used} ns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_are_limited() {
    let cell = Cell::new().await;
    let bomb = cell.script(0, "echo up; bomb() { bomb | bomb & }; bomb; while true; do sleep 1; done");
    cell.runtime.start(bomb.clone()).await.unwrap();
    cell.until_output(bomb.id, "fork").await;
    assert!(cell.runtime.usage(bomb.id).await.unwrap().pids <= 64);
    // The host and a neighbour go on.
    let (exit, output) = cell.run(cell.script(1, "echo fine")).await;
    assert_eq!((exit.code, output.as_str()), (0, "fine\n"));
    cell.runtime.stop(bomb.id, Duration::from_millis(50)).await.unwrap();
    cell.runtime.destroy(bomb.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_is_limited_and_the_neighbour_has_its_own() {
    let cell = Cell::new().await;
    let script = "dd if=/dev/zero of=/tmp/big bs=1M count=20 2>/dev/null && echo first; \
                  dd if=/dev/zero of=/tmp/big2 bs=1M count=40 2>/dev/null && echo BAD; echo end";
    let (_, output) = cell.run(cell.script(0, script)).await;
    assert_eq!(output, "first\nend\n");
    let (_, output) = cell.run(cell.script(1, script)).await;
    assert_eq!(output, "first\nend\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_stay_as_they_are_and_links_of_a_layer_lead_nowhere_outside() {
    let cell = Cell::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("hosts"), "outside").unwrap();
    let hostile = tempfile::tempdir().unwrap();
    // Overlays the plain /etc of the stack with a link to a directory of the host.
    std::os::unix::fs::symlink(outside.path(), hostile.path().join("escape")).unwrap();
    let mut spec = cell.script(0, "rm -rf /bin/id 2>/dev/null; echo x > /home/vcap/file; cat /etc/hostname");
    spec.layers.push(hostile.path().to_owned());
    spec.binds.push(slipway_cell_agent::sandbox::Bind {
        source: outside.path().to_owned(),
        target: "/escape/hosts".into(),
        writable: false,
        id_mapped: false,
    });
    let refused = cell.runtime.start(spec.clone()).await.unwrap_err();
    assert!(matches!(refused, SandboxError::Invalid(_)), "{refused:?}");
    assert_eq!(std::fs::read_to_string(outside.path().join("hosts")).unwrap(), "outside");
    spec.binds.clear();
    let layer = spec.layers[0].clone();
    let (_, output) = cell.run(spec).await;
    assert_eq!(output, "sandbox\n");
    assert!(layer.join("bin/id").symlink_metadata().is_ok() && !layer.join("home/vcap/file").exists());
}
