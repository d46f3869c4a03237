//! How routers speak with the instances that a destination leads to.

use serde_json::Value;

/// A protocol that destinations of HTTP routes can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// HTTP/1.1, which every app understands.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte on.
    Http2,
}

/// Why a value is no [`AppProtocol`]. The words depend on where it stood, and clients know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSpoken {
    /// For routes of another kind.
    Tcp,
    /// For none.
    Unknown,
}

impl AppProtocol {
    /// Reads what a client sent, which may be anything.
    ///
    /// # Errors
    /// [`NotSpoken`] with what it is instead.
    pub fn read(value: &Value) -> Result<Self, NotSpoken> {
        match value.as_str() {
            Some("http1") => Ok(Self::Http1),
            Some("http2") => Ok(Self::Http2),
            Some("tcp") => Err(NotSpoken::Tcp),
            _ => Err(NotSpoken::Unknown),
        }
    }

    /// As clients write it and the store keeps it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl NotSpoken {
    /// The problem of a destination that is to be made.
    #[must_use]
    pub fn of_new_destination(self) -> &'static str {
        match self {
            Self::Tcp => "Cannot use 'tcp' protocol for http routes; valid options are: [http1, http2].",
            Self::Unknown => "protocol must be 'http1', 'http2' or 'tcp'.",
        }
    }

    /// The problem of a destination that is to be changed.
    #[must_use]
    pub(crate) fn of_changed_destination(self) -> &'static str {
        match self {
            Self::Tcp => "Destination protocol must be 'http1' or 'http2' if the parent route's protocol is 'http'",
            Self::Unknown => "Destination protocol must be 'http1', 'http2' or 'tcp'.",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_http1_and_http2_are_protocols() {
        for protocol in [AppProtocol::Http1, AppProtocol::Http2] {
            assert_eq!(AppProtocol::read(&json!(protocol.as_str())), Ok(protocol));
        }
        assert_eq!(AppProtocol::read(&json!("tcp")), Err(NotSpoken::Tcp));
        for value in [json!("HTTP2"), json!("http2 "), json!(""), json!(2), json!(null), json!(["http2"]), json!({})] {
            assert_eq!(AppProtocol::read(&value), Err(NotSpoken::Unknown), "{value}");
        }
    }
}
