//! Caches the dependencies that a build installed and restores them when nothing that they depend on has changed.
//!
//! Installing takes most of a build's time, and for an unchanged app it produces what was there before. So a build stores
//! the tree that its package manager made in the buildpack's part of the build cache, with a record of all inputs of the
//! installation. The next build compares the inputs ([`CacheInputs`], [`Variables`]) and either restores the tree or says
//! what differs and installs.
//!
//! The cache is written by whatever ran in the app's last build, and it is transferred between cells. So it is not trusted:
//! the record is read with a size limit and without following links; the archive must have the digest that the record names;
//! it is unpacked with every check of an uploaded archive and without links that lead outside, in a directory beside its
//! destination, and renamed when it is complete. If something is wrong, the build says so and goes on as without a cache.
//! An app that forges its own cache harms itself alone: a cache belongs to one app, and the record names it.

mod inputs;
mod trace;
mod variables;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use slipway_layers::digest::HashingWriter;
use slipway_layers::{Digest, Limits, LinkPolicy, Owners, PackOptions, Times, pack, unpack_open};

pub use inputs::CacheInputs;
pub use trace::Trace;
pub use variables::{ComparedVariables, Variables};

/// Changed whenever record or tree mean something else than before.
const VERSION: u32 = 1;
const RECORD: &str = "installed.json";
const ARCHIVE: &str = "installed.tar.zst";
/// A record lists a handful of files; more is an attack.
const MAX_RECORD: u64 = 1 << 20;
/// A larger tree costs more to move with every build than an installation from the package manager's cache.
const MAX_TREE: u64 = 1 << 30;
/// As in the droplet, where the tree ends up: nothing is lost that would not be lost there.
const OWNER: Owners = Owners::Fixed(2000, 2000);
const TIME: Times = Times::Fixed(315_532_800);

/// What is beside the tree.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    facts: CacheInputs,
    variables: variables::Sealed,
    /// `None`: the installation made nothing, because there are no dependencies.
    tree: Option<Tree>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    /// Of the archive's bytes.
    sha256: String,
    /// Bytes once unpacked.
    unpacked: u64,
}

/// What [`DependencyCache::restore`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// No build has left anything.
    Nothing,
    /// The tree is in its place.
    Taken,
    /// Something was there and is not used, for this reason. Nothing is in the tree's place but what was there before.
    Dropped(String),
}

/// One tree and the inputs that it depends on.
#[derive(Debug)]
pub struct DependencyCache<'a> {
    /// The buildpack's part of the cache.
    pub cache: &'a Path,
    /// Inputs of the installation.
    pub facts: CacheInputs,
    /// The variables that it sees.
    pub variables: Variables,
    /// Where the tree belongs.
    pub place: PathBuf,
    /// Names, relative to the tree, that are not kept: they are made anew each time.
    pub leave: Vec<PathBuf>,
    /// Most entries of the tree.
    pub max_entries: u64,
}

impl DependencyCache<'_> {
    /// Puts the tree of the last build into its place, when everything is the same.
    #[must_use]
    pub fn restore(&self) -> Restored {
        let path = self.cache.join(RECORD);
        if fs::symlink_metadata(&path).is_err() {
            return Restored::Nothing;
        }
        match self.try_restore(&path) {
            Ok(()) => Restored::Taken,
            Err(reason) => Restored::Dropped(reason),
        }
    }

    fn try_restore(&self, path: &Path) -> Result<(), String> {
        let unreadable = |error: &dyn std::fmt::Display| format!("its record cannot be read ({error})");
        let mut text = Vec::new();
        let file = open(path, MAX_RECORD).map_err(|error| unreadable(&error))?;
        file.take(MAX_RECORD).read_to_end(&mut text).map_err(|error| unreadable(&error))?;
        // First the version alone: the rest of another one may have another form.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        if value.get("version").and_then(serde_json::Value::as_u64) != Some(VERSION.into()) {
            return Err("it was left by another version of the platform".into());
        }
        let record: Record = serde_json::from_value(value).map_err(|error| unreadable(&error))?;
        if let Some(difference) = self.facts.difference(&record.facts) {
            return Err(difference);
        }
        if !self.variables.are(&record.variables) {
            return Err("environment variables or settings that an installation sees have changed".into());
        }
        let part = match &record.tree {
            None => None,
            Some(tree) => Some(self.unpack(tree)?),
        };
        let placed = remove(&self.place).and_then(|()| match &part {
            Some(part) => fs::rename(part, &self.place),
            None => Ok(()),
        });
        placed.map_err(|error| {
            if let Some(part) = &part {
                // What cannot be removed here is in the droplet's way, and the package manager will say so.
                let _ = fs::remove_dir_all(part);
            }
            format!("it could not be put into its place ({error})")
        })
    }

    /// The tree in a directory beside its place.
    fn unpack(&self, tree: &Tree) -> Result<PathBuf, String> {
        let unreadable = |error: io::Error| format!("its archive cannot be read ({error})");
        let mut file = open(&self.cache.join(ARCHIVE), MAX_TREE).map_err(unreadable)?;
        let mut hash = HashingWriter::new(io::sink());
        io::copy(&mut file, &mut hash).and_then(|_| file.rewind()).map_err(unreadable)?;
        let (_, digest, _) = hash.finish();
        if digest.to_string() != tree.sha256 {
            return Err("its archive is damaged: it is not the one that the record speaks of".into());
        }
        let limits = Limits { max_bytes: tree.unpacked.min(MAX_TREE), max_entries: self.max_entries };
        let part = self.beside().map_err(|error| format!("there is no place to unpack it ({error})"))?;
        match unpack_open(file, &part, limits, LinkPolicy::Inside) {
            Ok(_) => Ok(part),
            Err(error) => {
                // As above.
                let _ = fs::remove_dir_all(&part);
                Err(format!("its archive cannot be used ({error})"))
            }
        }
    }

    /// A new directory on the same file system as the tree's place. Its name is one that was free.
    fn beside(&self) -> io::Result<PathBuf> {
        let parent = self.place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let mut number = 0;
        loop {
            let part = parent.join(format!(".slipway-part-{number}"));
            match fs::create_dir(&part) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                made => return made.map(|()| part),
            }
        }
    }

    /// Leaves the tree for the next build. On an error nothing is left: the record is written last.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn keep(&self) -> Result<(), String> {
        self.forget();
        let partial = self.cache.join(format!("{ARCHIVE}.part"));
        let result = self.try_keep(&partial);
        if result.is_err() {
            // A leftover of the cache, without a record: the next build removes it.
            let _ = fs::remove_file(&partial);
        }
        result
    }

    fn try_keep(&self, partial: &Path) -> Result<(), String> {
        let write = |error: io::Error| format!("the build cache cannot be written ({error})");
        let tree = if fs::symlink_metadata(&self.place).is_ok() {
            let take = |path: &Path| !self.leave.iter().any(|name| name == path);
            let options = PackOptions {
                owners: OWNER,
                times: TIME,
                take: &take,
                // A tree that would come back without them is another tree.
                skip_special: false,
                max_bytes: MAX_TREE,
                durable: false,
            };
            if !fs::symlink_metadata(&self.place).is_ok_and(|place| place.is_dir()) {
                return Err("it is no directory".into());
            }
            let packed = pack(&self.place, partial, &options).map_err(|error| error.to_string())?;
            if packed.paths.len() as u64 > self.max_entries {
                return Err(format!("it has more than {} files", self.max_entries));
            }
            fs::rename(partial, self.cache.join(ARCHIVE)).map_err(write)?;
            Some(Tree { sha256: packed.blob.to_string(), unpacked: packed.size })
        } else {
            None
        };
        let variables = self.variables.seal().map_err(write)?;
        let record = Record { version: VERSION, facts: self.facts.clone(), variables, tree };
        let text = serde_json::to_vec(&record).map_err(|error| write(error.into()))?;
        let temporary = self.cache.join(format!("{RECORD}.part"));
        fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, self.cache.join(RECORD))).map_err(write)
    }

    /// Removes what is in the cache: it is not true any more, or will be written again.
    pub fn forget(&self) {
        forget(self.cache);
    }
}

/// Whether this is the name of a cached tree or of its record.
#[must_use]
pub fn is_cached_tree(name: &std::ffi::OsStr) -> bool {
    name == RECORD || name == ARCHIVE
}

/// Removes what any build has left in this buildpack's part of the cache.
pub fn forget(cache: &Path) {
    for name in [RECORD, ARCHIVE] {
        for path in [cache.join(name), cache.join(format!("{name}.part"))] {
            // What is not a file and cannot be removed is not used either: it is opened as a file only.
            let _ = remove(&path);
        }
    }
}

/// Opens a regular file of at most `most` bytes, without following a link and without waiting for a pipe's other end.
fn open(path: &Path, most: u64) -> io::Result<File> {
    let file = open_as(path, OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
    match file.metadata()?.len() {
        size if size > most => Err(io::Error::other(format!("it has {size} bytes, more than {most}"))),
        _ => Ok(file),
    }
}

fn open_as(path: &Path, flags: OFlags) -> io::Result<File> {
    let file = File::from(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// Removes whatever has this name; a link, not what it leads to.
///
/// # Errors
/// When it is there and stays.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Digest of a file of the app, followed by nothing; `None` when it is not there.
///
/// # Errors
/// When it is no regular file, or cannot be read.
pub fn digest_of(path: &Path) -> io::Result<Option<Digest>> {
    match open(path, u64::MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(mut file) => {
            let mut hash = HashingWriter::new(io::sink());
            io::copy(&mut file, &mut hash)?;
            Ok(Some(hash.finish().1))
        }
    }
}

#[cfg(test)]
mod tests;
