//! Whether dependencies that are there for development are installed, and whether they stay.

use serde_json::Value;

use super::{LOCKS, Start, start};
use crate::langs::Workspace;
use crate::procfile;
use crate::source::Source;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Development {
    /// Installed, and they stay: the app's settings say so.
    Wanted(String),
    /// Installed, and they stay unless pages are all that is served: this program of the start command is one of them.
    Needed(String),
    /// Installed for the build, and pruned.
    ForTheBuild,
    /// Never there.
    Left,
}

impl Development {
    /// From the app's settings, then from what it does.
    pub(super) fn of(work: &Workspace<'_>, source: &dyn Source, package: &Value, start: &Start, builds: bool) -> Self {
        match setting(work, "NPM_CONFIG_PRODUCTION").as_deref() {
            Some("false") => return Self::Wanted("NPM_CONFIG_PRODUCTION is false".into()),
            Some("true") => return Self::Left,
            _ => {}
        }
        if let Some(mode) = setting(work, "NODE_ENV").filter(|mode| !["", "production"].contains(&mode.as_str())) {
            return Self::Wanted(format!("NODE_ENV is {mode}"));
        }
        match needed(work, source, package, start) {
            Some(program) => Self::Needed(program),
            None if builds => Self::ForTheBuild,
            None => Self::Left,
        }
    }

    /// npm's option.
    pub(super) fn option(&self) -> &'static str {
        if *self == Self::Left { "--omit=dev" } else { "--include=dev" }
    }
}

/// A variable of the app, in any case as npm reads it.
fn setting(work: &Workspace<'_>, name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let value = work.variable(name).or_else(|| work.variable(&lower))?;
    Some(value.to_string_lossy().trim().to_owned())
}

/// A program that the app starts with and that is there for development only.
fn needed(work: &Workspace<'_>, source: &dyn Source, package: &Value, begins: &Start) -> Option<String> {
    let of_procfile = procfile::read(source).unwrap_or_default().into_iter().map(|process| process.command);
    let all = of_procfile.chain(work.request.command.clone()).chain(begins.command(source));
    let programs =
        all.flat_map(|command| start::commands(package, &command)).filter_map(|words| words.first().cloned());
    let lock =
        LOCKS.iter().find_map(|lock| source.read(lock)).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let packages = lock.as_ref().and_then(|lock| lock.get("packages")?.as_object());
    programs.into_iter().find(|program| match packages {
        Some(packages) => {
            let brings = |package: &&Value| package.get("bin").and_then(|bin| bin.get(program)).is_some();
            let mut bringing = packages.values().filter(brings).peekable();
            bringing.peek().is_some()
                && bringing.all(|package| package.get("dev").and_then(Value::as_bool).unwrap_or(false))
        }
        None => package.get("devDependencies").and_then(|all| all.get(program)).is_some(),
    })
}
