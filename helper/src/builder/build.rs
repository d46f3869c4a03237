//! Second phase: dependencies, start commands, checks, droplet. Runs over stack, runtimes and build layers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{
    BuildOutcome, BuildPlan, BuildRequest, BuildTimings, CACHE_FILE, PLAN_FILE, PlannedBuildpack, ProcessType,
    UsedBuildpack,
};
use slipway_buildpacks::dependency_cache::{self, Trace};
use slipway_buildpacks::langs::{Builtin, Workspace};
use slipway_buildpacks::run::Runner;
use slipway_buildpacks::source::Directory;
use slipway_buildpacks::start::StartHint;
use slipway_buildpacks::third_party::Foreign;
use slipway_buildpacks::{launch, procfile};
use slipway_layers::{Digest, Limits, unpack_droplet};

use super::detect::{foreign, staging_path};
use super::{files, libraries, pack, platform};

/// Written into the droplet: which layers it was made for. With it a droplet can be downloaded and pushed again.
#[derive(Serialize)]
struct Manifest<'a> {
    version: u32,
    stack: &'a str,
    layers: Vec<ManifestLayer<'a>>,
    sonames: &'a BTreeMap<String, Vec<String>>,
}

/// Bound to the line; the digest is what was used.
#[derive(Serialize)]
struct ManifestLayer<'a> {
    line: &'a str,
    digest: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct StagingInfo<'a> {
    detected_buildpack: &'a str,
    start_command: &'a str,
}

pub(super) fn run(request: &BuildRequest, runner: &Runner) -> Result<BuildOutcome, Problem> {
    let plan: BuildPlan = files::read_json(&request.paths.output.join(PLAN_FILE))
        .map_err(|error| platform("the plan could not be read", error))?;
    let mut timings = BuildTimings::default();
    let home = request.paths.home();
    for name in ["deps", "profile.d", "tmp", "logs"] {
        let path = if name == "deps" { request.paths.deps.clone() } else { home.join(name) };
        fs::create_dir_all(&path).map_err(|error| platform(&format!("{} could not be made", path.display()), error))?;
    }

    let since = Instant::now();
    let restored = restore_cache(request, runner);
    timings.cache_ms = milliseconds(since);

    let since = Instant::now();
    let compiled = compile(request, &plan, runner)?;
    timings.compile_ms = milliseconds(since);

    let process_types = procfile::merge(compiled.types, procfile::read(&Directory(request.paths.app.clone()))?);
    tell_types(request, plan.start.as_ref(), &process_types, runner);

    let since = Instant::now();
    let commands = process_types.iter().map(|process| process.command.as_str()).chain(request.command.as_deref());
    let sonames = libraries::check(request, &plan, runner, &commands.collect::<Vec<_>>())?;
    timings.check_ms = milliseconds(since);

    let layers = run_time_layers(request, &plan);
    let manifest = Manifest { version: 1, stack: &request.stack, layers, sonames: &sonames };
    let detected = compiled.used.last().map(|buildpack| buildpack.detect_output.as_str()).unwrap_or_default();
    let start = process_types.first().map(|process| process.command.as_str()).unwrap_or_default();
    let info = StagingInfo { detected_buildpack: detected, start_command: start };
    let write = |name: &str, result: std::io::Result<()>| {
        result.map_err(|error| platform(&format!("{name} could not be written"), error))
    };
    write("slipway.json", files::write_json(&home.join("slipway.json"), &manifest))?;
    // JSON is YAML.
    write("staging_info.yml", files::write_json(&home.join("staging_info.yml"), &info))?;

    let since = Instant::now();
    runner.headline("Packing the droplet");
    let droplet = with_room(request, runner, || pack::droplet(request))?;
    // Packing a large cache takes longer than the rest of a build that changed nothing in it.
    let unchanged = restored.is_some() && restored == trace(request);
    let cache = if unchanged { None } else { pack::cache(request, runner) };
    timings.pack_ms = milliseconds(since);
    runner.detail(&format!("{} MB, unpacked {} MB", (droplet.size >> 20) + 1, (droplet.unpacked >> 20) + 1));
    // The cell does it, as soon as this program ends. The words are Cloud Foundry's, which scripts wait for.
    runner.headline("Uploading droplet...");
    Ok(BuildOutcome {
        ok: true,
        error: None,
        process_types,
        buildpacks: compiled.used,
        layers: manifest.layers.iter().map(|layer| layer.digest.to_owned()).collect(),
        sonames,
        droplet: Some(droplet),
        cache,
        timings,
    })
}

/// What the developer may expect of the process types and would not get.
fn tell_types(request: &BuildRequest, start: Option<&StartHint>, types: &[ProcessType], runner: &Runner) {
    let has = |kind: &str| types.iter().any(|process| process.kind == kind);
    if types.is_empty() && request.command.is_none() {
        runner.headline("No start command was found for the web process: the app will not start without one");
        match start {
            Some(hint) => hint.remedies().iter().for_each(|line| runner.detail(line)),
            None => runner.detail("Add a Procfile (web: …), push with -c, or set `command` in the manifest."),
        }
    } else if !has("web") && request.command.is_none() {
        let kinds: Vec<&str> = types.iter().map(|process| process.kind.as_str()).collect();
        runner.headline(&format!("There is no web process: this app has {}", kinds.join(", ")));
    }
    if has("release") {
        runner.detail(
            "`release` of the Procfile is a process type here: it does not run by itself before a start. Run its command as a task.",
        );
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Packs. A cache that takes the room which the droplet needs is given up, rather than the build.
fn with_room<T>(
    request: &BuildRequest,
    runner: &Runner,
    mut pack: impl FnMut() -> Result<T, Problem>,
) -> Result<T, Problem> {
    match pack() {
        Err(Problem::NoSpace { .. }) => {
            runner.detail("The build cache is deleted, because the droplet needs the disk space.");
            clear_cache(request);
            pack()
        }
        packed => packed,
    }
}

fn clear_cache(request: &BuildRequest) {
    for entry in fs::read_dir(&request.paths.cache).into_iter().flatten().flatten() {
        // What stays is overwritten or unused.
        let _ = dependency_cache::remove(&entry.path());
    }
}

/// Switches the build cache off for one build.
const CACHE_VARIABLE: &str = "SLIPWAY_BUILD_CACHE";

/// Takes the cache of the last build out of its archive; what it then is, when it was taken. A damaged cache costs time, not
/// the build.
fn restore_cache(request: &BuildRequest, runner: &Runner) -> Option<Trace> {
    let archive = request.paths.input.join(CACHE_FILE);
    let cache = &request.paths.cache;
    if fs::create_dir_all(cache).is_err() || !archive.exists() {
        return None;
    }
    if std::env::var(CACHE_VARIABLE).is_ok_and(|value| value == "off") {
        runner.detail(&format!("The build cache of the last build is not used: {CACHE_VARIABLE} is off."));
        return None;
    }
    let limits = Limits { max_bytes: request.limits.max_droplet_bytes, max_entries: request.limits.max_entries };
    if let Err(error) = unpack_droplet(&archive, "tar.zst", cache, limits, None) {
        runner.detail(&format!("The build cache of the last build is not used: {error}"));
        clear_cache(request);
        return None;
    }
    trace(request)
}

/// `None` when it cannot be told, which counts as another one.
fn trace(request: &BuildRequest) -> Option<Trace> {
    Trace::of(&request.paths.cache, &[]).ok()
}

struct Compiled {
    types: Vec<ProcessType>,
    used: Vec<UsedBuildpack>,
}

fn compile(request: &BuildRequest, plan: &BuildPlan, runner: &Runner) -> Result<Compiled, Problem> {
    let mut compiled = Compiled { types: Vec::new(), used: Vec::new() };
    let count = plan.buildpacks.len();
    let profile = request.paths.home().join("profile.d");
    let mut last_is_ours = false;
    for (index, planned) in plan.buildpacks.iter().enumerate() {
        let buildpack = request
            .buildpacks
            .get(planned.index)
            .ok_or_else(|| Problem::Platform("the plan does not belong to the request".into()))?;
        let deps = request.paths.deps.join(index.to_string());
        let cache = cache_of(request, planned);
        if fs::symlink_metadata(&cache).is_ok_and(|found| !found.is_dir()) {
            // A link in the cache would lead what is written there to another place.
            dependency_cache::remove(&cache)
                .map_err(|error| platform("the build cache could not be cleared", error))?;
        }
        for path in [&deps, &cache] {
            fs::create_dir_all(path)
                .map_err(|error| platform(&format!("{} could not be made", path.display()), error))?;
        }
        let last = index + 1 == count;
        // A single one was named by detection, which ended just before.
        if count > 1 {
            runner.headline(&planned.name);
        }
        let (types, name, version) = match &buildpack.builtin {
            Some(key) => {
                let builtin = Builtin::named(key).ok_or_else(|| Problem::UnknownBuildpack(key.clone()))?;
                last_is_ours = last;
                let env = environment(request, index)?;
                let own = std::env::vars_os().collect();
                let work = Workspace { request, app: &request.paths.app, deps, cache, runner, own, env, last };
                let types = builtin.build(&work, &Directory(request.paths.app.clone()))?;
                (types, builtin.key().to_owned(), env!("CARGO_PKG_VERSION").to_owned())
            }
            None => {
                let directory = foreign(request, planned.index, runner)?;
                let app = staging_path(&request.paths.app);
                let pack = Foreign { name: &planned.name, directory, request, app: &app, runner };
                pack.supply(&cache, &request.paths.deps, index, last)?;
                if last {
                    pack.finalize(&cache, &request.paths.deps, index, &profile)?;
                }
                let types = pack.release(&request.paths.deps, index)?;
                let (name, version) = pack.identity(&request.paths.deps, index);
                (types, name, version)
            }
        };
        // The last buildpack's types are the app's; `web` of one that only supplies is not.
        if last {
            compiled.types = types;
        }
        // As on Cloud Foundry: nobody asked a buildpack that was named, so for the last one its own name stands there.
        let detect_output =
            if last && planned.detect_output.is_empty() { name.clone() } else { planned.detect_output.clone() };
        compiled.used.push(UsedBuildpack { name: planned.name.clone(), detect_output, buildpack_name: name, version });
    }
    // A foreign finalizer does this itself.
    if last_is_ours {
        launch::write_profile(&request.paths.deps, &profile, count)
            .map_err(|error| platform("the launch scripts could not be written", error))?;
    }
    Ok(compiled)
}

fn cache_of(request: &BuildRequest, planned: &PlannedBuildpack) -> PathBuf {
    let key = Digest::of(planned.name.as_bytes()).to_string();
    request.paths.cache.join(&key[..32])
}

/// The environment of a built-in buildpack's tools: what earlier buildpacks of a chain left in `bin`, `lib` and `env`, and
/// a home outside of the app, so that tools do not leave their dot files in the droplet.
fn environment(
    request: &BuildRequest,
    index: usize,
) -> Result<BTreeMap<std::ffi::OsString, std::ffi::OsString>, Problem> {
    let home = request.paths.buildpacks.with_file_name("slipway-home");
    fs::create_dir_all(&home).map_err(|error| platform("a home directory could not be made", error))?;
    let mut env = BTreeMap::new();
    env.insert("HOME".into(), home.into());
    env.insert("CF_STACK".into(), request.stack.clone().into());
    for (variable, directory) in [("PATH", "bin"), ("LD_LIBRARY_PATH", "lib"), ("LIBRARY_PATH", "lib")] {
        let mut paths: Vec<PathBuf> = (0..index)
            .rev()
            .map(|index| request.paths.deps.join(index.to_string()).join(directory))
            .filter(|path| path.is_dir())
            .collect();
        let current = std::env::var_os(variable);
        if paths.is_empty() && current.is_some() {
            continue;
        }
        match current {
            Some(value) => paths.extend(std::env::split_paths(&value)),
            None if variable == "PATH" => paths.extend(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from)),
            None => {}
        }
        if let Ok(value) = std::env::join_paths(&paths)
            && !value.is_empty()
        {
            env.insert(variable.into(), value);
        }
    }
    for index in 0..index {
        for entry in
            fs::read_dir(request.paths.deps.join(index.to_string()).join("env")).into_iter().flatten().flatten()
        {
            if let Ok(value) = fs::read_to_string(entry.path()) {
                env.insert(entry.file_name(), value.trim_end_matches('\n').into());
            }
        }
    }
    Ok(env)
}

fn run_time_layers<'r>(request: &'r BuildRequest, plan: &BuildPlan) -> Vec<ManifestLayer<'r>> {
    plan.layers
        .iter()
        .filter(|layer| !layer.build_only)
        .filter_map(|layer| request.catalogue.iter().find(|known| known.digest == layer.digest))
        .map(|layer| ManifestLayer { line: &layer.line, digest: &layer.digest, version: &layer.version })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipway_buildpacks::contract::BuildPaths;

    use super::*;

    #[test]
    fn the_cache_gives_way_to_the_droplet() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        fs::create_dir_all(cache.join("mine/npm")).unwrap();
        let paths = BuildPaths { cache: cache.clone(), ..BuildPaths::default() };
        let request: BuildRequest =
            serde_json::from_value(serde_json::json!({ "stack": "s", "buildpacks": [], "paths": paths })).unwrap();
        let runner = Runner::new(Duration::from_secs(60), 0);
        let full = || Problem::NoSpace { step: "packing".into() };
        let mut rooms = Vec::new();
        let mut pack = |most: usize| {
            with_room(&request, &runner, || {
                rooms.push(fs::read_dir(&cache).unwrap().count());
                if rooms.len() < most { Err(full()) } else { Ok(()) }
            })
        };
        assert_eq!(pack(1), Ok(()), "with room enough nothing is given up");
        assert_eq!(pack(3), Ok(()));
        assert_eq!(pack(9), Err(full()), "without a cache to give up the disk is full");
        assert_eq!(rooms[..3], [1, 1, 0]);
        let other = with_room(&request, &runner, || Err::<(), _>(Problem::DropletTooLarge { limit: 1 }));
        assert!(other.is_err());
    }
}
