//! Extracts the caller from `Authorization: bearer <jwt>`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;
use slipway_api_types::ErrorCode;

use super::error::{ApiError, ApiResult};
use super::fair;
use crate::auth::fair::RequestPermit;
use crate::auth::tokens;
use crate::context::Context;
use crate::domain::audit::AuditSubject;

/// May do everything.
pub const SCOPE_ADMIN: &str = "cloud_controller.admin";
/// May read everything.
pub const SCOPE_ADMIN_READ_ONLY: &str = "cloud_controller.admin_read_only";
/// May read everything but secrets.
pub const SCOPE_GLOBAL_AUDITOR: &str = "cloud_controller.global_auditor";
/// May read what its roles allow.
pub const SCOPE_READ: &str = "cloud_controller.read";
/// May change what its roles allow.
pub const SCOPE_WRITE: &str = "cloud_controller.write";

/// Whether a scope is a right that an account has beyond its roles.
#[must_use]
pub fn is_right(scope: &str) -> bool {
    !matches!(scope, SCOPE_READ | SCOPE_WRITE | "openid" | "password.write" | "uaa.user" | "uaa.none")
}

/// The user or client behind a request. As an extractor it refuses requests without a valid token (401), and tokens
/// without the scope that the method needs (403).
#[derive(Clone, Debug)]
pub struct Caller {
    /// A user's guid, or the client id of a service account.
    pub user_guid: String,
    /// A user's name, or the client id.
    pub user_name: String,
    /// A user's mail address, if it has one.
    pub email: Option<String>,
    /// What the token allows.
    pub scopes: Vec<String>,
    /// May do everything.
    pub is_admin: bool,
    /// May read everything.
    pub is_admin_read_only: bool,
    /// May read everything but secrets.
    pub is_global_auditor: bool,
    /// The client that got the token: `cf`.
    pub client_id: String,
    /// Held until the request is answered, see [`super::fair`].
    turn: Option<Arc<RequestPermit>>,
}

impl Caller {
    /// The caller that a token speaks of.
    #[must_use]
    pub fn from_claims(claims: tokens::Claims) -> Self {
        let has = |scope: &str| claims.scope.iter().any(|held| held == scope);
        Self {
            is_admin: has(SCOPE_ADMIN),
            is_admin_read_only: has(SCOPE_ADMIN_READ_ONLY),
            is_global_auditor: has(SCOPE_GLOBAL_AUDITOR),
            user_guid: claims.user_id.unwrap_or_else(|| claims.client_id.clone()),
            user_name: claims.user_name.unwrap_or_else(|| claims.client_id.clone()),
            email: claims.email,
            scopes: claims.scope,
            client_id: claims.client_id,
            turn: None,
        }
    }

    /// Whether the token holds this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    /// Sees everything, whatever its roles.
    #[must_use]
    pub fn reads_all(&self) -> bool {
        self.is_admin || self.is_admin_read_only || self.is_global_auditor
    }

    /// As the actor of an audit event.
    #[must_use]
    pub fn actor(&self) -> AuditSubject {
        let kind = if self.user_guid == self.client_id { "service_account" } else { "user" };
        AuditSubject::new(kind, &self.user_guid, &self.user_name)
    }

    /// Refuses everybody but admins.
    ///
    /// # Errors
    /// 403.
    pub fn require_admin(&self) -> ApiResult<()> {
        if self.is_admin { Ok(()) } else { Err(ApiError::forbidden()) }
    }

    fn require_scope_for(&self, method: &Method) -> ApiResult<()> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let allowed = if reads {
            self.reads_all() || self.has_scope(SCOPE_READ)
        } else {
            self.is_admin || self.has_scope(SCOPE_WRITE)
        };
        if allowed {
            Ok(())
        } else {
            Err(ApiError::new(
                ErrorCode::InsufficientScope,
                "Your token lacks the necessary scopes to access this resource.",
            ))
        }
    }
}

/// The token of a request: 401 without one, or with another scheme than `bearer` (in any case).
///
/// # Errors
/// See above.
pub fn bearer(parts: &Parts) -> ApiResult<&str> {
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(ApiError::not_authenticated)?;
    let text = header.to_str().map_err(|_| ApiError::invalid_token())?;
    let (scheme, token) = text.trim().split_once(' ').ok_or_else(ApiError::invalid_token)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::invalid_token());
    }
    Ok(token.trim())
}

impl FromRequestParts<Context> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let claims = tokens::check(context, bearer(parts)?).await?;
        let mut caller = Self::from_claims(claims);
        caller.require_scope_for(&parts.method)?;
        caller.turn = fair::enter(context, parts, &caller).await?;
        Ok(caller)
    }
}
