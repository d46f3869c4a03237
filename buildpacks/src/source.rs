//! The source as detection sees it: names and small files, never more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files larger than this are not read while planning.
const READ_LIMIT: u64 = 8 << 20;

/// A view of the app's files. Paths are relative.
pub trait Source {
    /// A regular file (not a link out of the app) is there.
    fn has(&self, path: &str) -> bool;
    /// Its text, when it is there and is text of a sensible size.
    fn read(&self, path: &str) -> Option<String>;
    /// First bytes of a file.
    fn starts_with(&self, path: &str, bytes: &[u8]) -> bool;
    /// Names in a directory, sorted, directories with a slash at the end; at most `limit`. None when there is no such directory.
    fn below(&self, directory: &str, limit: usize) -> Vec<String>;
    /// The same at the top.
    fn top(&self, limit: usize) -> Vec<String> {
        self.below("", limit)
    }
}

/// The source in a directory.
#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    /// The path, when it is a regular file below the directory.
    fn file(&self, path: &str) -> Option<PathBuf> {
        let full = self.0.join(path);
        fs::symlink_metadata(&full).ok()?.is_file().then_some(full)
    }
}

impl Source for Directory {
    fn has(&self, path: &str) -> bool {
        self.file(path).is_some()
    }

    fn read(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.file(path)?).ok()?.take(READ_LIMIT).read_to_string(&mut text).ok()?;
        Some(text.trim_start_matches('\u{feff}').to_owned())
    }

    fn starts_with(&self, path: &str, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        self.file(path)
            .and_then(|path| File::open(path).ok())
            .is_some_and(|mut file| file.read_exact(&mut found).is_ok() && found == bytes)
    }

    fn below(&self, directory: &str, limit: usize) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join(directory)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| {
                let slash = if entry.path().is_dir() { "/" } else { "" };
                format!("{}{slash}", entry.file_name().to_string_lossy())
            })
            .collect();
        names.sort();
        names.truncate(limit);
        names
    }
}

/// A source in memory: path to text.
#[derive(Clone, Debug, Default)]
pub struct Listing(pub BTreeMap<String, String>);

impl Listing {
    /// From pairs of path and text.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

impl Source for Listing {
    fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }
    fn starts_with(&self, path: &str, bytes: &[u8]) -> bool {
        self.0.get(path).is_some_and(|text| text.as_bytes().starts_with(bytes))
    }
    fn below(&self, directory: &str, limit: usize) -> Vec<String> {
        let within = |path: &String| match directory {
            "" => Some(path.clone()),
            directory => path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned),
        };
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(within)
            .map(|path| path.split_once('/').map(|(first, _)| format!("{first}/")).unwrap_or(path))
            .collect();
        names.dedup();
        names.truncate(limit);
        names
    }
}

/// A path as the listing has it: `./server` is `server`.
#[must_use]
pub fn plain(path: &str) -> &str {
    Path::new(path).strip_prefix("./").ok().and_then(Path::to_str).unwrap_or(path)
}
