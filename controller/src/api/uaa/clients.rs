//! `/oauth/clients`: accounts of programs. What runs in a pipeline logs in as one (`cf auth --client-credentials`), and
//! roles are given to it by its id.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::UaaError;
use super::session::claims;
use super::users::{caller_with, check_password};
use crate::api::auth_extract::{
    Caller, SCOPE_ADMIN, SCOPE_ADMIN_READ_ONLY, SCOPE_GLOBAL_AUDITOR, SCOPE_READ, SCOPE_WRITE,
};
use crate::api::body::JsonBody;
use crate::auth::password;
use crate::context::Context;
use crate::domain::constraints::violates;
use crate::store::users::AccountRow;

/// The way in which a client gets a token here.
const GRANT: &str = "client_credentials";
/// What a client may be given. Anything else would be a right that nobody asks for.
const AUTHORITIES: [&str; 9] = [
    SCOPE_READ,
    SCOPE_WRITE,
    SCOPE_ADMIN,
    SCOPE_ADMIN_READ_ONLY,
    SCOPE_GLOBAL_AUDITOR,
    "clients.read",
    "scim.read",
    "scim.write",
    "uaa.none",
];
/// As UAA's own column.
const MAX_ID: usize = 255;

fn view(row: &AccountRow) -> Value {
    json!({ "client_id": row.guid, "authorities": row.scopes, "authorized_grant_types": [GRANT] })
}

fn missing() -> UaaError {
    UaaError::new(StatusCode::NOT_FOUND, "not_found", "No client with the requested id was found")
}

async fn found(context: &Context, id: &str) -> Result<AccountRow, UaaError> {
    context.store.account_get(id).await?.filter(|row| row.is_client).ok_or_else(missing)
}

/// One that was made here. The platform's own have no secret: by them everybody logs in.
async fn found_made(context: &Context, id: &str) -> Result<AccountRow, UaaError> {
    let row = found(context, id).await?;
    if row.password_hash.is_some() {
        return Ok(row);
    }
    let text = format!("{id} is a client of the platform itself; it has no secret and cannot be removed.");
    Err(UaaError::new(StatusCode::BAD_REQUEST, "invalid_client", text))
}

/// Whoever can make a client can have every right that it can have.
async fn admin(context: &Context, parts: &Parts) -> Result<Caller, UaaError> {
    let caller = Caller::from_claims(claims(context, parts).await?);
    if caller.is_admin { Ok(caller) } else { Err(UaaError::scope(SCOPE_ADMIN)) }
}

/// Whether a client exists; for admins.
pub(super) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    caller_with(&context, &parts, "clients.read").await?;
    Ok(Json(view(&found(&context, &id).await?)))
}

#[derive(Deserialize)]
pub(super) struct NewClient {
    client_id: String,
    client_secret: String,
    #[serde(default)]
    authorities: Option<Vec<String>>,
    #[serde(default)]
    authorized_grant_types: Option<Vec<String>>,
}

impl NewClient {
    fn check(&self) -> Result<(), UaaError> {
        let bad = |text: String| Err(UaaError::new(StatusCode::BAD_REQUEST, "invalid_client", text));
        // It becomes a part of paths, of forms and of Basic headers.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if self.client_id.is_empty() || self.client_id.len() > MAX_ID || !self.client_id.chars().all(plain) {
            return bad(format!(
                "client_id must be 1 to {MAX_ID} letters, digits or any of - _ . @; it is {:?}.",
                self.client_id.chars().take(80).collect::<String>()
            ));
        }
        if uuid::Uuid::parse_str(&self.client_id).is_ok() {
            return bad("client_id must not look like the guid of a user.".to_owned());
        }
        for grant in self.authorized_grant_types.iter().flatten() {
            if grant != GRANT {
                return bad(format!("{grant} is not an allowed grant type. A client gets its tokens by {GRANT}."));
            }
        }
        for authority in self.authorities.iter().flatten() {
            if !AUTHORITIES.contains(&authority.as_str()) {
                return bad(format!(
                    "{:?} is not an authority of this platform. There are: {}.",
                    authority.chars().take(80).collect::<String>(),
                    AUTHORITIES.join(", ")
                ));
            }
        }
        Ok(())
    }
}

/// Makes one. Without `authorities` it can do what its roles allow.
pub(super) async fn create(
    State(context): State<Context>,
    parts: Parts,
    JsonBody(client): JsonBody<NewClient>,
) -> Result<(StatusCode, Json<Value>), UaaError> {
    admin(&context, &parts).await?;
    client.check()?;
    check_password(&client.client_secret)?;
    let hash = password::hash(&context.guard.hash_queue, &client.client_secret).await?;
    let scopes = client.authorities.unwrap_or_else(|| [SCOPE_READ, SCOPE_WRITE].map(ToOwned::to_owned).to_vec());
    match context.store.client_create(&client.client_id, &hash, &scopes).await {
        Ok(()) => {}
        Err(error) if violates(&error, "user_account_pkey") => {
            let text = format!("Client already exists: {}", client.client_id);
            return Err(UaaError::new(StatusCode::CONFLICT, "invalid_client", text));
        }
        Err(error) => return Err(error.into()),
    }
    Ok((StatusCode::CREATED, Json(view(&found(&context, &client.client_id).await?))))
}

/// Removes one, with its roles.
pub(super) async fn remove(
    State(context): State<Context>,
    Path(id): Path<String>,
    parts: Parts,
) -> Result<Json<Value>, UaaError> {
    admin(&context, &parts).await?;
    let row = found_made(&context, &id).await?;
    context.store.account_delete(&row.guid).await?;
    Ok(Json(view(&row)))
}

#[derive(Deserialize)]
pub(super) struct SecretChange {
    secret: String,
}

/// Gives one another secret. Its tokens are over: whoever changes a secret may have lost it.
pub(super) async fn set_secret(
    State(context): State<Context>,
    Path(id): Path<String>,
    parts: Parts,
    JsonBody(change): JsonBody<SecretChange>,
) -> Result<Json<Value>, UaaError> {
    admin(&context, &parts).await?;
    let row = found_made(&context, &id).await?;
    check_password(&change.secret)?;
    let hash = password::hash(&context.guard.hash_queue, &change.secret).await?;
    context.store.account_set_password(&row.guid, &hash).await?;
    Ok(Json(json!({ "status": "ok", "message": "secret updated" })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(id: &str, authorities: &[&str], grants: &[&str]) -> bool {
        let list = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
        let client = NewClient {
            client_id: id.to_owned(),
            client_secret: "s".to_owned(),
            authorities: list(authorities),
            authorized_grant_types: list(grants),
        };
        client.check().is_err()
    }

    #[test]
    fn invalid_clients_are_refused() {
        assert!(!refused("ci-pipeline_1.x@acme", &AUTHORITIES, &[GRANT]));
        for id in ["", "a b", "a:b", "a/b", "a%2Fb", "é", &"x".repeat(256), &uuid::Uuid::new_v4().to_string()] {
            assert!(refused(id, &[], &[]), "{id}");
        }
        assert!(refused("ci", &["cloud_controller.root"], &[]));
        assert!(refused("ci", &[], &["password"]));
    }
}
