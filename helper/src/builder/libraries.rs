//! Every library that the droplet needs must be there when the app runs.
//!
//! The build layer hides the mistake: what was linked against its libraries runs while staging and not afterwards. So each
//! needed name of each ELF file is looked for in the droplet and in the stack and runtime layers, without the paths of
//! layers that are mounted while building only.
//!
//! What surely cannot run fails the build: the program that a start command names, with the libraries that it brings along, and
//! what was linked here against a library of the build tools. Everything else is told, and the droplet is as good as on Cloud
//! Foundry: runtimes and packages bring modules along that nothing loads. So it is with all that foreign buildpacks made.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildPlan, BuildRequest, LAYER_PATHS_DIRECTORY};
use slipway_buildpacks::run::Runner;
use slipway_buildpacks::source::plain;
use slipway_layers::elf::{self, Dynamic};
use walkdir::WalkDir;

use super::platform;

/// Where the loader looks, in the spelling without links that the lists of paths use.
const SYSTEM: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
/// Libraries that the developer says are never loaded.
const ALLOWED: &str = "SLIPWAY_ALLOW_MISSING_LIBRARIES";

/// Lines of a warning. A runtime may bring hundreds of modules.
const MAX_REPORTED: usize = 10;

/// What the programs of a droplet need. Files are relative to the droplet.
struct Libraries {
    /// By file.
    needed: BTreeMap<String, Vec<String>>,
    /// File and library that is nowhere.
    missing: Vec<(String, String)>,
    /// Files by the name under which they are needed.
    providers: BTreeMap<String, Vec<String>>,
}

/// Needed libraries by file, relative to the droplet.
///
/// # Errors
/// When one is missing that will be missed, or a layer's list cannot be read.
pub(super) fn check(
    request: &BuildRequest,
    plan: &BuildPlan,
    runner: &Runner,
    commands: &[&str],
) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let hidden = build_only_paths(Path::new(LAYER_PATHS_DIRECTORY), plan)?;
    let allowed = std::env::var(ALLOWED).unwrap_or_default();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    let places = |library: &str| SYSTEM.map(|directory| Path::new(directory).join(library));
    let on_system = |library: &str| places(library).iter().any(|path| !hidden.contains(path) && path.exists());
    let of_tools = |library: &str| places(library).iter().any(|path| hidden.contains(path));
    let found = resolve(request.paths.home(), &["app", "deps"], &on_system, &allowed);
    if found.missing.is_empty() {
        return Ok(found.needed);
    }
    let own = started(&found, &request.paths.app, commands);
    let (surely, perhaps): (Vec<_>, Vec<_>) =
        found.missing.into_iter().partition(|(file, library)| own.contains(file) || of_tools(library));
    if !surely.is_empty() && !has_foreign(request, plan) {
        return Err(Problem::MissingLibrary { missing: surely });
    }
    runner.headline("Libraries are missing at run time; what needs them will not start:");
    let all: Vec<_> = surely.into_iter().chain(perhaps).collect();
    for (file, library) in all.iter().take(MAX_REPORTED) {
        runner.detail(&format!("{file} needs {library}"));
    }
    if let Some(more @ 1..) = all.len().checked_sub(MAX_REPORTED) {
        runner.detail(&format!("and {more} more"));
    }
    Ok(found.needed)
}

/// Files of the droplet that start commands name, with those that they load.
fn started(found: &Libraries, app: &Path, commands: &[&str]) -> BTreeSet<String> {
    let within = |word: &str| {
        let word = ["$HOME/", "${HOME}/"].iter().find_map(|home| word.strip_prefix(home)).unwrap_or(word);
        let path = Path::new(word).strip_prefix(app).ok().and_then(Path::to_str).unwrap_or(word);
        format!("app/{}", plain(path))
    };
    let words = commands.iter().flat_map(|command| command.split(['&', '|', ';', '\n']));
    let programs = words.filter_map(|part| part.split_whitespace().find(|word| *word != "exec" && !word.contains('=')));
    let mut open: Vec<String> = programs.map(|word| within(word.trim_matches(['"', '\'']))).collect();
    let mut all = BTreeSet::new();
    while let Some(file) = open.pop() {
        if let Some(needed) = found.needed.get(&file).filter(|_| all.insert(file.clone())) {
            open.extend(needed.iter().filter_map(|library| found.providers.get(library)).flatten().cloned());
        }
    }
    all
}

/// Whether a buildpack that is not the platform's own takes part.
fn has_foreign(request: &BuildRequest, plan: &BuildPlan) -> bool {
    plan.buildpacks
        .iter()
        .any(|planned| request.buildpacks.get(planned.index).is_none_or(|buildpack| buildpack.builtin.is_none()))
}

/// Paths of the layers that will not be there at run time.
fn build_only_paths(lists: &Path, plan: &BuildPlan) -> Result<HashSet<PathBuf>, Problem> {
    let mut paths = HashSet::new();
    for layer in plan.layers.iter().filter(|layer| layer.build_only) {
        let list = lists.join(format!("{}.paths", layer.line));
        let text = fs::read_to_string(&list).map_err(|error| {
            platform(&format!("the path list {} of layer {} could not be read", list.display(), layer.line), error)
        })?;
        paths.extend(text.lines().map(PathBuf::from));
    }
    Ok(paths)
}

fn resolve(home: &Path, directories: &[&str], on_system: &dyn Fn(&str) -> bool, allowed: &[&str]) -> Libraries {
    let mut found: BTreeMap<String, Dynamic> = BTreeMap::new();
    let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in directories.iter().flat_map(|directory| WalkDir::new(home.join(directory)).follow_links(false)) {
        // A directory that an app has made unreadable is not a reason to fail: packing will say so.
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_symlink() && name.contains(".so") {
            own.entry(name).or_default();
        } else if entry.file_type().is_file()
            && let Ok(Some(dynamic)) = elf::dynamic(entry.path())
        {
            let path = entry.path().strip_prefix(home).unwrap_or(entry.path()).to_string_lossy().into_owned();
            for name in dynamic.soname.iter().chain([&name]) {
                own.entry(name.clone()).or_default().push(path.clone());
            }
            found.insert(path, dynamic);
        }
    }
    let mut missing = Vec::new();
    let mut needed = BTreeMap::new();
    for (path, dynamic) in found {
        if is_foreign(&dynamic) {
            continue;
        }
        for library in &dynamic.needed {
            // A library inside the droplet counts wherever it is: RPATH, wrapper scripts and dlopen all lead to it.
            if !own.contains_key(library) && !on_system(library) && !allowed.contains(&library.as_str()) {
                missing.push((path.clone(), library.clone()));
            }
        }
        needed.insert(path, dynamic.needed);
    }
    Libraries { needed, missing, providers: own }
}

/// Made for another C library (musl, Android): npm packages bring such variants along and never load them here.
fn is_foreign(dynamic: &Dynamic) -> bool {
    dynamic.interpreter.as_deref().is_some_and(|loader| loader.contains("ld-musl") || loader.contains("linker64"))
        || dynamic.needed.iter().any(|library| library.starts_with("libc.musl") || library == "libc.so")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipway_buildpacks::contract::{BuildLimits, BuildPaths, BuildpackRequest, PlannedBuildpack, PlannedLayer};

    use super::*;

    #[test]
    fn a_missing_library_is_named_with_its_file() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("app/bin")).unwrap();
        fs::copy("/bin/sh", home.path().join("app/bin/tool")).unwrap();
        fs::write(home.path().join("app/readme"), "no program").unwrap();
        let all = resolve(home.path(), &["app", "deps"], &|_| true, &[]);
        assert_eq!((&all.needed["app/bin/tool"][..], &all.missing[..]), (&["libc.so.6".to_owned()][..], &[][..]));
        let missing = |allowed| resolve(home.path(), &["app"], &|_| false, allowed).missing;
        assert_eq!(missing(&[]), [("app/bin/tool".to_owned(), "libc.so.6".to_owned())]);
        assert!(missing(&["libc.so.6"]).is_empty());
        // Brought along under its own name, it is there.
        fs::copy("/bin/sh", home.path().join("app/libc.so.6")).unwrap();
        assert!(missing(&[]).is_empty());
    }

    /// A program that needs a library which no system has.
    fn program(path: &Path) {
        let mut program = fs::read("/bin/sh").unwrap();
        let name = program.windows(10).position(|window| window == b"libc.so.6\0").unwrap();
        program[name..name + 9].copy_from_slice(b"libz.so.6");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, program).unwrap();
    }

    #[test]
    fn missing_libraries_fail_started_programs_and_are_reported_for_others() {
        let home = tempfile::tempdir().unwrap();
        let paths =
            BuildPaths { app: home.path().join("app"), deps: home.path().join("deps"), ..BuildPaths::default() };
        let app = paths.app.display().to_string();
        program(&paths.app.join("bin/tool"));
        // A program that loads it.
        fs::create_dir_all(paths.app.join("lib")).unwrap();
        fs::copy(paths.app.join("bin/tool"), paths.app.join("lib/libc.so.6")).unwrap();
        fs::copy("/bin/sh", paths.app.join("run")).unwrap();
        let builtin = |builtin: Option<&str>| BuildpackRequest {
            name: "some_buildpack".into(),
            builtin: builtin.map(Into::into),
            ..BuildpackRequest::default()
        };
        let planned = |index| PlannedBuildpack { name: "some_buildpack".into(), index, detect_output: String::new() };
        let request = BuildRequest {
            stack: "debian12".into(),
            env: BTreeMap::new(),
            skip_detect: false,
            buildpacks: vec![builtin(Some("nodejs")), builtin(None)],
            catalogue: Vec::new(),
            command: None,
            paths,
            limits: BuildLimits::default(),
        };
        let runner = Runner::new(Duration::from_secs(60), 0);
        let plan = |buildpacks| BuildPlan { buildpacks, ..BuildPlan::default() };
        let check = |command: &str, buildpacks| check(&request, &plan(buildpacks), &runner, &[command]);
        let (direct, loaded) = ("app/bin/tool".to_owned(), "app/lib/libc.so.6".to_owned());
        let library = || "libz.so.6".to_owned();
        for (command, file) in [
            ("./bin/tool --port $PORT", &direct),
            ("A=1 exec bin/tool", &direct),
            ("true && $HOME/bin/tool", &direct),
            (&format!("\"{app}/bin/tool\" x"), &direct),
            ("./run", &loaded),
        ] {
            let Err(Problem::MissingLibrary { missing }) = check(command, vec![planned(0)]) else {
                panic!("{command}")
            };
            assert_eq!(missing, [(file.clone(), library())], "{command}");
            let taken = check(command, vec![planned(0), planned(1)]).unwrap();
            assert_eq!(taken["app/bin/tool"], [library()], "a foreign buildpack's is only told");
        }
        for command in ["npm start", "java -jar bin/tool", "", "./other"] {
            assert_eq!(check(command, vec![planned(0)]).unwrap()["app/bin/tool"], [library()], "{command}");
        }
    }

    #[test]
    fn build_layers_do_not_count() {
        let lists = tempfile::tempdir().unwrap();
        fs::write(lists.path().join("build-debian12.paths"), "/usr/lib/libgomp.so.1\n").unwrap();
        let layer = |line: &str, build_only| PlannedLayer { digest: String::new(), line: line.into(), build_only };
        let plan = BuildPlan {
            layers: vec![layer("cpython-3.11", false), layer("build-debian12", true)],
            ..BuildPlan::default()
        };
        let paths = build_only_paths(lists.path(), &plan).unwrap();
        assert!(paths.contains(Path::new("/usr/lib/libgomp.so.1")) && paths.len() == 1);
        let unlisted = BuildPlan { layers: vec![layer("other", true)], ..BuildPlan::default() };
        assert!(matches!(build_only_paths(lists.path(), &unlisted), Err(Problem::Platform(_))));
    }

    #[test]
    fn variants_for_other_systems_are_left_alone() {
        let needs = |library: &str| Dynamic { needed: vec![library.into()], ..Dynamic::default() };
        assert!(is_foreign(&needs("libc.musl-x86_64.so.1")) && is_foreign(&needs("libc.so")));
        assert!(!is_foreign(&needs("libc.so.6")));
    }
}
