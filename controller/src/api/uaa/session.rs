//! Ending a session, codes for ssh, and looking up clients.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use super::error::UaaError;
use super::token::SSH_CLIENT;
use crate::api::auth_extract::bearer;
use crate::api::links::BaseUrl;
use crate::api::query::Query;
use crate::auth::tokens::{self, Claims};
use crate::context::Context;

/// Claims of the request's token.
pub(super) async fn claims(context: &Context, parts: &Parts) -> Result<Claims, UaaError> {
    let token = bearer(parts).map_err(|_| {
        UaaError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Full authentication is required to access this resource",
        )
    })?;
    Ok(tokens::check(context, token).await?)
}

/// Logging out: the access token is refused from now on, and the refresh token of the same session is gone.
pub(super) async fn revoke(
    State(context): State<Context>,
    Path(jti): Path<String>,
    parts: Parts,
) -> Result<StatusCode, UaaError> {
    let claims = claims(&context, &parts).await?;
    if jti != claims.jti {
        return Err(UaaError::scope("a token can only be revoked with itself"));
    }
    context.store.token_revoke(&claims.jti, tokens::remembered_until(claims.exp)).await?;
    if let (Some(user), Some((session, _))) = (&claims.user_id, claims.jti.split_once('-'))
        && session.len() == tokens::SESSION_DIGITS
    {
        context.store.refresh_token_delete(user, session).await?;
    }
    Ok(StatusCode::OK)
}

/// A code for an ssh session, as a redirect that the CLI reads and does not follow.
pub(super) async fn authorize(
    State(context): State<Context>,
    Query(query): Query<HashMap<String, String>>,
    base: BaseUrl,
    parts: Parts,
) -> Result<Response, UaaError> {
    let claims = claims(&context, &parts).await?;
    if query.get("response_type").map(String::as_str) != Some("code") {
        return Err(UaaError::bad_request("response_type must be code"));
    }
    if query.get("client_id").map(String::as_str) != Some(SSH_CLIENT) {
        return Err(UaaError::bad_request(format!("client_id must be {SSH_CLIENT}")));
    }
    let user = claims.user_id.ok_or_else(|| UaaError::scope("only users get codes"))?;
    let code = tokens::issue_code(&context, &user).await?;
    let location = HeaderValue::from_str(&base.url(&format!("/login?code={code}")))
        .map_err(|_| UaaError::bad_request("this host cannot stand in a redirect"))?;
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
