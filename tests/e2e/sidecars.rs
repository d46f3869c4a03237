//! A sidecar runs beside its process, in the same sandbox, and ends with it.

use std::time::Duration;

use anyhow::ensure;
use slipway_tests::script::WORKER;
use slipway_tests::{Platform, ScriptApp};

/// Starting, and being seen in the log.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn a_sidecar_shares_the_instance_and_its_end(platform: &mut Platform) -> anyhow::Result<()> {
    // The two see each other's files, and the sidecar ends some time after it has seen the command's.
    let script = "echo command runs; touch /tmp/command; while true; do sleep 1; done";
    let sidecar = "until [ -e /tmp/command ]; do sleep 0.1; done; echo beside $CF_INSTANCE_INDEX; sleep 8; exit 9";
    let manifest = format!(
        "{WORKER}    sidecars:\n    - name: helper\n      command: '{sidecar}'\n      process_types: [web]\n      memory: 8M\n"
    );
    let pushed = ScriptApp { name: "beside", script, manifest: &manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    Platform::eventually("both speak in the log", LIMIT, || async {
        let logs = platform.ok(&["logs", "beside", "--recent"])?.stdout;
        let said = |source: &str, text: &str| logs.lines().any(|line| line.contains(source) && line.contains(text));
        ensure!(said("APP/PROC/WEB/0", "command runs"), "{logs}");
        ensure!(said("APP/PROC/WEB/SIDECAR/HELPER/0", "beside 0"), "{logs}");
        Ok(())
    })
    .await?;
    Platform::eventually("the end of the sidecar is the instance's", LIMIT, || async {
        let events = platform.ok(&["events", "beside"])?.stdout;
        ensure!(events.contains("app.crash"), "{events}");
        let logs = platform.ok(&["logs", "beside", "--recent"])?.stdout;
        ensure!(logs.matches("command runs").count() > 1, "it starts again: {logs}");
        Ok(())
    })
    .await?;
    platform.ok(&["delete", "beside", "-f", "-r"])?;
    Ok(())
}
