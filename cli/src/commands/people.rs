//! Users, their passwords and their roles.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::account::asked;
use super::names::gone;
use super::{Session, text};
use crate::args::{CreateUserArgs, DeleteNamedArgs, RoleArgs, UserRole};
use crate::client::views::NamedResource;
use crate::client::{Body, ClientError, identity, query};
use crate::error::{CliError, Target};

pub(super) async fn passwd(session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    let (name, guid) = identity(&session.settings.access_token.0);
    let guid = guid.ok_or_else(|| CliError::Usage {
        message: "You are logged in as a client and not as a user; a client has no password to change.".to_owned(),
        hint: "Log in as a user with `slipway login`.".to_owned(),
    })?;
    let variable = |name| session.environment.variable(name).map(str::to_owned);
    let old = match variable("SLIPWAY_PASSWORD") {
        Some(old) => old,
        None => asked(
            "The current password",
            "SLIPWAY_PASSWORD",
            session.environment.ask(true, "Current password: ").await,
        )?,
    };
    let new = new_password(session).await?;
    let body = Body::Json(json!({ "oldPassword": old, "password": new }));
    client.accounts(Method::PUT, &format!("/Users/{guid}/password"), body).await?;
    session.printer.say(&format!("The password of '{}' is changed.", name.unwrap_or_default()));
    Ok(())
}

/// A new password: from its variable, else typed twice, else the next line of what is piped in.
async fn new_password(session: &Session) -> Result<String, CliError> {
    if let Some(given) = session.environment.variable("SLIPWAY_NEW_PASSWORD") {
        return Ok(given.to_owned());
    }
    let new = asked("The new password", "SLIPWAY_NEW_PASSWORD", session.environment.ask(true, "New password: ").await)?;
    if !session.environment.ask.is_typed() {
        return Ok(new);
    }
    let again =
        asked("The new password", "SLIPWAY_NEW_PASSWORD", session.environment.ask(true, "New password again: ").await)?;
    if new == again {
        return Ok(new);
    }
    Err(CliError::Usage {
        message: "The two passwords are not the same; nothing was done.".to_owned(),
        hint: "Repeat the command.".to_owned(),
    })
}

pub(super) async fn users(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/users?per_page=5000").await?;
    let row = |user: &Value| {
        let name = text(user, "/username");
        // An account without a name is a client of programs.
        let name = if name.is_empty() { text(user, "/presentation_name") } else { name };
        vec![name, text(user, "/origin"), text(user, "/created_at")]
    };
    session.show(list, &["name", "origin", "created"], row, "There are no users that you can see.")
}

pub(super) async fn create(session: &Session, args: CreateUserArgs) -> Result<(), CliError> {
    let client = session.client()?;
    let mut account = json!({ "userName": args.name, "emails": [{ "value": args.name, "primary": true }] });
    match (&args.origin, args.password) {
        (Some(origin), _) if origin != "uaa" => account["origin"] = origin.as_str().into(),
        (_, Some(password)) => account["password"] = password.into(),
        _ => account["password"] = new_password(session).await?.into(),
    }
    let made: Value = client.accounts(Method::POST, "/Users", Body::Json(account)).await?.json()?;
    let body = json!({ "guid": text(&made, "/id") });
    match client.send(Method::POST, "/v3/users", Body::Json(body)).await {
        // The platform took it over by itself.
        Err(error) if error.says("already exists") => {}
        other => drop(other?),
    }
    session.printer.say(&format!(
        "User '{0}' is made. Give it a role: `slipway set-role {0} space-developer ORG/SPACE`",
        args.name
    ));
    Ok(())
}

/// The user with a name.
async fn find(session: &Session, name: &str, origin: Option<&str>) -> Result<Value, CliError> {
    let mut parameters = vec![("usernames", name)];
    parameters.extend(origin.map(|origin| ("origins", origin)));
    let found = session.client()?.list(&query("/v3/users", &parameters)).await?;
    match found.as_slice() {
        [] => Err(CliError::Missing { kind: "User", name: name.to_owned(), place: String::new() }),
        [one] => Ok(one.clone()),
        several => {
            let origins: Vec<String> = several.iter().map(|user| text(user, "/origin")).collect();
            Err(CliError::Usage {
                message: format!("There are several users '{name}', of the origins {}.", origins.join(", ")),
                hint: "Say which one with --origin.".to_owned(),
            })
        }
    }
}

pub(super) async fn delete(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(user) = gone(session, find(session, &args.name, None).await)? else { return Ok(()) };
    session.confirm(args.force, &format!("This deletes the user '{}' with all roles.", args.name)).await?;
    let (client, guid) = (session.client()?, text(&user, "/guid"));
    let answer = client.send(Method::DELETE, &format!("/v3/users/{guid}"), Body::None).await?;
    client.finish(&answer).await?;
    match client.accounts(Method::DELETE, &format!("/Users/{guid}"), Body::None).await {
        // The account went with the user.
        Err(error) if error.has_status(404) => {}
        other => drop(other?),
    }
    session.printer.say(&format!("User '{}' is deleted.", args.name));
    Ok(())
}

pub(super) async fn roles(session: &Session) -> Result<(), CliError> {
    let (client, org) = (session.client()?, session.org()?);
    let by_org = [("organization_guids", org.guid.as_str()), ("per_page", "5000")];
    let spaces: BTreeMap<String, String> = client
        .list_as::<NamedResource>(&query("/v3/spaces", &by_org))
        .await?
        .into_iter()
        .map(|space| (space.guid, space.name))
        .collect();
    let mut list = client.list(&query("/v3/roles", &by_org)).await?;
    for group in spaces.keys().cloned().collect::<Vec<_>>().chunks(100) {
        list.extend(
            client.list(&query("/v3/roles", &[("space_guids", &group.join(",")), ("per_page", "5000")])).await?,
        );
    }
    let people: BTreeMap<String, String> = client
        .list("/v3/users?per_page=5000")
        .await?
        .iter()
        .map(|user| (text(user, "/guid"), text(user, "/presentation_name")))
        .collect();
    for role in &mut list {
        let user = text(role, "/relationships/user/data/guid");
        let space = text(role, "/relationships/space/data/guid");
        let place = match spaces.get(&space) {
            Some(space) => format!("{}/{space}", org.name),
            None => org.name.clone(),
        };
        role["user_name"] = people.get(&user).cloned().unwrap_or(user).into();
        role["place"] = place.into();
    }
    list.sort_by_key(|role| (text(role, "/user_name"), text(role, "/place"), text(role, "/type")));
    let row =
        |role: &Value| vec![text(role, "/user_name"), UserRole::shown(&text(role, "/type")), text(role, "/place")];
    session.show(list, &["user", "role", "where"], row, "Nobody has a role there.")
}

/// Where a role is, and how that is written: member of the request, guid, name.
async fn place(session: &Session, args: &RoleArgs) -> Result<(String, Option<String>, String), CliError> {
    let (org, space) = session.place(args.at.as_deref()).await?;
    if !args.role.is_of_space() {
        return Ok((org.guid, None, format!("org '{}'", org.name)));
    }
    let space = space.ok_or(CliError::NoTarget(Target::Space))?;
    Ok((org.guid, Some(space.guid), format!("space '{}/{}'", org.name, space.name)))
}

pub(super) async fn set_role(session: &Session, args: RoleArgs) -> Result<(), CliError> {
    let (org, space, written) = place(session, &args).await?;
    let client = session.client()?;
    let mut user = json!({ "username": args.user });
    if let Some(origin) = &args.origin {
        user["origin"] = origin.as_str().into();
    }
    let unknown = |error: ClientError| match error.says("No user exists with the username") {
        true => CliError::Missing { kind: "User", name: args.user.clone(), place: String::new() },
        false => error.into(),
    };
    let role = |kind: &str, place: &str, guid: &str| {
        let mut body = json!({ "type": kind, "relationships": { "user": { "data": user } } });
        body["relationships"][place] = json!({ "data": { "guid": guid } });
        Body::Json(body)
    };
    if space.is_some() {
        // Who works in a space is in its org.
        match client.send(Method::POST, "/v3/roles", role("organization_user", "organization", &org)).await {
            // Is in it already, or the caller may not say so and it is needed no more.
            Err(error) if error.says("already has") || error.has_status(403) => {}
            other => drop(other.map_err(unknown)?),
        }
    }
    let body = match &space {
        Some(space) => role(args.role.word(), "space", space),
        None => role(args.role.word(), "organization", &org),
    };
    let shown = UserRole::shown(args.role.word());
    match client.send(Method::POST, "/v3/roles", body).await {
        Err(error) if error.says("already has") => {
            session.printer.say(&format!("'{}' is {shown} of {written} already; nothing was done.", args.user));
        }
        other => {
            other.map_err(unknown)?;
            session.printer.say(&format!("'{}' is {shown} of {written}.", args.user));
        }
    }
    Ok(())
}

pub(super) async fn unset_role(session: &Session, args: RoleArgs) -> Result<(), CliError> {
    let (org, space, written) = place(session, &args).await?;
    let user = find(session, &args.user, args.origin.as_deref()).await?;
    let (client, guid) = (session.client()?, text(&user, "/guid"));
    let place = match &space {
        Some(space) => ("space_guids", space.as_str()),
        None => ("organization_guids", org.as_str()),
    };
    let path = query("/v3/roles", &[("types", args.role.word()), ("user_guids", guid.as_str()), place]);
    let found = client.list(&path).await?;
    let shown = UserRole::shown(args.role.word());
    if found.is_empty() {
        session.printer.say(&format!("'{}' was not {shown} of {written}; nothing was done.", args.user));
        return Ok(());
    }
    for role in &found {
        let answer = client.send(Method::DELETE, &format!("/v3/roles/{}", text(role, "/guid")), Body::None).await?;
        client.finish(&answer).await?;
    }
    session.printer.say(&format!("'{}' is no longer {shown} of {written}.", args.user));
    Ok(())
}
