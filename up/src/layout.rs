//! Where the platform's files are: one directory for all that must survive a reboot, another for what must not.

use std::path::{Path, PathBuf};

/// Paths of one platform.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Survives: database, blobs, keys, journals, logs.
    pub state: PathBuf,
    /// Does not survive a reboot: sockets, pid files, mount points. Short, because socket paths end at 107 bytes.
    pub run: PathBuf,
}

impl Layout {
    /// The default state directory, or the one in `SLIPWAY_STATE`.
    #[must_use]
    pub fn default_state() -> PathBuf {
        std::env::var_os("SLIPWAY_STATE").map_or_else(|| PathBuf::from("/var/lib/slipway"), PathBuf::from)
    }

    /// The layout for a state directory. The run directory of the default one is `/run/slipway`; others get a name
    /// made from their path, so that several platforms can run beside each other.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        let run = if state == Path::new("/var/lib/slipway") {
            PathBuf::from("/run/slipway")
        } else {
            let digest = slipway_protocol::digest::sha256(state.as_os_str().as_encoded_bytes());
            PathBuf::from(format!("/run/slipway-{}", hex::encode(&digest[..4])))
        };
        Self { state, run }
    }

    /// `<state>/<name>`.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// `<run>/<name>`.
    #[must_use]
    pub fn run(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// Log of a part.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.state.join("logs").join(format!("{part}.log"))
    }

    /// Configuration of a part.
    #[must_use]
    pub fn config(&self, part: &str) -> PathBuf {
        self.state.join("config").join(format!("{part}.toml"))
    }

    /// What a part writes once it serves.
    #[must_use]
    pub fn ready(&self, part: &str) -> PathBuf {
        self.run.join(format!("{part}.ready"))
    }

    /// Pid file of a part or of the supervisor.
    #[must_use]
    pub fn pid(&self, part: &str) -> PathBuf {
        self.run.join(format!("{part}.pid"))
    }

    /// Certificate directory of a part.
    #[must_use]
    pub fn tls(&self, part: &str) -> PathBuf {
        self.state.join("tls").join(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_platforms_do_not_share_a_run_directory() {
        let (one, two) = (Layout::new(Path::new("/tmp/one")), Layout::new(Path::new("/tmp/two")));
        assert_ne!(one.run, two.run);
        assert_eq!(Layout::new(Path::new("/var/lib/slipway")).run, Path::new("/run/slipway"));
    }
}
