//! Builds with package managers that write down how they were called. The cache outlives each build, everything else is
//! new, as in a sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Builtin, Workspace};
use crate::contract::{BuildLimits, BuildPaths, BuildRequest, BuildpackRequest, CatalogueLayer, ProcessType};
use crate::errors::Problem;
use crate::run::Runner;
use crate::source::Directory;

pub(super) struct Builds {
    directory: tempfile::TempDir,
    builtin: Builtin,
    pub(super) request: BuildRequest,
    /// The files of the app.
    pub(super) app: BTreeMap<&'static str, String>,
    /// The app's variables.
    pub(super) env: BTreeMap<&'static str, &'static str>,
}

/// A request for one built-in buildpack, with a layer of each runtime.
pub(super) fn request(builtin: &str) -> BuildRequest {
    let layer = |name: &str, line: &str, version: &str| CatalogueLayer {
        digest: format!("digest-of-{line}"),
        kind: "runtime".into(),
        name: name.into(),
        line: line.into(),
        version: version.into(),
    };
    BuildRequest {
        stack: "debian12".into(),
        env: BTreeMap::new(),
        skip_detect: false,
        buildpacks: vec![BuildpackRequest {
            name: format!("{builtin}_buildpack"),
            builtin: Some(builtin.into()),
            ..BuildpackRequest::default()
        }],
        catalogue: vec![
            layer("node", "node-22", "22.1.0"),
            layer("python", "cpython-3.11", "3.11.2"),
            layer("nginx", "nginx-1.22", "1.22.1"),
        ],
        command: None,
        paths: BuildPaths::default(),
        limits: BuildLimits::default(),
    }
}

impl Builds {
    /// `programs` are shell scripts by name; `$LOG` in them is the file that [`Builds::run`] gives back.
    pub(super) fn new(builtin: Builtin, app: &[(&'static str, &str)], programs: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("bin")).unwrap();
        for (name, script) in programs {
            let script = format!("#!/bin/sh\nset -e\nLOG={}\n{script}\n", at("log").display());
            fs::write(at("bin").join(name), script).unwrap();
            fs::set_permissions(at("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let request = BuildRequest {
            paths: BuildPaths {
                app: at("home/app"),
                deps: at("home/deps"),
                cache: at("cache"),
                input: at("in"),
                output: at("out"),
                buildpacks: at("buildpacks"),
            },
            ..request(builtin.key())
        };
        let app = app.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Self { directory, builtin, request, app, env: BTreeMap::new() }
    }

    /// Changes a file of the app.
    pub(super) fn file(&mut self, name: &'static str, text: &str) {
        self.app.insert(name, text.to_owned());
    }

    /// Changes a variable of the app.
    pub(super) fn variable(&mut self, name: &'static str, value: &'static str) {
        self.env.insert(name, value);
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Stages a fresh copy of the app; how the package managers were called, a line each.
    pub(super) fn run(&self) -> Vec<String> {
        self.stage().unwrap();
        self.calls()
    }

    /// As [`Builds::run`], with what the build says.
    pub(super) fn stage(&self) -> Result<Vec<ProcessType>, Problem> {
        let remove = |path: PathBuf| {
            if path.exists() {
                fs::remove_dir_all(path).unwrap()
            }
        };
        remove(self.at("home"));
        fs::write(self.at("log"), "").unwrap();
        for directory in ["home/app", "home/deps/0", "home/tmp", "cache/mine"] {
            fs::create_dir_all(self.at(directory)).unwrap();
        }
        for (name, text) in &self.app {
            let path = self.at("home/app").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let runner = Runner::new(Duration::from_secs(600), 1 << 20);
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        let env = BTreeMap::from([("PATH".into(), path.into())]);
        let own = self.env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let work = Workspace {
            request: &self.request,
            app: &self.request.paths.app,
            deps: self.at("home/deps/0"),
            cache: self.at("cache/mine"),
            runner: &runner,
            own,
            env,
            last: true,
        };
        self.builtin.build(&work, &Directory(self.at("home/app")))
    }

    pub(super) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.at("log")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Names and content of everything below a directory of the build.
    pub(super) fn tree(&self, directory: &str) -> BTreeMap<PathBuf, String> {
        let root = self.at(directory);
        walkdir::WalkDir::new(&root)
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let content = match entry.file_type() {
                    kind if kind.is_file() => fs::read_to_string(entry.path()).unwrap(),
                    kind if kind.is_symlink() => format!("-> {}", fs::read_link(entry.path()).unwrap().display()),
                    _ => "/".to_owned(),
                };
                (entry.path().strip_prefix(&root).unwrap_or(Path::new("")).to_owned(), content)
            })
            .collect()
    }
}
