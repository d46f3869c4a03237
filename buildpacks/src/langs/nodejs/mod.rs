//! Node.js: `engines`, `package-lock.json`, the build script, `npm start`.

mod follows;
#[cfg(test)]
mod tests;

use std::process::Command;

use serde_json::Value;

use super::{Needs, Workspace, web};
use crate::contract::{BuildRequest, ProcessType};
use crate::errors::Problem;
use crate::kept::{self, Found};
use crate::source::Source;
use crate::versions;

const NAME: &str = "nodejs_buildpack";
const LOCKS: [&str; 2] = ["package-lock.json", "npm-shrinkwrap.json"];

pub(super) fn detects(source: &dyn Source) -> bool {
    source.has("package.json")
}

/// `package.json` as an object.
fn package(source: &dyn Source) -> Result<Value, Problem> {
    let bad = |detail: String| Problem::BadFile { file: "package.json".into(), detail };
    let text = source.read("package.json").ok_or_else(|| bad("it is not there, or no text".into()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if !value.is_object() {
        return Err(bad("it is no JSON object".into()));
    }
    for (part, kind) in [("engines", "an object"), ("scripts", "an object")] {
        if value.get(part).is_some_and(|part| !part.is_object()) {
            return Err(bad(format!("{part} must be {kind}, for example \"engines\": {{\"node\": \"22\"}}")));
        }
    }
    Ok(value)
}

fn package_script<'v>(package: &'v Value, name: &str) -> Option<&'v str> {
    package.get("scripts")?.get(name)?.as_str()
}

/// Whether an installation may compile something. A lock file that says no saves the mount of half a gigabyte of tools.
fn compiles(source: &dyn Source) -> bool {
    let Some(text) = LOCKS.iter().find_map(|lock| source.read(lock)) else { return true };
    let Ok(lock) = serde_json::from_str::<Value>(&text) else { return true };
    match lock.get("packages").and_then(Value::as_object) {
        Some(packages) => {
            packages.values().any(|package| package.get("hasInstallScript").and_then(Value::as_bool).unwrap_or(false))
        }
        None => true,
    }
}

pub(super) fn needs<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
    let package = package(source)?;
    let wanted = package.get("engines").and_then(|engines| engines.get("node")).and_then(Value::as_str);
    let (node, note) = versions::choose(&request.catalogue, "node", "Node.js", "package.json", wanted, 1)?;
    let mut needs = Needs {
        layers: vec![(node, false)],
        notes: note.into_iter().collect(),
        says: format!("nodejs {}", node.version),
    };
    if compiles(source) {
        needs.tools(&request.catalogue);
        let headers = format!("{}-headers", node.line);
        needs.layers.extend(request.catalogue.iter().find(|layer| layer.line == headers).map(|layer| (layer, true)));
    }
    Ok(needs)
}

/// npm, told to be quiet and to keep what it fetches in the build cache.
fn npm(work: &Workspace<'_>, arguments: &[&str]) -> Command {
    let mut command = work.command("npm");
    command.args(arguments).env("npm_config_cache", work.cache.join("npm"));
    command.env("NODE_ENV", "production").env("CI", "true").env("npm_config_nodedir", "/usr/local");
    // Its own logs lie in its cache, which would be another one after each build for them.
    command.env("npm_config_logs_max", "0");
    for quiet in ["update_notifier", "fund", "audit", "progress"] {
        command.env(format!("npm_config_{quiet}"), "false");
    }
    command
}

/// Installs what the lock file says, or takes what the last build installed from the same.
fn install_locked(
    work: &Workspace<'_>,
    source: &dyn Source,
    package: &Value,
    lock: &str,
    kind: &str,
) -> Result<(), Problem> {
    let arguments = ["ci", "--prefer-offline", kind];
    let runner = work.runner;
    let installing = || runner.headline(&format!("Installing the dependencies of {lock}"));
    let kept = match follows::kept(work, source, package, follows::node(work, source)?, &arguments) {
        Ok(kept) => kept,
        Err(reason) => {
            kept::forget(&work.cache);
            installing();
            runner.detail(&format!("node_modules is installed anew with every push: {reason}"));
            return runner.step(NAME, &mut npm(work, &arguments));
        }
    };
    match kept.restore() {
        Found::Taken => {
            runner.headline("Taking node_modules of the last build");
            runner.detail(&follows::same(&kept.facts));
            return Ok(());
        }
        Found::Nothing => installing(),
        Found::Dropped(reason) => {
            installing();
            runner.detail(&format!("node_modules of the last build is not used: {reason}"));
        }
    }
    // Whatever happens now, what is in the cache is not of this installation.
    kept.forget();
    let before = work.trace(&kept.place);
    runner.step(NAME, &mut npm(work, &arguments))?;
    work.keep(&kept, "node_modules", before);
    Ok(())
}

pub(super) fn build(work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    let package = package(source)?;
    let builds = package_script(&package, "build").is_some();
    // A build script needs what is only there for development; it is pruned afterwards.
    let kind = if builds { "--include=dev" } else { "--omit=dev" };
    if let Some(lock) = LOCKS.iter().find(|lock| source.has(lock)) {
        install_locked(work, source, &package, lock, kind)?;
    } else {
        kept::forget(&work.cache);
        work.runner.headline("Installing the dependencies of package.json");
        work.runner.detail("There is no package-lock.json: another push may install other versions. Commit one.");
        work.runner.step(NAME, &mut npm(work, &["install", "--no-save", "--no-package-lock", kind]))?;
    }
    if builds {
        work.runner.headline("Running the build script");
        work.runner.step(NAME, &mut npm(work, &["run", "build"]))?;
        work.runner.step(NAME, &mut npm(work, &["prune", "--omit=dev"]))?;
    }
    for program in ["node", "npm", "npx"] {
        work.link(program, &format!("/usr/local/bin/{program}"))?;
    }
    work.put("profile.d/nodejs.sh", "export NODE_ENV=${NODE_ENV:-production}\nexport NODE_HOME=/usr/local\n")?;
    let starts = package_script(&package, "start").is_some() || source.has("server.js");
    Ok(if starts { web("npm start") } else { Vec::new() })
}
