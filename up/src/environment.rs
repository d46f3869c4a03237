//! What the parts get of the environment in which somebody typed `slipway up`: what they need, by name. A shell of root
//! holds keys of clouds and tokens, and a part must have nothing that it could lose.

use std::collections::BTreeMap;

/// For every part.
const COMMON: [&str; 11] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "SLIPWAY_LOG_FORMAT",
    // Where the system's certificate authorities are, when they are not in their usual place.
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
];
/// For the cell, whose builds may reach registries as this machine does, when the operator wants that.
const CELL: [&str; 8] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
];
/// Likewise, by how they begin.
const CELL_PREFIXES: [&str; 2] = ["NPM_CONFIG_", "PIP_"];

/// What this part may have of these variables. `credentials`: those that the operator's file of registries names, which are for
/// the cell.
pub(crate) fn of_part(
    part: &str,
    credentials: &[String],
    variables: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    variables.filter(|(name, _)| is_for(part, name) || (part == "cell" && credentials.contains(name))).collect()
}

/// What the supervisor needs to give on.
pub(crate) fn of_supervisor(
    credentials: &[String],
    variables: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    of_part("cell", credentials, variables)
}

fn is_for(part: &str, name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    COMMON.contains(&name)
        || (part == "cell"
            && (CELL.contains(&upper.as_str()) || CELL_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))))
}

/// Variables of this process that are text: no part needs others.
pub(crate) fn own() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_what_it_needs_and_no_secret_of_the_shell() {
        let shell = [
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "RUST_LOG",
            "https_proxy",
            "HTTPS_PROXY",
            "npm_config_registry",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "SLIPWAY_PASSWORD",
            "PGPASSWORD",
            "SSH_AUTH_SOCK",
            "LD_PRELOAD",
        ];
        let of = |part| {
            let variables = shell.iter().map(|name| ((*name).to_owned(), "x".to_owned()));
            of_part(part, &[], variables).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(of("controller"), ["HOME", "LANG", "PATH", "RUST_LOG", "TZ"]);
        assert_eq!(of("postgres"), of("controller"));
        let cell = ["HOME", "HTTPS_PROXY", "LANG", "PATH", "RUST_LOG", "TZ", "https_proxy", "npm_config_registry"];
        assert_eq!(of("cell"), cell);
        let named = ["GITHUB_TOKEN".to_owned()];
        let with = |part| {
            let variables = shell.iter().map(|name| ((*name).to_owned(), "x".to_owned()));
            of_part(part, &named, variables).into_keys().any(|name| name == "GITHUB_TOKEN")
        };
        assert!(with("cell") && !with("controller") && !with("router"), "what the file of registries names");
    }
}
