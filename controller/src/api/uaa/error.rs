//! Errors of the UAA: `{"error", "error_description"}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use crate::api::error::ApiError;
use crate::auth::tokens::TokenError;
use crate::domain::DomainError;

/// Clients stop asking for a password at exactly this text.
pub(super) const LOCKED: &str = "Your account has been locked because of too many failed attempts to login.";

/// A refusal by name, or trouble of ours.
#[derive(Debug)]
pub(super) enum UaaError {
    /// Status, `error`, `error_description`.
    Refused(StatusCode, &'static str, String),
    /// Not the caller's fault.
    Other(Box<DomainError>),
}

impl UaaError {
    pub(super) fn new(status: StatusCode, name: &'static str, text: impl Into<String>) -> Self {
        Self::Refused(status, name, text.into())
    }

    /// Wrong name or password. The RFC's `invalid_grant` makes the CLI print raw JSON.
    pub(super) fn bad_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Bad credentials")
    }

    /// Unknown client or wrong secret: with the text for which the CLI says what to do.
    pub(super) fn bad_client() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", "Bad credentials")
    }

    pub(super) fn bad_token(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", text)
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", text)
    }

    pub(super) fn scope(needed: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "insufficient_scope",
            format!("Insufficient scope for this resource: {needed}"),
        )
    }
}

impl From<DomainError> for UaaError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::Invalid(text) => Self::new(StatusCode::BAD_REQUEST, "invalid_scim_resource", text),
            error => Self::Other(Box::new(error)),
        }
    }
}

impl From<sqlx::Error> for UaaError {
    fn from(error: sqlx::Error) -> Self {
        DomainError::from(error).into()
    }
}

impl From<TokenError> for UaaError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(_) => Self::bad_token("The token expired, was revoked, or is not valid."),
            TokenError::Other(error) => error.into(),
        }
    }
}

impl From<ApiError> for UaaError {
    fn from(error: ApiError) -> Self {
        let text = error.entries().first().map_or("", |entry| entry.detail.as_str());
        let name = match error.status() {
            StatusCode::UNAUTHORIZED => "invalid_token",
            StatusCode::UNPROCESSABLE_ENTITY => "invalid_scim_resource",
            _ => "invalid_request",
        };
        let status = match error.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self::new(status, name, text)
    }
}

impl IntoResponse for UaaError {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let (status, name, text) = match self {
            Self::Refused(status, name, text) => (status, name, text),
            Self::Other(error) => {
                if matches!(*error, DomainError::Unavailable(_)) {
                    // A queue of logins is through by then.
                    headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
                    (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", error.to_string())
                } else {
                    tracing::error!(error = %slipway_chassis::chain(&*error), "a token request failed");
                    (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "An unknown error occurred.".to_owned())
                }
            }
        };
        (status, headers, Json(json!({ "error": name, "error_description": text }))).into_response()
    }
}
