//! Who reaches whom. Needs root, busybox-static, nftables and btrfs-progs.

mod privileged;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use privileged::{Cell, LIMIT, everything};
use slipway_cell_agent::config::Shares;
use slipway_cell_agent::sandbox::{EgressRule, Members, SandboxRuntime as _};

const SERVER: &str = "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
/// More than a check takes whose answer is the kernel's own.
const QUICK: Duration = Duration::from_secs(20);

fn connect(address: SocketAddr) -> Result<TcpStream, ErrorKind> {
    TcpStream::connect_timeout(&address, QUICK).map_err(|error| error.kind())
}

/// Waits until the server of a slot listens: that it was executed does not say so yet.
async fn listens(cell: &Cell, slot: u32) {
    privileged::eventually("the server listens", LIMIT, || async {
        if cell.runtime.probe_tcp(slot, 8080, QUICK).await { Ok(()) } else { Err("not yet") }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_refuses_at_once_and_checks_pass_it() {
    let cell = Cell::new().await;
    let spec = cell.script(2, SERVER);
    cell.runtime.start(spec.clone()).await.unwrap();
    privileged::eventually("the check", LIMIT, || async {
        match cell.runtime.probe_http(2, 8080, "/index.html", QUICK).await {
            Some(200) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(cell.runtime.probe_tcp(2, 8080, QUICK).await);
    assert!(!cell.runtime.probe_tcp(2, 8081, QUICK).await);
    let address = SocketAddr::new(cell.runtime.address(2).into(), 8080);
    assert_eq!(connect(address).unwrap_err(), ErrorKind::ConnectionRefused);
    cell.runtime.gate(2, true).await.unwrap();
    cell.runtime.gate(2, true).await.unwrap();
    let mut stream = connect(address).unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");
    cell.runtime.gate(2, false).await.unwrap();
    cell.runtime.gate(2, false).await.unwrap();
    assert_eq!(connect(address).unwrap_err(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_host_nor_neighbour_can_be_reached_from_inside() {
    // Slot 0 alone: the other ports are those of the test of host ports.
    let cell = Cell::with_host_ports(2).await;
    let neighbour = cell.script(0, SERVER);
    cell.runtime.start(neighbour.clone()).await.unwrap();
    listens(&cell, 0).await;
    cell.runtime.gate(0, true).await.unwrap();
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let gateway = cell.config.network.hosts().next().unwrap();
    let other = cell.runtime.address(0);
    let mut spec = cell.script(
        1,
        &format!(
            "exec 2>&1; nc -w 3 {gateway} {port} </dev/null && echo BAD host; nc -w 3 {other} 8080 </dev/null && echo BAD neighbour; \
             nc -w 3 169.254.169.254 80 </dev/null && echo BAD metadata; nc -w 3 127.0.0.1 {port} </dev/null && echo BAD loopback; \
             nc -w 3 {gateway} 61000 </dev/null && echo BAD translated; echo end"
        ),
    );
    spec.egress = everything();
    let (_, output) = cell.run(spec).await;
    assert!(output.ends_with("end\n") && !output.contains("BAD"), "{output}");
    // The neighbour was there all the time.
    assert!(connect(SocketAddr::new(other.into(), 8080)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_alone_reach_the_registries_of_their_cell() {
    // The bridge's address is the cell's alone.
    const PORT: u16 = 4873;
    let cell = Cell::with(|config| config.registries_port = Some(PORT)).await;
    let gateway = cell.config.network.hosts().next().unwrap();
    let serve = async |port: u16| {
        let listener = tokio::net::TcpListener::bind((gateway, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        (port, tokio_util::task::AbortOnDropHandle::new(task))
    };
    let (_, _registries) = serve(PORT).await;
    let (other, _other) = serve(0).await;
    let asks = |slot: u32, registries: bool| {
        let script = format!(
            "for port in {PORT} {other}; do nc -w 10 {gateway} $port </dev/null 2>/dev/null && echo reached || echo refused; done"
        );
        let mut spec = cell.script(slot, &script);
        (spec.egress, spec.registries) = (everything(), registries);
        spec
    };
    let found = async |registries: bool| {
        let spec = asks(0, registries);
        let id = spec.id;
        let (_, output) = cell.run(spec).await;
        cell.runtime.destroy(id).await.unwrap();
        output
    };
    assert_eq!(found(false).await, "refused\nrefused\n", "an app");
    assert_eq!(found(true).await, "reached\nrefused\n", "a build, and this port alone");
    assert_eq!(found(false).await, "refused\nrefused\n", "the next one at its address");
    let mut build = cell.script(1, "sleep 1000");
    build.registries = true;
    cell.runtime.start(build).await.unwrap();
    assert_eq!(found(false).await, "refused\nrefused\n", "beside a build");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_port_leads_to_the_slot_when_its_gate_is_open() {
    let cell = Cell::with_host_ports(6).await;
    let spec = cell.script(5, SERVER);
    cell.runtime.start(spec.clone()).await.unwrap();
    listens(&cell, 5).await;
    let gateway = cell.config.network.hosts().next().unwrap();
    let address = SocketAddr::new(gateway.into(), 61_005);
    assert!(connect(address).is_err());
    cell.runtime.gate(5, true).await.unwrap();
    privileged::eventually("the host port", LIMIT, || async { connect(address).map(drop) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_reported_as_the_sandbox_sees_them() {
    let cell = Cell::new().await;
    let spec = cell.script(0, "httpd -f -p 127.0.0.1:8080 & httpd -f -p 3000 & sleep 1000");
    cell.runtime.start(spec.clone()).await.unwrap();
    let wanted = vec![(3000, false), (8080, true)];
    privileged::eventually("two listeners", LIMIT, || async {
        let found = cell.runtime.listeners(spec.id).await;
        let mut found: Vec<_> = found.iter().map(|address| (address.port(), address.ip().is_loopback())).collect();
        found.sort_unstable();
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
    assert!(!cell.runtime.probe_tcp(0, 8080, QUICK).await, "127.0.0.1 of a sandbox is its own");
    cell.runtime.stop(spec.id, Duration::ZERO).await.unwrap();
    assert_eq!(cell.runtime.listeners(spec.id).await, []);
    cell.runtime.destroy(spec.id).await.unwrap();
    assert_eq!(cell.runtime.listeners(spec.id).await, []);
}

/// A host beyond the cell: a network namespace that the host routes to, with a web server. Gone with the value.
struct World {
    name: String,
    address: std::net::Ipv4Addr,
    server: std::process::Child,
}

impl World {
    fn new() -> Self {
        // One address block for each test of each process, of those that are set aside for measurements.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed)) % 32_000;
        let block = u32::from(std::net::Ipv4Addr::new(198, 18, 0, 0)) + number * 4;
        let (near, far) = (std::net::Ipv4Addr::from(block + 1), std::net::Ipv4Addr::from(block + 2));
        let name = format!("swt{number}");
        let ip = |arguments: &str| {
            let done = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(done.success(), "ip {arguments}");
        };
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(&format!("address add {near}/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} address add {far}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        let mut server = std::process::Command::new("ip");
        server.args(["netns", "exec", &name, "busybox", "httpd", "-f", "-p", "8080", "-h", "/"]);
        Self { address: far, server: server.spawn().unwrap(), name }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        // The interface goes with its peer.
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rules_hold_at_once_for_what_runs() {
    let cell = Cell::new().await;
    let world = World::new();
    let address = world.address;
    let ask =
        format!("while true; do nc -w 2 {address} 8080 </dev/null 2>/dev/null && echo yes || echo no; sleep 0.1; done");
    let mut spec = cell.script(3, &ask);
    spec.egress = everything();
    cell.runtime.start(spec.clone()).await.unwrap();
    let says = |what: &'static str, word: &'static str| {
        let (cell, id) = (&cell, spec.id);
        async move {
            let before = cell.output(id).len();
            privileged::eventually(what, LIMIT, || async {
                let output = cell.output(id);
                // The attempt that was under way does not count.
                let lines = output.get(before..).unwrap_or_default().lines().skip(1).collect::<Vec<_>>();
                if lines.len() >= 3 && lines[lines.len() - 3..].iter().all(|line| *line == word) {
                    Ok(())
                } else {
                    Err(output)
                }
            })
            .await;
        }
    };
    says("reached", "yes").await;
    let table = || {
        let out = std::process::Command::new("nft")
            .args(["list", "table", "ip", &format!("slipway_{}", cell.config.name)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let chains = table().matches("chain egress_").count();
    let elsewhere = EgressRule {
        protocol: "tcp".into(),
        first: "192.0.2.1".parse().unwrap(),
        last: "192.0.2.1".parse().unwrap(),
        ports: vec![(443, 443)],
        icmp: (None, None),
    };
    cell.runtime.permit(spec.id, vec![elsewhere.clone()]).await.unwrap();
    says("refused", "no").await;
    assert_eq!(table().matches("chain egress_").count(), chains, "the old rules are gone");

    // Whoever adopts it finds the newest rules.
    let again = cell.restarted().await;
    assert_eq!(again.adopt().await.unwrap().len(), 1);
    says("still refused", "no").await;
    again
        .permit(spec.id, vec![EgressRule { first: address, last: address, ports: vec![(8080, 8080)], ..elsewhere }])
        .await
        .unwrap();
    says("reached again", "yes").await;
    again.stop(spec.id, Duration::ZERO).await.unwrap();
    again.destroy(spec.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_members_are_closed_whatever_the_rules_say() {
    let cell = Cell::new().await;
    let world = World::new();
    let address = world.address;
    let ask = async |slot| {
        let ask = format!("nc -w 5 {address} 8080 </dev/null 2>/dev/null && echo yes || echo no");
        let mut spec = cell.script(slot, &ask);
        spec.egress = everything();
        cell.run(spec).await.1
    };
    let port = |first, last| Members { closed: vec![(address, first, last)], routers: None };
    cell.runtime.members(port(7000, 7999)).await.unwrap();
    assert_eq!(ask(0).await, "yes\n", "another port of a member");
    cell.runtime.members(port(8000, 8100)).await.unwrap();
    assert_eq!(ask(1).await, "no\n");
    cell.runtime.members(Members::default()).await.unwrap();
    assert_eq!(ask(2).await, "yes\n", "no member any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_routers_reach_host_ports_from_outside() {
    let cell = Cell::with_host_ports(9).await;
    let world = World::new();
    cell.runtime.start(cell.script(8, SERVER)).await.unwrap();
    listens(&cell, 8).await;
    cell.runtime.gate(8, true).await.unwrap();
    let reached = || {
        let mut ask = std::process::Command::new("ip");
        let near = std::net::Ipv4Addr::from(u32::from(world.address) - 1).to_string();
        ask.args(["netns", "exec", &world.name, "busybox", "nc", "-w", "5", &near, "61008"]);
        ask.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    assert!(reached(), "before anybody has said who the routers are");
    let routers = |list: &[std::net::Ipv4Addr]| Members { closed: vec![], routers: Some(list.to_vec()) };
    cell.runtime.members(routers(&["192.0.2.1".parse().unwrap()])).await.unwrap();
    assert!(!reached(), "it is no router");
    cell.runtime.members(routers(&["192.0.2.1".parse().unwrap(), world.address])).await.unwrap();
    assert!(reached(), "it is a router");
    cell.runtime.members(routers(&[])).await.unwrap();
    assert!(!reached(), "there is no router");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rules_hold_although_the_old_ones_cannot_be_removed() {
    let cell = Cell::new().await;
    let mut spec = cell.script(0, "sleep 1000");
    spec.egress = everything();
    cell.runtime.start(spec.clone()).await.unwrap();
    let table = format!("slipway_{}", cell.config.name);
    let nft = |arguments: &[&str]| {
        let output = std::process::Command::new("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let chains = nft(&["list", "table", "ip", &table]);
    let old = chains.lines().find_map(|line| line.trim().strip_prefix("chain egress_")?.strip_suffix(" {")).unwrap();
    // Somebody's rule leads to the chain: the kernel does not let it go.
    nft(&["add", "rule", "ip", &table, "to_host", "jump", &format!("egress_{old}")]);
    cell.runtime.permit(spec.id, vec![]).await.unwrap();
    let map = nft(&["list", "map", "ip", &table, "egress"]);
    assert!(map.contains("jump egress_") && !map.contains(old), "{map}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_sandbox_are_forgotten_with_it() {
    let cell = Cell::new().await;
    let world = World::new();
    let address = world.address;
    // Questions that nobody answers: the kernel waits half a minute for what belongs to them.
    let ask = |slot| {
        let ask =
            format!("nslookup -timeout=1 -retry=1 example.test {address} >/dev/null 2>&1; echo asked; sleep 1000");
        let mut spec = cell.script(slot, &ask);
        spec.egress = everything();
        spec
    };
    let (leaves, stays) = (ask(2), ask(3));
    for spec in [&leaves, &stays] {
        cell.runtime.start(spec.clone()).await.unwrap();
        cell.until_output(spec.id, "asked").await;
    }
    let connections = |slot| {
        let table = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap();
        let own = format!("src={} ", cell.runtime.address(slot));
        table.lines().filter(|line| line.contains(&own)).count()
    };
    assert!(connections(2) > 0 && connections(3) > 0);
    cell.runtime.stop(leaves.id, Duration::ZERO).await.unwrap();
    cell.runtime.destroy(leaves.id).await.unwrap();
    assert_eq!(connections(2), 0, "the next sandbox with the address would have them");
    assert!(connections(3) > 0, "the neighbour keeps its own");
}

/// Opens so many connections to a web server at once and keeps them; a line tells of each that did not come about.
fn crowd(count: u32, address: std::net::Ipv4Addr) -> String {
    format!(
        "exec 2>/dev/null; busybox mkfifo /tmp/open; exec 3<>/tmp/open; \
         for i in $(seq 1 {count}); do (nc -w 5 {address} 8080 <&3 || echo refused) & done; echo begun; wait"
    )
}

/// The host's entries for connections that a slot began, by a part of their line.
fn connections(cell: &Cell, slot: u32, with: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap();
    let own = format!("src={} ", cell.runtime.address(slot));
    // The first address is that of the side that began.
    let begun = |line: &&str| line.find("src=").is_some_and(|at| line[at..].starts_with(&own));
    table.lines().filter(begun).filter(|line| line.contains(with)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_of_one_are_bounded_and_the_neighbour_has_its_own() {
    let cell = Cell::with_shares(Shares { connections: 10, connections_per_s: 0, ..Shares::default() }).await;
    let world = World::new();
    let mut greedy = cell.script(0, &crowd(30, world.address));
    greedy.egress = everything();
    greedy.limits.pids = 200;
    cell.runtime.start(greedy.clone()).await.unwrap();
    privileged::eventually("twenty are refused", LIMIT, || async {
        let output = cell.output(greedy.id);
        if output.matches("refused").count() == 20 { Ok(()) } else { Err(output) }
    })
    .await;
    assert_eq!(connections(&cell, 0, "ESTABLISHED").len(), 10);
    let mut neighbour = cell.script(1, &format!("nc -w 5 {} 8080 </dev/null && echo reached", world.address));
    neighbour.egress = everything();
    assert_eq!(cell.run(neighbour).await.1, "reached\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_begin_too_fast_wait_and_ended_ones_are_forgotten_soon() {
    let cell = Cell::with_shares(Shares { connections: 0, connections_per_s: 1, ..Shares::default() }).await;
    let world = World::new();
    let address = world.address;
    // Four at once and one a second pass: of sixty that wait for two seconds each most do not.
    let ask = format!(
        "exec 2>/dev/null; for i in $(seq 1 60); do (nc -w 2 {address} 8080 </dev/null && echo yes || echo no) & done; wait"
    );
    let mut spec = cell.script(0, &ask);
    spec.egress = everything();
    spec.limits.pids = 200;
    cell.runtime.start(spec.clone()).await.unwrap();
    cell.until_output(spec.id, "yes").await;
    privileged::eventually("one that has ended", LIMIT, || async {
        let ended = connections(&cell, 0, "TIME_WAIT");
        // `ipv4 2 tcp 6 SECONDS STATE …`: the kernel's own would be two minutes.
        let left = |line: &String| line.split_ascii_whitespace().nth(4).unwrap().parse::<u32>().unwrap();
        match ended.iter().map(left).max() {
            Some(left) => {
                assert!(left <= 10, "{ended:?}");
                Ok(())
            }
            None => Err(()),
        }
    })
    .await;
    cell.runtime.wait(spec.id).await.unwrap();
    let output = cell.output(spec.id);
    let (yes, no) = (output.matches("yes").count(), output.matches("no").count());
    assert!(yes >= 4 && no >= 1 && yes + no == 60, "{yes} {no}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sends_as_another_even_with_power_over_the_interface() {
    let cell = Cell::new().await;
    let world = World::new();
    privileged::eventually("the world listens", LIMIT, || async {
        connect(SocketAddr::new(world.address.into(), 8080)).map(drop)
    })
    .await;
    let (attacker, mut victim) = (cell.script(3, "sleep 1000"), cell.script(2, "sleep 1000"));
    victim.egress = everything();
    for spec in [&attacker, &victim] {
        cell.runtime.start(spec.clone()).await.unwrap();
    }
    let (address, gateway) = (cell.runtime.address(2), cell.config.network.hosts().next().unwrap());
    let bridge = std::fs::read_to_string(format!("/sys/class/net/sw{}br/address", cell.config.name)).unwrap();
    let send = |from: slipway_cell_agent::sandbox::SandboxId, prepare: &str| {
        let script = format!(
            "set -e; {prepare} ip neigh replace {gateway} lladdr {} dev eth0 nud permanent; \
             ip route replace default via {gateway} dev eth0 onlink src {address}; \
             busybox nc -w 1 {} 8080 </dev/null >/dev/null 2>&1 || true",
            bridge.trim(),
            world.address
        );
        let process = cell.process(from).to_string();
        let done = std::process::Command::new("nsenter").args(["-t", &process, "-n", "sh", "-c", &script]).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let ports = || -> std::collections::BTreeSet<String> {
        let port =
            |line: String| line.split_ascii_whitespace().find(|part| part.starts_with("sport=")).map(str::to_owned);
        connections(&cell, 2, "").into_iter().filter_map(port).collect()
    };
    send(victim.id, "");
    let own = ports();
    assert_eq!(own.len(), 1, "what it sends itself passes: {own:?}");
    // A tenant has no power over its interface; this is what would become of it.
    send(attacker.id, &format!("ip address add {address}/32 dev eth0;"));
    assert!(ports().is_subset(&own), "under its neighbour's rules: {:?}", connections(&cell, 2, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_of_an_interface_have_their_bandwidth() {
    let cell = Cell::with_shares(Shares { bandwidth_mbit: 40, ..Shares::default() }).await;
    let spec = cell.script(0, "sleep 1000");
    cell.runtime.start(spec.clone()).await.unwrap();
    let process = cell.process(spec.id).to_string();
    let host_end = format!("sw{}-0", cell.config.name);
    for arguments in [vec![], vec!["nsenter", "-t", &process, "-n"]] {
        let device = if arguments.is_empty() { &host_end[..] } else { "eth0" };
        let command = [&arguments[..], &["tc", "qdisc", "show", "dev", device]].concat();
        let shown = std::process::Command::new(command[0]).args(&command[1..]).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(text.contains("tbf") && text.contains("rate 40Mbit"), "{device}: {text}");
    }
    // And traffic passes: packets that the kernel has put together are not larger than the bucket.
    cell.runtime.stop(spec.id, Duration::ZERO).await.unwrap();
    cell.runtime.destroy(spec.id).await.unwrap();
    let script = "dd if=/dev/zero of=/tmp/large bs=64k count=32 2>/dev/null; exec httpd -f -p 8080 -h /tmp";
    let spec = cell.script(0, script);
    cell.runtime.start(spec.clone()).await.unwrap();
    listens(&cell, 0).await;
    cell.runtime.gate(0, true).await.unwrap();
    let mut stream = connect(SocketAddr::new(cell.runtime.address(0).into(), 8080)).unwrap();
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 2 << 20, "{}", answer.len());
}
