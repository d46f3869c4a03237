//! A cell that hangs without dying: its connection stays open, it answers nothing.

use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use slipway_tests::{Api, Platform, ScriptApp};

use crate::neighbour;

/// Exit code of `push` when staging failed.
const STAGING: i32 = 7;

/// What waits for the cell says so, a build ends with the reason, what runs goes on, and all is well once it is back.
pub(crate) async fn a_cell_that_hangs_is_reported_and_comes_back(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    let limited = neighbour::Limits::set(platform, &[("cell_lost_after_s", "4"), ("unplaced_timeout_s", "5")]).await?;
    let api = Api::admin(platform).await?;
    let app = api.find("apps", neighbour::NAME).await?;
    // The new controller has figures of the instance once the cell has a session with it: only then can that fall silent.
    Platform::eventually("the cell is connected again", Duration::from_secs(120), || async {
        let (_, stats) = api.send(Method::GET, &format!("/v3/apps/{app}/processes/web/stats"), "").await?;
        ensure!(stats["resources"][0]["usage"]["mem"].is_u64(), "{stats}");
        Ok(())
    })
    .await?;
    let cell = platform.part("cell")?;
    cell.signal(nix::sys::signal::Signal::SIGSTOP);
    let outcome = while_it_hangs(platform, &api, &app).await;
    cell.signal(nix::sys::signal::Signal::SIGCONT);
    outcome?;
    limited.reset(platform).await?;
    Platform::eventually("both instances run", Duration::from_secs(120), || async {
        let app = platform.ok(&["app", neighbour::NAME, "--json"])?.stdout;
        ensure!(app.matches("\"RUNNING\"").count() >= 2, "{app}");
        Ok(())
    })
    .await?;
    platform.ok(&["delete", "on-a-hanging-cell", "-f", "-r"])?;
    platform.ok(&["scale", neighbour::NAME, "-i", "1"]).map(drop)
}

async fn while_it_hangs(platform: &Platform, api: &Api, app: &str) -> anyhow::Result<()> {
    let body = json!({ "instances": 2 }).to_string();
    api.send(Method::POST, &format!("/v3/apps/{app}/processes/web/actions/scale"), body).await?;
    for reason in ["has not answered for", "has no connection to the controller"] {
        Platform::eventually("the second instance tells what it waits for", Duration::from_secs(120), || async {
            let (_, stats) = api.send(Method::GET, &format!("/v3/apps/{app}/processes/web/stats"), "").await?;
            let names_reason = |row: &Value| row["details"].as_str().is_some_and(|text| text.contains(reason));
            ensure!(stats["resources"].as_array().into_iter().flatten().any(names_reason), "{stats}");
            Ok(())
        })
        .await?;
    }
    let (status, _) = platform.get(neighbour::NAME, "/").await?;
    ensure!(status == 200, "the instance on the hanging cell still serves: {status}");
    let manifest = "    memory: 64M\n    disk_quota: 64M\n";
    let pushed = ScriptApp { name: "on-a-hanging-cell", script: "sleep 100000", manifest }.push(platform)?;
    ensure!(pushed.code == STAGING && pushed.all().contains("no cell is connected"), "{}", pushed.all());
    Ok(())
}
