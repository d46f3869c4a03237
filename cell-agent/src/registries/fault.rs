//! Why a build's request is refused: the status and text of the response.

use hyper::StatusCode;

use super::upstream::Registry;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// The registry is not there at the moment: what was kept before is still good.
    pub(super) is_unavailable: bool,
    /// A file is not what the document says that is kept: the registry may say something else by now.
    pub(super) is_mismatch: bool,
}

impl Fault {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), is_unavailable: false, is_mismatch: false }
    }

    /// The path is none, or the registry has no such thing.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// Anything but a plain request for something.
    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "packages are only read here")
    }

    /// The registries are cut off, and this was never fetched.
    pub(super) fn offline(what: &str) -> Self {
        let text =
            format!("{what} is not in the platform's cache, and its registries are switched off (offline = true)");
        Self::new(StatusCode::GATEWAY_TIMEOUT, text)
    }

    /// The registry does something that it should not.
    pub(super) fn upstream(registry: &Registry, what: impl AsRef<str>) -> Self {
        let host = registry.base.host_str().unwrap_or_default();
        Self::new(StatusCode::BAD_GATEWAY, format!("the registry {} ({host}) {}", registry.name, what.as_ref()))
    }

    /// The registry is unavailable at the moment.
    pub(super) fn unavailable(registry: &Registry, what: impl AsRef<str>) -> Self {
        Self { status: StatusCode::GATEWAY_TIMEOUT, is_unavailable: true, ..Self::upstream(registry, what) }
    }

    /// What came has not the digest that it should have.
    pub(super) fn mismatch(registry: &Registry, what: &str, expected: &str) -> Self {
        let text = format!("sends {what} with another digest than it names: {expected}");
        Self { is_mismatch: true, ..Self::upstream(registry, text) }
    }

    /// This host cannot.
    pub(super) fn host(error: &std::io::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the platform cannot keep it: {error}"))
    }

    /// More than is worked on at once.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too much is being fetched at the moment; try again")
    }

    /// More connections than one build, or all of them, may have.
    pub(super) fn crowded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections at a time; some were closed without an answer")
    }

    /// What a registry's answer means for who asked.
    pub(super) fn of_status(registry: &Registry, status: StatusCode, what: &str) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::not_found(format!("{what}: the registry has none")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::upstream(
                registry,
                format!("refuses {what} to the platform ({status}); its operator may have to renew the credential"),
            ),
            StatusCode::TOO_MANY_REQUESTS => Self::unavailable(registry, format!("answered {status} for {what}")),
            status if status.is_server_error() => Self::unavailable(registry, format!("answered {status} for {what}")),
            status => Self::upstream(registry, format!("answered {status} for {what}")),
        }
    }

    /// Worth a line in the build's log: package managers keep some of these to themselves.
    pub(super) fn is_reported(&self) -> bool {
        self.status.is_server_error()
    }
}
