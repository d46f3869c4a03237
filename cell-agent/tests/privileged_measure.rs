//! Figures for the documentation, not judgements: run by hand with `--ignored --nocapture`, on a host that does nothing
//! else; a development build, which alone can leave out a guard. Needs root, busybox-static, nftables and btrfs-progs.
#![cfg(debug_assertions)]

mod privileged;

use std::time::{Duration, Instant};

use privileged::Cell;
use slipway_cell_agent::sandbox::{LinuxRuntime, SandboxRuntime as _, SandboxSpec};
use slipway_helper::guards::{Guard, Guards};

const STARTS: u32 = 100;

/// Milliseconds from the order to the execution of the program, in ascending order; the first start is not counted.
async fn starts(runtime: &LinuxRuntime, spec: &SandboxSpec) -> Vec<f64> {
    let mut times = Vec::new();
    for incarnation in 0..=STARTS {
        let mut spec = spec.clone();
        spec.id.incarnation = u64::from(incarnation) + 1;
        let begun = Instant::now();
        runtime.start(spec.clone()).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        runtime.stop(spec.id, Duration::ZERO).await.unwrap();
        runtime.destroy(spec.id).await.unwrap();
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; its figures mean nothing beside other tests"]
async fn start_time_and_memory_of_the_supervisor() {
    let cell = Cell::new().await;
    let mut spec = cell.script(0, "sleep 1000");
    spec.egress = privileged::everything();
    for (what, guards) in [
        ("all guards", Guards::default()),
        ("/proc not blanked", Guards::without(&[Guard::BlankProc])),
        ("no system call filters", Guards::without(&[Guard::Filters])),
    ] {
        let times = starts(&cell.guarded(guards).await, &spec).await;
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let (middle, late, most) = (at(50), at(95), at(100));
        println!("start to execution of {STARTS}, {what}: p50 {middle:.2} ms, p95 {late:.2} ms, most {most:.2} ms");
        spec.id.assignment = uuid::Uuid::new_v4();
    }

    cell.runtime.start(spec.clone()).await.unwrap();
    let name = format!("{}.{}", spec.id.assignment, spec.id.incarnation);
    let record = std::fs::read(cell.config.run_directory.join("sandboxes").join(name).join("sandbox.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", record["pid"])).unwrap();
    for line in status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")) {
        println!("supervisor {line}");
    }
    let helper = std::fs::read_dir(cell.config.run_directory.join("helper")).unwrap().next().unwrap().unwrap();
    println!("helper: {} bytes", helper.metadata().unwrap().len());
}
