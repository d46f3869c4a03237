//! Django's static files, collected as Cloud Foundry's and Heroku's buildpacks do it.

use std::path::{Path, PathBuf};

use super::NAME;
use crate::errors::Problem;
use crate::langs::Workspace;
use crate::run::ended;

/// Switches it off, whatever its value is.
const OFF: &str = "DISABLE_COLLECTSTATIC";
/// How far down `manage.py` is looked for.
const DEPTH: usize = 3;
/// What Django says when the project does not use static files, or has no place for them.
const NOT_MEANT: [&str; 2] = ["Unknown command: 'collectstatic'", "without having set the STATIC_ROOT setting"];

/// Collects the static files of a Django project in the app.
pub(super) fn collect(work: &Workspace<'_>, environment: &Path) -> Result<(), Problem> {
    if !has_django(environment) {
        return Ok(());
    }
    let Some(manage) = manage(work.app) else { return Ok(()) };
    if work.variable(OFF).is_some_and(|value| !value.is_empty()) {
        work.runner.detail(&format!("Static files are not collected: {OFF} is set"));
        return Ok(());
    }
    work.runner.headline("Collecting static files");
    // The environment's own, which finds its packages by its own path.
    let mut python = work.command(&environment.join("bin/python").display().to_string());
    python.arg(&manage).args(["collectstatic", "--noinput", "--traceback"]);
    // Compiled files of the project would differ from build to build.
    python.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    let step = format!("python {} collectstatic --noinput --traceback", manage.display());
    work.runner.detail(&step);
    let (status, reason) = work.runner.run(&mut python)?;
    if status.success() {
        return Ok(());
    }
    if NOT_MEANT.iter().any(|words| reason.contains(words)) {
        work.runner.detail("The project has no place for static files (STATIC_ROOT), so there are none to collect");
        return Ok(());
    }
    let reason = format!("{reason}\nTo push without collecting, set {OFF}=1 in the app's environment.");
    Err(Problem::StepFailed {
        buildpack: NAME.to_owned(),
        step,
        status: ended(status),
        reason: reason.trim_start().to_owned(),
    })
}

fn has_django(environment: &Path) -> bool {
    let libraries = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    libraries.into_iter().any(|python| python.path().join("site-packages/django/__init__.py").is_file())
}

/// The project's `manage.py`, relative to the app: the one that is least deep.
fn manage(app: &Path) -> Option<PathBuf> {
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.') || name == "node_modules";
    let files = walkdir::WalkDir::new(app).min_depth(1).max_depth(DEPTH).sort_by_file_name().into_iter();
    let files = files.filter_entry(|entry| !hidden(entry.file_name())).flatten();
    let found = files.filter(|entry| entry.file_type().is_file() && entry.file_name() == "manage.py");
    let least = found.min_by_key(walkdir::DirEntry::depth)?;
    least.path().strip_prefix(app).ok().map(Path::to_owned)
}
