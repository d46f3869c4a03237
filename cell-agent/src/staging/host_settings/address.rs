//! Removes secrets from addresses of registries and proxies.

/// The address as a build may be told it: without user, password, query and fragment; `None` when that cannot be done for sure.
pub(super) fn without_secrets(value: &str) -> Option<String> {
    let value = value.trim();
    // What is left to a variable is not what everybody may know.
    if value.contains("${") || value.chars().any(char::is_control) {
        return None;
    }
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), value),
    };
    let (place, private) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    // A password with one of these in it puts its @ behind them, and what is before them is a part of it.
    if path.contains('@') || private.contains('@') {
        return None;
    }
    // The last one: passwords are often written without the escape that they need.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    is_place(host).then(|| format!("{scheme}{host}{path}"))
}

/// Whether this is a host with a port or without.
fn is_place(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            ("v6", rest.strip_prefix(':').or((rest.is_empty()).then_some("0")))
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, Some("0")), |(host, port)| (host, Some(port))),
    };
    !host.is_empty() && host.chars().all(plain) && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_path_of_an_address_are_shown() {
        for (value, expected) in [
            ("https://npm.example/", Some("https://npm.example/")),
            ("https://npm.example:8443/a/b/", Some("https://npm.example:8443/a/b/")),
            ("http://[::1]:3128", Some("http://[::1]:3128")),
            ("proxy.example:3128", Some("proxy.example:3128")),
            ("https://user:pass@npm.example/x", Some("https://npm.example/x")),
            ("https://user:p@ss@npm.example/x", Some("https://npm.example/x")),
            ("https://token@npm.example", Some("https://npm.example")),
            ("https://npm.example/?token=x#y", Some("https://npm.example/")),
            ("https://user:pa/ss@npm.example/x", None),
            ("https://user:pa?ss@npm.example/x", None),
            ("https://user:pa#ss@npm.example/x", None),
            ("https://npm.example/${TOKEN}/x", None),
            ("https://npm.example?x=a@b", None),
            ("https://user:pass", None),
            ("http://[::1", None),
            ("http://[x]:1", None),
            ("https://a\nb", None),
            ("", None),
        ] {
            assert_eq!(without_secrets(value).as_deref(), expected, "{value:?}");
        }
    }
}
