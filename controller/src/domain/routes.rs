//! What a route may be.

use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::domains::splits;
use super::{DomainError, DomainResult};
use crate::store::addresses::{address_lock_tx, domain_named_tx, host_elsewhere_tx, routes_named_tx};
use crate::store::constraints::refuse;
use crate::store::destinations::{self, DestinationRow, NewDestination};
use crate::store::domains::{DomainRow, domain_usable_in_tx};
use crate::store::events::event_record_tx;
use crate::store::feature_flags::feature_flag_get_tx;
use crate::store::routes::{self, NewRoute, RouteFigures};
use slipway_placement::system_names::is_system_name;

const MAX_HOST: usize = 63;
const MAX_PATH: usize = 128;
const MAX_FQDN: usize = 253;
/// Most destinations of one route.
pub const MAX_DESTINATIONS: usize = 100;

/// Checks host and path of a route on a domain.
///
/// # Errors
/// [`DomainError::Invalid`] with the reason.
pub fn check_address(domain: &DomainRow, system_domain: &str, host: &str, path: &str) -> DomainResult<()> {
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

/// The flag that lets routes choose `hash`.
const HASH: &str = "hash_based_routing";

/// Checks a change of route options; null members remove. Numbers come back as texts, which is how clients read them.
///
/// # Errors
/// [`DomainError::Invalid`] naming the option and its value.
pub fn check_options(mut options: Map<String, Value>) -> DomainResult<Map<String, Value>> {
    for (key, value) in &mut options {
        if let Value::Number(number) = value {
            *value = Value::String(number.to_string());
        }
        let text = value.as_str();
        let (good, rule) = match key.as_str() {
            "loadbalancing" => (
                matches!(text, Some("round-robin" | "least-connection" | "hash")),
                "it must be one of 'round-robin', 'least-connection', 'hash'",
            ),
            "hash_header" => (
                text.is_some_and(|name| name.len() <= 128 && http::HeaderName::from_bytes(name.as_bytes()).is_ok()),
                "it must be the name of a header, of at most 128 characters",
            ),
            "hash_balance" => (
                text.filter(|number| number.len() <= 16)
                    .and_then(|number| number.parse::<f64>().ok())
                    .is_some_and(|n| n == 0.0 || (1.1..=10.0).contains(&n)),
                "it must be 0 or a number from 1.1 to 10",
            ),
            _ => {
                return Err(DomainError::invalid(format!(
                    "Options Unknown field(s): '{key}'. Valid options: 'loadbalancing', 'hash_header', 'hash_balance'"
                )));
            }
        };
        if !good && !value.is_null() {
            let shown: String = value.to_string().chars().take(MAX_PATH).collect();
            return Err(DomainError::invalid(format!("Options '{key}' is not valid: {shown}; {rule}")));
        }
    }
    if options.get("loadbalancing").is_some_and(|way| way != "hash") {
        let given = |key: &str| options.get(key).is_some_and(|value| !value.is_null());
        let wrong: Vec<&str> = [
            ("hash_header", "Options Hash header can only be set when loadbalancing is hash"),
            ("hash_balance", "Options Hash balance can only be set when loadbalancing is hash"),
        ]
        .into_iter()
        .filter_map(|(key, text)| given(key).then_some(text))
        .collect();
        if !wrong.is_empty() {
            return Err(DomainError::invalid(wrong.join(", ")));
        }
        // What the hash needed goes with it.
        options.insert("hash_header".to_owned(), Value::Null);
        options.insert("hash_balance".to_owned(), Value::Null);
    }
    Ok(options)
}

/// Checks all options of a route together, as they are after a change.
///
/// # Errors
/// [`DomainError::Invalid`] with what is missing.
pub fn check_complete(options: Option<&Value>) -> DomainResult<()> {
    match options {
        Some(options) if options["loadbalancing"] == "hash" && !options["hash_header"].is_string() => {
            Err(DomainError::invalid("Hash header must be present when loadbalancing is set to hash."))
        }
        _ => Ok(()),
    }
}

/// As [`check_options`], and refuses `hash` while it is switched off.
///
/// # Errors
/// As [`check_options`].
pub async fn allowed_options_tx(
    tx: &mut PgConnection,
    options: Map<String, Value>,
) -> DomainResult<Map<String, Value>> {
    let options = check_options(options)?;
    let hash = options.get("loadbalancing").is_some_and(|value| value == "hash");
    if hash && !feature_flag_get_tx(tx, HASH).await?.is_some_and(|flag| flag.enabled) {
        return Err(DomainError::invalid(format!(
            "Options 'loadbalancing' is not valid: \"hash\"; it must be one of 'round-robin', 'least-connection', because \
             the feature flag '{HASH}' is off"
        )));
    }
    Ok(options)
}

/// Makes a route in the caller's transaction: address, domain, quota and uniqueness are checked here, permissions by
/// the caller. `org` is the space's organization. End the transaction in `change_log::commit` with `ChangeKind::Route`.
///
/// # Errors
/// [`DomainError::Invalid`] with the texts that clients know (`Route already exists …`).
pub async fn create_tx(
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

/// Adds destinations, without weights, to a route; gives those that were not there before. End the transaction in
/// `change_log::commit` with `ChangeKind::Route`.
///
/// # Errors
/// [`DomainError::Invalid`] when the route has weighted destinations, would get too many, or has one of them with another
/// protocol, and [`DomainError::NotFound`] when it is gone.
pub async fn add_destinations_tx<'a>(
    tx: &mut PgConnection,
    route: Uuid,
    new: &'a [NewDestination],
) -> DomainResult<Vec<&'a NewDestination>> {
    let row = routes::route_lock_tx(tx, route).await?.ok_or(DomainError::NotFound("Route"))?;
    let old = destinations::destinations_tx(tx, route).await?;
    if old.iter().any(|destination| destination.weight.is_some()) {
        return Err(DomainError::invalid(
            "Destinations cannot be inserted when there are weighted destinations already configured.",
        ));
    }
    if old.len() + new.len() > MAX_DESTINATIONS {
        return Err(DomainError::invalid(format!("Routes can be mapped to at most {MAX_DESTINATIONS} destinations.")));
    }
    let mut added = Vec::new();
    for destination in new {
        if let Some(same) = old.iter().find(|old| destination.is_at(old)) {
            let protocol = destination.protocol.as_str();
            if same.protocol != protocol {
                return Err(DomainError::invalid(format!(
                    "Cannot add destination with protocol: {protocol}. Destination already exists for route: {}, app: {}, \
                     process: {}, and protocol: {}.",
                    row.url(),
                    same.app_guid,
                    same.process_type,
                    same.protocol
                )));
            }
            continue;
        }
        if destinations::destination_add_tx(tx, route, destination).await? {
            added.push(destination);
        }
    }
    Ok(added)
}

/// What events say of a destination.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    app: Uuid,
    process_type: &'a str,
    protocol: &'a str,
}

impl<'a> From<&'a NewDestination> for Mapping<'a> {
    fn from(new: &'a NewDestination) -> Self {
        Self { app: new.app_guid, process_type: &new.process_type, protocol: new.protocol.as_str() }
    }
}

impl<'a> From<&'a DestinationRow> for Mapping<'a> {
    fn from(row: &'a DestinationRow) -> Self {
        Self { app: row.app_guid, process_type: &row.process_type, protocol: &row.protocol }
    }
}

/// Records that a route leads to an app from now on, or no more: the event of the route, and the same one of the app,
/// whose own history shows it too.
///
/// # Errors
/// When the database fails.
pub async fn mapping_record_tx(
    tx: &mut PgConnection,
    event: NewEvent,
    route: Uuid,
    to: Mapping<'_>,
) -> sqlx::Result<()> {
    let event = event
        .with("app_guid", to.app.to_string())
        .with("process_type", to.process_type)
        .with("protocol", to.protocol)
        .with("route_guid", route.to_string());
    event_record_tx(tx, &event).await?;
    event_record_tx(tx, &NewEvent { target: AuditSubject::new("app", to.app, ""), ..event }).await
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

    #[test]
    fn options_are_checked() {
        let check = |value: Value| check_options(value.as_object().expect("an object").clone());
        assert!(check(json!({"loadbalancing": "least-connection", "hash_header": null})).is_ok());
        assert_eq!(check(json!({"hash_balance": 1.5})).expect("valid")["hash_balance"], "1.5");
        let refusal = check(json!({"loadbalancing": "random"})).expect_err("unknown").to_string();
        assert!(refusal.contains("\"random\"") && !refusal.contains("hash_header"), "{refusal}");
        for bad in [
            json!({"loadbalancing": "random"}),
            json!({"loadbalancing": 1}),
            json!({"x": "y"}),
            json!({"hash_balance": 11}),
            json!({"hash_balance": "NaN"}),
            json!({"hash_header": "a b"}),
            json!({"hash_header": ["a"]}),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
        let both = json!({"loadbalancing": "round-robin", "hash_header": "x", "hash_balance": 2});
        let refusal = check(both).expect_err("for a hash only").to_string();
        assert!(refusal.contains("Hash header can only") && refusal.contains("Hash balance can only"), "{refusal}");
        assert!(check(json!({"loadbalancing": "round-robin"})).expect("valid")["hash_header"].is_null());
    }
}
