//! `manifest.yml`: read, filled in, checked, merged with the flags of `push`, and written again for the platform.
//!
//! Anchors, aliases and merge keys are resolved here, since the platform refuses them. Keys that nobody knows pass
//! through, as Cloud Foundry has it, but are named in a warning. All problems of a file are reported at once, and before
//! anything is sent.

mod check;
mod merge;
mod variables;

use std::io;
use std::path::{Path, PathBuf};

use serde_norway::{Mapping, Value};
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};

use crate::args::PushArgs;
use crate::environment::Environment;
use crate::push::{FilesError, check_path};
use crate::size::{SizeError, parse_mib};

/// The platform refuses more.
const LARGEST: usize = 1 << 20;

/// The manifest, or what was given in its place, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file named with `-f` does not exist.
    #[error("There is no manifest at {}", path.display())]
    Missing {
        /// What was named.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not YAML.
    #[error("{} is not valid YAML", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_norway::Error,
    },
    /// `--var` without a name or a value.
    #[error("'{text}' is not of the form NAME=VALUE")]
    Variable {
        /// What was given.
        text: String,
    },
    /// Placeholders without a value.
    #[error("{file} needs values for: {}", names.join(", "))]
    MissingVariables {
        /// The file.
        file: String,
        /// The names.
        names: Vec<String>,
    },
    /// It says something impossible.
    #[error("{file} has {}:\n  - {}", if problems.len() == 1 { "a mistake".to_owned() } else { format!("{} mistakes", problems.len()) }, problems.iter().cloned().chain(warnings.iter().map(|warning| format!("(only a warning) {warning}"))).collect::<Vec<_>>().join("\n  - "))]
    Invalid {
        /// The file.
        file: String,
        /// Each with app and value.
        problems: Vec<String>,
        /// What alone would be a warning.
        warnings: Vec<String>,
    },
    /// It is larger than the platform takes.
    #[error("{file} has {bytes} bytes; at most {LARGEST} are possible")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// A flag cannot be meant.
    #[error("{flag} {value}")]
    Flag {
        /// `-m`, `-k`.
        flag: &'static str,
        /// Its value.
        value: String,
        /// Why.
        source: SizeError,
    },
    /// No name is given, and the manifest has several.
    #[error("No app is named, and {file} has several: {}", names.join(", "))]
    WhichApp {
        /// The file.
        file: String,
        /// Their names.
        names: Vec<String>,
    },
    /// Neither a name nor a manifest.
    #[error(
        "No app name is given, there is no manifest.yml, and the name of this directory is not a valid app name (letters, digits, '-', '_' and '.' are allowed)"
    )]
    NoName,
    /// Flags for one app, several apps.
    #[error("These flags apply to a single app, but the manifest has several")]
    SeveralApps,
    /// The name given is not one of the manifest's.
    #[error("There is no app '{name}' in {file}{}", meant.as_ref().map(|meant| format!(" (did you mean '{meant}'?)")).unwrap_or_default())]
    NotInManifest {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// One of the manifest that is close to it.
        meant: Option<String>,
    },
}

/// A checked manifest, flags included.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// What the platform gets.
    pub(crate) yaml: String,
    /// The apps, in the order of the manifest.
    pub(crate) apps: Vec<AppEntry>,
    /// For the person, not for the platform.
    pub(crate) warnings: Vec<String>,
}

/// What `push` itself needs to know of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppEntry {
    pub(crate) name: String,
    /// Directory or archive, absolute.
    pub(crate) path: PathBuf,
    /// An image in place of files.
    pub(crate) image: Option<String>,
    /// Whether the routes that it has are taken from it.
    pub(crate) no_route: bool,
}

/// Reads the manifest that the flags mean and merges the flags into it. `directory` is where relative paths start.
pub(crate) fn prepare(flags: &PushArgs, directory: &Path) -> Result<Manifest, ManifestError> {
    for (flag, value, least) in [("-m", &flags.memory, LEAST_MEMORY_MB), ("-k", &flags.disk, LEAST_DISK_MB)] {
        if let Some(Err(source)) = value.as_deref().map(|text| parse_mib(text, least)) {
            return Err(ManifestError::Flag { flag, value: value.clone().unwrap_or_default(), source });
        }
    }
    let values = variables::Variables::load(&flags.variables, &flags.variable_files, directory)?;
    let file = find(flags, directory)?;
    let (mut apps, mut warnings, label) = match &file {
        Some(path) => read(path, &values)?,
        None => (vec![Mapping::new()], Vec::new(), "the flags".to_owned()),
    };
    merge::choose(&mut apps, flags, &label)?;
    for app in &mut apps {
        merge::flags(app, flags);
    }
    let mut problems = check::apps(&apps, &mut warnings);
    let base = file.as_deref().and_then(Path::parent).unwrap_or(directory);
    let entries: Vec<AppEntry> = apps.iter().map(|app| entry(app, flags, base, directory)).collect();
    if flags.path.is_none() {
        problems.extend(apps.iter().zip(&entries).filter_map(|(app, entry)| wrong_path(app, entry)));
    }
    if !problems.is_empty() {
        return Err(invalid(label, problems, warnings));
    }
    let mut root = Mapping::new();
    root.insert("applications".into(), Value::Sequence(apps.into_iter().map(Value::Mapping).collect()));
    let yaml = serde_norway::to_string(&root)
        .map_err(|source| ManifestError::Yaml { path: file.unwrap_or_else(|| "the flags".into()), source })?;
    if yaml.len() > LARGEST {
        return Err(ManifestError::TooLarge { file: label, bytes: yaml.len() });
    }
    Ok(Manifest { yaml, apps: entries, warnings })
}

/// What is only odd, such as a key with a typing error, is told below the mistakes: it is most often one as well.
fn invalid(file: String, problems: Vec<String>, warnings: Vec<String>) -> ManifestError {
    ManifestError::Invalid { file, problems, warnings }
}

/// The app that a command without a name means: the only one of the manifest, else the one named as the directory is.
pub(crate) fn default_name(environment: &Environment) -> Result<String, ManifestError> {
    let Some(path) = find(&PushArgs::default(), &environment.directory)? else {
        return directory_name(environment, None);
    };
    let text = std::fs::read_to_string(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
    let root: Value =
        serde_norway::from_str(&text).map_err(|source| ManifestError::Yaml { path: path.clone(), source })?;
    let apps = root.get("applications").and_then(Value::as_sequence).into_iter().flatten();
    let names: Vec<&str> = apps.filter_map(|app| app.get("name").and_then(Value::as_str)).collect();
    match names.as_slice() {
        [] => directory_name(environment, None),
        [one] => Ok((*one).to_owned()),
        several => {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(ManifestError::WhichApp { file, names: several.iter().map(|&name| name.to_owned()).collect() })
        }
    }
}

/// The name of the directory that is pushed, if an app can have it. A home directory names no app: whoever pushes from there
/// has most likely forgotten to go somewhere else.
pub(crate) fn directory_name(environment: &Environment, path: Option<&Path>) -> Result<String, ManifestError> {
    let directory = path.map_or_else(|| environment.directory.clone(), |path| environment.directory.join(path));
    // `-p .` and `-p ..` have names only when the links are followed.
    let directory = directory.canonicalize().unwrap_or(directory);
    let home = environment.variable("HOME").map(PathBuf::from);
    if !directory.is_dir() || home.is_some_and(|home| home.canonicalize().unwrap_or(home) == directory) {
        return Err(ManifestError::NoName);
    }
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(fits) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Ok(name.to_owned())
    } else {
        Err(ManifestError::NoName)
    }
}

fn find(flags: &PushArgs, directory: &Path) -> Result<Option<PathBuf>, ManifestError> {
    if flags.no_manifest {
        return Ok(None);
    }
    let place = flags.manifest.as_ref().map_or_else(|| directory.to_owned(), |path| directory.join(path));
    let candidates = if place.is_dir() {
        vec![place.join("manifest.yml"), place.join("manifest.yaml")]
    } else {
        vec![place.clone()]
    };
    let found = candidates.into_iter().find(|path| path.is_file());
    match (found, &flags.manifest) {
        (None, Some(_)) => Err(ManifestError::Missing { path: place }),
        (found, _) => Ok(found),
    }
}

/// The key that a warning is about, in this program's words and in the platform's.
pub(crate) fn key_of_warning(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("key '")?;
    rest.split_once('\'').map(|(key, _)| key)
}

fn read(path: &Path, values: &variables::Variables) -> Result<(Vec<Mapping>, Vec<String>, String), ManifestError> {
    let label = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    if text.len() > LARGEST {
        return Err(ManifestError::TooLarge { file: label, bytes: text.len() });
    }
    let yaml = |source| ManifestError::Yaml { path: path.to_owned(), source };
    let mut root: Value = serde_norway::from_str(&text).map_err(yaml)?;
    root.apply_merge().map_err(yaml)?;
    let mut warnings = Vec::new();
    let (apps, problems) = check::root(&mut root, &text, &mut warnings);
    if !problems.is_empty() {
        return Err(invalid(label, problems, warnings));
    }
    // Only what is sent needs values: a template that no app uses may stay open.
    let mut apps = Value::Sequence(apps.into_iter().map(Value::Mapping).collect());
    let missing = values.fill(&mut apps);
    if !missing.is_empty() {
        return Err(ManifestError::MissingVariables { file: label, names: missing });
    }
    let Value::Sequence(apps) = apps else { return Ok((Vec::new(), warnings, label)) };
    let mut mappings = Vec::new();
    for app in apps {
        match app {
            Value::Mapping(app) => mappings.push(app),
            // A sequence of mappings stays one: variables replace scalars only.
            other => warnings.push(format!("an entry of 'applications' is left out: {other:?}")),
        }
    }
    Ok((mappings, warnings, label))
}

fn entry(app: &Mapping, flags: &PushArgs, base: &Path, directory: &Path) -> AppEntry {
    let text = |key: &str| app.get(key).and_then(Value::as_str);
    let path = match (&flags.path, text("path")) {
        (Some(path), _) => directory.join(path),
        (None, Some(path)) => base.join(path),
        // Without a manifest, and in one without `path`, the files lie where the command is given.
        (None, None) => directory.to_owned(),
    };
    AppEntry {
        name: text("name").unwrap_or_default().to_owned(),
        path,
        image: app.get("docker").and_then(|docker| docker.get("image")).and_then(Value::as_str).map(str::to_owned),
        no_route: app.get("no-route").and_then(Value::as_bool) == Some(true),
    }
}

/// What is wrong with the `path` of an app, which is told with the other mistakes of the file.
fn wrong_path(app: &Mapping, entry: &AppEntry) -> Option<String> {
    let path = app.get("path").and_then(Value::as_str).filter(|_| entry.image.is_none())?;
    let what = match check_path(&entry.path).err()? {
        FilesError::NoSuchPath { path } => format!("there is nothing at {}", path.display()),
        other => slipway_chassis::errors::chain(&other).to_string(),
    };
    Some(format!("app '{}': 'path' is '{path}': {what}", entry.name))
}

#[cfg(test)]
mod tests;
