//! From inside a running instance: what it is, what it cannot do, and what its neighbour notices (nothing).

use std::time::Duration;

use anyhow::ensure;
use slipway_tests::script::WORKER;
use slipway_tests::{Load, Platform, ScriptApp};

use crate::neighbour;
use crate::operator::Beyond;

/// Prints `CHECK <name> <value>` for each thing it finds out; addresses that it must not reach come as `TARGETS`, one that
/// it may reach as `ALLOWED`. What must fail has something beside it that must succeed by the same means.
const PROBE: &str = r#"
check() { echo "CHECK $1 $2"; }
tries() { if "$@" >/dev/null 2>&1; then echo succeeded; else echo refused; fi; }
reach() { tries timeout "${2:-2}" bash -c "exec 3<>/dev/tcp/${1%:*}/${1##*:}"; }
missing=""
for tool in awk bash dmesg grep id ls mknod mount perl sh sleep timeout touch unshare wc; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
check missing_tools "${missing:-none}"
check uid "$(id -u)"
check user "$(id -un)"
check caps "$(awk '/^Cap(Prm|Eff|Amb|Bnd)/ {printf "%s%s,", $1, $2}' /proc/self/status)"
check nnp "$(awk '/^NoNewPrivs/ {print $2}' /proc/self/status)"
check seccomp "$(awk '/^Seccomp:/ {print $2}' /proc/self/status)"
check pids "$(ls /proc | grep -c '^[0-9]')"
check foreign "$(grep -l -a -E '[p]ostgres|[s]lipway controller' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)"
check own_commands "$(grep -l -a -E '[r]un.sh' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)"
sleep 1000 & child=$!
check signal_init "$(tries kill -9 1)"
check may_signal_own "$(tries kill -9 $child)"
check mount "$(tries mount -t tmpfs none /mnt)"
check may_mount_nothing "$(tries mount --version)"
check unshare "$(tries unshare -r true)"
check may_unshare_nothing "$(tries unshare --version)"
check mknod "$(tries mknod /tmp/disk b 254 0)"
check may_mknod_pipe "$(tries mknod /tmp/pipe p)"
check write_usr "$(tries touch /usr/bin/evil)"
check may_write_tmp "$(tries touch /tmp/fine)"
check write_sysctl "$(tries sh -c 'echo 1 > /proc/sys/kernel/panic')"
check sysrq "$(tries sh -c 'echo b > /proc/sysrq-trigger')"
check may_write_by_sh "$(tries sh -c 'echo 1 > /tmp/fine')"
check dmesg "$(tries dmesg)"
check may_dmesg_nothing "$(tries dmesg --version)"
check raw_socket "$(tries perl -e 'use Socket; socket(S, PF_INET, SOCK_RAW, 1) or die')"
check may_stream_socket "$(tries perl -e 'use Socket; socket(S, PF_INET, SOCK_STREAM, 6) or die')"
check home "$HOME"
check cwd "$(pwd)"
check port "$PORT"
check index "$CF_INSTANCE_INDEX"
check vcap_application "$(echo "$VCAP_APPLICATION" | grep -c application_name)"
check vcap_services "$VCAP_SERVICES"
for target in $TARGETS; do
  check "reach:$target" "$(reach "$target")"
done
check may_reach_allowed "$(reach "$ALLOWED" 60)"
check done yes
sleep 100000
"#;

fn checks(platform: &Platform, app: &str) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let logs = platform.ok(&["logs", app, "--recent"])?;
    Ok(logs
        .stdout
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once("CHECK ")?.1.split_once(' ')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect())
}

/// Addresses that an app must not reach: every listener of the platform, by every address of this host, and the
/// private address of another app.
fn forbidden(platform: &Platform) -> anyhow::Result<Vec<String>> {
    let settings: slipway_up::settings::Settings =
        serde_json::from_str(&std::fs::read_to_string(platform.layout().state("settings.json"))?)?;
    let mut ports = vec![settings.api_port, settings.cluster_port, settings.http_port];
    ports.extend(settings.admin_ports());
    let base = settings.network.split('.').take(3).collect::<Vec<_>>().join(".");
    let addresses = std::process::Command::new("hostname").arg("-I").output()?;
    let addresses = String::from_utf8_lossy(&addresses.stdout).into_owned();
    let mut targets = Vec::new();
    for address in addresses.split_whitespace().filter(|address| !address.contains(':')).chain(["127.0.0.1"]) {
        for port in &ports {
            targets.push(format!("{address}:{port}"));
        }
        targets.push(format!("{address}:22"));
    }
    for port in [settings.api_port, settings.cluster_port] {
        targets.push(format!("{base}.1:{port}"));
    }
    // Slots are given from the lowest: the neighbour and the apps of the earlier scenarios have these addresses.
    let instances: Vec<String> = (2..40).map(|last| format!("{base}.{last}:8080")).collect();
    // What nobody listens on refuses everybody: of each kind one must be there for whoever may reach it.
    let there: Vec<&String> = targets.iter().chain(&instances).filter(|target| listens(target)).collect();
    for port in &ports {
        let port = format!(":{port}");
        ensure!(there.iter().any(|target| target.ends_with(&port)), "nobody listens on {port}: {there:?}");
    }
    ensure!(there.iter().any(|target| instances.contains(target)), "no neighbour listens: {there:?}");
    targets.extend(instances);
    targets.push("169.254.169.254:80".to_owned());
    Ok(targets)
}

/// Whether this host can connect to it.
fn listens(target: &str) -> bool {
    let connects = |address| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok();
    target.parse().is_ok_and(connects)
}

pub(crate) async fn an_app_is_contained(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let beyond = Beyond::new()?;
    let allowed = format!("{}:8080", beyond.address);
    Platform::eventually("somebody beyond the platform listens", Duration::from_secs(120), || async {
        ensure!(listens(&allowed), "{allowed} does not answer");
        Ok(())
    })
    .await?;
    let targets = forbidden(platform)?;
    let env = format!("    env:\n      TARGETS: \"{}\"\n      ALLOWED: \"{allowed}\"\n", targets.join(" "));
    let manifest = format!("{WORKER}{env}");
    let pushed = ScriptApp { name: "prober", script: PROBE, manifest: &manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    let found = Platform::eventually("the probe is through", Duration::from_secs(300), || async {
        let found = checks(platform, "prober")?;
        ensure!(found.contains_key("done"), "so far: {found:?}");
        Ok(found)
    })
    .await?;
    let is = |name: &str, wanted: &str| -> anyhow::Result<()> {
        let value = found.get(name).map(String::as_str);
        ensure!(value == Some(wanted), "{name} is {value:?}, not {wanted:?}; all: {found:#?}");
        Ok(())
    };
    is("missing_tools", "none")?;
    for (name, value) in found.iter().filter(|(name, _)| name.starts_with("may_")) {
        ensure!(value == "succeeded", "{name} is {value}: what is refused proves nothing; all: {found:#?}");
    }
    let may = found.keys().filter(|name| name.starts_with("may_")).count();
    ensure!(may == PROBE.matches("check may_").count(), "{may} controls in {found:#?}");
    is("uid", "2000")?;
    is("user", "vcap")?;
    is("nnp", "1")?;
    is("seccomp", "2")?;
    let none = "0000000000000000";
    is("caps", &format!("CapPrm:{none},CapEff:{none},CapBnd:{none},CapAmb:{none},"))?;
    is("foreign", "0")?;
    is("signal_init", "refused")?;
    for name in ["mount", "unshare", "mknod", "write_usr", "write_sysctl", "sysrq", "dmesg", "raw_socket"] {
        is(name, "refused")?;
    }
    let pids: u32 = found.get("pids").and_then(|count| count.parse().ok()).unwrap_or(u32::MAX);
    ensure!((2..12).contains(&pids), "it sees {pids} processes");
    let own: u32 = found.get("own_commands").and_then(|count| count.parse().ok()).unwrap_or(0);
    ensure!(own >= 1, "it does not even see its own command: {found:#?}");
    is("home", "/home/vcap/app")?;
    is("cwd", "/home/vcap/app")?;
    is("port", "8080")?;
    is("index", "0")?;
    is("vcap_application", "1")?;
    is("vcap_services", "{}")?;
    for target in &targets {
        is(&format!("reach:{target}"), "refused")?;
    }
    platform.ok(&["delete", "prober", "-f"])?;
    Ok(())
}

pub(crate) async fn limits_hold_and_the_neighbour_does_not_notice(platform: &mut Platform) -> anyhow::Result<()> {
    let neighbour = "binary";
    let load = Load::start(platform, neighbour, 2, Duration::from_millis(10))?;
    let disk = "dd if=/dev/zero of=/home/vcap/app/fill bs=1M count=1000 2>&1 | tail -1; \
                echo \"CHECK filled $(( $(stat -c %s /home/vcap/app/fill) >> 20 ))\"; sleep 100000";
    let pushed = ScriptApp { name: "disk-filler", script: disk, manifest: WORKER }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    let filled = Platform::eventually("the disk is full", Duration::from_secs(120), || async {
        let found = checks(platform, "disk-filler")?;
        found.get("filled").and_then(|size| size.parse::<u64>().ok()).ok_or_else(|| anyhow::anyhow!("{found:?}"))
    })
    .await?;
    ensure!((32..=64).contains(&filled), "it wrote {filled} MiB with a quota of 64");
    // It forks until it is refused, keeps what it has, and says how many that were.
    let forks = "exec perl -e '$| = 1; my $n = 0; while ($n < 5000) { my $p = fork(); last unless defined $p; \
                 if (!$p) { sleep 100000; exit } $n++ } print \"CHECK forked $n\\n\"; sleep 100000'";
    let roomy = WORKER.replace("128M", "1G");
    ScriptApp { name: "forker", script: forks, manifest: &roomy }.push(platform)?;
    let forked = Platform::eventually("the fork bomb is refused", Duration::from_secs(120), || async {
        let found = checks(platform, "forker")?;
        found.get("forked").and_then(|count| count.parse::<u64>().ok()).ok_or_else(|| anyhow::anyhow!("{found:?}"))
    })
    .await?;
    ensure!((500..1024).contains(&forked), "it has {forked} processes with a limit of 1,024");
    let report = load.finish().await?;
    println!("    neighbour during disk filler and fork bomb: {report}");
    ensure!(report.failed == 0, "{report}");
    for app in ["disk-filler", "forker"] {
        platform.ok(&["delete", app, "-f"])?;
    }
    Ok(())
}
