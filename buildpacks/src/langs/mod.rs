//! The built-in buildpacks. They build at the final paths and take their runtimes from layers.

mod binary;
mod nodejs;
mod python;
mod staticfile;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contract::{BuildRequest, CatalogueLayer, ProcessType};
use crate::dependency_cache::{CacheInputs, ComparedVariables, DependencyCache, Trace, Variables};
use crate::errors::Problem;
use crate::run::Runner;
use crate::source::Source;
use crate::start::StartHint;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// A web server for files.
    Staticfile,
    /// A program that is built already.
    Binary,
    /// Node.js with npm.
    Nodejs,
    /// Python with pip.
    Python,
}

/// What a buildpack wants mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs<'c> {
    /// Lowest first; the flag says "while building only".
    pub layers: Vec<(&'c CatalogueLayer, bool)>,
    /// For the developer.
    pub notes: Vec<String>,
    /// What seems to start the app, when nobody says it.
    pub start: Option<StartHint>,
    /// Detection's words, e.g. `nodejs 22.11.0`.
    pub says: String,
}

impl<'c> Needs<'c> {
    /// Foreign buildpacks bring their runtimes along and may compile: tools, and Python for their scripts, while building.
    #[must_use]
    pub fn for_foreign(catalogue: &'c [CatalogueLayer]) -> Self {
        let mut needs = Self::default();
        needs.tools(catalogue);
        needs
    }

    /// Compilers, and the Python that they and node-gyp run on. Without them in the catalogue, sources cannot be compiled,
    /// which most apps do not need: no error here.
    fn tools(&mut self, catalogue: &'c [CatalogueLayer]) {
        let tools = ["python", "ruby", "build"].iter().filter_map(|name| catalogue.iter().find(|l| l.name == *name));
        for layer in tools {
            if !self.layers.iter().any(|(known, _)| known.name == layer.name) {
                self.layers.push((layer, true));
            }
        }
    }
}

/// Where a buildpack works.
#[derive(Debug)]
pub struct Workspace<'a> {
    /// The request.
    pub request: &'a BuildRequest,
    /// The app.
    pub app: &'a Path,
    /// This buildpack's directory below deps.
    pub deps: PathBuf,
    /// This buildpack's part of the cache.
    pub cache: PathBuf,
    /// Runs programs.
    pub runner: &'a Runner,
    /// The builder's own environment, which is the app's; what it runs inherits it.
    pub own: BTreeMap<OsString, OsString>,
    /// Environment of what it runs, beside the builder's own.
    pub env: BTreeMap<OsString, OsString>,
    /// Whether no other buildpack follows: only then is the app its own to arrange.
    pub last: bool,
}

impl Workspace<'_> {
    /// A program in the app directory, with the build's environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.app).envs(&self.request.env).envs(&self.env);
        command
    }

    /// A variable as such a program sees it.
    fn variable(&self, name: &str) -> Option<OsString> {
        let given = || self.request.env.get(name).map(OsString::from);
        let own = || self.own.get(OsStr::new(name)).cloned();
        self.env.get(OsStr::new(name)).cloned().or_else(given).or_else(own)
    }

    /// The variables that such a program sees, as far as they count.
    fn variables(&self, seen: ComparedVariables<'_>) -> Variables {
        // The later ones win, as for the program.
        let all: BTreeMap<&OsStr, &OsStr> = self
            .own
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .chain(self.request.env.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value))))
            .chain(self.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())))
            .collect();
        Variables::of(all, seen, self.app)
    }

    /// What every installation follows from.
    fn facts(&self, language: &str, runtime: &CatalogueLayer, arguments: &[&str], place: &Path) -> CacheInputs {
        let application = self.own.get(OsStr::new("VCAP_APPLICATION")).map(|text| text.as_encoded_bytes());
        let application: serde_json::Value =
            serde_json::from_slice(application.unwrap_or_default()).unwrap_or_default();
        CacheInputs {
            app: application["application_id"].as_str().unwrap_or_default().to_owned(),
            stack: self.request.stack.clone(),
            language: language.to_owned(),
            version: runtime.version.clone(),
            layer: runtime.digest.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            place: place.to_owned(),
            inputs: BTreeMap::new(),
        }
    }

    /// What an installation could write beside its own tree, as it is now. It must write nothing there, or the tree alone is
    /// not what it made.
    fn trace(&self, tree: &Path) -> std::io::Result<Trace> {
        let home = self.request.paths.home();
        Trace::of(home, &[tree.to_owned(), home.join("tmp"), home.join("logs")])
    }

    /// Leaves what was installed for the next build, if that is all that the installation has made since `before`.
    fn keep(&self, cache: &DependencyCache<'_>, what: &str, before: std::io::Result<Trace>) {
        let alone = before.and_then(|before| Ok((self.trace(&cache.place)?, before)));
        let done = match alone {
            Err(error) => Err(format!("the app's files cannot be compared ({error})")),
            Ok((after, before)) => match after.difference(&before) {
                Some(path) => {
                    let path = path.strip_prefix(self.request.paths.home()).unwrap_or(path);
                    Err(format!("the installation also wrote {}", path.display()))
                }
                None => cache.keep(),
            },
        };
        if let Err(reason) = done {
            cache.forget();
            self.runner.detail(&format!("{what} is not kept for the next build: {reason}"));
        }
    }

    /// Writes a file below this buildpack's deps, with its directories.
    fn put(&self, path: &str, text: &str) -> Result<PathBuf, Problem> {
        let full = self.deps.join(path);
        let write = || {
            if let Some(parent) = full.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&full, text)?;
            std::fs::set_permissions(&full, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        };
        write().map_err(|error| Problem::Platform(format!("{} could not be written: {error}", full.display())))?;
        Ok(full)
    }

    /// Links a runtime's program into `deps/<idx>/bin`, where other buildpacks of a chain look for it.
    fn link(&self, name: &str, target: &str) -> Result<(), Problem> {
        let path = self.deps.join("bin").join(name);
        let make = || {
            std::fs::create_dir_all(self.deps.join("bin"))?;
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(target, &path)
        };
        make().map_err(|error| Problem::Platform(format!("{} could not be linked: {error}", path.display())))
    }
}

impl Builtin {
    /// By the catalogue's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "staticfile" => Some(Self::Staticfile),
            "binary" => Some(Self::Binary),
            "nodejs" => Some(Self::Nodejs),
            "python" => Some(Self::Python),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Staticfile => "staticfile",
            Self::Binary => "binary",
            Self::Nodejs => "nodejs",
            Self::Python => "python",
        }
    }

    /// Whether the source is one of its kind. Wide: a wrong project gets help rather than silence.
    #[must_use]
    pub fn detects(self, request: &BuildRequest, source: &dyn Source) -> bool {
        match self {
            Self::Staticfile => staticfile::detects(source),
            Self::Binary => binary::detects(request, source),
            Self::Nodejs => nodejs::detects(source),
            Self::Python => python::detects(source),
        }
    }

    /// Whether the source is a site although it does not say so.
    #[must_use]
    pub fn is_site(request: &BuildRequest, source: &dyn Source) -> bool {
        staticfile::is_site(request, source)
    }

    /// The layers it wants; checks the files that it will read, so that mistakes show in the first second.
    ///
    /// # Errors
    /// When a file of the app is wrong, or a version is not there.
    pub fn needs<'c>(self, request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
        crate::procfile::read(source)?;
        match self {
            Self::Staticfile => staticfile::needs(request, source),
            Self::Binary => Ok(Needs { says: "binary".into(), ..Needs::default() }),
            Self::Nodejs => nodejs::needs(request, source),
            Self::Python => python::needs(request, source),
        }
    }

    /// Installs dependencies and writes what the app needs at run time; gives the default process types.
    ///
    /// # Errors
    /// When a step fails or time is over.
    pub fn build(self, work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
        work.put("config.yml", &format!("name: {}\nconfig: {{}}\n", self.key()))?;
        match self {
            Self::Staticfile => staticfile::build(work, source),
            Self::Binary => Ok(Vec::new()),
            Self::Nodejs => nodejs::build(work, source),
            Self::Python => python::build(work, source),
        }
    }
}

fn web(command: impl Into<String>) -> Vec<ProcessType> {
    vec![ProcessType { kind: "web".into(), command: command.into() }]
}
