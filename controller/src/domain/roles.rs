//! Giving roles to users, and taking them away.

use serde_json::json;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::events::event_record_tx;
use crate::store::jobs::{NewJob, job_completed_tx};
use crate::store::roles::{self as store, RoleRow};
use crate::store::users::AccountRow;

const ORG_ROLES: &[&str] =
    &["organization_user", "organization_auditor", "organization_manager", "organization_billing_manager"];
const SPACE_ROLES: &[&str] = &["space_auditor", "space_developer", "space_manager", "space_supporter"];

/// Also for a guid that nobody has: who does not exist has no role in the organization.
const STRANGER: &str =
    "Users cannot be assigned roles in a space if they do not have a role in that space's organization.";

/// Whether a role is one in a space; if not, it is one in an organization.
///
/// # Errors
/// [`DomainError::Invalid`] for a role that does not exist.
pub(crate) fn is_of_space(kind: &str) -> DomainResult<bool> {
    let of_space = SPACE_ROLES.contains(&kind);
    if of_space || ORG_ROLES.contains(&kind) {
        return Ok(of_space);
    }
    let all: Vec<_> = ORG_ROLES.iter().chain(SPACE_ROLES).copied().collect();
    Err(DomainError::invalid(format!("type must be one of the allowed types: {}", all.join(", "))))
}

/// Whom a client means.
#[derive(Clone, Debug)]
pub(crate) enum UserChoice {
    /// The account with this guid.
    Guid(String),
    /// The user with this name.
    Named {
        /// The name, in any case.
        username: String,
        /// Whose users it is one of; `None` = the only one with this name.
        origin: Option<String>,
    },
}

/// A role to be given.
#[derive(Clone, Debug)]
pub(crate) struct RoleCreate {
    /// `space_developer`, …
    pub(crate) kind: String,
    /// To whom.
    pub(crate) user: UserChoice,
    /// Where: in this organization, or in a space of it.
    pub(crate) org: Uuid,
    /// Where, for a role in a space.
    pub(crate) space: Option<Uuid>,
    /// The name of the space, or of the organization, for texts.
    pub(crate) org_or_space: String,
}

async fn find_user(context: &Context, user: &UserChoice, in_space: bool) -> DomainResult<AccountRow> {
    match user {
        UserChoice::Guid(guid) => context.store.account_get(guid).await?.ok_or_else(|| {
            DomainError::invalid(match in_space {
                true => STRANGER,
                false => "Invalid user. Ensure that the user exists and you have access to it.",
            })
        }),
        UserChoice::Named { username, origin } => {
            let mut found = context.store.accounts_named(username, origin.as_deref()).await?;
            found.retain(|account| !account.is_client);
            if found.len() > 1 {
                let origins: Vec<_> = found.iter().map(|account| account.origin.as_str()).collect();
                return Err(DomainError::invalid(format!(
                    "Ambiguous user. User with username '{username}' exists in the following origins: {}. Specify an origin to disambiguate.",
                    origins.join(", ")
                )));
            }
            found.pop().ok_or_else(|| {
                let origin = origin.as_ref().map(|origin| format!(" and origin '{origin}'")).unwrap_or_default();
                DomainError::invalid(format!("No user exists with the username '{username}'{origin}."))
            })
        }
    }
}

/// Gives a role.
///
/// # Errors
/// [`DomainError::Invalid`] when the user does not exist, has no role in the space's organization, or has the role.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: RoleCreate) -> DomainResult<RoleRow> {
    let RoleCreate { kind, org, space, org_or_space, .. } = wish;
    let user = find_user(context, &wish.user, space.is_some()).await?;
    let name = user.username.clone().unwrap_or_else(|| user.guid.clone());
    let mut tx = context.store.begin().await?;
    if space.is_some() && !store::user_in_org_tx(&mut tx, &user.guid, org).await? {
        return Err(DomainError::invalid(STRANGER));
    }
    let Some(row) = store::role_insert_tx(&mut tx, &kind, &user.guid, org, space).await? else {
        let level = if space.is_some() { "space" } else { "organization" };
        return Err(DomainError::invalid(format!(
            "User '{name}' already has '{kind}' role in {level} '{org_or_space}'."
        )));
    };
    let event = event("add", actor, AuditSubject::new("user", &user.guid, name), &row);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Takes a role away. Gives the job that says so; it is completed.
///
/// # Errors
/// [`DomainError::Invalid`] for the role in an organization of somebody who has roles in its spaces.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &RoleRow) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    if row.kind == "organization_user" && store::user_in_spaces_of_tx(&mut tx, &row.user_guid, row.org_guid).await? {
        return Err(DomainError::invalid(
            "Cannot delete organization_user role while user has roles in spaces in that organization.",
        ));
    }
    store::role_delete_tx(&mut tx, row.guid).await?;
    let event = event("remove", actor, AuditSubject::new("user", &row.user_guid, ""), row);
    event_record_tx(&mut tx, &event).await?;
    let job = NewJob {
        operation: "role.delete",
        resource_type: "role",
        resource_guid: row.guid,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    tx.commit().await?;
    Ok(job)
}

fn event(what: &str, actor: &AuditSubject, user: AuditSubject, row: &RoleRow) -> NewEvent {
    let kind = format!("audit.user.{}_{what}", row.kind);
    let event = NewEvent::new(kind, actor.clone(), user).with_request(json!({ "type": row.kind }));
    NewEvent { org: Some(row.org_guid), space: row.space_guid, ..event }
}
