//! What can go wrong between this program and the platform.

use std::error::Error;

use slipway_api_types::error::ApiErrorEntry;
use url::Url;

use crate::error::{describe_entries, printable};
use crate::settings::SettingsError;

/// A failed exchange with the platform.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("'{address}' is not the address of an API")]
    Address {
        /// What was given.
        address: String,
    },
    /// The file with the certificate authority cannot be used.
    #[error("Cannot use the certificate authority in {place}")]
    Authority {
        /// File, or where the text came from.
        place: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection, or it broke.
    #[error("Cannot talk to {address}")]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server's certificate is not trusted.
    #[error("The certificate of {address} is not trusted")]
    Untrusted {
        /// Scheme, host and port.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The platform said no.
    #[error("{}", if errors.is_empty() { format!("The platform answered {status} to {what}") } else { describe_entries(errors) })]
    Refused {
        /// HTTP status.
        status: u16,
        /// Method and path.
        what: String,
        /// Its own words.
        errors: Vec<ApiErrorEntry>,
    },
    /// Something answered, but not as the API does.
    #[error("Unexpected response to {what} (status {status}){begins}")]
    Answer {
        /// Method and path.
        what: String,
        /// HTTP status.
        status: u16,
        /// `, it begins with '…'`.
        begins: String,
        /// Where decoding stopped.
        source: Option<serde_json::Error>,
    },
    /// The answer is larger than any the API gives.
    #[error("The answer to {what} is longer than {limit} bytes")]
    TooLong {
        /// Method and path.
        what: String,
        /// Bytes.
        limit: usize,
    },
    /// User name or password is wrong.
    #[error("User name or password is wrong{detail}.")]
    BadCredentials {
        /// `: …` when the platform said more.
        detail: String,
    },
    /// The stored login is not valid any more.
    #[error("The login has expired.")]
    SessionExpired,
    /// A job does not end.
    #[error("The platform is still busy after {minutes} minutes")]
    JobStuck {
        /// How long it was waited for.
        minutes: u64,
    },
    /// Logs cannot be read.
    #[error("The logs cannot be read")]
    Logs {
        /// Why.
        source: Box<ClientError>,
    },
    /// The renewed login cannot be stored.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The HTTP client cannot be set up.
    #[error("The HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
}

impl ClientError {
    /// An error below HTTP, told apart by whether the certificate was at fault.
    pub(super) fn transport(url: &Url, source: reqwest::Error) -> Self {
        let address = url.origin().ascii_serialization();
        // The query may hold names; the address above says enough.
        let source = source.without_url();
        let mut cause: Option<&(dyn Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            let text = error.to_string();
            if text.contains("invalid peer certificate") || text.contains("UnknownIssuer") {
                return Self::Untrusted { address, source };
            }
            cause = error.source();
        }
        Self::Unreachable { address, source }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Answer { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether the platform answered with this status.
    pub(crate) fn has_status(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }

    /// Whether the platform's words contain `text`.
    pub(crate) fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.contains(text)))
    }

    /// Whether the platform answered with this error code.
    pub(crate) fn has_code(&self, code: u32) -> bool {
        matches!(self, Self::Refused { errors, .. } if errors.iter().any(|entry| entry.code == code))
    }
}

/// The beginning of an answer that should have been JSON, on one line.
pub(super) fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(400)]);
    let line = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if line.is_empty() {
        return ": it is empty".to_owned();
    }
    let short: String = line.chars().take(100).collect();
    format!(": it begins with '{short}'")
}
