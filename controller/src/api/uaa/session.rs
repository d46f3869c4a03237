//! Ending a session, codes for ssh, and looking up clients.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::error::UaaError;
use super::token::SSH_CLIENT;
use crate::api::auth_extract::{Caller, SCOPE_ADMIN, bearer};
use crate::api::links::BaseUrl;
use crate::api::query::Query;
use crate::auth::tokens::{self, Claims};
use crate::context::Context;

/// What every user's token can, unless it was restricted.
pub(super) const USER: &str = "uaa.user";

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

/// The user of a token that stands for a person who logged in with all that it may do: not a client's own, and not one that
/// was restricted to hand it on.
pub(super) fn whole_user(claims: &Claims) -> Result<&str, UaaError> {
    let whole = claims.scope.iter().any(|scope| scope == USER);
    claims.user_id.as_deref().filter(|_| whole).ok_or_else(|| UaaError::scope(USER))
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

/// Ends all sessions of a user: for administrators, and for the user itself.
pub(super) async fn revoke_user(
    State(context): State<Context>,
    Path(user): Path<String>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    let claims = claims(&context, &parts).await?;
    if whole_user(&claims).ok() != Some(&user) && !Caller::from_claims(claims).is_admin {
        return Err(UaaError::scope(SCOPE_ADMIN));
    }
    end_tokens(&context, &user, false).await
}

/// Ends all tokens that were got through a client, users' too: for administrators.
pub(super) async fn revoke_client(
    State(context): State<Context>,
    Path(client): Path<String>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    if !Caller::from_claims(claims(&context, &parts).await?).is_admin {
        return Err(UaaError::scope(SCOPE_ADMIN));
    }
    end_tokens(&context, &client, true).await
}

async fn end_tokens(context: &Context, guid: &str, is_client: bool) -> Result<Json<Value>, UaaError> {
    if context.store.account_end_tokens(guid, is_client).await? {
        return Ok(Json(json!({ "status": "ok", "message": "tokens revoked" })));
    }
    let what = if is_client { "client" } else { "user" };
    Err(UaaError::new(StatusCode::NOT_FOUND, "not_found", format!("There is no {what} with this id.")))
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
    whole_user(&claims)?;
    let code = tokens::issue_code(&context, &claims).await?;
    let location = HeaderValue::from_str(&base.url(&format!("/login?code={code}")))
        .map_err(|_| UaaError::bad_request("this host cannot stand in a redirect"))?;
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
