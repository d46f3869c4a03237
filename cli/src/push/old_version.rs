//! What an app's old version does while another one does not take over from it.

use super::start::{processes, stats};
use crate::client::Client;
use crate::client::views::{App, Deployment, Stats};
use crate::error::CliError;

/// Seconds after which an instance that has crashed before serves again.
const CALM_S: f64 = 60.0;

/// A sentence about it.
pub(crate) async fn old_version(client: &Client, app: &App, deployment: &Deployment) -> String {
    // A deployment that takes the place of this one may be what runs.
    let is_last = deployment.status.reason != "SUPERSEDED";
    match rows(client, app, deployment).await {
        Ok(rows) if is_last => of_rows(&rows).to_owned(),
        // What cannot be looked up is not claimed.
        _ => format!("`slipway app {}` shows what runs.", app.name),
    }
}

async fn rows(client: &Client, app: &App, deployment: &Deployment) -> Result<Vec<Stats>, CliError> {
    let mut rows = Vec::new();
    for process in processes(client, app).await? {
        if process.kind == "web" && deployment.new_processes.iter().all(|new| new.guid != process.guid) {
            rows.extend(stats(client, &process).await?);
        }
    }
    Ok(rows)
}

fn of_rows(rows: &[Stats]) -> &'static str {
    let runs = |row: &Stats| row.state == "RUNNING";
    let is_calm = |row: &Stats| row.crashes == 0 || row.uptime.is_some_and(|uptime| uptime >= CALM_S);
    if rows.iter().any(|row| runs(row) && is_calm(row)) {
        "The old version serves on."
    } else if rows.iter().any(|row| runs(row) || row.has_crashed()) {
        "The old version is crashing as well."
    } else if rows.iter().any(|row| row.state == "STARTING") {
        "The old version is starting."
    } else {
        "The old version does not run."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_instances_serve() {
        let row = |state: &str, crashes: u64, uptime: u64| -> Stats {
            serde_json::from_value(serde_json::json!({ "state": state, "crashes": crashes, "uptime": uptime }))
                .expect("a row")
        };
        assert_eq!(of_rows(&[row("CRASHED", 3, 1), row("RUNNING", 0, 1)]), "The old version serves on.");
        assert_eq!(of_rows(&[row("RUNNING", 1, 61)]), "The old version serves on.");
        for between in [row("RUNNING", 2, 1), row("CRASHED", 2, 1), row("STARTING", 2, 1)] {
            assert_eq!(of_rows(&[between]), "The old version is crashing as well.");
        }
        assert_eq!(of_rows(&[row("STARTING", 0, 1)]), "The old version is starting.");
        assert_eq!(of_rows(&[]), "The old version does not run.");
    }
}
