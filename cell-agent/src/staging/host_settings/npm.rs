//! npm: the global file, the user's file, then `npm_config_*`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::Host;

/// Those of them that are addresses.
const ADDRESSES: [&str; 4] = ["registry", "proxy", "https-proxy", "http-proxy"];
const KEYS: [&str; 7] = ["registry", "proxy", "https-proxy", "http-proxy", "noproxy", "strict-ssl", "fetch-timeout"];

/// What npm is told on this host. Not to be printed: the proxies are whole.
#[derive(Default)]
pub(super) struct Npm {
    values: BTreeMap<String, String>,
    /// Proxies with their user and password, for the agent and no build.
    proxies: BTreeMap<String, String>,
    /// Its own bundle.
    pub(super) cafile: Option<String>,
    /// See [`super::HostSettings::withheld`].
    pub(super) withheld: Vec<String>,
}

pub(super) fn read(host: &Host) -> Npm {
    let mut npm = Npm::default();
    let variable = |name: &str| {
        host.env.iter().find(|(other, value)| other.eq_ignore_ascii_case(name) && !value.is_empty()).map(|(_, v)| v)
    };
    let mut files = vec![host.path("/etc/npmrc"), host.path("/usr/etc/npmrc"), host.path("/usr/local/etc/npmrc")];
    files.extend(variable("npm_config_globalconfig").map(PathBuf::from));
    files.push(variable("npm_config_userconfig").map_or_else(|| host.home.join(".npmrc"), PathBuf::from));
    for text in files.iter().filter_map(|path| Host::read(path)) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"');
                npm.set(key.trim(), value, host);
            }
        }
    }
    for (name, value) in &host.env {
        let prefix = name.get(..11).filter(|prefix| prefix.eq_ignore_ascii_case("npm_config_"));
        if let (Some(_), false) = (prefix, value.is_empty()) {
            let key = &name[11..];
            // Scopes and hosts keep their underscores.
            let plain = key.to_lowercase().replace('_', "-");
            npm.set(if key.starts_with(['@', '/']) { key } else { &plain }, value, host);
        }
    }
    npm
}

impl Npm {
    fn set(&mut self, key: &str, value: &str, host: &Host) {
        let address = ADDRESSES.contains(&key) || (key.starts_with('@') && key.ends_with(":registry"));
        if key == "cafile" {
            // Where it is on this host; its content is what a build gets.
            self.cafile = Some(expand(value, host));
        } else if key.starts_with("//") || key.starts_with('_') {
            // `//host/:_authToken` and its like.
            self.withheld.push(key.to_owned());
        } else if address {
            if key.ends_with("proxy") {
                self.proxies.insert(key.to_owned(), expand(value, host));
            }
            let public = super::address::without_secrets(value);
            if public.as_deref() != Some(value) {
                self.withheld.push(key.to_owned());
            }
            // A stronger file that says nothing usable has still replaced what the weaker one said.
            match public {
                Some(public) => drop(self.values.insert(key.to_owned(), public)),
                None => drop(self.values.remove(key)),
            }
        } else if KEYS.contains(&key) && !value.contains("${") {
            self.values.insert(key.to_owned(), value.to_owned());
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The proxy, as the agent itself uses it. `null` and `false` are npm's words for none.
    pub(super) fn proxy(&self) -> Option<&str> {
        let proxies = ["https-proxy", "proxy", "http-proxy"].iter().filter_map(|key| self.proxies.get(*key));
        proxies.map(String::as_str).find(|proxy| !["", "null", "false"].contains(proxy))
    }

    /// The cell's own word, which stands above this host's.
    pub(super) fn put(&mut self, key: &str, value: String) {
        self.values.insert(key.to_owned(), value);
    }

    /// The file for a build; `None` when nothing is set.
    pub(super) fn file(&self, bundle: Option<&str>) -> Option<String> {
        if self.values.is_empty() && self.cafile.is_none() {
            return None;
        }
        let mut text = String::new();
        for (key, value) in &self.values {
            // A line break would begin a key of its own.
            let _ = writeln!(text, "{key}={}", value.replace(['\n', '\r'], ""));
        }
        if let Some(bundle) = bundle {
            let _ = writeln!(text, "cafile={bundle}");
        }
        Some(text)
    }
}

/// `${NAME}` as npm does it; a variable that is not set stays as it is.
fn expand(value: &str, host: &Host) -> String {
    let mut text = value.to_owned();
    for (name, replacement) in &host.env {
        let reference = format!("${{{name}}}");
        if text.contains(&reference) {
            text = text.replace(&reference, replacement);
        }
    }
    text
}
