//! The environment variables that an installation sees, in a form that can be compared.
//!
//! Variables hold secrets, and the cache is stored unencrypted in the object store. So the record has one salted digest of
//! all variables together: two caches cannot be compared, and a table of common values does not help an attacker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use slipway_layers::Digest;
use slipway_layers::digest::HashingWriter;

/// Which variables count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedVariables<'a> {
    /// All but those in which the platform tells about one build: foreign code runs while installing and may read any.
    All,
    /// Those that begin like this, in any case: only the package manager itself runs.
    Prefixes(&'a [&'a str]),
}

/// In which the platform tells about one build, or which follow from something that is compared anyway.
const OF_ONE_BUILD: [&str; 8] =
    ["CF_INSTANCE_", "INSTANCE_GUID", "VCAP_APPLICATION", "MEMORY_LIMIT", "HOSTNAME", "PWD", "OLDPWD", "SHLVL"];
/// Variables that name a file of settings: what is in it counts.
const SETTINGS: [&str; 3] = ["pip_config_file", "npm_config_userconfig", "npm_config_globalconfig"];

/// See the module. Does not print values.
#[derive(Clone, PartialEq, Eq)]
pub struct Variables(BTreeMap<OsString, Vec<u8>>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Variables").field(&self.0.keys()).finish()
    }
}

/// What the record holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    salt: String,
    sha256: String,
}

impl Variables {
    /// Those of `all` that count. Files of settings are found from `directory` on.
    #[must_use]
    pub fn of<'v>(
        all: impl IntoIterator<Item = (&'v OsStr, &'v OsStr)>,
        seen: ComparedVariables<'_>,
        directory: &Path,
    ) -> Self {
        let mut variables = BTreeMap::new();
        for (name, value) in all {
            let text = name.to_string_lossy();
            let begins = |prefix: &&str| text.get(..prefix.len()).is_some_and(|part| part.eq_ignore_ascii_case(prefix));
            let counts = match seen {
                ComparedVariables::All => !OF_ONE_BUILD.iter().any(begins),
                ComparedVariables::Prefixes(prefixes) => prefixes.iter().any(begins),
            };
            if !counts {
                continue;
            }
            let mut bytes = value.as_bytes().to_vec();
            if SETTINGS.iter().any(|name| text.eq_ignore_ascii_case(name)) {
                // A file that cannot be read is none for the package manager either.
                if let Ok(digest) = content(&directory.join(value)) {
                    bytes.extend(digest.as_bytes());
                }
            }
            variables.insert(name.to_owned(), bytes);
        }
        Self(variables)
    }

    fn digest(&self, salt: &str) -> String {
        let mut bytes = salt.as_bytes().to_vec();
        for (name, value) in &self.0 {
            // With their lengths: no two environments are spelled alike.
            for part in [name.as_bytes(), value.as_slice()] {
                bytes.extend((part.len() as u64).to_le_bytes());
                bytes.extend(part);
            }
        }
        Digest::of(&bytes).to_string()
    }

    pub(super) fn seal(&self) -> io::Result<Sealed> {
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let salt = Digest::of(&random).to_string();
        Ok(Sealed { sha256: self.digest(&salt), salt })
    }

    pub(super) fn are(&self, sealed: &Sealed) -> bool {
        self.digest(&sealed.salt) == sealed.sha256
    }
}

/// Digest of a file to which links may lead, as they may for the package manager; a pipe is not waited for.
fn content(path: &Path) -> io::Result<Digest> {
    let mut file = super::open_as(path, OFlags::NONBLOCK)?;
    let mut hash = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut hash)?;
    Ok(hash.finish().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, &str)], seen: ComparedVariables<'_>, directory: &Path) -> Variables {
        Variables::of(all.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value))), seen, directory)
    }

    #[test]
    fn variables_that_matter_are_compared_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let npm = ComparedVariables::Prefixes(&["npm_config_", "node_"]);
        let sealed = of(&[("NPM_CONFIG_TAG", "a"), ("GREETING", "x")], npm, at).seal().unwrap();
        assert!(of(&[("NPM_CONFIG_TAG", "a"), ("GREETING", "y"), ("CF_INSTANCE_IP", "1")], npm, at).are(&sealed));
        assert!(!of(&[("NPM_CONFIG_TAG", "b")], npm, at).are(&sealed));
        assert!(!of(&[("NPM_CONFIG_TAG", "a"), ("node_options", "")], npm, at).are(&sealed));
        assert!(!of(&[], npm, at).are(&sealed));

        let sealed = of(&[("GREETING", "x"), ("CF_INSTANCE_GUID", "1")], ComparedVariables::All, at).seal().unwrap();
        assert!(
            of(&[("GREETING", "x"), ("CF_INSTANCE_GUID", "2"), ("PWD", "/")], ComparedVariables::All, at).are(&sealed)
        );
        assert!(!of(&[("GREETING", "y")], ComparedVariables::All, at).are(&sealed));
        // The same letters in other places are another environment.
        assert!(!of(&[("GREETINGx", "")], ComparedVariables::All, at).are(&sealed));
    }

    #[test]
    fn a_file_of_settings_counts_by_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pip.conf");
        std::fs::write(&file, "[global]\n").unwrap();
        let variables =
            || of(&[("PIP_CONFIG_FILE", "pip.conf")], ComparedVariables::Prefixes(&["pip_"]), directory.path());
        let sealed = variables().seal().unwrap();
        assert!(variables().are(&sealed));
        std::fs::write(&file, "[global]\nindex-url = https://other.example/simple\n").unwrap();
        assert!(!variables().are(&sealed));
    }

    #[test]
    fn no_value_is_in_the_record_and_no_two_records_are_alike() {
        let variables = of(&[("PIP_PASSWORD", "hunter2")], ComparedVariables::All, Path::new("/"));
        let text = |sealed: Sealed| serde_json::to_string(&sealed).unwrap();
        let (one, two) = (text(variables.seal().unwrap()), text(variables.seal().unwrap()));
        assert!(!one.contains("hunter2") && !format!("{variables:?}").contains("hunter2"));
        assert_ne!(one, two);
    }
}
