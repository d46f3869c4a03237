//! One org, one space: shown, renamed, deleted.

use reqwest::Method;
use serde_json::{Value, json};

use super::names::gone;
use super::{Session, count, text};
use crate::args::{DeleteNamedArgs, RenameThingArgs};
use crate::client::views::NamedResource;
use crate::client::{Body, query};
use crate::error::CliError;

/// The targeted org, as a thing with a name.
fn targeted(session: &Session) -> Result<NamedResource, CliError> {
    let org = session.org()?;
    Ok(NamedResource { guid: org.guid.clone(), name: org.name.clone() })
}

/// Names of a list that the caller may not be allowed to see.
async fn names(session: &Session, path: &str) -> Result<String, CliError> {
    let found: Vec<NamedResource> = match session.client()?.list_as(path).await {
        Err(error) if error.has_status(403) || error.has_status(404) => Vec::new(),
        other => other?,
    };
    Ok(found.into_iter().map(|thing| thing.name).collect::<Vec<_>>().join(", "))
}

/// The name of a quota, or nothing.
async fn quota(session: &Session, whole: &Value, path: &str) -> Result<String, CliError> {
    let guid = text(whole, "/relationships/quota/data/guid");
    if guid.is_empty() {
        return Ok(String::new());
    }
    match session.client()?.get::<Value>(&format!("{path}/{guid}")).await {
        Err(error) if error.has_status(403) || error.has_status(404) => Ok(String::new()),
        other => Ok(text(&other?, "/name")),
    }
}

fn facts(session: &Session, facts: Vec<(&str, String)>) -> Result<(), CliError> {
    let rows = facts.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    session.printer.table(&[], rows, "")
}

pub(super) async fn org(session: &Session, name: &str) -> Result<(), CliError> {
    let org = session.org_named(name).await?;
    let whole: Value = session.client()?.get(&format!("/v3/organizations/{}", org.guid)).await?;
    if session.printer.wants_json() {
        return session.printer.json(&whole);
    }
    let spaces =
        names(session, &query("/v3/spaces", &[("order_by", "name"), ("organization_guids", &org.guid)])).await?;
    let domains = names(session, &format!("/v3/organizations/{}/domains", org.guid)).await?;
    let quota = quota(session, &whole, "/v3/organization_quotas").await?;
    let state = if text(&whole, "/suspended") == "true" { "suspended" } else { "active" };
    facts(
        session,
        vec![
            ("name", org.name),
            ("state", state.to_owned()),
            ("quota", quota),
            ("spaces", spaces),
            ("domains", domains),
            ("created", text(&whole, "/created_at")),
        ],
    )
}

pub(super) async fn space(session: &Session, name: &str) -> Result<(), CliError> {
    let org = targeted(session)?;
    let space = session.space_named(&org, name).await?;
    let whole: Value = session.client()?.get(&format!("/v3/spaces/{}", space.guid)).await?;
    if session.printer.wants_json() {
        return session.printer.json(&whole);
    }
    let by_space = [("space_guids", space.guid.as_str()), ("per_page", "5000")];
    let apps = names(session, &query("/v3/apps", &by_space)).await?;
    let services = names(session, &query("/v3/service_instances", &by_space)).await?;
    let groups = names(session, &format!("/v3/spaces/{}/running_security_groups", space.guid)).await?;
    let quota = quota(session, &whole, "/v3/space_quotas").await?;
    facts(
        session,
        vec![
            ("name", space.name),
            ("org", org.name),
            ("quota", quota),
            ("apps", apps),
            ("services", services),
            ("security groups", groups),
            ("created", text(&whole, "/created_at")),
        ],
    )
}

async fn rename(session: &Session, path: &str, thing: &NamedResource, new: &str, kind: &str) -> Result<(), CliError> {
    let body = Body::Json(json!({ "name": new }));
    session.client()?.send(Method::PATCH, &format!("{path}/{}", thing.guid), body).await?;
    session.file.update(|stored| {
        for named in [&mut stored.org, &mut stored.space].into_iter().flatten() {
            if named.guid == thing.guid {
                new.clone_into(&mut named.name);
            }
        }
    })?;
    session.printer.say(&format!("{kind} '{}' is now called '{new}'.", thing.name));
    Ok(())
}

pub(super) async fn rename_org(session: &Session, args: RenameThingArgs) -> Result<(), CliError> {
    let org = session.org_named(&args.name).await?;
    rename(session, "/v3/organizations", &org, &args.new, "Org").await
}

pub(super) async fn rename_space(session: &Session, args: RenameThingArgs) -> Result<(), CliError> {
    let space = session.space_named(&targeted(session)?, &args.name).await?;
    rename(session, "/v3/spaces", &space, &args.new, "Space").await
}

/// Deletes a place with all in it; a target that is gone is forgotten.
async fn remove(session: &Session, path: &str, thing: &NamedResource, kind: &str) -> Result<(), CliError> {
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("{path}/{}", thing.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.file.update(|stored| {
        if stored.org.as_ref().is_some_and(|org| org.guid == thing.guid) {
            (stored.org, stored.space) = (None, None);
        }
        if stored.space.as_ref().is_some_and(|space| space.guid == thing.guid) {
            stored.space = None;
        }
    })?;
    session.printer.say(&format!("{kind} '{}' is deleted.", thing.name));
    Ok(())
}

pub(super) async fn delete_org(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(org) = gone(session, session.org_named(&args.name).await)? else { return Ok(()) };
    let client = session.client()?;
    let spaces = client.list(&query("/v3/spaces", &[("organization_guids", &org.guid), ("per_page", "5000")])).await?;
    let what = count(spaces.len(), "space");
    session
        .confirm(args.force, &format!("This deletes the org '{}' with {what} and everything in them.", org.name))
        .await?;
    remove(session, "/v3/organizations", &org, "Org").await
}

pub(super) async fn delete_space(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let org = targeted(session)?;
    let Some(space) = gone(session, session.space_named(&org, &args.name).await)? else { return Ok(()) };
    let apps =
        session.client()?.list(&query("/v3/apps", &[("space_guids", &space.guid), ("per_page", "5000")])).await?;
    let what = count(apps.len(), "app");
    session
        .confirm(
            args.force,
            &format!("This deletes the space '{}' with {what}, all services and all routes.", space.name),
        )
        .await?;
    remove(session, "/v3/spaces", &space, "Space").await
}
