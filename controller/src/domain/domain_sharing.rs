//! Who else may use a private domain.

use uuid::Uuid;

use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::domains::{
    domain_get_tx, domain_has_routes_in_tx, domain_lock_tx, domain_share_tx, domain_unshare_tx,
};

/// Refuses an organization that has the domain already.
///
/// # Errors
/// [`DomainError::Invalid`].
pub(crate) fn check_other(owner: Option<Uuid>, org: Uuid) -> DomainResult<()> {
    if Some(org) == owner {
        return Err(DomainError::invalid("Domain cannot be shared with owning organization."));
    }
    Ok(())
}

/// Refuses to share what everybody uses.
///
/// # Errors
/// [`DomainError::Invalid`].
pub(crate) fn check_private(owner: Option<Uuid>) -> DomainResult<()> {
    if owner.is_none() {
        return Err(DomainError::invalid(
            "Domains cannot be shared with other organizations unless they are scoped to an organization.",
        ));
    }
    Ok(())
}

/// Shares a domain with organizations, which the checks above have let pass.
///
/// # Errors
/// [`DomainError::NotFound`] when the domain is gone.
pub(crate) async fn share(context: &Context, domain: Uuid, orgs: &[Uuid]) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    domain_get_tx(&mut tx, domain).await?.ok_or(DomainError::NotFound("Domain"))?;
    domain_share_tx(&mut tx, domain, orgs).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends the share with an organization, which is called `name`.
///
/// # Errors
/// [`DomainError::Invalid`] when it is not shared with it, or that organization has routes on it.
pub(crate) async fn unshare(context: &Context, domain: Uuid, org: Uuid, name: &str) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    domain_lock_tx(&mut tx, domain).await?;
    if !domain_unshare_tx(&mut tx, domain, org).await? {
        return Err(DomainError::invalid(format!(
            "Unable to unshare domain from organization with name '{name}'. Ensure the domain is shared to this organization."
        )));
    }
    if domain_has_routes_in_tx(&mut tx, domain, org).await? {
        return Err(DomainError::invalid(
            "This domain has associated routes in this organization. Delete the routes before unsharing.",
        ));
    }
    tx.commit().await?;
    Ok(())
}
