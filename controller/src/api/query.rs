//! Malformed requests: a path or query that is not UTF-8, a parameter that comes twice. They get the usual JSON error: for
//! anything else clients show the bare text as of an unknown source.

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;
use slipway_api_types::ErrorCode;

use super::error::ApiError;

/// Refuses a path or query that is no UTF-8 once it is decoded: no name or guid could be meant by it.
pub async fn well_formed(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if is_text(uri.path()) && uri.query().is_none_or(is_text) {
        return next.run(request).await;
    }
    ApiError::new(ErrorCode::InvalidRequest, "The request is invalid").into_response()
}

/// Whether the bytes that are meant are text. A `%` without two hex digits stands for itself, as for the decoder.
fn is_text(encoded: &str) -> bool {
    let bytes = encoded.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut meant = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                meant.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                meant.push(*byte);
                at += 1;
            }
        }
    }
    std::str::from_utf8(&meant).is_ok()
}

/// axum's extractor of a query, with an error that clients can read.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => {
                let text: String = error.body_text().chars().take(300).collect();
                Err(ApiError::bad_query(format!("The query parameter is invalid: {text}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_text;

    #[test]
    fn bytes_that_are_not_utf8_are_detected() {
        for good in ["/v3/apps/x", "names=a%252Cb,%C3%A4", "a=%zz%", "%00"] {
            assert!(is_text(good), "{good}");
        }
        for bad in ["/v3/apps/%ff", "names=%C3", "%80"] {
            assert!(!is_text(bad), "{bad}");
        }
    }
}
