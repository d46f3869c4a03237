//! `/passcode`: a code with which `cf login --sso` logs in, for whoever shows a password here, in a browser, or has a
//! token already.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use rand::seq::IndexedRandom as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::error::UaaError;
use super::session::{claims, whole_user};
use super::token::{MAX_FORM, rights, verified};
use crate::api::body;
use crate::api::client_address::ClientAddress;
use crate::context::Context;
use crate::store::users::AccountRow;

/// Long enough to type or paste it, short enough that one left on a screen is worth nothing.
const LIFE_S: f64 = 300.0;
/// 59 bits: guessing one within its life takes longer than there is.
const LENGTH: usize = 10;
/// Without what looks alike on a screen.
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

/// How a code is kept.
pub(super) fn hash(code: &str) -> Vec<u8> {
    Sha256::digest(code.trim().as_bytes()).to_vec()
}

/// A code for this account, good for these scopes and no more.
async fn make(context: &Context, account: &AccountRow, scopes: &[String]) -> Result<String, UaaError> {
    let code: String = {
        let mut rng = rand::rng();
        (0..LENGTH).filter_map(|_| ALPHABET.choose(&mut rng)).map(|byte| char::from(*byte)).collect()
    };
    context.store.passcode_create(&hash(&code), &account.guid, account.generation, scopes, LIFE_S).await?;
    Ok(code)
}

/// With a user's token: a code, as JSON. Without: the form that asks for a password.
pub(super) async fn show(State(context): State<Context>, request: Request) -> Result<Response, UaaError> {
    let (parts, _) = request.into_parts();
    if !parts.headers.contains_key(AUTHORIZATION) {
        return Ok(page(StatusCode::OK, &form("")));
    }
    let claims = claims(&context, &parts).await?;
    let gone = || UaaError::bad_token("The user no longer exists.");
    let account = context.store.account_get(whole_user(&claims)?).await?.ok_or_else(gone)?;
    let code = make(&context, &account, &claims.scope).await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(json!({ "passcode": code }))).into_response())
}

/// What the form sends: the code, or the form again.
pub(super) async fn submit(
    State(context): State<Context>,
    ClientAddress(from): ClientAddress,
    request: Request,
) -> Result<Response, UaaError> {
    let bytes = body::read(request, MAX_FORM).await?;
    let fields: HashMap<String, String> = url::form_urlencoded::parse(&bytes).into_owned().collect();
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    match verified(&context, field("username"), field("password"), from).await {
        Ok(account) => {
            let code = make(&context, &account, &rights(&account)).await?;
            let text = format!(
                "<h1>Temporary Authentication Code</h1><p><code>{code}</code></p>\
                 <p>It is good for one login within five minutes.</p>"
            );
            Ok(page(StatusCode::OK, &text))
        }
        // Text of ours: nothing that was typed comes back.
        Err(UaaError::Refused(status, _, text)) => Ok(page(status, &form(&text))),
        Err(error) => Err(error),
    }
}

fn form(message: &str) -> String {
    let message = if message.is_empty() { String::new() } else { format!("<p role=\"alert\">{message}</p>") };
    format!(
        "<h1>Get a code for cf login --sso</h1>{message}<form method=\"post\" action=\"/passcode\">\
         <p><label>User name <input name=\"username\" autocomplete=\"username\" required autofocus></label></p>\
         <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label></p>\
         <p><button>Get code</button></p></form>"
    )
}

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Slipway</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head><body>{body}</body></html>"
    );
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // No script, no frame around it, and the form goes nowhere else.
    let policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
