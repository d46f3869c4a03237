//! Foreign Cloud Foundry buildpacks: `bin/detect`, `bin/supply`, `bin/finalize` (or `bin/compile`), `bin/release`, as they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::contract::{BuildRequest, ProcessType};
use crate::errors::Problem;
use crate::run::{Runner, ended};

/// A foreign buildpack, unpacked.
#[derive(Debug)]
pub struct Foreign<'a> {
    /// As in the request.
    pub name: &'a str,
    /// Where it is.
    pub directory: PathBuf,
    /// The request.
    pub request: &'a BuildRequest,
    /// Where the app is built.
    pub app: &'a Path,
    /// Runs its scripts.
    pub runner: &'a Runner,
}

/// `bin/release` and `launch.yml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Release {
    #[serde(deserialize_with = "null_is_default")]
    default_process_types: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Launch {
    processes: Vec<ProcessType>,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Foreign<'_> {
    fn script(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }

    fn has(&self, name: &str) -> bool {
        fs::metadata(self.script(name)).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    }

    fn command(&self, script: &str, arguments: &[&Path]) -> Command {
        let mut command = Command::new(self.script(script));
        command.args(arguments).current_dir(self.app).envs(&self.request.env).env("CF_STACK", &self.request.stack);
        command
    }

    /// A script that cannot be run at all is the buildpack's fault: it was seen to be there and executable.
    fn unrunnable(&self, script: &str, problem: Problem) -> Problem {
        match problem {
            Problem::Platform(detail) => {
                self.not_one(&format!("bin/{script} cannot be run; check its interpreter ({detail})"))
            }
            other => other,
        }
    }

    fn run(&self, script: &'static str, arguments: &[&Path]) -> Result<(), Problem> {
        let (status, reason) = self
            .runner
            .run(&mut self.command(script, arguments))
            .map_err(|problem| self.unrunnable(script, problem))?;
        if status.success() { Ok(()) } else { Err(self.failed(script, status, reason)) }
    }

    fn capture(&self, script: &str) -> Result<(std::process::ExitStatus, String, String), Problem> {
        self.runner.capture(&mut self.command(script, &[self.app])).map_err(|problem| self.unrunnable(script, problem))
    }

    fn not_one(&self, detail: &str) -> Problem {
        Problem::NotABuildpack { buildpack: self.name.to_owned(), detail: detail.to_owned() }
    }

    fn failed(&self, script: &'static str, status: std::process::ExitStatus, reason: String) -> Problem {
        Problem::ScriptFailed { buildpack: self.name.to_owned(), script, status: ended(status), reason }
    }

    /// What `bin/detect` says, when it accepts the app.
    ///
    /// # Errors
    /// When there is no such script or it cannot be run; a refusal is `None`.
    pub fn detect(&self) -> Result<Option<String>, Problem> {
        if !self.has("detect") {
            return Err(self.not_one("bin/detect is missing or not executable"));
        }
        let (status, text, _) = self.capture("detect")?;
        Ok(status.success().then(|| text.trim().chars().take(200).collect()))
    }

    /// `bin/supply`; `last` says that it finalizes as well, and then a missing script is no error.
    ///
    /// # Errors
    /// When it fails.
    pub fn supply(&self, cache: &Path, deps: &Path, index: usize, last: bool) -> Result<(), Problem> {
        if !self.has("supply") {
            return if last {
                Ok(())
            } else {
                Err(self.not_one("bin/supply is missing, so it can only be the last one"))
            };
        }
        let index = PathBuf::from(index.to_string());
        self.run("supply", &[self.app, cache, deps, &index])
    }

    /// `bin/finalize`, or `bin/compile` of an older buildpack.
    ///
    /// # Errors
    /// When it fails or there is neither.
    pub fn finalize(&self, cache: &Path, deps: &Path, index: usize, profile: &Path) -> Result<(), Problem> {
        let index = PathBuf::from(index.to_string());
        if self.has("finalize") {
            self.run("finalize", &[self.app, cache, deps, &index, profile])
        } else if self.has("compile") {
            self.run("compile", &[self.app, cache])
        } else {
            Err(self.not_one("it has neither bin/finalize nor bin/compile"))
        }
    }

    /// Process types of `bin/release`, with those of `launch.yml` over them.
    ///
    /// # Errors
    /// When `bin/release` fails or prints something else.
    pub fn release(&self, deps: &Path, index: usize) -> Result<Vec<ProcessType>, Problem> {
        let mut types = Vec::new();
        if self.has("release") {
            let (status, text, reason) = self.capture("release")?;
            if !status.success() {
                return Err(self.failed("release", status, reason));
            }
            let release: Option<Release> = serde_norway::from_str(&text).map_err(|error| Problem::BadFile {
                file: format!("the output of bin/release of {}", self.name),
                detail: error.to_string(),
            })?;
            types.extend(
                release
                    .unwrap_or_default()
                    .default_process_types
                    .into_iter()
                    .map(|(kind, command)| ProcessType { kind, command }),
            );
        }
        let launch = deps.join(index.to_string()).join("launch.yml");
        if let Ok(text) = fs::read_to_string(&launch) {
            let launch: Option<Launch> = serde_norway::from_str(&text)
                .map_err(|error| Problem::BadFile { file: "launch.yml".into(), detail: error.to_string() })?;
            types = crate::procfile::merge(types, launch.unwrap_or_default().processes);
        }
        Ok(types)
    }

    /// Name and version as the buildpack tells: its `VERSION` file, and `config.yml` in its deps directory.
    #[must_use]
    pub fn identity(&self, deps: &Path, index: usize) -> (String, String) {
        #[derive(Deserialize)]
        struct Config {
            name: Option<String>,
            version: Option<String>,
        }
        let config = fs::read_to_string(deps.join(index.to_string()).join("config.yml"))
            .ok()
            .and_then(|text| serde_norway::from_str::<Config>(&text).ok());
        let version = fs::read_to_string(self.directory.join("VERSION")).map(|text| text.trim().to_owned());
        let (name, own_version) = config.map_or((None, None), |config| (config.name, config.version));
        (name.unwrap_or_default(), own_version.or(version.ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract::{BuildLimits, BuildPaths};

    struct Fixture {
        directory: tempfile::TempDir,
        request: BuildRequest,
        runner: Runner,
    }

    impl Fixture {
        fn new(scripts: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for path in ["pack/bin", "app", "deps/0", "cache", "profile.d"] {
                fs::create_dir_all(directory.path().join(path)).unwrap();
            }
            for (name, text) in scripts {
                let path = directory.path().join("pack/bin").join(name);
                fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let request = BuildRequest {
                stack: "cflinuxfs4".into(),
                env: BTreeMap::new(),
                skip_detect: false,
                buildpacks: vec![],
                catalogue: vec![],
                command: None,
                paths: BuildPaths::default(),
                limits: BuildLimits::default(),
            };
            Self { directory, request, runner: Runner::new(Duration::from_secs(60), 1 << 20) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    macro_rules! foreign {
        ($fixture:ident, $app:ident) => {
            Foreign {
                name: "mine",
                directory: $fixture.path("pack"),
                request: &$fixture.request,
                app: &$app,
                runner: &$fixture.runner,
            }
        };
    }

    #[test]
    fn scripts_get_cloud_foundrys_arguments() {
        let fixture = Fixture::new(&[
            ("detect", "[ -d \"$1\" ] && echo 'mine 1'"),
            ("supply", "echo \"$# $CF_STACK\" > $3/$4/supply"),
            ("finalize", "echo $# > $3/$4/finalize; echo 'export A=1' > $5/a.sh"),
            ("release", "printf -- '---\\ndefault_process_types:\\n  web: ./run\\n  worker: ./work\\n'"),
        ]);
        let app = fixture.path("app");
        let pack = foreign!(fixture, app);
        let (cache, deps, profile) = (fixture.path("cache"), fixture.path("deps"), fixture.path("profile.d"));
        assert_eq!(pack.detect().unwrap().as_deref(), Some("mine 1"));
        pack.supply(&cache, &deps, 0, true).unwrap();
        pack.finalize(&cache, &deps, 0, &profile).unwrap();
        assert_eq!(fs::read_to_string(deps.join("0/supply")).unwrap(), "4 cflinuxfs4\n");
        assert_eq!(fs::read_to_string(deps.join("0/finalize")).unwrap(), "5\n");
        assert!(profile.join("a.sh").exists());
        fs::write(deps.join("0/launch.yml"), "processes:\n- type: web\n  command: ./better\n").unwrap();
        let types = pack.release(&deps, 0).unwrap();
        assert_eq!((types[0].kind.as_str(), types[0].command.as_str()), ("web", "./better"));
        assert_eq!(types[1].kind, "worker");
    }

    #[test]
    fn failures_of_buildpacks_are_distinguished() {
        let fixture = Fixture::new(&[("detect", "exit 1"), ("supply", "exit 3"), ("release", "echo '{['")]);
        let app = fixture.path("app");
        let pack = foreign!(fixture, app);
        let (cache, deps) = (fixture.path("cache"), fixture.path("deps"));
        assert_eq!(pack.detect().unwrap(), None);
        assert!(matches!(pack.supply(&cache, &deps, 0, true), Err(Problem::ScriptFailed { script: "supply", .. })));
        assert!(matches!(pack.finalize(&cache, &deps, 0, &cache), Err(Problem::NotABuildpack { .. })));
        assert!(matches!(pack.release(&deps, 0), Err(Problem::BadFile { .. })));
        let script = fixture.path("pack/bin/compile");
        fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let Err(Problem::NotABuildpack { detail, .. }) = pack.finalize(&cache, &deps, 0, &cache) else { panic!() };
        assert!(detail.contains("bin/compile") && detail.contains("interpreter"), "{detail}");
        let empty = Fixture::new(&[]);
        let app = empty.path("app");
        let pack = foreign!(empty, app);
        assert!(matches!(pack.detect(), Err(Problem::NotABuildpack { .. })));
        assert_eq!(pack.release(&deps, 0).unwrap(), []);
    }
}
