//! `start`, `stop`, `restart`, `restage`, `restart-app-instance`.

use reqwest::Method;
use serde_json::json;

use super::Session;
use crate::args::{InstanceArgs, RestartArgs, Strategy};
use crate::client::views::{App, Package};
use crate::client::{Body, query};
use crate::error::CliError;
use crate::push::{
    Before, Deployed, NewVersion, PushError, Rollout, WaitFor, active_deployment, assign_droplet, check, choose,
    deploy, processes, stage, urls, wait_until_running,
};
use crate::under_way::Unfinished;

async fn act(session: &Session, app: &App, action: &str) -> Result<(), CliError> {
    session.client()?.send(Method::POST, &format!("/v3/apps/{}/actions/{action}", app.guid), Body::None).await?;
    Ok(())
}

/// Refuses to restart or restage what a canary waits at: its version is what would take over, and wholly.
async fn refuse_waiting_canary(session: &Session, app: &App) -> Result<(), CliError> {
    let client = session.client()?;
    match active_deployment(client, app).await? {
        Some(waiting) if waiting.status.reason == "PAUSED" => {
            let (step, steps) = waiting.step();
            Err(CliError::Usage {
                message: format!(
                    "A canary of '{}' waits at step {step} of {steps}, and its version would take over from the old one. \
                     Nothing was changed.",
                    app.name
                ),
                hint: format!(
                    "`slipway cancel-deployment {0}` gives the new version up, `slipway continue-deployment {0}` brings it; \
                     then repeat this command.",
                    app.name
                ),
            })
        }
        _ => Ok(()),
    }
}

pub(super) async fn start(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let app = session.app_or_default(name).await?;
    if app.is_started() {
        session.printer.say(&format!("'{}' is started already.", app.name));
    } else {
        stage_if_needed(session, &app).await?;
        session.printer.say(&format!("Starting '{}' …", app.name));
        session.under_way.begin(Unfinished::Asking { app: app.clone(), first: false, sizes: None });
        act(session, &app, "start").await?;
    }
    settle(session, &app, &Before::default()).await
}

pub(super) async fn stop(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let app = session.app_or_default(name).await?;
    if !app.is_started() {
        session.printer.say(&format!("'{}' is stopped already.", app.name));
        return Ok(());
    }
    act(session, &app, "stop").await?;
    session.printer.say(&format!("'{0}' is stopped. `slipway start {0}` starts it again.", app.name));
    Ok(())
}

pub(super) async fn restart(session: &Session, args: RestartArgs) -> Result<(), CliError> {
    check(&args.how)?;
    let app = session.app_or_default(args.name).await?;
    refuse_waiting_canary(session, &app).await?;
    let before = Before::of(session.client()?, &app).await?;
    if !app.is_started() {
        stage_if_needed(session, &app).await?;
    }
    let strategy = choose(session, &app, &args.how, Strategy::Recreate, &before);
    let rollout =
        Rollout { strategy, how: &args.how, wanted: before.web_wanted(), wait_for: WaitFor::All, sizes: None };
    replace(session, &app, NewVersion::Current, &before, &rollout).await
}

pub(super) async fn restage(session: &Session, args: RestartArgs) -> Result<(), CliError> {
    check(&args.how)?;
    let client = session.client()?;
    let app = session.app_or_default(args.name).await?;
    refuse_waiting_canary(session, &app).await?;
    let path = query(
        "/v3/packages",
        &[("app_guids", &app.guid), ("states", "READY"), ("order_by", "-created_at"), ("per_page", "1"), ("page", "1")],
    );
    let package = newest(session, &path).await?.ok_or_else(|| PushError::NotStaged { app: app.name.clone() })?;
    session.printer.say(&format!("Building what was uploaded last for '{}', at {}.", app.name, package.created_at));
    let droplet = build(session, &app, &package.guid).await?;
    let before = Before::of(client, &app).await?;
    let strategy = choose(session, &app, &args.how, Strategy::Rolling, &before);
    let rollout =
        Rollout { strategy, how: &args.how, wanted: before.web_wanted(), wait_for: WaitFor::All, sizes: None };
    if strategy == Strategy::Recreate {
        assign_droplet(client, &app, &droplet).await?;
    }
    replace(session, &app, NewVersion::Droplet(&droplet), &before, &rollout).await
}

async fn build(session: &Session, app: &App, package: &str) -> Result<String, CliError> {
    session.under_way.begin(Unfinished::Building { app: app.clone(), package: package.to_owned(), first: false });
    let droplet = Box::pin(stage(session, app, package)).await;
    session.under_way.end();
    droplet
}

/// Brings a version to an app, by a deployment or by stopping it first, and prints where it answers.
pub(super) async fn replace(
    session: &Session,
    app: &App,
    bring: NewVersion<'_>,
    before: &Before,
    rollout: &Rollout<'_>,
) -> Result<(), CliError> {
    if rollout.strategy == Strategy::Recreate {
        session.printer.say(&format!("Restarting '{}' …", app.name));
        session.under_way.begin(Unfinished::Asking { app: app.clone(), first: false, sizes: None });
        act(session, app, "restart").await?;
        return settle(session, app, before).await;
    }
    let place = "instance by instance; the old version serves meanwhile";
    session.printer.say(&format!("Replacing '{}' {place} …", app.name));
    let runs = match bring {
        NewVersion::Current => "runs with its current settings",
        NewVersion::Droplet(_) => NEW_VERSION,
        NewVersion::Revision(_) => "runs that version again",
    };
    let done = deploy(session, app, bring, rollout).await;
    if done.is_err() {
        session.under_way.set_back(session).await;
    }
    session.under_way.done(app);
    deployed(session, app, done?, runs).await
}

/// What is said of an app to which something new was brought.
pub(super) const NEW_VERSION: &str = "runs the new version";

/// Prints how a deployment went; `runs` is said of an app that it has changed wholly.
pub(super) async fn deployed(session: &Session, app: &App, done: Deployed, runs: &str) -> Result<(), CliError> {
    let urls = urls(session.client()?, app).await?;
    let (text, step) = match done {
        Deployed::Wholly(_) => (format!("'{}' {runs}.", app.name), None),
        Deployed::AtStep(step, steps) => (at_step(&app.name, step, steps), Some((step, steps))),
    };
    if session.printer.wants_json() {
        let body = json!({ "app": app.name, "app_guid": app.guid, "urls": urls, "canary_step": step });
        return session.printer.json(&body);
    }
    session.printer.say(&text);
    urls.iter().try_for_each(|url| session.printer.data(url))
}

/// What a canary that waits means, and what next.
pub(super) fn at_step(app: &str, step: u64, steps: u64) -> String {
    format!(
        "The canary of '{app}' serves beside the old version (step {step} of {steps}). `slipway continue-deployment {app}` \
         goes on, `slipway cancel-deployment {app}` gives it up."
    )
}

/// Builds the newest package of a stopped app when nothing was built of it, as `cf start` does.
async fn stage_if_needed(session: &Session, app: &App) -> Result<(), CliError> {
    let client = session.client()?;
    let path = query(
        "/v3/packages",
        &[("app_guids", &app.guid), ("order_by", "-created_at"), ("per_page", "1"), ("page", "1")],
    );
    let Some(Package { guid: package, .. }) = newest(session, &path).await? else { return Ok(()) };
    let path =
        query(&format!("/v3/packages/{package}/droplets"), &[("states", "STAGED"), ("per_page", "1"), ("page", "1")]);
    if client.list(&path).await?.is_empty() {
        let droplet = build(session, app, &package).await?;
        assign_droplet(client, app, &droplet).await?;
    }
    Ok(())
}

/// The first package of a list.
async fn newest(session: &Session, path: &str) -> Result<Option<Package>, CliError> {
    let found: Vec<Package> = session.client()?.list_as(path).await?;
    Ok(found.into_iter().next())
}

/// Waits until it runs and prints where.
pub(super) async fn settle(session: &Session, app: &App, before: &Before) -> Result<(), CliError> {
    session.under_way.begin(Unfinished::Starting { app: app.clone(), first: false });
    wait_until_running(session, app, before, WaitFor::All).await?;
    session.under_way.end();
    let client = session.client()?;
    let (urls, processes) = (urls(client, app).await?, processes(client, app).await?);
    if session.printer.wants_json() {
        return session.printer.json(&json!({ "app": app.name, "app_guid": app.guid, "urls": urls }));
    }
    if processes.iter().all(|process| process.instances == 0) {
        let name = &app.name;
        session.printer.say(&format!(
            "'{name}' is started, but wants no instance, so nothing of it runs: `slipway scale {name} -i 1`"
        ));
        return Ok(());
    }
    session.printer.say(&format!("'{}' runs.", app.name));
    urls.iter().try_for_each(|url| session.printer.data(url))
}

pub(super) async fn restart_instance(session: &Session, args: InstanceArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let (client, kind) = (session.client()?, args.process);
    let path = format!("/v3/apps/{}/processes/{kind}/instances/{}", app.guid, args.index);
    match client.send(Method::DELETE, &path, Body::None).await {
        Err(error) if error.has_status(404) => {
            let all = processes(client, &app).await?;
            let of_app = format!(" in app '{}'", app.name);
            let Some(process) = all.iter().find(|process| process.kind == kind) else {
                return Err(CliError::Missing { kind: "Process", name: kind, place: of_app });
            };
            let there = match process.instances {
                0 => "none is wanted".to_owned(),
                1 => "there is only 0".to_owned(),
                count => format!("there are 0 to {}", count - 1),
            };
            let place = format!(" among those of process {kind}{of_app}: {there}");
            return Err(CliError::Missing { kind: "Instance", name: args.index.to_string(), place });
        }
        other => drop(other?),
    }
    session.printer.say(&format!(
        "Instance {} of '{name}' is being replaced. `slipway app {name}` shows how far it is.",
        args.index,
        name = app.name
    ));
    Ok(())
}
