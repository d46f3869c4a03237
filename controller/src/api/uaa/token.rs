//! `POST /oauth/token`: password, refresh token, client credentials, authorization code.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, StatusCode};
use rand::RngCore as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::error::{LOCKED, UaaError};
use super::passcode;
use super::session::USER;
use crate::api::auth_extract::{SCOPE_ADMIN, SCOPE_READ, SCOPE_WRITE, is_right};
use crate::api::body;
use crate::api::client_address::ClientAddress;
use crate::auth::login::{self, ClaimedUser, Refusal};
use crate::auth::tokens::{self, Subject, SubjectUser};
use crate::context::Context;
use crate::store::users::{AccountRow, NewSession};

/// The CLI's client: public, with an empty secret.
const PUBLIC_CLIENT: &str = "cf";
/// Client that redeems codes for ssh sessions.
pub(super) const SSH_CLIENT: &str = "ssh-proxy";
/// Clients have no refresh token, and the CLI does not keep their secret.
const CLIENT_TOKEN_S: u64 = 12 * 3600;
/// A token that may do more than roles allow is worth more to whoever finds it in the log of a pipeline.
const POWERFUL_CLIENT_TOKEN_S: u64 = 2 * 3600;
/// A form of names and passwords.
pub(super) const MAX_FORM: usize = 64 << 10;

type Form = HashMap<String, String>;

/// The token endpoint.
pub(super) async fn issue(
    State(context): State<Context>,
    ClientAddress(from): ClientAddress,
    headers: HeaderMap,
    request: Request,
) -> Result<([(http::HeaderName, &'static str); 1], Json<Value>), UaaError> {
    // Older clients put some fields into the query.
    let query = request.uri().query().unwrap_or_default().to_owned();
    let bytes = body::read(request, MAX_FORM).await?;
    let mut form: Form = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    form.extend(url::form_urlencoded::parse(&bytes).into_owned());
    let client = authenticate_client(&context, &headers, &form, from).await?;
    let answer = match form.get("grant_type").map(String::as_str) {
        Some("password") => by_password(&context, &client, &form, from).await?,
        Some("refresh_token") => by_refresh_token(&context, &client, &form).await?,
        Some("client_credentials") => by_client(&context, &client, &form).await?,
        Some("authorization_code") => by_code(&context, &client, &form).await?,
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            return Err(UaaError::new(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                format!("Unsupported grant type: {shown}"),
            ));
        }
        None => return Err(UaaError::bad_request("Missing grant type")),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)))
}

/// A client that has shown who it is.
struct Client {
    id: String,
    generation: i64,
    /// Its own rights, when it has a secret.
    scopes: Option<Vec<String>>,
}

async fn authenticate_client(
    context: &Context,
    headers: &HeaderMap,
    form: &Form,
    from: IpAddr,
) -> Result<Client, UaaError> {
    let (id, secret) = match headers.get(AUTHORIZATION) {
        Some(value) => basic(value.to_str().unwrap_or_default()).ok_or_else(UaaError::bad_client)?,
        None => (
            form.get("client_id").cloned().ok_or_else(UaaError::bad_client)?,
            form.get("client_secret").cloned().unwrap_or_default(),
        ),
    };
    if form.contains_key("client_assertion") {
        return Err(UaaError::new(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Client assertions are not accepted here. Authenticate with a client secret.",
        ));
    }
    if id == PUBLIC_CLIENT {
        let row = context.store.account_get(&id).await?.filter(|row| row.is_client && secret.is_empty());
        let row = row.ok_or_else(UaaError::bad_client)?;
        return Ok(Client { id, generation: row.generation, scopes: None });
    }
    match login::attempt(context, ClaimedUser::Client(&id), &secret, from).await? {
        Ok(row) => Ok(Client { id, generation: row.generation, scopes: Some(row.scopes) }),
        Err(Refusal::Wrong) => Err(UaaError::bad_client()),
        Err(Refusal::TooMany) => Err(UaaError::new(StatusCode::UNAUTHORIZED, "invalid_client", LOCKED)),
    }
}

/// `Basic base64(id:secret)`; both are form-encoded inside.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

async fn by_password(context: &Context, client: &Client, form: &Form, from: IpAddr) -> Result<Value, UaaError> {
    if let Some(code) = form.get("passcode") {
        let (account, carried) = by_passcode(context, code).await?;
        let scopes = common(granted(&account, form)?, &carried);
        return new_session(context, client, &account, scopes).await;
    }
    let missing = |name: &str| UaaError::bad_request(format!("Missing parameter: {name}"));
    let username = form.get("username").ok_or_else(|| missing("username"))?;
    let given = form.get("password").ok_or_else(|| missing("password"))?;
    // A hint that is not understood is no hint.
    let origin = form
        .get("login_hint")
        .and_then(|hint| serde_json::from_str::<Value>(hint).ok())
        .and_then(|hint| hint["origin"].as_str().map(ToOwned::to_owned));
    // Clients know the text.
    if origin.as_deref().is_some_and(|origin| origin != "uaa") {
        return Err(UaaError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The origin provided in the login_hint does not match an active Identity Provider, that supports password grant.",
        ));
    }
    let account = verified(context, username, given, from).await?;
    let scopes = granted(&account, form)?;
    new_session(context, client, &account, scopes).await
}

/// The user of a passcode, which is used up by this, and what the code is good for.
async fn by_passcode(context: &Context, code: &str) -> Result<(AccountRow, Vec<String>), UaaError> {
    let invalid = || UaaError::new(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid passcode");
    let (user, scopes) = context.store.passcode_redeem(&passcode::hash(code)).await?.ok_or_else(invalid)?;
    Ok((context.store.account_get(&user).await?.ok_or_else(invalid)?, scopes))
}

/// The user with this name, if that is the password. Accounts of other origins have none here.
///
/// # Errors
/// 401; with the text at which clients stop asking when there were too many wrong ones from there.
pub(super) async fn verified(
    context: &Context,
    username: &str,
    given: &str,
    from: IpAddr,
) -> Result<AccountRow, UaaError> {
    login::attempt(context, ClaimedUser::User(username), given, from).await?.map_err(|refusal| match refusal {
        Refusal::Wrong => UaaError::bad_credentials(),
        Refusal::TooMany => UaaError::new(StatusCode::UNAUTHORIZED, "unauthorized", LOCKED),
    })
}

/// Begins a session of a user who has shown who it is.
async fn new_session(
    context: &Context,
    client: &Client,
    account: &AccountRow,
    scopes: Vec<String>,
) -> Result<Value, UaaError> {
    let mut secret = [0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let refresh = URL_SAFE_NO_PAD.encode(secret);
    let life = context.config.limits.refresh_token_s;
    #[allow(clippy::cast_precision_loss, reason = "seconds of a life, far below 2^52")]
    let session = NewSession {
        user: &account.guid,
        user_generation: account.generation,
        client: &client.id,
        client_generation: client.generation,
        scopes: &scopes,
        life_s: life as f64,
    };
    if !context.store.refresh_token_create(&hash(&refresh), session).await? {
        return Err(UaaError::bad_credentials());
    }
    user_answer(context, client, account, scopes, refresh, "password").await
}

async fn by_refresh_token(context: &Context, client: &Client, form: &Form) -> Result<Value, UaaError> {
    let refresh = form.get("refresh_token").ok_or_else(|| UaaError::bad_request("Missing parameter: refresh_token"))?;
    let over = || UaaError::bad_token("The refresh token expired or was revoked. Log in again.");
    let (user, scopes) = context.store.refresh_token_get(&hash(refresh), &client.id).await?.ok_or_else(over)?;
    let account = context.store.account_get(&user).await?.ok_or_else(over)?;
    // Rights that were taken away since are gone; rights that came since need a new login.
    let now = granted(&account, form)?;
    let scopes = common(now, &scopes);
    // The same token again: several clients share one from a file, so it must not be for one use.
    user_answer(context, client, &account, scopes, refresh.clone(), "refresh_token").await
}

async fn by_client(context: &Context, client: &Client, form: &Form) -> Result<Value, UaaError> {
    let Some(own) = client.scopes.clone() else {
        return Err(UaaError::new(StatusCode::UNAUTHORIZED, "invalid_client", "This client may not act for itself."));
    };
    let scopes = restricted(own, form)?;
    let powerful = scopes.iter().any(|scope| is_right(scope));
    let life = if powerful { POWERFUL_CLIENT_TOKEN_S } else { CLIENT_TOKEN_S };
    let subject = Subject { client_id: client.id.clone(), client_generation: client.generation, user: None, scopes };
    let claims = tokens::claims(&context.config, &subject, "client_credentials", life);
    let token = tokens::sign(context, &claims).await?;
    Ok(json!({
        "access_token": token, "token_type": "bearer", "expires_in": life,
        "scope": subject.scopes.join(" "), "jti": claims.jti,
    }))
}

async fn by_code(context: &Context, client: &Client, form: &Form) -> Result<Value, UaaError> {
    if client.id != SSH_CLIENT {
        return Err(UaaError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized_client",
            "This client may not redeem codes.",
        ));
    }
    let code = form.get("code").ok_or_else(|| UaaError::bad_request("Missing parameter: code"))?;
    let (guid, carried) = tokens::redeem_code(context, code).await?;
    let gone = || UaaError::bad_token("The user no longer exists.");
    let account = context.store.account_get(&guid).await?.ok_or_else(gone)?;
    let scopes = common(granted(&account, form)?, &carried);
    let subject = subject(client, &account, scopes);
    let life = context.config.limits.access_token_s;
    let claims = tokens::claims(&context.config, &subject, "authorization_code", life);
    let token = tokens::sign(context, &claims).await?;
    Ok(json!({ "access_token": token, "token_type": "bearer", "expires_in": life, "jti": claims.jti }))
}

fn hash(refresh: &str) -> Vec<u8> {
    Sha256::digest(refresh.as_bytes()).to_vec()
}

/// All that an account may do.
pub(super) fn rights(account: &AccountRow) -> Vec<String> {
    let mut scopes = [SCOPE_READ, SCOPE_WRITE, "openid", "password.write", USER].map(ToOwned::to_owned).to_vec();
    scopes.extend(account.scopes.iter().cloned());
    if account.scopes.iter().any(|scope| scope == SCOPE_ADMIN) {
        scopes.extend(["scim.read", "scim.write", "clients.read"].map(ToOwned::to_owned));
    }
    scopes
}

/// The same, as far as it was asked for.
fn granted(account: &AccountRow, form: &Form) -> Result<Vec<String>, UaaError> {
    restricted(rights(account), form)
}

/// What stands in both.
fn common(mut scopes: Vec<String>, others: &[String]) -> Vec<String> {
    scopes.retain(|scope| others.contains(scope));
    scopes
}

/// An empty `scope=` is "no restriction": the Python client always sends one.
fn restricted(scopes: Vec<String>, form: &Form) -> Result<Vec<String>, UaaError> {
    let wanted: Vec<&str> = form.get("scope").map(String::as_str).unwrap_or_default().split_whitespace().collect();
    if wanted.is_empty() {
        return Ok(scopes);
    }
    let scopes: Vec<String> = scopes.into_iter().filter(|scope| wanted.contains(&scope.as_str())).collect();
    if scopes.is_empty() {
        return Err(UaaError::new(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "None of the requested scopes can be granted to this user.",
        ));
    }
    Ok(scopes)
}

fn subject(client: &Client, account: &AccountRow, scopes: Vec<String>) -> Subject {
    let name = account.username.clone().unwrap_or_else(|| account.guid.clone());
    Subject {
        client_id: client.id.clone(),
        client_generation: client.generation,
        user: Some(SubjectUser {
            guid: account.guid.clone(),
            generation: account.generation,
            email: account.email.clone().unwrap_or_else(|| name.clone()),
            name,
            origin: account.origin.clone(),
        }),
        scopes,
    }
}

async fn user_answer(
    context: &Context,
    client: &Client,
    account: &AccountRow,
    scopes: Vec<String>,
    refresh: String,
    grant_type: &str,
) -> Result<Value, UaaError> {
    let life = context.config.limits.access_token_s;
    let subject = subject(client, account, scopes);
    let mut claims = tokens::claims(&context.config, &subject, grant_type, life);
    // Names the refresh token that belongs to it, so that revoking the one ends the other.
    claims.jti = format!("{}-{}", &hex::encode(hash(&refresh))[..tokens::SESSION_DIGITS], claims.jti);
    let token = tokens::sign(context, &claims).await?;
    Ok(json!({
        "access_token": token, "token_type": "bearer", "refresh_token": refresh, "expires_in": life,
        "scope": subject.scopes.join(" "), "jti": claims.jti,
    }))
}
