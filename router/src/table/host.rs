//! Host names and paths as the table compares them.

use std::borrow::Cow;

/// A `Host` that names no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host name")]
pub struct BadHost;

/// Lower case, without port and without the root's dot. Takes `app.example.com`, `APP.example.com:8080`, `[::1]:80`.
///
/// # Errors
/// When it is empty, longer than a DNS name may be, or has a character that no host name has.
pub fn normal_host(text: &str) -> Result<Cow<'_, str>, BadHost> {
    let host = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(BadHost)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| BadHost)?;
        check_port(after)?;
        address
    } else {
        match text.split_once(':') {
            Some((host, port)) => {
                check_digits(port)?;
                host
            }
            None => text,
        }
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    // Every label has a character; the root's dot was the last one that may stand at an end.
    let hollow = host.starts_with('.') || host.ends_with('.') || host.contains("..");
    if host.is_empty() || host.len() > 253 || !host.bytes().all(good) || hollow {
        return Err(BadHost);
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

fn check_port(after: &str) -> Result<(), BadHost> {
    match after.strip_prefix(':') {
        Some(port) => check_digits(port),
        None if after.is_empty() => Ok(()),
        None => Err(BadHost),
    }
}

/// `Host: name:` with an empty port is valid.
fn check_digits(port: &str) -> Result<(), BadHost> {
    if port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) { Ok(()) } else { Err(BadHost) }
}

/// True when `prefix` takes `path`: equal, or followed by a `/`. An empty prefix and `/` take everything.
pub(super) fn path_matches(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, host) in [
            ("app.example.com", "app.example.com"),
            ("APP.Example.com:8080", "app.example.com"),
            ("app.example.com.", "app.example.com"),
            ("app.example.com:", "app.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "::1"),
        ] {
            assert_eq!(normal_host(text).as_deref(), Ok(host), "{text}");
        }
        for text in
            ["", ":80", "a b", "a/b", "a:b", "a:1:2", "[::1", "[::1]x", "a@b", "ä.de", "a..b", "a..", ".a", "a:999999"]
        {
            assert_eq!(normal_host(text), Err(BadHost), "{text}");
        }
        assert_eq!(normal_host(&"a".repeat(254)), Err(BadHost));
    }

    #[test]
    fn paths_match_on_segment_borders() {
        for (prefix, path, expected) in [
            ("", "/", true),
            ("/", "/x", true),
            ("/v1", "/v1", true),
            ("/v1", "/v1/x", true),
            ("/v1/", "/v1", true),
            ("/v1", "/v10", false),
            ("/v1", "/V1", false),
            ("/v1", "/", false),
            ("", "*", true),
        ] {
            assert_eq!(path_matches(prefix, path), expected, "{prefix} {path}");
        }
    }
}
