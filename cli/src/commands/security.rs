//! Security groups: what apps and builds may reach.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::names::gone;
use super::{Session, count, text};
use crate::args::{BindSecurityGroupArgs, DeleteNamedArgs, RulesArgs};
use crate::client::Body;
use crate::client::views::NamedResource;
use crate::error::{CliError, Target};

/// Where a group holds: everywhere, or in how many spaces.
fn holds(group: &Value, lifecycle: &str) -> String {
    if group.pointer(&format!("/globally_enabled/{lifecycle}")).and_then(Value::as_bool) == Some(true) {
        return "everywhere".to_owned();
    }
    let spaces = group.pointer(&format!("/relationships/{lifecycle}_spaces/data")).and_then(Value::as_array);
    match spaces.map_or(0, Vec::len) {
        0 => "nowhere".to_owned(),
        number => count(number, "space"),
    }
}

fn rules(group: &Value) -> Vec<Value> {
    group.get("rules").and_then(Value::as_array).cloned().unwrap_or_default()
}

pub(super) async fn groups(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/security_groups?per_page=5000").await?;
    let row = |group: &Value| {
        vec![text(group, "/name"), count(rules(group).len(), "rule"), holds(group, "running"), holds(group, "staging")]
    };
    session.show(list, &["name", "rules", "for apps", "for builds"], row, "There are no security groups.")
}

async fn find(session: &Session, name: &str) -> Result<NamedResource, CliError> {
    session.named("Security group", "/v3/security_groups", name, &[], "").await
}

pub(super) async fn group(session: &Session, name: &str) -> Result<(), CliError> {
    let found = find(session, name).await?;
    let whole: Value = session.client()?.get(&format!("/v3/security_groups/{}", found.guid)).await?;
    if session.printer.wants_json() {
        return session.printer.json(&whole);
    }
    let facts =
        [("name", found.name), ("for apps", holds(&whole, "running")), ("for builds", holds(&whole, "staging"))];
    let facts = facts.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    session.printer.table(&[], facts, "")?;
    let rows = rules(&whole)
        .iter()
        .map(|rule| ["/protocol", "/destination", "/ports", "/description"].map(|key| text(rule, key)).to_vec())
        .collect();
    session.printer.table(
        &["protocol", "destination", "ports", "description"],
        rows,
        "It has no rules, so it permits nothing.",
    )
}

/// The rules in a file: a list, or an object with the member `rules`.
fn read(session: &Session, file: &Path) -> Result<Value, CliError> {
    let path = session.environment.directory.join(file);
    let usage = |message: String| CliError::Usage {
        message,
        hint: r#"Write a list such as [{"protocol": "tcp", "destination": "10.0.0.0/8", "ports": "5432"}]."#.to_owned(),
    };
    let text =
        std::fs::read_to_string(&path).map_err(|error| usage(format!("Cannot read {}: {error}.", path.display())))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|error| usage(format!("{} is not JSON: {error}.", path.display())))?;
    let rules = value.get("rules").cloned().unwrap_or(value);
    if rules.is_array() { Ok(rules) } else { Err(usage(format!("{} holds no list of rules.", path.display()))) }
}

pub(super) async fn create(session: &Session, args: RulesArgs) -> Result<(), CliError> {
    let rules = read(session, &args.file)?;
    let body = Body::Json(json!({ "name": args.name, "rules": rules }));
    session.client()?.send(Method::POST, "/v3/security_groups", body).await?;
    session.printer.say(&format!(
        "Security group '{0}' is made and holds nowhere yet: `slipway bind-security-group {0} ORG/SPACE`",
        args.name
    ));
    Ok(())
}

pub(super) async fn update(session: &Session, args: RulesArgs) -> Result<(), CliError> {
    let rules = read(session, &args.file)?;
    let found = find(session, &args.name).await?;
    let path = format!("/v3/security_groups/{}", found.guid);
    session.client()?.send(Method::PATCH, &path, Body::Json(json!({ "rules": rules }))).await?;
    session.printer.say(&format!("Security group '{}' is changed; that holds for running apps at once.", found.name));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(found) = gone(session, find(session, &args.name).await)? else { return Ok(()) };
    session
        .confirm(args.force, &format!("This deletes the security group '{}', and what it permits ends.", found.name))
        .await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("/v3/security_groups/{}", found.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Security group '{}' is deleted.", found.name));
    Ok(())
}

pub(super) async fn bind(session: &Session, args: BindSecurityGroupArgs, bound: bool) -> Result<(), CliError> {
    let found = find(session, &args.name).await?;
    let (client, word) = (session.client()?, args.lifecycle.word());
    let path = format!("/v3/security_groups/{}", found.guid);
    let place = if args.everywhere {
        let body = json!({ "globally_enabled": { word: bound } });
        client.send(Method::PATCH, &path, Body::Json(body)).await?;
        "every space".to_owned()
    } else {
        let (org, space) = session.place(args.at.as_deref()).await?;
        let space = space.ok_or(CliError::NoTarget(Target::Space))?;
        let path = format!("{path}/relationships/{word}_spaces");
        if bound {
            client.send(Method::POST, &path, Body::Json(json!({ "data": [{ "guid": space.guid }] }))).await?;
        } else {
            client.send(Method::DELETE, &format!("{path}/{}", space.guid), Body::None).await?;
        }
        format!("space '{}/{}'", org.name, space.name)
    };
    let verb = if bound { "holds" } else { "no longer holds" };
    let what = if word == "staging" { "builds" } else { "apps and tasks" };
    session.printer.say(&format!("Security group '{}' {verb} for {what} of {place}.", found.name));
    Ok(())
}
