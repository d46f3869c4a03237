//! Inputs of `npm ci`, and when it has inputs that cannot be compared.

use serde_json::{Map, Value};

use super::{LOCKS, package_script};
use crate::contract::CatalogueLayer;
use crate::dependency_cache::{CacheInputs, ComparedVariables, DependencyCache, digest_of};
use crate::errors::Problem;
use crate::langs::Workspace;
use crate::source::Source;

/// Members of `package.json` that npm reads when it installs.
const PARTS: [&str; 12] = [
    "dependencies",
    "devDependencies",
    "optionalDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "bundleDependencies",
    "bundledDependencies",
    "overrides",
    "engines",
    "os",
    "cpu",
    "libc",
];
/// The app's own scripts that npm runs when it installs. They are the app's code, which changes with every push: with
/// one of them, npm must run.
const SCRIPTS: [&str; 10] = [
    "preinstall",
    "install",
    "postinstall",
    "prepublish",
    "preprepare",
    "prepare",
    "postprepare",
    "predependencies",
    "dependencies",
    "postdependencies",
];
/// Variables that npm itself reads.
const VARIABLES: [&str; 2] = ["npm_", "node_"];

/// The cache of `node_modules`, or why it cannot be cached.
pub(super) fn installation_cache<'w>(
    work: &'w Workspace<'_>,
    source: &dyn Source,
    package: &Value,
    node: &CatalogueLayer,
    arguments: &[&str],
) -> Result<DependencyCache<'w>, String> {
    if let Some(script) = SCRIPTS.iter().find(|script| package_script(package, script).is_some()) {
        return Err(format!("package.json has the script {script:?}, which belongs to an installation"));
    }
    if source.has("binding.gyp") {
        return Err("binding.gyp is compiled by an installation".into());
    }
    let locks: Vec<Value> = LOCKS
        .iter()
        .filter(|lock| source.has(lock))
        .map(|lock| {
            let text = source.read(lock).unwrap_or_default();
            serde_json::from_str(&text).map_err(|error| format!("{lock} cannot be read ({error})"))
        })
        .collect::<Result<_, _>>()?;
    let mut scripts = false;
    for lock in &locks {
        let packages = lock.get("packages").and_then(Value::as_object);
        let packages = packages.ok_or("the lock file is of an old form, without \"packages\"")?;
        scripts |= foreign_code(packages)?;
    }
    local_directories(package)?;

    let place = work.app.join("node_modules");
    let mut facts = work.facts("Node.js", node, arguments, &place);
    facts.inputs.insert("the part of package.json about dependencies".into(), parts(package));
    for name in LOCKS.into_iter().chain([".npmrc"]) {
        let digest = digest_of(&work.app.join(name)).map_err(|error| format!("{name} cannot be read ({error})"))?;
        facts.inputs.extend(digest.map(|digest| (name.to_owned(), digest.to_string())));
    }
    // `${NAME}` in .npmrc is a variable's value.
    let expands = source.read(".npmrc").is_some_and(|text| text.contains("${"));
    let seen = if scripts || expands { ComparedVariables::All } else { ComparedVariables::Prefixes(&VARIABLES) };
    Ok(DependencyCache {
        cache: &work.cache,
        facts,
        variables: work.variables(seen),
        place,
        leave: Vec::new(),
        max_entries: work.request.limits.max_entries,
    })
}

/// Whether an installation runs code of the dependencies. Packages that are directories of the app may change without
/// the lock file.
fn foreign_code(packages: &Map<String, Value>) -> Result<bool, String> {
    let mut scripts = false;
    for (place, package) in packages.iter().filter(|(place, _)| !place.is_empty()) {
        let text = |name: &str| package.get(name).and_then(Value::as_str).unwrap_or_default();
        let flag = |name: &str| package.get(name).and_then(Value::as_bool).unwrap_or(false);
        let local = flag("link") || [text("resolved"), text("version")].iter().any(|from| is_local(from));
        if local || !place.starts_with("node_modules/") {
            return Err(format!("{place} is a directory or file of the app"));
        }
        // From git npm builds what it fetches.
        scripts |= flag("hasInstallScript") || text("resolved").starts_with("git");
    }
    Ok(scripts)
}

fn local_directories(package: &Value) -> Result<(), String> {
    if package.get("workspaces").is_some() {
        return Err("package.json has workspaces, which are directories of the app".into());
    }
    let kinds = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    let all = kinds.iter().filter_map(|kind| package.get(kind)?.as_object()).flatten();
    for (name, from) in all {
        if is_local(from.as_str().unwrap_or_default()) {
            return Err(format!("{name} is a directory or file of the app"));
        }
    }
    Ok(())
}

fn is_local(from: &str) -> bool {
    ["file:", "link:", "workspace:", ".", "/", "~/"].iter().any(|prefix| from.starts_with(prefix))
}

fn parts(package: &Value) -> String {
    let parts: Map<String, Value> =
        PARTS.iter().filter_map(|part| Some(((*part).to_owned(), package.get(part)?.clone()))).collect();
    slipway_layers::Digest::of(Value::Object(parts).to_string().as_bytes()).to_string()
}

/// In words, what is the same when nothing differs.
pub(super) fn same(facts: &CacheInputs) -> String {
    format!("Dependencies, lock file, {} {} and stack are what they were.", facts.language, facts.version)
}

/// The layer of Node.js that is mounted.
pub(super) fn node<'r>(work: &Workspace<'r>, source: &dyn Source) -> Result<&'r CatalogueLayer, Problem> {
    let needs = super::needs(work.request, source)?;
    let node = needs.layers.into_iter().map(|(layer, _)| layer).find(|layer| layer.name == "node");
    node.ok_or(Problem::NoLayer { name: "node" })
}
