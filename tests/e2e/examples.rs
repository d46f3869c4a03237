//! The four examples, as a developer pushes them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use slipway_tests::Platform;

/// Pushes an example, asks it, scales it to three and sees all three answer.
async fn push_serve_scale(platform: &Platform, example: &str, app: &str) -> anyhow::Result<()> {
    let directory = Platform::repository().join("examples").join(example);
    if directory.join("build.sh").exists() {
        let built = std::process::Command::new("bash").arg("build.sh").current_dir(&directory).status()?;
        ensure!(built.success(), "build.sh of {example} failed");
    }
    let manifest = directory.join("manifest.yml");
    let (directory, manifest) = (directory.to_string_lossy(), manifest.to_string_lossy());
    let pushed = platform.ok(&["push", "-p", &directory, "-f", &manifest])?;
    ensure!(pushed.all().contains(&Platform::host(app)), "push prints the URL: {}", pushed.all());
    let uploading = pushed.all().contains("Uploading droplet...");
    ensure!(uploading, "push tells how far the build is: {}", pushed.all());
    // The URL answers at once: push has seen the routers acknowledge it.
    let (status, body) = platform.get(app, "/").await?;
    ensure!(status == 200, "first answer of {app}: {status} {body}");
    platform.ok(&["scale", app, "-i", "3"])?;
    let client = platform.client(&Platform::host(app))?;
    Platform::eventually("three instances answer", Duration::from_secs(120), || async {
        let mut seen = BTreeSet::new();
        for _ in 0..30 {
            let response = client.get(format!("{}/", platform.url(app))).send().await?;
            ensure!(response.status() == 200, "{}", response.status());
            seen.insert(instance_of(app, platform, response).await?);
        }
        ensure!(seen.len() == 3, "only {seen:?} answer");
        Ok(())
    })
    .await
}

/// Which instance answered: the app says so itself, a static site's log does.
async fn instance_of(app: &str, platform: &Platform, response: reqwest::Response) -> anyhow::Result<String> {
    let body = response.text().await?;
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&body)
        && let Some(index) = value.get("instance").or_else(|| value.get("index"))
    {
        return Ok(index.to_string());
    }
    let id = platform.ok(&["logs", app, "--recent"])?;
    let line = id.stdout.lines().rev().find(|line| line.contains("app_index:")).context("no access line yet")?;
    let index = line.split("app_index:\"").nth(1).and_then(|rest| rest.split('"').next()).context("no index")?;
    Ok(index.to_owned())
}

pub(crate) async fn node_is_pushed_served_and_scaled(platform: &mut Platform) -> anyhow::Result<()> {
    push_serve_scale(platform, "node", "node").await
}

pub(crate) async fn python_is_pushed_served_and_scaled(platform: &mut Platform) -> anyhow::Result<()> {
    push_serve_scale(platform, "python", "python").await
}

pub(crate) async fn a_static_site_is_pushed_served_and_scaled(platform: &mut Platform) -> anyhow::Result<()> {
    push_serve_scale(platform, "static", "static").await?;
    let logs = platform.ok(&["logs", "static", "--recent"])?;
    let of_site: Vec<&str> = logs.stdout.lines().filter(|line| line.contains("APP/PROC/WEB")).collect();
    ensure!(of_site.is_empty(), "requests are the router's to log: {of_site:#?}");
    Ok(())
}

/// What a visitor is being sent comes to its end, whatever the server does at SIGTERM by itself.
pub(crate) async fn a_download_outlives_the_instance_it_comes_from(platform: &mut Platform) -> anyhow::Result<()> {
    const MIB: usize = 1 << 20;
    /// More than all buffers between the server and the visitor hold, by far.
    const SIZE: usize = 64 * MIB;
    let site = tempfile::tempdir()?;
    std::fs::create_dir_all(site.path().join("nginx/conf"))?;
    std::fs::write(site.path().join("nginx/conf/log.conf"), "access_log /dev/stdout cloudfoundry;\n")?;
    std::fs::write(site.path().join("Staticfile"), "location_include: log.conf\n")?;
    std::fs::write(site.path().join("index.html"), "a site")?;
    std::fs::write(site.path().join("large.bin"), vec![7; SIZE])?;
    platform.ok(&["push", "downloads", "-p", &site.path().to_string_lossy(), "-m", "64M", "-k", "256M"])?;
    let client = platform.client(&Platform::host("downloads"))?;
    let mut answer = client.get(format!("{}/large.bin", platform.url("downloads"))).send().await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let mut restart = platform.spawn(&["restart", "downloads", "--strategy", "rolling"])?;
    // The visitor takes some seconds, longer than the replacement and shorter than what an app has to end.
    let (mut come, mut clock) = (0, tokio::time::interval(Duration::from_millis(100)));
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("the download was cut after {come} bytes"))? {
        if come / MIB != (come + chunk.len()) / MIB {
            clock.tick().await;
        }
        come += chunk.len();
    }
    ensure!(come == SIZE, "{come} of {SIZE} bytes came");
    ensure!(restart.wait()?.success(), "the restart failed");
    let (status, _) = platform.get("downloads", "/").await?;
    ensure!(status == 200, "the new instance serves: {status}");
    // It opens its output by name.
    Platform::eventually("a line of the web server, which the site asks for", Duration::from_secs(120), || async {
        let logs = platform.ok(&["logs", "downloads", "--recent"])?;
        let is_access = |line: &str| line.contains("APP/PROC/WEB") && line.contains(r#""GET / HTTP/1.1" 200"#);
        ensure!(logs.stdout.lines().any(is_access), "no access line: {}", logs.all());
        Ok(())
    })
    .await?;
    platform.ok(&["delete", "downloads", "-f", "-r"])?;
    Ok(())
}

pub(crate) async fn a_binary_is_pushed_served_and_scaled(platform: &mut Platform) -> anyhow::Result<()> {
    push_serve_scale(platform, "binary", "binary").await
}

pub(crate) async fn the_same_push_again_uploads_nothing(platform: &mut Platform) -> anyhow::Result<()> {
    let directory = Platform::repository().join("examples/static");
    let manifest = directory.join("manifest.yml");
    let (directory, manifest) = (directory.to_string_lossy(), manifest.to_string_lossy());
    platform.ok(&["push", "-p", &directory, "-f", &manifest])?;
    let (status, _) = platform.get("static", "/").await?;
    ensure!(status == 200, "{status}");
    Ok(())
}

pub(crate) async fn environment_logs_events_and_routes(platform: &mut Platform) -> anyhow::Result<()> {
    let app = "binary";
    platform.ok(&["set-env", app, "GREETING", "hello from the test"])?;
    let shown = platform.ok(&["env", app])?;
    ensure!(shown.stdout.contains("hello from the test"), "env: {}", shown.all());
    platform.ok(&["restart", app])?;
    let (status, _) = platform.get(app, "/").await?;
    ensure!(status == 200, "after restart: {status}");
    platform.ok(&["unset-env", app, "GREETING"])?;
    Platform::eventually("an access line", Duration::from_secs(120), || async {
        platform.get(app, "/seen-in-the-log").await?;
        let logs = platform.ok(&["logs", app, "--recent"])?;
        ensure!(logs.stdout.contains("/seen-in-the-log"), "no RTR line: {}", logs.all());
        Ok(())
    })
    .await?;
    let events = platform.ok(&["events", app])?;
    ensure!(events.stdout.contains("droplet mapped"), "events: {}", events.all());
    platform.ok(&["map-route", app, "slipway.localhost", "--hostname", "second-name"])?;
    let (status, _) = platform.get("second-name", "/").await?;
    ensure!(status == 200, "a mapped route answers at once: {status}");
    platform.ok(&["unmap-route", app, "slipway.localhost", "--hostname", "second-name"])?;
    let (status, _) = platform.get("second-name", "/").await?;
    ensure!(status == 404, "an unmapped route does not: {status}");
    platform.ok(&["stop", app])?;
    let (status, _) = platform.get(app, "/").await?;
    ensure!(status == 404, "a stopped app: {status}");
    platform.ok(&["start", app])?;
    let (status, _) = platform.get(app, "/").await?;
    ensure!(status == 200, "started again: {status}");
    Ok(())
}

/// The start begins with the developer's `PATH`, which does not lead to Node.js; the buildpacks' directories come before it.
pub(crate) async fn a_developers_path_holds_and_runtimes_are_found(platform: &mut Platform) -> anyhow::Result<()> {
    for (example, command) in [("node", "node server.js"), ("python", "gunicorn --bind 0.0.0.0:$PORT app:app")] {
        let app = format!("own-path-{example}");
        let directory = tempfile::tempdir()?;
        for file in std::fs::read_dir(Platform::repository().join("examples").join(example))? {
            let file = file?;
            if file.file_type()?.is_file() {
                std::fs::copy(file.path(), directory.path().join(file.file_name()))?;
            }
        }
        let manifest = directory.path().join("manifest.yml");
        std::fs::write(
            &manifest,
            format!(
                "applications:\n- name: {app}\n  memory: 128M\n  disk_quota: 512M\n  env:\n    PATH: /home/vcap/app/mine:/bin\n  command: 'echo \"the path is $PATH\"; exec {command}'\n"
            ),
        )?;
        platform.ok(&["push", "-p", &directory.path().to_string_lossy(), "-f", &manifest.to_string_lossy()])?;
        let (status, body) = platform.get(&app, "/").await?;
        ensure!(status == 200, "{app}: {status} {body}");
        Platform::eventually("the path is in the log", Duration::from_secs(120), || async {
            let logs = platform.ok(&["logs", &app, "--recent"])?.stdout;
            let line = logs.lines().find(|line| line.contains("the path is /")).context("no such line yet")?;
            ensure!(line.trim_end().ends_with(":/home/vcap/app/mine:/bin"), "{line}");
            ensure!(line.contains("/home/vcap/deps/0/bin:"), "{line}");
            Ok(())
        })
        .await?;
        platform.ok(&["delete", &app, "-f", "-r"])?;
    }
    Ok(())
}
