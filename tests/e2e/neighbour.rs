//! A small app that must not notice what the others do, and limits of the platform that a test makes small.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use slipway_tests::{Platform, ScriptApp};

/// Its name.
pub(crate) const NAME: &str = "neighbour";

const SERVER: &str = r#"exec perl -MIO::Socket::INET -e '
$server = IO::Socket::INET->new(Listen => 64, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
while ($client = $server->accept) {
  while (<$client>) { last if /^\r?\n$/ }
  print $client "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
  close $client;
}'"#;

/// Pushes it when it does not answer yet.
pub(crate) fn push(platform: &Platform) -> anyhow::Result<()> {
    if platform.run(&["app", NAME])?.code == 0 {
        return Ok(());
    }
    let pushed = ScriptApp { name: NAME, script: SERVER, manifest: "    memory: 64M\n    disk_quota: 64M\n" };
    let pushed = pushed.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    Ok(())
}

/// Limits in the controller's configuration, changed until [`Limits::reset`].
pub(crate) struct Limits {
    path: PathBuf,
    before: String,
}

impl Limits {
    /// Writes the values and restarts the controller over them.
    pub(crate) async fn set(platform: &Platform, values: &[(&str, &str)]) -> anyhow::Result<Self> {
        let path = platform.layout().config("controller");
        let before = std::fs::read_to_string(&path)?;
        let mut changed = before.clone();
        for (key, value) in values {
            // Only limits that are not the defaults stand there.
            match before.lines().find(|line| line.starts_with(&format!("{key} = "))) {
                Some(line) => changed = changed.replace(line, &format!("{key} = {value}")),
                None => {
                    let begin =
                        changed.find("[limits]\n").with_context(|| format!("no limits in {}", path.display()))?;
                    changed.insert_str(begin + "[limits]\n".len(), &format!("{key} = {value}\n"));
                }
            }
        }
        let limits = Self { path, before };
        limits.write(platform, &changed).await?;
        Ok(limits)
    }

    /// Puts back what was there.
    pub(crate) async fn reset(self, platform: &Platform) -> anyhow::Result<()> {
        self.write(platform, &self.before).await
    }

    async fn write(&self, platform: &Platform, text: &str) -> anyhow::Result<()> {
        std::fs::write(&self.path, text)?;
        let old = platform.part("controller")?;
        platform.kill("controller")?;
        Platform::eventually("another controller answers", Duration::from_secs(120), || async {
            ensure!(platform.part("controller")?.pid != old.pid, "still the old one");
            platform.ok(&["apps"]).map(drop)
        })
        .await
    }
}
