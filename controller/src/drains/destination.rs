//! Where a drain is, read from its URL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// How lines get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 6587 over TCP.
    Tcp,
    /// RFC 5425.
    Tls,
    /// A request per line.
    Https,
}

/// Why a URL is no drain.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// No URL, or without a host.
    #[error("the drain URL must be an absolute URL with a host")]
    Url,
    /// Not one of three.
    #[error("unsupported drain scheme {0:?}; use syslog, syslog-tls or https")]
    Scheme(String),
    /// It is for something else than lines.
    #[error("the drain asks for metrics only; only log lines are sent")]
    MetricsOnly,
}

/// A drain's place. Passwords in it do not print.
#[derive(Clone)]
pub struct Destination {
    /// How.
    pub transport: Transport,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query of an HTTPS drain.
    pub path: String,
    /// `Authorization` of an HTTPS drain.
    pub authorization: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination")
            .field("transport", &self.transport)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// Reads a URL.
    ///
    /// # Errors
    /// When no line can be sent there.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let url = url::Url::parse(text).map_err(|_| DestinationError::Url)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(DestinationError::Url)?;
        let (transport, port) = match url.scheme() {
            "syslog" => (Transport::Tcp, 514),
            "syslog-tls" => (Transport::Tls, 6514),
            "https" => (Transport::Https, 443),
            other => return Err(DestinationError::Scheme(other.to_owned())),
        };
        if url.query_pairs().any(|(name, value)| name == "drain-type" && value == "metrics") {
            return Err(DestinationError::MetricsOnly);
        }
        let authorization = (!url.username().is_empty()).then(|| {
            let user = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
            Zeroizing::new(format!("Basic {}", STANDARD.encode(user)))
        });
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = if url.path().is_empty() { "/" } else { url.path() };
        Ok(Self {
            transport,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            path: format!("{path}{query}"),
            authorization,
        })
    }
}

/// Percent-decoded, as the user meant it.
fn decoded(text: &str) -> String {
    // `+` stays a plus in this part of a URL.
    let form = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let of = |url: &str| Destination::parse(url).map(|found| (found.transport, found.host, found.port, found.path));
        assert_eq!(of("syslog://logs.test"), Ok((Transport::Tcp, "logs.test".into(), 514, "/".into())));
        assert_eq!(of("syslog-tls://logs.test:99"), Ok((Transport::Tls, "logs.test".into(), 99, "/".into())));
        let https = Destination::parse("https://me:p%40ss@logs.test/in?k=v").expect("valid");
        assert_eq!((https.port, https.path.as_str()), (443, "/in?k=v"));
        assert_eq!(https.authorization.as_ref().map(|text| text.as_str()), Some("Basic bWU6cEBzcw=="));
        assert!(!format!("{https:?}").contains("Basic"));
        assert_eq!(of("logs.test"), Err(DestinationError::Url));
        assert_eq!(of("http://logs.test"), Err(DestinationError::Scheme("http".into())));
        assert_eq!(of("syslog://logs.test?drain-type=metrics"), Err(DestinationError::MetricsOnly));
    }
}
