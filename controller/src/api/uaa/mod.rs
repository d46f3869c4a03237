//! The UAA endpoints that clients use, on the API's own listener and under any host.

mod clients;
mod error;
mod passcode;
mod session;
mod token;
mod users;

use axum::Json;
use axum::extract::State;
use axum::routing::{delete, get, post, put};
use serde_json::{Value, json};

use self::error::UaaError;
use super::Router;
use super::links::BaseUrl;
use crate::auth::tokens;
use crate::context::Context;

/// Level of the UAA protocol that is spoken: from here on `cf auth --origin` works.
const UAA_VERSION: &str = "4.26.0";

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/login", get(login))
        .route("/info", get(login))
        .route("/token_keys", get(token_keys))
        .route("/passcode", get(passcode::show).post(passcode::submit))
        .route("/oauth/token", post(token::issue))
        .route("/oauth/token/revoke/{jti}", delete(session::revoke))
        .route("/oauth/token/revoke/user/{id}", get(session::revoke_user))
        .route("/oauth/token/revoke/client/{id}", get(session::revoke_client))
        .route("/oauth/authorize", get(session::authorize))
        .route("/oauth/clients", post(clients::create))
        .route("/oauth/clients/{id}", get(clients::show).delete(clients::remove))
        .route("/oauth/clients/{id}/secret", put(clients::set_secret))
        .route("/Users", get(users::find).post(users::create))
        .route("/Users/{guid}", delete(users::remove))
        .route("/Users/{guid}/password", put(users::set_password))
}

/// What a client must ask for. Each prompt has exactly two elements: with fewer the CLI panics.
async fn login(State(context): State<Context>, base: BaseUrl) -> Json<Value> {
    let domain = &context.config.system_domain;
    let login = base.neighbour("login", domain);
    let passcode = format!("Temporary Authentication Code ( Get one at {login}/passcode )");
    Json(json!({
        "app": { "version": UAA_VERSION },
        "links": { "login": login, "uaa": base.neighbour("uaa", domain), "passcode": format!("{login}/passcode") },
        "zone_name": "uaa",
        "prompts": {
            "username": ["text", "Email"], "password": ["password", "Password"], "passcode": ["password", passcode],
        },
    }))
}

async fn token_keys(State(context): State<Context>) -> Result<Json<Value>, UaaError> {
    Ok(Json(tokens::key_set(&context).await?))
}
