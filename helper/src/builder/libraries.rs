//! Every library that the droplet needs must be there when the app runs.
//!
//! The build layer hides the mistake: what was linked against its libraries runs while staging and not afterwards. So each
//! needed name of each ELF file is looked for in the droplet and in the stack and runtime layers, without the paths of
//! layers that are mounted while building only.
//!
//! The platform's own buildpacks promise that what they install runs, so there a missing library fails the build. Foreign ones
//! bring whole runtimes along, with modules that nothing loads: there it is told, and the droplet is as good as on Cloud Foundry.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildPlan, BuildRequest, LAYER_PATHS_DIRECTORY};
use slipway_buildpacks::run::Runner;
use slipway_layers::elf::{self, Dynamic};
use walkdir::WalkDir;

use super::platform;

/// Where the loader looks, in the spelling without links that the lists of paths use.
const SYSTEM: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
/// Libraries that the developer says are never loaded.
const ALLOWED: &str = "SLIPWAY_ALLOW_MISSING_LIBRARIES";

/// What the programs of a droplet need. Files are relative to the droplet.
struct Libraries {
    /// By file.
    needed: BTreeMap<String, Vec<String>>,
    /// File and library that is nowhere.
    missing: Vec<(String, String)>,
}

/// Needed libraries by file, relative to the droplet.
///
/// # Errors
/// When one is missing and the platform's own buildpacks alone made the droplet, or a layer's list cannot be read.
pub(super) fn check(
    request: &BuildRequest,
    plan: &BuildPlan,
    runner: &Runner,
) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let hidden = build_only_paths(Path::new(LAYER_PATHS_DIRECTORY), plan)?;
    let allowed = std::env::var(ALLOWED).unwrap_or_default();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    let on_system = |library: &str| {
        SYSTEM.iter().any(|directory| {
            let path = Path::new(directory).join(library);
            !hidden.contains(&path) && path.exists()
        })
    };
    let Libraries { needed, missing } = resolve(request.paths.home(), &["app", "deps"], &on_system, &allowed);
    if missing.is_empty() {
        return Ok(needed);
    }
    if !has_foreign(request, plan) {
        return Err(Problem::MissingLibrary { missing });
    }
    runner.headline("Libraries are missing at run time; what needs them will not start:");
    for (file, library) in &missing {
        runner.detail(&format!("{file} needs {library}"));
    }
    Ok(needed)
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
    let mut own: BTreeSet<String> = BTreeSet::new();
    for entry in directories.iter().flat_map(|directory| WalkDir::new(home.join(directory)).follow_links(false)) {
        // A directory that an app has made unreadable is not a reason to fail: packing will say so.
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_symlink() && name.contains(".so") {
            own.insert(name);
        } else if entry.file_type().is_file()
            && let Ok(Some(dynamic)) = elf::dynamic(entry.path())
        {
            own.extend(dynamic.soname.clone());
            own.insert(name);
            let path = entry.path().strip_prefix(home).unwrap_or(entry.path());
            found.insert(path.to_string_lossy().into_owned(), dynamic);
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
            if !own.contains(library) && !on_system(library) && !allowed.contains(&library.as_str()) {
                missing.push((path.clone(), library.clone()));
            }
        }
        needed.insert(path, dynamic.needed);
    }
    Libraries { needed, missing }
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

    #[test]
    fn a_foreign_buildpack_is_warned_and_a_built_in_one_refused() {
        let home = tempfile::tempdir().unwrap();
        let paths =
            BuildPaths { app: home.path().join("app"), deps: home.path().join("deps"), ..BuildPaths::default() };
        fs::create_dir_all(&paths.app).unwrap();
        // A program whose library no system has.
        let mut program = fs::read("/bin/sh").unwrap();
        let name = program.windows(10).position(|window| window == b"libc.so.6\0").unwrap();
        program[name..name + 9].copy_from_slice(b"libz.so.6");
        fs::write(paths.app.join("tool"), program).unwrap();
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
        let Err(Problem::MissingLibrary { missing }) = check(&request, &plan(vec![planned(0)]), &runner) else {
            panic!()
        };
        assert_eq!(missing, [("app/tool".to_owned(), "libz.so.6".to_owned())]);
        let taken = check(&request, &plan(vec![planned(0), planned(1)]), &runner).unwrap();
        assert_eq!(taken["app/tool"], ["libz.so.6"]);
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
