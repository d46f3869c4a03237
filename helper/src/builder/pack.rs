//! Droplet and build cache as archives. Equal content gives an equal droplet: owners are fixed, times follow from content.

use std::cell::Cell;
use std::fs;
use std::path::{Component, Path};

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildRequest, CACHE_FILE, DROPLET_FILE, OutputFile};
use slipway_buildpacks::dependency_cache;
use slipway_buildpacks::run::Runner;
use slipway_layers::canonical::FIRST_TIME;
use slipway_layers::{MAX_DROPLET_ENTRIES, MakeError, Owners, PackOptions, Times, pack};

use super::platform;

/// `vcap`.
const OWNER: Owners = Owners::Fixed(2000, 2000);
/// Build tools compare ages: nothing that comes back out of a cache may be newer than something else.
const CACHE_TIME: Times = Times::Fixed(FIRST_TIME);
/// A larger cache costs more to move than it saves.
const MAX_CACHE: u64 = 1 << 30;

/// Whether a path below `/home/vcap` belongs to the droplet.
fn belongs(path: &Path) -> bool {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return true };
    match first.to_str() {
        Some("app" | "deps" | "profile.d") => true,
        Some("slipway.json" | "staging_info.yml") => true,
        // They are there when the app starts, and empty.
        Some("tmp" | "logs") => parts.next().is_none(),
        _ => false,
    }
}

pub(super) fn droplet(request: &BuildRequest) -> Result<OutputFile, Problem> {
    droplet_within(request, MAX_DROPLET_ENTRIES)
}

fn droplet_within(request: &BuildRequest, most: u64) -> Result<OutputFile, Problem> {
    let limit = request.limits.max_droplet_bytes;
    let entries = Cell::new(0);
    let counted = |path: &Path| {
        let taken = belongs(path);
        entries.set(entries.get() + u64::from(taken));
        taken
    };
    // What the app serves must be seen to have changed when it has.
    let options = PackOptions { times: Times::Content, ..options(&counted, limit) };
    let packed = archive(request.paths.home(), &request.paths.output, DROPLET_FILE, &options);
    if entries.get() > most {
        // Whatever else became of it.
        return Err(Problem::DropletTooManyFiles { found: entries.get(), limit: most });
    }
    packed.map_err(|error| match error {
        MakeError::TooLarge { limit } => Problem::DropletTooLarge { limit },
        other => platform("the droplet could not be packed", other),
    })
}

/// A build without a cache is a build: failures are told, not returned.
pub(super) fn cache(request: &BuildRequest, runner: &Runner) -> Option<OutputFile> {
    cache_within(request, runner, MAX_CACHE)
}

fn cache_within(request: &BuildRequest, runner: &Runner, most: u64) -> Option<OutputFile> {
    let mut content = fs::read_dir(&request.paths.cache).ok()?;
    content.next()?.ok()?;
    let without_trees = |path: &Path| !path.file_name().is_some_and(dependency_cache::is_cached_tree);
    let pack = |take: &dyn Fn(&Path) -> bool| {
        archive(&request.paths.cache, &request.paths.output, CACHE_FILE, &options(take, most))
    };
    let packed = match pack(&|_| true) {
        // What was fetched serves the next installation even when the installed tree does not fit in beside it.
        Err(MakeError::TooLarge { .. }) => pack(&without_trees),
        packed => packed,
    };
    match packed {
        Ok(file) => Some(file),
        Err(error) => {
            runner.detail(&format!("The build cache is not kept: {error}"));
            None
        }
    }
}

/// The volume of a build is thrown away when its files have been read: none of them needs to reach the disk.
fn options<'a>(take: &'a dyn Fn(&Path) -> bool, max_bytes: u64) -> PackOptions<'a> {
    PackOptions { owners: OWNER, times: CACHE_TIME, take, skip_special: true, max_bytes, durable: false }
}

fn archive(root: &Path, output: &Path, name: &str, options: &PackOptions<'_>) -> Result<OutputFile, MakeError> {
    let packed = pack(root, &output.join(name), options)?;
    Ok(OutputFile {
        file: name.to_owned(),
        sha256: packed.blob.to_string(),
        size: packed.blob_size,
        unpacked: packed.size,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipway_buildpacks::contract::{BuildLimits, BuildPaths};
    use slipway_layers::{Limits, unpack_droplet};

    use super::*;

    #[test]
    fn a_tree_that_does_not_fit_in_leaves_what_was_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["cache/mine/npm", "out", "all", "less"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("cache/mine/npm/fetched"), vec![1; 1000]).unwrap();
        fs::write(at("cache/mine/installed.tar.zst"), vec![2; 5000]).unwrap();
        fs::write(at("cache/mine/installed.json"), "{}").unwrap();
        let request = BuildRequest {
            stack: "debian12".into(),
            env: Default::default(),
            skip_detect: false,
            buildpacks: vec![],
            catalogue: vec![],
            command: None,
            paths: BuildPaths { cache: at("cache"), output: at("out"), ..BuildPaths::default() },
            limits: BuildLimits::default(),
        };
        let runner = Runner::new(Duration::from_secs(60), 0);
        for (most, name, is_cached) in [(10_000, "all", true), (2_000, "less", false)] {
            let file = cache_within(&request, &runner, most).unwrap().file;
            unpack_droplet(&at("out").join(file), "tar.zst", &at(name), Limits::default(), None).unwrap();
            assert!(at(name).join("mine/npm/fetched").exists());
            for part in ["mine/installed.tar.zst", "mine/installed.json"] {
                assert_eq!(at(name).join(part).exists(), is_cached, "{name}/{part}");
            }
        }
        assert!(cache_within(&request, &runner, 500).is_none(), "no cache is better than one without end");
    }

    #[test]
    fn a_droplet_of_too_many_files_is_refused_with_the_figures() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["home/app", "home/other", "out"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for number in 0..9 {
            fs::write(at("home/app").join(number.to_string()), "").unwrap();
            fs::write(at("home/other").join(number.to_string()), "").unwrap();
        }
        let request = BuildRequest {
            stack: "debian12".into(),
            env: Default::default(),
            skip_detect: false,
            buildpacks: vec![],
            catalogue: vec![],
            command: None,
            paths: BuildPaths { app: at("home/app"), output: at("out"), ..BuildPaths::default() },
            limits: BuildLimits::default(),
        };
        assert_eq!(request.paths.home(), at("home"));
        // Ten: the directory, and its files; what does not belong to a droplet is not counted.
        droplet_within(&request, 10).unwrap();
        let text = droplet_within(&request, 9).unwrap_err().to_error().text;
        assert!(text.contains("10 files and directories") && text.contains("may have 9"), "{text}");
    }

    #[test]
    fn a_droplet_is_cloud_foundrys_directories_and_nothing_else() {
        for yes in
            ["app", "app/.git/x", "deps/0/bin", "profile.d/a.sh", "tmp", "logs", "slipway.json", "staging_info.yml"]
        {
            assert!(belongs(Path::new(yes)), "{yes}");
        }
        for no in ["tmp/x", "logs/y", ".cache", ".npm/z", "other"] {
            assert!(!belongs(Path::new(no)), "{no}");
        }
    }
}
