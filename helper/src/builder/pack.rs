//! Droplet and build cache as archives. Equal content gives an equal droplet: owners and times are fixed.

use std::fs;
use std::path::{Component, Path};

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{BuildRequest, CACHE_FILE, DROPLET_FILE, OutputFile};
use slipway_buildpacks::run::Runner;
use slipway_layers::{MakeError, Owners, PackOptions, Times, pack};

use super::platform;

/// `vcap`.
const OWNER: Owners = Owners::Fixed(2000, 2000);
/// 1980-01-01: what a zip can carry, and what Python's installers are told.
const TIME: Times = Times::Fixed(315_532_800);
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
    let limit = request.limits.max_droplet_bytes;
    let options = PackOptions { owners: OWNER, times: TIME, take: &belongs, skip_special: true, max_bytes: limit };
    archive(request.paths.home(), &request.paths.output, DROPLET_FILE, &options).map_err(|error| match error {
        MakeError::TooLarge { limit } => Problem::DropletTooLarge { limit },
        other => platform("the droplet could not be packed", other),
    })
}

/// A build without a cache is a build: failures are told, not returned.
pub(super) fn cache(request: &BuildRequest, runner: &Runner) -> Option<OutputFile> {
    let mut content = fs::read_dir(&request.paths.cache).ok()?;
    content.next()?.ok()?;
    let options = PackOptions { owners: OWNER, times: TIME, take: &|_| true, skip_special: true, max_bytes: MAX_CACHE };
    match archive(&request.paths.cache, &request.paths.output, CACHE_FILE, &options) {
        Ok(file) => Some(file),
        Err(error) => {
            runner.detail(&format!("The build cache is not kept: {error}"));
            None
        }
    }
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
    use super::*;

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
