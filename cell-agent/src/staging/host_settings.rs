//! The host's own client settings for package managers, for builds on a machine that reaches registries by them alone: where
//! packages come from, through which proxy, trusted by which certificates. A build is a stranger's code, so what it is told
//! everybody may know. Only a whitelist passes, and of that no credential: no token, no user and password of an address, no
//! query, nothing that stands for a variable of this host, no key beside a certificate. What is left out so is told in the
//! log once, by name. Keys that make sense on the host alone (`nodedir`, `find-links`) break builds and do not pass either.
//! The settings are files outside app and cache, mounted read-only.
//!
//! A secret that is a part of a path (`https://host/TOKEN/simple`) cannot be told from an address: who has one switches the
//! settings off (`staging_uses_host_settings`).
//!
//! Where the operator has named registries in a file, builds are led to the cell's own proxy instead ([`ProxyAddresses`]).

mod address;
mod npm;
mod pip;
mod proxy_addresses;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

pub use proxy_addresses::{OutgoingSettings, ProxyAddresses};

/// Where the files are inside.
pub const INSIDE: &str = "/etc/slipway/registry";
const HOST_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const VCAP: u32 = 2000;
/// A bundle of all the world's authorities has a quarter of a megabyte.
const MAX_BUNDLE: u64 = 16 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Variables of the build.
    pub env: Vec<(String, String)>,
    /// Names of settings that hold a credential, which no build gets.
    pub withheld: BTreeSet<String>,
}

/// The host as the settings are read from it; a test gives its own.
#[derive(Debug)]
pub(crate) struct Host {
    /// Environment of the agent.
    pub(crate) env: BTreeMap<String, String>,
    /// Home of the user that runs it.
    pub(crate) home: PathBuf,
    /// Prefix of every absolute path, `/` but in tests.
    pub(crate) root: PathBuf,
}

impl Host {
    /// This one.
    fn own() -> Self {
        let env: BTreeMap<String, String> = std::env::vars().collect();
        let home = env.get("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        Self { env, home, root: PathBuf::from("/") }
    }

    /// One that has no settings.
    fn bare() -> Self {
        Self { env: BTreeMap::new(), home: PathBuf::from("/nonexistent"), root: PathBuf::from("/nonexistent") }
    }

    /// A variable that is written in lower case or in upper case.
    fn either(&self, name: &str) -> Option<&str> {
        self.variable(name).or_else(|| self.variable(&name.to_uppercase()))
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    fn read(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }
}

impl HostSettings {
    /// Reads the settings of this host, and leads to the cell's proxy where there is one. What cannot be read is left out.
    #[must_use]
    pub fn collect(proxy: Option<&ProxyAddresses>) -> Self {
        Self::from_host(&Host::own(), proxy)
    }

    /// The cell's proxy for registries and nothing of this host.
    #[must_use]
    pub fn of_proxy(proxy: &ProxyAddresses) -> Self {
        Self::from_host(&Host::bare(), Some(proxy))
    }

    fn from_host(host: &Host, proxy: Option<&ProxyAddresses>) -> Self {
        let mut settings = Self::default();
        let (mut pip, mut npm) = (pip::read(host), npm::read(host));
        let bundle = bundle(host, &pip, &npm);
        if let Some(proxy) = proxy {
            proxy.open(&mut pip, &mut npm, host);
        }
        let inside = |name: &str| format!("{INSIDE}/{name}");
        if !bundle.is_empty() {
            settings.files.insert("ca.pem", bundle);
            for name in ["PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"] {
                settings.env.push((name.to_owned(), inside("ca.pem")));
            }
        }
        settings.withheld.extend(pip.withheld.iter().chain(&npm.withheld).cloned());
        if let Some(text) = pip.file() {
            settings.files.insert("pip.conf", text.into_bytes());
            settings.env.push(("PIP_CONFIG_FILE".to_owned(), inside("pip.conf")));
        }
        if let Some(text) = npm.file(settings.files.contains_key("ca.pem").then(|| inside("ca.pem")).as_deref()) {
            settings.files.insert("npmrc", text.into_bytes());
            settings.env.push(("NPM_CONFIG_USERCONFIG".to_owned(), inside("npmrc")));
        }
        for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            let upper = name.to_uppercase();
            if let Some(value) = host.either(name) {
                let public = if name == "no_proxy" { Some(value.to_owned()) } else { address::without_secrets(value) };
                if public.as_deref() != Some(value) {
                    settings.withheld.insert(name.to_owned());
                }
                for name in [name.to_owned(), upper] {
                    settings.env.extend(public.clone().map(|value| (name, value)));
                }
            }
        }
        if let Some(proxy) = proxy {
            proxy.bypass(&mut settings);
        }
        settings
    }

    /// The variables that name the files.
    #[must_use]
    pub fn public_env(&self) -> BTreeMap<String, String> {
        self.env.iter().filter(|(_, value)| value.starts_with(INSIDE)).cloned().collect()
    }

    /// Writes the files for one build, readable by the build and nobody else.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        if let Some(parent) = directory.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let root = nix::unistd::geteuid().is_root();
        for (name, bytes) in &self.files {
            let path = directory.join(name);
            let file = tempfile::NamedTempFile::new_in(directory)?;
            std::fs::write(file.path(), bytes)?;
            file.as_file().set_permissions(Permissions::from_mode(0o400))?;
            if root {
                chown(file.path(), Some(VCAP), Some(VCAP))?;
            }
            file.persist(&path).map_err(|error| error.error)?;
        }
        std::fs::set_permissions(directory, Permissions::from_mode(0o500))?;
        if root {
            chown(directory, Some(VCAP), Some(VCAP))?;
        }
        Ok(())
    }
}

/// Certificates that this host trusts, as far as its settings name files of them.
fn bundle(host: &Host, pip: &pip::Pip, npm: &npm::Npm) -> Vec<u8> {
    let mut bundle = Vec::new();
    let base = host.variable("SSL_CERT_FILE").map_or_else(|| host.path(HOST_BUNDLE), PathBuf::from);
    let extra = host.variable("NODE_EXTRA_CA_CERTS").map(str::to_owned);
    for path in std::iter::once(base)
        .chain([pip.cert.clone(), npm.cafile.clone(), extra].into_iter().flatten().map(PathBuf::from))
    {
        append_bundle(&mut bundle, &path);
    }
    bundle
}

/// Adds the certificates of a file, and nothing else of it: some keep the key beside them.
fn append_bundle(bundle: &mut Vec<u8>, path: &Path) {
    let fits = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BUNDLE);
    let Some(text) = fits.then(|| std::fs::read(path).ok()).flatten() else { return };
    let text = certificates(&String::from_utf8_lossy(&text)).into_bytes();
    // The same bundle is often named twice.
    if text.is_empty() || bundle.windows(text.len()).any(|window| window == text) {
        return;
    }
    bundle.extend(text);
}

/// The certificates of a PEM file.
fn certificates(text: &str) -> String {
    let mut found = String::new();
    let mut inside = false;
    for line in text.lines().map(str::trim_end) {
        let of_certificate = line.ends_with("CERTIFICATE-----");
        inside |= of_certificate && line.starts_with("-----BEGIN ");
        if inside {
            found += line;
            found.push('\n');
        }
        inside &= !(of_certificate && line.starts_with("-----END "));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(root: &Path, env: &[(&str, &str)]) -> Host {
        Host {
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            home: root.join("home"),
            root: root.to_owned(),
        }
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        std::fs::write(path, text).expect("file");
    }

    fn pem(name: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
    }

    /// All that a build gets to read.
    fn rendered(settings: &HostSettings) -> String {
        let files = settings.files.values().map(|bytes| String::from_utf8(bytes.clone()).expect("text"));
        let variables = settings.env.iter().map(|(name, value)| format!("{name}={value}\n"));
        files.chain(variables).collect()
    }

    #[test]
    fn no_credential_of_the_host_reaches_a_build() {
        let root = tempfile::tempdir().expect("directory");
        let root = root.path();
        let npmrc = "//npm.example/:_authToken=MARK-1\n//npm.example/:_password=MARK-2\n//npm.example/:username=MARK-3\n\
                     //other.example/:_auth=${TOKEN}\n_auth=MARK-4\n_authToken=MARK-5\n\
                     registry=https://robot:MARK-6@npm.example/?token=MARK-7#MARK-8\n@team:registry=https://${TOKEN}.example/x\n\
                     proxy=http://MARK-9:MARK-10@proxy.example:3128\nhttps-proxy=${PROXY}\nkey=MARK-11\n";
        put(root, "home/.npmrc", npmrc);
        put(
            root,
            "etc/pip.conf",
            "[global]\nextra-index-url =\n    https://robot:MARK-12@one.example/simple\n    https://MARK-13@two.example/simple\n    \
             https://three.example/simple\nproxy = MARK-14:MARK-15@proxy.example:3128\nclient-cert = /MARK-16\n\
             trusted-host = MARK-17@one.example\n",
        );
        put(
            root,
            "ca.pem",
            &format!("{}-----BEGIN RSA PRIVATE KEY-----\nMARK-18\n-----END RSA PRIVATE KEY-----\n", pem("CA")),
        );
        let bundle = root.join("ca.pem").display().to_string();
        let env = [
            ("TOKEN", "MARK-19"),
            ("PROXY", "http://MARK-20@proxy.example"),
            ("NPM_TOKEN", "MARK-21"),
            ("npm_config_//npm.example/:_authToken", "MARK-22"),
            ("NPM_CONFIG__AUTH", "MARK-23"),
            ("PIP_INDEX_URL", "https://robot:MARK-24@pip.example/simple"),
            ("HTTPS_PROXY", "http://robot:MARK-25@proxy.example:3128"),
            ("all_proxy", "robot:MARK-26@proxy.example:1080"),
            ("http_proxy", "http://[MARK-27"),
            ("NODE_EXTRA_CA_CERTS", &bundle),
        ];
        let settings = HostSettings::from_host(&host(root, &env), None);
        let text = rendered(&settings);
        assert!(!text.contains("MARK") && !text.contains("robot"), "{text}");
        // What is left says where packages come from.
        for part in [
            "registry=https://npm.example/\n",
            "index-url = https://pip.example/simple\n",
            "extra-index-url = https://one.example/simple\n    https://two.example/simple\n    https://three.example/simple\n",
            "https_proxy=http://proxy.example:3128\n",
            "CA\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let withheld: Vec<&str> = settings.withheld.iter().map(String::as_str).collect();
        assert!(withheld.contains(&"https_proxy") && withheld.contains(&"index-url"), "{withheld:?}");
        assert!(
            withheld.contains(&"//npm.example/:_authToken") && withheld.contains(&"@team:registry"),
            "{withheld:?}"
        );
        assert!(!format!("{settings:?}").contains("MARK"), "not in a log either");
    }

    #[test]
    fn settings_pass_by_whitelist() {
        let root = tempfile::tempdir().expect("directory");
        let root = root.path();
        put(root, "etc/ssl/certs/ca-certificates.crt", &format!("# the host's\n{}", pem("HOST")));
        put(root, "corp.pem", &format!("-----BEGIN PRIVATE KEY-----\nKEY\n-----END PRIVATE KEY-----\n{}", pem("CORP")));
        let corp = root.join("corp.pem").display().to_string();
        put(
            root,
            "etc/pip.conf",
            "[global]\nindex-url = https://old.example/simple\nfind-links = /srv\n[install]\ntrusted_host =\n    a.example\n    b.example\n",
        );
        put(
            root,
            "home/.npmrc",
            "registry=https://npm.example/\n@team:registry=https://team.example/\nnodedir=/usr/include\n; a comment\n",
        );
        let env = [
            ("PIP_INDEX_URL", "https://pip.example/simple"),
            ("PIP_DEFAULT_TIMEOUT", "30"),
            ("PIP_FIND_LINKS", "/srv"),
            ("npm_config_strict_ssl", "false"),
            ("NPM_CONFIG_CAFILE", &corp),
            ("HTTPS_PROXY", "http://proxy:3128"),
        ];
        let settings = HostSettings::from_host(&host(root, &env), None);
        let text = |name: &str| String::from_utf8(settings.files[name].clone()).expect("text");
        let pip = text("pip.conf");
        assert!(pip.contains("index-url = https://pip.example/simple\n"), "{pip}");
        assert!(pip.contains("trusted-host = a.example\n    b.example\n"), "{pip}");
        assert!(pip.contains("timeout = 30\n") && !pip.contains("find-links") && !pip.contains("old.example"), "{pip}");
        let npm = text("npmrc");
        assert!(npm.contains("@team:registry=https://team.example/\n"), "{npm}");
        assert!(npm.contains("strict-ssl=false\n"), "{npm}");
        assert!(npm.contains("cafile=/etc/slipway/registry/ca.pem\n") && !npm.contains("nodedir"), "{npm}");
        assert_eq!(text("ca.pem"), pem("HOST") + &pem("CORP"));
        let env: BTreeMap<_, _> = settings.env.iter().cloned().collect();
        assert_eq!(env["https_proxy"], "http://proxy:3128");
        assert_eq!(env["PIP_CONFIG_FILE"], "/etc/slipway/registry/pip.conf");
        assert!(settings.withheld.is_empty(), "{:?}", settings.withheld);
    }

    #[test]
    fn a_bare_host_has_no_settings_and_files_are_private() {
        let root = tempfile::tempdir().expect("directory");
        assert_eq!(HostSettings::from_host(&host(root.path(), &[]), None), HostSettings::default());
        let settings = HostSettings::from_host(&host(root.path(), &[("PIP_INDEX_URL", "https://x/simple")]), None);
        let directory = root.path().join("staging/one");
        settings.write(&directory).expect("write");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&directory.join("pip.conf")), 0o400);
        assert_eq!(mode(directory.parent().expect("parent")), 0o700);
    }
}
