//! The beginning of a deployment.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{DeploymentCreate, DeploymentSnapshot, Lane, Options, Progress, ROLLED, Source, Strategy};
use crate::config::Limits;
use crate::context::Context;
use crate::domain::audit::AuditSubject;
use crate::domain::compose::{self, Phase, environment_place, seal_object};
use crate::domain::lifecycle::{self, demands, finish, lock, make_process_types, record, web_wanted};
use crate::domain::revisions::{self, Commands, Content};
use crate::domain::{DomainError, DomainResult, quota};
use crate::store::apps::{AppRow, app_update_tx};
use crate::store::deployments::{
    DeploymentRow, NewDeployment, deployment_active_tx, deployment_insert_tx, deployment_status_tx, interim_insert_tx,
    processes_with_interim_tx,
};
use crate::store::droplets::{DropletRow, droplet_get_tx};
use crate::store::processes::{ProcessRow, process_update_tx, processes_of_app_tx};
use crate::store::revisions::{RevisionRow, processes_revision_tx, revision_of_app_tx};
use crate::store::sidecars::{sidecar_put_tx, sidecars_delete_tx};
use crate::store::specs::layers_tx;
use crate::values::InstanceCount;

/// What a deployment brings, settled before anything of the app's processes changes.
struct Target {
    droplet: DropletRow,
    previous_droplet: Option<Uuid>,
    revision: Option<RevisionRow>,
    /// Of a rollback: start commands of the revision that the app goes back to.
    commands: Option<Commands>,
}

impl Target {
    fn command(&self, process: &ProcessRow) -> Option<String> {
        match &self.commands {
            None => process.command.clone(),
            Some(commands) => commands.get(&process.kind).cloned().flatten(),
        }
    }
}

/// Begins a deployment; an active one of the app is superseded, and what it has started goes with the old instances.
/// A stopped app is started instead, and its deployment is over at once.
///
/// # Errors
/// [`DomainError::Invalid`] without a usable droplet or revision, beyond a quota, without a command or layer.
pub async fn create(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    wish: DeploymentCreate,
) -> DomainResult<DeploymentRow> {
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, app).await?;
    let target = target(context, &mut tx, actor, &mut app, wish.source).await?;
    let (row, processes) = if app.is_started() {
        begin(context, &mut tx, &app, &target, &wish).await?
    } else {
        start(context, &mut tx, &mut app, &target, &wish).await?
    };
    let mut data = json!({
        "deployment_guid": row.guid, "droplet_guid": target.droplet.guid, "strategy": row.strategy,
        "revision_guid": row.revision_guid, "request": { "strategy": row.strategy, "options": row.options },
    });
    if target.commands.is_some() {
        data["type"] = "rollback".into();
    }
    record(&mut tx, "audit.app.deployment.create", actor, &app, data).await?;
    finish(context, tx, &app, &processes).await?;
    Ok(row)
}

/// Makes droplet, variables and sidecars the app's, and records the revision.
async fn target(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &mut AppRow,
    source: Source,
) -> DomainResult<Target> {
    let previous_droplet = app.droplet_guid;
    let rollback = match source {
        Source::Revision(guid) => Some(rollback(context, tx, app, guid).await?),
        Source::Current | Source::Droplet(_) => None,
    };
    let droplet = match (source, &rollback) {
        (_, Some((_, content))) => {
            let gone = || {
                DomainError::invalid("Unable to deploy this revision, the droplet for this revision no longer exists.")
            };
            let droplet = usable(tx, app, content.droplet.ok_or_else(gone)?).await?;
            droplet.filter(|droplet| droplet.state == "STAGED").ok_or_else(gone)?
        }
        (Source::Droplet(guid), None) => usable(tx, app, guid).await?.ok_or_else(|| {
            DomainError::invalid("Unable to assign current droplet. Ensure the droplet exists and belongs to this app.")
        })?,
        (_, None) => {
            let unset = || {
                DomainError::invalid(
                    "Invalid droplet. Please specify a droplet in the request or set a current droplet for the app.",
                )
            };
            usable(tx, app, app.droplet_guid.ok_or_else(unset)?).await?.ok_or_else(unset)?
        }
    };
    compose::droplet_facts(&droplet)?;
    make_process_types(context, tx, actor, app, &droplet).await?;
    app.droplet_guid = Some(droplet.guid);
    let (revision, commands) = match rollback {
        None => {
            *app = app_update_tx(tx, app).await?;
            (revisions::update_tx(context, tx, actor, app).await?, None)
        }
        Some((row, content)) => {
            app.environment = Some(seal_object(context, &environment_place(app.guid), &content.environment)?);
            *app = app_update_tx(tx, app).await?;
            sidecars_delete_tx(tx, app.guid).await?;
            for one in &content.sidecars {
                sidecar_put_tx(tx, app.guid, &one.name, &one.command, &one.process_types, one.memory_in_mb).await?;
            }
            (Some(revisions::rollback_tx(context, tx, actor, app, &row).await?), Some(content.commands))
        }
    };
    Ok(Target { droplet, previous_droplet, revision, commands })
}

async fn rollback(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppRow,
    guid: Uuid,
) -> DomainResult<(RevisionRow, Content)> {
    if !app.revisions_enabled {
        return Err(DomainError::invalid(
            "Cannot create deployment from a revision for an app without revisions enabled",
        ));
    }
    let row = revision_of_app_tx(tx, app.guid, guid).await?;
    let row = row.ok_or_else(|| DomainError::invalid("The revision does not exist"))?;
    let content = revisions::content(context, &row)?;
    Ok((row, content))
}

async fn usable(tx: &mut PgConnection, app: &AppRow, droplet: Uuid) -> DomainResult<Option<DropletRow>> {
    Ok(droplet_get_tx(tx, droplet).await?.filter(|row| row.app_guid == app.guid))
}

fn no_process() -> DomainError {
    DomainError::invalid(format!("The app has no process of type {ROLLED:?} to deploy."))
}

async fn start(
    context: &Context,
    tx: &mut PgConnection,
    app: &mut AppRow,
    target: &Target,
    wish: &DeploymentCreate,
) -> DomainResult<(DeploymentRow, Vec<ProcessRow>)> {
    let mut processes = processes_of_app_tx(tx, app.guid).await?;
    for process in &mut processes {
        process.command = target.command(process);
        if process.kind == ROLLED {
            wish.options.scale.apply(process)?;
        }
        process_update_tx(tx, process).await?;
    }
    let web = processes.iter().find(|process| process.kind == ROLLED).ok_or_else(no_process)?;
    let snapshot = DeploymentSnapshot {
        process: web.guid,
        wanted: web.instances,
        restore: web.instances,
        others: Vec::new(),
        abandoned: Vec::new(),
        revision_version: target.revision.as_ref().map(|revision| revision.version),
        rollback: target.commands.is_some(),
    };
    app.state = "STARTED".to_owned();
    *app = app_update_tx(tx, app).await?;
    lifecycle::run(context, tx, app, &processes).await?;
    processes_revision_tx(tx, app.guid, target.revision.as_ref().map(|revision| revision.guid)).await?;
    let status = ("FINALIZED", "DEPLOYED");
    let row = insert(tx, Uuid::new_v4(), app, target, wish, &snapshot, status, target.previous_droplet).await?;
    Ok((row, processes))
}

/// What an active deployment leaves to the one that supersedes it.
#[derive(Default)]
struct SupersededDeployment {
    lanes: BTreeMap<String, Lane>,
    abandoned: Vec<Uuid>,
    previous_droplet: Option<Uuid>,
}

impl SupersededDeployment {
    async fn end(tx: &mut PgConnection, app: Uuid) -> DomainResult<Option<Self>> {
        let Some(active) = deployment_active_tx(tx, app).await? else { return Ok(None) };
        let before = DeploymentSnapshot::of(&active)?;
        let approved = active.strategy != Strategy::Canary.as_str() || Progress::of(&active)?.approved;
        let mut abandoned = before.abandoned.clone();
        abandoned.extend((!approved).then_some(before.process));
        deployment_status_tx(tx, active.guid, "FINALIZED", "SUPERSEDED").await?;
        let lanes = before.lanes().into_iter().map(|lane| (lane.kind.clone(), lane)).collect();
        Ok(Some(Self { lanes, abandoned, previous_droplet: active.previous_droplet_guid }))
    }
}

async fn begin(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppRow,
    target: &Target,
    wish: &DeploymentCreate,
) -> DomainResult<(DeploymentRow, Vec<ProcessRow>)> {
    let mut processes = processes_with_interim_tx(tx, app.guid).await?;
    let guid = Uuid::new_v4();
    let superseded = SupersededDeployment::end(tx, app.guid).await?;
    // What a cancellation brings back is still what ran before all of them.
    let previous_droplet = superseded.as_ref().map_or(target.previous_droplet, |before| before.previous_droplet);
    let superseded = superseded.unwrap_or_default();
    let mut lanes = Vec::new();
    let mut new_ones = Vec::new();
    for own in processes.iter().filter(|process| process.deployment_guid.is_none()) {
        let before = superseded.lanes.get(&own.kind);
        let latest = before.and_then(|lane| processes.iter().find(|process| process.guid == lane.process));
        let mut new = latest.unwrap_or(own).clone();
        new.guid = Uuid::new_v4();
        new.deployment_guid = Some(guid);
        new.version = Uuid::new_v4();
        new.revision_guid = target.revision.as_ref().map(|revision| revision.guid);
        new.command = target.command(&new);
        new.instances = before.map_or(own.instances, |lane| lane.wanted);
        let restore = before.map_or(own.instances, |lane| lane.restore);
        if own.kind == ROLLED {
            new.instances = web_wanted(&new, &target.droplet);
            wish.options.scale.apply(&mut new)?;
        } else if new.instances == InstanceCount::ZERO && restore == InstanceCount::ZERO {
            // Nothing of it runs: it gets the new version when the deployment is done.
            continue;
        }
        lanes.push(Lane { kind: own.kind.clone(), process: new.guid, wanted: new.instances, restore });
        new_ones.push(new);
    }
    lanes.sort_by_key(|lane| lane.kind != ROLLED);
    new_ones.sort_by_key(|process| process.kind != ROLLED);
    if lanes.first().is_none_or(|lane| lane.kind != ROLLED) {
        return Err(no_process());
    }
    check_room(&context.config.limits, tx, app, &processes, &new_ones, wish.options.max_in_flight).await?;
    let web = lanes.remove(0);
    let mut snapshot = DeploymentSnapshot {
        process: web.process,
        wanted: web.wanted,
        restore: web.restore,
        others: lanes,
        abandoned: superseded.abandoned,
        revision_version: target.revision.as_ref().map(|revision| revision.version),
        rollback: target.commands.is_some(),
    };
    let first = match wish.strategy {
        Strategy::Rolling => snapshot.wanted,
        Strategy::Canary => {
            let (wanted, before) = (snapshot.wanted.get(), snapshot.restore.get());
            let step = Options::step(&wish.options.view(), 1, wanted, before);
            InstanceCount::at_most(step.new)
        }
    };
    for mut new in new_ones {
        let runs = new.instances > InstanceCount::ZERO;
        // The other types wait for web.
        new.instances = if new.kind == ROLLED { first.capped(wish.options.max_in_flight) } else { InstanceCount::ZERO };
        if compose(context, tx, app, &target.droplet, &mut new, runs).await? {
            interim_insert_tx(tx, &new).await?;
            processes.push(new);
        } else {
            snapshot.others.retain(|lane| lane.process != new.guid);
        }
    }
    let row = insert(tx, guid, app, target, wish, &snapshot, ("ACTIVE", "DEPLOYING"), previous_droplet).await?;
    Ok((row, processes))
}

/// The deployment must fit at its end, and the instances in flight beside what runs now: first those of `web`, then
/// those of the other types.
async fn check_room(
    limits: &Limits,
    tx: &mut PgConnection,
    app: &AppRow,
    now: &[ProcessRow],
    new: &[ProcessRow],
    in_flight: u32,
) -> DomainResult<()> {
    quota::check(limits, tx, app.space_guid, app.guid, &demands(new), true).await?;
    for web in [true, false] {
        let mut asked = demands(now);
        for process in new.iter().filter(|process| (process.kind == ROLLED) == web) {
            let instances = process.instances.capped(in_flight);
            asked.extend(demands(&[ProcessRow { instances, ..process.clone() }]));
        }
        quota::check(limits, tx, app.space_guid, app.guid, &asked, true).await?;
    }
    Ok(())
}

/// Composes the spec of a new process. One of another type than `web` that cannot be composed must not hold the
/// deployment: it goes on as it is until its next start, which tells the developer why. One that nobody `runs` may lack a
/// command, as `web` of an app of workers does. Gives whether the deployment has it.
async fn compose(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppRow,
    droplet: &DropletRow,
    new: &mut ProcessRow,
    runs: bool,
) -> DomainResult<bool> {
    if !runs && compose::command_of(new, droplet).is_none() {
        new.spec = None;
        return Ok(true);
    }
    let facts = compose::app_facts(context, tx, app, Phase::Running).await?;
    let catalogue = layers_tx(tx).await?;
    match compose::process_spec(context, tx, &facts, droplet, new, new.version, &catalogue).await {
        Ok(spec) => {
            new.spec = Some(spec.to_vec());
            Ok(true)
        }
        Err(error @ DomainError::Invalid(_)) if new.kind != ROLLED => {
            tracing::warn!(app = %app.guid, process = new.kind, %error, "a process keeps its old droplet");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
async fn insert(
    tx: &mut PgConnection,
    guid: Uuid,
    app: &AppRow,
    target: &Target,
    wish: &DeploymentCreate,
    snapshot: &DeploymentSnapshot,
    status: (&str, &str),
    previous_droplet: Option<Uuid>,
) -> DomainResult<DeploymentRow> {
    let new = NewDeployment {
        guid,
        app_guid: app.guid,
        strategy: wish.strategy.as_str(),
        status,
        options: &wish.options.view(),
        snapshot: &json!(snapshot),
        droplet_guid: target.droplet.guid,
        previous_droplet_guid: previous_droplet,
        revision_guid: target.revision.as_ref().map(|revision| revision.guid),
        step: &json!(Progress::new()),
        labels: &wish.metadata.labels,
        annotations: &wish.metadata.annotations,
    };
    Ok(deployment_insert_tx(tx, &new).await?)
}
