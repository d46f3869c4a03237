//! Asking for tasks, and cancelling them.

use serde_json::json;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::compose::{self, Phase, store_spec};
use super::lifecycle::{lock, record};
use super::metadata::MetadataChange;
use super::names::check_name;
use super::processes::{check_disk, check_memory};
use super::quota::{self, Demand, DemandKind};
use super::specs::{self, TaskFacts};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::apps::app_lock_tx;
use crate::store::apptasks::{
    NewTask, TaskRow, group_is_assigned_tx, task_insert_tx, task_lock_tx, task_next_sequence_tx, task_state_tx,
};
use crate::store::change_log::ChangeKind;
use crate::store::droplets::droplet_get_tx;
use crate::store::processes::processes_of_app_tx;
use crate::store::specs::layers_tx;

/// A task to be made.
#[derive(Clone, Debug, Default)]
pub struct TaskCreate {
    /// What to run; needed without a template.
    pub command: Option<String>,
    /// A name; made up when absent.
    pub name: Option<String>,
    /// MiB.
    pub memory_mb: Option<i64>,
    /// MiB.
    pub disk_mb: Option<i64>,
    /// Bytes per second, -1 = no limit.
    pub log_rate: Option<i64>,
    /// Instead of the app's current one.
    pub droplet: Option<Uuid>,
    /// A process whose command and limits are taken.
    pub template: Option<Uuid>,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

/// Asks for a task.
///
/// # Errors
/// [`DomainError::Invalid`] without a droplet or command, or beyond a quota or any cell.
pub async fn create(context: &Context, actor: &AuditSubject, app: Uuid, wish: TaskCreate) -> DomainResult<TaskRow> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, app).await?;
    let droplet = match wish.droplet.or(app.droplet_guid) {
        Some(guid) => droplet_get_tx(&mut tx, guid).await?.filter(|droplet| droplet.app_guid == app.guid),
        None => None,
    };
    let droplet = droplet.ok_or_else(|| {
        DomainError::invalid("Task must have a droplet. Specify droplet or assign current droplet to app.")
    })?;
    let processes = processes_of_app_tx(&mut tx, app.guid).await?;
    let template = match wish.template {
        None => None,
        Some(guid) => Some(
            processes
                .iter()
                .find(|process| process.guid == guid)
                .ok_or_else(|| DomainError::invalid(format!("The template process {guid} is not one of this app.")))?,
        ),
    };
    let command = wish.command.or_else(|| template.and_then(|process| compose::command_of(process, &droplet)));
    let command = command.filter(|command| !command.trim().is_empty()).ok_or_else(|| {
        DomainError::invalid("Command can't be blank: give a command, or a template process that has one.")
    })?;
    let limits = &context.config.limits;
    let default = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let memory_mb = wish
        .memory_mb
        .or(template.map(|process| process.memory_in_mb))
        .unwrap_or_else(|| default(limits.default_memory_mb));
    let disk_mb =
        wish.disk_mb.or(template.map(|process| process.disk_in_mb)).unwrap_or_else(|| default(limits.default_disk_mb));
    check_memory("Memory", memory_mb)?;
    check_disk("Disk", disk_mb)?;
    let log_rate = wish.log_rate.or(template.map(|process| process.log_rate_limit)).unwrap_or(-1);
    let guid = Uuid::new_v4();
    let sequence_id = task_next_sequence_tx(&mut tx, app.guid).await?;
    let name = wish.name.unwrap_or_else(|| guid.simple().to_string().chars().take(8).collect());
    check_name("Name", &name)?;
    let demand = Demand {
        kind: DemandKind::Task,
        what: format!("The task {name:?}"),
        instances: 0,
        memory_mb,
        disk_mb,
        log_rate,
    };
    quota::check_extra(limits, &mut tx, app.space_guid, app.guid, demand, true).await?;
    let facts = compose::app_facts(context, &mut tx, &app, Phase::Running).await?;
    let task = TaskFacts {
        guid,
        name: name.clone(),
        command: command.clone(),
        memory_mb: memory_mb.unsigned_abs(),
        disk_mb: disk_mb.unsigned_abs(),
        log_rate,
    };
    let composed = specs::task(&facts, &compose::droplet_facts(&droplet)?, &task, &layers_tx(&mut tx).await?)?;
    store_spec(context, &mut tx, "task", &composed).await?;
    let new = NewTask {
        guid,
        app_guid: app.guid,
        droplet_guid: droplet.guid,
        sequence_id,
        name: &name,
        command: &command,
        spec: &composed.digest,
        memory_mb,
        disk_mb,
        log_rate,
        labels: &wish.metadata.labels,
        annotations: &wish.metadata.annotations,
    };
    let row = task_insert_tx(&mut tx, &new).await?;
    let data = json!({ "task_guid": guid, "request": { "name": name } });
    record(&mut tx, "audit.app.task.create", actor, &app, data).await?;
    context.store.commit(tx, &[(ChangeKind::Task, guid)]).await?;
    Ok(row)
}

/// Why a cancelled task failed, in Cloud Foundry's words: clients compare them.
pub const CANCELLED: &str = "task was cancelled";

/// Cancels a task: one that no cell has ends at once, another when its cell reports its end.
///
/// # Errors
/// [`DomainError::Invalid`] when it has ended.
pub async fn cancel(context: &Context, actor: &AuditSubject, task: Uuid) -> DomainResult<TaskRow> {
    let missing = DomainError::NotFound("Task");
    let Some(seen) = context.store.task_get(task).await? else { return Err(missing) };
    let mut tx = context.store.begin().await?;
    // The app first, as everywhere: whoever deletes the app holds it when it ends the tasks.
    let Some(app) = app_lock_tx(&mut tx, seen.app_guid).await? else { return Err(missing) };
    let Some(row) = task_lock_tx(&mut tx, task).await? else { return Err(missing) };
    let row = match row.state.as_str() {
        "CANCELING" => return Ok(row),
        "SUCCEEDED" | "FAILED" => {
            return Err(DomainError::invalid(format!("Task state is {} and therefore cannot be canceled", row.state)));
        }
        _ if group_is_assigned_tx(&mut tx, task).await? => task_state_tx(&mut tx, task, "CANCELING", None).await?,
        _ => task_state_tx(&mut tx, task, "FAILED", Some(CANCELLED)).await?,
    };
    record(&mut tx, "audit.app.task.cancel", actor, &app, json!({ "task_guid": task })).await?;
    context.store.commit(tx, &[(ChangeKind::Task, task)]).await?;
    Ok(row)
}
