//! Python: `runtime.txt` or `.python-version`, `requirements.txt`, a virtual environment at its final place.

mod cache_key;
mod django;
mod requirements;
mod start;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::{Needs, Workspace};
use crate::contract::{BuildRequest, CatalogueLayer, ProcessType};
use crate::dependency_cache::{self, Restored};
use crate::errors::Problem;
use crate::source::Source;
use crate::versions::{self, Runtime};

const NAME: &str = "python_buildpack";
/// 1980-01-01, the oldest time that a wheel's zip can carry. Set, it also makes compiled files checked by content rather
/// than by time; a droplet's times are others than those of the build, and with time-checked files every import would compile again.
const EPOCH: &str = "315532800";
const REQUIREMENTS: &str = "requirements.txt";
/// Where an app brings its packages along.
const VENDOR: &str = "vendor";
/// Lock files of tools that are not here, and how each writes the file that pip reads.
const LOCKS: [(&str, &str); 4] = [
    ("uv.lock", "uv export --no-dev --no-emit-project --output-file requirements.txt"),
    ("poetry.lock", "poetry export --output requirements.txt"),
    ("pdm.lock", "pdm export --prod --output requirements.txt"),
    ("Pipfile.lock", "pipenv requirements > requirements.txt"),
];

pub(super) fn detects(source: &dyn Source) -> bool {
    ["requirements.txt", "setup.py", "pyproject.toml", "Pipfile", "runtime.txt", "environment.yml"]
        .iter()
        .any(|file| source.has(file))
}

/// What pip is told to install.
fn wanted(source: &dyn Source) -> Result<Option<&'static [&'static str]>, Problem> {
    if source.has(REQUIREMENTS) {
        return Ok(Some(&["-r", REQUIREMENTS]));
    }
    if source.has("pyproject.toml") || source.has("setup.py") {
        return Ok(Some(&["."]));
    }
    for (file, advice) in [
        ("Pipfile", "Write a requirements.txt: `pipenv requirements > requirements.txt`."),
        ("environment.yml", "Write a requirements.txt with the packages that pip can install."),
    ] {
        if source.has(file) {
            return Err(Problem::UnsupportedDependencies { file, advice });
        }
    }
    Ok(None)
}

/// The layer of Python: `runtime.txt` must be met, and what the app as a package requires; what only says a version to tools
/// at home is met when it can be.
fn choose<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    let catalogue = &request.catalogue;
    let plain = |text: &str| versions::first_line(text).map(|text| text.trim_start_matches("python-").to_owned());
    if let Some(wanted) = source.read("runtime.txt").as_deref().and_then(plain) {
        return versions::choose(catalogue, Runtime::Python, "runtime.txt", Some(&wanted));
    }
    if let Some(wanted) = source.read(".python-version").as_deref().and_then(plain) {
        return versions::prefer(catalogue, Runtime::Python, ".python-version", Some(&wanted));
    }
    let required = if source.has(REQUIREMENTS) { None } else { requires_python(source) };
    versions::choose(catalogue, Runtime::Python, "pyproject.toml", required.as_deref())
}

/// The range of versions with which the app can be installed as a package.
fn requires_python(source: &dyn Source) -> Option<String> {
    let text = source.read("pyproject.toml")?;
    let value = text.lines().find_map(|line| line.trim_start().strip_prefix("requires-python"))?;
    let value = value.trim_start().strip_prefix('=')?.split('#').next()?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
}

/// What is there and has no effect.
fn unread(source: &dyn Source) -> Vec<String> {
    let own = source.has(REQUIREMENTS);
    let locks = LOCKS.iter().filter(|(lock, _)| source.has(lock)).map(|(lock, export)| match own {
        true => format!("{lock} is not read: dependencies are those of {REQUIREMENTS}."),
        false => format!(
            "{lock} is not read: dependencies are installed with pip, in versions that may be others. To hold them, write a \
             {REQUIREMENTS}: {export}"
        ),
    });
    locks.collect()
}

pub(super) fn needs<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
    let dependencies = wanted(source)?;
    let (python, note) = choose(request, source)?;
    let mut needs = Needs {
        layers: vec![(python, false)],
        notes: note.into_iter().chain(unread(source)).collect(),
        start: None,
        says: format!("python {}", python.version),
    };
    if request.command.is_none() && !source.has("Procfile") {
        needs.start = start::hint(source);
        needs.notes.extend(start::advice(needs.start.as_ref()));
    }
    // Whether a wheel exists is known only after asking the index, so the tools come along.
    if dependencies.is_some() {
        needs.tools(&request.catalogue);
    }
    Ok(needs)
}

/// pip's arguments, but for the place of its cache.
const INSTALL: [&str; 7] = [
    "install",
    "--use-pep517",
    "--no-warn-script-location",
    "--disable-pip-version-check",
    "--progress-bar",
    "off",
    "--no-input",
];

fn make_environment(work: &Workspace<'_>, environment: &Path) -> Result<(), Problem> {
    work.runner.headline("Making a virtual environment");
    // Without its own pip: the layer's does the work, and the droplet is 10 MB smaller.
    let mut venv = work.command("python3");
    venv.args(["-m", "venv", "--without-pip"]).arg(environment).env("SOURCE_DATE_EPOCH", EPOCH);
    work.runner.step(NAME, &mut venv)
}

fn install(work: &Workspace<'_>, environment: &Path, what: &[&str]) -> Result<(), Problem> {
    let mut pip = work.command("python3");
    pip.args(["-m", "pip", "--python"]).arg(environment.join("bin/python"));
    pip.args(INSTALL).arg("--cache-dir").arg(work.cache.join("pip"));
    let mut own: Vec<&str> = Vec::new();
    if work.app.join(VENDOR).is_dir() {
        work.runner.detail("Taking packages from the app's vendor directory only");
        own.extend(["--no-index", "--find-links", VENDOR]);
    }
    own.extend(what);
    pip.args(&own);
    pip.env("SOURCE_DATE_EPOCH", EPOCH).env("PYTHONHASHSEED", "0").env("PIP_ROOT_USER_ACTION", "ignore");
    // As somebody would type it: the other options are about this place, its cache and its screen.
    work.runner.step_as(NAME, &format!("pip install {}", own.join(" ")), &mut pip)
}

/// Makes the environment with what is wanted in it, or takes that of the last build.
fn provide(work: &Workspace<'_>, source: &dyn Source, environment: &Path, what: &[&str]) -> Result<(), Problem> {
    let runner = work.runner;
    let installing = || runner.headline("Installing dependencies with pip");
    let environment_cache = match cache_key::installation_cache(work, source, environment, what) {
        Ok(environment_cache) => environment_cache,
        Err(reason) => {
            dependency_cache::forget(&work.cache);
            make_environment(work, environment)?;
            installing();
            runner.detail(&format!("Packages are installed anew with every push: {reason}"));
            return install(work, environment, what);
        }
    };
    let cache = &environment_cache.cache;
    let dropped = match environment_cache.restore() {
        Restored::Taken => {
            runner.headline("Taking the installed packages of the last build");
            runner.detail(&environment_cache.same());
            if !environment_cache.pinned {
                runner.detail(
                    "Versions that requirements.txt leaves open stay; SLIPWAY_BUILD_CACHE=off takes newer ones.",
                );
            }
            return Ok(());
        }
        Restored::Nothing => None,
        Restored::Dropped(reason) => Some(reason),
    };
    make_environment(work, environment)?;
    installing();
    if let Some(reason) = dropped {
        runner.detail(&format!("The installed packages of the last build are not used: {reason}"));
    }
    // Whatever happens now, what is in the cache is not of this installation.
    cache.forget();
    let before = work.trace(environment);
    install(work, environment, what)?;
    work.keep(cache, "The installation", before);
    Ok(())
}

pub(super) fn build(work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    let environment = work.deps.join("python");
    match wanted(source)? {
        Some(what) => provide(work, source, &environment, what)?,
        None => {
            dependency_cache::forget(&work.cache);
            make_environment(work, &environment)?;
            work.runner.detail("There is no requirements.txt: nothing is installed.");
        }
    }
    let path = environment.join("bin");
    work.put(
        "profile.d/python.sh",
        &format!(
            "export PATH=\"{path}:$PATH\"\nexport VIRTUAL_ENV=\"{environment}\"\nexport PYTHONUNBUFFERED=1\n\
             export LANG=${{LANG:-en_US.UTF-8}}\n",
            path = path.display(),
            environment = environment.display()
        ),
    )?;
    if let Ok(entries) = std::fs::read_dir(&path) {
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            // Python itself finds its environment by its own path, which a link would change.
            if !name.starts_with("python") && !name.starts_with("activate") && !name.starts_with("Activate") {
                work.link(&name, &format!("../python/bin/{name}"))?;
            }
        }
    }
    django::collect(work, &environment)?;
    // Python has no usual way to start a web server: Procfile or manifest must say it.
    Ok(Vec::new())
}
