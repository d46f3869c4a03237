//! pip: configuration files from the weakest to the strongest, then `PIP_*`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::Host;

const KEYS: [&str; 5] = ["index-url", "extra-index-url", "trusted-host", "proxy", "timeout"];
/// Those of them that are addresses.
const ADDRESSES: [&str; 3] = ["index-url", "extra-index-url", "proxy"];
const SECTIONS: [&str; 3] = ["global", "install", "download"];

/// What pip is told on this host. Not to be printed: the proxy is whole.
#[derive(Default)]
pub(super) struct Pip {
    values: BTreeMap<String, Vec<String>>,
    /// With its user and password, for the agent and no build.
    pub(super) proxy: Option<String>,
    /// Its own bundle.
    pub(super) cert: Option<String>,
    /// See [`super::HostSettings::withheld`].
    pub(super) withheld: Vec<String>,
}

pub(super) fn read(host: &Host) -> Pip {
    let mut pip = Pip::default();
    let mut files = vec![host.path("/etc/xdg/pip/pip.conf"), host.path("/etc/pip.conf")];
    files.extend([host.home.join(".pip/pip.conf"), host.home.join(".config/pip/pip.conf")]);
    files.extend(host.variable("PIP_CONFIG_FILE").map(PathBuf::from));
    for text in files.iter().filter_map(|path| Host::read(path)) {
        for (key, values) in parse(&text) {
            pip.set(&key, values);
        }
    }
    for (name, value) in &host.env {
        if let Some(key) = name.strip_prefix("PIP_") {
            let key = key.to_lowercase().replace('_', "-");
            pip.set(&key, value.split_whitespace().map(str::to_owned).collect());
        }
    }
    pip
}

impl Pip {
    fn set(&mut self, key: &str, values: Vec<String>) {
        let key = if key == "default-timeout" { "timeout" } else { key };
        if key == "cert" {
            self.cert = values.first().cloned();
        } else if KEYS.contains(&key) && !values.is_empty() {
            if key == "proxy" {
                self.proxy = values.first().cloned();
            }
            let public: Vec<String> = if ADDRESSES.contains(&key) {
                values.iter().filter_map(|value| super::address::without_secrets(value)).collect()
            } else {
                values.iter().filter(|value| !value.contains(['@', '$'])).cloned().collect()
            };
            if public != values {
                self.withheld.push(key.to_owned());
            }
            // A stronger file that says nothing usable has still replaced what the weaker one said.
            match public.is_empty() {
                true => drop(self.values.remove(key)),
                false => drop(self.values.insert(key.to_owned(), public)),
            }
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.first().map(String::as_str)
    }

    /// The cell's own word, which stands above this host's.
    pub(super) fn put(&mut self, key: &str, value: Option<String>) {
        match value {
            Some(value) => drop(self.values.insert(key.to_owned(), vec![value])),
            None => drop(self.values.remove(key)),
        }
    }

    /// The file for a build; `None` when nothing is set.
    pub(super) fn file(&self) -> Option<String> {
        if self.values.is_empty() {
            return None;
        }
        let mut text = "[global]\n".to_owned();
        for (key, values) in &self.values {
            let _ = writeln!(text, "{key} = {}", values.join("\n    "));
        }
        Some(text)
    }
}

/// Keys and values of the sections that matter. A value goes on in indented lines.
fn parse(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let (mut wanted, mut open) = (false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') || trimmed.starts_with(';') {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            wanted = SECTIONS.contains(&section.trim());
            open = false;
        } else if !wanted {
        } else if line.starts_with([' ', '\t']) && open {
            if let Some((_, values)) = found.last_mut() {
                values.extend(trimmed.split_whitespace().map(str::to_owned));
            }
        } else if let Some((key, value)) = trimmed.split_once('=').or_else(|| trimmed.split_once(':')) {
            let key = key.trim().to_lowercase().replace('_', "-");
            found.push((key, value.split_whitespace().map(str::to_owned).collect()));
            open = true;
        }
    }
    found
}
