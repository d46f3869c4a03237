//! The keys of a manifest. The command line, which warns of others, and the platform, which reads and compares them, have
//! this one table.

/// A key of an app or of one of its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestKey {
    /// As people write it: `no-route`. Some are written with `_`.
    pub name: &'static str,
    /// Where it may stand.
    pub place: Place,
    /// How what it says is compared with an app that exists.
    pub comparison: Comparison,
}

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an app.
    App,
    /// At an entry of `processes`.
    Process,
    /// At an entry of `processes`, or at the app for its process `web`.
    Both,
}

/// How a key is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// As a text or number.
    Plain,
    /// By a rule of its own: a list, a mapping, a size.
    Special,
    /// Not at all: it is for the client, or has no effect on an app that exists.
    None,
}

const fn key(name: &'static str, place: Place, comparison: Comparison) -> ManifestKey {
    ManifestKey { name, place, comparison }
}

/// All of them.
pub const MANIFEST_KEYS: &[ManifestKey] = &[
    key("name", Place::App, Comparison::Special),
    key("path", Place::App, Comparison::None),
    key("buildpack", Place::App, Comparison::None),
    key("buildpacks", Place::App, Comparison::Special),
    key("stack", Place::App, Comparison::Plain),
    key("docker", Place::App, Comparison::None),
    key("env", Place::App, Comparison::Special),
    key("routes", Place::App, Comparison::Special),
    key("no-route", Place::App, Comparison::Special),
    key("random-route", Place::App, Comparison::Special),
    key("default-route", Place::App, Comparison::Special),
    key("services", Place::App, Comparison::Special),
    key("sidecars", Place::App, Comparison::Special),
    key("processes", Place::App, Comparison::Special),
    key("metadata", Place::App, Comparison::Special),
    key("lifecycle", Place::App, Comparison::Plain),
    key("features", Place::App, Comparison::Special),
    key("cnb-credentials", Place::App, Comparison::None),
    key("type", Place::Process, Comparison::None),
    key("command", Place::Both, Comparison::Special),
    key("instances", Place::Both, Comparison::Plain),
    key("memory", Place::Both, Comparison::Special),
    key("disk_quota", Place::Both, Comparison::Special),
    key("log-rate-limit-per-second", Place::Both, Comparison::Special),
    key("timeout", Place::Both, Comparison::Plain),
    key("health-check-type", Place::Both, Comparison::Special),
    key("health-check-http-endpoint", Place::Both, Comparison::Plain),
    key("health-check-invocation-timeout", Place::Both, Comparison::Plain),
    key("health-check-interval", Place::Both, Comparison::Plain),
    key("readiness-health-check-type", Place::Both, Comparison::Plain),
    key("readiness-health-check-http-endpoint", Place::Both, Comparison::Plain),
    key("readiness-health-check-invocation-timeout", Place::Both, Comparison::Plain),
    key("readiness-health-check-interval", Place::Both, Comparison::Plain),
];

/// The key of this name, written with `-` or with `_`.
#[must_use]
pub fn manifest_key(name: &str) -> Option<&'static ManifestKey> {
    let same =
        |known: &str| known.len() == name.len() && known.bytes().zip(name.bytes()).all(|(a, b)| dash(a) == dash(b));
    MANIFEST_KEYS.iter().find(|key| same(key.name))
}

const fn dash(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_both_spellings_and_is_there_once() {
        for written in ["no-route", "no_route", "disk_quota", "disk-quota"] {
            assert!(manifest_key(written).is_some(), "{written}");
        }
        for unknown in ["", "no-routes", "host", "NAME"] {
            assert_eq!(manifest_key(unknown), None, "{unknown}");
        }
        for key in MANIFEST_KEYS {
            assert_eq!(manifest_key(key.name), Some(key), "{} is there twice", key.name);
        }
    }
}
