//! Recipes of the OS image and of runtime layers, and their builder (`slipway stack build`).
//!
//! A layer is made again only when its recipe or a layer below it changed, or when asked to (`refresh`): otherwise what the
//! directory holds is used, so that a second run takes no time and works offline.

#![forbid(unsafe_code)]

mod debian;
mod host;
mod make;
mod npm;
pub mod recipe;
mod run;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use slipway_layers::meta::IndexError;
use slipway_layers::{Digest, LayerEntry, LayerIndex, LayerMeta, Package};

pub use debian::DebianError;
pub use make::LayerError;
pub use npm::NpmError;
pub use run::RunError;

use crate::debian::Install;
use crate::host::NpmSettings;
use crate::recipe::Recipe;

/// Where layers are when nobody says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/cache/slipway/stacks";
/// Part of every recipe's key: raised when the making itself changes.
const FORMAT: &str = "1";

/// `SLIPWAY_STACK_DIR`, or the default.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::var_os("SLIPWAY_STACK_DIR").map_or_else(|| PathBuf::from(DEFAULT_DIRECTORY), PathBuf::from)
}

/// What to build and how.
pub struct BuildOptions<'a> {
    /// Blobs and `index.json` go here.
    pub out_dir: PathBuf,
    /// Raw roots and downloads; may be deleted at any time, costs time only.
    pub cache_dir: PathBuf,
    /// Lines to make, with those below them; empty = all.
    pub only: Vec<String>,
    /// Debian mirrors in place of the host's apt sources: an address, or `address suite component…`.
    pub mirrors: Vec<String>,
    /// Make again what is there: takes security updates.
    pub refresh: bool,
    /// Told what happens, line by line.
    pub progress: &'a dyn Fn(&str),
}

impl<'a> BuildOptions<'a> {
    /// Everything into `directory`.
    #[must_use]
    pub fn new(directory: &Path, progress: &'a dyn Fn(&str)) -> Self {
        Self {
            out_dir: directory.to_owned(),
            cache_dir: directory.join("cache"),
            only: Vec::new(),
            mirrors: Vec::new(),
            refresh: false,
            progress,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// All layers of the directory.
    pub index: LayerIndex,
    /// Lines that were made now.
    pub made: Vec<String>,
    /// Lines that were there already.
    pub present: Vec<String>,
}

/// Why layers could not be made. What was made before the failure stays and is used by the next run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Mounting and changing owners need root.
    #[error("`slipway stack build` must run as root: it mounts and makes files of several users")]
    NotRoot,
    /// A line that is no recipe.
    #[error("there is no recipe {line:?}; there are: {known}")]
    UnknownLine {
        /// As asked for.
        line: String,
        /// All.
        known: String,
    },
    /// The recipes are broken.
    #[error(transparent)]
    Recipe(#[from] recipe::BadRecipe),
    /// Debian packages.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// npm packages.
    #[error(transparent)]
    Npm(#[from] NpmError),
    /// The result is no layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The disk.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Makes the layers that are missing or out of date. Needs root, mmdebstrap and curl; one run at a time per directory,
/// others wait.
///
/// # Errors
/// When a layer cannot be made; those made before it are kept.
pub fn build(options: &BuildOptions<'_>) -> Result<Summary, BuildError> {
    let recipes = recipe::all()?;
    let wanted = wanted(&recipes, &options.only)?;
    for directory in [&options.out_dir, &options.cache_dir] {
        fs::create_dir_all(directory).map_err(io(directory))?;
    }
    let lock = options.cache_dir.join("lock");
    let file = File::create(&lock).map_err(io(&lock))?;
    let _held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io(&lock)(errno.into()))?;
    let work = options.cache_dir.join("work");
    remove(&work)?;
    let mut run = Run {
        options,
        recipes: &recipes,
        index: LayerIndex::read(&options.out_dir)?,
        settings: NpmSettings::of_host(recipe::sources()?.npm_registry),
        made: Vec::new(),
        present: Vec::new(),
    };
    for line in wanted {
        run.ensure(line, options.refresh)?;
    }
    remove(&work)?;
    Ok(Summary { index: run.index, made: run.made, present: run.present })
}

/// The lines to make, each after those below it.
fn wanted<'r>(recipes: &'r [Recipe], only: &[String]) -> Result<Vec<&'r str>, BuildError> {
    for line in only {
        if !recipes.iter().any(|recipe| recipe.line == *line) {
            let known: Vec<&str> = recipes.iter().map(|recipe| recipe.line.as_str()).collect();
            return Err(BuildError::UnknownLine { line: line.clone(), known: known.join(", ") });
        }
    }
    Ok(recipes
        .iter()
        .map(|recipe| recipe.line.as_str())
        .filter(|line| {
            only.is_empty()
                || only.iter().any(|asked| {
                    asked == line
                        || recipes
                            .iter()
                            .any(|other| other.line == *asked && other.over.iter().any(|below| below == line))
                })
        })
        .collect())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path: path.clone(), source }
}

fn remove(path: &Path) -> Result<(), BuildError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(path)(error)),
    }
}

struct Run<'a> {
    options: &'a BuildOptions<'a>,
    recipes: &'a [Recipe],
    index: LayerIndex,
    settings: NpmSettings,
    made: Vec<String>,
    present: Vec<String>,
}

impl<'a> Run<'a> {
    fn recipe(&self, line: &str) -> &'a Recipe {
        // Callers pass lines of the recipes themselves; a test holds the recipes to that.
        self.recipes.iter().find(|recipe| recipe.line == line).unwrap_or(&self.recipes[0])
    }

    /// Everything that the layer follows from, as far as this host can know without asking the network.
    fn key(&self, recipe: &Recipe) -> String {
        let mut text = format!("{FORMAT}\n{}\n{}\n", std::env::consts::ARCH, recipe.text);
        for below in &recipe.over {
            text += &self.index.line(below).map(|entry| entry.meta.digest.to_string()).unwrap_or_default();
            text.push('\n');
        }
        Digest::of(text.as_bytes()).to_string()
    }

    fn raw(&self, line: &str) -> PathBuf {
        self.options.cache_dir.join("roots").join(line)
    }

    fn ensure(&mut self, line: &'a str, again: bool) -> Result<(), BuildError> {
        if self.made.iter().any(|made| made == line) {
            return Ok(());
        }
        let recipe = self.recipe(line);
        let key = self.key(recipe);
        let current = self
            .index
            .line(line)
            .is_some_and(|entry| entry.recipe == key && self.options.out_dir.join(&entry.file).is_file());
        if current && !again {
            if !self.present.iter().any(|other| other == line) {
                (self.options.progress)(&format!("{line}: is there"));
                self.present.push(line.to_owned());
            }
            return Ok(());
        }
        if !nix::unistd::Uid::effective().is_root() {
            return Err(BuildError::NotRoot);
        }
        // The raw roots below are needed too, and may have been deleted to save space.
        for below in &recipe.over {
            let gone = !self.raw(below).is_dir();
            self.ensure(below, gone)?;
        }
        let started = std::time::Instant::now();
        (self.options.progress)(&format!("{line}: making"));
        let key = self.key(recipe);
        let entry = self.make(recipe, key)?;
        (self.options.progress)(&format!(
            "{line}: {} {}, {} MB, compressed {} MB, in {:.1} s",
            entry.meta.name,
            entry.meta.version,
            entry.meta.size >> 20,
            entry.meta.blob_size >> 20,
            started.elapsed().as_secs_f64()
        ));
        self.index.layers.retain(|other| other.meta.line != line);
        self.index.layers.push(entry);
        self.index.write(&self.options.out_dir)?;
        self.present.retain(|other| other != line);
        self.made.push(line.to_owned());
        Ok(())
    }

    fn make(&self, recipe: &Recipe, key: String) -> Result<LayerEntry, BuildError> {
        let work = self.options.cache_dir.join("work");
        remove(&work)?;
        let logs = self.options.cache_dir.join("logs");
        for path in [&work, &logs] {
            fs::create_dir_all(path).map_err(io(path))?;
        }
        let log = logs.join(format!("{}.log", recipe.line));
        fs::write(&log, "").map_err(io(&log))?;
        let raw = work.join("raw");
        let below: Vec<PathBuf> = recipe.over.iter().map(|line| self.raw(line)).collect();
        let packages = self.fill(recipe, &raw, &below, &log)?;
        let stack = recipe.kind == "stack";
        let epoch = debian::index_time(below.first().unwrap_or(&raw));
        let file = format!("{}.tar.zst", recipe.line);
        let partial = work.join(&file);
        let root = make::Root {
            line: &recipe.line,
            stack,
            build: recipe.kind == "build",
            raw: &raw,
            below: recipe
                .over
                .iter()
                .zip(&below)
                .map(|(line, root)| {
                    let provides = self.index.line(line).map(|entry| entry.meta.provides.clone()).unwrap_or_default();
                    (line.as_str(), root.clone(), provides)
                })
                .collect(),
            epoch,
        };
        let made = root.make(&partial)?;
        let mut version = match &recipe.version_of {
            Some(name) => packages.iter().find(|package| package.name == *name).map(|package| plain(&package.version)),
            None => fs::read_to_string(below.first().unwrap_or(&raw).join("etc/debian_version"))
                .ok()
                .map(|text| text.trim().to_owned()),
        }
        .unwrap_or_default();
        if stack || version.is_empty() {
            // Debian's number stays while its packages change.
            version = format!("{version}-{}", &made.packed.digest.to_string()[..8]);
        }
        let paths_file = format!("{}.paths", recipe.line);
        let list = self.options.out_dir.join(&paths_file);
        let text: String = made.packed.paths.iter().map(|path| format!("/{}\n", path.display())).collect();
        fs::write(&list, text).map_err(io(&list))?;
        let target = self.options.out_dir.join(&file);
        // The cache may be on another file system than the directory of layers.
        if fs::rename(&partial, &target).is_err() {
            let beside = target.with_extension("part");
            fs::copy(&partial, &beside).map_err(io(&beside))?;
            fs::rename(&beside, &target).map_err(io(&target))?;
        }
        let cached = self.raw(&recipe.line);
        if let Some(parent) = cached.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        remove(&cached)?;
        fs::rename(&raw, &cached).map_err(io(&cached))?;
        remove(&work)?;
        let digest_of = |line: &String| self.index.line(line).map(|entry| entry.meta.digest);
        Ok(LayerEntry {
            meta: LayerMeta {
                digest: made.packed.digest,
                blob: made.packed.blob,
                blob_size: made.packed.blob_size,
                size: made.packed.size,
                kind: recipe.kind.clone(),
                name: recipe.name.clone(),
                line: recipe.line.clone(),
                version,
                architecture: std::env::consts::ARCH.to_owned(),
                built_over: recipe.over.iter().filter_map(digest_of).collect(),
                over_lines: recipe.over.clone(),
                packages,
                paths_file,
                provides: made.provides,
                needs: made.needs,
            },
            file,
            recipe: key,
            made_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |passed| i64::try_from(passed.as_secs()).unwrap_or(i64::MAX)),
        })
    }

    /// Puts everything that the recipe names into the raw root; gives back what the layer adds.
    fn fill(&self, recipe: &Recipe, raw: &Path, below: &[PathBuf], log: &Path) -> Result<Vec<Package>, BuildError> {
        let scripts = self.options.cache_dir.join("work").join("scripts");
        fs::create_dir_all(&scripts).map_err(io(&scripts))?;
        let mut packages = Vec::new();
        if let Some(deb) = &recipe.deb {
            let install = Install {
                line: &recipe.line,
                suite: &deb.suite,
                packages: &deb.packages,
                script: &recipe.script,
                mirrors: &self.options.mirrors,
                work: &scripts,
                log,
                epoch: below.first().map_or(0, |root| debian::index_time(root)),
            };
            if below.is_empty() {
                install.bootstrap(raw)?;
            } else {
                install.overlay(below, raw)?;
            }
            let before = below.last().map(|root| debian::installed(root)).unwrap_or_default();
            packages.extend(
                debian::installed(raw)
                    .into_iter()
                    .filter(|(name, version)| before.get(name) != Some(version))
                    .map(|(name, version)| Package { name, version, source: "deb".into(), integrity: None }),
            );
        }
        let downloads = self.options.cache_dir.join("npm");
        for npm in &recipe.npm {
            packages.push(npm::install(npm, raw, &downloads, &self.settings, log)?);
        }
        for link in &recipe.link {
            let path = raw.join(&link.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io(parent))?;
            }
            std::os::unix::fs::symlink(&link.to, &path).map_err(io(&path))?;
        }
        Ok(packages)
    }
}

/// Upstream's version inside a Debian one: `3.11.2-6+deb12u6` is 3.11.2, `4:12.2.0-3` is 12.2.0.
fn plain(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(['-', '+', '~']).next().unwrap_or(version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_comes_along() {
        let recipes = recipe::all().unwrap();
        assert_eq!(wanted(&recipes, &["node-22".into()]).unwrap(), ["debian12", "node-22"]);
        assert_eq!(
            wanted(&recipes, &["build-debian12".into()]).unwrap(),
            ["debian12", "cpython-3.11", "build-debian12"]
        );
        assert_eq!(wanted(&recipes, &[]).unwrap().len(), recipes.len());
        assert!(matches!(wanted(&recipes, &["node-2".into()]), Err(BuildError::UnknownLine { .. })));
    }

    #[test]
    fn debian_versions() {
        assert_eq!(plain("3.11.2-6+deb12u6"), "3.11.2");
        assert_eq!(plain("4:12.2.0-3"), "12.2.0");
        assert_eq!(plain("22.11.0"), "22.11.0");
    }
}
