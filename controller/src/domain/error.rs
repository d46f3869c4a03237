//! Why the platform refused or could not do something, told so that a caller can act on it. Free of HTTP.

use slipway_api_types::ErrorCode;

use crate::vault::VaultError;

/// Shorthand.
pub type DomainResult<T> = Result<T, DomainError>;

/// One kind per thing a caller would do differently.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// It is not there, or the caller may not know that it is. The word is as clients match it: `App`, `Route`, …
    #[error("{0} not found")]
    NotFound(&'static str),
    /// Well-formed, but not possible; the text says which value and what to do.
    #[error("{0}")]
    Invalid(String),
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The caller may see it, but not do this.
    #[error("You are not authorized to perform the requested action")]
    Forbidden,
    /// Only admins may change anything in a suspended organization.
    #[error("The organization is suspended")]
    OrgSuspended,
    /// A refusal that clients know by its own code.
    #[error("{detail}")]
    Refused {
        /// The code.
        code: ErrorCode,
        /// What happened.
        detail: String,
    },
    /// A part that is needed is away; the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// Too much is asked for at the moment; the same request may succeed later.
    #[error("{detail}")]
    Busy {
        /// What there is too much of.
        detail: String,
        /// When to try again, seconds.
        retry_after_s: u32,
    },
    /// The database refused or could not be reached.
    #[error("the database failed")]
    Store(#[source] sqlx::Error),
    /// A sealed value could not be opened or sealed.
    #[error("a sealed value cannot be used")]
    Vault(#[from] VaultError),
    /// Anything else that is our own fault.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DomainError {
    /// A refusal that names its reason.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid(detail.into())
    }

    /// A refusal with its own code.
    pub fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused { code, detail: detail.into() }
    }

    /// Our own fault, with what was being done.
    pub fn internal(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { what: what.into(), source: source.into() }
    }

    /// Whether the same thing may succeed when it is tried again.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy { .. } | Self::Store(_) | Self::Internal { .. })
    }

    /// The code by which clients know it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::ResourceNotFound,
            Self::Invalid(_) => ErrorCode::UnprocessableEntity,
            Self::BadRequest(_) => ErrorCode::BadRequest,
            Self::Forbidden => ErrorCode::NotAuthorized,
            Self::OrgSuspended => ErrorCode::OrgSuspended,
            Self::Refused { code, .. } => *code,
            Self::Unavailable(_) | Self::Busy { .. } => ErrorCode::ServiceUnavailable,
            Self::Store(_) | Self::Vault(_) | Self::Internal { .. } => ErrorCode::ServerError,
        }
    }
}

/// Turns what the database said into what a caller can use: a violated constraint is a refusal, trouble with the
/// connection is "try again later", a value that no text column can hold is the caller's.
impl From<sqlx::Error> for DomainError {
    fn from(error: sqlx::Error) -> Self {
        crate::domain::constraints::translate(error)
    }
}
