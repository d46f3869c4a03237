//! What seems to start an app whose developer does not say it.
//!
//! It is told and not run, and the build goes on: an app may be there for its tasks alone (`cf push --task`), and a client may
//! set the command after the build. Whoever starts the app without one is told it again.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHint {
    /// As it would stand in a Procfile after `web:`.
    pub command: String,
    /// A package that it needs and that requirements.txt does not name.
    #[serde(default)]
    pub missing: Option<String>,
}

impl StartHint {
    /// What to type, a line each.
    #[must_use]
    pub fn remedies(&self) -> Vec<String> {
        let command = &self.command;
        // The file may end without the end of a line.
        let first = self.missing.as_ref().map(|package| format!("  printf '\\n{package}\\n' >> requirements.txt"));
        let lines = [
            format!("  echo 'web: {command}' > Procfile"),
            format!("or push with -c '{command}', or set `command` in the manifest."),
        ];
        first.into_iter().chain(lines).collect()
    }
}
