//! Routes.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::Session;
use crate::args::{AppProtocol, DeleteRouteArgs, MapRouteArgs, MappingArgs, RouteArgs};
use crate::client::views::{App, NamedResource, Route, decode};
use crate::client::{Body, query};
use crate::error::CliError;
use crate::push::{route_url, tell_shared};

pub(super) async fn routes(session: &Session) -> Result<(), CliError> {
    let (client, space) = (session.client()?, session.space()?);
    let list = client.list(&query("/v3/routes", &[("per_page", "5000"), ("space_guids", &space.guid)])).await?;
    if session.printer.wants_json() {
        return session.printer.json(&list);
    }
    let routes: Vec<Route> = list.into_iter().map(|route| decode(route, "routes")).collect::<Result<_, _>>()?;
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    if routes.iter().any(|route| !route.destinations.is_empty()) {
        let path = query("/v3/apps", &[("per_page", "5000"), ("space_guids", &space.guid)]);
        names.extend(client.list_as::<App>(&path).await?.into_iter().map(|app| (app.guid, app.name)));
    }
    let rows = routes.iter().map(|route| {
        let mut apps: Vec<&str> = route
            .destinations
            .iter()
            // An app of another space, to which the route is shared.
            .map(|to| names.get(&to.app.guid).map_or(to.app.guid.as_str(), String::as_str))
            .collect();
        apps.dedup();
        vec![route.host.clone(), route.path.clone(), route_url(client, route), apps.join(", ")]
    });
    session.printer.table(&["host", "path", "url", "apps"], rows.collect(), "There are no routes in this space.")
}

pub(super) async fn find(
    session: &Session,
    args: &RouteArgs,
    domain: &NamedResource,
) -> Result<Option<Route>, CliError> {
    let parameters = [
        ("domain_guids", domain.guid.as_str()),
        // Sent even when empty: then they mean the empty host and the empty path.
        ("hosts", args.hostname.as_str()),
        ("paths", args.path.as_str()),
        ("per_page", "1"),
        ("page", "1"),
    ];
    let found: Vec<Route> = session.client()?.list_as(&query("/v3/routes", &parameters)).await?;
    Ok(found.into_iter().next())
}

async fn make(session: &Session, args: &RouteArgs, domain: &NamedResource) -> Result<Route, CliError> {
    let mut body = json!({ "relationships": {
        "space": { "data": { "guid": session.space()?.guid } },
        "domain": { "data": { "guid": domain.guid } },
    } });
    if !args.hostname.is_empty() {
        body["host"] = args.hostname.as_str().into();
    }
    if !args.path.is_empty() {
        body["path"] = args.path.as_str().into();
    }
    Ok(session.client()?.send_json(Method::POST, "/v3/routes", body).await?)
}

/// The domain of a route. A whole address, where a domain belongs, is taken apart for the person who wrote it.
pub(super) async fn domain_of(session: &Session, args: &RouteArgs, command: &str) -> Result<NamedResource, CliError> {
    let missing = match session.domain_named(&args.domain).await {
        Err(missing @ CliError::Missing { .. }) if args.hostname.is_empty() => missing,
        other => return other,
    };
    let typed = args.domain.split_once("://").map_or(args.domain.as_str(), |(_, rest)| rest);
    let (name, path) = typed.split_once('/').unwrap_or((typed, ""));
    let path = if args.path.is_empty() { path } else { args.path.trim_start_matches('/') };
    let mut known = Vec::new();
    if let Ok(org) = session.org() {
        let path = format!("/v3/organizations/{}/domains", org.guid);
        // Advice that cannot be given is not worth another error.
        known = session.client()?.list_as::<NamedResource>(&path).await.unwrap_or_default();
    }
    let host = |domain: &NamedResource| {
        let host = name.strip_suffix(domain.name.as_str())?;
        let host = if host.is_empty() { host } else { host.strip_suffix('.')? };
        (!host.contains('.')).then(|| host.to_owned())
    };
    let Some((host, domain)) = known.iter().find_map(|domain| Some((host(domain)?, &domain.name))) else {
        return Err(missing);
    };
    let host = if host.is_empty() { host } else { format!(" -n {host}") };
    let path = if path.is_empty() { String::new() } else { format!(" --path /{path}") };
    Err(CliError::Usage {
        message: format!("'{}' is an address of the domain '{domain}', not a domain.", args.domain),
        hint: format!("Write `slipway {command} {domain}{host}{path}`."),
    })
}

/// The route as a person writes it.
pub(super) fn written(args: &RouteArgs) -> String {
    let dot = if args.hostname.is_empty() { "" } else { "." };
    format!("{}{dot}{}{}", args.hostname, args.domain, args.path)
}

/// Paths begin with a slash, whether it was typed or not.
pub(super) fn with_slash(mut args: RouteArgs) -> RouteArgs {
    if !args.path.is_empty() && !args.path.starts_with('/') {
        args.path.insert(0, '/');
    }
    args
}

fn print_route(session: &Session, route: &Route) -> Result<(), CliError> {
    let url = route_url(session.client()?, route);
    if session.printer.wants_json() {
        return session.printer.json(&json!({ "guid": route.guid, "url": url }));
    }
    session.printer.data(&url)
}

pub(super) async fn create(session: &Session, args: RouteArgs) -> Result<(), CliError> {
    session.space()?;
    let args = with_slash(args);
    let domain = domain_of(session, &args, "create-route").await?;
    let route = match make(session, &args, &domain).await {
        Err(CliError::Client(error)) if error.says("already exists") => match find(session, &args, &domain).await? {
            Some(route) if in_this_space(session, &route) => {
                session.printer.say(&format!("Route '{}' exists already.", written(&args)));
                route
            }
            _ => return Err(error.into()),
        },
        other => other?,
    };
    print_route(session, &route)
}

fn in_this_space(session: &Session, route: &Route) -> bool {
    let space = route.relationships.get("space").and_then(|space| space.guid());
    space.is_some() && space == session.settings.space.as_ref().map(|space| space.guid.as_str())
}

pub(super) async fn map(session: &Session, args: MapRouteArgs) -> Result<(), CliError> {
    let (mapping, wanted) = (args.mapping, args.app_protocol.map(AppProtocol::word));
    let route = with_slash(mapping.route);
    let app = session.app(&mapping.name).await?;
    let domain = domain_of(session, &route, &format!("map-route {}", app.name)).await?;
    let found = match find(session, &route, &domain).await? {
        Some(found) => found,
        None => make(session, &route, &domain).await?,
    };
    let path = format!("/v3/routes/{}/destinations", found.guid);
    let mut said = "leads to";
    match (found.destinations.iter().find(|to| to.leads_to(&app.guid)), wanted) {
        (None, wanted) => {
            let mut destination = json!({ "app": { "guid": app.guid } });
            if let Some(wanted) = wanted {
                destination["protocol"] = wanted.into();
            }
            let body = json!({ "destinations": [destination] });
            session.client()?.send(Method::POST, &path, Body::Json(body)).await?;
        }
        (Some(to), Some(wanted)) if to.protocol.as_deref() != Some(wanted) => {
            let path = format!("{path}/{}", to.guid);
            session.client()?.send(Method::PATCH, &path, Body::Json(json!({ "protocol": wanted }))).await?;
        }
        (Some(_), _) => said = "leads already to",
    }
    session.printer.say(&format!("'{}' {said} '{}'.", written(&route), app.name));
    tell_shared(session, session.client()?, &app, std::slice::from_ref(&found)).await?;
    print_route(session, &found)
}

pub(super) async fn unmap(session: &Session, args: MappingArgs) -> Result<(), CliError> {
    let route = with_slash(args.route);
    let app = session.app(&args.name).await?;
    let domain = domain_of(session, &route, &format!("unmap-route {}", app.name)).await?;
    let found = find(session, &route, &domain).await?.ok_or_else(|| CliError::Missing {
        kind: "Route",
        name: written(&route),
        place: String::new(),
    })?;
    let leads: Vec<_> = found.destinations.iter().filter(|to| to.leads_to(&app.guid)).collect();
    if leads.is_empty() {
        session.printer.say(&format!("'{}' did not lead to '{}'; nothing was done.", written(&route), app.name));
        return Ok(());
    }
    for to in leads {
        let path = format!("/v3/routes/{}/destinations/{}", found.guid, to.guid);
        session.client()?.send(Method::DELETE, &path, Body::None).await?;
    }
    session.printer.say(&format!(
        "'{}' no longer leads to '{}'. The route stays: `slipway delete-route` deletes it.",
        written(&route),
        app.name
    ));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteRouteArgs) -> Result<(), CliError> {
    let route = with_slash(args.route);
    let domain = domain_of(session, &route, "delete-route").await?;
    let Some(found) = find(session, &route, &domain).await? else {
        session.printer.say(&format!("Route '{}' does not exist; nothing was done.", written(&route)));
        return Ok(());
    };
    let to = found.destinations.len();
    let leads = if to == 0 { String::new() } else { format!(", which leads to {}", super::count(to, "app")) };
    session.confirm(args.force, &format!("This deletes the route '{}'{leads}.", written(&route))).await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("/v3/routes/{}", found.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Route '{}' is deleted.", written(&route)));
    Ok(())
}

pub(super) async fn delete_orphaned(session: &Session, force: bool) -> Result<(), CliError> {
    let space = session.space()?;
    let client = session.client()?;
    let all: Vec<Route> =
        client.list_as(&query("/v3/routes", &[("per_page", "5000"), ("space_guids", &space.guid)])).await?;
    let orphans: Vec<String> =
        all.iter().filter(|route| route.destinations.is_empty()).map(|route| format!("'{}'", route.url)).collect();
    if orphans.is_empty() {
        session.printer.say(&format!("Every route of space '{}' leads to an app; nothing was done.", space.name));
        return Ok(());
    }
    session.confirm(force, &format!("This deletes {}.", orphans.join(", "))).await?;
    let answer =
        client.send(Method::DELETE, &format!("/v3/spaces/{}/routes?unmapped=true", space.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("{} deleted: {}.", super::count(orphans.len(), "route"), orphans.join(", ")));
    Ok(())
}
