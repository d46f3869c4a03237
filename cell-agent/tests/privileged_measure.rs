//! Figures for the documentation, not judgements: run by hand with `--ignored --nocapture`, on a host that does nothing
//! else; a development build, which alone can leave out a guard. Needs root, busybox-static, nftables and btrfs-progs.
#![cfg(debug_assertions)]

mod privileged;

use std::time::{Duration, Instant};

use privileged::{Cell, LIMIT};
use slipway_cell_agent::sandbox::{SandboxRuntime as _, SandboxSpec};
use slipway_helper::guards::{Guard, Guards};

const STARTS: u32 = 100;

/// Milliseconds from the order to the execution of the program.
async fn start(cell: &Cell, spec: &mut SandboxSpec) -> f64 {
    spec.id.incarnation += 1;
    let begun = Instant::now();
    cell.runtime.start(spec.clone()).await.unwrap();
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    cell.runtime.stop(spec.id, Duration::ZERO).await.unwrap();
    cell.runtime.destroy(spec.id).await.unwrap();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; its figures mean nothing beside other tests"]
async fn start_time_and_memory_of_the_supervisor() {
    let kinds = [
        ("all guards", Guards::default()),
        ("/proc not blanked", Guards::without(&[Guard::BlankProc])),
        ("no system call filters", Guards::without(&[Guard::Filters])),
    ];
    let mut cells = Vec::new();
    for (what, guards) in kinds {
        let cell = Cell::with(|config| config.guards = guards).await;
        let mut spec = cell.script(0, "sleep 1000");
        spec.egress = privileged::everything();
        cells.push((what, cell, spec, Vec::new()));
    }
    // They take turns, so that what else the host does meets all of them. The first starts are not counted.
    for round in 0..=STARTS {
        for (_, cell, spec, times) in &mut cells {
            let took = start(cell, spec).await;
            if round > 0 {
                times.push(took);
            }
        }
    }
    for (what, _, _, times) in &mut cells {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let (middle, late, most) = (at(50), at(95), at(100));
        println!("start to execution of {STARTS}, {what}: p50 {middle:.2} ms, p95 {late:.2} ms, most {most:.2} ms");
    }

    let (_, cell, spec, _) = &mut cells[0];
    spec.id.incarnation += 1;
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

const REQUESTS: usize = 2000;

/// Milliseconds of requests to an address, one after the other, in ascending order, and how many failed.
fn ask(address: std::net::SocketAddr) -> (Vec<f64>, usize) {
    use std::io::{Read as _, Write as _};
    let (mut times, mut failed) = (Vec::new(), 0);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let answer = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        match answer {
            Ok(answer) if answer.ends_with("hello\n") => times.push(begun.elapsed().as_secs_f64() * 1000.0),
            _ => failed += 1,
        }
    }
    times.sort_by(f64::total_cmp);
    (times, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; its figures mean nothing beside other tests"]
async fn a_neighbour_beside_floods() {
    // Beyond the cell: connections to a server in the attacker's own reach would not pass the host's table.
    let nobody = "198.51.100.1";
    let floods = [
        ("nothing", "sleep 1000".to_owned()),
        ("processes", "while true; do (sleep 1000 &) ; done".to_owned()),
        ("disk", "while true; do dd if=/dev/zero of=/tmp/x bs=1M count=100 conv=fsync; rm /tmp/x; done".to_owned()),
        ("connections", format!("while true; do nc -w 3 {nobody} 80 </dev/null & done")),
    ];
    for (name, flood) in floods {
        let cell = Cell::new().await;
        let neighbour = cell.script(0, "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
        cell.runtime.start(neighbour.clone()).await.unwrap();
        privileged::eventually("the server listens", LIMIT, || async {
            if cell.runtime.probe_tcp(0, 8080, LIMIT).await { Ok(()) } else { Err("not yet") }
        })
        .await;
        cell.runtime.gate(0, true).await.unwrap();
        let mut attacker = cell.script(1, &format!("exec 2>/dev/null; echo up; {flood}"));
        attacker.egress = privileged::everything();
        attacker.limits.pids = 1024;
        (attacker.limits.memory_bytes, attacker.limits.disk_bytes) = (256 << 20, 200 << 20);
        cell.runtime.start(attacker.clone()).await.unwrap();
        cell.until_output(attacker.id, "up").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let address = std::net::SocketAddr::new(cell.runtime.address(0).into(), 8080);
        let (times, failed) = tokio::task::spawn_blocking(move || ask(address)).await.unwrap();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let used = cell.runtime.usage(attacker.id).await.unwrap();
        let own = format!("src={} ", cell.runtime.address(1));
        let table = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap();
        println!(
            "beside {name}: {REQUESTS} requests, p50 {:.2} ms, p99 {:.2} ms, failed {failed}; it has {} processes, {} entries",
            at(50),
            at(99),
            used.pids,
            table.lines().filter(|line| line.contains(&own)).count()
        );
        cell.runtime.stop(attacker.id, Duration::ZERO).await.unwrap();
        cell.runtime.destroy(attacker.id).await.unwrap();
    }
}
