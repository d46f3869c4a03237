//! Routes of a manifest.

use std::collections::HashSet;

use rand::seq::IndexedRandom as _;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AppManifest, RouteManifest};
use crate::context::Context;
use crate::domain::app_protocol::AppProtocol;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::destinations::{Mapping, add_destinations_tx, mapping_record_tx};
use crate::domain::metadata::MetadataChange;
use crate::domain::route_options::{allowed_options_tx, check_complete};
use crate::domain::routes::create_tx;
use crate::domain::{DomainError, DomainResult};
use crate::store::apps::AppRow;
use crate::store::destinations::{
    DestinationRow, NewDestination, destination_add_tx, destination_remove_tx, destinations_tx,
};
use crate::store::domains::{DomainRow, domain_default_tx, domain_get_tx, domains_usable_tx};
use crate::store::events::event_record_tx;
use crate::store::manifest_routes::{app_has_routes_tx, destinations_clear_tx, route_is_shared_tx};
use crate::store::routes::{NewRoute, route_at_tx, route_lock_tx, route_patch_tx, url_of};

const ADJECTIVES: &[&str] =
    &["brave", "calm", "eager", "fancy", "gentle", "happy", "jolly", "kind", "lucky", "proud", "quick", "wise"];
const ANIMALS: &[&str] =
    &["badger", "crane", "dolphin", "eagle", "fox", "gecko", "hare", "lynx", "otter", "panda", "raven", "wolf"];

/// Does what the manifest says about routes; gives the routes that changed.
///
/// # Errors
/// [`DomainError::Invalid`] naming the route.
pub async fn apply(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    org: Uuid,
    wish: &AppManifest,
) -> DomainResult<Vec<Uuid>> {
    let mapper = RouteMapper { context, actor, app, org };
    if wish.no_route {
        return mapper.unmap_all(tx).await;
    }
    let mut changed = Vec::new();
    let domains = domains_usable_tx(tx, org).await?;
    for route in &wish.routes {
        let (domain, host, path) = split(&route.address, &domains).ok_or_else(|| {
            DomainError::invalid(format!(
                "For application '{}': The route '{}' did not match any existing domains.",
                wish.name, route.address
            ))
        })?;
        changed.extend(mapper.map(tx, (domain, host, path), route).await?);
    }
    if (wish.random_route || wish.default_route) && wish.routes.is_empty() && !app_has_routes_tx(tx, app.guid).await? {
        let domain = domain_default_tx(tx, org).await?.ok_or_else(|| {
            DomainError::invalid(format!(
                "For application '{}': there is no default domain to make a route in.",
                wish.name
            ))
        })?;
        let host = match wish.random_route {
            true => random(&app.name),
            false => host_of(&app.name)
                .map_err(|problem| DomainError::invalid(format!("For application '{}': {problem}", wish.name)))?,
        };
        let address = format!("{host}.{}", domain.name);
        let route = RouteManifest { address, protocol: None, options: None };
        changed.extend(mapper.map(tx, (&domain, host, String::new()), &route).await?);
    }
    Ok(changed)
}

fn random(name: &str) -> String {
    let mut rng = rand::rng();
    let word = |words: &[&'static str], rng: &mut rand::rngs::ThreadRng| words.choose(rng).copied().unwrap_or("x");
    let (first, second) = (word(ADJECTIVES, &mut rng), word(ANIMALS, &mut rng));
    let digits: u16 = rand::random_range(0..1000);
    let plain: String = name.chars().map(|c| if is_of_host(c) { c } else { '-' }).take(40).collect();
    let plain = match plain.trim_matches('-') {
        "" => "app",
        plain => plain,
    };
    format!("{plain}-{first}-{second}-{digits}")
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The app's name as a host, or why it is none. It is never bent to become one: two apps, `my.app` and `my_app`, would then
/// answer at one address, each to half of the other's requests.
fn host_of(name: &str) -> Result<String, String> {
    let problem = if name.chars().count() > 63 {
        "Host cannot exceed 63 characters"
    } else if !name.chars().all(is_of_host) {
        r#"Host must be either "*" or contain only alphanumeric characters, "_", or "-""#
    } else {
        return Ok(name.to_owned());
    };
    Err(format!(
        "Failed to create default route from app name: {problem}. Name a route in the manifest, or ask for a random one or \
         for none (--random-route, --no-route)."
    ))
}

/// Domain (the longest that fits), host and path of an address.
fn split<'a>(address: &str, domains: &'a [DomainRow]) -> Option<(&'a DomainRow, String, String)> {
    let (host, path) = match address.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (address, String::new()),
    };
    let fits = |domain: &&DomainRow| {
        let (host, name) = (host.to_ascii_lowercase(), domain.name.to_ascii_lowercase());
        host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'))
    };
    let domain = domains.iter().filter(fits).max_by_key(|domain| domain.name.len())?;
    let label = &host[..host.len() - domain.name.len()];
    let label = label.strip_suffix('.').unwrap_or(label).to_owned();
    Some((domain, label, path))
}

/// Makes and maps routes of one app on behalf of an actor.
struct RouteMapper<'a> {
    context: &'a Context,
    actor: &'a AuditSubject,
    app: &'a AppRow,
    /// Of the app.
    org: Uuid,
}

impl RouteMapper<'_> {
    fn event(&self, kind: &'static str, route: Uuid, url: &str) -> NewEvent {
        NewEvent::new(kind, self.actor.clone(), AuditSubject::new("route", route, url))
            .in_space(self.app.space_guid, self.org)
            .with("manifest_triggered", true)
    }

    async fn record(
        &self,
        tx: &mut PgConnection,
        kind: &'static str,
        (route, url): (Uuid, &str),
        to: impl Into<Mapping<'_>>,
    ) -> sqlx::Result<()> {
        mapping_record_tx(tx, self.event(kind, route, url), route, to.into()).await
    }

    /// Leads no route to the app any more; those that did.
    async fn unmap_all(&self, tx: &mut PgConnection) -> DomainResult<Vec<Uuid>> {
        let cleared = destinations_clear_tx(tx, self.app.guid).await?;
        for (route, old) in &cleared {
            self.record(tx, "audit.app.unmap-route", (route.guid, &route.url()), old).await?;
        }
        Ok(cleared.into_iter().map(|(route, _)| route.guid).collect())
    }

    /// Makes a route on a domain, with host and path, unless it is there, and leads it to the app; the route, if
    /// anything changed.
    async fn map(
        &self,
        tx: &mut PgConnection,
        place: (&DomainRow, String, String),
        wish: &RouteManifest,
    ) -> DomainResult<Option<Uuid>> {
        match self.map_checked(tx, place, wish).await {
            Err(DomainError::Invalid(problem)) => Err(DomainError::invalid(format!(
                "For application '{}': For route '{}': {problem}",
                self.app.name, wish.address
            ))),
            done => done,
        }
    }

    async fn map_checked(
        &self,
        tx: &mut PgConnection,
        (domain, host, path): (&DomainRow, String, String),
        wish: &RouteManifest,
    ) -> DomainResult<Option<Uuid>> {
        let url = url_of(&host, &domain.name, &path);
        let options = allowed_options_tx(tx, wish.options.clone().unwrap_or_default()).await?;
        let (route, mut changed) = match route_at_tx(tx, domain.guid, &host, &path).await? {
            Some(route) => {
                let own = route.space_guid == self.app.space_guid;
                if !own && !route_is_shared_tx(tx, route.guid, self.app.space_guid).await? {
                    return Err(DomainError::invalid("It is in use in another space; choose another host or path."));
                }
                if !options.is_empty() {
                    let options = Value::Object(options.clone());
                    route_patch_tx(tx, route.guid, Some(&options), &MetadataChange::check(None)?).await?;
                    check_complete(route_lock_tx(tx, route.guid).await?.and_then(|route| route.options).as_ref())?;
                    let event = self.event("audit.route.update", route.guid, &url);
                    event_record_tx(tx, &event.with_request(json!({ "options": options }))).await?;
                }
                (route.guid, !options.is_empty())
            }
            None => (self.make(tx, (domain, host, path), options).await?, true),
        };
        changed |= self.lead(tx, (route, &url), wish.protocol).await?;
        Ok(changed.then_some(route))
    }

    /// Leads a route to the app, with this protocol if the manifest names one. True when it did not before.
    ///
    /// Where the protocol changes Cloud Foundry replaces all destinations of the route by this one, those of other apps
    /// too, which nobody asked for; here they stay.
    async fn lead(
        &self,
        tx: &mut PgConnection,
        route: (Uuid, &str),
        protocol: Option<AppProtocol>,
    ) -> DomainResult<bool> {
        let settled = |old: &DestinationRow| protocol.is_none_or(|protocol| protocol.as_str() == old.protocol);
        if spoken_of(&destinations_tx(tx, route.0).await?, self.app.guid).is_some_and(settled) {
            return Ok(false);
        }
        route_lock_tx(tx, route.0).await?.ok_or(DomainError::NotFound("Route"))?;
        let all = destinations_tx(tx, route.0).await?;
        let old = spoken_of(&all, self.app.guid);
        if old.is_some_and(settled) {
            return Ok(false);
        }
        let new = NewDestination {
            app_guid: self.app.guid,
            process_type: old.map_or("web", |old| &old.process_type).to_owned(),
            port: old.and_then(|old| old.port),
            weight: old.and_then(|old| old.weight),
            protocol: protocol.unwrap_or_default(),
        };
        match old {
            None => drop(add_destinations_tx(tx, route.0, std::slice::from_ref(&new)).await?),
            Some(old) => {
                destination_remove_tx(tx, route.0, old.guid).await?;
                self.record(tx, "audit.app.unmap-route", route, old).await?;
                destination_add_tx(tx, route.0, &new).await?;
            }
        }
        self.record(tx, "audit.app.map-route", route, &new).await?;
        Ok(true)
    }

    async fn make(
        &self,
        tx: &mut PgConnection,
        (domain, host, path): (&DomainRow, String, String),
        options: Map<String, Value>,
    ) -> DomainResult<Uuid> {
        if host == "*" && domain.org_guid.is_none() {
            return Err(DomainError::invalid(
                "A manifest cannot make a route with a wildcard host on a domain not scoped to an organization.",
            ));
        }
        let gone = || DomainError::invalid(format!("The domain '{}' has just been removed.", domain.name));
        domain_get_tx(tx, domain.guid).await?.ok_or_else(gone)?;
        let request = json!({ "host": host, "path": path, "domain": domain.guid });
        let url = url_of(&host, &domain.name, &path);
        let options: Map<String, Value> = options.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let new = NewRoute {
            space_guid: self.app.space_guid,
            domain_guid: domain.guid,
            host,
            path,
            options: (!options.is_empty()).then_some(Value::Object(options)),
            metadata: MetadataChange::check(None)?,
        };
        let route = create_tx(tx, &self.context.config.system_domain, domain, self.org, new).await?;
        event_record_tx(tx, &self.event("audit.route.create", route, &url).with_request(request)).await?;
        Ok(route)
    }
}

/// The destination whose protocol a manifest shows and sets, as it names one for a route: the app's web process at its
/// usual port if the route leads there, else the oldest.
pub(super) fn spoken_of<'a>(
    all: impl IntoIterator<Item = &'a DestinationRow>,
    app: Uuid,
) -> Option<&'a DestinationRow> {
    all.into_iter().filter(|to| to.app_guid == app).min_by_key(|to| (to.process_type != "web", to.port.is_some()))
}

/// Each changed route once.
#[must_use]
pub fn distinct(routes: Vec<Uuid>) -> Vec<Uuid> {
    let mut seen = HashSet::new();
    routes.into_iter().filter(|route| seen.insert(*route)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_domain_fits() {
        let domain = |name: &str| DomainRow {
            guid: Uuid::new_v4(),
            name: name.to_owned(),
            internal: false,
            org_guid: None,
            is_default: false,
            labels: Value::Null,
            annotations: Value::Null,
            created_at: chrono::Utc::now(),
            updated_at: chrono::Utc::now(),
        };
        let domains = [domain("example.com"), domain("apps.example.com")];
        let (found, host, path) = split("a.b.apps.example.com/x/y", &domains).expect("fits");
        assert_eq!((found.name.as_str(), host.as_str(), path.as_str()), ("apps.example.com", "a.b", "/x/y"));
        assert_eq!(split("example.com", &domains).expect("fits").1, "");
        assert_eq!(split("Shop.Example.COM", &domains).expect("fits").1, "Shop");
        assert!(split("badexample.com", &domains).is_none());
    }

    #[test]
    fn a_name_is_a_host_or_it_is_not() {
        assert_eq!(host_of("My_App-2"), Ok("My_App-2".to_owned()));
        for (name, reason) in [("my.app", "alphanumeric"), ("my app", "alphanumeric"), ("ünï", "alphanumeric")] {
            assert!(host_of(name).expect_err(name).contains(reason), "{name}");
        }
        assert!(host_of(&"a".repeat(64)).expect_err("long").contains("63 characters"));
        assert!(random("web").starts_with("web-"));
        assert!(random("My App!").starts_with("My-App-"));
        assert!(random("!").starts_with("app-"));
        assert!(random(&"a".repeat(99)).len() <= 63);
    }
}
