//! What git ignores, and what else is said about the files of an app.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::files::Entry;

/// What is said about the files of an app.
#[derive(Debug, Default)]
pub(super) struct FileWarnings {
    /// What is neither file, directory nor link.
    pub(super) skipped: Vec<String>,
    /// What git ignores, and is therefore left out.
    pub(super) by_git: Vec<String>,
    /// Whether git's rules are asked: in a checkout without a `.cfignore`.
    pub(super) asks_git: bool,
    /// What is most often not meant to go along: path, why.
    pub(super) doubtful: Vec<(String, &'static str)>,
}

impl FileWarnings {
    /// What git ignores, in one line.
    pub(super) fn left_out(&self) -> Option<String> {
        const SHOWN: usize = 4;
        let names: Vec<&str> = self.by_git.iter().take(SHOWN).map(String::as_str).collect();
        let more = self.by_git.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| {
            format!(
                "Left out as .gitignore says: {}{more}. A .cfignore would decide in its place, alone.",
                names.join(", ")
            )
        })
    }

    /// What may not be meant, a line for each.
    pub(super) fn doubtful(&self) -> Vec<String> {
        // A first .cfignore would end what .gitignore does.
        let file = if self.asks_git { ".gitignore" } else { ".cfignore" };
        self.doubtful
            .iter()
            .map(|(path, why)| format!("'{path}' is uploaded as well: {why}. To leave it out, list it in {file}"))
            .collect()
    }
}

/// What is most often not meant to go along.
pub(super) fn doubtful(root: &Path, entries: &[Entry]) -> Vec<(String, &'static str)> {
    let has = |path: &str| entries.iter().any(|entry| entry.path == path);
    let below = |path: &str| {
        entries.iter().any(|entry| entry.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    let mut found = Vec::new();
    if below("node_modules") && has("package.json") {
        found.push(("node_modules".to_owned(), "the build installs packages itself"));
    }
    if below("target") && root.join("Cargo.toml").is_file() {
        found.push(("target".to_owned(), "it is what cargo has built"));
    }
    if below(".venv") || below("venv") {
        let name = if below(".venv") { ".venv" } else { "venv" };
        found.push((name.to_owned(), "it is a Python environment of this machine"));
    }
    if has(".env") {
        found.push((".env".to_owned(), "such files hold secrets, which `slipway set-env` keeps better"));
    }
    found
}

/// The git checkout in which an app lies, and what it ignores.
pub(super) struct Checkout {
    /// Where it begins.
    top: PathBuf,
    /// Whether the rules of the directories above the app hold: not when they ignore the app as a whole, as they do with a
    /// directory of built files.
    above: bool,
    root: PathBuf,
    known: HashMap<PathBuf, Option<Gitignore>>,
}

impl Checkout {
    /// The checkout of a directory, if it lies in one.
    pub(super) fn around(root: &Path) -> Option<Self> {
        let root = root.canonicalize().ok()?;
        let top = root.ancestors().find(|directory| directory.join(".git").exists())?.to_owned();
        let known = HashMap::new();
        let mut checkout = Self { top, above: true, root: root.clone(), known };
        let end = checkout.top.clone();
        let whole = root.ancestors().take_while(|directory| *directory != end).any(|place| {
            // Each directory between the top and the app may be ignored by those above it.
            checkout.rules_for(place, true) == Some(true)
        });
        checkout.above = !whole;
        Some(checkout)
    }

    /// Whether git ignores what is at a path inside the app. Its parents are asked before it.
    pub(super) fn ignores(&mut self, path: &Path, is_directory: bool) -> bool {
        // The app may have been named by a link, but none is followed inside.
        let path = self.root.join(path);
        self.rules_for(&path, is_directory) == Some(true)
    }

    /// What the nearest rule says about a path: to ignore it, not to, or nothing.
    fn rules_for(&mut self, path: &Path, is_directory: bool) -> Option<bool> {
        let (top, root, above) = (self.top.clone(), self.root.clone(), self.above);
        for directory in path.ancestors().skip(1) {
            if directory.starts_with(&root) || above {
                let rules =
                    self.known.entry(directory.to_owned()).or_insert_with(|| rules_of(directory, directory == top));
                let relative = path.strip_prefix(directory).unwrap_or(path);
                match rules.as_ref().map(|rules| rules.matched(relative, is_directory)) {
                    Some(found) if found.is_ignore() => return Some(true),
                    Some(found) if found.is_whitelist() => return Some(false),
                    _ => {}
                }
            }
            if directory == top {
                break;
            }
        }
        None
    }
}

/// The `.gitignore` of a directory; at the top of a checkout what is ignored on this machine only as well. Lines that make no
/// sense are left out, as git does it.
fn rules_of(directory: &Path, is_top: bool) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    let mut files = vec![directory.join(".gitignore")];
    if is_top {
        files.insert(0, directory.join(".git/info/exclude"));
    }
    let mut any = false;
    for text in files.iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        any = true;
        for line in text.lines() {
            let _ = builder.add_line(None, line);
        }
    }
    if any { builder.build().ok() } else { None }
}
