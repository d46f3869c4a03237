//! Settings that point package managers to the cell's own proxy for registries. They replace what this host's settings say
//! about the same registries: the host's own addresses would bypass the proxy.

use std::net::Ipv4Addr;

use super::npm::Npm;
use super::pip::Pip;
use super::{Host, HostSettings};

/// The first word on a large file may take as long as its registry lets the proxy wait.
const PIP_TIMEOUT: u64 = 100;

/// Where builds find registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The cell's own address on its bridge: never reached by another proxy.
    pub host: Ipv4Addr,
    /// npm's registry.
    pub npm: Option<String>,
    /// Scopes that have one of their own behind the same address.
    pub npm_scopes: Vec<String>,
    /// Hosts in lock files that npm replaces: its setting `replace-registry-host`.
    pub npm_replaced_host: String,
    /// pip's index.
    pub pypi: Option<String>,
}

impl ProxyAddresses {
    pub(super) fn open(&self, pip: &mut Pip, npm: &mut Npm, host: &Host) {
        let own = self.host.to_string();
        if let Some(index) = &self.pypi {
            // Another index could answer for the same names, and a proxy does not reach this address.
            for key in ["extra-index-url", "proxy"] {
                pip.put(key, None);
            }
            pip.put("index-url", Some(index.clone()));
            pip.put("trusted-host", Some(own.clone()));
            let timeout = pip.value("timeout").and_then(|text| text.parse().ok()).unwrap_or(0);
            pip.put("timeout", Some(PIP_TIMEOUT.max(timeout).to_string()));
        }
        if let Some(registry) = &self.npm {
            npm.put("registry", registry.clone());
            for scope in &self.npm_scopes {
                npm.put(&format!("{scope}:registry"), registry.clone());
            }
            npm.put("replace-registry-host", self.npm_replaced_host.clone());
            // The proxy waits for registries itself. What it refuses it refuses a moment later too.
            npm.put("fetch-retry-mintimeout", "1000".to_owned());
            npm.put("fetch-retry-maxtimeout", "3000".to_owned());
            let direct = npm.value("noproxy").or_else(|| host.either("no_proxy")).unwrap_or_default().to_owned();
            npm.put("noproxy", with(&direct, &own));
        }
    }

    /// Programs that ask this address themselves must not ask the host's proxy for it.
    pub(super) fn bypass(&self, settings: &mut HostSettings) {
        let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
        if !settings.env.iter().any(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")) {
            return;
        }
        let before = settings.env.iter().find(|(name, _)| is(name, "no_proxy")).map(|(_, value)| value.clone());
        let value = with(&before.unwrap_or_default(), &self.host.to_string());
        settings.env.retain(|(name, _)| !is(name, "no_proxy"));
        settings.env.extend(["no_proxy", "NO_PROXY"].map(|name| (name.to_owned(), value.clone())));
    }
}

fn with(list: &str, host: &str) -> String {
    if list.is_empty() { host.to_owned() } else { format!("{list},{host}") }
}

/// How this host itself reaches registries; with credentials, and for the agent alone.
#[derive(Clone, Default)]
pub struct OutgoingSettings {
    /// Certificates of authorities beside the system's.
    pub bundle: Vec<u8>,
    /// The proxy of npm's or pip's settings, where the environment names none.
    pub configured_proxy: Option<String>,
    /// Hosts that are asked past that one.
    pub past_configured_proxy: String,
    /// All proxies, those of the environment included.
    pub proxies: Vec<String>,
}

impl OutgoingSettings {
    /// From the settings of this host.
    #[must_use]
    pub fn collect() -> Self {
        Self::from_host(&Host::own())
    }

    pub(super) fn from_host(host: &Host) -> Self {
        let (pip, npm) = (super::pip::read(host), super::npm::read(host));
        let bundle = super::bundle(host, &pip, &npm);
        let of_environment = ["http_proxy", "https_proxy", "all_proxy"].map(|name| host.either(name));
        let of_environment: Vec<String> = of_environment.into_iter().flatten().map(str::to_owned).collect();
        let configured = || npm.proxy().or(pip.proxy.as_deref()).map(str::to_owned);
        let configured_proxy = if of_environment.is_empty() { configured() } else { None };
        let proxies = of_environment.into_iter().chain(configured_proxy.clone()).collect();
        let past_configured_proxy =
            npm.value("noproxy").or_else(|| host.either("no_proxy")).unwrap_or_default().to_owned();
        Self { bundle, configured_proxy, past_configured_proxy, proxies }
    }
}

impl std::fmt::Debug for OutgoingSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Addresses of proxies may have passwords in them.
        f.debug_struct("OutgoingSettings")
            .field("bundle", &self.bundle.len())
            .field("proxies", &self.proxies.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn proxy() -> ProxyAddresses {
        ProxyAddresses {
            host: Ipv4Addr::new(10, 62, 0, 1),
            npm: Some("http://10.62.0.1:4873/npm/".to_owned()),
            npm_scopes: vec!["@corp".to_owned()],
            npm_replaced_host: "npm.example".to_owned(),
            pypi: Some("http://10.62.0.1:4873/pypi/simple/".to_owned()),
        }
    }

    fn host(root: &Path, env: &[(&str, &str)]) -> Host {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Host { env, home: root.join("home"), root: root.to_owned() }
    }

    fn text(settings: &HostSettings, name: &str) -> String {
        String::from_utf8(settings.files[name].clone()).expect("text")
    }

    #[test]
    fn builds_are_led_to_the_proxy_and_to_no_other_index() {
        let root = tempfile::tempdir().expect("directory");
        let env = [
            ("PIP_INDEX_URL", "https://u:MARK@pip.example/simple"),
            ("PIP_EXTRA_INDEX_URL", "https://other.example/simple"),
            ("PIP_PROXY", "http://proxy.example:3128"),
            ("npm_config_registry", "https://npm.example/"),
            ("npm_config_@corp:registry", "https://corp.example/"),
            ("npm_config_@other:registry", "https://other.example/"),
            ("https_proxy", "http://u:MARK@proxy.example:3128"),
            ("NO_PROXY", "a.example"),
        ];
        let host = host(root.path(), &env);
        let settings = HostSettings::from_host(&host, Some(&proxy()));
        let (pip, npm) = (text(&settings, "pip.conf"), text(&settings, "npmrc"));
        assert_eq!(
            pip,
            "[global]\nindex-url = http://10.62.0.1:4873/pypi/simple/\ntimeout = 100\ntrusted-host = 10.62.0.1\n"
        );
        for line in [
            "registry=http://10.62.0.1:4873/npm/\n",
            "@corp:registry=http://10.62.0.1:4873/npm/\n",
            "@other:registry=https://other.example/\n",
            "replace-registry-host=npm.example\n",
            "noproxy=a.example,10.62.0.1\n",
        ] {
            assert!(npm.contains(line), "{line} in {npm}");
        }
        let env: BTreeMap<_, _> = settings.env.iter().cloned().collect();
        assert_eq!((&*env["no_proxy"], &*env["NO_PROXY"]), ("a.example,10.62.0.1", "a.example,10.62.0.1"));
        assert!(!format!("{pip}{npm}{env:?}").contains("MARK"));
        // The agent itself reaches registries with all that this host has.
        let way_out = OutgoingSettings::from_host(&host);
        assert_eq!(
            (way_out.configured_proxy, way_out.proxies),
            (None, vec!["http://u:MARK@proxy.example:3128".to_owned()])
        );
        assert!(!format!("{:?}", OutgoingSettings::from_host(&host)).contains("MARK"));
    }

    #[test]
    fn a_host_whose_settings_are_withheld_passes_the_proxy_alone() {
        let settings = HostSettings::of_proxy(&ProxyAddresses { npm: None, ..proxy() });
        assert_eq!(settings.files.keys().copied().collect::<Vec<_>>(), ["pip.conf"]);
        assert_eq!(settings.env, [("PIP_CONFIG_FILE".to_owned(), format!("{}/pip.conf", super::super::INSIDE))]);
    }

    #[test]
    fn the_proxy_of_a_package_manager_counts_where_the_environment_names_none() {
        let root = tempfile::tempdir().expect("directory");
        let proxy = |env: &[(&str, &str)]| OutgoingSettings::from_host(&host(root.path(), env)).configured_proxy;
        let npm = ("npm_config_https_proxy", "http://npm.example:1");
        let pip = ("PIP_PROXY", "http://pip.example:2");
        assert_eq!(proxy(&[npm, pip]).as_deref(), Some("http://npm.example:1"));
        assert_eq!(proxy(&[pip]).as_deref(), Some("http://pip.example:2"));
        assert_eq!(proxy(&[pip, ("HTTPS_PROXY", "http://env.example:3")]), None);
        assert_eq!(proxy(&[]), None);
        assert_eq!(proxy(&[("npm_config_proxy", "null"), pip]).as_deref(), Some("http://pip.example:2"));
    }

    #[test]
    fn the_agent_logs_in_at_the_proxy_of_a_package_manager_and_no_build_does() {
        let root = tempfile::tempdir().expect("directory");
        let of = |env: &[(&str, &str)]| {
            let host = host(root.path(), env);
            let settings = HostSettings::from_host(&host, None);
            assert!(!settings.files.values().any(|text| String::from_utf8_lossy(text).contains("MARK")));
            let way_out = OutgoingSettings::from_host(&host);
            (way_out.configured_proxy.unwrap_or_default(), way_out.past_configured_proxy)
        };
        let npm = [
            ("npm_config_https_proxy", "http://u:${PASSWORD}@npm.example:1"),
            ("npm_config_noproxy", "a.example"),
            ("PASSWORD", "MARK"),
        ];
        assert_eq!(of(&npm), ("http://u:MARK@npm.example:1".to_owned(), "a.example".to_owned()));
        let pip = [("PIP_PROXY", "http://u:MARK@pip.example:2"), ("NO_PROXY", "b.example")];
        assert_eq!(of(&pip), ("http://u:MARK@pip.example:2".to_owned(), "b.example".to_owned()));
    }
}
