//! A cell of its own for each test, and a root layer made of busybox.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use slipway_cell_agent::config::Shares;
use slipway_cell_agent::sandbox::{
    EgressRule, Limits, LinuxRuntime, RuntimeConfig, SandboxError, SandboxId, SandboxRuntime, SandboxSpec,
};
use slipway_helper::guards::Guards;
use slipway_log_ring::{Query, Reader};
use uuid::Uuid;

static NEXT: AtomicU8 = AtomicU8::new(0);

/// For anything that starts a process, on a host that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Addresses of one cell: the bridge and 16 slots.
const NETWORK: u32 = 32;
/// Cells of one process of tests that have a network of their own.
const CELLS: u32 = 64;

/// One cell; leaves nothing on the host, also after a panic.
pub(crate) struct Cell {
    pub(crate) runtime: LinuxRuntime,
    pub(crate) config: RuntimeConfig,
    home: tempfile::TempDir,
    small_disk: bool,
}

impl Cell {
    /// A prepared cell with a name and a network of its own.
    pub(crate) async fn new() -> Self {
        let cell = Self::unprepared(|_| {});
        cell.runtime.prepare().await.unwrap();
        cell
    }

    /// A cell whose slots have ports of the host, so many of them. The host has each port once, and among the cells that
    /// translate one the newest has it: tests that ask for host ports must ask for different ones.
    pub(crate) async fn with_host_ports(slots: u32) -> Self {
        let cell = Self::unprepared(|config| (config.host_ports, config.slots) = (true, slots));
        cell.runtime.prepare().await.unwrap();
        cell
    }

    /// A cell with these settings.
    pub(crate) async fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let cell = Self::unprepared(change);
        cell.runtime.prepare().await.unwrap();
        cell
    }

    /// A cell whose state directory is a disk of `bytes`.
    pub(crate) async fn on_small_disk(bytes: u64) -> Self {
        let mut cell = Self::unprepared(|_| {});
        let options = format!("size={bytes}");
        let disk = &cell.config.state_directory;
        nix::mount::mount(Some("disk"), disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        cell.small_disk = true;
        cell.runtime.prepare().await.unwrap();
        cell
    }

    /// A cell whose instances have these shares.
    pub(crate) async fn with_shares(shares: Shares) -> Self {
        let cell = Self::unprepared(|config| config.shares = shares);
        cell.runtime.prepare().await.unwrap();
        cell
    }

    /// Process 1 of a sandbox that runs, as the host numbers it.
    pub(crate) fn process(&self, id: SandboxId) -> i32 {
        let name = format!("{}.{}", id.assignment, id.incarnation);
        let file = self.config.run_directory.join("sandboxes").join(name).join("sandbox.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        record["pid"].as_i64().unwrap().try_into().unwrap()
    }

    pub(crate) async fn failing_at(step: &str) -> Self {
        let cell = Self::unprepared(|config| config.fail_at = Some(step.to_owned()));
        cell.runtime.prepare().await.unwrap();
        cell
    }

    fn unprepared(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests make sandboxes: run them as root");
        let home = tempfile::tempdir().unwrap();
        make_layer(&home.path().join("layer"));
        // Another run of the tests may be under way on this host: the process's number is part of name and network.
        let number = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        assert!(number < CELLS, "there are more cells in this process than networks for them");
        let process = std::process::id() % 4096;
        let block = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + (process * CELLS + number) * NETWORK;
        let mut config = RuntimeConfig {
            name: format!("{process:03x}{number:02x}"),
            state_directory: home.path().join("state"),
            run_directory: home.path().join("run"),
            network: format!("{}/27", Ipv4Addr::from(block)).parse().unwrap(),
            slots: 16,
            disk_bytes: 512 << 20,
            host_ports: false,
            resolvers: vec![],
            platform: vec![],
            shares: Default::default(),
            registries_port: None,
            fail_at: None,
            guards: Guards::default(),
        };
        change(&mut config);
        std::fs::create_dir_all(&config.state_directory).unwrap();
        Self { runtime: LinuxRuntime::new(config.clone()), config, home, small_disk: false }
    }

    /// A second agent on the same cell, as after a restart.
    pub(crate) async fn restarted(&self) -> LinuxRuntime {
        let runtime = LinuxRuntime::new(self.config.clone());
        runtime.prepare().await.unwrap();
        runtime
    }

    /// An agent on the same cell whose sandboxes lack some guards.
    pub(crate) async fn guarded(&self, guards: Guards) -> LinuxRuntime {
        let runtime = LinuxRuntime::new(RuntimeConfig { guards, ..self.config.clone() });
        runtime.prepare().await.unwrap();
        runtime
    }

    /// A directory of the host that goes with the cell.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn log_directory(&self, id: SandboxId) -> PathBuf {
        self.home.path().join("logs").join(id.assignment.to_string())
    }

    /// A sandbox that runs a shell script as `vcap`.
    pub(crate) fn script(&self, slot: u32, script: &str) -> SandboxSpec {
        let id = SandboxId { assignment: Uuid::new_v4(), incarnation: 1 };
        SandboxSpec {
            id,
            slot,
            layers: vec![self.home.path().join("layer")],
            binds: vec![],
            files: vec![],
            volume: None,
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            companions: vec![],
            env: vec![("PATH".into(), "/bin".into()), ("SECRET".into(), "geheim".into())],
            cwd: "/home/vcap".into(),
            user: "vcap".into(),
            hostname: "sandbox".into(),
            limits: Limits { memory_bytes: 64 << 20, disk_bytes: 32 << 20, pids: 64, cpu_weight: 100, nofile: 1024 },
            egress: vec![],
            registries: false,
            log_directory: self.log_directory(id),
            log_bytes: 1 << 20,
            log_rate_bytes: 0,
        }
    }

    /// Runs a script to its end and returns status and output.
    pub(crate) async fn run(&self, spec: SandboxSpec) -> (slipway_cell_agent::sandbox::Exit, String) {
        let id = spec.id;
        self.runtime.start(spec).await.unwrap();
        let exit = tokio::time::timeout(LIMIT, self.runtime.wait(id)).await.unwrap().unwrap();
        (exit, self.output(id))
    }

    /// What a sandbox has written so far, a line each.
    pub(crate) fn output(&self, id: SandboxId) -> String {
        let query = Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 10_000 };
        let lines = Reader::new(&self.log_directory(id)).range(query).unwrap();
        lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned() + "\n").collect()
    }

    /// Waits for a line of output.
    pub(crate) async fn until_output(&self, id: SandboxId, wanted: &str) {
        eventually(wanted, LIMIT, || async {
            let output = self.output(id);
            if output.contains(wanted) { Ok(()) } else { Err(output) }
        })
        .await;
    }

    /// Everything of this cell that the host still shows for sandboxes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let directories = [
            PathBuf::from(format!("/sys/fs/cgroup/slipway-{}", self.config.name)),
            PathBuf::from(format!("/sys/fs/cgroup/memory/slipway-{}", self.config.name)),
            PathBuf::from(format!("/sys/fs/cgroup/pids/slipway-{}", self.config.name)),
            self.config.state_directory.join("scratch/i"),
            self.config.run_directory.join("sandboxes"),
        ];
        for directory in directories {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            let entries = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_dir());
            found.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let links = std::fs::read_dir("/sys/class/net").unwrap();
        let prefix = format!("sw{}-", self.config.name);
        let names = links.map(|link| link.unwrap().file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.starts_with(&prefix)));
        let table = format!("slipway_{}", self.config.name);
        for set in [
            ["list", "set", "ip", &table, "ready"],
            ["list", "set", "ip", &table, "builds"],
            ["list", "map", "ip", &table, "egress"],
        ] {
            let output = std::process::Command::new("nft").args(set).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains("elements") {
                found.push(text);
            }
        }
        found
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // A runtime of its own: the test's may be the one that panics.
        let config = RuntimeConfig { fail_at: None, ..self.config.clone() };
        let cleaned = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async {
                let runtime = LinuxRuntime::new(config);
                runtime.prepare().await?;
                runtime.dismantle().await
            })
        });
        let cleaned: Result<(), SandboxError> = cleaned.join().unwrap();
        if self.small_disk {
            let _ = nix::mount::umount2(&self.config.state_directory, nix::mount::MntFlags::MNT_DETACH);
        }
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// All addresses, all ports.
pub(crate) fn everything() -> Vec<EgressRule> {
    let (first, last) = ("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap());
    vec![EgressRule { protocol: "all".into(), first, last, ports: vec![], icmp: (None, None) }]
}

fn make_layer(layer: &Path) {
    for directory in ["bin", "etc", "tmp", "home/vcap", "proc", "dev"] {
        std::fs::create_dir_all(layer.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    std::fs::copy(busybox.expect("install busybox-static"), layer.join("bin/busybox")).unwrap();
    let applets = [
        "sh", "rm", "id", "cat", "echo", "sleep", "kill", "ps", "mount", "umount", "nc", "wget", "dd", "ls", "head",
        "tail", "true", "touch", "hostname", "unshare", "chroot", "seq", "grep", "mknod", "ping", "wc", "chmod",
        "httpd", "stat", "taskset", "nslookup",
    ];
    for applet in applets {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\n").unwrap();
    std::os::unix::fs::chown(layer.join("home/vcap"), Some(2000), Some(2000)).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(layer.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
}

/// Asks every 25 ms until `Ok`; panics with the last answer after the limit.
pub(crate) async fn eventually<E: std::fmt::Debug, F: Future<Output = Result<(), E>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) {
    let start = std::time::Instant::now();
    while let Err(status) = ask().await {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}; last: {status:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
