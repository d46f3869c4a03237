//! Access tokens: RS256 and nothing else.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::keys::damaged;
use super::rs256::CheckingKey;
use crate::config::ControllerConfig;
use crate::context::Context;
use crate::domain::{DomainError, DomainResult};
use crate::store::keys::TokenStanding;

/// Audience that the API demands.
pub const AUDIENCE: &str = "cloud_controller";
/// Clocks of two controllers may differ by this many seconds.
pub const LEEWAY_S: u64 = 5;

/// Until when it must be remembered that a token or code with this expiry (Unix seconds) was revoked or used: until no
/// controller accepts it any more, and the database's clock, by which the memory is cleared, may be fast besides.
#[must_use]
pub fn remembered_until(exp: i64) -> DateTime<Utc> {
    let longest = i64::try_from(2 * LEEWAY_S).unwrap_or(i64::MAX);
    DateTime::from_timestamp(exp.saturating_add(longest), 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// What a token says. Clients decode some of it: with `user_name` there must be `user_id` and `origin`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "registered names of claims")]
pub struct Claims {
    pub jti: String,
    pub sub: String,
    pub iss: String,
    pub aud: Vec<String>,
    pub iat: i64,
    pub exp: i64,
    pub client_id: String,
    pub cid: String,
    pub azp: String,
    pub grant_type: String,
    pub scope: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub email: Option<String>,
    /// Clients log out properly only when this is set.
    pub revocable: bool,
    pub zid: String,
    /// Generations of the client and of the user ([`revocation`]): the token is over when one of them is another.
    #[serde(default)]
    pub rev_sig: String,
}

/// What a token is bound to, under the name that the UAA has for it: `3` or, with a user, `3.8`.
fn revocation(client: i64, user: Option<i64>) -> String {
    user.map_or_else(|| client.to_string(), |user| format!("{client}.{user}"))
}

/// What a token of a controller is bound to that knew no generations: those of accounts that have not changed since.
fn unnamed(user: Option<&str>) -> String {
    revocation(0, user.map(|_| 0))
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Forged, malformed, expired, of another cluster, revoked. The text is for logs; clients are told no details.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// The token could not be checked.
    #[error(transparent)]
    Other(#[from] DomainError),
}

/// Who issues tokens; part of every token, so that another cluster's are refused even with a copied key.
#[must_use]
pub fn issuer(config: &ControllerConfig) -> String {
    format!("https://uaa.{}/oauth/token/{}", config.system_domain, config.cluster_id)
}

/// Signs claims.
///
/// # Errors
/// When there is no key.
pub async fn sign(context: &Context, claims: &Claims) -> DomainResult<String> {
    context.keys.signer(&context.store, &context.vault).await?.sign(claims)
}

/// Checks a token and reads what it says.
///
/// # Errors
/// [`TokenError::Invalid`] unless every check passes.
pub async fn check(context: &Context, token: &str) -> Result<Claims, TokenError> {
    let invalid = |why: &dyn std::fmt::Display| TokenError::Invalid(why.to_string());
    let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(&error))?;
    if header.alg != Algorithm::RS256 {
        return Err(invalid(&format!("algorithm {:?}", header.alg)));
    }
    let kid = header.kid.ok_or_else(|| invalid(&"no key named"))?;
    let key = context
        .keys
        .checker(&context.store, &context.vault, &kid)
        .await?
        .ok_or_else(|| invalid(&format!("unknown key {kid:?}")))?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.leeway = LEEWAY_S;
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer(&context.config)]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation.validate_exp = true;
    let claims = key.check::<Claims>(token, &validation).map_err(|error| invalid(&error))?;
    let user = claims.user_id.as_deref();
    let standing = standing(context, &claims.jti, &kid, &claims.client_id, user).await?;
    if standing.revoked {
        return Err(invalid(&"revoked"));
    }
    let bound_to = if claims.rev_sig.is_empty() { unnamed(user) } else { claims.rev_sig.clone() };
    if bound_to != in_force(&standing, user)? {
        return Err(invalid(&"its user or client has changed since"));
    }
    Ok(claims)
}

async fn standing(
    context: &Context,
    jti: &str,
    kid: &str,
    client: &str,
    user: Option<&str>,
) -> Result<TokenStanding, TokenError> {
    let standing = context.store.token_standing(jti, kid, client, user).await.map_err(DomainError::from)?;
    if standing.key_in_force { Ok(standing) } else { Err(TokenError::Invalid(format!("the key {kid:?} was retired"))) }
}

/// What a token of this user would be bound to now.
fn in_force(standing: &TokenStanding, user: Option<&str>) -> Result<String, TokenError> {
    let gone = |what: &str| TokenError::Invalid(format!("its {what} is gone"));
    let client = standing.client_generation.ok_or_else(|| gone("client"))?;
    match user {
        Some(_) => Ok(revocation(client, Some(standing.user_generation.ok_or_else(|| gone("user"))?))),
        None => Ok(revocation(client, None)),
    }
}

/// Claims for a user or a client, valid for `life_s` seconds.
#[must_use]
pub fn claims(config: &ControllerConfig, subject: &Subject, grant_type: &str, life_s: u64) -> Claims {
    let now = chrono::Utc::now().timestamp();
    let mut aud: Vec<String> = vec![subject.client_id.clone(), AUDIENCE.to_owned(), "uaa".to_owned()];
    aud.dedup();
    let user = subject.user.as_ref();
    Claims {
        jti: Uuid::new_v4().simple().to_string(),
        sub: user.map_or_else(|| subject.client_id.clone(), |user| user.guid.clone()),
        iss: issuer(config),
        aud,
        iat: now,
        exp: now.saturating_add(i64::try_from(life_s).unwrap_or(i64::MAX)),
        client_id: subject.client_id.clone(),
        cid: subject.client_id.clone(),
        azp: subject.client_id.clone(),
        grant_type: grant_type.to_owned(),
        scope: subject.scopes.clone(),
        user_id: user.map(|user| user.guid.clone()),
        user_name: user.map(|user| user.name.clone()),
        origin: user.map(|user| user.origin.clone()),
        email: user.map(|user| user.email.clone()),
        revocable: true,
        zid: "uaa".to_owned(),
        rev_sig: revocation(subject.client_generation, user.map(|user| user.generation)),
    }
}

/// Whom a token is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The client that asked.
    pub client_id: String,
    /// As it was when the client showed who it is.
    pub client_generation: i64,
    /// The user; `None` for a client of its own.
    pub user: Option<SubjectUser>,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// A user in a token.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the claims")]
pub struct SubjectUser {
    pub guid: String,
    pub generation: i64,
    pub name: String,
    pub origin: String,
    pub email: String,
}

/// The public keys in force as a JWK set, with the PEM in `value`, as verifiers of UAA tokens expect.
///
/// # Errors
/// When the store fails or a key is damaged.
pub async fn key_set(context: &Context) -> DomainResult<Value> {
    let mut keys = Vec::new();
    for row in context.store.signing_keys().await?.into_iter().filter(|row| row.retired_at.is_none()) {
        let key = CheckingKey::from_pem(row.public_pem.as_bytes()).map_err(|error| damaged(&row.kid, error))?;
        keys.push(serde_json::json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": row.kid, "value": row.public_pem,
            "e": key.exponent(), "n": key.modulus(),
        }));
    }
    Ok(serde_json::json!({ "keys": keys }))
}

/// Hex digits of the refresh token's hash with which the `jti` of its access tokens begins.
pub const SESSION_DIGITS: usize = 24;

const CODE_AUDIENCE: &str = "ssh-proxy";
/// Long enough to dial, too short to be worth stealing.
const CODE_LIFE_S: i64 = 120;

#[derive(Serialize, Deserialize)]
struct Code {
    jti: String,
    sub: String,
    iss: String,
    aud: String,
    exp: i64,
    /// What the token could do with which it was made.
    scope: Vec<String>,
    /// The client of that token.
    cid: String,
    /// What that token was bound to.
    rev_sig: String,
}

/// A code for one ssh session: of the user of this token, good for what the token is good for, while the token would be.
///
/// # Errors
/// When there is no key.
pub async fn issue_code(context: &Context, token: &Claims) -> DomainResult<String> {
    let signer = context.keys.signer(&context.store, &context.vault).await?;
    let code = Code {
        jti: Uuid::new_v4().simple().to_string(),
        sub: token.sub.clone(),
        iss: issuer(&context.config),
        aud: CODE_AUDIENCE.to_owned(),
        exp: chrono::Utc::now().timestamp() + CODE_LIFE_S,
        scope: token.scope.clone(),
        cid: token.client_id.clone(),
        rev_sig: if token.rev_sig.is_empty() { unnamed(token.user_id.as_deref()) } else { token.rev_sig.clone() },
    };
    signer.sign(&code)
}

/// The user of a code and what the code is good for; each code works once.
///
/// # Errors
/// [`TokenError::Invalid`] when it is not ours, has expired, was used, or its user or client has changed since.
pub async fn redeem_code(context: &Context, code: &str) -> Result<(String, Vec<String>), TokenError> {
    let invalid = |why: &dyn std::fmt::Display| TokenError::Invalid(why.to_string());
    let header = jsonwebtoken::decode_header(code).map_err(|error| invalid(&error))?;
    let kid = header.kid.ok_or_else(|| invalid(&"no key named"))?;
    let key =
        context.keys.checker(&context.store, &context.vault, &kid).await?.ok_or_else(|| invalid(&"unknown key"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    // It lives long enough for clocks that differ.
    validation.leeway = 0;
    validation.set_audience(&[CODE_AUDIENCE]);
    validation.set_issuer(&[issuer(&context.config)]);
    let code = key.check::<Code>(code, &validation).map_err(|error| invalid(&error))?;
    let user = Some(code.sub.as_str());
    let standing = standing(context, &code.jti, &kid, &code.cid, user).await?;
    if code.rev_sig != in_force(&standing, user)? {
        return Err(invalid(&"its user or client has changed since"));
    }
    if !context.store.token_revoke(&code.jti, remembered_until(code.exp)).await.map_err(DomainError::from)? {
        return Err(invalid(&"used"));
    }
    Ok((code.sub, code.scope))
}
