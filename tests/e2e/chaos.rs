//! Parts are killed while requests run. What fails, and for how long, is printed; docs/ARCHITECTURE.md quotes it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use slipway_tests::{Load, LoadReport, Platform};
use slipway_up::process::ChildRecord;

const APP: &str = "binary";
/// For anything that is started again.
const LIMIT: Duration = Duration::from_secs(120);

/// Requests of the load before something is broken.
const BEFORE: usize = 200;

/// Breaks something while there is constant load and lets the load run on for `after`.
async fn under_load(
    platform: &Platform,
    what: &str,
    after: Duration,
    mut fault: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<LoadReport> {
    platform.ok(&["scale", APP, "-i", "3"])?;
    let load = Load::start(platform, APP, 4, Duration::from_millis(5))?;
    load.goes_on(BEFORE).await?;
    fault()?;
    tokio::time::sleep(after).await;
    let report = load.finish().await?;
    println!("    {what}: {report}");
    Ok(report)
}

/// Kills a part under load. Nothing is proved unless it died and another process took its place.
async fn killed_under_load(platform: &Platform, part: &str, what: &str, after: Duration) -> anyhow::Result<LoadReport> {
    let before = platform.part(part)?;
    let report = under_load(platform, what, after, || platform.kill(part)).await?;
    ensure!(!before.is_running(), "{part} was not killed: {before:?} still runs");
    is_another(platform, part, before).await?;
    Ok(report)
}

async fn is_another(platform: &Platform, part: &str, before: ChildRecord) -> anyhow::Result<()> {
    Platform::eventually("the part is back", LIMIT, || async {
        let now = platform.part(part)?;
        ensure!(now != before, "{part} is still {before:?}");
        Ok(())
    })
    .await
}

/// Pids of the app's own processes, from the cell's cgroups: everything there that is not an init.
fn instances(platform: &Platform) -> anyhow::Result<Vec<ChildRecord>> {
    let marker = format!("slipway-{}", platform.short_name()?);
    Ok(platform
        .all_processes()
        .into_iter()
        .filter(|known| {
            let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", known.pid)).unwrap_or_default();
            let command = std::fs::read(format!("/proc/{}/cmdline", known.pid)).unwrap_or_default();
            cgroups.contains(&marker)
                && cgroups.contains("/app")
                && String::from_utf8_lossy(&command).contains("./server")
        })
        .collect())
}

/// Three are wanted, and nothing is left of what an earlier scenario replaced: the end of such a one is no crash, and nobody
/// adopts it.
async fn only_three_instances(platform: &Platform) -> anyhow::Result<()> {
    platform.ok(&["scale", APP, "-i", "3"])?;
    all_three_run(platform).await?;
    Platform::eventually("what was replaced has ended", LIMIT, || async {
        let found = instances(platform)?;
        ensure!(found.len() == 3, "{found:?}");
        Ok(())
    })
    .await
}

pub(crate) async fn one_instance_is_killed_under_load(platform: &mut Platform) -> anyhow::Result<()> {
    only_three_instances(platform).await?;
    let report = under_load(platform, "kill -9 of one instance", Duration::from_secs(5), || {
        let victim = *instances(platform)?.first().context("no instance found")?;
        victim.signal(Signal::SIGKILL);
        Ok(())
    })
    .await?;
    // A request that the killed process was working on cannot be saved; everything else goes elsewhere.
    ensure!(report.failed <= 4, "at most the requests in flight may fail: {report}");
    // First: until the crash is known all three are told to run.
    Platform::eventually("the crash is an event", LIMIT, || async {
        let events = platform.ok(&["events", APP])?;
        ensure!(events.stdout.contains("  crash"), "{}", events.all());
        Ok(())
    })
    .await?;
    all_three_run(platform).await
}

pub(crate) async fn the_agent_is_killed_under_load(platform: &mut Platform) -> anyhow::Result<()> {
    only_three_instances(platform).await?;
    let before: Vec<i32> = instances(platform)?.into_iter().map(|known| known.pid).collect();
    let report = killed_under_load(platform, "cell", "kill -9 of the cell agent", Duration::from_secs(5)).await?;
    ensure!(report.failed == 0, "{report}");
    all_three_run(platform).await?;
    let after: Vec<i32> = instances(platform)?.into_iter().map(|known| known.pid).collect();
    ensure!(before.iter().all(|pid| after.contains(pid)), "instances were adopted: {before:?} -> {after:?}");
    Ok(())
}

pub(crate) async fn the_controller_is_killed_under_load(platform: &mut Platform) -> anyhow::Result<()> {
    let report = killed_under_load(platform, "controller", "kill -9 of the controller", Duration::from_secs(5)).await?;
    ensure!(report.failed == 0, "{report}");
    all_three_run(platform).await
}

pub(crate) async fn the_router_is_killed_under_load(platform: &mut Platform) -> anyhow::Result<()> {
    platform.ok(&["scale", APP, "-i", "3"])?;
    let before = platform.part("router")?;
    let load = Load::start(platform, APP, 4, Duration::from_millis(5))?;
    load.goes_on(BEFORE).await?;
    platform.kill("router")?;
    let back = is_another(platform, "router", before).await;
    // Its ready file is written when it listens and has the table, and removed before it starts.
    let ready = Platform::eventually("the router is ready", LIMIT, || async {
        ensure!(platform.layout().ready("router").exists(), "no ready file");
        Ok(())
    })
    .await;
    let went_on = load.goes_on(BEFORE).await;
    let report = load.finish().await?;
    println!("    kill -9 of the router: {report}");
    back?;
    went_on?;
    ready?;
    only_requests_under_way_failed(&report)?;
    the_router_s_sockets_are_held_by(platform, &["supervisor", "router"])?;
    all_three_run(platform).await
}

pub(crate) async fn a_killed_supervisor_is_replaced_under_load(platform: &mut Platform) -> anyhow::Result<()> {
    let (address, router) = (platform.router_address(), platform.part("router")?);
    platform.ok(&["scale", APP, "-i", "3"])?;
    let load = Load::start(platform, APP, 4, Duration::from_millis(5))?;
    load.goes_on(BEFORE).await?;
    platform.kill("supervisor")?;
    Platform::eventually("the supervisor is dead", LIMIT, || async {
        ensure!(platform.part("supervisor").is_err(), "it still runs");
        Ok(())
    })
    .await?;
    the_router_s_sockets_are_held_by(platform, &["router"])?;
    platform.up()?;
    ensure!(platform.router_address() == address, "{address} has become {}", platform.router_address());
    ensure!(!router.is_running() && platform.part("router")?.pid != router.pid, "{router:?} was not replaced");
    load.goes_on(BEFORE).await?;
    let report = load.finish().await?;
    println!("    the supervisor killed, then `slipway up`: {report}");
    only_requests_under_way_failed(&report)?;
    the_router_s_sockets_are_held_by(platform, &["supervisor", "router"])?;
    all_three_run(platform).await
}

/// A request that the router was working on is lost with it, and each client has one at a time. Whoever comes while no
/// router runs waits.
fn only_requests_under_way_failed(report: &LoadReport) -> anyhow::Result<()> {
    ensure!(report.refused == 0, "connections were refused: {report}");
    ensure!(report.most_of_one <= 1, "a client lost more than the request under way: {report}");
    Ok(())
}

/// Nobody else may hold the sockets: clients of a socket that is open and forgotten wait for ever.
fn the_router_s_sockets_are_held_by(platform: &Platform, parts: &[&str]) -> anyhow::Result<()> {
    // Lines: number, local address:port, remote address:port, state (0A = listening), …, inode as the tenth.
    let port = format!(":{:04X}", platform.router_address().port());
    let mut sockets = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 there is no such file.
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.len() > 9 && fields[1].ends_with(&port) && fields[3] == "0A" {
                sockets.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    ensure!(!sockets.is_empty(), "nobody listens on port {}", platform.router_address().port());
    let held = |pid: i32| -> Vec<String> {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.map(|link| link.to_string_lossy().into_owned()).filter(|link| sockets.contains(link)).collect()
    };
    let mut expected = parts.iter().map(|part| Ok(platform.part(part)?.pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut holders: Vec<i32> = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !held(*pid).is_empty())
        .collect();
    expected.sort_unstable();
    holders.sort_unstable();
    ensure!(holders == expected, "{holders:?} hold the sockets of the router, not {parts:?} {expected:?}");
    for pid in holders {
        let all: std::collections::BTreeSet<String> = held(pid).into_iter().collect();
        ensure!(all.len() == sockets.len(), "process {pid} holds {} of {} sockets", all.len(), sockets.len());
    }
    Ok(())
}

pub(crate) async fn postgres_goes_away_and_comes_back(platform: &mut Platform) -> anyhow::Result<()> {
    let report = killed_under_load(platform, "postgres", "Postgres killed", Duration::from_secs(6)).await?;
    ensure!(report.failed == 0, "apps do not need Postgres: {report}");
    Platform::eventually("the API is back", LIMIT, || async { platform.ok(&["apps"]).map(drop) }).await?;
    all_three_run(platform).await
}

pub(crate) async fn everything_is_killed_and_comes_back(platform: &mut Platform) -> anyhow::Result<()> {
    let apps_before = platform.ok(&["apps", "--json"])?.json()?;
    // The supervisor first, or it would bring the others back meanwhile.
    platform.kill("supervisor")?;
    Platform::eventually("everything is dead", LIMIT, || async {
        // Again each time: an agent that is not dead yet starts an instance anew whose end it sees.
        let left = platform.all_processes();
        for known in &left {
            known.signal(Signal::SIGKILL);
        }
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let start = Instant::now();
    platform.up()?;
    for app in ["node", "python", "static", APP] {
        Platform::eventually("the app is back", LIMIT, || async {
            let (status, body) = platform.get(app, "/").await?;
            ensure!(status == 200, "{app}: {status} {body}");
            Ok(())
        })
        .await?;
    }
    println!("    everything killed: all apps answer {} ms after `slipway up` began", start.elapsed().as_millis());
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|app| Some(app["name"].as_str()?.to_owned())).collect()
    };
    let apps_after = platform.ok(&["apps", "--json"])?.json()?;
    ensure!(names(&apps_before) == names(&apps_after), "{apps_before} became {apps_after}");
    all_three_run(platform).await
}

pub(crate) async fn down_leaves_nothing(platform: &mut Platform) -> anyhow::Result<()> {
    let name = platform.short_name()?;
    platform.down()?;
    ensure!(platform.all_processes().is_empty(), "processes: {:?}", platform.all_processes());
    let state = platform.layout().state.to_string_lossy().into_owned();
    let run = platform.layout().run.to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains(&state) && !mounts.contains(&run), "mounts: {mounts}");
    for (program, arguments) in
        [("nft", vec!["list", "tables"]), ("ip", vec!["link"]), ("losetup", vec!["-a"]), ("ip", vec!["netns"])]
    {
        // The kernel takes a loop device back some time after the last mount of it has gone, by itself.
        Platform::eventually("nothing is left", LIMIT, || async {
            let text = said_by(program, &arguments)?;
            ensure!(!text.contains(&name) && !text.contains(&state), "{program} {arguments:?}: {text}");
            Ok(())
        })
        .await?;
    }
    let pattern = format!("*slipway-{name}*");
    // Groups of others may go while the list is made, which ends it with an error.
    Platform::eventually("the list of cgroups", LIMIT, || async {
        let groups = said_by("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-name", &pattern])?;
        ensure!(groups.is_empty(), "cgroups: {groups}");
        Ok(())
    })
    .await?;
    platform.up()?;
    Platform::eventually("the app is back", LIMIT, || async {
        let (status, body) = platform.get(APP, "/").await?;
        ensure!(status == 200, "{status} {body}");
        Ok(())
    })
    .await
}

/// What a program prints. One that fails says nothing about what there is.
fn said_by(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} ended with {}: {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn all_three_run(platform: &Platform) -> anyhow::Result<()> {
    Platform::eventually("all three instances run", LIMIT, || async {
        let app = platform.ok(&["app", APP, "--json"])?.json()?;
        let processes = app["processes"].as_array().into_iter().flatten();
        let instances = processes.filter_map(|process| process["instances_detail"].as_array()).flatten();
        let states: Vec<&str> = instances.filter_map(|instance| instance["state"].as_str()).collect();
        ensure!(states == ["RUNNING"; 3], "{states:?} in {app}");
        Ok(())
    })
    .await
}
