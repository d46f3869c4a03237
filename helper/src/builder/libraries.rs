//! Every library that the droplet needs must be there when the app runs.
//!
//! The build layer hides the mistake: what was linked against its libraries runs while staging and not afterwards. So each
//! needed name of each ELF file is looked for in the droplet and in the stack and runtime layers, without the paths of
//! layers that are mounted while building only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildPlan, BuildRequest, LAYER_PATHS_DIRECTORY};
use slipway_layers::elf::{self, Dynamic};
use walkdir::WalkDir;

use super::platform;

/// Where the loader looks, in the spelling without links that the lists of paths use.
const SYSTEM: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
/// Libraries that the developer says are never loaded.
const ALLOWED: &str = "SLIPWAY_ALLOW_MISSING_LIBRARIES";

/// Needed libraries by file, relative to the droplet.
pub(super) fn check(request: &BuildRequest, plan: &BuildPlan) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let hidden = build_only_paths(Path::new(LAYER_PATHS_DIRECTORY), plan)?;
    let allowed = std::env::var(ALLOWED).unwrap_or_default();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    let on_system = |library: &str| {
        SYSTEM.iter().any(|directory| {
            let path = Path::new(directory).join(library);
            !hidden.contains(&path) && path.exists()
        })
    };
    resolve(request.paths.home(), &["app", "deps"], &on_system, &allowed)
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

fn resolve(
    home: &Path,
    directories: &[&str],
    on_system: &dyn Fn(&str) -> bool,
    allowed: &[&str],
) -> Result<BTreeMap<String, Vec<String>>, Problem> {
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
    if missing.is_empty() { Ok(needed) } else { Err(Problem::MissingLibrary { missing }) }
}

/// Made for another C library (musl, Android): npm packages bring such variants along and never load them here.
fn is_foreign(dynamic: &Dynamic) -> bool {
    dynamic.interpreter.as_deref().is_some_and(|loader| loader.contains("ld-musl") || loader.contains("linker64"))
        || dynamic.needed.iter().any(|library| library.starts_with("libc.musl") || library == "libc.so")
}

#[cfg(test)]
mod tests {
    use slipway_buildpacks::contract::PlannedLayer;

    use super::*;

    #[test]
    fn a_missing_library_is_named_with_its_file() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("app/bin")).unwrap();
        fs::copy("/bin/sh", home.path().join("app/bin/tool")).unwrap();
        fs::write(home.path().join("app/readme"), "no program").unwrap();
        let needed = resolve(home.path(), &["app", "deps"], &|_| true, &[]).unwrap();
        assert_eq!(needed["app/bin/tool"], ["libc.so.6"]);
        let Err(Problem::MissingLibrary { missing }) = resolve(home.path(), &["app"], &|_| false, &[]) else {
            panic!()
        };
        assert_eq!(missing, [("app/bin/tool".to_owned(), "libc.so.6".to_owned())]);
        assert!(resolve(home.path(), &["app"], &|_| false, &["libc.so.6"]).is_ok());
        // Brought along under its own name, it is there.
        fs::copy("/bin/sh", home.path().join("app/libc.so.6")).unwrap();
        assert!(resolve(home.path(), &["app"], &|_| false, &[]).is_ok());
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
