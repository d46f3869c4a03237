//! What apps are built with: buildpacks, stacks, and what builds keep.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::names::gone;
use super::{Session, text};
use crate::args::{ClearCacheArgs, CreateBuildpackArgs, DeleteNamedArgs, UpdateBuildpackArgs};
use crate::client::Body;
use crate::client::views::NamedResource;
use crate::error::CliError;
use crate::push::Zip;

pub(super) async fn buildpacks(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/buildpacks?per_page=5000").await?;
    let row = |buildpack: &Value| {
        let or = |key: &str, other: &str| {
            let value = text(buildpack, &format!("/{key}"));
            if value.is_empty() { other.to_owned() } else { value }
        };
        let word = |key: &str, yes: &str, no: &str| {
            if buildpack.get(key).and_then(Value::as_bool) == Some(true) { yes.to_owned() } else { no.to_owned() }
        };
        let state = word("enabled", "", "disabled") + &word("locked", " locked", "");
        vec![
            text(buildpack, "/position"),
            text(buildpack, "/name"),
            or("stack", "any"),
            state.trim().to_owned(),
            or("filename", "built in"),
        ]
    };
    session.show(list, &["position", "name", "stack", "state", "file"], row, "There are no buildpacks.")
}

async fn find(session: &Session, name: &str) -> Result<NamedResource, CliError> {
    session.named("Buildpack", "/v3/buildpacks", name, &[], "").await
}

async fn upload(session: &Session, buildpack: &str, path: &Path) -> Result<(), CliError> {
    let zip = Zip::of(&session.environment.directory.join(path), &session.printer).await?;
    let client = session.client()?;
    let answer = zip.upload(client, &session.printer, &format!("/v3/buildpacks/{buildpack}/upload")).await?;
    client.finish(&answer).await
}

pub(super) async fn create(session: &Session, args: CreateBuildpackArgs) -> Result<(), CliError> {
    let client = session.client()?;
    crate::push::check_path(&session.environment.directory.join(&args.path))?;
    let mut body = json!({ "name": args.name, "enabled": !args.disable });
    if let Some(position) = args.settings.position {
        body["position"] = position.into();
    }
    if let Some(stack) = &args.settings.stack {
        body["stack"] = stack.as_str().into();
    }
    let made: NamedResource = client.send_json(Method::POST, "/v3/buildpacks", body).await?;
    if let Err(error) = upload(session, &made.guid, &args.path).await {
        // A buildpack without files is asked by every build, for nothing.
        let removed = async {
            let answer = client.send(Method::DELETE, &format!("/v3/buildpacks/{}", made.guid), Body::None).await?;
            client.finish(&answer).await
        };
        if removed.await.is_err() {
            session
                .printer
                .warn(&format!("buildpack '{0}' stays without files; `slipway delete-buildpack {0}`", args.name));
        }
        return Err(error);
    }
    session.printer.say(&format!("Buildpack '{0}' is there. Use it: `slipway push APP -b {0}`", args.name));
    Ok(())
}

pub(super) async fn update(session: &Session, args: UpdateBuildpackArgs) -> Result<(), CliError> {
    let found = find(session, &args.name).await?;
    let mut body = json!({});
    if let Some(position) = args.settings.position {
        body["position"] = position.into();
    }
    if let Some(stack) = &args.settings.stack {
        body["stack"] = stack.as_str().into();
    }
    if let Some(name) = &args.rename {
        body["name"] = name.as_str().into();
    }
    for (given, key, value) in [
        (args.enable, "enabled", true),
        (args.disable, "enabled", false),
        (args.lock, "locked", true),
        (args.unlock, "locked", false),
    ] {
        if given {
            body[key] = value.into();
        }
    }
    let changes = body.as_object().is_some_and(|map| !map.is_empty());
    if !changes && args.path.is_none() {
        session.printer.say(&format!("Nothing of buildpack '{}' is to be changed; nothing was done.", found.name));
        return Ok(());
    }
    if let Some(path) = &args.path {
        upload(session, &found.guid, path).await?;
    }
    if changes {
        let path = format!("/v3/buildpacks/{}", found.guid);
        session.client()?.send(Method::PATCH, &path, Body::Json(body)).await?;
    }
    session
        .printer
        .say(&format!("Buildpack '{}' is changed. It takes effect with the next build of an app.", found.name));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(found) = gone(session, find(session, &args.name).await)? else { return Ok(()) };
    session.confirm(args.force, &format!("This deletes the buildpack '{}'; apps that run stay.", found.name)).await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("/v3/buildpacks/{}", found.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Buildpack '{}' is deleted.", found.name));
    Ok(())
}

pub(super) async fn stacks(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/stacks").await?;
    let row = |stack: &Value| vec![text(stack, "/name"), text(stack, "/description")];
    session.show(list, &["name", "description"], row, "There are no stacks.")
}

pub(super) async fn clear_cache(session: &Session, args: ClearCacheArgs) -> Result<(), CliError> {
    let (path, whose) = if args.all {
        ("/v3/admin/actions/clear_buildpack_cache".to_owned(), "all apps".to_owned())
    } else {
        let app = session.app_or_default(args.name).await?;
        (format!("/v3/apps/{}/actions/clear_buildpack_cache", app.guid), format!("'{}'", app.name))
    };
    let client = session.client()?;
    let answer = client.send(Method::POST, &path, Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("The build cache of {whose} is empty; the next build makes everything anew."));
    Ok(())
}
