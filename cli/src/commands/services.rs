//! Services: what an app needs from outside, as credentials, a log drain or a route service.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::names::gone;
use super::{Session, routes, text};
use crate::args::{BindServiceArgs, DeleteNamedArgs, RouteServiceArgs, UnbindServiceArgs, UserProvidedArgs};
use crate::client::views::{App, NamedResource, Route};
use crate::client::{Body, query};
use crate::error::CliError;

/// Guids in one query: more would make its line too long for some proxies.
const GUIDS: usize = 100;

/// Bound apps by service, each with the name of its app.
async fn bindings(session: &Session, services: &[String]) -> Result<Vec<(String, String, Value)>, CliError> {
    let client = session.client()?;
    let mut found = Vec::new();
    for group in services.chunks(GUIDS) {
        let parameters = [("service_instance_guids", group.join(",")), ("per_page", "5000".to_owned())];
        let parameters: Vec<(&str, &str)> = parameters.iter().map(|(key, value)| (*key, value.as_str())).collect();
        found.extend(client.list(&query("/v3/service_credential_bindings", &parameters)).await?);
    }
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    if !found.is_empty() {
        let path = query("/v3/apps", &[("per_page", "5000"), ("space_guids", &session.space()?.guid)]);
        names.extend(client.list_as::<App>(&path).await?.into_iter().map(|app| (app.guid, app.name)));
    }
    let named = |binding: Value| {
        let app = text(&binding, "/relationships/app/data/guid");
        let name = names.get(&app).cloned().unwrap_or(app);
        (text(&binding, "/relationships/service_instance/data/guid"), name, binding)
    };
    Ok(found.into_iter().map(named).collect())
}

pub(super) async fn services(session: &Session) -> Result<(), CliError> {
    let space = session.space()?;
    let path = query(
        "/v3/service_instances",
        &[("space_guids", space.guid.as_str()), ("order_by", "name"), ("per_page", "5000")],
    );
    let mut list = session.client()?.list(&path).await?;
    let guids: Vec<String> = list.iter().map(|service| text(service, "/guid")).collect();
    let bound = bindings(session, &guids).await?;
    let apps = |guid: &str| -> Vec<String> {
        bound.iter().filter(|(service, ..)| service == guid).map(|(_, app, _)| app.clone()).collect()
    };
    for service in &mut list {
        service["apps"] = json!(apps(&text(service, "/guid")));
    }
    let row = |service: &Value| {
        let apps: Vec<&str> = service["apps"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        vec![text(service, "/name"), text(service, "/type"), kind(service), apps.join(", ")]
    };
    let empty = "There are no services in this space. Make one of credentials that you have: \
                 `slipway create-user-provided-service NAME -p KEY=VALUE`";
    session.show(list, &["name", "type", "is", "apps"], row, empty)
}

/// What a service is there for.
fn kind(service: &Value) -> String {
    let mut parts = Vec::new();
    for (pointer, word) in [("/syslog_drain_url", "log drain"), ("/route_service_url", "route service")] {
        if !text(service, pointer).is_empty() {
            parts.push(word);
        }
    }
    if parts.is_empty() { "credentials".to_owned() } else { parts.join(", ") }
}

async fn find(session: &Session, name: &str) -> Result<NamedResource, CliError> {
    let space = session.space()?;
    let place = format!(" in space '{}'", space.name);
    session.named("Service", "/v3/service_instances", name, &[("space_guids", &space.guid)], &place).await
}

pub(super) async fn service(session: &Session, name: &str) -> Result<(), CliError> {
    let found = find(session, name).await?;
    let client = session.client()?;
    let whole: Value = client.get(&format!("/v3/service_instances/{}", found.guid)).await?;
    let bound = bindings(session, std::slice::from_ref(&found.guid)).await?;
    // Whoever may not see credentials still sees the rest.
    let credentials = match client.get::<Value>(&format!("/v3/service_instances/{}/credentials", found.guid)).await {
        Err(error) if error.has_status(403) || error.has_status(404) => Value::Null,
        other => other?,
    };
    if session.printer.wants_json() {
        let bindings: Vec<Value> = bound.into_iter().map(|(.., binding)| binding).collect();
        let body = json!({ "service": whole, "credentials": credentials, "bindings": bindings });
        return session.printer.json(&body);
    }
    let keys = credentials.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(", "));
    let tags: Vec<&str> =
        whole.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let apps: Vec<&str> = bound.iter().map(|(_, app, _)| app.as_str()).collect();
    let facts = [
        ("name", found.name.clone()),
        ("type", text(&whole, "/type")),
        ("credentials", keys.unwrap_or_default()),
        ("log drain", text(&whole, "/syslog_drain_url")),
        ("route service", text(&whole, "/route_service_url")),
        ("tags", tags.join(", ")),
        ("apps", apps.join(", ")),
    ];
    let rows = facts.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    session.printer.table(&[], rows, "")?;
    session.printer.say(&format!("Values of the credentials: `slipway service {} --json`", found.name));
    Ok(())
}

/// Credentials as they are written: pairs, a JSON object, a file with one.
fn credentials(session: &Session, words: &[String]) -> Result<Option<Map<String, Value>>, CliError> {
    // The text may be a secret, so it is never in the message.
    let usage = |message: &str| CliError::Usage {
        message: message.to_owned(),
        hint: "Write -p KEY=VALUE (may be repeated), -p '{\"KEY\": \"VALUE\"}', or -p @FILE with such an object."
            .to_owned(),
    };
    let mut all = Map::new();
    for word in words {
        let text = match word.strip_prefix('@') {
            None => word.clone(),
            Some(file) => std::fs::read_to_string(session.environment.directory.join(file))
                .map_err(|error| usage(&format!("Cannot read {file}: {error}.")))?,
        };
        if text.trim_start().starts_with('{') {
            match serde_json::from_str(&text) {
                Ok(Value::Object(map)) => all.extend(map),
                _ => return Err(usage("The credentials are not a JSON object.")),
            }
            continue;
        }
        let pair = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let (key, value) = pair.ok_or_else(|| usage("The credentials are neither KEY=VALUE nor a JSON object."))?;
        all.insert(key.to_owned(), value.into());
    }
    Ok((!words.is_empty()).then_some(all))
}

/// The members of a request that the flags give.
fn body(session: &Session, args: &UserProvidedArgs) -> Result<Value, CliError> {
    let mut body = json!({});
    if let Some(credentials) = credentials(session, &args.credentials)? {
        body["credentials"] = credentials.into();
    }
    for (key, value) in [("syslog_drain_url", &args.syslog_drain), ("route_service_url", &args.route_service)] {
        if let Some(value) = value {
            body[key] = value.as_str().into();
        }
    }
    if !args.tags.is_empty() {
        body["tags"] = json!(args.tags);
    }
    Ok(body)
}

pub(super) async fn create(session: &Session, args: UserProvidedArgs) -> Result<(), CliError> {
    let space = session.space()?;
    let mut body = body(session, &args)?;
    body["type"] = "user-provided".into();
    body["name"] = args.name.as_str().into();
    body["relationships"] = json!({ "space": { "data": { "guid": space.guid } } });
    session.client()?.send(Method::POST, "/v3/service_instances", Body::Json(body)).await?;
    let next =
        if args.route_service.is_some() { "bind-route-service {0} DOMAIN -n HOST" } else { "bind-service APP {0}" };
    session.printer.say(&format!(
        "Service '{}' is made. Next: `slipway {}`",
        args.name,
        next.replace("{0}", &args.name)
    ));
    Ok(())
}

pub(super) async fn update(session: &Session, args: UserProvidedArgs) -> Result<(), CliError> {
    let found = find(session, &args.name).await?;
    let body = body(session, &args)?;
    if body.as_object().is_some_and(Map::is_empty) {
        session.printer.say(&format!("Nothing of service '{}' is to be changed; nothing was done.", found.name));
        return Ok(());
    }
    session.client()?.send(Method::PATCH, &format!("/v3/service_instances/{}", found.guid), Body::Json(body)).await?;
    session.printer.say(&format!(
        "Service '{}' is changed. Bound apps see it after `slipway restart APP --strategy rolling`.",
        found.name
    ));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(found) = gone(session, find(session, &args.name).await)? else { return Ok(()) };
    let bound = bindings(session, std::slice::from_ref(&found.guid)).await?;
    let mut apps: Vec<&str> = bound.iter().map(|(_, app, _)| app.as_str()).filter(|app| !app.is_empty()).collect();
    apps.sort_unstable();
    apps.dedup();
    let quoted = apps.iter().map(|app| format!("'{app}'")).collect::<Vec<_>>().join(", ");
    let to = if apps.is_empty() { String::new() } else { format!(" and takes it from {quoted}") };
    session.confirm(args.force, &format!("This deletes the service '{}'{to}.", found.name)).await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("/v3/service_instances/{}", found.guid), Body::None).await?;
    client.finish(&answer).await?;
    let next: Vec<String> = apps.iter().map(|app| format!("`slipway restart {app} --strategy rolling`")).collect();
    let seen = match next.is_empty() {
        true => String::new(),
        false => format!(" Its credentials stay in {quoted} until {}.", next.join(", ")),
    };
    session.printer.say(&format!("Service '{}' is deleted.{seen}", found.name));
    Ok(())
}

pub(super) async fn bind(session: &Session, args: BindServiceArgs) -> Result<(), CliError> {
    let (app, service) = (session.app(&args.app).await?, find(session, &args.service).await?);
    let mut body = json!({ "type": "app", "relationships": {
        "service_instance": { "data": { "guid": service.guid } }, "app": { "data": { "guid": app.guid } },
    } });
    if let Some(name) = &args.binding_name {
        body["name"] = name.as_str().into();
    }
    let client = session.client()?;
    match client.send(Method::POST, "/v3/service_credential_bindings", Body::Json(body)).await {
        Err(error) if error.says("already bound") => {
            session.printer.say(&format!("'{}' is bound to '{}' already; nothing was done.", app.name, service.name));
            return Ok(());
        }
        other => client.finish(&other?).await?,
    }
    session.printer.say(&format!(
        "'{0}' is bound to '{1}'. It sees it in VCAP_SERVICES after `slipway restart {0} --strategy rolling`.",
        app.name, service.name
    ));
    Ok(())
}

pub(super) async fn unbind(session: &Session, args: UnbindServiceArgs) -> Result<(), CliError> {
    let (app, service) = (session.app(&args.app).await?, find(session, &args.service).await?);
    let client = session.client()?;
    let path = query(
        "/v3/service_credential_bindings",
        &[("type", "app"), ("app_guids", app.guid.as_str()), ("service_instance_guids", service.guid.as_str())],
    );
    let found = client.list(&path).await?;
    if found.is_empty() {
        session.printer.say(&format!("'{}' was not bound to '{}'; nothing was done.", app.name, service.name));
        return Ok(());
    }
    for binding in &found {
        let path = format!("/v3/service_credential_bindings/{}", text(binding, "/guid"));
        let answer = client.send(Method::DELETE, &path, Body::None).await?;
        client.finish(&answer).await?;
    }
    session.printer.say(&format!(
        "'{0}' is no longer bound to '{1}'. It sees that after `slipway restart {0} --strategy rolling`.",
        app.name, service.name
    ));
    Ok(())
}

/// The service and the route that `command` names, and how the route is written.
async fn with_route(
    session: &Session,
    args: RouteServiceArgs,
    command: &str,
) -> Result<(NamedResource, Route, String), CliError> {
    let route = routes::with_slash(args.route);
    let service = find(session, &args.service).await?;
    let domain = routes::domain_of(session, &route, &format!("{command} {}", args.service)).await?;
    let written = routes::written(&route);
    let found = routes::find(session, &route, &domain).await?;
    let missing = || CliError::Missing { kind: "Route", name: written.clone(), place: String::new() };
    Ok((service, found.ok_or_else(missing)?, written))
}

pub(super) async fn bind_route(session: &Session, args: RouteServiceArgs) -> Result<(), CliError> {
    let (service, route, written) = with_route(session, args, "bind-route-service").await?;
    let body = json!({ "relationships": {
        "service_instance": { "data": { "guid": service.guid } }, "route": { "data": { "guid": route.guid } },
    } });
    let client = session.client()?;
    let answer = client.send(Method::POST, "/v3/service_route_bindings", Body::Json(body)).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Requests of '{written}' go through '{}' from now on.", service.name));
    Ok(())
}

pub(super) async fn unbind_route(session: &Session, args: RouteServiceArgs) -> Result<(), CliError> {
    let (service, route, written) = with_route(session, args, "unbind-route-service").await?;
    let client = session.client()?;
    let path = query(
        "/v3/service_route_bindings",
        &[("route_guids", route.guid.as_str()), ("service_instance_guids", service.guid.as_str())],
    );
    let found = client.list(&path).await?;
    if found.is_empty() {
        session
            .printer
            .say(&format!("Requests of '{written}' did not go through '{}'; nothing was done.", service.name));
        return Ok(());
    }
    for binding in &found {
        let path = format!("/v3/service_route_bindings/{}", text(binding, "/guid"));
        let answer = client.send(Method::DELETE, &path, Body::None).await?;
        client.finish(&answer).await?;
    }
    session.printer.say(&format!("Requests of '{written}' go to its apps without '{}'.", service.name));
    Ok(())
}
