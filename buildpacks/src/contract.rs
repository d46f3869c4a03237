//! What the cell and the builder inside the sandbox say to each other: files in two directories of the staging volume.
//!
//! The cell writes `in/request.json` (and beside it `in/package.zip`, `in/cache.tar.zst` and `in/buildpacks/N.zip`), runs
//! `builder detect` over the stack alone, reads `out/plan.json`, mounts the layers that the plan names, runs
//! `builder build`, and reads `out/result.json`, `out/droplet.tar.zst` and `out/cache.tar.zst`. Both phases run as `vcap`
//! with the same volume; the program's own environment is the app's environment, so that no secret is in a file.
//!
//! The builder shares its sandbox with foreign code, so what it answers is a *claim*: the cell must take layers only from
//! the catalogue that it sent, and hash the files itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::start::StartHint;

/// Name of the request inside the input directory.
pub const REQUEST_FILE: &str = "request.json";
/// Name of the app's package inside the input directory.
pub const PACKAGE_FILE: &str = "package.zip";
/// Name of the build cache: in the input directory what the last build left, in the output directory the new one.
pub const CACHE_FILE: &str = "cache.tar.zst";
/// Name of the answer of `builder detect` inside the output directory.
pub const PLAN_FILE: &str = "plan.json";
/// Name of the answer of `builder build` inside the output directory.
pub const RESULT_FILE: &str = "result.json";
/// Exit status of a builder that could not write its answer because the build's disk is full: no file can say so.
pub const EXIT_NO_SPACE: i32 = 71;
/// Name of the droplet inside the output directory.
pub const DROPLET_FILE: &str = "droplet.tar.zst";
/// Directory in which every layer keeps the list of its own paths, as `<line>.paths`: absolute, one a line, sorted.
pub const LAYER_PATHS_DIRECTORY: &str = "/usr/share/slipway/layers";

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// Name of the stack as asked for; becomes `CF_STACK`.
    pub stack: String,
    /// Further variables that are no secrets, such as the settings of package registries. The app's own variables come as
    /// the environment of the builder.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The developer named the buildpacks: no detection.
    #[serde(default)]
    pub skip_detect: bool,
    /// In the order of detection, or as named by the developer: all but the last supply, the last one finalizes.
    pub buildpacks: Vec<BuildpackRequest>,
    /// Runtime and build layers that may be mounted.
    #[serde(default)]
    pub catalogue: Vec<CatalogueLayer>,
    /// Start command of the app's `web` process when the manifest has one; a buildpack without a default then accepts.
    #[serde(default)]
    pub command: Option<String>,
    /// Where things are; the default is right in every sandbox.
    #[serde(default)]
    pub paths: BuildPaths,
    /// What it may take.
    #[serde(default)]
    pub limits: BuildLimits,
}

/// One buildpack of a request: exactly one of `builtin`, `zip` and `url` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildpackRequest {
    /// `nodejs_buildpack`; for people and for `staging_info.yml`.
    pub name: String,
    /// `staticfile`, `binary`, `nodejs`, `python`.
    #[serde(default)]
    pub builtin: Option<String>,
    /// An uploaded buildpack: file name below the input directory, e.g. `buildpacks/0.zip`.
    #[serde(default)]
    pub zip: Option<PathBuf>,
    /// A git address, optionally with `#branch`.
    #[serde(default)]
    pub url: Option<String>,
}

/// A layer that may be mounted after detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueLayer {
    /// Identity, in hexadecimal.
    pub digest: String,
    /// `runtime` or `build`.
    pub kind: String,
    /// `node`, `python`, `nginx`, `build`.
    pub name: String,
    /// `node-22`, `cpython-3.11`.
    pub line: String,
    /// `22.11.0`.
    pub version: String,
}

/// Directories and their meaning inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildPaths {
    /// The app, also while it is built: scripts carry this path.
    pub app: PathBuf,
    /// One directory per buildpack.
    pub deps: PathBuf,
    /// Kept from build to build.
    pub cache: PathBuf,
    /// Request, package, buildpacks.
    pub input: PathBuf,
    /// Plan, result, droplet.
    pub output: PathBuf,
    /// Where foreign buildpacks are unpacked.
    pub buildpacks: PathBuf,
}

impl Default for BuildPaths {
    fn default() -> Self {
        Self {
            app: "/home/vcap/app".into(),
            deps: "/home/vcap/deps".into(),
            cache: "/tmp/cache".into(),
            input: "/slipway/in".into(),
            output: "/slipway/out".into(),
            buildpacks: "/tmp/buildpacks".into(),
        }
    }
}

impl BuildPaths {
    /// The directory that holds app and deps: `/home/vcap`, whose content is the droplet.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.app.parent().unwrap_or(Path::new("/"))
    }
}

/// Bounds of one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildLimits {
    /// Bytes of the unpacked package and of the unpacked droplet.
    pub max_droplet_bytes: u64,
    /// Milliseconds for each phase.
    pub timeout_ms: u64,
    /// Bytes of output that are passed on; what follows is cut, with a notice.
    pub max_output_bytes: u64,
    /// Entries of the package.
    pub max_entries: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self { max_droplet_bytes: 4 << 30, timeout_ms: 900_000, max_output_bytes: 64 << 20, max_entries: 1_000_000 }
    }
}

/// Why a build came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildError {
    /// Cloud Foundry's name: `NoAppDetectedError`, `BuildpackCompileFailed`, `BuildpackReleaseFailed`, `StagingError`,
    /// `StagingTimeExpired`, `NoCompatibleCell`.
    pub id: String,
    /// What happened and what to do.
    pub text: String,
}

/// Answer of `builder detect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// The buildpacks that will run, in order.
    pub buildpacks: Vec<PlannedBuildpack>,
    /// To be mounted over the stack, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// What seems to start the app, when nobody says it.
    #[serde(default)]
    pub start: Option<StartHint>,
    /// Set when there is nothing to go on with; the build has failed.
    #[serde(default)]
    pub error: Option<BuildError>,
}

/// One buildpack of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBuildpack {
    /// As in the request.
    pub name: String,
    /// Position in the request's list.
    pub index: usize,
    /// What detection said, e.g. `nodejs 22`.
    #[serde(default)]
    pub detect_output: String,
}

/// One layer of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// Identity, in hexadecimal; one of the catalogue's.
    pub digest: String,
    /// Its line.
    pub line: String,
    /// Mounted while building only; the droplet does not need it.
    pub build_only: bool,
}

/// Answer of `builder build`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutcome {
    /// A droplet was made.
    pub ok: bool,
    /// Why not.
    #[serde(default)]
    pub error: Option<BuildError>,
    /// In order: `web` first when there is one.
    #[serde(default)]
    pub process_types: Vec<ProcessType>,
    /// The buildpacks that ran, in order.
    #[serde(default)]
    pub buildpacks: Vec<UsedBuildpack>,
    /// Digests of the runtime layers that the droplet needs, lowest first; neither stack nor build layers.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Libraries that each ELF file of the droplet needs, by path relative to the droplet.
    #[serde(default)]
    pub sonames: BTreeMap<String, Vec<String>>,
    /// The droplet.
    #[serde(default)]
    pub droplet: Option<OutputFile>,
    /// The build cache, if there is a new one; without, that of the last build stays the app's.
    #[serde(default)]
    pub cache: Option<OutputFile>,
    /// How long the steps took.
    #[serde(default)]
    pub timings: BuildTimings,
}

/// A process type and its command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessType {
    /// `web`, `worker`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As the launcher's shell runs it.
    pub command: String,
}

/// A buildpack that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedBuildpack {
    /// As in the request.
    pub name: String,
    /// As detection said.
    pub detect_output: String,
    /// Its own name, as it tells.
    pub buildpack_name: String,
    /// Its own version, as it tells.
    pub version: String,
}

/// A file in the output directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Name below the output directory.
    pub file: String,
    /// SHA-256 of the bytes of the file, in hexadecimal.
    pub sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes once unpacked.
    pub unpacked: u64,
}

/// Milliseconds of the steps of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildTimings {
    /// Taking the build cache out of its archive.
    pub cache_ms: u64,
    /// Supply and finalize of all buildpacks.
    pub compile_ms: u64,
    /// Checking the needed libraries.
    pub check_ms: u64,
    /// Packing droplet and cache.
    pub pack_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_optional_fields_gets_the_defaults() {
        let request: BuildRequest = serde_json::from_str(
            r#"{"stack":"debian12","buildpacks":[{"name":"nodejs_buildpack","builtin":"nodejs"}]}"#,
        )
        .unwrap();
        assert_eq!(request.paths.home(), Path::new("/home/vcap"));
        assert_eq!(request.limits.timeout_ms, 900_000);
        assert!(!request.skip_detect && request.catalogue.is_empty());
    }

    #[test]
    fn plans_and_results_are_read_back_as_written() {
        let outcome = BuildOutcome {
            process_types: vec![ProcessType { kind: "web".into(), command: "./server".into() }],
            ..BuildOutcome::default()
        };
        let text = serde_json::to_string(&outcome).unwrap();
        assert!(text.contains(r#""type":"web""#));
        assert_eq!(serde_json::from_str::<BuildOutcome>(&text).unwrap(), outcome);
    }
}
