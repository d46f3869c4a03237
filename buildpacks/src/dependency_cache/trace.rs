//! Whether anything below a directory was written between two moments, from the file system's own records.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// What a write cannot leave as it was: nobody sets a file's change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    mode: u32,
    /// Inode, length and change time; nothing of a directory, whose own times change with every entry.
    content: Option<(u64, u64, i64, i64)>,
}

/// The entries below a directory at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(BTreeMap<PathBuf, Stamp>);

impl Trace {
    /// Of everything below `root` but `leave` (whole paths) and what is below those.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn of(root: &Path, leave: &[PathBuf]) -> io::Result<Self> {
        let mut stamps = BTreeMap::new();
        let walk = WalkDir::new(root).min_depth(1).follow_links(false).into_iter();
        for entry in walk.filter_entry(|entry| !leave.iter().any(|path| path == entry.path())) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let content =
                (!metadata.is_dir()).then(|| (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()));
            stamps.insert(entry.into_path(), Stamp { mode: metadata.mode(), content });
        }
        Ok(Self(stamps))
    }

    /// The first path that is not as it was at the other moment.
    #[must_use]
    pub fn difference<'t>(&'t self, other: &'t Self) -> Option<&'t Path> {
        let changed = self.0.iter().find(|(path, stamp)| other.0.get(*path) != Some(*stamp));
        let gone = || other.0.keys().find(|path| !self.0.contains_key(*path));
        changed.map(|(path, _)| path).or_else(gone).map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_kind_of_write_is_seen_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("left/out")).unwrap();
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/file"), "one").unwrap();
        let leave = [at("left")];
        let trace = || Trace::of(root, &leave).unwrap();
        let mut last = trace();
        fs::write(at("left/out/new"), "x").unwrap();
        fs::read(at("d/file")).unwrap();
        assert_eq!(trace().difference(&last), None);
        let writes: [(&str, &str, &dyn Fn()); 6] = [
            ("a file more", "d/more", &|| fs::write(at("d/more"), "").unwrap()),
            ("another content", "d/file", &|| fs::write(at("d/file"), "three").unwrap()),
            ("another file of the same name", "d/file", &|| {
                fs::write(at("left/new"), "three").unwrap();
                fs::rename(at("left/new"), at("d/file")).unwrap();
            }),
            ("permissions", "d", &|| fs::set_permissions(at("d"), fs::Permissions::from_mode(0o700)).unwrap()),
            ("a link", "d/link", &|| std::os::unix::fs::symlink("file", at("d/link")).unwrap()),
            ("a file less", "d/more", &|| fs::remove_file(at("d/more")).unwrap()),
        ];
        for (name, path, write) in writes {
            write();
            let now = trace();
            assert_eq!(now.difference(&last), Some(at(path).as_path()), "{name}");
            last = now;
        }
    }
}
