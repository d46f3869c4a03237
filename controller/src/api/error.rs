//! What went wrong, as the v3 API tells it: `{"errors": [{"code", "title", "detail"}]}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use slipway_api_types::{ApiErrorBody, ApiErrorEntry, ErrorCode};

use crate::domain::DomainError;

/// Shorthand for handlers.
pub type ApiResult<T> = Result<T, ApiError>;

/// An answer with status 400 and above. Server errors are logged with their chain when the answer is made, once.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    entries: Vec<ApiErrorEntry>,
    cause: Option<Box<DomainError>>,
    /// When to try again, seconds.
    retry_after_s: Option<u32>,
}

impl ApiError {
    /// One error with this code.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            // Codes are a closed set, each with a valid status.
            status: StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            entries: vec![code.entry(detail)],
            cause: None,
            retry_after_s: None,
        }
    }

    /// Several problems with one request, all 422. Clients lose their special handling of details when there is more
    /// than one, so use it only for lists of independent problems (manifests).
    #[must_use]
    pub fn unprocessable_many(details: Vec<String>) -> Self {
        let mut error = Self::unprocessable(String::new());
        error.entries = details.into_iter().map(|detail| ErrorCode::UnprocessableEntity.entry(detail)).collect();
        error
    }

    /// 422: well-formed, but not possible.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::UnprocessableEntity, detail)
    }

    /// 404 `<what> not found`; clients match the text: `App`, `Droplet`, `Process`, …
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::ResourceNotFound, format!("{what} not found"))
    }

    /// 404: the platform has no such endpoint.
    #[must_use]
    pub fn unknown_request() -> Self {
        Self::new(ErrorCode::NotFound, "Unknown request")
    }

    /// 400: the request makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, detail)
    }

    /// 400: a query parameter is unknown or malformed.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadQueryParameter, detail)
    }

    /// 400: the body is not JSON (or YAML).
    pub fn message_parse(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::MessageParseError, detail)
    }

    /// 401: no token.
    #[must_use]
    pub fn not_authenticated() -> Self {
        Self::new(ErrorCode::NotAuthenticated, "Authentication error")
    }

    /// 401: forged, malformed, expired or revoked.
    #[must_use]
    pub fn invalid_token() -> Self {
        Self::new(ErrorCode::InvalidAuthToken, "Invalid Auth Token")
    }

    /// 403: visible, but not to be changed by this user.
    #[must_use]
    pub fn forbidden() -> Self {
        DomainError::Forbidden.into()
    }

    /// 503: a part that is needed is away.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServiceUnavailable, detail)
    }

    /// 500: our own fault, with its cause for the log.
    pub fn internal(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        DomainError::internal(what, source).into()
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it says that something is not there or not to be touched, for this caller: what Cloud Foundry turns into
    /// a 422 when a body named it. A suspended organization is told as such.
    #[must_use]
    pub fn refuses_the_caller(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            || self.entries.iter().any(|entry| entry.code == ErrorCode::NotAuthorized.code())
    }

    /// The entries, as they stand in the body.
    #[must_use]
    pub fn entries(&self) -> &[ApiErrorEntry] {
        &self.entries
    }
}

impl From<DomainError> for ApiError {
    fn from(error: DomainError) -> Self {
        let code = error.code();
        // What is our own fault is for the log: its details may name hosts, files or queries.
        let detail = match code {
            ErrorCode::ServerError => "An unknown error occurred.".to_owned(),
            _ => error.to_string(),
        };
        let mut answer = Self::new(code, detail);
        if let DomainError::Busy { retry_after_s, .. } = &error {
            answer.retry_after_s = Some(*retry_after_s);
        }
        answer.cause = Some(Box::new(error));
        answer
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        DomainError::from(error).into()
    }
}

impl From<crate::vault::VaultError> for ApiError {
    fn from(error: crate::vault::VaultError) -> Self {
        DomainError::from(error).into()
    }
}

impl From<crate::auth::tokens::TokenError> for ApiError {
    fn from(error: crate::auth::tokens::TokenError) -> Self {
        match error {
            crate::auth::tokens::TokenError::Invalid(why) => {
                tracing::debug!(why, "a token was refused");
                Self::invalid_token()
            }
            crate::auth::tokens::TokenError::Other(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            match &self.cause {
                Some(cause) => tracing::error!(error = %slipway_chassis::chain(cause), "a request failed"),
                None => tracing::error!(error = ?self.entries, "a request failed"),
            }
        }
        let mut response = (self.status, Json(ApiErrorBody { errors: self.entries })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_faults_do_not_leak() {
        let error = ApiError::internal("secret path /x", std::io::Error::other("boom"));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error.entries()[0].detail, "An unknown error occurred.");
    }

    #[test]
    fn every_code_has_a_status() {
        for code in ErrorCode::ALL {
            assert_eq!(ApiError::new(*code, "x").status().as_u16(), code.status());
        }
    }
}
