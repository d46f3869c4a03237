//! The stored login: `$SLIPWAY_HOME/config.json`, or `~/.slipway/config.json`. Readable by its owner only, replaced as
//! a whole, so that an interrupted write leaves the old one.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slipway_chassis::files::{self, Durability};

use crate::environment::Environment;

/// The stored login cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither `HOME` nor `SLIPWAY_HOME` is set.
    #[error("There is no place for the login: neither HOME nor SLIPWAY_HOME is set")]
    NoHome,
    /// It cannot be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{} is damaged", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("Cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Text that does not print itself.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// A targeted org or space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) guid: String,
    pub(crate) name: String,
}

/// What a login leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// URL of the API.
    pub(crate) api: String,
    /// URL of the token endpoint.
    pub(crate) login: String,
    /// URL of the log cache.
    pub(crate) log_cache: String,
    /// Accept any certificate.
    pub(crate) skip_ssl_validation: bool,
    /// The authority to trust, as PEM text: the file may be gone by the next command.
    pub(crate) ca: Option<String>,
    /// Where names below `localhost` lead, when that is not the usual loopback address.
    pub(crate) localhost: Option<IpAddr>,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Secret,
    pub(crate) org: Option<Named>,
    pub(crate) space: Option<Named>,
}

/// Where the login is stored.
#[derive(Clone, Debug)]
pub(crate) struct SettingsFile {
    path: PathBuf,
}

impl SettingsFile {
    /// The place that the environment names.
    pub(crate) fn of(environment: &Environment) -> Result<Self, SettingsError> {
        let directory = match (environment.variable("SLIPWAY_HOME"), environment.variable("HOME")) {
            (Some(own), _) => PathBuf::from(own),
            (None, Some(home)) => Path::new(home).join(".slipway"),
            (None, None) => return Err(SettingsError::NoHome),
        };
        Ok(Self { path: directory.join("config.json") })
    }

    /// What is stored; defaults when there is nothing yet.
    pub(crate) fn load(&self) -> Result<Settings, SettingsError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(source) => return Err(SettingsError::Read { path: self.path.clone(), source }),
        };
        serde_json::from_slice(&text).map_err(|source| SettingsError::Malformed { path: self.path.clone(), source })
    }

    /// Replaces what is stored.
    pub(crate) fn save(&self, settings: &Settings) -> Result<(), SettingsError> {
        self.write(settings).map_err(|source| SettingsError::Write { path: self.path.clone(), source })
    }

    fn write(&self, settings: &Settings) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        files::write(&self.path, serde_json::to_vec_pretty(settings)?, 0o600, Durability::Whole)
    }

    /// Changes what is stored now, which another command may have written since this one began.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Settings)) -> Result<(), SettingsError> {
        let mut settings = self.load()?;
        change(&mut settings);
        self.save(&settings)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_login_is_stored_for_its_owner_only_and_read_back() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = SettingsFile { path: directory.path().join("deep/config.json") };
        assert_eq!(file.load().expect("nothing yet"), Settings::default());
        let settings =
            Settings { api: "http://api.test".into(), access_token: Secret("t".into()), ..Default::default() };
        file.save(&settings).expect("saved");
        file.update(|settings| settings.skip_ssl_validation = true).expect("updated");
        assert_eq!(file.load().expect("read"), Settings { skip_ssl_validation: true, ..settings });
        let mode = std::fs::metadata(&file.path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = std::fs::read_dir(file.path.parent().expect("directory")).expect("list").count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn a_damaged_login_is_named_and_not_replaced() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = SettingsFile { path: directory.path().join("config.json") };
        std::fs::write(&file.path, "{\"api\": 7").expect("written");
        assert!(matches!(file.update(|_| ()), Err(SettingsError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&file.path).expect("still there"), "{\"api\": 7");
    }

    #[test]
    fn tokens_do_not_print_themselves() {
        let settings = Settings { access_token: Secret("abc-token".into()), ..Default::default() };
        assert!(!format!("{settings:?}").contains("abc-token"));
    }
}
