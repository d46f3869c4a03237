//! The operator's file of registries. It is a file of its own, because it names where credentials are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use slipway_chassis::config::{self, ConfigError, Validate};
use url::Url;

use super::credential::{Credential, Secret};

const NPM: &str = "https://registry.npmjs.org/";
const PYPI: &str = "https://pypi.org/simple/";

/// The operator's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistriesFile {
    /// Builds get what is kept and nothing else.
    #[serde(default)]
    pub offline: bool,
    /// Most that is kept, MiB; absent = 8 GiB, or a tenth of the disk where that is less.
    pub cache_mb: Option<u64>,
    /// npm's registries.
    pub npm: Option<NpmSettings>,
    /// pip's index.
    pub pypi: Option<RegistrySettings>,
}

/// One registry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// Where it is.
    pub upstream: Option<String>,
    /// File with a token.
    pub token_file: Option<PathBuf>,
    /// Variable of the cell's environment with a token.
    pub token_env: Option<String>,
    /// Who logs in, with a password.
    pub user: Option<String>,
    /// File with that password.
    pub password_file: Option<PathBuf>,
    /// Variable of the cell's environment with that password.
    pub password_env: Option<String>,
    /// Hosts beside the registry's own that files may come from although their addresses are not public.
    #[serde(default)]
    pub file_hosts: Vec<String>,
}

/// The registry of all packages, and those of some scopes.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct NpmSettings {
    /// For all other packages.
    pub settings: RegistrySettings,
    /// By scope, `@corp`.
    pub scopes: BTreeMap<String, RegistrySettings>,
    /// Whose addresses in lock files npm replaces by the proxy's; absent = those of `upstream`'s host.
    pub replace_registry_host: Option<String>,
}

impl TryFrom<toml::Table> for NpmSettings {
    type Error = toml::de::Error;

    fn try_from(mut table: toml::Table) -> Result<Self, Self::Error> {
        let scopes = table.remove("scopes").map_or_else(|| Ok(BTreeMap::new()), toml::Value::try_into)?;
        let replace_registry_host = table.remove("replace_registry_host").map(toml::Value::try_into).transpose()?;
        Ok(Self { settings: table.try_into()?, scopes, replace_registry_host })
    }
}

impl NpmSettings {
    /// The value of npm's own setting of this name.
    #[must_use]
    pub fn replaced_host(&self) -> String {
        let host = || self.settings.base(NPM).ok()?.host_str().map(str::to_owned);
        self.replace_registry_host.clone().or_else(host).unwrap_or_else(|| "npmjs".to_owned())
    }
}

impl RegistrySettings {
    /// Address of the registry, with a slash at its end.
    pub(super) fn base(&self, usual: &str) -> Result<Url, String> {
        let text = self.upstream.as_deref().unwrap_or(usual);
        let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}); write it as {usual}"))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(format!("{text:?} is not an http or https URL; write it as {usual}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "an address with a user or password in it; name them with `user` and `password_file`".to_owned()
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{text:?} has a query or fragment; leave them out"));
        }
        let mut url = url;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }

    /// Who logs in there.
    pub(super) fn credential(&self) -> Result<Credential, String> {
        let one = |file: &Option<PathBuf>, variable: &Option<String>, what: &str| match (file, variable) {
            (Some(_), Some(_)) => Err(format!("{what}_file and {what}_env are both there; name one of them")),
            (Some(path), None) if !path.is_absolute() => {
                Err(format!("{what}_file: {} is not absolute; write the whole path", path.display()))
            }
            (Some(path), None) => Ok(Some(Secret::File(path.clone()))),
            (None, Some(name)) => Ok(Some(Secret::Variable(name.clone()))),
            (None, None) => Ok(None),
        };
        let token = one(&self.token_file, &self.token_env, "token")?;
        let password = one(&self.password_file, &self.password_env, "password")?;
        match (token, &self.user, password) {
            (None, None, None) => Ok(Credential::None),
            (Some(token), None, None) => Ok(Credential::Bearer(token)),
            (None, Some(user), Some(password)) if !user.contains(':') => {
                Ok(Credential::Basic { user: user.clone(), password })
            }
            (None, Some(user), Some(_)) => Err(format!("user: {user:?} has a colon; a user's name cannot have one")),
            (None, Some(_), None) => Err("user is there without a password; add password_file or password_env".into()),
            (None, None, Some(_)) => Err("a password is there without its user; add `user`".to_owned()),
            (Some(_), ..) => Err("a token and a user or password are there; name one way to log in".to_owned()),
        }
    }

    fn problems(&self, key: &str, usual: &str, problems: &mut Vec<String>) {
        let base = self.base(usual).map_err(|text| problems.push(format!("{key}.upstream: {text}"))).ok();
        let credential = self.credential().map_err(|text| problems.push(format!("{key}: {text}"))).ok();
        if let (Some(base), Some(credential)) = (base, credential)
            && credential != Credential::None
            && base.scheme() == "http"
            && !is_loopback(&base)
        {
            problems.push(format!(
                "{key}.upstream: \"{base}\" would carry the credential over the network for everybody to read; use https"
            ));
        }
        for host in &self.file_hosts {
            if Url::parse(&format!("https://{host}/")).is_ok_and(|url| url.path() == "/" && url.username().is_empty()) {
                continue;
            }
            problems.push(format!("{key}.file_hosts: {host:?} is no host; write files.example or files.example:8443"));
        }
    }
}

/// Whether it is on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl Validate for RegistriesFile {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.npm.is_none() && self.pypi.is_none() {
            problems.push("neither [npm] nor [pypi] is there; name one registry at least".to_owned());
        }
        if self.cache_mb.is_some_and(|mb| mb < 64) {
            problems.push("cache_mb: less than 64 MiB hold no packages; give more, or leave it out".to_owned());
        }
        for (key, settings, usual) in self.registries() {
            settings.problems(&key, usual, &mut problems);
        }
        for scope in self.npm.iter().flat_map(|npm| npm.scopes.keys()) {
            if !scope.strip_prefix('@').is_some_and(super::paths::is_plain) {
                problems.push(format!("npm.scopes: {scope:?} is no scope; write it as \"@corp\""));
            }
        }
        for (scope, settings) in self.npm.iter().flat_map(|npm| &npm.scopes) {
            if settings.upstream.is_none() {
                problems.push(format!("npm.scopes.{scope:?}: upstream is missing; add the address of its registry"));
            }
        }
        let replaced = self.npm.iter().filter_map(|npm| npm.replace_registry_host.as_deref());
        for host in replaced.filter(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '=')) {
            problems.push(format!(
                "npm.replace_registry_host: {host:?} is no host; write npmjs, never, always or a host's name"
            ));
        }
        problems
    }
}

impl RegistriesFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or says what makes no sense.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        config::load(path)
    }

    fn registries(&self) -> impl Iterator<Item = (String, &RegistrySettings, &'static str)> {
        let npm = self.npm.iter().flat_map(|npm| {
            let scopes = npm.scopes.iter().map(|(scope, settings)| (format!("npm.scopes.{scope:?}"), settings, NPM));
            std::iter::once(("npm".to_owned(), &npm.settings, NPM)).chain(scopes)
        });
        npm.chain(self.pypi.iter().map(|settings| ("pypi".to_owned(), settings, PYPI)))
    }

    /// What keeps its credentials from being used now, one sentence each. They are read anew for each request, so that this
    /// may pass.
    #[must_use]
    pub fn unusable(&self) -> Vec<String> {
        let problem = |(key, settings, _): (String, &RegistrySettings, _)| {
            let credential = settings.credential().ok()?;
            credential.header().err().map(|text| format!("{key}: {text}"))
        };
        self.registries().filter_map(problem).collect()
    }

    /// Files that others than their owner may read, of this file and those that it names.
    #[must_use]
    pub fn open_files(&self, own: &Path) -> Vec<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let named = self
            .registries()
            .flat_map(|(_, settings, _)| [settings.token_file.clone(), settings.password_file.clone()]);
        let is_open =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
        std::iter::once(Some(own.to_owned())).chain(named).flatten().filter(is_open).collect()
    }

    /// Variables that hold credentials.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        self.registries()
            .flat_map(|(_, settings, _)| [settings.token_env.clone(), settings.password_env.clone()])
            .flatten()
            .collect()
    }

    pub(super) fn npm_base(settings: &RegistrySettings) -> Result<Url, String> {
        settings.base(NPM)
    }

    pub(super) fn pypi_base(settings: &RegistrySettings) -> Result<Url, String> {
        settings.base(PYPI)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("registries.toml");
        std::fs::write(&path, text).expect("written");
        let read = RegistriesFile::read(&path);
        let text = read.map_or_else(|error| slipway_chassis::chain(&error).to_string(), |_| String::new());
        assert!(text.is_empty() || text.contains("registries.toml"), "the file is named: {text}");
        text
    }

    #[test]
    fn a_valid_registries_file_is_accepted() {
        for text in [
            "[npm]\n",
            "offline = true\ncache_mb = 64\n[pypi]\nupstream = \"https://pypi.example/simple\"\nfile_hosts = [\"files.example:8443\"]\n",
            "[npm]\nupstream = \"https://npm.example/a/b\"\ntoken_file = \"/run/token\"\nreplace_registry_host = \"always\"\n\
             [npm.scopes.\"@corp\"]\nupstream = \"https://corp.example/\"\nuser = \"robot\"\npassword_env = \"CORP\"\n",
            "[npm]\nupstream = \"http://127.0.0.1:4873/\"\ntoken_env = \"TOKEN\"\n",
            "[npm]\nupstream = \"http://npm.example/\"\n",
        ] {
            assert_eq!(problems(text), "", "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_with_key_value_and_remedy() {
        for (text, words) in [
            ("", &["neither [npm] nor [pypi]"][..]),
            ("[npm]\ntoken = \"x\"\n", &["unknown field `token`"]),
            ("[npm]\nupstream = \"npm.example\"\n", &["npm.upstream", "\"npm.example\"", "write it as https://"]),
            ("[npm]\nupstream = \"https://a:SECRET@npm.example/\"\n", &["npm.upstream", "`password_file`"]),
            ("[pypi]\nupstream = \"https://pypi.example/simple/?x=1\"\n", &["pypi.upstream", "?x=1", "leave them out"]),
            ("[npm]\nuser = \"robot\"\n", &["npm: user", "password_file"]),
            ("[npm]\npassword_env = \"X\"\n", &["add `user`"]),
            ("[npm]\ntoken_env = \"X\"\ntoken_file = \"/x\"\n", &["token_file and token_env", "one of them"]),
            ("[npm]\ntoken_file = \"x\"\n", &["token_file: x is not absolute"]),
            ("[npm]\nupstream = \"http://npm.example/\"\ntoken_env = \"X\"\n", &["npm.upstream", "use https"]),
            ("[npm.scopes.corp]\nupstream = \"https://x/\"\n", &["npm.scopes", "\"corp\"", "@corp"]),
            ("[npm.scopes.\"@corp\"]\ntoken_env = \"X\"\n", &["@corp", "upstream is missing"]),
            ("cache_mb = 1\n[npm]\n", &["cache_mb", "64 MiB"]),
            ("[pypi]\nfile_hosts = [\"https://x/y\"]\n", &["pypi.file_hosts", "https://x/y"]),
        ] {
            let found = problems(text);
            for word in words {
                assert!(found.contains(word), "{word} in {found}");
            }
            assert!(!found.contains("SECRET"), "{found}");
        }
    }

    #[test]
    fn unusable_credentials_and_world_readable_files_are_reported() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("registries.toml");
        let token = directory.path().join("token");
        std::fs::write(
            &path,
            format!("[npm]\ntoken_file = {token:?}\n[pypi]\nuser = \"u\"\npassword_env = \"SLIPWAY_NONE\"\n"),
        )
        .expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode");
        let file = RegistriesFile::read(&path).expect("a file");
        let problems = file.unusable().join("\n");
        assert!(problems.contains(&token.display().to_string()) && problems.contains("SLIPWAY_NONE"), "{problems}");
        assert_eq!(file.variables(), ["SLIPWAY_NONE"]);
        std::fs::write(&token, "t\n").expect("written");
        std::fs::set_permissions(&token, Permissions::from_mode(0o644)).expect("mode");
        assert_eq!(file.open_files(&path), [token]);
    }
}
