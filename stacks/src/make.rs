//! From a raw root to a layer: what is left out, what is checked, what is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use slipway_layers::elf::{self, Dynamic};
use slipway_layers::{MakeError, Owners, PackOptions, Packed, Times, pack};
use walkdir::WalkDir;

/// Why a root is no layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It would hide files of the stack: an OS patch would silently do nothing for its apps.
    #[error("{line} would replace what {below} owns: {paths}; leave these out of its recipe")]
    Shadows {
        /// The layer.
        line: String,
        /// The layer below.
        below: String,
        /// Which paths.
        paths: String,
    },
    /// It removes files of a layer below.
    #[error("{line} removes {path} of a layer below; leave that to the layer that owns it")]
    Removes {
        /// The layer.
        line: String,
        /// What.
        path: String,
    },
    /// Libraries that nobody has.
    #[error(
        "{line} needs libraries that neither it nor the layers below have; add their packages to the stack: {missing}"
    )]
    Library {
        /// The layer.
        line: String,
        /// `library (file)`, all of them.
        missing: String,
    },
    /// Packing failed.
    #[error("packing {line} failed")]
    Pack {
        /// The layer.
        line: String,
        /// The cause.
        #[source]
        source: MakeError,
    },
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

/// Left out of every layer: state of the package tools and of this host.
fn host_state(path: &str) -> bool {
    const TREES: [&str; 10] = [
        "dev/",
        "proc/",
        "sys/",
        "run/",
        "tmp/",
        "var/cache/",
        "var/lib/apt/",
        "root/",
        "var/tmp/",
        "var/lib/systemd/deb-systemd-helper-enabled",
    ];
    const FILES: [&str; 5] = [
        "etc/apt/apt.conf.d/99mmdebstrap",
        "usr/sbin/policy-rc.d",
        "etc/.pwd.lock",
        "var/lib/systemd",
        "var/log/journal",
    ];
    // A log directory is kept: a server that does not find its own does not start.
    TREES.iter().any(|tree| path.starts_with(tree))
        || FILES.contains(&path)
        || (path.starts_with("var/log/")
            && path.rsplit('/').next().is_some_and(|name| {
                name.contains(".log") || name == "faillog" || name == "lastlog" || name == "btmp" || name == "wtmp"
            }))
}

/// Left out of every layer but the stack: it owns them, and an installation above changes its copy.
fn stack_state(path: &str) -> bool {
    const TREES: [&str; 3] = ["var/lib/dpkg/", "var/lib/ucf/", "var/lib/pam/"];
    const FILES: [&str; 14] = [
        "etc/ld.so.cache",
        "etc/resolv.conf",
        "etc/passwd",
        "etc/passwd-",
        "etc/group",
        "etc/group-",
        "etc/shadow",
        "etc/shadow-",
        "etc/gshadow",
        "etc/gshadow-",
        "etc/subuid",
        "etc/subgid",
        "var/lib/dpkg",
        "etc/hosts",
    ];
    TREES.iter().any(|tree| path.starts_with(tree)) || FILES.contains(&path)
}

/// A root that becomes a layer.
pub(crate) struct Root<'a> {
    pub(crate) line: &'a str,
    pub(crate) stack: bool,
    pub(crate) build: bool,
    /// What the recipe made: a whole root, or the changes over those below.
    pub(crate) raw: &'a Path,
    /// Raw roots of the layers below, with their lines and what they provide, lowest first.
    pub(crate) below: Vec<(&'a str, PathBuf, Vec<String>)>,
    pub(crate) epoch: i64,
}

/// What was found on the way.
pub(crate) struct Made {
    pub(crate) packed: Packed,
    pub(crate) provides: Vec<String>,
    pub(crate) needs: Vec<String>,
}

impl Root<'_> {
    fn takes(&self, path: &Path) -> bool {
        let Some(text) = path.to_str() else { return true };
        !host_state(text) && (self.stack || !stack_state(text))
    }

    fn io(path: &Path) -> impl Fn(std::io::Error) -> LayerError {
        let path = path.to_owned();
        move |source| LayerError::Io { path: path.clone(), source }
    }

    /// Checks, writes the list of paths into the root, and packs it to `target`.
    pub(crate) fn make(&self, target: &Path) -> Result<Made, LayerError> {
        let paths = self.paths()?;
        self.shadows(&paths)?;
        let libraries = self.libraries(&paths)?;
        let provides: BTreeSet<String> = libraries.iter().flat_map(|(path, found)| names(path, found)).collect();
        let mut needs = BTreeSet::new();
        let known: BTreeSet<&str> = provides
            .iter()
            .chain(self.below.iter().flat_map(|(_, _, provides)| provides))
            .map(String::as_str)
            .collect();
        let mut missing = Vec::new();
        for (path, found) in &libraries {
            for library in found.needed.iter().filter(|library| !provides.contains(*library)) {
                // A compiler's own plug-ins are checked where they are used.
                if !known.contains(library.as_str()) && !self.build {
                    missing.push(format!("{library} ({})", path.display()));
                }
                needs.insert(library.clone());
            }
        }
        if !missing.is_empty() {
            return Err(LayerError::Library { line: self.line.to_owned(), missing: missing.join(", ") });
        }
        let list = self.raw.join(format!("usr/share/slipway/layers/{}.paths", self.line));
        let text: String = paths.iter().map(|path| format!("/{}\n", path.display())).collect();
        if let Some(parent) = list.parent() {
            fs::create_dir_all(parent).map_err(Self::io(parent))?;
        }
        fs::write(&list, text).map_err(Self::io(&list))?;
        let options = PackOptions {
            owners: Owners::Keep,
            times: Times::Clamp(self.epoch),
            take: &|path| self.takes(path),
            skip_special: self.stack,
            max_bytes: u64::MAX,
            durable: true,
        };
        let packed = pack(self.raw, target, &options)
            .map_err(|source| LayerError::Pack { line: self.line.to_owned(), source })?;
        Ok(Made { packed, provides: provides.into_iter().collect(), needs: needs.into_iter().collect() })
    }

    /// All files and links that the layer has, sorted, without directories.
    fn paths(&self) -> Result<Vec<PathBuf>, LayerError> {
        let mut paths = Vec::new();
        let strip = |path: &Path| path.strip_prefix(self.raw).unwrap_or(path).to_owned();
        let walk = WalkDir::new(self.raw).min_depth(1).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || self.takes(&strip(entry.path()))) {
            let entry = entry.map_err(|error| Self::io(self.raw)(error.into()))?;
            let path = strip(entry.path());
            let kind = entry.file_type();
            if kind.is_char_device() && !self.stack {
                return Err(LayerError::Removes { line: self.line.to_owned(), path: path.display().to_string() });
            }
            if !kind.is_dir() && !path.starts_with("usr/share/slipway") {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn shadows(&self, paths: &[PathBuf]) -> Result<(), LayerError> {
        for (line, root, _) in &self.below {
            let hidden: Vec<String> = paths
                .iter()
                .filter(|path| fs::symlink_metadata(root.join(path)).is_ok())
                .map(|path| path.display().to_string())
                .collect();
            if !hidden.is_empty() {
                let more = hidden.len().saturating_sub(20);
                let mut paths = hidden[..hidden.len() - more].join(", ");
                if more > 0 {
                    paths += &format!(" and {more} more");
                }
                return Err(LayerError::Shadows { line: self.line.to_owned(), below: (*line).to_owned(), paths });
            }
        }
        Ok(())
    }

    fn libraries(&self, paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Dynamic>, LayerError> {
        let mut found = BTreeMap::new();
        for path in paths {
            let full = self.raw.join(path);
            if fs::symlink_metadata(&full).map_err(Self::io(&full))?.is_file()
                && let Some(dynamic) = elf::dynamic(&full).map_err(Self::io(&full))?
            {
                found.insert(path.clone(), dynamic);
            }
        }
        Ok(found)
    }
}

/// Names under which a library is found: its own, and that of its file.
fn names(path: &Path, found: &Dynamic) -> Vec<String> {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_library = file.contains(".so");
    found.soname.iter().cloned().chain(is_library.then_some(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root<'a>(raw: &'a Path, below: &Path) -> Root<'a> {
        Root {
            line: "test-1",
            stack: false,
            build: false,
            raw,
            below: vec![("debian12", below.to_owned(), vec!["libc.so.6".into()])],
            epoch: 1_000_000_000,
        }
    }

    fn put(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn state_is_left_out_and_log_directories_stay() {
        let (raw, below, out) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["usr/bin/x", "var/lib/dpkg/status", "etc/passwd", "var/cache/apt/a", "var/log/x.log", "tmp/a"] {
            put(raw.path(), path, b"x");
        }
        put(below.path(), "etc/passwd", b"stack's own");
        fs::create_dir_all(raw.path().join("var/log/nginx")).unwrap();
        let made = root(raw.path(), below.path()).make(&out.path().join("l")).unwrap();
        let paths: Vec<_> = made.packed.paths.iter().map(|path| path.display().to_string()).collect();
        for wanted in ["usr/bin/x", "var/log/nginx", "usr/share/slipway/layers/test-1.paths"] {
            assert!(paths.iter().any(|path| path == wanted), "{wanted}: {paths:?}");
        }
        for dropped in ["var/lib/dpkg/status", "etc/passwd", "var/cache/apt", "var/log/x.log", "tmp/a"] {
            assert!(!paths.iter().any(|path| path == dropped), "{dropped}");
        }
        let list = fs::read_to_string(raw.path().join("usr/share/slipway/layers/test-1.paths")).unwrap();
        assert_eq!(list, "/usr/bin/x\n");
    }

    #[test]
    fn a_layer_never_hides_the_stack() {
        let (raw, below, out) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(raw.path(), "usr/lib/libssl.so.3", b"new");
        put(below.path(), "usr/lib/libssl.so.3", b"old");
        let refused = root(raw.path(), below.path()).make(&out.path().join("l"));
        assert!(matches!(refused, Err(LayerError::Shadows { paths, .. }) if paths == "usr/lib/libssl.so.3"));
    }

    #[test]
    fn a_library_that_nobody_has_is_named() {
        let (raw, below, out) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(raw.path(), "usr/bin/sh", &fs::read("/bin/sh").unwrap());
        let made = root(raw.path(), below.path()).make(&out.path().join("l")).unwrap();
        assert_eq!(made.needs, ["libc.so.6"]);
        let mut poor = root(raw.path(), below.path());
        poor.below[0].2.clear();
        assert!(
            matches!(poor.make(&out.path().join("l")), Err(LayerError::Library { missing, .. }) if missing == "libc.so.6 (usr/bin/sh)")
        );
    }
}
