//! Making and removing domains, and what one may be named: no name may take requests away from the platform, from
//! another organization's domain or from a route that is there.

use serde_json::json;
use slipway_placement::system_names::SYSTEM_HOSTS;
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::metadata::MetadataChange;
use super::{DomainError, DomainResult, quota};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::addresses::{address_lock_all_tx, routes_named_tx};
use crate::store::change_log::ChangeKind;
use crate::store::domains::{
    DomainRow, domain_conflicting_tx, domain_delete_tx, domain_insert_tx, domain_is_shared_tx, domain_lock_tx,
    domain_share_tx, domains_shared_by_tx,
};
use crate::store::jobs::{NewJob, job_completed_tx};

const MAX_NAME: usize = 253;
const MAX_PART: usize = 63;

/// A name that DNS allows, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainName(String);

impl DomainName {
    /// Reads a name in any case.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] with the rule.
    pub(crate) fn parse(text: &str) -> DomainResult<Self> {
        let name = text.to_lowercase();
        let parts_are_good = name.split('.').all(|part| {
            !part.is_empty()
                && part.len() <= MAX_PART
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        });
        if name.len() > MAX_NAME {
            return Err(DomainError::invalid(format!("Name is too long (maximum is {MAX_NAME} characters)")));
        }
        if !name.contains('.') || !parts_are_good {
            return Err(DomainError::invalid(
                "Name does not comply with RFC 1035 standards: it must have at least two parts of letters, digits and \
                 '-', each at most 63 characters long, such as example.com",
            ));
        }
        Ok(Self(name))
    }
}

/// Who may use a domain that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DomainScope {
    internal: bool,
    owner: Option<Uuid>,
}

impl DomainScope {
    /// For an organization, or for all without one; `shared` = with further organizations.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] when these exclude each other.
    pub(crate) fn new(internal: bool, owner: Option<Uuid>, shared: bool) -> DomainResult<Self> {
        if internal && owner.is_some() {
            return Err(DomainError::invalid("Internal can not be true when organization is set."));
        }
        if owner.is_none() && shared {
            return Err(DomainError::invalid(
                "Relationships cannot contain shared_organizations without an owning organization.",
            ));
        }
        Ok(Self { internal, owner })
    }
}

/// A domain to be made.
#[derive(Clone, Debug)]
pub(crate) struct DomainCreate {
    /// Its name.
    pub(crate) name: DomainName,
    /// Whose it is.
    pub(crate) scope: DomainScope,
    /// Organizations that may use it besides its owner.
    pub(crate) shared_with: Vec<Uuid>,
    /// Labels and annotations.
    pub(crate) metadata: MetadataChange,
}

/// Makes a domain.
///
/// # Errors
/// [`DomainError::Invalid`] naming who has the name, or the quota.
pub(crate) async fn create(context: &Context, wish: DomainCreate) -> DomainResult<DomainRow> {
    let DomainName(name) = wish.name;
    let DomainScope { internal, owner } = wish.scope;
    let mut tx = context.store.begin().await?;
    // First, because it locks the organization: whoever makes routes locks it before the names too.
    if let Some(org) = owner {
        quota::check_domain(&mut tx, org).await?;
    }
    check_name_tx(&mut tx, &context.config.system_domain, &name, owner).await?;
    let row = domain_insert_tx(&mut tx, &name, internal, owner, &wish.metadata)
        .await
        .map_err(refuse("domain_name_key", || format!("The domain name \"{name}\" is already in use")))?;
    domain_share_tx(&mut tx, row.guid, &wish.shared_with).await?;
    tx.commit().await?;
    Ok(row)
}

/// Removes a domain with its routes. Gives the job that clients ask about, and the version that has no such routes any
/// more if there were any.
///
/// # Errors
/// [`DomainError::Invalid`] while it is shared; [`DomainError::NotFound`] when it is gone.
pub(crate) async fn delete(
    context: &Context,
    actor: &AuditSubject,
    domain: Uuid,
) -> DomainResult<(Uuid, Option<Version>)> {
    let mut tx = context.store.begin().await?;
    if !domain_lock_tx(&mut tx, domain).await? {
        return Err(DomainError::NotFound("Domain"));
    }
    if domain_is_shared_tx(&mut tx, domain).await? {
        return Err(DomainError::invalid("This domain is shared with other organizations. Unshare before deleting."));
    }
    let routes = domain_delete_tx(&mut tx, domain).await?;
    let job = NewJob {
        operation: "domain.delete",
        resource_type: "domain",
        resource_guid: domain,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    let changes: Vec<_> = routes.into_iter().map(|route| (ChangeKind::Route, route)).collect();
    let version = context.store.commit(tx, &changes).await?;
    Ok((job, (!changes.is_empty()).then_some(version)))
}

/// Checks whether a domain of this name (in lower case) may be made, for an organization or for all. Holds off every
/// new route and domain until the transaction ends, so that what was found stays so.
///
/// # Errors
/// [`DomainError::Invalid`] naming who has the name; or when the database fails.
async fn check_name_tx(tx: &mut PgConnection, system_domain: &str, name: &str, org: Option<Uuid>) -> DomainResult<()> {
    let reserved = |by: &str, whom: &str| {
        DomainError::invalid(format!(
            "The domain name \"{name}\" cannot be created because \"{by}\" is already reserved by {whom}"
        ))
    };
    if let Some(by) = of_system(name, &system_domain.to_lowercase(), org.is_some()) {
        return Err(reserved(&by, "the system"));
    }
    address_lock_all_tx(tx).await?;
    if let Some(by) = domain_conflicting_tx(tx, name, org).await? {
        return Err(reserved(&by, "another domain"));
    }
    // A route `a.b` keeps `x.a.b` too: who asks for the one expects the other in the same hands.
    let places: Vec<_> = suffixes(name).flat_map(splits).filter(|(host, _)| !host.is_empty()).collect();
    match routes_named_tx(tx, &places, None).await? {
        Some(route) => Err(reserved(&route.url(), "a route")),
        None => Ok(()),
    }
}

/// Refuses the removal of an organization while others use its domains: their routes would go with it.
///
/// # Errors
/// [`DomainError::Invalid`] naming the domains and what to do; or when the database fails.
pub async fn refuse_shared_domains_tx(tx: &mut PgConnection, org: Uuid) -> DomainResult<()> {
    let refusals: Vec<String> = domains_shared_by_tx(tx, org)
        .await?
        .iter()
        .map(|name| format!("Domain '{name}' is shared with other organizations. Unshare before deleting."))
        .collect();
    if refusals.is_empty() { Ok(()) } else { Err(DomainError::invalid(refusals.join("\n\n"))) }
}

/// The platform's name that this one would be, lie below, or (in the hands of one organization) lie above.
fn of_system(name: &str, system_domain: &str, private: bool) -> Option<String> {
    let within =
        |inner: &str, outer: &str| inner == outer || inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
    let hosts = SYSTEM_HOSTS.iter().map(|host| format!("{host}.{system_domain}"));
    hosts
        .into_iter()
        .find(|host| within(name, host))
        .or_else(|| (private && within(system_domain, name)).then(|| system_domain.to_owned()))
}

/// A name and what follows each of its dots, down to two labels.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |rest| rest.split_once('.').map(|(_, rest)| rest))
        .filter(|rest| rest.contains('.'))
}

/// The ways in which a full name may be a route's host and domain.
pub(super) fn splits(name: &str) -> Vec<(String, String)> {
    let dots = name.match_indices('.').map(|(at, _)| (name[..at].to_owned(), name[at + 1..].to_owned()));
    std::iter::once((String::new(), name.to_owned())).chain(dots).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_names_are_reserved() {
        let is_system_name = |name: &str, private| of_system(name, "sys.example.com", private).is_some();
        for private in [true, false] {
            assert!(is_system_name("api.sys.example.com", private));
            assert!(is_system_name("v3.uaa.sys.example.com", private));
            assert!(!is_system_name("blog.sys.example.com", private));
            assert!(!is_system_name("api.example.com", private));
            assert!(!is_system_name("notapi.sys.example.com", private));
        }
        for name in ["sys.example.com", "example.com"] {
            assert!(is_system_name(name, true), "{name}");
            assert!(!is_system_name(name, false), "an operator may share {name} with everybody");
        }
        assert!(!is_system_name("ample.com", true));
    }

    #[test]
    fn names_come_apart_at_their_dots() {
        assert_eq!(suffixes("a.b.c").collect::<Vec<_>>(), ["a.b.c", "b.c"]);
        let pairs = splits("a.b.c");
        let pairs: Vec<_> = pairs.iter().map(|(host, domain)| (host.as_str(), domain.as_str())).collect();
        assert_eq!(pairs, [("", "a.b.c"), ("a", "b.c"), ("a.b", "c")]);
    }
}
