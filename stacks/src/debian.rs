//! Debian packages: a new root with mmdebstrap, or more packages in an overlay over existing roots.
//!
//! All of it runs in mount and process namespaces of its own (`run::contained`): there is nothing to clean up after a
//! failure or a Ctrl-C, because the mounts are gone with the last process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::host::{apt_options, apt_sources};
use crate::run::{RunError, contained, run};

/// Why packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The host has no sources of that suite.
    #[error("this host has no apt source for Debian {0}; add one below /etc/apt/sources.list.d, or give --mirror")]
    NoSource(String),
    /// A tool failed.
    #[error("installing Debian packages for {line} failed")]
    Tool {
        /// The layer.
        line: String,
        /// The cause.
        #[source]
        source: RunError,
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

/// The parts of an installation.
pub(crate) struct Install<'a> {
    pub(crate) line: &'a str,
    pub(crate) suite: &'a str,
    pub(crate) packages: &'a [String],
    pub(crate) script: &'a str,
    /// Sources given by the operator in place of the host's.
    pub(crate) mirrors: &'a [String],
    /// Empty directory for scripts and mount points.
    pub(crate) work: &'a Path,
    pub(crate) log: &'a Path,
    /// Seconds; makes Python's compiled files checked by content rather than by time.
    pub(crate) epoch: i64,
}

/// Documentation nobody reads inside a sandbox: a third of the image. Copyright files stay.
const LEAN: [&str; 4] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
];

impl Install<'_> {
    fn io(path: &Path) -> impl Fn(std::io::Error) -> DebianError {
        let path = path.to_owned();
        move |source| DebianError::Io { path: path.clone(), source }
    }

    /// Makes a new root at `target`.
    pub(crate) fn bootstrap(&self, target: &Path) -> Result<(), DebianError> {
        let mut files = Vec::new();
        let sources = if self.mirrors.is_empty() {
            apt_sources(self.suite)
        } else {
            let archive = "/usr/share/keyrings/debian-archive-keyring.gpg";
            let lines: String = self
                .mirrors
                .iter()
                .map(|mirror| match mirror.split_once(' ') {
                    Some(_) => format!("deb [signed-by={archive}] {mirror}\n"),
                    None => format!("deb [signed-by={archive}] {mirror} {} main\n", self.suite),
                })
                .collect();
            vec![("list", lines)]
        };
        if sources.is_empty() {
            return Err(DebianError::NoSource(self.suite.to_owned()));
        }
        for (number, (extension, text)) in sources.iter().enumerate() {
            let path = self.work.join(format!("source-{number}.{extension}"));
            fs::write(&path, text).map_err(Self::io(&path))?;
            files.push(path);
        }
        let script = self.work.join("finish.sh");
        fs::write(&script, format!("set -eu\n{}", self.script)).map_err(Self::io(&script))?;
        let mut command = contained("mmdebstrap");
        command.args(["--mode=root", "--variant=minbase", "--format=directory", "--skip=cleanup/apt/lists"]);
        command.arg(format!("--include={}", self.packages.join(",")));
        command.args(LEAN.map(|option| format!("--dpkgopt={option}")));
        command.args(apt_options().iter().map(|option| format!("--aptopt={option}")));
        command.arg("--aptopt=Apt::Install-Recommends \"false\"");
        command.arg(format!("--customize-hook=chroot \"$1\" sh -s < '{}'", script.display()));
        command.arg(self.suite).arg(target).args(&files);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        run(&mut command, None, self.log).map_err(|source| DebianError::Tool { line: self.line.to_owned(), source })
    }

    /// Installs into `upper`, over the roots in `lower` (lowest first).
    pub(crate) fn overlay(&self, lower: &[PathBuf], upper: &Path) -> Result<(), DebianError> {
        let root = self.work.join("root");
        let scratch = self.work.join("scratch");
        for path in [&root, &scratch, &upper.to_owned()] {
            fs::create_dir_all(path).map_err(Self::io(path))?;
        }
        let lower: Vec<String> = lower.iter().rev().map(|path| path.display().to_string()).collect();
        let script = format!(
            r#"set -eu
root='{root}'
mount -t overlay overlay -o 'lowerdir={lower},upperdir={upper},workdir={scratch},metacopy=off,redirect_dir=off,index=off' "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" /bin/sh -eu <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 SOURCE_DATE_EPOCH={epoch} PATH=/usr/sbin:/usr/bin:/sbin:/bin
{install}
{finish}
INSIDE
"#,
            root = root.display(),
            lower = lower.join(":"),
            upper = upper.display(),
            scratch = scratch.display(),
            epoch = self.epoch,
            install = if self.packages.is_empty() {
                String::new()
            } else {
                format!(
                    "apt-get -y -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0 install {}",
                    self.packages.join(" ")
                )
            },
            finish = self.script,
        );
        let path = self.work.join("install.sh");
        fs::write(&path, script).map_err(Self::io(&path))?;
        run(contained("sh").arg(&path), None, self.log)
            .map_err(|source| DebianError::Tool { line: self.line.to_owned(), source })
    }
}

/// Installed packages by name, as dpkg's status file of a root says; empty without one.
pub(crate) fn installed(root: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap_or_default();
    text.split("\n\n")
        .filter(|stanza| stanza.contains("\nStatus: install ok installed"))
        .filter_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            Some((field("Package:")?.to_owned(), field("Version:")?.to_owned()))
        })
        .collect()
}

/// The age of a root's package index, in unix seconds: the newest of its signed release files.
pub(crate) fn index_time(root: &Path) -> i64 {
    let Ok(entries) = fs::read_dir(root.join("var/lib/apt/lists")) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with("InRelease"))
        .filter_map(|entry| Some(std::os::unix::fs::MetadataExt::mtime(&entry.metadata().ok()?)))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_read_from_the_status_file() {
        let root = tempfile::tempdir().unwrap();
        assert!(installed(root.path()).is_empty());
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        fs::write(
            root.path().join("var/lib/dpkg/status"),
            "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n",
        )
        .unwrap();
        assert_eq!(installed(root.path()), BTreeMap::from([("a".into(), "1".into())]));
    }
}
