//! Making accounts known to the API, and taking them out of it. The accounts themselves are the UAA's.

use serde_json::json;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::list::ListOptions;
use super::metadata::MetadataChange;
use super::names::{check_name, shown};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::jobs::{NewJob, job_completed_tx};
use crate::store::users::{NewAccount, UserRow, user_enter_api_tx, user_leave_api_tx, user_metadata_tx};

/// Whom a client means.
#[derive(Clone, Debug)]
pub(crate) enum AccountChoice {
    /// The account with this guid.
    Guid(String),
    /// The account of another origin with this name; it is made if there is none.
    Named {
        /// The name at the origin.
        username: String,
        /// Whose users it is one of.
        origin: String,
    },
}

/// A user to be made known.
#[derive(Clone, Debug)]
pub(crate) struct UserCreate {
    /// Whose account.
    pub(crate) account: AccountChoice,
    /// Labels and annotations.
    pub(crate) metadata: MetadataChange,
}

async fn read(context: &Context, guid: &str) -> DomainResult<Option<UserRow>> {
    let mut options = ListOptions::everything(1);
    options.filters.insert("guids".to_owned(), vec![guid.to_owned()]);
    Ok(context.store.user_list(&options, None).await?.0.pop())
}

/// The guid of the account that is meant.
async fn account(context: &Context, choice: &AccountChoice) -> DomainResult<String> {
    let (username, origin) = match choice {
        AccountChoice::Guid(guid) => return Ok(guid.clone()),
        AccountChoice::Named { username, origin } => (username, origin),
    };
    if origin == "uaa" {
        return Err(DomainError::invalid("Origin cannot be 'uaa' when creating a user by username"));
    }
    check_name("Username", username)?;
    check_name("Origin", origin)?;
    if let Some(found) = context.store.accounts_named(username, Some(origin)).await?.pop() {
        return Ok(found.guid);
    }
    // It logs in through its own provider: there is no password here.
    let account = NewAccount {
        guid: Uuid::new_v4().to_string(),
        username: username.clone(),
        origin: origin.clone(),
        password_hash: None,
        given_name: None,
        family_name: None,
        email: None,
    };
    context.store.account_create(&account).await?;
    Ok(account.guid)
}

/// Makes an account of the UAA known to the API.
///
/// # Errors
/// [`DomainError::Invalid`] when there is no such account, or when it is known already.
pub(crate) async fn create(context: &Context, wish: UserCreate) -> DomainResult<UserRow> {
    let guid = account(context, &wish.account).await?;
    if read(context, &guid).await?.is_some() {
        return Err(DomainError::invalid(match &wish.account {
            AccountChoice::Named { username, origin } => {
                format!("User with username '{username}' and origin '{origin}' already exists.")
            }
            AccountChoice::Guid(guid) => format!("User with guid '{guid}' already exists."),
        }));
    }
    let mut tx = context.store.begin().await?;
    if !user_enter_api_tx(&mut tx, &guid, &wish.metadata).await? {
        return Err(DomainError::invalid(format!(
            "There is no account with guid '{}'. Create it first (POST /Users).",
            shown(&guid)
        )));
    }
    tx.commit().await?;
    read(context, &guid).await?.ok_or(DomainError::NotFound("User"))
}

/// Changes labels and annotations of a user.
///
/// # Errors
/// When the database fails.
pub(crate) async fn update(context: &Context, guid: &str, metadata: &MetadataChange) -> DomainResult<()> {
    let mut connection = context.store.pool().acquire().await?;
    user_metadata_tx(&mut connection, guid, metadata).await?;
    Ok(())
}

/// Takes a user out of the API with all roles. Gives the job that says so; it is completed.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, guid: &str) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    user_leave_api_tx(&mut tx, guid).await?;
    let job = NewJob {
        operation: "user.delete",
        resource_type: "user",
        // Service accounts have no uuid; a job only needs one to be found again.
        resource_guid: guid.parse().unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, guid.as_bytes())),
        payload: json!({ "user_guid": guid }),
        created_by: actor.guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    tx.commit().await?;
    Ok(job)
}
