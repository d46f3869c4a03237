//! Every guard of a sandbox is missed when it is gone: the program of `helper/src/probe` tries from inside what each of them
//! is there against, once with all guards and once without each. Prints the table with `-- --nocapture guards`. Needs root,
//! busybox-static, nftables and btrfs-progs. A build for release has no guard that could be left out, so there is nothing here.
#![cfg(debug_assertions)]

mod guards;
mod privileged;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::Duration;

use guards::outside::{PLATFORM, PORT, REGISTRIES, WORLD};
use guards::{ABSENT, EXPECTED, Outside, REMOVALS, Removal, WITHOUT_REMOVAL, host};
use privileged::{Cell, LIMIT, everything};
use slipway_cell_agent::sandbox::{Bind, LinuxRuntime, RuntimeConfig, SandboxRuntime as _, SandboxSpec};
use slipway_helper::guards::{Guard, Guards};

/// The host's id of slot 0's `vcap`.
const NEIGHBOUR: u32 = 1_879_048_192 + 2000;

/// What to reach, for the probe. Word of a refusal comes once a second, so only those are asked to try whose answers matter.
fn reach(cell: &Cell) -> (String, String) {
    let mut reach: Vec<_> = WORLD.iter().map(|(name, address)| format!("tcp:{name}={address}:{PORT}")).collect();
    for protocol in ["tcp", "udp"] {
        reach.push(format!("{protocol}:host={}:{PORT}", gateway(&cell.config)));
        reach.push(format!("{protocol}:neighbour={}:8080", cell.runtime.address(0)));
    }
    reach.push(format!("tcp:registries={}:{REGISTRIES}", gateway(&cell.config)));
    // The last one: what it holds counts for all that follows.
    let world = WORLD.iter().filter(|(name, _)| *name == "world");
    reach.extend(world.map(|(name, address)| format!("crowd:{name}={address}:{PORT}")));
    ("PROBE_REACH".into(), reach.join(","))
}

/// The host, as instances see it; their resolver as well.
fn gateway(config: &RuntimeConfig) -> std::net::Ipv4Addr {
    config.network.hosts().next().unwrap()
}

/// A sandbox in which the probe runs, with something to find.
fn probe(cell: &Cell, outside: &Outside) -> SandboxSpec {
    let helper = std::fs::read_dir(cell.config.run_directory.join("helper")).unwrap().next().unwrap().unwrap();
    let layer = cell.directory("layer");
    let program = layer.join("bin/probe");
    if !program.exists() {
        std::fs::copy(helper.path(), &program).unwrap();
        let device = rustix::fs::makedev(1, 3);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, layer.join("bin/device"), kind, mode, device).unwrap();
        std::fs::set_permissions(layer.join("bin/device"), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let lent = cell.directory("lent");
    std::fs::set_permissions(&lent, std::fs::Permissions::from_mode(0o777)).unwrap();
    let secret = lent.join("secret");
    std::fs::write(&secret, "of slot 0").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(&secret, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
    let mut spec = cell.script(1, "");
    spec.argv = vec!["/bin/probe".into()];
    spec.env.push(("PROBE_KEY".into(), outside.key.to_string()));
    spec.env.push(("PROBE_HOST".into(), cell.directory("").display().to_string().trim_end_matches('/').to_owned()));
    spec.egress = everything();
    spec.binds.push(Bind { source: lent, target: "/lent".into(), writable: false, id_mapped: false });
    spec
}

/// What the probe tells, and what the host sees of its sandbox.
async fn answers(cell: &Cell, runtime: &LinuxRuntime, spec: SandboxSpec) -> BTreeMap<String, String> {
    let id = spec.id;
    runtime.start(spec).await.unwrap();
    cell.until_output(id, "end yes").await;
    let output = cell.output(id);
    let mut found: BTreeMap<String, String> = output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    found.extend(host::looks(cell, id));
    runtime.stop(id, Duration::ZERO).await.unwrap();
    tokio::time::timeout(LIMIT, runtime.destroy(id)).await.unwrap().unwrap();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_hold_and_each_is_missed_when_it_is_gone() {
    let cell = Cell::with(|config| {
        config.resolvers = vec![gateway(config)];
        config.platform = vec![SocketAddrV4::new(PLATFORM, PORT)];
        config.registries_port = Some(REGISTRIES);
        // Half of what the probe tries to hold; more than its other attempts need.
        config.shares.connections = 32;
    })
    .await;
    let outside = Outside::new();
    let neighbour = cell.script(0, "exec httpd -f -p 8080 -h /tmp");
    cell.runtime.start(neighbour).await.unwrap();
    privileged::eventually("the neighbour listens", LIMIT, || async {
        if cell.runtime.probe_tcp(0, 8080, LIMIT).await { Ok(()) } else { Err("not yet") }
    })
    .await;
    let spec = probe(&cell, &outside);
    let mut all = spec.clone();
    all.env.push(reach(&cell));
    let with = answers(&cell, &cell.runtime, all).await;
    let expected: BTreeMap<String, String> =
        EXPECTED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut wrong = Vec::new();
    for (name, value) in &with {
        let wanted = match name.split_once(':') {
            Some(("call", _)) => Some("EPERM"),
            Some(("unlisted", _)) => Some("ENOSYS"),
            _ => expected.get(name).map(String::as_str),
        };
        if wanted.is_none() || (wanted != Some(value) && !value.starts_with(ABSENT)) {
            wrong.push(format!("{name}: {value}, not {wanted:?}"));
        }
    }
    wrong.extend(expected.keys().filter(|name| !with.contains_key(*name)).map(|name| format!("{name} was not tried")));
    assert!(wrong.is_empty(), "with all guards:\n{}", wrong.join("\n"));

    for guard in Guard::ALL {
        assert!(REMOVALS.iter().any(|removal| removal.guard == *guard), "nothing would miss {guard:?}");
    }
    println!("{:16} | {:24} | {:34} | without", "guard", "probe", "with");
    for removal in REMOVALS {
        let mut spec = spec.clone();
        // With a log of its own: what another has said is in that one's.
        spec.id.assignment = uuid::Uuid::new_v4();
        spec.log_directory = cell.log_directory(spec.id);
        if removal.missed_by.iter().any(|probe| probe.starts_with("tcp:") || probe.starts_with("crowd:")) {
            spec.env.push(reach(&cell));
        }
        // What was changed by an attempt that went through.
        let _ = std::fs::remove_file(cell.directory("lent").join("new"));
        let left_out: Vec<Guard> = removal.also.iter().copied().chain([removal.guard]).collect();
        let runtime = cell.guarded(Guards::without(&left_out)).await;
        let without = answers(&cell, &runtime, spec).await;
        wrong.extend(compare(removal, &with, &without));
    }
    println!("\nnot left out:");
    for (guard, reason) in WITHOUT_REMOVAL {
        println!("{guard}: {reason}");
    }
    assert!(wrong.is_empty(), "not missed:\n{}", wrong.join("\n"));
}

/// Prints the rows of a guard; answers the attempts that its removal did not change.
fn compare(removal: &Removal, with: &BTreeMap<String, String>, without: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let also: String = removal.also.iter().map(|guard| format!(" and {guard:?}")).collect();
    let name = format!("{:?}{also}", removal.guard);
    for probe in removal.missed_by {
        let names: Vec<&String> = match probe.strip_suffix('*') {
            Some(prefix) => with.keys().filter(|name| name.starts_with(prefix)).collect(),
            None => with.keys().filter(|name| name.as_str() == *probe).collect(),
        };
        if names.is_empty() {
            wrong.push(format!("{name}: there is no probe {probe}"));
        }
        for probe in names {
            let now = without.get(probe).map_or("-", String::as_str);
            println!("{name:16} | {probe:24} | {:34} | {now}", with[probe]);
            if with[probe] == now && !now.starts_with(ABSENT) {
                wrong.push(format!("{name}: {probe} answers {now} without it, too"));
            }
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_a_layer_lead_outside_without_their_guard() {
    let cell = Cell::new().await;
    for (guards, written) in [(Guards::default(), false), (Guards::without(&[Guard::ResolvedInside]), true)] {
        let outside = tempfile::tempdir().unwrap();
        let hostile = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), hostile.path().join("way")).unwrap();
        let mut spec = cell.script(0, "true");
        spec.layers.push(hostile.path().to_owned());
        let source = cell.directory("lent");
        spec.binds.push(Bind { source, target: "/way/made".into(), writable: false, id_mapped: false });
        let runtime = cell.guarded(guards).await;
        let id = spec.id;
        if runtime.start(spec).await.is_ok() {
            runtime.stop(id, Duration::ZERO).await.unwrap();
            runtime.destroy(id).await.unwrap();
        }
        let made = outside.path().join("made").exists();
        println!("ResolvedInside | written outside | {made}");
        assert_eq!(made, written);
    }
}
