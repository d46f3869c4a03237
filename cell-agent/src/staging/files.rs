//! The volume of a build on the host: inputs that the build may read, outputs that it wrote and that are hostile.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use slipway_layers::Digest;
use slipway_layers::digest::HashingWriter;

/// The `vcap` of every stack.
const VCAP: u32 = 2000;

/// Why an answer of the builder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is none.
    #[error("the build did not produce {0}")]
    Missing(String),
    /// A link, a pipe, a directory.
    #[error("{0}, which the build produced, is not a regular file")]
    NoFile(String),
    /// Too much.
    #[error("the build left {size} bytes as {name}, more than {most}")]
    TooLarge {
        /// File name.
        name: String,
        /// Found.
        size: u64,
        /// Permitted.
        most: u64,
    },
    /// Not what the contract says.
    #[error("the build left a {name} that cannot be read")]
    Malformed {
        /// File name.
        name: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// This host failed.
    #[error("reading {name}")]
    Io {
        /// File name.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Volume {
    root: PathBuf,
}

impl Volume {
    /// Over the volume's directory on the host.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// One of its directories.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file that the build wrote.
    #[must_use]
    pub fn output(&self, name: &str) -> PathBuf {
        self.root.join("out").join(name)
    }

    /// Makes the directories. The root and `in` stay the host's own, so that nothing inside can put a link in their
    /// place; the build writes into the others.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn lay_out(&self) -> std::io::Result<()> {
        std::fs::set_permissions(&self.root, Permissions::from_mode(0o755))?;
        if nix::unistd::geteuid().is_root() {
            // The sandbox's side owns a fresh volume. It must not own this directory: who does can put a link to a
            // directory of the host in the place of `out` or `app`, which the host reads and mounts.
            chown(&self.root, Some(0), Some(0))?;
        }
        for name in ["in", "in/buildpacks", "out", "app", "deps", "cache"] {
            let path = self.root.join(name);
            std::fs::create_dir_all(&path)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            if !name.starts_with("in") && nix::unistd::geteuid().is_root() {
                chown(&path, Some(VCAP), Some(VCAP))?;
            }
        }
        Ok(())
    }

    /// Copies a file into `in`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, source: &Path, name: &str) -> std::io::Result<()> {
        let target = self.root.join("in").join(name);
        std::fs::copy(source, &target)?;
        std::fs::set_permissions(&target, Permissions::from_mode(0o644))
    }

    /// Writes a file into `in`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_input(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let target = self.root.join("in").join(name);
        File::create(&target)?.write_all(bytes)?;
        std::fs::set_permissions(&target, Permissions::from_mode(0o644))
    }

    /// Opens an output without following a link and without waiting for a pipe's other end.
    fn open(&self, name: &str, most: u64) -> Result<(File, u64), AnswerError> {
        let io = |source| AnswerError::Io { name: name.to_owned(), source };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.output(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(AnswerError::Missing(name.to_owned()));
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
                return Err(AnswerError::NoFile(name.to_owned()));
            }
            Err(error) => return Err(io(error)),
        };
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(AnswerError::NoFile(name.to_owned()));
        }
        let size = metadata.len();
        if size > most {
            return Err(AnswerError::TooLarge { name: name.to_owned(), size, most });
        }
        Ok((file, size))
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str, most: u64) -> Result<T, AnswerError> {
        let (file, _) = self.open(name, most)?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(|source| AnswerError::Io { name: name.to_owned(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| AnswerError::Malformed { name: name.to_owned(), source })
    }

    /// Digest and size of an output, as found here.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn hash_output(&self, name: &str, most: u64) -> Result<(Digest, u64), AnswerError> {
        let (mut file, _) = self.open(name, most)?;
        let mut hash = HashingWriter::new(std::io::sink());
        std::io::copy(&mut file, &mut hash).map_err(|source| AnswerError::Io { name: name.to_owned(), source })?;
        let (_, digest, size) = hash.finish();
        Ok((digest, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_cannot_exchange_the_directories_of_its_volume() {
        use std::os::unix::fs::MetadataExt as _;
        assert!(nix::unistd::geteuid().is_root(), "owners are given away here: run this as root");
        let root = tempfile::tempdir().expect("directory");
        // As a fresh volume is.
        chown(root.path(), Some(VCAP), Some(VCAP)).expect("give away");
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o777)).expect("open");
        Volume::new(root.path().to_owned()).lay_out().expect("lay out");
        for (name, owner) in [("", 0), ("in", 0), ("in/buildpacks", 0), ("out", VCAP), ("app", VCAP), ("cache", VCAP)] {
            let found = root.path().join(name).symlink_metadata().expect("made");
            assert_eq!((found.uid(), found.mode() & 0o7777), (owner, 0o755), "{name:?}");
        }
    }

    #[test]
    fn hostile_outputs_are_refused() {
        let root = tempfile::tempdir().expect("directory");
        let volume = Volume::new(root.path().to_owned());
        volume.lay_out().expect("lay out");
        let read = |name: &str| volume.read_json::<serde_json::Value>(name, 100);
        assert!(matches!(read("missing"), Err(AnswerError::Missing(_))));
        std::os::unix::fs::symlink("/etc/shadow", volume.output("link")).expect("link");
        assert!(matches!(read("link"), Err(AnswerError::NoFile(_))));
        nix::unistd::mkfifo(&volume.output("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        assert!(matches!(read("pipe"), Err(AnswerError::NoFile(_))));
        std::fs::create_dir(volume.output("directory")).expect("directory");
        assert!(matches!(read("directory"), Err(AnswerError::NoFile(_))));
        std::fs::write(volume.output("large"), vec![b' '; 101]).expect("write");
        assert!(matches!(read("large"), Err(AnswerError::TooLarge { size: 101, most: 100, .. })));
        std::fs::write(volume.output("rubbish"), "{").expect("write");
        assert!(matches!(read("rubbish"), Err(AnswerError::Malformed { .. })));
        std::fs::write(volume.output("good"), "{}").expect("write");
        assert!(read("good").is_ok());
        assert_eq!(volume.hash_output("good", 10).expect("hash"), (Digest::of(b"{}"), 2));
    }
}
