//! Which files belong to an app, and what they are: found, filtered by `.cfignore` or what git ignores, hashed. Nothing
//! outside the app's directory is ever read, whatever links say, but for the `.gitignore` files of its checkout.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use nix::fcntl::OFlag;
use sha1::{Digest, Sha1};
use walkdir::WalkDir;

use super::checkout::{Checkout, FileWarnings, doubtful};
use crate::error::CliError;
use crate::printer::Printer;
use crate::size::human;

/// What Cloud Foundry never uploads, at any depth.
const DEFAULT_IGNORES: &[&str] =
    &[".cfignore", ".DS_Store", ".git", ".gitignore", ".hg", ".svn", "_darcs", "manifest.yml", "manifest.yaml"];

/// The app's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The path does not exist.
    #[error("There is nothing at {}", path.display())]
    NoSuchPath {
        /// What was named.
        path: PathBuf,
    },
    /// A file that is not an archive.
    #[error("{} is neither a directory nor a zip archive", path.display())]
    NotAnArchive {
        /// What was named.
        path: PathBuf,
    },
    /// No file is left after `.cfignore`.
    #[error("There are no files to push in {}", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A link that leads out of the app.
    #[error("'{path}' is a link to {target}, outside the app's directory{}", if *more > 0 { format!(" (and {more} more such links)") } else { String::new() })]
    OutsideLink {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
        /// How many others there are.
        more: usize,
    },
    /// A name that a zip archive cannot hold.
    #[error("The name of {} is not valid UTF-8", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A pattern that makes no sense.
    #[error("Cannot understand {}", path.display())]
    Ignore {
        /// The file with the patterns.
        path: PathBuf,
        /// Which one.
        source: ignore::Error,
    },
    /// A file cannot be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("Cannot pack the files")]
    Pack {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A thread ended abnormally.
    #[error("The checksums of the files could not be computed: a thread ended abnormally")]
    Hash,
    /// The command was interrupted meanwhile.
    #[error("Interrupted")]
    Cancelled,
}

/// What lies at a path of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file: bytes and SHA-1 in hex.
    File { size: u64, sha1: String },
    /// A link and where it leads.
    Link { target: String },
    /// A directory with nothing in it.
    EmptyDirectory,
}

/// One entry of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Inside the app, with `/`.
    pub(super) path: String,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

/// What is pushed.
#[derive(Debug)]
pub(super) enum Source {
    /// A directory with the entries found in it.
    Directory { root: PathBuf, entries: Vec<Entry> },
    /// An archive that is sent as it is.
    Archive { file: PathBuf, size: u64 },
}

/// Refuses a path that cannot be pushed, without reading it.
pub(crate) fn check_path(path: &Path) -> Result<(), FilesError> {
    match std::fs::metadata(path) {
        Ok(data) if data.is_dir() => Ok(()),
        Ok(_) => {
            is_zip(path).and_then(|zip| if zip { Ok(()) } else { Err(FilesError::NotAnArchive { path: path.into() }) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FilesError::NoSuchPath { path: path.into() }),
        Err(source) => Err(FilesError::Read { path: path.into(), source }),
    }
}

fn is_zip(path: &Path) -> Result<bool, FilesError> {
    let mut magic = [0; 4];
    let read = |source| FilesError::Read { path: path.to_owned(), source };
    match File::open(path).map_err(read)?.read_exact(&mut magic) {
        Ok(()) => Ok(matches!(&magic, b"PK\x03\x04" | b"PK\x05\x06")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(read(error)),
    }
}

impl Source {
    /// Looks at a path, on threads of its own.
    pub(super) async fn find(path: &Path, printer: &Printer) -> Result<Self, CliError> {
        let path = path.to_owned();
        let (source, remarks) =
            tokio::task::spawn_blocking(move || Self::read(&path)).await.map_err(CliError::Panicked)??;
        for path in &remarks.skipped {
            printer.warn(&format!("'{path}' is neither file, directory nor link and is left out"));
        }
        if let Some(text) = remarks.left_out() {
            printer.say(&text);
        }
        for text in remarks.doubtful() {
            printer.warn(&text);
        }
        let text = match &source {
            Self::Directory { entries, .. } => {
                let total = entries.iter().map(Entry::size).sum();
                format!(
                    "Found {} {} ({}).",
                    entries.len(),
                    if entries.len() == 1 { "file" } else { "files" },
                    human(total)
                )
            }
            Self::Archive { size, .. } => format!("Found an archive ({}).", human(*size)),
        };
        printer.say(&text);
        Ok(source)
    }

    fn read(path: &Path) -> Result<(Self, FileWarnings), FilesError> {
        check_path(path)?;
        let data = std::fs::metadata(path).map_err(|source| FilesError::Read { path: path.into(), source })?;
        if !data.is_dir() {
            return Ok((Self::Archive { file: path.into(), size: data.len() }, FileWarnings::default()));
        }
        let (mut entries, remarks) = scan(path)?;
        if entries.is_empty() {
            return Err(FilesError::Empty { path: path.into() });
        }
        hash(path, &mut entries)?;
        Ok((Self::Directory { root: path.into(), entries }, remarks))
    }
}

impl Entry {
    /// Bytes of content.
    pub(super) fn size(&self) -> u64 {
        match &self.kind {
            Kind::File { size, .. } => *size,
            Kind::Link { .. } | Kind::EmptyDirectory => 0,
        }
    }
}

/// Finds the entries below a directory, in the order of their names, without their hashes.
fn scan(root: &Path) -> Result<(Vec<Entry>, FileWarnings), FilesError> {
    let (ignored, has_cfignore) = patterns(root)?;
    let mut git = if has_cfignore { None } else { Checkout::around(root) };
    let mut by_git = Vec::new();
    let mut entries = Vec::new();
    let mut skipped = Vec::new();
    let mut directories: Vec<(String, u32)> = Vec::new();
    let mut occupied: HashSet<String> = HashSet::new();
    let mut outside: Vec<(String, String)> = Vec::new();
    let walk = WalkDir::new(root).min_depth(1).follow_links(false).follow_root_links(true).sort_by_file_name();
    let mut walk = walk.into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| FilesError::Read {
            path: error.path().unwrap_or(root).to_owned(),
            source: error.into_io_error().unwrap_or_else(|| io::Error::other("links in a circle")),
        })?;
        let read = |source| FilesError::Read { path: entry.path().to_owned(), source };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let is_directory = entry.file_type().is_dir();
        let out = if ignored.matched(relative, is_directory).is_ignore() {
            true
        } else if git.as_mut().is_some_and(|git| git.ignores(relative, is_directory)) {
            by_git.push(relative.display().to_string());
            true
        } else {
            false
        };
        if out {
            if is_directory {
                walk.skip_current_dir();
            }
            continue;
        }
        let path = relative.to_str().ok_or_else(|| FilesError::Name { path: entry.path().to_owned() })?.to_owned();
        let data = entry
            .metadata()
            .map_err(|error| read(error.into_io_error().unwrap_or_else(|| io::Error::other("links in a circle"))))?;
        let mode = data.mode() & 0o777;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let kind = if data.is_dir() {
            occupied.insert(parent.to_owned());
            directories.push((path, mode));
            continue;
        } else if data.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(read)?;
            let text = target.to_str().ok_or_else(|| FilesError::Name { path: entry.path().to_owned() })?;
            if leads_outside(parent, &target) {
                outside.push((path, text.to_owned()));
                continue;
            }
            Kind::Link { target: text.to_owned() }
        } else if data.is_file() {
            Kind::File { size: data.len(), sha1: String::new() }
        } else {
            skipped.push(path);
            continue;
        };
        occupied.insert(parent.to_owned());
        entries.push(Entry { path, mode, kind });
    }
    if let Some((path, target)) = outside.first().cloned() {
        return Err(FilesError::OutsideLink { path, target, more: outside.len() - 1 });
    }
    let empty = directories.into_iter().filter(|(path, _)| !occupied.contains(path));
    entries.extend(empty.map(|(path, mode)| Entry { path, mode, kind: Kind::EmptyDirectory }));
    let doubtful = if has_cfignore { Vec::new() } else { doubtful(root, &entries) };
    let remarks = FileWarnings { skipped, by_git, asks_git: git.is_some(), doubtful };
    Ok((entries, remarks))
}

/// What never goes along and what `.cfignore` names; and whether there is one.
fn patterns(root: &Path) -> Result<(Gitignore, bool), FilesError> {
    let file = root.join(".cfignore");
    // Matched against relative paths, so the root of the patterns is the empty path.
    let mut builder = GitignoreBuilder::new("");
    let fail = |source| FilesError::Ignore { path: file.clone(), source };
    for pattern in DEFAULT_IGNORES {
        builder.add_line(None, pattern).map_err(fail)?;
    }
    let mut there = false;
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            there = true;
            for line in text.lines() {
                builder.add_line(None, line).map_err(fail)?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FilesError::Read { path: file, source }),
    }
    Ok((builder.build().map_err(fail)?, there))
}

/// Whether a link in the directory `parent` leads out of the app, by its text alone.
fn leads_outside(parent: &str, target: &Path) -> bool {
    let mut depth = parent.split('/').filter(|part| !part.is_empty()).count();
    for part in target.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
        }
    }
    false
}

/// Opens a file of the app; a link put in its place meanwhile is not followed.
pub(super) fn open(root: &Path, path: &str) -> Result<File, FilesError> {
    let full = root.join(path);
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits())
        .open(&full)
        .map_err(|source| FilesError::Read { path: full, source })
}

/// Fills in the SHA-1 of each file, on as many threads as there are cores.
fn hash(root: &Path, entries: &mut [Entry]) -> Result<(), FilesError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(entries.len().div_ceil(16)).max(1);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, u64, String)>> = Mutex::new(Vec::with_capacity(entries.len()));
    let shared: &[Entry] = entries;
    std::thread::scope(|scope| {
        let worker = || -> Result<(), FilesError> {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = shared.get(index) else { break };
                if matches!(entry.kind, Kind::File { .. }) {
                    let (size, sha1) = hash_one(root, &entry.path)?;
                    own.push((index, size, sha1));
                }
            }
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            // What it panicked with went to standard error.
            worker.join().unwrap_or(Err(FilesError::Hash))
        })
    })?;
    for (index, size, sha1) in results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        entries[index].kind = Kind::File { size, sha1 };
    }
    Ok(())
}

fn hash_one(root: &Path, path: &str) -> Result<(u64, String), FilesError> {
    let mut file = open(root, path)?;
    let mut sha1 = Sha1::new();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex::encode(sha1.finalize()))),
            Ok(count) => {
                sha1.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(FilesError::Read { path: root.join(path), source }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory with these files; a name that ends in `/` is a directory.
    pub(in crate::push) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, content) in files {
            let path = directory.path().join(name);
            if name.ends_with('/') {
                std::fs::create_dir_all(path).expect("directory");
            } else {
                std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
                std::fs::write(path, content).expect("file");
            }
        }
        directory
    }

    fn paths(root: &Path) -> Vec<String> {
        scan(root).expect("scanned").0.into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn cfignore_and_the_defaults_leave_files_out() {
        let app = tree(&[
            (".cfignore", "*.log\n!keep.log\n/build\nnode_modules/\n# a comment\n\ndocs/*.md\n"),
            (".git/config", ""),
            ("sub/.git/HEAD", ""),
            (".gitignore", ""),
            ("manifest.yml", ""),
            ("sub/manifest.yml", ""),
            (".DS_Store", ""),
            ("a.log", ""),
            ("sub/b.log", ""),
            ("keep.log", ""),
            ("build/out", ""),
            ("sub/build/in", ""),
            ("node_modules/x/y.js", ""),
            ("docs/a.md", ""),
            ("docs/b.txt", ""),
            (".hidden", ""),
            ("main.js", ""),
        ]);
        assert_eq!(paths(app.path()), [".hidden", "docs/b.txt", "keep.log", "main.js", "sub/build/in"]);
    }

    #[test]
    fn in_a_checkout_without_cfignore_git_decides_and_the_screen_says_so() {
        let top = tree(&[
            (".git/info/exclude", "private\n"),
            (".gitignore", "*.log\n/dist\n[z-a]\n"),
            ("app/.gitignore", "node_modules/\n.env\n!keep.log\n"),
            ("app/a.log", ""),
            ("app/keep.log", ""),
            ("app/.env", ""),
            ("app/private", ""),
            ("app/node_modules/x/y.js", ""),
            ("app/sub/.gitignore", "/local\n"),
            ("app/sub/local", ""),
            ("app/sub/deep/local", ""),
            ("app/main.js", ""),
            ("dist/index.html", ""),
            ("dist/out.log", ""),
        ]);
        let (entries, remarks) = scan(&top.path().join("app")).expect("scanned");
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["keep.log", "main.js", "sub/deep/local"]);
        let text = remarks.left_out().expect("a line");
        assert_eq!(
            text,
            "Left out as .gitignore says: .env, a.log, node_modules, private and 1 more. A .cfignore would decide in its place, alone."
        );
        assert!(remarks.doubtful().is_empty());
        // Built files that git ignores as a whole are what is pushed: what lies above has no say.
        assert_eq!(self::paths(&top.path().join("dist")), ["index.html", "out.log"]);
        // By a link it is the same checkout.
        let elsewhere = tree(&[]);
        symlink(top.path().join("app"), elsewhere.path().join("link")).expect("link");
        assert_eq!(self::paths(&elsewhere.path().join("link")), paths);
        std::fs::write(top.path().join("app/.cfignore"), "main.js\n").expect("written");
        let (entries, remarks) = scan(&top.path().join("app")).expect("scanned");
        assert!(entries.iter().any(|entry| entry.path == ".env") && remarks.left_out().is_none());
    }

    #[test]
    fn files_that_are_usually_not_meant_are_named() {
        let app = tree(&[
            ("package.json", ""),
            ("node_modules/x.js", ""),
            ("Cargo.toml", ""),
            ("target/debug/x", ""),
            (".env", ""),
            ("venv/bin/python", ""),
        ]);
        let remarks = scan(app.path()).expect("scanned").1;
        let named: Vec<&str> = remarks.doubtful.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(named, ["node_modules", "target", "venv", ".env"]);
        std::fs::write(app.path().join(".cfignore"), "target\n").expect("written");
        assert!(scan(app.path()).expect("scanned").1.doubtful.is_empty(), "whoever has a .cfignore has decided");
    }

    #[test]
    fn modes_links_and_empty_directories_are_preserved() {
        let app = tree(&[("bin/run", "#!/bin/sh\n"), ("empty/", ""), ("full/file", "x")]);
        std::fs::set_permissions(app.path().join("bin/run"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        symlink("../bin/run", app.path().join("full/link")).expect("link");
        let Source::Directory { entries, .. } = Source::read(app.path()).expect("read").0 else {
            panic!("a directory")
        };
        let run = entries.iter().find(|entry| entry.path == "bin/run").expect("run");
        assert_eq!(run.mode, 0o755);
        assert_eq!(
            run.kind,
            Kind::File { size: 10, sha1: "f77b4e5ce4ef9b3bd7b1b8d9cc0ae3b1a2a4b6d0".into() }
                .with_sha1_of("#!/bin/sh\n")
        );
        let link = entries.iter().find(|entry| entry.path == "full/link").expect("link");
        assert_eq!(link.kind, Kind::Link { target: "../bin/run".into() });
        assert!(entries.iter().any(|entry| entry.path == "empty" && entry.kind == Kind::EmptyDirectory));
        assert!(!entries.iter().any(|entry| entry.path == "full"));
    }

    impl Kind {
        fn with_sha1_of(self, content: &str) -> Self {
            match self {
                Self::File { size, .. } => Self::File { size, sha1: hex::encode(Sha1::digest(content)) },
                other => other,
            }
        }
    }

    #[test]
    fn links_that_lead_out_stop_the_push() {
        for target in ["/etc/passwd", "../outside", "sub/../../outside"] {
            let app = tree(&[("file", "x"), ("sub/inner", "y")]);
            symlink(target, app.path().join("bad")).expect("link");
            let error = scan(app.path()).expect_err(target);
            assert!(matches!(&error, FilesError::OutsideLink { path, .. } if path == "bad"), "{error}");
        }
        // Ignored, it does no harm; and `..` inside the app is fine.
        let app = tree(&[("file", "x"), (".cfignore", "bad"), ("sub/inner", "y")]);
        symlink("/etc/passwd", app.path().join("bad")).expect("link");
        symlink("../file", app.path().join("sub/good")).expect("link");
        assert_eq!(paths(app.path()), ["file", "sub/good", "sub/inner"]);
    }

    #[test]
    fn a_linked_directory_is_not_walked() {
        let outside = tree(&[("secret", "s")]);
        let app = tree(&[("real/file", "x")]);
        symlink("real", app.path().join("alias")).expect("link");
        assert_eq!(paths(app.path()), ["alias", "real/file"]);
        symlink(outside.path(), app.path().join("out")).expect("link");
        assert!(matches!(scan(app.path()), Err(FilesError::OutsideLink { .. })));
    }

    #[test]
    fn sockets_and_pipes_are_named_and_left_out() {
        let app = tree(&[("file", "x")]);
        nix::unistd::mkfifo(&app.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        let (entries, remarks) = scan(app.path()).expect("scanned");
        assert_eq!((entries.len(), remarks.skipped), (1, vec!["pipe".to_owned()]));
    }

    #[test]
    fn a_path_that_is_no_app_is_refused() {
        let app = tree(&[("plain.txt", "text"), ("short", "P"), ("only/.git/x", "")]);
        let refused = |name: &str| Source::read(&app.path().join(name)).expect_err(name);
        assert!(matches!(refused("plain.txt"), FilesError::NotAnArchive { .. }));
        assert!(matches!(refused("short"), FilesError::NotAnArchive { .. }));
        assert!(matches!(refused("nothing"), FilesError::NoSuchPath { .. }));
        assert!(matches!(Source::read(tree(&[(".gitignore", "")]).path()), Err(FilesError::Empty { .. })));
        std::fs::write(app.path().join(".cfignore"), "a[z-a]\n").expect("written");
        assert!(matches!(scan(app.path()), Err(FilesError::Ignore { .. })));
    }

    #[test]
    fn many_files_are_hashed_right() {
        let files: Vec<(String, String)> = (0..200).map(|n| (format!("f{n:03}"), format!("content {n}"))).collect();
        let list: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let app = tree(&list);
        let Source::Directory { entries, .. } = Source::read(app.path()).expect("read").0 else {
            panic!("a directory")
        };
        for (entry, (name, content)) in entries.iter().zip(&files) {
            assert_eq!(&entry.path, name);
            let sha1 = hex::encode(Sha1::digest(content));
            assert_eq!(entry.kind, Kind::File { size: content.len() as u64, sha1 });
        }
    }
}
