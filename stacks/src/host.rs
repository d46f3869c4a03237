//! What the host says about package sources: its apt sources and proxies, and its npm client's settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian sources of the host for a suite and its security and update suites, as files for apt: (extension, content).
#[must_use]
pub(crate) fn apt_sources(suite: &str) -> Vec<(&'static str, String)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found);
    }
    files
        .iter()
        .filter_map(|path| Some((path, fs::read_to_string(path).ok()?)))
        .filter_map(|(path, text)| select(path, &text, suite))
        .collect()
}

/// The part of one sources file that is about the suite.
fn select(path: &Path, text: &str, suite: &str) -> Option<(&'static str, String)> {
    let ours = |word: &str| word == suite || word.strip_prefix(suite).is_some_and(|rest| rest.starts_with(['-', '/']));
    match path.extension()?.to_str()? {
        "sources" => {
            let text = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
            let stanzas: Vec<&str> = text
                .split("\n\n")
                .map(str::trim)
                .filter(|stanza| {
                    stanza.lines().any(|line| {
                        line.to_ascii_lowercase().starts_with("suites:") && line.split_whitespace().skip(1).any(ours)
                    })
                })
                .collect();
            (!stanzas.is_empty()).then(|| ("sources", stanzas.join("\n\n") + "\n"))
        }
        "list" => {
            let lines: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("deb ") && line.split_whitespace().any(ours))
                .collect();
            (!lines.is_empty()).then(|| ("list", lines.join("\n") + "\n"))
        }
        _ => None,
    }
}

/// Proxy and certificate settings of the host's apt, as `name=value` options.
#[must_use]
pub(crate) fn apt_options() -> Vec<String> {
    let Ok(output) = Command::new("apt-config").args(["dump", "Acquire"]).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.starts_with("Acquire::http"))
        .filter(|line| ["::Proxy", "CaInfo", "CaPath"].iter().any(|part| line.contains(part)))
        .filter(|line| !line.contains("\"\""))
        .map(str::to_owned)
        .collect()
}

/// Settings of the host's npm client: environment over the user's npmrc over the global one.
#[derive(Debug)]
pub(crate) struct NpmSettings {
    values: BTreeMap<String, String>,
    default_registry: String,
}

impl NpmSettings {
    pub(crate) fn of_host(default_registry: String) -> Self {
        let mut values = BTreeMap::new();
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let user = std::env::var_os("NPM_CONFIG_USERCONFIG").map_or_else(|| home.join(".npmrc"), PathBuf::from);
        for path in [PathBuf::from("/etc/npmrc"), PathBuf::from("/usr/local/etc/npmrc"), user] {
            if let Ok(text) = fs::read_to_string(path) {
                values.extend(parse_npmrc(&text));
            }
        }
        for (name, value) in std::env::vars() {
            if let Some(key) = name.to_ascii_lowercase().strip_prefix("npm_config_")
                && !value.is_empty()
            {
                values.insert(key.replace('_', "-"), value);
            }
        }
        Self { values, default_registry }
    }

    /// Address of the registry, with a slash at its end.
    pub(crate) fn registry(&self) -> String {
        let registry = self.values.get("registry").unwrap_or(&self.default_registry);
        format!("{}/", registry.trim_end_matches('/'))
    }

    /// The token for the registry, if it wants one.
    pub(crate) fn token(&self) -> Option<String> {
        let registry = self.registry();
        let place = registry.split_once(':').map_or(registry.as_str(), |(_, rest)| rest);
        let token = self.values.get(&format!("{place}:_authToken"))?;
        // `${NAME}` is taken from the environment, as npm does.
        match token.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => std::env::var(name).ok(),
            None => Some(token.clone()),
        }
    }

    pub(crate) fn certificates(&self) -> Option<&str> {
        self.values.get("cafile").map(String::as_str)
    }

    pub(crate) fn proxy(&self) -> Option<&str> {
        self.values.get("https-proxy").or_else(|| self.values.get("proxy")).map(String::as_str)
    }
}

fn parse_npmrc(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with([';', '#']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suite_is_taken() {
        let list = "# comment\ndeb http://mirror.test/debian bookworm main\ndeb-src http://mirror.test/debian bookworm main\n\
                    deb http://mirror.test/security bookworm-security main\ndeb http://other.test/x stable main\n";
        let (kind, text) = select(Path::new("sources.list"), list, "bookworm").unwrap();
        assert_eq!((kind, text.lines().count()), ("list", 2));
        let modern = "Types: deb\n# c\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                      Types: deb\nURIs: http://other.test\nSuites: nodistro\nComponents: main\n";
        let (kind, text) = select(Path::new("a.sources"), modern, "bookworm").unwrap();
        assert_eq!(kind, "sources");
        assert!(text.contains("mirror.test") && !text.contains("other.test"));
        assert!(select(Path::new("a.sources.disabled"), modern, "bookworm").is_none());
        assert!(select(Path::new("a.list"), "deb http://x.test trixie main", "bookworm").is_none());
    }

    #[test]
    fn npm_settings() {
        let values = parse_npmrc("; c\nregistry = https://mirror.test/npm\n//mirror.test/npm/:_authToken=abc\n");
        let settings = NpmSettings { values, default_registry: "https://default.test".into() };
        assert_eq!(settings.registry(), "https://mirror.test/npm/");
        assert_eq!(settings.token().as_deref(), Some("abc"));
        let settings = NpmSettings { values: BTreeMap::new(), default_registry: "https://default.test".into() };
        assert_eq!(settings.registry(), "https://default.test/");
        assert_eq!(settings.token(), None);
    }
}
