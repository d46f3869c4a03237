//! What an operator does while apps run: security groups that hold at once, buildpacks of their own that really stage.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::json;
use slipway_tests::api::{Entry, zip_of};
use slipway_tests::{Api, Platform, ScriptApp};

/// Answers each request with what a new connection to `$TARGET` brings: `reached` or `refused`.
const ASKER: &str = r#"exec perl -MIO::Socket::INET -e '
$server = IO::Socket::INET->new(Listen => 64, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
while ($client = $server->accept) {
  while (<$client>) { last if /^\r?\n$/ }
  $far = IO::Socket::INET->new(PeerAddr => $ENV{TARGET}, PeerPort => 8080, Timeout => 2);
  $said = ($far ? "reached" : "refused") . " $$";
  close $far if $far;
  print $client "HTTP/1.1 200 OK\r\ncontent-length: " . length($said) . "\r\nconnection: close\r\n\r\n$said";
  close $client;
}'"#;

/// A host beyond the platform: a network namespace that this host routes to, where something listens. Gone with the
/// value.
pub(crate) struct Beyond {
    name: String,
    pub(crate) address: Ipv4Addr,
    server: Child,
}

impl Beyond {
    pub(crate) fn new() -> anyhow::Result<Self> {
        // Of the addresses that are set aside for documents, which are public to the rules, each process has a block of its own.
        let documents = [[192, 0, 2, 0], [198, 51, 100, 0], [203, 0, 113, 0]].map(Ipv4Addr::from);
        let number = std::process::id() % 192;
        let block = u32::from(documents[number as usize / 64]) + number % 64 * 4;
        let (near, far) = (Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2));
        let name = format!("swe{number}");
        let ip = |arguments: String| {
            let done = Command::new("ip").args(arguments.split(' ')).status()?;
            ensure!(done.success(), "ip {arguments}");
            anyhow::Ok(())
        };
        ip(format!("netns add {name}"))?;
        ip(format!("link add {name} type veth peer name eth0 netns {name}"))?;
        ip(format!("address add {near}/30 dev {name}"))?;
        ip(format!("link set {name} up"))?;
        ip(format!("-n {name} address add {far}/30 dev eth0"))?;
        ip(format!("-n {name} link set eth0 up"))?;
        ip(format!("-n {name} route add default via {near}"))?;
        let listen = "use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 64, LocalPort => 8080, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }";
        let mut server = Command::new("ip");
        server.args(["netns", "exec", &name, "perl", "-e", listen]).stdin(Stdio::null());
        Ok(Self { address: far, server: server.spawn()?, name })
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        // The interface goes with its peer.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

async fn says(platform: &Platform, word: &str) -> anyhow::Result<String> {
    Platform::eventually(word, Duration::from_secs(120), || async {
        let (status, body) = platform.get("asker", "/").await?;
        ensure!(status == 200 && body.starts_with(word), "{status} {body}");
        Ok(body.split(' ').next_back().unwrap_or_default().to_owned())
    })
    .await
}

pub(crate) async fn security_groups_hold_at_once(platform: &mut Platform) -> anyhow::Result<()> {
    let beyond = Beyond::new()?;
    let api = Api::admin(platform).await?;
    let manifest = format!("    memory: 64M\n    disk_quota: 64M\n    env:\n      TARGET: {}\n", beyond.address);
    let pushed = ScriptApp { name: "asker", script: ASKER, manifest: &manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    // The default lets apps reach every public address.
    let process = says(platform, "reached").await?;

    let global = |on: bool| json!({ "globally_enabled": { "running": on } }).to_string();
    let public = format!("/v3/security_groups/{}", api.find("security_groups", "public_networks").await?);
    let (status, body) = api.send(Method::PATCH, &public, global(false)).await?;
    ensure!(status == 200, "{status} {body}");
    let same = says(platform, "refused").await?;
    ensure!(same == process, "the app was restarted: process {process} became {same}");

    // One group for one space, and then another port in it.
    let space = api.find("spaces", "dev").await?;
    let rules = |ports: &str| json!([{ "protocol": "tcp", "destination": beyond.address, "ports": ports }]);
    let wish = json!({
        "name": "one-host", "rules": rules("8080"),
        "relationships": { "running_spaces": { "data": [{ "guid": space }] } },
    });
    let group = format!("/v3/security_groups/{}", api.make("/v3/security_groups", wish).await?);
    says(platform, "reached").await?;
    api.send(Method::PATCH, &group, json!({ "rules": rules("8081") }).to_string()).await?;
    says(platform, "refused").await?;

    // Whoever takes the cell over finds the newest rules; a change while nobody listens is made up for.
    platform.kill("cell")?;
    api.send(Method::PATCH, &group, json!({ "rules": rules("8000-8090") }).to_string()).await?;
    let same = says(platform, "reached").await?;
    ensure!(same == process, "the app was restarted: process {process} became {same}");
    api.send(Method::DELETE, &format!("{group}/relationships/running_spaces/{space}"), "").await?;
    says(platform, "refused").await?;

    api.send(Method::DELETE, &group, "").await?;
    api.send(Method::PATCH, &public, global(true)).await?;
    says(platform, "reached").await?;
    platform.ok(&["delete", "asker", "-f"])?;
    Ok(())
}

/// A buildpack of scripts, with a manifest that names its stack.
async fn buildpack(api: &Api, name: &str, scripts: &[(&str, &str)]) -> anyhow::Result<String> {
    let guid = api.make("/v3/buildpacks", json!({ "name": name, "position": 1 })).await?;
    let files: Vec<(String, String)> = scripts
        .iter()
        .map(|(script, text)| (format!("bin/{script}"), format!("#!/bin/bash\nset -e\n{text}\n")))
        .collect();
    let mut entries: Vec<Entry<'_>> =
        files.iter().map(|(name, text)| Entry::File(name, text.as_bytes().to_vec())).collect();
    entries.push(Entry::File("manifest.yml", b"---\nlanguage: words\nstack: debian12\n".to_vec()));
    entries.push(Entry::File("VERSION", b"1.2.3\n".to_vec()));
    let (status, body) = api.upload(&format!("/v3/buildpacks/{guid}/upload"), &zip_of(&entries)?, &[]).await?;
    ensure!(status == 202, "upload of {name}: {status} {body}");
    ensure!(body["stack"] == "debian12" && body["state"] == "READY", "{body}");
    Ok(guid)
}

const SERVE: &str = r#"cat > "$1/serve" <<"END"
#!/bin/bash
exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 64, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
while ($c = $s->accept) { while (<$c>) { last if /^\r?\n$/ } $b = `cat said`; print $c "HTTP/1.1 200 OK\r\ncontent-length: " . length($b) . "\r\nconnection: close\r\n\r\n$b"; close $c }'
END
chmod +x "$1/serve""#;

pub(crate) async fn uploaded_buildpacks_stage(platform: &mut Platform) -> anyhow::Result<()> {
    let api = Api::admin(platform).await?;
    let positions = async || {
        let (_, list) = api.send(Method::GET, "/v3/buildpacks", "").await?;
        let list = list["resources"].as_array().context("a list")?;
        anyhow::Ok(list.iter().filter_map(|pack| pack["position"].as_i64()).collect::<Vec<_>>())
    };
    let before = positions().await?;
    let directory = platform.path("apps").join("words");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("words.txt"), "hello from the app")?;
    let directory = directory.to_string_lossy().into_owned();
    let push = |name: &str, packs: &[&str]| {
        let mut arguments = vec!["push", name, "-p", &directory, "--no-manifest", "-m", "64M", "-k", "64M"];
        arguments.extend(packs.iter().flat_map(|pack| ["-b", *pack]));
        platform.ok(&arguments).map(drop)
    };

    // The old way: detect, compile, release. It is asked first and accepts, so nobody names it.
    let detect = "[ -f \"$1/words.txt\" ] && echo 'words 1.2.3'";
    let compile = format!("echo '-----> reading words'; cp \"$1/words.txt\" \"$1/said\"; {SERVE}");
    let release = "printf -- '---\\ndefault_process_types:\\n  web: ./serve\\n'";
    let words =
        buildpack(&api, "words_buildpack", &[("detect", detect), ("compile", &compile), ("release", release)]).await?;
    push("worded", &[])?;
    let (status, body) = platform.get("worded", "/").await?;
    ensure!(status == 200 && body == "hello from the app", "{status} {body}");
    let app = api.find("apps", "worded").await?;
    let (_, droplet) = api.send(Method::GET, &format!("/v3/apps/{app}/droplets/current"), "").await?;
    let used = &droplet["buildpacks"][0];
    ensure!(used["name"] == "words_buildpack" && used["detect_output"] == "words 1.2.3", "{droplet}");
    ensure!(used["version"] == "1.2.3", "{droplet}");

    // The new way, in a chain: one supplies, the other supplies and finalizes with what the first left.
    let supply = "mkdir -p \"$3/$4/bin\"; printf '#!/bin/bash\\necho supplied\\n' > \"$3/$4/bin/word\"; chmod +x \"$3/$4/bin/word\"; echo \"supplying as $4\"";
    let finalize = format!("\"$3/0/bin/word\" > \"$1/said\"; echo \"finalizing as $4\"; {SERVE}");
    let first = buildpack(&api, "supply_buildpack", &[("detect", "exit 1"), ("supply", supply)]).await?;
    let scripts = [("detect", "exit 1"), ("supply", "true"), ("finalize", finalize.as_str()), ("release", release)];
    let last = buildpack(&api, "final_buildpack", &scripts).await?;
    push("chained", &["supply_buildpack", "final_buildpack"])?;
    let (status, body) = platform.get("chained", "/").await?;
    ensure!(status == 200 && body == "supplied\n", "{status} {body}");

    // A release that fails, as Cloud Foundry tells it; and a stack that is not there.
    let broken =
        buildpack(&api, "broken_buildpack", &[("detect", "exit 1"), ("compile", "true"), ("release", "exit 4")])
            .await?;
    let pushed = platform.run(&["push", "unreleased", "-p", &directory, "--no-manifest", "-b", "broken_buildpack"])?;
    ensure!(pushed.code != 0 && pushed.all().contains("BuildpackReleaseFailed"), "{}", pushed.all());
    let bits = zip_of(&[
        Entry::File("bin/compile", b"#!/bin/sh".to_vec()),
        Entry::File("manifest.yml", b"stack: plan9".to_vec()),
    ])?;
    let guid = api.make("/v3/buildpacks", json!({ "name": "far_buildpack" })).await?;
    let (status, body) = api.upload(&format!("/v3/buildpacks/{guid}/upload"), &bits, &[]).await?;
    ensure!(status == 202 && body["state"] == "AWAITING_UPLOAD", "{status} {body}");

    for guid in [words, first, last, broken, guid] {
        api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;
    }
    for app in ["worded", "chained", "unreleased"] {
        platform.run(&["delete", app, "-f", "-r"])?;
    }
    Platform::eventually("the order closes", Duration::from_secs(120), || async {
        let now = positions().await?;
        ensure!(now == before && now.iter().copied().eq(1..=now.len() as i64), "{before:?} became {now:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Health and metrics of every part, with what an app and the queries for it have left there.
pub(crate) async fn parts_show_health_and_metrics(platform: &mut Platform) -> anyhow::Result<()> {
    let settings: slipway_up::settings::Settings =
        serde_json::from_str(&std::fs::read_to_string(platform.layout().state("settings.json"))?)?;
    let client = platform.client("127.0.0.1")?;
    let page = async |port: u16, path: &str| -> anyhow::Result<(u16, String)> {
        let response = client.get(format!("http://127.0.0.1:{port}{path}")).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    };
    let controller = settings.controller_admin_port.context("a port for the controller's pages")?;
    let cell = settings.cell_admin_port.context("a port for the cell's pages")?;
    for port in settings.admin_ports() {
        let (status, health) = page(port, "/healthz").await?;
        ensure!(status == 200 && health.starts_with("ok"), "{port}: {status} {health}");
        let (status, text) = page(port, "/nowhere").await?;
        ensure!(status == 404 && text.contains("/metrics"), "{port}: {status} {text}");
    }
    let (_, numbers) = page(controller, "/metrics").await?;
    for part in [
        "controller_planning 1",
        "controller_cell_sessions 1",
        "controller_router_sessions 1",
        "controller_database_connections{pool=\"placement\"}",
        "controller_query_duration_seconds_count{query=\"select app\"}",
        "controller_query_duration_seconds_bucket{query=\"insert change_log\",le=\"+Inf\"}",
        "controller_task_runs_total{task=\"planner\"}",
        "controller_task_failures_in_a_row{task=\"lease\"} 0",
    ] {
        ensure!(numbers.contains(part), "{part} is not among the controller's metrics:\n{numbers}");
    }
    let manifest = slipway_tests::script::WORKER;
    let pushed = ScriptApp { name: "counted", script: "exec sleep 1000", manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    let counted = async || -> anyhow::Result<()> {
        let (_, numbers) = page(cell, "/metrics").await?;
        let value = |name: &str| {
            let line = numbers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<u64>().ok())
        };
        ensure!(value("cell_controller_sessions") == Some(1), "{numbers}");
        ensure!(value("cell_task_runs_total{task=\"usage\"}").is_some_and(|runs| runs > 0), "{numbers}");
        let used = value("cell_workloads") > Some(0) && value("cell_memory_used_bytes") > Some(0);
        ensure!(used, "{numbers}");
        Ok(())
    };
    Platform::eventually("the cell's metrics count the app", Duration::from_secs(30), counted).await?;
    platform.ok(&["delete", "counted", "-f", "-r"])?;
    Ok(())
}
