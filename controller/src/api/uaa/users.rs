//! `/Users`: the accounts behind tokens. JSON bodies on every answer: the CLI cannot decode an empty one.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::UaaError;
use super::session::claims;
use crate::api::auth_extract::{Caller, SCOPE_ADMIN};
use crate::api::body::JsonBody;
use crate::api::client_address::ClientAddress;
use crate::api::query::Query;
use crate::auth::login::{self, ClaimedUser, Refusal};
use crate::auth::password::{self, MAX_PASSWORD, MIN_PASSWORD};
use crate::context::Context;
use crate::domain::DomainError;
use crate::domain::constraints::violates;
use crate::domain::names::{check_length, check_name};
use crate::store::users::{AccountRow, NewAccount, Removal};

pub(super) async fn caller_with(context: &Context, parts: &Parts, scope: &str) -> Result<Caller, UaaError> {
    let caller = Caller::from_claims(claims(context, parts).await?);
    if caller.has_scope(scope) || caller.has_scope(SCOPE_ADMIN) { Ok(caller) } else { Err(UaaError::scope(scope)) }
}

fn view(row: &AccountRow) -> Value {
    json!({
        "id": row.guid, "userName": row.username, "origin": row.origin, "active": true,
        "name": { "givenName": row.given_name, "familyName": row.family_name },
        "emails": row.email.iter().map(|email| json!({ "value": email, "primary": true })).collect::<Vec<_>>(),
    })
}

/// `filter=userName eq "N" and origin eq "O"`; without a filter nobody is listed.
pub(super) async fn find(
    State(context): State<Context>,
    Query(query): Query<HashMap<String, String>>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    caller_with(&context, &parts, "scim.read").await?;
    let filter = query.get("filter").map(String::as_str).unwrap_or_default();
    let terms = parse_filter(filter).ok_or_else(|| {
        UaaError::new(
            StatusCode::BAD_REQUEST,
            "invalid_filter",
            "The filter must be: userName eq \"name\", optionally followed by: and origin eq \"origin\"",
        )
    })?;
    let accounts = match (terms.get("username"), terms.get("id")) {
        (Some(name), _) => context.store.accounts_named(name, terms.get("origin").map(String::as_str)).await?,
        (None, Some(id)) => context.store.account_get(id).await?.into_iter().collect(),
        (None, None) => Vec::new(),
    };
    let resources: Vec<Value> = accounts.iter().filter(|account| !account.is_client).map(view).collect();
    Ok(Json(json!({
        "totalResults": resources.len(), "startIndex": 1, "itemsPerPage": resources.len().max(1),
        "resources": resources, "schemas": ["urn:scim:schemas:core:1.0"],
    })))
}

/// Terms `name eq "value"` joined with `and`, by lower-case name. A quote inside a value is written `\"`.
fn parse_filter(text: &str) -> Option<HashMap<String, String>> {
    let mut terms = HashMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once(' ')?;
        let after = after.trim_start();
        let (operator, after) = after.split_once(' ')?;
        if !operator.eq_ignore_ascii_case("eq") {
            return None;
        }
        let mut characters = after.trim_start().strip_prefix('"')?.char_indices();
        let body = after.trim_start().strip_prefix('"')?;
        let (mut value, mut end) = (String::new(), None);
        while let Some((place, c)) = characters.next() {
            match c {
                '\\' => value.push(characters.next()?.1),
                '"' => {
                    end = Some(place + 1);
                    break;
                }
                c => value.push(c),
            }
        }
        terms.insert(name.to_lowercase(), value);
        rest = body.get(end?..)?.trim_start();
        if let Some((and, after)) = rest.split_once(' ') {
            if !and.eq_ignore_ascii_case("and") {
                return None;
            }
            rest = after.trim_start();
        } else if !rest.is_empty() {
            return None;
        }
    }
    Some(terms)
}

#[derive(Deserialize)]
pub(super) struct NewUser {
    #[serde(rename = "userName")]
    user_name: String,
    password: Option<String>,
    origin: Option<String>,
    name: Option<PersonName>,
    #[serde(default)]
    emails: Vec<Email>,
}

#[derive(Deserialize)]
struct PersonName {
    #[serde(rename = "givenName")]
    given: Option<String>,
    #[serde(rename = "familyName")]
    family: Option<String>,
}

#[derive(Deserialize)]
struct Email {
    value: String,
}

pub(super) fn check_password(password: &str) -> Result<(), UaaError> {
    let bad = |text: &str| UaaError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_password", text);
    if password.chars().count() < MIN_PASSWORD {
        return Err(bad(&format!("The password must have at least {MIN_PASSWORD} characters.")));
    }
    if password.len() > MAX_PASSWORD {
        return Err(bad(&format!("The password must not be longer than {MAX_PASSWORD} bytes.")));
    }
    Ok(())
}

/// A name that an account may have, in the words of the UAA, which clients show. What another origin calls its users is that
/// origin's affair.
fn check_username(name: &str, origin: &str) -> Result<(), UaaError> {
    if name.trim().is_empty() {
        return Err(DomainError::invalid("A username must be provided.").into());
    }
    let allowed = |c: char| c.is_alphabetic() || c.is_ascii_digit() || "+-_.@'!".contains(c);
    if origin == "uaa" && !name.chars().all(allowed) {
        return Err(DomainError::invalid(r"Username must match pattern: [\p{L}+0-9+\-_.@'!]+").into());
    }
    Ok(check_name("userName", name)?)
}

pub(super) async fn create(
    State(context): State<Context>,
    parts: Parts,
    JsonBody(user): JsonBody<NewUser>,
) -> Result<(StatusCode, Json<Value>), UaaError> {
    caller_with(&context, &parts, "scim.write").await?;
    let origin = user.origin.filter(|origin| !origin.is_empty()).unwrap_or_else(|| "uaa".to_owned());
    check_username(&user.user_name, &origin)?;
    check_name("origin", &origin)?;
    let email = user.emails.into_iter().next().map(|email| email.value);
    check_length("email", email.as_deref().unwrap_or_default(), 254)?;
    let hash = match user.password.filter(|_| origin == "uaa") {
        Some(password) => {
            check_password(&password)?;
            Some(password::hash(&context.guard.hash_queue, &password).await?)
        }
        None => None,
    };
    let (given_name, family_name) = user.name.map(|name| (name.given, name.family)).unwrap_or_default();
    check_length("givenName", given_name.as_deref().unwrap_or_default(), 250)?;
    check_length("familyName", family_name.as_deref().unwrap_or_default(), 250)?;
    let account = NewAccount {
        guid: Uuid::new_v4().to_string(),
        username: user.user_name,
        origin,
        password_hash: hash,
        given_name,
        family_name,
        email,
    };
    match context.store.account_create(&account).await {
        Ok(()) => {}
        Err(error) if violates(&error, "user_account_name") => {
            return Err(UaaError::new(
                StatusCode::CONFLICT,
                "scim_resource_already_exists",
                format!("Username already in use: {}", account.username),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    let row = context.store.account_get(&account.guid).await?.ok_or_else(missing)?;
    Ok((StatusCode::CREATED, Json(view(&row))))
}

fn missing() -> UaaError {
    UaaError::new(StatusCode::NOT_FOUND, "scim_resource_not_found", "There is no user with this id.")
}

pub(super) async fn remove(
    State(context): State<Context>,
    Path(guid): Path<String>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    let caller = caller_with(&context, &parts, "scim.write").await?;
    let row = context.store.account_get(&guid).await?.filter(|row| !row.is_client).ok_or_else(missing)?;
    if row.guid == caller.user_guid {
        return Err(DomainError::invalid("You cannot delete yourself.").into());
    }
    if !row.scopes.is_empty() && !caller.is_admin {
        let text = "Only an administrator may remove an account that has rights of its own.";
        return Err(UaaError::new(StatusCode::FORBIDDEN, "insufficient_scope", text));
    }
    match context.store.account_delete(&guid).await? {
        Removal::Done => Ok(Json(view(&row))),
        Removal::Missing => Err(missing()),
        Removal::LastAdministrator => Err(UaaError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_scim_resource",
            "This is the last administrator. Make another one before you remove this one.",
        )),
    }
}

#[derive(Deserialize)]
pub(super) struct PasswordChange {
    #[serde(rename = "oldPassword")]
    old: Option<String>,
    password: String,
}

pub(super) async fn set_password(
    State(context): State<Context>,
    Path(guid): Path<String>,
    ClientAddress(from): ClientAddress,
    parts: Parts,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<Json<Value>, UaaError> {
    let caller = Caller::from_claims(claims(&context, &parts).await?);
    if caller.user_guid != guid && !caller.is_admin {
        return Err(UaaError::scope("uaa.admin"));
    }
    let row = context.store.account_get(&guid).await?.filter(|row| !row.is_client).ok_or_else(missing)?;
    check_password(&change.password)?;
    // An admin may set another's password without knowing it, never his own.
    if caller.user_guid == guid {
        let refused = |text| Err(UaaError::new(StatusCode::UNAUTHORIZED, "unauthorized", text));
        let who = ClaimedUser::User(row.username.as_deref().unwrap_or_default());
        match login::attempt(&context, who, change.old.as_deref().unwrap_or_default(), from).await? {
            Ok(_) if change.old.as_ref() == Some(&change.password) => {
                let text = "Your new password cannot be the same as the old password.";
                return Err(UaaError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_password", text));
            }
            Ok(_) => {}
            Err(Refusal::Wrong) => return refused("Old password is incorrect"),
            Err(Refusal::TooMany) => return refused(super::error::LOCKED),
        }
    }
    let hash = password::hash(&context.guard.hash_queue, &change.password).await?;
    context.store.account_set_password(&guid, &hash).await?;
    Ok(Json(json!({ "status": "ok", "message": "password updated" })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parsed_or_refused() {
        let terms = parse_filter(r#"userName eq "a\"b c" and origin eq "uaa""#).expect("valid");
        assert_eq!(terms["username"], "a\"b c");
        assert_eq!(terms["origin"], "uaa");
        assert!(parse_filter("").expect("empty").is_empty());
        for bad in
            ["userName", "userName eq x", "userName ne \"x\"", "userName eq \"x", "userName eq \"x\" or a eq \"b\""]
        {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }
}
