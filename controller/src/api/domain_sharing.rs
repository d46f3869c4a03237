//! `/v3/domains/:guid/relationships/shared_organizations`: who else may use a private domain.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{delete, post};
use http::StatusCode;
use slipway_api_types::{Ref, ToMany};
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::domains::{readable, writable};
use super::error::{ApiError, ApiResult};
use super::permissions::OrgAction;
use crate::context::Context;
use crate::domain::domain_sharing as sharing;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/domains/{guid}/relationships/shared_organizations", post(share))
        .route("/v3/domains/{guid}/relationships/shared_organizations/{org}", delete(unshare))
}

/// Organizations with which a private domain shall be shared: other ones than the owner, and only those that the caller
/// may write to. Who may merely see an organization does not decide which domains it can use.
pub(super) async fn shared_orgs(
    context: &Context,
    caller: &Caller,
    owner: Option<Uuid>,
    wanted: ToMany,
) -> ApiResult<Vec<Uuid>> {
    if wanted.data.is_empty() {
        return Ok(Vec::new());
    }
    let mut orgs = Vec::new();
    for reference in wanted.data {
        let bad = || {
            ApiError::unprocessable(format!(
                "Organization with guid '{}' does not exist, or you do not have access to it.",
                reference.guid.chars().take(80).collect::<String>()
            ))
        };
        let org: Uuid = reference.guid.parse().map_err(|_| bad())?;
        let access = match caller.require_org(context, org, "Organization", OrgAction::Read).await {
            Err(error) if error.status() == StatusCode::NOT_FOUND => return Err(bad()),
            access => access?,
        };
        let name = &access.standing.org_name;
        if !access.allows(OrgAction::Manage) {
            return Err(ApiError::unprocessable(format!(
                "You do not have sufficient permissions for organization '{name}' to share domain."
            )));
        }
        if access.standing.suspended && !caller.is_admin {
            return Err(ApiError::unprocessable(format!("Organization '{name}' is suspended.")));
        }
        sharing::check_other(owner, org)?;
        orgs.push(org);
    }
    sharing::check_private(owner)?;
    Ok(orgs)
}

async fn share(
    State(context): State<Context>,
    caller: Caller,
    Path(domain): Path<String>,
    JsonBody(body): JsonBody<ToMany>,
) -> ApiResult<Json<ToMany>> {
    let row = writable(&context, &caller, &domain).await?;
    let orgs = shared_orgs(&context, &caller, row.org_guid, body).await?;
    sharing::share(&context, row.guid, &orgs).await?;
    let visible = caller.visible_orgs(&context).await?;
    let shares = context.store.domain_shares(&[row.guid]).await?;
    let data = shares.into_iter().filter(|(_, org)| visible.contains(*org)).map(|(_, org)| Ref::to(org)).collect();
    Ok(Json(ToMany { data }))
}

/// Ends a share: for managers of the domain's organization, and for those of the organization that it was shared with.
async fn unshare(
    State(context): State<Context>,
    caller: Caller,
    Path((domain, org)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let row = readable(&context, &caller, &domain).await?;
    let bad = || {
        ApiError::unprocessable(format!(
            "Organization with guid '{}' does not exist or you do not have access to it.",
            org.chars().take(80).collect::<String>()
        ))
    };
    let guid: Uuid = org.parse().map_err(|_| bad())?;
    let shared = context.store.organization_get(guid).await?.ok_or_else(bad)?;
    let may = match row.org_guid {
        Some(owner) => manages_either(&context, &caller, owner, guid).await,
        None => caller.require_admin(),
    };
    may?;
    if !caller.visible_orgs(&context).await?.contains(guid) {
        return Err(bad());
    }
    sharing::unshare(&context, row.guid, guid, &shared.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Demands that the caller manages one of these organizations; one that is suspended does not count. The first refusal
/// that says more than "not yours" is the one that is told.
async fn manages_either(context: &Context, caller: &Caller, owner: Uuid, other: Uuid) -> ApiResult<()> {
    let mut refusal = ApiError::forbidden();
    for org in [owner, other] {
        match caller.require_org(context, org, "Organization", OrgAction::Manage).await {
            Ok(_) => return Ok(()),
            Err(error) if error.refuses_the_caller() => {}
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}
