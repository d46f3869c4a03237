//! Making, changing and removing routes, and what a route may be.

use serde_json::{Map, Value, json};
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::domains::splits;
use super::metadata::MetadataChange;
use super::route_options::{allowed_options_tx, check_complete};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::addresses::{address_lock_tx, domain_named_tx, host_elsewhere_tx, routes_named_tx};
use crate::store::change_log::ChangeKind;
use crate::store::domains::{DomainRow, domain_get_tx, domain_usable_in_tx};
use crate::store::events::event_record_tx;
use crate::store::jobs::{NewJob, job_completed_tx};
use crate::store::routes::{self, NewRoute, RouteFigures, RouteRow};
use slipway_placement::system_names::is_system_name;

const MAX_HOST: usize = 63;
const MAX_PATH: usize = 128;
const MAX_FQDN: usize = 253;

/// A route to be made.
#[derive(Clone, Debug)]
pub(crate) struct RouteCreate {
    /// Where.
    pub(crate) space: Uuid,
    /// The space's organization.
    pub(crate) org: Uuid,
    /// On this domain.
    pub(crate) domain: Uuid,
    /// May be empty on a private domain.
    pub(crate) host: String,
    /// Empty, or begins with a slash.
    pub(crate) path: String,
    /// Null members are as if they were not there.
    pub(crate) options: Map<String, Value>,
    /// Labels and annotations.
    pub(crate) metadata: MetadataChange,
    /// Whether it may take all hosts of a domain that everybody uses.
    pub(crate) wildcard_on_shared: bool,
}

/// Makes a route without destinations.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: RouteCreate) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    let options = allowed_options_tx(&mut tx, wish.options).await?;
    let domain = domain_get_tx(&mut tx, wish.domain).await?.ok_or_else(no_domain)?;
    let options: Map<String, Value> = options.into_iter().filter(|(_, value)| !value.is_null()).collect();
    if wish.host == "*" && domain.org_guid.is_none() && !wish.wildcard_on_shared {
        return Err(DomainError::invalid(
            "You do not have sufficient permissions to create a route with a wildcard host on a domain not scoped to \
             an organization.",
        ));
    }
    let new = NewRoute {
        space_guid: wish.space,
        domain_guid: domain.guid,
        host: wish.host.clone(),
        path: wish.path.clone(),
        options: (!options.is_empty()).then_some(Value::Object(options)),
        metadata: wish.metadata,
    };
    let guid = create_tx(&mut tx, &context.config.system_domain, &domain, wish.org, new).await?;
    let target = AuditSubject::new("route", guid, routes::url_of(&wish.host, &domain.name, &wish.path));
    let event = NewEvent::new("audit.route.create", actor.clone(), target)
        .in_space(wish.space, wish.org)
        .with_request(json!({ "host": wish.host, "path": wish.path, "domain": domain.guid }));
    event_record_tx(&mut tx, &event).await?;
    context.store.commit(tx, &[(ChangeKind::Route, guid)]).await?;
    // A route without destinations changes nothing at the routers: there is nothing to wait for.
    Ok(guid)
}

/// The refusal of a route on a domain that is not there, or not for whoever asks.
pub(crate) fn no_domain() -> DomainError {
    DomainError::invalid("Invalid domain. Ensure that the domain exists and you have access to it.")
}

/// A change of a route.
#[derive(Clone, Debug)]
pub(crate) struct RouteUpdate {
    /// Merged into those it has; null members remove.
    pub(crate) options: Option<Map<String, Value>>,
    /// Labels and annotations.
    pub(crate) metadata: MetadataChange,
}

/// Changes a route. `org` is the organization of its space.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
    change: RouteUpdate,
) -> DomainResult<Version> {
    let mut tx = context.store.begin().await?;
    let options = match change.options {
        Some(options) => Some(Value::Object(allowed_options_tx(&mut tx, options).await?)),
        None => None,
    };
    routes::route_patch_tx(&mut tx, row.guid, options.as_ref(), &change.metadata).await?;
    if options.is_some() {
        check_complete(routes::route_lock_tx(&mut tx, row.guid).await?.and_then(|route| route.options).as_ref())?;
    }
    let mut event =
        NewEvent::new("audit.route.update", actor.clone(), audit_subject(row)).in_space(row.space_guid, org);
    if let Some(options) = &options {
        event = event.with_request(json!({ "options": options }));
    }
    event_record_tx(&mut tx, &event).await?;
    Ok(context.store.commit(tx, &[(ChangeKind::Route, row.guid)]).await?)
}

/// Removes a route. `org` is the organization of its space. Gives the job that clients ask about.
///
/// # Errors
/// [`DomainError::NotFound`] when it is gone.
pub(crate) async fn delete(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &RouteRow,
) -> DomainResult<(Uuid, Version)> {
    let mut tx = context.store.begin().await?;
    if !routes::route_delete_tx(&mut tx, row.guid).await? {
        return Err(DomainError::NotFound("Route"));
    }
    let event =
        NewEvent::new("audit.route.delete-request", actor.clone(), audit_subject(row)).in_space(row.space_guid, org);
    event_record_tx(&mut tx, &event).await?;
    let job = NewJob {
        operation: "route.delete",
        resource_type: "route",
        resource_guid: row.guid,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_completed_tx(&mut tx, &job).await?;
    let version = context.store.commit(tx, &[(ChangeKind::Route, row.guid)]).await?;
    Ok((job, version))
}

/// Whether a domain has a route of this host and path.
///
/// # Errors
/// When the database fails.
pub(crate) async fn is_taken(context: &Context, domain: Uuid, host: &str, path: &str) -> DomainResult<bool> {
    let mut connection = context.store.pool().acquire().await?;
    Ok(routes::route_at_tx(&mut connection, domain, host, path).await?.is_some())
}

/// A route as target of an event.
pub(crate) fn audit_subject(row: &RouteRow) -> AuditSubject {
    AuditSubject::new("route", row.guid, row.url())
}

/// Checks host and path of a route on a domain.
///
/// # Errors
/// [`DomainError::Invalid`] with the reason.
fn check_address(domain: &DomainRow, system_domain: &str, host: &str, path: &str) -> DomainResult<()> {
    if host.chars().count() > MAX_HOST {
        return Err(DomainError::invalid(format!("Host must be no more than {MAX_HOST} characters")));
    }
    let wildcard = host == "*";
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        && !host.starts_with('-')
        && !host.ends_with('-');
    if !wildcard && !plain {
        let shown: String = host.chars().flat_map(char::escape_debug).collect();
        return Err(DomainError::invalid(format!(
            "Host format is invalid: \"{shown}\". Use letters, digits, '-' and '_', or '*' alone."
        )));
    }
    if host.is_empty() && domain.org_guid.is_none() {
        return Err(DomainError::invalid("Missing host. Routes in shared domains must have a host defined."));
    }
    if host.len() + 1 + domain.name.len() > MAX_FQDN {
        return Err(DomainError::invalid(format!(
            "Host combined with domain name must be no more than {MAX_FQDN} characters."
        )));
    }
    if is_system_name(&routes::url_of(host, &domain.name, ""), system_domain) {
        return Err(DomainError::invalid("Route conflicts with a reserved system route."));
    }
    check_path(domain, path)
}

fn check_path(domain: &DomainRow, path: &str) -> DomainResult<()> {
    if path.is_empty() {
        return Ok(());
    }
    let problem = if domain.internal {
        "Paths are not supported for internal domains"
    } else if !path.starts_with('/') {
        "Path must begin with a '/'"
    } else if path == "/" {
        "Path cannot be exactly '/'"
    } else if path.contains('?') {
        "Path cannot contain '?'"
    } else if path.chars().count() > MAX_PATH {
        "Path must be no more than 128 characters; it begins with"
    } else if path.chars().any(|c| c.is_control() || c.is_whitespace() || c == '#') {
        "Path must not contain spaces, control characters or '#'"
    } else {
        return Ok(());
    };
    let shown: String = path.chars().flat_map(char::escape_debug).take(MAX_PATH).collect();
    Err(DomainError::invalid(format!("{problem}: \"{shown}\"")))
}

/// Makes a route in the caller's transaction: address, domain, quota and uniqueness are checked here, permissions by
/// the caller. `org` is the space's organization. End the transaction in `Store::commit` with `ChangeKind::Route`.
///
/// # Errors
/// [`DomainError::Invalid`] with the texts that clients know (`Route already exists …`).
pub(super) async fn create_tx(
    tx: &mut PgConnection,
    system_domain: &str,
    domain: &DomainRow,
    org: Uuid,
    route: NewRoute,
) -> DomainResult<Uuid> {
    if !domain_usable_in_tx(tx, domain.guid, org).await? {
        return Err(DomainError::invalid(format!(
            "Invalid domain. Domain '{}' is not available in the organization of this space.",
            domain.name
        )));
    }
    check_address(domain, system_domain, &route.host, &route.path)?;
    check_complete(route.options.as_ref())?;
    check_room(&routes::route_figures_tx(tx, route.space_guid).await?)?;
    check_free_tx(tx, domain, &route).await?;
    routes::route_insert_tx(tx, &route)
        .await
        .map_err(refuse("route_address_key", || taken(&domain.name, &route.host, &route.path)))
}

/// Whether a new route would take requests from another: from a domain of its full name, from a route of another
/// domain, or from another space that has the host. Keeps it so until the transaction ends.
async fn check_free_tx(tx: &mut PgConnection, domain: &DomainRow, route: &NewRoute) -> DomainResult<()> {
    // The route keeps the case in which its host was written, and clients show it; no other may differ by case alone.
    let host = route.host.to_lowercase();
    let name = routes::url_of(&host, &domain.name.to_lowercase(), "");
    address_lock_tx(tx, &name).await?;
    if routes::route_at_tx(tx, domain.guid, &route.host, &route.path).await?.is_some() {
        return Err(DomainError::Invalid(taken(&domain.name, &route.host, &route.path)));
    }
    if domain_named_tx(tx, &name, domain.guid).await? {
        return Err(DomainError::invalid(format!("Route conflicts with domain '{name}'.")));
    }
    if let Some(other) = routes_named_tx(tx, &splits(&name), Some(domain.guid)).await? {
        return Err(DomainError::invalid(format!(
            "Route conflicts with route '{}' of domain '{}'.",
            other.url(),
            other.domain_name
        )));
    }
    // On a private domain the organization's spaces may share a host, path by path.
    if domain.org_guid.is_none() && host_elsewhere_tx(tx, domain.guid, &host, route.space_guid).await? {
        return Err(DomainError::invalid(format!(
            "Routes with host '{}' for domain '{}' have been reserved for another space.",
            route.host, domain.name
        )));
    }
    Ok(())
}

/// Whether one more route fits the quotas.
fn check_room(figures: &RouteFigures) -> DomainResult<()> {
    if figures.org_limit.is_some_and(|limit| figures.org_routes >= limit) {
        return Err(DomainError::invalid(format!("Routes quota exceeded for organization '{}'.", figures.org_name)));
    }
    if figures.space_limit.is_some_and(|limit| figures.space_routes >= limit) {
        return Err(DomainError::invalid(format!("Routes quota exceeded for space '{}'.", figures.space_name)));
    }
    Ok(())
}

fn taken(domain: &str, host: &str, path: &str) -> String {
    match (host, path) {
        ("", "") => format!("Route already exists for domain '{domain}'."),
        ("", path) => format!("Route already exists with path '{path}' for domain '{domain}'."),
        (host, "") => format!("Route already exists with host '{host}' for domain '{domain}'."),
        (host, path) => format!("Route already exists with host '{host}' and path '{path}' for domain '{domain}'."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn domain(org: Option<Uuid>) -> DomainRow {
        DomainRow {
            guid: Uuid::nil(),
            name: "x.test".to_owned(),
            internal: false,
            org_guid: org,
            is_default: false,
            labels: json!({}),
            annotations: json!({}),
            created_at: chrono::Utc::now(),
            updated_at: chrono::Utc::now(),
        }
    }

    #[test]
    fn addresses_are_checked() {
        let check = |host: &str, path: &str| check_address(&domain(None), "x.test", host, path);
        assert!(check("My-App", "").is_ok());
        assert!(check("*", "/a/b").is_ok());
        for (host, path) in [
            ("", ""),
            ("a.b", ""),
            ("-a", ""),
            ("a b", ""),
            ("ä", ""),
            ("api", ""),
            ("LOGIN", ""),
            ("a", "b"),
            ("a", "/"),
            ("a", "/b?c"),
            ("a", "/b c"),
        ] {
            assert!(check(host, path).is_err(), "{host:?} {path:?}");
        }
        assert!(check(&"a".repeat(64), "").is_err());
        assert!(check("a", &format!("/{}", "p".repeat(128))).is_err());
        assert!(check_address(&domain(Some(Uuid::nil())), "y.test", "", "").is_ok());
    }
}
