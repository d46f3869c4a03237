//! Small apps that are one shell script each, pushed with the binary buildpack.

use crate::{Outcome, Platform};

/// A shell script as an app.
pub struct ScriptApp<'a> {
    /// Its name.
    pub name: &'a str,
    /// `bash` script; `$PORT` and the rest are there.
    pub script: &'a str,
    /// Further lines of its manifest entry, indented by four.
    pub manifest: &'a str,
}

impl ScriptApp<'_> {
    /// Writes source and manifest and pushes them; the outcome may be a failure.
    ///
    /// # Errors
    /// When the files cannot be written or the program cannot be run.
    pub fn push(&self, platform: &Platform) -> anyhow::Result<Outcome> {
        let directory = platform.path("apps").join(self.name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("run.sh"), self.script)?;
        let manifest = platform.path("apps").join(format!("{}.yml", self.name));
        let text = format!(
            "applications:\n  - name: {}\n    buildpacks: [binary_buildpack]\n    command: bash run.sh\n{}",
            self.name, self.manifest
        );
        std::fs::write(&manifest, text)?;
        platform.run(&["push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()])
    }
}

/// Manifest lines of an app without a route that is healthy while it runs.
pub const WORKER: &str = "    no-route: true\n    health-check-type: process\n    memory: 128M\n    disk_quota: 64M\n";
