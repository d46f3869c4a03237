//! Starting, stopping and restarting apps, and giving them a droplet.

use serde_json::{Value, json};
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::compose::{self, Phase};
use super::quota::{self, Demand, DemandKind};
use super::{DomainError, DomainResult, deployments, revisions};
use crate::context::Context;
use crate::store::apps::{AppRow, app_lock_tx, app_update_tx};
use crate::store::change_log::ChangeKind;
use crate::store::droplets::{DropletRow, droplet_get_tx};
use crate::store::events::event_record_tx;
use crate::store::processes::{
    NewProcess, ProcessRow, process_desire_tx, process_insert_tx, process_update_tx, processes_of_app_tx,
};
use crate::store::revisions::processes_revision_tx;
use crate::store::specs::{app_place_tx, layers_tx};
use crate::values::InstanceCount;

/// The process type of every app.
const WEB: &str = "web";

/// What a developer asks of a whole app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run it.
    Start,
    /// Run nothing of it.
    Stop,
    /// Run it anew.
    Restart,
}

/// Does it; gives the app as it is then, and the version of the change unless it was so already.
///
/// # Errors
/// [`DomainError::Invalid`] without a droplet, beyond a quota, without a command or layer.
pub async fn act(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    action: Action,
) -> DomainResult<(AppRow, Option<Version>)> {
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, guid).await?;
    let processes = processes_of_app_tx(&mut tx, guid).await?;
    let already = match action {
        Action::Start => app.is_started() && processes.iter().any(|process| process.spec.is_some()),
        Action::Stop => !app.is_started() && processes.iter().all(|process| process.spec.is_none()),
        Action::Restart => false,
    };
    if already {
        return Ok((app, None));
    }
    if action != Action::Start {
        deployments::refuse_stop(&mut tx, guid).await?;
    }
    match action {
        Action::Stop => {
            for process in &processes {
                process_desire_tx(&mut tx, process.guid, None, process.version).await?;
            }
            app.state = "STOPPED".to_owned();
        }
        Action::Start | Action::Restart => {
            let revision = revisions::update_tx(context, &mut tx, actor, &app).await?;
            run(context, &mut tx, &app, &processes).await?;
            processes_revision_tx(&mut tx, guid, revision.map(|revision| revision.guid)).await?;
            app.state = "STARTED".to_owned();
        }
    }
    let app = app_update_tx(&mut tx, &app).await?;
    let kind = match action {
        Action::Start => "audit.app.start",
        Action::Stop => "audit.app.stop",
        Action::Restart => "audit.app.restart",
    };
    record(&mut tx, kind, actor, &app, Value::Null).await?;
    let version = finish(context, tx, &app, &processes).await?;
    Ok((app, Some(version)))
}

/// Composes the specs of all processes that can run.
///
/// # Errors
/// [`DomainError::Invalid`] without a droplet, beyond a quota, without a command or layer.
pub(super) async fn run(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppRow,
    processes: &[ProcessRow],
) -> DomainResult<()> {
    let droplet = match app.droplet_guid {
        Some(droplet) => droplet_get_tx(tx, droplet).await?,
        None => None,
    };
    let droplet = droplet.ok_or_else(|| DomainError::invalid("Assign a droplet before starting this app."))?;
    let processes = &settled(tx, processes, &droplet).await?[..];
    quota::check(&context.config.limits, tx, app.space_guid, app.guid, &demands(processes), true).await?;
    let facts = compose::app_facts(context, tx, app, Phase::Running).await?;
    let catalogue = layers_tx(tx).await?;
    for process in processes {
        let version = Uuid::new_v4();
        // A process that nobody runs may lack a command; it is composed once it is scaled up and started again.
        let spec = match process.instances == InstanceCount::ZERO && compose::command_of(process, &droplet).is_none() {
            true => None,
            false => Some(compose::process_spec(context, tx, &facts, &droplet, process, version, &catalogue).await?),
        };
        process_desire_tx(tx, process.guid, spec.as_ref().map(<[u8; 32]>::as_slice), version).await?;
    }
    Ok(())
}

/// The processes with `web` as the droplet means it, see [`web_instances`].
async fn settled(
    tx: &mut PgConnection,
    processes: &[ProcessRow],
    droplet: &DropletRow,
) -> DomainResult<Vec<ProcessRow>> {
    let mut processes = processes.to_vec();
    for process in processes.iter_mut().filter(|process| process.kind == WEB) {
        let instances = web_wanted(process, droplet);
        if instances != process.instances {
            process.instances = instances;
            process_update_tx(tx, process).await?;
        }
    }
    Ok(processes)
}

/// [`web_instances`] of this process with this droplet.
pub(super) fn web_wanted(process: &ProcessRow, droplet: &DropletRow) -> InstanceCount {
    web_instances(process.instances, compose::command_of(process, droplet).is_some(), droplet_of_others(droplet))
}

/// How many instances of `web` there are to be. A droplet that brings other process types and no `web` is one of workers: the
/// one instance that every app begins with is not meant, as on Heroku; Cloud Foundry starts it to see it crash. Who asked
/// for more is told that there is no command.
fn web_instances(now: InstanceCount, has_command: bool, of_others: bool) -> InstanceCount {
    if now == InstanceCount::ONE && !has_command && of_others { InstanceCount::ZERO } else { now }
}

/// Whether a droplet brings process types, and `web` is none of them.
fn droplet_of_others(droplet: &DropletRow) -> bool {
    droplet.process_types.as_object().is_some_and(|types| !types.is_empty() && !types.contains_key(WEB))
}

/// What the processes of an app ask for.
#[must_use]
pub fn demands(processes: &[ProcessRow]) -> Vec<Demand> {
    processes
        .iter()
        .map(|process| Demand {
            kind: DemandKind::Process,
            what: format!("The process {:?}", process.kind),
            instances: process.instances.get().into(),
            memory_mb: process.memory_in_mb,
            disk_mb: process.disk_in_mb,
            log_rate: process.log_rate_limit,
        })
        .collect()
}

/// Makes a droplet the app's current one, and makes the process types it brings. What runs goes on until the next
/// start.
///
/// # Errors
/// [`DomainError::Invalid`] when the droplet is not there, not this app's, or not staged.
pub async fn assign_droplet(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    droplet: Uuid,
) -> DomainResult<AppRow> {
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, guid).await?;
    deployments::refuse_droplet(&mut tx, guid).await?;
    let row = droplet_get_tx(&mut tx, droplet).await?.filter(|row| row.app_guid == app.guid);
    let row = row.ok_or_else(|| {
        DomainError::invalid("Unable to assign current droplet. Ensure the droplet exists and belongs to this app.")
    })?;
    compose::droplet_facts(&row)?;
    make_process_types(context, &mut tx, actor, &app, &row).await?;
    let before = match app.droplet_guid {
        Some(before) => droplet_get_tx(&mut tx, before).await?,
        None => None,
    };
    if before.is_some_and(|before| droplet_of_others(&before)) && row.process_types.get(WEB).is_some() {
        // The first droplet with `web` after one of workers alone: the instance that was not meant then is now.
        let web = processes_of_app_tx(&mut tx, guid).await?.into_iter().find(|process| process.kind == WEB);
        if let Some(web) = web.filter(|web| web.instances == InstanceCount::ZERO) {
            process_update_tx(&mut tx, &ProcessRow { instances: InstanceCount::ONE, ..web }).await?;
        }
    }
    app.droplet_guid = Some(droplet);
    let app = app_update_tx(&mut tx, &app).await?;
    record(&mut tx, "audit.app.droplet.mapped", actor, &app, json!({ "droplet_guid": droplet })).await?;
    let processes = processes_of_app_tx(&mut tx, guid).await?;
    finish(context, tx, &app, &processes).await?;
    Ok(app)
}

/// Makes the process types that a droplet brings, as far as the app lacks them.
///
/// # Errors
/// When the database fails.
pub(super) async fn make_process_types(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    droplet: &DropletRow,
) -> DomainResult<()> {
    for kind in droplet.process_types.as_object().into_iter().flat_map(serde_json::Map::keys) {
        make_process(context, tx, actor, app, kind).await?;
    }
    Ok(())
}

/// Makes a process of this type with the platform's defaults, unless the app has one: `web` with one instance and a
/// port check, any other with none and a process check.
///
/// # Errors
/// When the database fails.
pub async fn make_process(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    kind: &str,
) -> DomainResult<()> {
    let web = kind == "web";
    let limits = &context.config.limits;
    let check = if web { "port" } else { "process" };
    let health = json!({ "type": check, "data": { "timeout": null, "invocation_timeout": null, "interval": null } });
    let process = NewProcess {
        app_guid: app.guid,
        kind,
        instances: if web { InstanceCount::ONE } else { InstanceCount::ZERO },
        memory_in_mb: i64::try_from(limits.default_memory_mb).unwrap_or(i64::MAX),
        disk_in_mb: i64::try_from(limits.default_disk_mb).unwrap_or(i64::MAX),
        health_check: &health,
    };
    let Some(guid) = process_insert_tx(tx, &process).await? else { return Ok(()) };
    record(tx, "audit.app.process.create", actor, app, json!({ "process_guid": guid, "process_type": kind })).await
}

/// Reads and locks an app that is not being deleted.
///
/// # Errors
/// [`DomainError::NotFound`].
pub async fn lock(tx: &mut PgConnection, guid: Uuid) -> DomainResult<AppRow> {
    app_lock_tx(tx, guid).await?.filter(|app| !app.deleting).ok_or(DomainError::NotFound("App"))
}

/// Records an event about an app; `data` (an object, or null) is added to it.
///
/// # Errors
/// When the database fails.
pub async fn record(
    tx: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    app: &AppRow,
    data: Value,
) -> DomainResult<()> {
    let event = event_of(tx, kind, actor, app, data).await?;
    event_record_tx(tx, &event).await?;
    Ok(())
}

/// An event about an app, to be recorded by others.
///
/// # Errors
/// When the database fails.
pub async fn app_event(
    context: &Context,
    kind: &'static str,
    actor: &AuditSubject,
    app: &AppRow,
    data: Value,
) -> DomainResult<NewEvent> {
    let mut connection = context.store.pool().acquire().await?;
    event_of(&mut connection, kind, actor, app, data).await
}

async fn event_of(
    connection: &mut PgConnection,
    kind: &'static str,
    actor: &AuditSubject,
    app: &AppRow,
    data: Value,
) -> DomainResult<NewEvent> {
    let place = app_place_tx(connection, app.guid).await?;
    let mut event = NewEvent::new(kind, actor.clone(), AuditSubject::new("app", app.guid, &app.name))
        .in_space(place.space_guid, place.org_guid);
    if let Value::Object(data) = data {
        event.data.extend(data);
    }
    Ok(event)
}

/// Records that somebody has seen or taken something of an app's that is not for everybody. Nothing changes, so nothing
/// is locked.
///
/// # Errors
/// When the database fails.
pub async fn note(
    context: &Context,
    kind: &'static str,
    actor: &AuditSubject,
    app: &AppRow,
    data: Value,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    record(&mut tx, kind, actor, app, data).await?;
    tx.commit().await?;
    Ok(())
}

/// Appends the changes of an app and its processes, commits, and wakes those who follow.
///
/// # Errors
/// When the database fails.
pub async fn finish(
    context: &Context,
    tx: sqlx::Transaction<'static, sqlx::Postgres>,
    app: &AppRow,
    processes: &[ProcessRow],
) -> DomainResult<Version> {
    let mut changes = vec![(ChangeKind::App, app.guid)];
    changes.extend(processes.iter().map(|process| (ChangeKind::Process, process.guid)));
    let version = context.store.commit(tx, &changes).await?;
    Ok(version)
}
