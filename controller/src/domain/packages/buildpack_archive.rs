//! What an uploaded buildpack says about itself: the stack it was made for. Whether its programs work is seen at staging,
//! where the developer sees the error.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::directory;
use crate::domain::manifest::yaml;

/// A manifest names dependencies by the hundred; more than this is none.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildpackFacts {
    /// `stack` of its `manifest.yml`.
    pub stack: Option<String>,
}

/// Why an archive is no buildpack.
#[derive(Debug, thiserror::Error)]
pub enum BuildpackArchiveError {
    /// It cannot be read as a zip, or an entry is damaged.
    #[error("{0}")]
    Unreadable(String),
    /// Its manifest cannot be read.
    #[error("its manifest.yml cannot be read: {0}")]
    Manifest(String),
}

/// Looks into an archive that was judged ([`super::archive::judge`]) with at most so many entries. Blocking: call it from a blocking task.
///
/// # Errors
/// See [`BuildpackArchiveError`].
pub fn facts(path: &Path, most_entries: u64) -> Result<BuildpackFacts, BuildpackArchiveError> {
    let unreadable = |error: &dyn std::fmt::Display| BuildpackArchiveError::Unreadable(error.to_string());
    let mut archive = directory::open(path, most_entries).map_err(|error| unreadable(&error))?;
    let names: Vec<String> = archive
        .file_names()
        // A name that is not text becomes empty and so matches nothing. It stays in the list, because entries are read by index.
        .map(|name| name.map(|name| name.trim_start_matches("./").to_owned()).unwrap_or_default())
        .collect();
    let wanted = format!("{}manifest.yml", top(&names));
    let Some(index) = names.iter().position(|name| *name == wanted) else { return Ok(BuildpackFacts::default()) };
    let mut text = String::new();
    let entry = archive.by_index(index).map_err(|error| unreadable(&error))?;
    entry
        .take(MAX_MANIFEST_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| BuildpackArchiveError::Manifest(error.to_string()))?;
    if text.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(BuildpackArchiveError::Manifest(format!("it has more than {MAX_MANIFEST_BYTES} bytes")));
    }
    let manifest = yaml::parse(&text).map_err(|error| BuildpackArchiveError::Manifest(error.to_string()))?;
    let stack = manifest.get("stack").and_then(Value::as_str).filter(|stack| !stack.is_empty());
    Ok(BuildpackFacts { stack: stack.map(ToOwned::to_owned) })
}

/// The directory around everything, as archives of a repository have it: with its slash, or empty.
fn top(names: &[String]) -> String {
    if names.iter().any(|name| name.starts_with("bin/")) {
        return String::new();
    }
    let first = names.first().and_then(|name| name.split_once('/')).map(|(first, _)| format!("{first}/"));
    first.filter(|first| names.iter().all(|name| name.starts_with(first.as_str()))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn facts_of(files: &[(&str, &str)]) -> Result<BuildpackFacts, BuildpackArchiveError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("b.zip");
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("a file"));
        for (name, text) in files {
            zip.start_file(*name, SimpleFileOptions::default()).expect("an entry");
            zip.write_all(text.as_bytes()).expect("content");
        }
        zip.finish().expect("a zip");
        facts(&path, 10)
    }

    #[test]
    fn the_stack_comes_from_the_manifest() {
        let stack = |files| facts_of(files).expect("a buildpack").stack;
        assert_eq!(
            stack(&[("bin/compile", ""), ("manifest.yml", "---\nstack: cflinuxfs4\n")]).as_deref(),
            Some("cflinuxfs4")
        );
        assert_eq!(stack(&[("bin/compile", ""), ("manifest.yml", "language: x\n")]), None);
        assert_eq!(stack(&[("b-1.0/bin/finalize", ""), ("b-1.0/manifest.yml", "stack: s")]).as_deref(), Some("s"));
        assert_eq!(stack(&[("bin/supply", "")]), None);
    }

    #[test]
    fn an_unreadable_archive_is_reported() {
        let bad = facts_of(&[("bin/compile", ""), ("manifest.yml", "a: [")]);
        assert!(matches!(bad, Err(BuildpackArchiveError::Manifest(_))));
        let long = format!("# {}", "x".repeat(4 << 20));
        let bad = facts_of(&[("bin/compile", ""), ("manifest.yml", &long)]);
        assert!(matches!(bad, Err(BuildpackArchiveError::Manifest(text)) if text.contains("more than 4194304 bytes")));
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("x"), "no zip").expect("a file");
        assert!(matches!(facts(&directory.path().join("x"), 10), Err(BuildpackArchiveError::Unreadable(_))));
    }
}
