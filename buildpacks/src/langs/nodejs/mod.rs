//! Node.js: `engines`, `package-lock.json`, the build scripts, `npm start`, or the pages that a build has made.

mod cache_key;
mod development;
mod start;
#[cfg(test)]
mod tests;

use std::process::Command;

use serde_json::Value;

use super::{Needs, Workspace, staticfile, web};
use crate::contract::{BuildRequest, CatalogueLayer, ProcessType};
use crate::dependency_cache::{self, Restored};
use crate::errors::Problem;
use crate::source::Source;
use crate::start::StartHint;
use crate::versions::{self, Runtime};

use self::development::Development;
use self::start::Start;

const NAME: &str = "nodejs_buildpack";
const LOCKS: [&str; 2] = ["package-lock.json", "npm-shrinkwrap.json"];
/// Lock files that npm does not read.
const OTHER_LOCKS: [&str; 4] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];
const NO_LOCK: &str = "There is no package-lock.json: each push installs anew, and in versions that may be others. Commit \
                       one (npm install --package-lock-only).";
/// Files that say a version to tools at home.
const VERSION_FILES: [&str; 2] = [".nvmrc", ".node-version"];
/// Scripts that build, the first that is there: Heroku's and Cloud Foundry's name, and everybody's.
const BUILD_SCRIPTS: [&str; 2] = ["heroku-postbuild", "build"];
/// Runs before dependencies are installed, and after everything.
const PREBUILD: &str = "heroku-prebuild";
const CLEANUP: &str = "heroku-cleanup";

pub(super) fn detects(source: &dyn Source) -> bool {
    source.has("package.json")
}

/// `package.json` as an object.
fn package(source: &dyn Source) -> Result<Value, Problem> {
    let bad = |detail: String| Problem::BadFile { file: "package.json".into(), detail };
    let text = source.read("package.json").ok_or_else(|| bad("it is not there, or no text".into()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if !value.is_object() {
        return Err(bad("it is not a JSON object".into()));
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

fn build_script(package: &Value) -> Option<&'static str> {
    BUILD_SCRIPTS.into_iter().find(|script| package_script(package, script).is_some())
}

/// The layer of Node.js: `engines` must be met, what only says a version to tools at home is met when it can be.
fn choose<'c>(
    request: &'c BuildRequest,
    source: &dyn Source,
    package: &Value,
) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    let wanted = package.get("engines").and_then(|engines| engines.get("node")).and_then(Value::as_str);
    let file = VERSION_FILES.into_iter().find_map(|file| Some((file, source.read(file)?)));
    match (wanted, file) {
        (None, Some((file, text))) => {
            versions::prefer(&request.catalogue, Runtime::Node, file, versions::first_line(&text))
        }
        _ => versions::choose(&request.catalogue, Runtime::Node, "package.json", wanted),
    }
}

/// What is there and has no effect.
fn unread(source: &dyn Source, package: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    let own = LOCKS.iter().find(|lock| source.has(lock));
    for lock in OTHER_LOCKS.iter().filter(|lock| source.has(lock)) {
        notes.push(match own {
            Some(own) => format!("{lock} is not read: dependencies are those of {own}."),
            None => format!(
                "{lock} is not read: dependencies are installed with npm, anew with each push, in versions that may be \
                 others. To hold them, commit a package-lock.json (npm install --package-lock-only)."
            ),
        });
    }
    let manager = package.get("packageManager").and_then(Value::as_str).unwrap_or_default();
    if !manager.is_empty() && !manager.starts_with("npm@") {
        let manager: String = manager.chars().filter(|c| !c.is_control()).take(40).collect();
        notes.push(format!("package.json names {manager} as its package manager; npm is used."));
    }
    notes
}

/// What seems to start a server whose package does not say it.
fn start_hint(source: &dyn Source) -> Option<StartHint> {
    let entry = ["app.js", "main.js", "src/server.js", "src/index.js", "src/app.js"];
    let entry = entry.into_iter().find(|file| source.has(file))?;
    Some(StartHint { command: format!("node {entry}"), missing: None })
}

/// What is said before anything is installed when nobody says how the app starts.
fn without_start(hint: Option<&StartHint>, builds: bool) -> Vec<String> {
    let pages =
        if builds { " Unless its build leaves pages (dist, build or out with an index.html), the" } else { " The" };
    let begin = format!(
        "No start command: package.json has no start script, and there is no server.js.{pages} app will not start."
    );
    match hint {
        Some(hint) => [format!("{begin} To start a server:")].into_iter().chain(hint.remedies()).collect(),
        None => {
            vec![format!(
                "{begin} To start a server, add a file Procfile with a line such as `web: node dist/server.js`."
            )]
        }
    }
}

pub(super) fn needs<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
    let package = package(source)?;
    let (node, note) = choose(request, source, &package)?;
    let start = Start::of(request, source, &package);
    let builds = build_script(&package).is_some();
    let mut needs = Needs {
        layers: vec![(node, false)],
        notes: note.into_iter().chain(unread(source, &package)).collect(),
        start: None,
        says: format!("nodejs {}", node.version),
    };
    // A Procfile without `web` means none.
    if start == Start::Nothing && !source.has("Procfile") {
        needs.start = start_hint(source);
        needs.notes.extend(without_start(needs.start.as_ref(), builds));
    }
    if may_serve_pages(request, source, &package) {
        // For the pages that it may leave. Without such a layer they are not served.
        needs.layers.extend(staticfile::needs(request, source).ok().into_iter().flat_map(|needs| needs.layers));
    }
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
    if work.variable("NODE_ENV").is_none_or(|mode| mode.is_empty()) {
        command.env("NODE_ENV", "production");
    }
    command.env("npm_config_nodedir", "/usr/local");
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
    let cache = match cache_key::installation_cache(work, source, package, cache_key::node(work, source)?, &arguments) {
        Ok(cache) => cache,
        Err(reason) => {
            dependency_cache::forget(&work.cache);
            installing();
            runner.detail(&format!("node_modules is installed anew with every push: {reason}"));
            return runner.step(NAME, &mut npm(work, &arguments));
        }
    };
    match cache.restore() {
        Restored::Taken => {
            runner.headline("Taking node_modules of the last build");
            runner.detail(&cache_key::same(&cache.facts));
            return Ok(());
        }
        Restored::Nothing => installing(),
        Restored::Dropped(reason) => {
            installing();
            runner.detail(&format!("node_modules of the last build is not used: {reason}"));
        }
    }
    // Whatever happens now, what is in the cache is not of this installation.
    cache.forget();
    let before = work.trace(&cache.place);
    runner.step(NAME, &mut npm(work, &arguments))?;
    work.keep(&cache, "node_modules", before);
    Ok(())
}

/// Whether package.json names something to install, so that versions can be others next time.
fn has_dependencies(package: &Value) -> bool {
    ["dependencies", "devDependencies", "optionalDependencies", "workspaces"].iter().any(|key| {
        match package.get(*key) {
            Some(Value::Object(all)) => !all.is_empty(),
            Some(Value::Array(all)) => !all.is_empty(),
            _ => false,
        }
    })
}

/// Installs the dependencies.
fn install(work: &Workspace<'_>, source: &dyn Source, package: &Value, kind: &str) -> Result<(), Problem> {
    if let Some(lock) = LOCKS.iter().find(|lock| source.has(lock)) {
        return install_locked(work, source, package, lock, kind);
    }
    dependency_cache::forget(&work.cache);
    work.runner.headline("Installing the dependencies of package.json");
    if has_dependencies(package) && !OTHER_LOCKS.iter().any(|lock| source.has(lock)) {
        work.runner.detail(NO_LOCK);
    }
    work.runner.step(NAME, &mut npm(work, &["install", "--no-save", "--no-package-lock", kind]))
}

/// Runs a script of the app, if it has it.
fn run_script(work: &Workspace<'_>, package: &Value, script: &str) -> Result<(), Problem> {
    if package_script(package, script).is_none() {
        return Ok(());
    }
    work.runner.headline(&format!("Running the script {script}"));
    work.runner.step(NAME, &mut npm(work, &["run", script]))
}

pub(super) fn build(work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    let planned = package(source)?;
    let with_nginx = has_nginx(work, source, &planned);
    run_script(work, &planned, PREBUILD)?;
    // It may have changed this.
    let package = package(source)?;
    let start = Start::of(work.request, source, &package);
    let script = build_script(&package);
    let development = Development::of(work, source, &package, &start, script.is_some());
    install(work, source, &package, development.option())?;
    if let Some(script) = script {
        run_script(work, &package, script)?;
    }
    let pages =
        if work.last && script.is_some() && start.gives_way() && with_nginx { start::pages(source) } else { None };
    match &development {
        Development::Wanted(why) => work.runner.detail(&format!("Development dependencies are kept: {why}")),
        Development::Needed(program) if pages.is_none() => {
            work.runner.detail(&format!(
                "Development dependencies are kept: the start command needs {program}, which is one of them"
            ));
        }
        Development::Needed(_) | Development::ForTheBuild => {
            work.runner.step(NAME, &mut npm(work, &["prune", "--omit=dev"]))?;
        }
        Development::Left => {}
    }
    run_script(work, &package, CLEANUP)?;
    for program in ["node", "npm", "npx"] {
        work.link(program, &format!("/usr/local/bin/{program}"))?;
    }
    work.put("profile.d/nodejs.sh", "export NODE_ENV=${NODE_ENV:-production}\nexport NODE_HOME=/usr/local\n")?;
    if let Some(pages) = pages {
        let types = staticfile::serve_built(work, source, &pages)?;
        match &start {
            Start::Development(server) => work.runner.detail(&format!(
                "`npm start` is a server for development ({server}); for it, add a Procfile with `web: npm start`"
            )),
            Start::Entry(file) => {
                work.runner.detail(&format!("To start {file} instead, add a Procfile with `web: node {file}`"));
            }
            _ => {}
        }
        return Ok(types);
    }
    Ok(start.command(source).map(web).unwrap_or_default())
}

/// Whether the plan has the web server, see [`needs`].
fn has_nginx(work: &Workspace<'_>, source: &dyn Source, package: &Value) -> bool {
    may_serve_pages(work.request, source, package)
        && work.request.catalogue.iter().any(|layer| layer.name == "nginx" && layer.kind == "runtime")
}

/// Whether pages that the build leaves would be what the app is.
fn may_serve_pages(request: &BuildRequest, source: &dyn Source, package: &Value) -> bool {
    build_script(package).is_some() && Start::of(request, source, package).gives_way()
}
