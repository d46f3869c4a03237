//! First phase: the package becomes the app directory, and a plan is made. Runs over the stack alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildPlan, BuildRequest, PACKAGE_FILE};
use slipway_buildpacks::plan::plan;
use slipway_buildpacks::run::Runner;
use slipway_buildpacks::source::Directory;
use slipway_buildpacks::third_party::Foreign;
use slipway_layers::{ArchiveError, Digest, Limits, LinkPolicy, unpack_zip};

use super::platform;

pub(super) fn run(request: &BuildRequest, runner: &Runner) -> Result<BuildPlan, Problem> {
    let app = &request.paths.app;
    // The environment's TMPDIR is below the home, and must be there for the first program that wants it.
    for path in [app.clone(), request.paths.home().join("tmp")] {
        fs::create_dir_all(&path).map_err(|error| platform(&format!("{} could not be made", path.display()), error))?;
    }
    let package = request.paths.input.join(PACKAGE_FILE);
    let unpacked =
        unpack_zip(&package, app, limits(request), LinkPolicy::Inside, None).map_err(|error| match error {
            ArchiveError::Io { .. } | ArchiveError::NoSpace { .. } => {
                platform("the package could not be unpacked", error)
            }
            other => Problem::BadPackage(other.to_string()),
        })?;
    runner.headline(&unpacked_summary(unpacked.entries, unpacked.bytes));
    let mut ask = |index: usize| {
        let directory = foreign(request, index, runner)?;
        let app = staging_path(app);
        Foreign { name: &request.buildpacks[index].name, directory, request, app: &app, runner }.detect()
    };
    let planned = plan(request, &Directory(app.clone()), &mut ask)?;
    for buildpack in &planned.plan.buildpacks {
        let words = if buildpack.detect_output.is_empty() { "as named" } else { &buildpack.detect_output };
        runner.headline(&format!("{}: {words}", buildpack.name));
    }
    for note in &planned.notes {
        runner.detail(note);
    }
    Ok(planned.plan)
}

/// What was unpacked, in words.
fn unpacked_summary(entries: u64, bytes: u64) -> String {
    let files = if entries == 1 { "file" } else { "files" };
    let size = if bytes < 1 << 10 { format!("{bytes} bytes") } else { format!("{} kB", bytes >> 10) };
    format!("Unpacked {entries} {files}, {size}")
}

/// The path under which foreign buildpacks know the app while staging, where the cell shows it there too.
pub(super) fn staging_path(app: &Path) -> PathBuf {
    let usual = Path::new("/tmp/app");
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (fs::symlink_metadata(usual), fs::metadata(app)) {
        (Ok(there), Ok(here)) if same(&there, &here) => usual.to_owned(),
        _ => app.to_owned(),
    }
}

fn limits(request: &BuildRequest) -> Limits {
    Limits { max_bytes: request.limits.max_droplet_bytes, max_entries: request.limits.max_entries }
}

/// The directory of a foreign buildpack, made when it is not there: both phases may run in sandboxes of their own.
pub(super) fn foreign(request: &BuildRequest, index: usize, runner: &Runner) -> Result<PathBuf, Problem> {
    let buildpack = &request.buildpacks[index];
    let source = match (&buildpack.zip, &buildpack.url) {
        (Some(zip), _) => zip.display().to_string(),
        (None, Some(url)) => url.clone(),
        (None, None) => return Err(Problem::UnknownBuildpack(buildpack.name.clone())),
    };
    let key = Digest::of(source.as_bytes()).to_string();
    let target = request.paths.buildpacks.join(&key[..32]);
    if !target.exists() {
        let partial = target.with_extension("part");
        let io = |error| platform("a buildpack could not be placed", error);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(io)?;
        }
        fs::create_dir_all(&request.paths.buildpacks).map_err(io)?;
        match &buildpack.zip {
            Some(zip) => {
                fs::create_dir(&partial).map_err(io)?;
                let path = request.paths.input.join(zip);
                unpack_zip(&path, &partial, limits(request), LinkPolicy::Any, None).map_err(|error| {
                    Problem::NotABuildpack { buildpack: buildpack.name.clone(), detail: error.to_string() }
                })?;
            }
            None => clone(&source, &partial, &buildpack.name, runner)?,
        }
        fs::rename(&partial, &target).map_err(io)?;
    }
    Ok(top(&target))
}

/// Archives of a repository have one directory around everything.
fn top(target: &Path) -> PathBuf {
    if target.join("bin").is_dir() {
        return target.to_owned();
    }
    let mut inner: Vec<PathBuf> =
        fs::read_dir(target).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    match (inner.pop(), inner.is_empty()) {
        (Some(only), true) if only.join("bin").is_dir() => only,
        _ => target.to_owned(),
    }
}

fn clone(url: &str, target: &Path, name: &str, runner: &Runner) -> Result<(), Problem> {
    let (address, branch) = match url.split_once('#') {
        Some((address, branch)) => (address, Some(branch)),
        None => (url, None),
    };
    runner.headline(&format!("Fetching {name}"));
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--depth", "1", "--recurse-submodules"]).env("GIT_TERMINAL_PROMPT", "0");
    if let Some(branch) = branch {
        git.args(["--branch", branch]);
    }
    // `--` ends the options: an address cannot become one.
    git.arg("--").arg(address).arg(target);
    let (status, last) = runner.run(&mut git)?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::NotABuildpack {
        buildpack: name.to_owned(),
        detail: format!("git could not fetch it ({}): {last}", slipway_buildpacks::run::ended(status)),
    })
}

#[cfg(test)]
mod tests {
    use super::unpacked_summary;

    #[test]
    fn small_apps_have_a_size_too() {
        assert_eq!(unpacked_summary(1, 120), "Unpacked 1 file, 120 bytes");
        assert_eq!(unpacked_summary(3, 4096), "Unpacked 3 files, 4 kB");
    }
}
