//! A sidecar runs beside its process, in the same sandbox, and ends with it.

use std::time::Duration;

use anyhow::ensure;
use slipway_tests::{Platform, ScriptApp};

/// Starting, and being seen in the log.
const LIMIT: Duration = Duration::from_secs(120);

/// Answers requests, and one for `/end` by a file for which the sidecar waits.
const COMMAND: &str = r#"
echo command runs
touch /tmp/command
exec perl -MIO::Socket::INET -e '
$SIG{PIPE} = "IGNORE";
$server = IO::Socket::INET->new(Listen => 64, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
while ($client = $server->accept) {
  $asked = <$client>;
  while (<$client>) { last if /^\r?\n$/ }
  print $client "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
  close $client;
  if ($asked =~ m{ /end }) { open $end, ">", "/tmp/end"; close $end }
}'
"#;

pub(crate) async fn a_sidecar_shares_the_instance_and_its_end(platform: &mut Platform) -> anyhow::Result<()> {
    // The two see each other's files. Not before the push has seen the app run does the sidecar end.
    let wait = |file: &str| format!("until [ -e /tmp/{file} ]; do sleep 0.1; done");
    let sidecar = format!("{}; echo beside $CF_INSTANCE_INDEX; {}; exit 9", wait("command"), wait("end"));
    let manifest = format!(
        "    memory: 128M\n    disk_quota: 64M\n    sidecars:\n    - name: helper\n      command: '{sidecar}'\n      process_types: [web]\n      memory: 8M\n"
    );
    let pushed = ScriptApp { name: "beside", script: COMMAND, manifest: &manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    Platform::eventually("both speak in the log", LIMIT, || async {
        let logs = platform.ok(&["logs", "beside", "--recent"])?.stdout;
        let said = |source: &str, text: &str| logs.lines().any(|line| line.contains(source) && line.contains(text));
        ensure!(said("APP/PROC/WEB/0", "command runs"), "{logs}");
        ensure!(said("APP/PROC/WEB/SIDECAR/HELPER/0", "beside 0"), "{logs}");
        Ok(())
    })
    .await?;
    let (status, body) = platform.get("beside", "/end").await?;
    ensure!(status == 200, "{status} {body}");
    Platform::eventually("the end of the sidecar is the instance's", LIMIT, || async {
        let events = platform.ok(&["events", "beside"])?.stdout;
        ensure!(events.contains("  crash"), "{events}");
        let logs = platform.ok(&["logs", "beside", "--recent"])?.stdout;
        ensure!(logs.matches("command runs").count() > 1, "it starts again: {logs}");
        Ok(())
    })
    .await?;
    platform.ok(&["delete", "beside", "-f", "-r"])?;
    Ok(())
}
