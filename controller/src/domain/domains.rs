//! What a domain may be named: no name may take requests away from the platform, from another organization's domain
//! or from a route that is there.

use sqlx::PgConnection;
use uuid::Uuid;

use slipway_placement::system_names::SYSTEM_HOSTS;

use super::{DomainError, DomainResult};
use crate::store::addresses::{address_lock_all_tx, routes_named_tx};
use crate::store::domains::{domain_conflicting_tx, domains_shared_by_tx};

/// Checks whether a domain of this name (in lower case) may be made, for an organization or for all. Holds off every
/// new route and domain until the transaction ends, so that what was found stays so.
///
/// # Errors
/// [`DomainError::Invalid`] naming who has the name; or when the database fails.
pub async fn check_name_tx(
    tx: &mut PgConnection,
    system_domain: &str,
    name: &str,
    org: Option<Uuid>,
) -> DomainResult<()> {
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
    fn system_names_are_kept() {
        let kept = |name: &str, private| of_system(name, "sys.example.com", private).is_some();
        for private in [true, false] {
            assert!(kept("api.sys.example.com", private));
            assert!(kept("v3.uaa.sys.example.com", private));
            assert!(!kept("blog.sys.example.com", private));
            assert!(!kept("api.example.com", private));
            assert!(!kept("notapi.sys.example.com", private));
        }
        for name in ["sys.example.com", "example.com"] {
            assert!(kept(name, true), "{name}");
            assert!(!kept(name, false), "an operator may share {name} with everybody");
        }
        assert!(!kept("ample.com", true));
    }

    #[test]
    fn names_come_apart_at_their_dots() {
        assert_eq!(suffixes("a.b.c").collect::<Vec<_>>(), ["a.b.c", "b.c"]);
        let pairs = splits("a.b.c");
        let pairs: Vec<_> = pairs.iter().map(|(host, domain)| (host.as_str(), domain.as_str())).collect();
        assert_eq!(pairs, [("", "a.b.c"), ("a", "b.c"), ("a.b", "c")]);
    }
}
