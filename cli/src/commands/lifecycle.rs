//! `start`, `stop`, `restart`, `restage`, `restart-app-instance`.

use reqwest::Method;

use super::Session;
use crate::args::InstanceArgs;
use crate::client::views::{App, Package};
use crate::client::{Body, query};
use crate::error::CliError;
use crate::push::{Before, Patience, PushError, assign_droplet, stage, urls, wait_until_running};

async fn act(session: &Session, app: &App, action: &str) -> Result<(), CliError> {
    session.client()?.send(Method::POST, &format!("/v3/apps/{}/actions/{action}", app.guid), Body::None).await?;
    Ok(())
}

pub(super) async fn start(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
    if !app.is_started() {
        stage_if_needed(session, &app).await?;
        session.printer.say(&format!("Starting '{}' …", app.name));
        act(session, &app, "start").await?;
    }
    settle(session, &app, &Before::default()).await
}

pub(super) async fn stop(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
    if app.is_started() {
        act(session, &app, "stop").await?;
    }
    session.printer.say(&format!("'{}' is stopped.", app.name));
    Ok(())
}

pub(super) async fn restart(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
    let before = Before::of(session.client()?, &app).await?;
    if !app.is_started() {
        stage_if_needed(session, &app).await?;
    }
    session.printer.say(&format!("Restarting '{}' …", app.name));
    act(session, &app, "restart").await?;
    settle(session, &app, &before).await
}

pub(super) async fn restage(session: &Session, name: &str) -> Result<(), CliError> {
    let client = session.client()?;
    let app = session.app(name).await?;
    let path = query(
        "/v3/packages",
        &[("app_guids", &app.guid), ("states", "READY"), ("order_by", "-created_at"), ("per_page", "1"), ("page", "1")],
    );
    let package = newest(session, &path).await?.ok_or_else(|| PushError::NotStaged { app: app.name.clone() })?;
    let droplet = Box::pin(stage(session, &app, &package)).await?;
    let before = Before::of(client, &app).await?;
    assign_droplet(client, &app, &droplet).await?;
    session.printer.say(&format!("Restarting '{}' …", app.name));
    act(session, &app, "restart").await?;
    settle(session, &app, &before).await
}

/// Builds the newest package of a stopped app when nothing was built of it, as `cf start` does.
async fn stage_if_needed(session: &Session, app: &App) -> Result<(), CliError> {
    let client = session.client()?;
    let path = query(
        "/v3/packages",
        &[("app_guids", &app.guid), ("order_by", "-created_at"), ("per_page", "1"), ("page", "1")],
    );
    let Some(package) = newest(session, &path).await? else { return Ok(()) };
    let path =
        query(&format!("/v3/packages/{package}/droplets"), &[("states", "STAGED"), ("per_page", "1"), ("page", "1")]);
    if client.list(&path).await?.is_empty() {
        let droplet = Box::pin(stage(session, app, &package)).await?;
        assign_droplet(client, app, &droplet).await?;
    }
    Ok(())
}

/// Guid of the first package of a list.
async fn newest(session: &Session, path: &str) -> Result<Option<String>, CliError> {
    let found: Vec<Package> = session.client()?.list_as(path).await?;
    Ok(found.into_iter().next().map(|package| package.guid))
}

/// Waits until it runs and prints where.
async fn settle(session: &Session, app: &App, before: &Before) -> Result<(), CliError> {
    wait_until_running(session, app, before, Patience::All).await?;
    let urls = urls(session.client()?, app).await?;
    if session.printer.wants_json() {
        return session.printer.json(&serde_json::json!({ "app": app.name, "app_guid": app.guid, "urls": urls }));
    }
    session.printer.say(&format!("'{}' runs.", app.name));
    urls.iter().try_for_each(|url| session.printer.data(url))
}

pub(super) async fn restart_instance(session: &Session, args: InstanceArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let path = format!("/v3/apps/{}/processes/{}/instances/{}", app.guid, args.process, args.index);
    session.client()?.send(Method::DELETE, &path, Body::None).await?;
    session.printer.say(&format!("Instance {} of '{}' is being replaced.", args.index, app.name));
    Ok(())
}
