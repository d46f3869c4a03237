//! Inputs of a Python virtual environment, and when it has inputs that cannot be compared.

use std::path::{Path, PathBuf};

use super::{INSTALL, REQUIREMENTS, VENDOR, requirements};
use crate::contract::CatalogueLayer;
use crate::dependency_cache::{ComparedVariables, DependencyCache, Restored, digest_of, remove};
use crate::errors::Problem;
use crate::langs::Workspace;
use crate::source::Source;

/// Variables that make pip read or install something other than the requirements. What they name is not compared.
const UNTRACKED_SETTINGS: [&str; 9] = [
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "PIP_BUILD_CONSTRAINT",
    "PIP_EDITABLE",
    "PIP_FIND_LINKS",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
];

/// A virtual environment that can be cached.
pub(super) struct CachedEnvironment<'w> {
    pub(super) cache: DependencyCache<'w>,
    /// See [`requirements::Requirements::pinned`].
    pub(super) pinned: bool,
    /// Links of the environment to the runtime: made anew, so that the cache has no say in which Python runs.
    python: PathBuf,
}

/// The cache of this virtual environment, or why it cannot be cached.
pub(super) fn installation_cache<'w>(
    work: &'w Workspace<'_>,
    source: &dyn Source,
    environment: &Path,
    what: &[&str],
) -> Result<CachedEnvironment<'w>, String> {
    if !what.contains(&REQUIREMENTS) {
        return Err("the app itself is installed as a package".into());
    }
    if work.app.join(VENDOR).exists() {
        return Err("they come from the app's vendor directory".into());
    }
    let found = requirements::read(source, REQUIREMENTS)?;
    if let Some(name) = UNTRACKED_SETTINGS.iter().find(|name| work.variable(name).is_some()) {
        return Err(format!("{name} is set"));
    }
    let python = runtime(work, source).map_err(|problem| problem.to_error().text)?;
    let line = python.line.rsplit('-').next().unwrap_or_default();
    let arguments: Vec<&str> = INSTALL.iter().chain(what).copied().collect();
    let mut facts = work.facts("Python", python, &arguments, environment);
    for file in found.files {
        let digest = digest_of(&work.app.join(&file)).map_err(|error| format!("{file} cannot be read ({error})"))?;
        facts.inputs.extend(digest.map(|digest| (file, digest.to_string())));
    }
    let links = ["python".to_owned(), "python3".to_owned(), format!("python{line}")];
    Ok(CachedEnvironment {
        cache: DependencyCache {
            cache: &work.cache,
            facts,
            // A package without a wheel runs its own code to be built; which has one is known only afterwards.
            variables: work.variables(ComparedVariables::All),
            place: environment.to_owned(),
            leave: links.iter().map(|name| Path::new("bin").join(name)).collect(),
            max_entries: work.request.limits.max_entries,
        },
        pinned: found.pinned,
        python: program(work),
    })
}

/// The layer of Python that is mounted.
fn runtime<'r>(work: &Workspace<'r>, source: &dyn Source) -> Result<&'r CatalogueLayer, Problem> {
    let needs = super::needs(work.request, source)?;
    let python = needs.layers.into_iter().map(|(layer, _)| layer).find(|layer| layer.name == "python");
    python.ok_or(Problem::NoLayer { name: "python" })
}

/// Where the command `python3` of this build is.
fn program(work: &Workspace<'_>) -> PathBuf {
    let path = work.variable("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("python3")).find(|path| path.is_file());
    found.unwrap_or_else(|| "/usr/bin/python3".into())
}

impl CachedEnvironment<'_> {
    /// In words, what is the same when nothing differs.
    pub(super) fn same(&self) -> String {
        let files: Vec<&str> = self.cache.facts.inputs.keys().map(String::as_str).collect();
        format!("{}, Python {} and stack are what they were.", files.join(", "), self.cache.facts.version)
    }

    /// Puts the environment of the last build into its place, with this build's Python.
    pub(super) fn restore(&self) -> Restored {
        let found = self.cache.restore();
        if found != Restored::Taken {
            return found;
        }
        // As `python -m venv` does it.
        let linked = self.cache.leave.iter().try_for_each(|name| {
            let target = if name.ends_with("python3") { self.python.as_path() } else { Path::new("python3") };
            std::os::unix::fs::symlink(target, self.cache.place.join(name))
        });
        let Err(error) = linked else { return Restored::Taken };
        // `python -m venv` empties nothing: what was taken must not be under what it makes.
        let reason = match remove(&self.cache.place) {
            Ok(()) => format!("Python could not be linked into it ({error})"),
            Err(second) => format!("Python could not be linked into it ({error}), nor could it be removed ({second})"),
        };
        Restored::Dropped(reason)
    }
}
