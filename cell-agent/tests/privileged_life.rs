//! Start, end, adoption and what is left. Needs root, busybox-static, nftables and btrfs-progs.

mod privileged;

use std::time::Duration;

use privileged::{Cell, LIMIT};
use slipway_cell_agent::sandbox::{Bind, Companion, LinuxRuntime, SandboxError, SandboxRuntime as _};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_status_and_environment_arrive() {
    let cell = Cell::new().await;
    // Many programs open their log by name.
    let by_name = "echo named >/dev/stdout; echo named too >/dev/stderr";
    let spec = cell.script(3, &format!("echo out $SECRET; echo err >&2; {by_name}; printf tail; exit 7"));
    let (exit, output) = cell.run(spec.clone()).await;
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (7, None, ""));
    for line in ["out geheim\n", "err\n", "named\n", "named too\n", "tail\n"] {
        assert!(output.contains(line), "{output}");
    }
    // Asked again it says the same, and so does a repeated removal.
    assert_eq!(cell.runtime.wait(spec.id).await.unwrap(), exit);
    cell.runtime.destroy(spec.id).await.unwrap();
    cell.runtime.destroy(spec.id).await.unwrap();
    assert!(matches!(cell.runtime.wait(spec.id).await, Err(SandboxError::Unknown(_))));
    assert_eq!(cell.leftovers(), Vec::<String>::new());
    assert!(cell.output(spec.id).contains("tail"), "the log outlives the sandbox");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn companions_share_the_sandbox_and_its_end() {
    let cell = Cell::new().await;
    let companion = |name: &str, script: &str| Companion {
        name: name.to_owned(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    };
    let mut spec = cell.script(0, "echo command $SECRET; touch /tmp/command; while true; do sleep 0.1; done");
    // The one that ends the sandbox waits for both others: who is scheduled first is nobody's promise.
    let both = "[ -e /tmp/command ] && [ -e /tmp/proxy ]";
    spec.companions = vec![
        companion("proxy", "echo proxy $SECRET; touch /tmp/proxy; while true; do sleep 0.1; done"),
        companion("agent", &format!("until {both}; do sleep 0.1; done; echo agent ends >&2; exit 3")),
    ];
    let (exit, output) = cell.run(spec.clone()).await;
    assert_eq!((exit.code, exit.signal), (3, None), "{exit:?} {output}");
    assert_eq!(exit.reason, "the sidecar \"agent\" ended with status 3");
    for line in ["command geheim\n", "proxy geheim\n", "agent ends\n"] {
        assert!(output.contains(line), "{output}");
    }
    let query = slipway_log_ring::Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 10 };
    let lines = slipway_log_ring::Reader::new(&cell.log_directory(spec.id)).range(query).unwrap();
    let mut flags: Vec<u8> = lines.iter().map(|line| line.flags).collect();
    flags.sort_unstable();
    assert_eq!(flags, [0, 1 << 4, (2 << 4) | 1], "each line tells who wrote it");
    cell.runtime.destroy(spec.id).await.unwrap();

    // A companion that goes at once does not cut the command's leave short.
    let mut spec = cell.script(1, "trap 'sleep 1; echo bye; exit 5' TERM; until [ -e /tmp/quick ]; do sleep 0.1; done; echo up; while true; do sleep 0.1; done");
    spec.companions = vec![companion("quick", "trap 'exit 0' TERM; touch /tmp/quick; while true; do sleep 0.1; done")];
    cell.runtime.start(spec.clone()).await.unwrap();
    cell.until_output(spec.id, "up").await;
    let exit = cell.runtime.stop(spec.id, LIMIT).await.unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (5, ""));
    assert!(cell.output(spec.id).contains("bye"));
    cell.runtime.destroy(spec.id).await.unwrap();
    assert_eq!(cell.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_adopts_what_runs_and_what_has_ended() {
    let cell = Cell::new().await;
    let running = cell.script(0, "echo up; sleep 1000");
    let ended = cell.script(1, "exit 4");
    cell.runtime.start(running.clone()).await.unwrap();
    cell.runtime.gate(0, true).await.unwrap();
    cell.run(ended.clone()).await;
    let again = cell.restarted().await;
    let mut adopted = again.adopt().await.unwrap();
    adopted.sort_by_key(|adopted| adopted.slot);
    assert_eq!(adopted.len(), 2);
    assert_eq!((adopted[0].id, adopted[0].slot, adopted[0].exit.is_none()), (running.id, 0, true));
    assert_eq!(adopted[1].exit.as_ref().unwrap().code, 4);
    // The gate that was open is still open.
    assert!(cell.leftovers().iter().any(|text| text.contains("set ready")));
    assert_eq!(again.stop(running.id, LIMIT).await.unwrap().signal, Some(15));
    for id in [running.id, ended.id] {
        again.destroy(id).await.unwrap();
    }
    assert_eq!(cell.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_at_any_step_leaves_nothing() {
    let steps = [
        "record",
        "cgroups",
        "scratch",
        "firewall",
        "interface",
        "init-cgroup",
        "users",
        "network",
        "fork",
        "root",
        "log",
        "app",
        "adopt",
    ];
    for step in steps {
        let cell = Cell::failing_at(step).await;
        let error = cell.runtime.start(cell.script(0, "sleep 1000")).await.unwrap_err();
        assert!(matches!(error, SandboxError::Host { .. }), "{step}: {error:?}");
        assert_eq!(cell.leftovers(), Vec::<String>::new(), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_are_refused_with_the_value() {
    let cell = Cell::new().await;
    let good = cell.script(0, "true");
    let mut user = good.clone();
    user.user = "nobody-here".into();
    let mut program = good.clone();
    program.argv = vec!["/bin/absent".into()];
    let mut directory = good.clone();
    directory.cwd = "/no/such".into();
    let mut relative = good.clone();
    relative.argv = vec!["sh".into()];
    let mut layer = good.clone();
    layer.layers.push("/absent-layer".into());
    for (spec, value) in [
        (user, "nobody-here"),
        (program, "/bin/absent"),
        (directory, "/no/such"),
        (relative, "sh"),
        (layer, "/absent-layer"),
    ] {
        let error = cell.runtime.start(spec).await.unwrap_err();
        assert!(matches!(error, SandboxError::Invalid(_)) && error.to_string().contains(value), "{error:?}");
    }
    assert_eq!(cell.leftovers(), Vec::<String>::new());
    // The same id may be tried again after a failure.
    assert_eq!(cell.run(good).await.0.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_outlive_sandboxes_and_keep_plain_ids() {
    use std::os::unix::fs::MetadataExt as _;
    let cell = Cell::new().await;
    let volume = Uuid::new_v4();
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("note"), "from outside").unwrap();
    let mut spec = cell.script(0, "cat /in/note; echo made > /work/file; echo x > /in/other || echo refused");
    spec.volume = Some((volume, "/work".into()));
    spec.binds.push(Bind { source: shared.path().to_owned(), target: "/in".into(), writable: false, id_mapped: true });
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, output) = cell.run(spec.clone()).await;
    assert!(output.contains("from outside") && output.contains("refused"), "{output}");
    cell.runtime.destroy(spec.id).await.unwrap();
    let path = cell.runtime.volume(volume, 1 << 20).await.unwrap();
    let metadata = std::fs::metadata(path.join("file")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (2000, 2000));
    cell.runtime.remove_volume(volume).await.unwrap();
    cell.runtime.remove_volume(volume).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_rate_is_limited_with_a_notice() {
    let cell = Cell::new().await;
    // Written at once: of lines that come over many seconds more than the limit of one second passes.
    let script = "lines=$(for i in $(seq 1 500); do echo line number $i; done); echo \"$lines\"";
    let mut spec = cell.script(0, script);
    spec.log_rate_bytes = 200;
    let (_, output) = cell.run(spec).await;
    assert!(output.contains("line number 1\n") && output.contains("lines were dropped"), "{output}");
    assert!(output.lines().count() < 400, "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_launcher_reads_profiles_and_runs_the_command() {
    let cell = Cell::new().await;
    let mut spec = cell.script(
        0,
        "mkdir -p app/.profile.d profile.d; echo 'export A=one' > profile.d/a.sh; echo 'export B=$A-two' > app/.profile.d/b.sh; \
         echo 'export C=$B-three' > app/.profile; exec /tmp/lifecycle/launcher app 'echo $C; echo $PWD; echo $DEPS_DIR' ''",
    );
    spec.argv[2] = format!("alias mkdir='busybox mkdir'; {}", spec.argv[2].replace("mkdir", "/bin/busybox mkdir"));
    let (exit, output) = cell.run(spec).await;
    assert_eq!((exit.code, output.as_str()), (0, "one-two-three\n/home/vcap/app\n/home/vcap/deps\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_prepared_again_runs_the_same_orders() {
    let cell = Cell::new().await;
    for _ in 0..2 {
        let mut spec = cell.script(0, "echo fine");
        spec.egress = privileged::everything();
        assert_eq!(cell.run(spec.clone()).await.1, "fine\n");
        cell.runtime.destroy(spec.id).await.unwrap();
        // Loads the table anew, without the chain of the rules above.
        cell.runtime.prepare().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_with_figures_and_leaves_nothing() {
    let cell = Cell::on_small_disk(160 << 20).await;
    let mut spec = cell.script(0, "echo fine");
    spec.limits.disk_bytes = 300 << 20;
    let error = cell.runtime.start(spec.clone()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SandboxError::Exhausted { what: "disk", .. }), "{error:?}");
    assert!(text.contains("needs 300 MiB") && text.contains("MiB are free"), "{text}");
    assert_eq!(cell.leftovers(), Vec::<String>::new());
    let error = cell.runtime.volume(Uuid::new_v4(), 300 << 20).await.unwrap_err();
    assert!(matches!(error, SandboxError::Exhausted { what: "disk", .. }), "{error:?}");
    // What fits is run all the same.
    spec.limits.disk_bytes = 8 << 20;
    assert_eq!(cell.run(spec).await.1, "fine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_droplet_that_becomes_large_leaves_the_journal_its_room() {
    use slipway_cell_agent::cache::{Cache, CacheError};
    use slipway_cell_agent::controllers::Controllers;
    use slipway_protocol::{ClusterAuthority, Role, v1::Blob};
    let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).unwrap();
    let credentials = authority.issue(Role::Cell, Uuid::new_v4(), &[]).unwrap();
    let controllers = std::sync::Arc::new(Controllers::new(&[], &credentials).unwrap());
    let home = tempfile::tempdir().unwrap();
    // 64 MiB of it, and a twentieth of the files, are the host's.
    let disk = Obstacle::in_directory(home.path(), "size=100m,nr_inodes=4000");
    let cache = Cache::open(&disk.0, 1 << 30, controllers).unwrap();
    let droplet = |bytes: usize| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, "app/zeros", &vec![0; bytes][..]).unwrap();
        let packed = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let file = home.path().join("droplet");
        std::fs::write(&file, &packed).unwrap();
        let digest = slipway_layers::Digest::of(&packed).as_bytes().to_vec().into();
        (Blob { digest, size: packed.len() as u64, format: "tar.zst".into() }, file)
    };
    let (blob, file) = droplet(60 << 20);
    assert!(blob.size < 1 << 20, "it looks small");
    let refused = cache.adopt_droplet(&blob, &file).await.unwrap_err();
    assert!(matches!(refused, CacheError::NoSpace { .. }), "{refused}");
    assert!(cache.free_bytes() > 35 << 20, "nothing of it is left");
    let (blob, file) = droplet(10 << 20);
    let first = cache.adopt_droplet(&blob, &file).await.unwrap();
    // What nobody uses makes room.
    drop(first);
    let (blob, file) = droplet(30 << 20);
    assert_eq!(cache.adopt_droplet(&blob, &file).await.unwrap().size(), 30 << 20);

    // Files without bytes: what counts is how many there are.
    let empty = |count: u32| {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..count {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("app/{number}"), std::io::empty()).unwrap();
        }
        let packed = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let file = home.path().join("droplet");
        std::fs::write(&file, &packed).unwrap();
        let digest = slipway_layers::Digest::of(&packed).as_bytes().to_vec().into();
        (Blob { digest, size: packed.len() as u64, format: "tar.zst".into() }, file)
    };
    let (blob, file) = empty(3_900);
    let refused = cache.adopt_droplet(&blob, &file).await.unwrap_err();
    assert!(matches!(refused, CacheError::NoFiles { .. }), "{refused}");
    let (blob, file) = empty(2_000);
    let first = cache.adopt_droplet(&blob, &file).await.unwrap();
    assert_eq!(first.size(), 2_000 * 4096, "each takes a block, or an inode that is dearer");
    drop(first);
    let (blob, file) = empty(2_500);
    cache.adopt_droplet(&blob, &file).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_of_builds_go_with_the_agent_that_made_them() {
    let cell = Cell::new().await;
    let path = cell.runtime.volume(Uuid::new_v4(), 1 << 20).await.unwrap();
    std::fs::write(path.join("file"), "x").unwrap();
    cell.restarted().await;
    assert!(!path.exists());
}

/// A mount in the way of whatever would remove the directory around it. Gone with the value.
struct Obstacle(std::path::PathBuf);

impl Obstacle {
    fn in_directory(directory: &std::path::Path, options: &str) -> Self {
        let path = directory.join("in-the-way");
        std::fs::create_dir_all(&path).unwrap();
        nix::mount::mount(Some("obstacle"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options)).unwrap();
        Self(path)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_an_earlier_tenant_are_removed_without_touching_the_next() {
    let cell = Cell::new().await;
    for restart in [false, true] {
        let (old, new) = (cell.script(3, "sleep 1000"), cell.script(3, "echo up; sleep 1000"));
        cell.runtime.start(old.clone()).await.unwrap();
        cell.runtime.stop(old.id, Duration::ZERO).await.unwrap();
        cell.runtime.start(new.clone()).await.unwrap();
        cell.runtime.gate(3, true).await.unwrap();
        let other = cell.restarted().await;
        let runtime = if restart { &other } else { &cell.runtime };
        if restart {
            assert_eq!(runtime.adopt().await.unwrap().len(), 2);
        }
        runtime.destroy(old.id).await.unwrap();
        let left = cell.leftovers();
        for wanted in ["set ready", "map egress", &format!("sw{}-3", cell.config.name)] {
            assert!(left.iter().any(|text| text.contains(wanted)), "{wanted}, restart {restart}: {left:?}");
        }
        runtime.stop(new.id, Duration::ZERO).await.unwrap();
        runtime.destroy(new.id).await.unwrap();
        assert_eq!(cell.leftovers(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leftover_that_cannot_be_removed_keeps_no_agent_from_its_work() {
    let cell = Cell::new().await;
    let running = cell.script(0, "sleep 1000");
    cell.runtime.start(running.clone()).await.unwrap();
    // A start that was cut off, as far as its record goes.
    let id = cell.script(1, "true").id;
    let directory = cell.config.run_directory.join("sandboxes").join(format!("{}.{}", id.assignment, id.incarnation));
    let obstacle = Obstacle::in_directory(&directory, "size=64k");
    let again = LinuxRuntime::new(cell.config.clone());
    let facts = again.prepare().await.unwrap();
    let id = id.assignment.to_string();
    assert!(facts.warnings.iter().any(|warning| warning.contains(&id)), "{:?}", facts.warnings);
    assert_eq!(again.adopt().await.unwrap().len(), 1, "what runs has an owner");
    drop(obstacle);
    let facts = again.prepare().await.unwrap();
    assert!(!facts.warnings.iter().any(|warning| warning.contains(&id)), "{:?}", facts.warnings);
    assert!(!directory.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_killed_at_the_memory_limit_is_counted() {
    let cell = Cell::new().await;
    // The group as a whole is killed where the kernel can do that; then nothing is left to be told.
    let spec = cell.script(0, "head -c 200000000 /dev/zero | tail >/dev/null; echo survived; sleep 1000");
    cell.runtime.start(spec.clone()).await.unwrap();
    let ended = tokio::select! {
        exit = cell.runtime.wait(spec.id) => Some(exit.unwrap()),
        () = cell.until_output(spec.id, "survived") => None,
    };
    match ended {
        Some(exit) => assert!(exit.out_of_memory, "{exit:?}"),
        None => assert_eq!(cell.runtime.usage(spec.id).await.unwrap().oom_kills, 1),
    }
}
