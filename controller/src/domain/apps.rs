//! Making, changing and deleting apps.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::compose::{Phase, app_facts, environment_place, open_object, seal_object};
use super::lifecycle::{finish, lock, make_process, record};
use super::metadata::MetadataChange;
use super::names::check_name;
use super::specs::AppFacts;
use super::specs::environment::{as_text, check_variable};
use super::{DomainError, DomainResult, builds};
use crate::context::Context;
use crate::domain::JobOutcome;
use crate::domain::constraints::refuse;
use crate::store::apps::{
    AppRow, NewApp, app_delete_tx, app_insert_tx, app_update_tx, builds_open_of_tx, routes_of_app_tx,
};
use crate::store::buildpacks::buildpacks_tx;
use crate::store::change_log::ChangeKind;
use crate::store::jobs::{ClaimedJob, NewJob, job_create_tx, job_open_for_tx};
use crate::store::processes::{process_desire_tx, processes_of_app_tx};
use crate::store::services::files::{binding_files_off_tx, binding_files_on_tx};
use crate::store::stacks::stack_state_tx;

/// The stack of an app whose developer named none.
pub const DEFAULT_STACK: &str = "debian12";
/// All variables of one app, as JSON: what a kernel hands a process at most, with room for the platform's own.
const MAX_ENVIRONMENT: usize = 128 * 1024;

/// Buildpacks and stack, as far as they were said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifecycleChoice {
    /// Empty = detect.
    pub buildpacks: Option<Vec<String>>,
    /// By name; `Some(None)` = the default.
    pub stack: Option<Option<String>>,
}

/// An app to be made.
#[derive(Clone, Debug)]
pub struct AppCreate {
    /// Unique in the space.
    pub name: String,
    /// Where.
    pub space: Uuid,
    /// How it is staged.
    pub lifecycle: LifecycleChoice,
    /// Variables.
    pub environment: Map<String, Value>,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

/// Makes an app with its `web` process, in the caller's transaction.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub async fn create_tx(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: AppCreate,
) -> DomainResult<AppRow> {
    check_name("Name", &app.name)?;
    let (buildpacks, stack) = checked_lifecycle(tx, app.lifecycle).await?;
    let stack = stack.flatten().unwrap_or_else(|| DEFAULT_STACK.to_owned());
    let guid = Uuid::new_v4();
    let mut environment = Map::new();
    merge_environment(&mut environment, app.environment)?;
    let sealed = match environment.is_empty() {
        true => None,
        false => Some(seal_object(context, &environment_place(guid), &environment)?),
    };
    let name = app.name.clone();
    let row = NewApp {
        guid,
        space_guid: app.space,
        name: &app.name,
        buildpacks: &buildpacks.unwrap_or_default(),
        stack: &stack,
        environment: sealed,
        labels: &app.metadata.labels,
        annotations: &app.metadata.annotations,
    };
    let row = app_insert_tx(tx, &row)
        .await
        .map_err(refuse("app_name_key", || format!("App with the name '{name}' already exists.")))?;
    record(tx, "audit.app.create", actor, &row, json!({ "request": { "name": row.name } })).await?;
    make_process(context, tx, actor, &row, "web").await?;
    Ok(row)
}

/// Makes an app.
///
/// # Errors
/// As [`create_tx`].
pub async fn create(context: &Context, actor: &AuditSubject, app: AppCreate) -> DomainResult<AppRow> {
    let mut tx = context.store.begin().await?;
    let row = create_tx(context, &mut tx, actor, app).await?;
    finish(context, tx, &row, &[]).await?;
    Ok(row)
}

/// A change of an app; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AppUpdate {
    /// Unique in the space.
    pub name: Option<String>,
    /// How it is staged.
    pub lifecycle: LifecycleChoice,
    /// Labels and annotations.
    pub metadata: MetadataChange,
    /// Feature `ssh`.
    pub ssh: Option<bool>,
    /// Feature `revisions`.
    pub revisions: Option<bool>,
    /// Features that give bindings as files.
    pub binding_files: Vec<BindingFiles>,
}

/// A feature that gives bindings as files, switched on or off. Effective at the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingFiles {
    /// Its name, one of `vcap::FEATURES`.
    pub feature: &'static str,
    /// On or off.
    pub enabled: bool,
}

/// Changes an app, in the caller's transaction.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub async fn update_tx(tx: &mut PgConnection, app: &mut AppRow, change: AppUpdate) -> DomainResult<()> {
    if let Some(name) = change.name {
        check_name("Name", &name)?;
        app.name = name;
    }
    let (buildpacks, stack) = checked_lifecycle(tx, change.lifecycle).await?;
    if let Some(buildpacks) = buildpacks {
        app.lifecycle_buildpacks = buildpacks;
    }
    if let Some(stack) = stack {
        app.lifecycle_stack = stack.unwrap_or_else(|| DEFAULT_STACK.to_owned());
    }
    merge(&mut app.labels, &change.metadata.labels);
    merge(&mut app.annotations, &change.metadata.annotations);
    app.ssh_enabled = change.ssh.unwrap_or(app.ssh_enabled);
    app.revisions_enabled = change.revisions.unwrap_or(app.revisions_enabled);
    set_binding_files(tx, app.guid, &change.binding_files).await?;
    let name = app.name.clone();
    *app = app_update_tx(tx, app)
        .await
        .map_err(refuse("app_name_key", || format!("App with the name '{name}' already exists.")))?;
    Ok(())
}

/// Changes an app.
///
/// # Errors
/// As [`update_tx`].
pub async fn update(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    change: AppUpdate,
    request: Value,
) -> DomainResult<AppRow> {
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, guid).await?;
    update_tx(&mut tx, &mut app, change).await?;
    record(&mut tx, "audit.app.update", actor, &app, json!({ "request": request })).await?;
    finish(context, tx, &app, &[]).await?;
    Ok(app)
}

async fn set_binding_files(tx: &mut PgConnection, app: Uuid, features: &[BindingFiles]) -> DomainResult<()> {
    // What is switched off makes room for what is switched on.
    for off in features.iter().filter(|feature| !feature.enabled) {
        binding_files_off_tx(tx, app, off.feature).await?;
    }
    for on in features.iter().filter(|feature| feature.enabled) {
        if binding_files_on_tx(tx, app, on.feature).await?.as_deref() != Some(on.feature) {
            return Err(DomainError::invalid(
                "'file-based-vcap-services' and 'service-binding-k8s' features cannot be enabled at the same time.",
            ));
        }
    }
    Ok(())
}

/// Merges a change in which null removes.
pub fn merge(target: &mut Value, change: &Value) {
    let (Some(target), Some(change)) = (target.as_object_mut(), change.as_object()) else { return };
    for (key, value) in change {
        match value {
            Value::Null => drop(target.shift_remove(key)),
            value => drop(target.insert(key.clone(), value.clone())),
        }
    }
}

async fn checked_lifecycle(
    tx: &mut PgConnection,
    choice: LifecycleChoice,
) -> DomainResult<(Option<Vec<String>>, Option<Option<String>>)> {
    if let Some(names) = choice.buildpacks.as_ref().filter(|names| !names.is_empty()) {
        builds::resolve(names, &buildpacks_tx(tx).await?)?;
    }
    if let Some(Some(stack)) = &choice.stack
        && stack != DEFAULT_STACK
        && stack_state_tx(tx, stack).await?.is_none()
    {
        return Err(DomainError::invalid(format!(
            "Stack must be an existing stack: {stack:?} is none; cf stacks lists them."
        )));
    }
    Ok((choice.buildpacks, choice.stack))
}

/// What builds and processes of an app find in their environment.
#[derive(Debug)]
pub(crate) struct ShownEnvironment {
    /// While it is built.
    pub(crate) staging: AppFacts,
    /// While it runs.
    pub(crate) running: AppFacts,
}

/// Reads an app's environment for somebody who may see it, and records that it was seen.
///
/// # Errors
/// When the database fails or a sealed value cannot be opened.
pub(crate) async fn show_environment(
    context: &Context,
    actor: &AuditSubject,
    app: &AppRow,
) -> DomainResult<ShownEnvironment> {
    let mut tx = context.store.begin().await?;
    let running = app_facts(context, &mut tx, app, Phase::Running).await?;
    let staging = app_facts(context, &mut tx, app, Phase::Staging).await?;
    record(&mut tx, "audit.app.environment.show", actor, app, json!({})).await?;
    tx.commit().await?;
    Ok(ShownEnvironment { staging, running })
}

/// Merges variables; null removes, anything but text becomes JSON text.
///
/// # Errors
/// [`DomainError::Invalid`] when a name belongs to the platform, or all become too large.
pub fn merge_environment(environment: &mut Map<String, Value>, change: Map<String, Value>) -> DomainResult<()> {
    for (name, value) in change {
        let text = as_text(&value);
        check_variable(&name, &text).map_err(|error| DomainError::invalid(error.to_string()))?;
        match value {
            Value::Null => drop(environment.shift_remove(&name)),
            _ => drop(environment.insert(name, Value::String(text))),
        }
    }
    let size: usize = environment.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len) + 2).sum();
    if size > MAX_ENVIRONMENT {
        return Err(DomainError::invalid(format!(
            "The environment of the app would hold {size} bytes; at most {MAX_ENVIRONMENT} are possible."
        )));
    }
    Ok(())
}

/// An app's own variables.
///
/// # Errors
/// When they cannot be opened.
pub fn environment_of(context: &Context, app: &AppRow) -> DomainResult<Map<String, Value>> {
    open_object(context, &environment_place(app.guid), app.environment.as_deref())
}

/// Changes an app's variables in the caller's transaction; gives all of them.
///
/// # Errors
/// As [`merge_environment`].
pub async fn set_environment_tx(
    context: &Context,
    tx: &mut PgConnection,
    app: &mut AppRow,
    change: Map<String, Value>,
) -> DomainResult<Map<String, Value>> {
    let mut environment = environment_of(context, app)?;
    merge_environment(&mut environment, change)?;
    app.environment = Some(seal_object(context, &environment_place(app.guid), &environment)?);
    *app = app_update_tx(tx, app).await?;
    Ok(environment)
}

/// Changes an app's variables; gives all of them. What runs sees them after its next start.
///
/// # Errors
/// As [`merge_environment`].
pub async fn set_environment(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    change: Map<String, Value>,
) -> DomainResult<Map<String, Value>> {
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, guid).await?;
    let environment = set_environment_tx(context, &mut tx, &mut app, change).await?;
    // Values are secrets: an event does not hold them.
    let data = json!({ "request": { "environment_variables": "[PRIVATE DATA HIDDEN]" } });
    record(&mut tx, "audit.app.update", actor, &app, data).await?;
    finish(context, tx, &app, &[]).await?;
    Ok(environment)
}

/// Begins to delete an app: it stops at once, and goes when nothing of it is on a cell any more. Gives the job.
///
/// # Errors
/// [`DomainError::NotFound`].
pub async fn delete(context: &Context, actor: &AuditSubject, guid: Uuid) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    if let Some(job) = job_open_for_tx(&mut tx, "app.delete", guid).await? {
        return Ok(job);
    }
    let mut app = lock(&mut tx, guid).await?;
    let processes = processes_of_app_tx(&mut tx, guid).await?;
    for process in &processes {
        process_desire_tx(&mut tx, process.guid, None, process.version).await?;
    }
    record(&mut tx, "audit.app.delete-request", actor, &app, json!({ "request": { "recursive": true } })).await?;
    app.state = "STOPPED".to_owned();
    app.deleting = true;
    app_update_tx(&mut tx, &app).await?;
    for build in builds_open_of_tx(&mut tx, guid).await? {
        crate::store::builds::build_end_tx(
            &mut tx,
            build,
            None,
            Some("StagingError - The app was deleted"),
            &json!({}),
        )
        .await?;
    }
    crate::store::apptasks::tasks_end_of_app_tx(&mut tx, guid).await?;
    let job = NewJob {
        operation: "app.delete",
        resource_type: "app",
        resource_guid: guid,
        payload: json!({}),
        created_by: actor.guid.clone(),
    };
    let job = job_create_tx(&mut tx, &job).await?;
    finish(context, tx, &app, &processes).await?;
    context.wake.jobs.wake();
    Ok(job)
}

/// Pause between looks at whether the cells are done.
const DELETE_PAUSE: Duration = Duration::from_millis(250);

/// The job `app.delete`: waits until the cells are done, then removes rows, routes' destinations and blobs.
///
/// # Errors
/// When the database or the object store fails.
pub async fn delete_job(context: Context, job: ClaimedJob) -> DomainResult<JobOutcome> {
    let Some(guid) = job.resource_guid else { return Ok(JobOutcome::done()) };
    if context.store.app_get(guid).await?.is_none() {
        return Ok(JobOutcome::done());
    }
    if !context.store.app_is_off_the_cells(guid).await? {
        return Ok(JobOutcome::Wait(DELETE_PAUSE, false));
    }
    let blobs = context.store.blobs_of_app(guid).await?;
    let mut tx = context.store.begin().await?;
    let mut changes = vec![(ChangeKind::App, guid)];
    changes.extend(routes_of_app_tx(&mut tx, guid).await?.into_iter().map(|route| (ChangeKind::Route, route)));
    app_delete_tx(&mut tx, guid).await?;
    context.store.commit(tx, &changes).await?;
    context.blobs.remove_unused(&blobs).await;
    Ok(JobOutcome::done())
}
