//! Rolling and canary deployments under constant requests: none may fail, forwards and back.
//!
//! `SLIPWAY_DEPLOY_RUNS=20` makes so many runs of each kind; without it there are few, so that the suite stays short.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_tests::{Load, Platform};

const APP: &str = "binary";
/// Instances of the example.
const COUNT: usize = 3;
/// Requests before and after a deployment.
const AROUND: usize = 300;
/// For one direction of a deployment.
const LIMIT: Duration = Duration::from_secs(120);

fn api(platform: &Platform, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let text = body.map(ToString::to_string);
    let mut arguments = vec!["curl", path, "-X", method];
    arguments.extend(text.iter().flat_map(|text| ["-d", text.as_str()]));
    let answer = platform.ok(&arguments)?.stdout;
    if answer.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&answer).with_context(|| format!("{method} {path}: {answer}"))
}

/// The example with its instances, pushed when no other scenario has done it; gives the app's guid.
fn instances(platform: &Platform) -> anyhow::Result<String> {
    if platform.run(&["app", APP])?.code != 0 {
        let directory = Platform::repository().join("examples").join(APP);
        let built = std::process::Command::new("bash").arg("build.sh").current_dir(&directory).status()?;
        ensure!(built.success(), "build.sh failed");
        let manifest = directory.join("manifest.yml");
        platform.ok(&["push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()])?;
    }
    platform.ok(&["scale", APP, "-i", &COUNT.to_string()])?;
    let apps = api(platform, "GET", &format!("/v3/apps?names={APP}"), None)?;
    Ok(apps["resources"][0]["guid"].as_str().context("no guid")?.to_owned())
}

async fn all_run(platform: &Platform, app: &str) -> anyhow::Result<()> {
    Platform::eventually("all instances run", LIMIT, || async {
        let stats = api(platform, "GET", &format!("/v3/apps/{app}/processes/web/stats"), None)?;
        let states: Vec<&Value> =
            stats["resources"].as_array().into_iter().flatten().map(|instance| &instance["state"]).collect();
        ensure!(states.len() == COUNT && states.iter().all(|state| **state == "RUNNING"), "{states:?}");
        Ok(())
    })
    .await
}

fn deploy(platform: &Platform, app: &str, strategy: &str, options: Value) -> anyhow::Result<String> {
    let body =
        json!({ "strategy": strategy, "options": options, "relationships": { "app": { "data": { "guid": app } } } });
    let deployment = api(platform, "POST", "/v3/deployments", Some(&body))?;
    Ok(deployment["guid"].as_str().with_context(|| format!("no guid: {deployment}"))?.to_owned())
}

async fn ends(platform: &Platform, deployment: &str, reason: &str) -> anyhow::Result<()> {
    Platform::eventually(reason, LIMIT, || async {
        // The client blocks this thread: the load runs in between.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = api(platform, "GET", &format!("/v3/deployments/{deployment}"), None)?["status"].clone();
        ensure!(status["value"] == "FINALIZED" && status["reason"] == reason, "{status}");
        Ok(())
    })
    .await
}

fn processes(platform: &Platform, app: &str) -> anyhow::Result<Vec<Value>> {
    let page = api(platform, "GET", &format!("/v3/apps/{app}/processes?types=web"), None)?;
    Ok(page["resources"].as_array().cloned().unwrap_or_default())
}

pub(crate) async fn a_rolling_deployment_fails_no_request(platform: &mut Platform) -> anyhow::Result<()> {
    let app = instances(platform)?;
    all_run(platform, &app).await?;
    platform.ok(&["set-env", APP, "GREETING", "rolled over"])?;
    let load = Load::start(platform, APP, 4, Duration::from_millis(5))?;
    load.goes_on(AROUND).await?;
    let begun = std::time::Instant::now();
    let deployment = deploy(platform, &app, "rolling", json!({}))?;
    ends(platform, &deployment, "DEPLOYED").await?;
    let took = begun.elapsed();
    load.goes_on(AROUND).await?;
    let report = load.finish().await?;
    println!("    rolled over three instances in {:.1} s: {report}", took.as_secs_f32());
    ensure!(report.failed == 0 && report.requests >= 2 * AROUND, "{report}");
    ensure!(processes(platform, &app)?.len() == 1, "one process is left");
    for _ in 0..20 {
        let (status, body) = platform.get(APP, "/").await?;
        ensure!(status == 200 && body.contains("rolled over"), "the new environment answers: {status} {body}");
    }
    Ok(())
}

pub(crate) async fn a_cancelled_deployment_fails_no_request(platform: &mut Platform) -> anyhow::Result<()> {
    let app = instances(platform)?;
    all_run(platform, &app).await?;
    let old = processes(platform, &app)?[0]["guid"].clone();
    platform.ok(&["set-env", APP, "GREETING", "never seen for long"])?;
    let load = Load::start(platform, APP, 4, Duration::from_millis(5))?;
    load.goes_on(AROUND).await?;
    // A canary stays in the middle until somebody lets it go on, however quick its instances are.
    let steps = json!({ "canary": { "steps": [{ "instance_weight": 34 }] } });
    let deployment = deploy(platform, &app, "canary", steps)?;
    Platform::eventually("the middle of the deployment", LIMIT, || async {
        // The client blocks this thread: the load runs in between.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = api(platform, "GET", &format!("/v3/deployments/{deployment}"), None)?["status"].clone();
        ensure!(status["reason"] == "PAUSED", "{status}");
        Ok(())
    })
    .await?;
    let both = processes(platform, &app)?;
    let new: Vec<&Value> = both.iter().filter(|process| process["guid"] != old).collect();
    ensure!(new.len() == 1 && both.len() == 2, "the old process and the new one: {both:?}");
    ensure!(new[0]["instances"].as_u64().is_some_and(|count| (1..COUNT as u64).contains(&count)), "{new:?}");
    Platform::eventually("the new one answers too", LIMIT, || async {
        let (status, body) = platform.get(APP, "/").await?;
        ensure!(status == 200 && body.contains("never seen for long"), "{status} {body}");
        Ok(())
    })
    .await?;
    api(platform, "POST", &format!("/v3/deployments/{deployment}/actions/cancel"), None)?;
    ends(platform, &deployment, "CANCELED").await?;
    load.goes_on(AROUND).await?;
    let report = load.finish().await?;
    println!("    cancelled in the middle: {report}");
    ensure!(report.failed == 0 && report.requests >= 2 * AROUND, "{report}");
    let left = processes(platform, &app)?;
    ensure!(
        left.len() == 1 && left[0]["guid"] == old && left[0]["instances"] == COUNT,
        "the old one is back: {left:?}"
    );
    all_run(platform, &app).await?;
    for _ in 0..20 {
        let (status, body) = platform.get(APP, "/").await?;
        ensure!(status == 200 && !body.contains("never seen for long"), "the old environment answers: {status} {body}");
    }
    Ok(())
}

/// Requests a second that the runs ask for.
const RATE: f64 = 700.0;
/// Clients; each has one request at a time.
const CLIENTS: usize = 16;

fn runs() -> usize {
    std::env::var("SLIPWAY_DEPLOY_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Deploys with this body, going on at every step of a canary; cancels after `cancel_after`, if that is said and the
/// deployment is not over by then. Gives how it ended.
async fn deploy_to_the_end(
    platform: &Platform,
    body: &Value,
    cancel_after: Option<Duration>,
) -> anyhow::Result<String> {
    let deployment = api(platform, "POST", "/v3/deployments", Some(body))?;
    let guid = deployment["guid"].as_str().with_context(|| format!("no guid: {deployment}"))?.to_owned();
    let path = format!("/v3/deployments/{guid}");
    let begun = std::time::Instant::now();
    let mut cancel_after = cancel_after;
    loop {
        ensure!(begun.elapsed() < LIMIT, "the deployment did not end");
        let status = api(platform, "GET", &path, None)?["status"].clone();
        if status["value"] == "FINALIZED" {
            return Ok(status["reason"].as_str().unwrap_or_default().to_owned());
        }
        if cancel_after.is_some_and(|after| begun.elapsed() >= after) {
            cancel_after = None;
            // It may end at this very moment: then the refusal says so, and the loop sees how.
            platform.run(&["curl", &format!("{path}/actions/cancel"), "-X", "POST"])?;
        } else if status["reason"] == "PAUSED" {
            platform.run(&["curl", &format!("{path}/actions/continue"), "-X", "POST"])?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs of one strategy: forwards, and every second one cancelled at a random moment. Prints one line for each.
async fn many_runs(platform: &Platform, strategy: &str, options: &Value) -> anyhow::Result<()> {
    let app = instances(platform)?;
    all_run(platform, &app).await?;
    let relationship = json!({ "app": { "data": { "guid": app } } });
    println!("    {:<4}{:<9}{:<11}{:>9}{:>9}{:>8}", "run", "strategy", "end", "requests", "a second", "failed");
    let mut failed = Vec::new();
    // How long the last one took that was left alone: a moment beyond that would cancel nothing.
    let mut whole = Duration::from_millis(1_500);
    for run in 1..=runs() {
        platform.ok(&["set-env", APP, "GREETING", &format!("{strategy} {run}")])?;
        let body = json!({ "strategy": strategy, "options": options, "relationships": relationship });
        let cancel_after = (run % 2 == 0).then(|| whole.mul_f64(rand::random_range(0.0..0.9)));
        let load = Load::at_rate(platform, APP, CLIENTS, RATE)?;
        load.goes_on(AROUND).await?;
        let begun = std::time::Instant::now();
        let ended = deploy_to_the_end(platform, &body, cancel_after).await;
        if cancel_after.is_none() {
            whole = begun.elapsed();
        }
        load.goes_on(AROUND).await?;
        // Also when the deployment failed: the thread of the requests must end.
        let report = load.finish().await?;
        let ended = ended?;
        println!(
            "    {run:<4}{strategy:<9}{ended:<11}{:>9}{:>9.0}{:>8}",
            report.requests,
            report.rate(),
            report.failed
        );
        ensure!(report.requests > 0, "no request was made");
        ensure!(cancel_after.is_some() || ended == "DEPLOYED", "run {run} ended {ended}");
        if report.failed > 0 {
            failed.push(format!("run {run}: {report}"));
        }
        all_run(platform, &app).await?;
        ensure!(processes(platform, &app)?.len() == 1, "one process is left after run {run}");
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

pub(crate) async fn many_rolling_deployments_fail_no_request(platform: &mut Platform) -> anyhow::Result<()> {
    many_runs(platform, "rolling", &json!({ "max_in_flight": 1 })).await
}

pub(crate) async fn many_canary_deployments_fail_no_request(platform: &mut Platform) -> anyhow::Result<()> {
    let steps = json!([{ "instance_weight": 34 }, { "instance_weight": 67 }]);
    many_runs(platform, "canary", &json!({ "canary": { "steps": steps } })).await
}
