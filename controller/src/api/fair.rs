//! Rate limits of users, and the response headers of Cloud Foundry's rate limiter.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use chrono::Utc;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use slipway_api_types::ErrorCode;

use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use crate::auth::fair::{RateStatus, RequestPermit, RequestQueues};
use crate::context::Context;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Questions for logs of one user that are answered at a time, from the look at the app to the last line: a thousand lines
/// are looked up, put in order and written out for each of them.
const LOGS_AT_ONCE: usize = 4;

/// The caller's rate limit, set once the token has been read, for the headers of the response.
#[derive(Clone, Default)]
struct CurrentStanding(Arc<OnceLock<RateStatus>>);

/// Adds the rate limit's headers to the response.
pub async fn add_headers(mut request: Request, next: Next) -> Response {
    let current = CurrentStanding::default();
    request.extensions_mut().insert(current.clone());
    let mut response = next.run(request).await;
    let refused = response.status() == StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    if let Some(standing) = current.0.get() {
        headers.insert(LIMIT, standing.limit.into());
        headers.insert(REMAINING, standing.remaining.into());
        headers.insert(RESET, standing.reset.timestamp().into());
    }
    if refused {
        let wait = current.0.get().filter(|standing| standing.exceeded);
        let wait = wait.map_or(1, |standing| (standing.reset - Utc::now()).num_seconds().max(1));
        headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// Counts the request of this caller and waits for its turn. Uploads, which take long by their nature, have a bound of their
/// own. Questions for logs are not counted, since whoever follows a log asks all the time, and have turns of their own, since
/// they may wait for cells. Administrators are not counted, as on Cloud Foundry, but wait like everybody.
///
/// # Errors
/// 429.
pub(super) async fn enter(context: &Context, parts: &Parts, caller: &Caller) -> ApiResult<Option<Arc<RequestPermit>>> {
    let (path, limits) = (parts.uri.path(), &context.config.limits);
    if path.starts_with("/api/v1/") {
        return turn(&context.guard.log_turns, caller, LOGS_AT_ONCE).await;
    }
    if limits.requests_per_user > 0 && !caller.is_admin && !caller.is_admin_read_only {
        let interval = Duration::from_secs(limits.requests_interval_s);
        let rates = &context.guard.rates;
        let standing = rates.count(&caller.user_guid, limits.requests_per_user, interval, Utc::now());
        if let Some(current) = parts.extensions.get::<CurrentStanding>() {
            // Set once: a request has one caller.
            let _ = current.0.set(standing);
        }
        if standing.exceeded {
            return Err(ApiError::new(ErrorCode::RateLimitExceeded, "Rate Limit Exceeded"));
        }
    }
    if path.ends_with("/upload") {
        return Ok(None);
    }
    turn(&context.guard.turns, caller, limits.requests_at_once).await
}

async fn turn(turns: &RequestQueues, caller: &Caller, at_once: usize) -> ApiResult<Option<Arc<RequestPermit>>> {
    match turns.of(&caller.user_guid, at_once).await {
        Some(turn) => Ok(Some(Arc::new(turn))),
        None => Err(ApiError::new(
            ErrorCode::RateLimitExceeded,
            "Rate Limit Exceeded: too many requests of this user at once. Try again when some of them are answered.",
        )),
    }
}
