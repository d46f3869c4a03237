//! Builds that cannot end well: each is ended by its own limits, tells why, and leaves nothing behind; the neighbour
//! answers all the time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;
use slipway_tests::api::{Entry, zip_of};
use slipway_tests::{Api, Load, Platform};

use crate::neighbour;

/// Exit code of `push` when staging failed.
const STAGING: i32 = 7;

const WORKS: (&str, &str) = ("release", "echo 'default_process_types: {web: sleep 100000}'");

/// What a build leaves on the cell: its volume and its writable layers.
fn left_on_the_cell(platform: &Platform) -> BTreeSet<String> {
    ["v", "i"]
        .into_iter()
        .flat_map(|part| std::fs::read_dir(platform.layout().state("cell/scratch").join(part)).into_iter().flatten())
        .flatten()
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect()
}

/// Pushes a directory with one file through this buildpack (through all of them when there is none).
fn push(platform: &Platform, app: &str, buildpack: Option<&str>) -> anyhow::Result<slipway_tests::Outcome> {
    let directory = platform.path("apps").join("through-a-buildpack");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("notes.txt"), "nothing that a built-in buildpack knows")?;
    let directory = directory.to_string_lossy().into_owned();
    let mut arguments =
        vec!["push", app, "-p", &directory, "--no-manifest", "--no-route", "-u", "process", "-m", "64M", "-k", "64M"];
    arguments.extend(buildpack.into_iter().flat_map(|name| ["-b", name]));
    platform.run(&arguments)
}

pub(crate) async fn buildpacks_that_misbehave_are_named(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let api = Api::admin(platform).await?;
    let before = left_on_the_cell(platform);
    let load = Load::start(platform, neighbour::NAME, 1, Duration::from_millis(25))?;

    // Declines, and one that is none: both are passed over, and the answer names who was asked.
    let declines = api.buildpack("declines", &[("detect", "echo 'not mine' >&2; exit 1"), WORKS]).await?;
    let empty = api.buildpack("no-buildpack", &[("readme", "nothing")]).await?;
    let pushed = push(platform, "undetected", None)?;
    ensure!(pushed.code == STAGING && pushed.all().contains("NoAppDetectedError"), "{}", pushed.all());
    ensure!(pushed.all().contains("declines") && pushed.all().contains("notes.txt"), "{}", pushed.all());
    ensure!(pushed.all().contains("bin/detect is missing"), "the broken buildpack is named: {}", pushed.all());
    for guid in [declines, empty] {
        api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;
    }

    let forks = "exec perl -e 'while (1) { my $pid = fork; die \"no more: $!\\n\" unless defined $pid; unless ($pid) { sleep 1000; exit } }'";
    let fills = "fallocate -l 100G \"$1/fill\"";
    let cases: [(&str, &str, &[&str]); 5] = [
        (
            "fails-to-compile",
            "echo 'CHECK compiler out of ideas'; exit 3",
            &["BuildpackCompileFailed", "fails-to-compile", "exit status 3", "CHECK compiler out of ideas"],
        ),
        ("wants-an-interpreter", "", &["BuildpackCompileFailed", "bin/compile", "interpreter"]),
        ("forks-without-end", forks, &["BuildpackCompileFailed", "Resource temporarily unavailable"]),
        ("fills-the-disk", fills, &["BuildpackCompileFailed", "fallocate failed"]),
        ("eats-memory", "perl -e '$x = \"a\" x (4 << 30)'; exit $?", &["BuildpackCompileFailed", "exit status"]),
    ];
    for (name, script, said) in cases {
        let guid = api.buildpack(name, &[("detect", "echo mine"), ("compile", script), WORKS]).await?;
        if name == "wants-an-interpreter" {
            let text = b"#!/nowhere/interpreter\n".to_vec();
            let bits = zip_of(&[Entry::File("bin/compile", text)])?;
            api.upload(&format!("/v3/buildpacks/{guid}/upload"), &bits, &[]).await?;
        }
        let pushed = push(platform, name, Some(name))?;
        ensure!(pushed.code == STAGING, "{name}: {}", pushed.all());
        for word in said {
            ensure!(pushed.all().contains(word), "{name}: nothing about {word:?} in {}", pushed.all());
        }
        platform.ok(&["delete", name, "-f", "-r"])?;
        api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;
    }
    platform.ok(&["delete", "undetected", "-f", "-r"])?;
    nothing_is_left(platform, &before).await?;
    let report = load.finish().await?;
    ensure!(report.failed == 0, "the neighbour noticed: {report}");
    Ok(())
}

pub(crate) async fn builds_stay_in_their_directories(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let api = Api::admin(platform).await?;
    let before = left_on_the_cell(platform);
    let compile = r#"
for path in /usr/bin/evil /etc/evil /evil /tmp/lifecycle/evil /slipway/evil /slipway/in/evil "$0/evil" /proc/sys/kernel/panic; do
  if (echo 1 > "$path") 2>/dev/null; then echo "CHECK wrote $path"; else echo "CHECK refused $path"; fi
done
ln -s /etc/shadow "$1/shadow"
ln -s ../../../../../../../../etc "$1/climbs"
echo "CHECK $(id -u) $(ls /proc | grep -c '^[0-9]')"
"#;
    let guid = api.buildpack("writes-outside", &[("detect", "echo mine"), ("compile", compile), WORKS]).await?;
    let pushed = push(platform, "writes-outside", Some("writes-outside"))?;
    let said = pushed.all();
    ensure!(!said.contains("CHECK wrote") && said.matches("CHECK refused").count() == 8, "{said}");
    ensure!(said.contains("CHECK 2000 "), "{said}");
    for path in ["/usr/bin/evil", "/etc/evil", "/evil"] {
        ensure!(!std::path::Path::new(path).exists(), "a build wrote {path} on the host");
    }
    platform.ok(&["delete", "writes-outside", "-f", "-r"])?;
    api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;
    nothing_is_left(platform, &before).await
}

pub(crate) async fn output_and_time_of_a_build_are_limited(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let api = Api::admin(platform).await?;
    let before = left_on_the_cell(platform);
    let load = Load::start(platform, neighbour::NAME, 1, Duration::from_millis(25))?;
    let prints = "yes 0123456789012345678901234567890123456789 | head -c 1000000000; echo CHECK printed > $1/printed";
    let guid = api.buildpack("prints", &[("detect", "echo mine"), ("compile", prints), WORKS]).await?;
    let pushed = push(platform, "prints", Some("prints"))?;
    ensure!(pushed.code == 0, "the output is cut, the build goes on: {}", tail(&pushed.all()));
    ensure!(pushed.all().len() < 100 << 20, "{} bytes were shown", pushed.all().len());
    platform.ok(&["delete", "prints", "-f", "-r"])?;
    api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;

    let limited = neighbour::Limits::set(platform, &[("staging_timeout_s", "20")]).await?;
    let loops = "(setsid sleep 100000 &); while :; do sleep 0.1; done";
    let guid = api.buildpack("loops", &[("detect", "echo mine"), ("compile", loops), WORKS]).await?;
    let pushed = push(platform, "loops", Some("loops"))?;
    ensure!(pushed.code == STAGING && pushed.all().contains("StagingTimeExpired"), "{}", pushed.all());
    platform.ok(&["delete", "loops", "-f", "-r"])?;
    api.send(Method::DELETE, &format!("/v3/buildpacks/{guid}"), "").await?;
    limited.reset(platform).await?;
    nothing_is_left(platform, &before).await?;
    let report = load.finish().await?;
    ensure!(report.failed == 0, "the neighbour noticed: {report}");
    Ok(())
}

pub(crate) async fn source_larger_than_the_staging_disk_is_reported(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let api = Api::admin(platform).await?;
    let before = left_on_the_cell(platform);
    let space = api.find("spaces", "dev").await?;
    let to = |guid: &str| json!({ "data": { "guid": guid } });
    let app = api.make("/v3/apps", json!({ "name": "large", "relationships": { "space": to(&space) } })).await?;
    let package = api.make("/v3/packages", json!({ "type": "bits", "relationships": { "app": to(&app) } })).await?;
    let bits = zip_of(&[Entry::Zeros("fill", 160)])?;
    let (status, body) = api.upload(&format!("/v3/packages/{package}/upload"), &bits, &[]).await?;
    ensure!(status == 200, "{status} {body}");
    let wish = json!({
        "package": { "guid": package }, "staging_disk_in_mb": 96,
        "lifecycle": { "type": "buildpack", "data": { "buildpacks": ["binary_buildpack"] } },
    });
    let build = api.make("/v3/builds", wish).await?;
    let failed = Platform::eventually("the build ends", Duration::from_secs(300), || async {
        let (_, build) = api.send(Method::GET, &format!("/v3/builds/{build}"), "").await?;
        ensure!(build["state"] != "STAGING", "{build}");
        Ok(build)
    })
    .await?;
    let text = failed["error"].as_str().unwrap_or_default();
    ensure!(failed["state"] == "FAILED" && text.contains("disk"), "{failed}");
    ensure!(!text.contains("platform failed"), "it is the app's matter: {text}");
    platform.ok(&["delete", "large", "-f"])?;
    nothing_is_left(platform, &before).await
}

async fn nothing_is_left(platform: &Platform, before: &BTreeSet<String>) -> anyhow::Result<()> {
    Platform::eventually("the cell is clean", Duration::from_secs(120), || async {
        let left: Vec<String> = left_on_the_cell(platform).difference(before).cloned().collect();
        ensure!(left.is_empty(), "left on the cell: {left:?}");
        Ok(())
    })
    .await?;
    let (status, body) = platform.get(neighbour::NAME, "/").await?;
    ensure!(status == 200, "the neighbour: {status} {body}");
    Ok(())
}

fn tail(text: &str) -> &str {
    let begin = text.len().saturating_sub(4000);
    text.get(begin..).unwrap_or(text)
}
