//! Changing and scaling processes.

use serde_json::{Value, json};
use slipway_api_types::views::CheckView;
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::deployments::Disturbance;
use super::lifecycle::{demands, finish, lock, record};
use super::metadata::MetadataChange;
use super::{DomainError, DomainResult, apps, deployments, quota, sidecars};
use crate::config::Limits;
use crate::context::Context;
use crate::store::apps::AppRow;
use crate::store::deployments::processes_with_interim_tx;
use crate::store::instances::instance_restart_tx;
use crate::store::processes::{ProcessRow, process_update_tx, processes_of_app_tx};
use crate::store::sidecars::sidecars_of_app_tx;
use crate::values::InstanceCount;

/// Most memory or disk that is understood, MiB.
const MAX_MB: u64 = 2_147_483_647;
/// Longest command, characters.
const MAX_COMMAND: usize = 4096;

/// Refuses memory with which no cell starts a program.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub fn check_memory(name: &str, mb: i64) -> DomainResult<()> {
    check_size(name, mb, LEAST_MEMORY_MB, "with less no program starts")
}

/// Refuses a disk on which a program has no room beside the smallest droplet.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub fn check_disk(name: &str, mb: i64) -> DomainResult<()> {
    check_size(name, mb, LEAST_DISK_MB, "with less no program can write a file")
}

fn check_size(name: &str, mb: i64, least: u64, reason: &str) -> DomainResult<()> {
    let refused = |text: String| Err(DomainError::invalid(text));
    match u64::try_from(mb) {
        Ok(given) if (1..least).contains(&given) => {
            refused(format!("{name} must be at least {least} MiB, not {given} MiB: {reason}"))
        }
        Ok(1..=MAX_MB) => Ok(()),
        Ok(1..) => refused(format!("{name} in mb must be at most {MAX_MB}, not {mb}")),
        // In Cloud Foundry's words.
        Ok(0) | Err(_) => refused(format!("{name} in mb must be greater than 0, not {mb}")),
    }
}

/// How much of a process is wanted; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// How many.
    pub instances: Option<i64>,
    /// MiB each.
    pub memory_mb: Option<i64>,
    /// MiB each.
    pub disk_mb: Option<i64>,
    /// Bytes per second each, -1 = no limit.
    pub log_rate: Option<i64>,
}

impl Scale {
    /// Writes it into a process.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] naming the figure.
    pub fn apply(&self, process: &mut ProcessRow) -> DomainResult<()> {
        if let Some(instances) = self.instances {
            process.instances = InstanceCount::new(instances).ok_or_else(|| {
                DomainError::invalid(format!("Instances must be between 0 and {}, not {instances}", InstanceCount::MAX))
            })?;
        }
        if let Some(memory) = self.memory_mb {
            check_memory("Memory", memory)?;
            process.memory_in_mb = memory;
        }
        if let Some(disk) = self.disk_mb {
            check_disk("Disk", disk)?;
            process.disk_in_mb = disk;
        }
        process.memory_chosen |= self.memory_mb.is_some();
        if let Some(rate) = self.log_rate {
            if rate < -1 {
                return Err(DomainError::invalid(format!(
                    "Log rate limit in bytes per second must be greater than or equal to -1, not {rate}"
                )));
            }
            process.log_rate_limit = rate;
        }
        Ok(())
    }
}

/// A change of a process; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct ProcessUpdate {
    /// `Some(None)` = the droplet's.
    pub command: Option<Option<String>>,
    /// Liveness.
    pub health: Option<CheckView>,
    /// Readiness.
    pub readiness: Option<CheckView>,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

impl ProcessUpdate {
    /// Writes it into a process. What runs goes on until its next start.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] naming the field.
    pub fn apply(&self, process: &mut ProcessRow) -> DomainResult<()> {
        if let Some(command) = &self.command {
            if command.as_ref().is_some_and(|command| command.chars().count() > MAX_COMMAND || command.contains('\0')) {
                return Err(DomainError::invalid(format!(
                    "Command must be at most {MAX_COMMAND} characters, without NUL"
                )));
            }
            process.command = command.clone();
        }
        if let Some(check) = &self.health {
            process.health_check = checked("Health check", check, true)?;
        }
        if let Some(check) = &self.readiness {
            process.readiness_health_check = checked("Readiness health check", check, false)?;
        }
        apps::merge(&mut process.labels, &self.metadata.labels);
        apps::merge(&mut process.annotations, &self.metadata.annotations);
        Ok(())
    }
}

fn checked(name: &str, check: &CheckView, with_timeout: bool) -> DomainResult<Value> {
    if !matches!(check.kind.as_str(), "port" | "http" | "process") {
        return Err(DomainError::invalid(format!(
            "{name} type must be \"port\", \"process\", or \"http\", not {:?}",
            check.kind
        )));
    }
    let endpoint = check.data.endpoint.as_deref();
    if let Some(endpoint) = endpoint
        && (!endpoint.starts_with('/') || endpoint.len() > 1024 || endpoint.chars().any(char::is_whitespace))
    {
        return Err(DomainError::invalid(format!(
            "{name} endpoint must be a valid URI path such as /healthy, not {endpoint:?}"
        )));
    }
    let zero = [check.data.timeout, check.data.invocation_timeout, check.data.interval].contains(&Some(0));
    if zero {
        return Err(DomainError::invalid(format!("{name} timeouts and intervals must be greater than 0 seconds")));
    }
    let mut data = json!({
        "invocation_timeout": check.data.invocation_timeout,
        "interval": check.data.interval,
    });
    if with_timeout {
        data["timeout"] = check.data.timeout.into();
    }
    if check.kind == "http" {
        data["endpoint"] = endpoint.unwrap_or("/").into();
    }
    Ok(json!({ "type": check.kind, "data": data }))
}

/// Checks all processes of an app against the quotas and the cells, and writes the ones that were changed.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub async fn save_tx(
    limits: &Limits,
    tx: &mut PgConnection,
    app: &AppRow,
    all: &[ProcessRow],
    changed: &[Uuid],
) -> DomainResult<()> {
    quota::check(limits, tx, app.space_guid, app.guid, &demands(all), app.is_started()).await?;
    let changed_rows: Vec<&ProcessRow> = all.iter().filter(|process| changed.contains(&process.guid)).collect();
    sidecars::check_room(&sidecars_of_app_tx(tx, app.guid).await?, &changed_rows)?;
    for process in changed_rows {
        process_update_tx(tx, process).await?;
    }
    Ok(())
}

/// Scales one process. Instances are wanted at once; memory and disk from the next start on.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures, `Process not found`.
pub async fn scale(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    process: Uuid,
    scale: Scale,
) -> DomainResult<ProcessRow> {
    let request = json!({
        "instances": scale.instances, "memory_in_mb": scale.memory_mb, "disk_in_mb": scale.disk_mb,
        "log_rate_limit_in_bytes_per_second": scale.log_rate,
    });
    change(context, actor, app, process, ProcessChange::Scale(scale), request).await
}

/// Changes one process.
///
/// # Errors
/// [`DomainError::Invalid`] naming the field, `Process not found`.
pub async fn update(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    process: Uuid,
    update: ProcessUpdate,
) -> DomainResult<ProcessRow> {
    // A command may hold a secret; an event does not.
    let request =
        json!({ "health_check": update.health, "command": update.command.as_ref().map(|_| "[PRIVATE DATA HIDDEN]") });
    change(context, actor, app, process, ProcessChange::Update(Box::new(update)), request).await
}

enum ProcessChange {
    Scale(Scale),
    Update(Box<ProcessUpdate>),
}

impl ProcessChange {
    fn apply(&self, process: &mut ProcessRow) -> DomainResult<()> {
        match self {
            Self::Scale(scale) => scale.apply(process),
            Self::Update(update) => update.apply(process),
        }
    }

    fn disturbance(&self) -> Disturbance {
        match self {
            Self::Scale(_) => Disturbance::Scale,
            Self::Update(_) => Disturbance::Update,
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Scale(_) => "audit.app.process.scale",
            Self::Update(_) => "audit.app.process.update",
        }
    }
}

async fn change(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    process: Uuid,
    change: ProcessChange,
    request: Value,
) -> DomainResult<ProcessRow> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, app).await?;
    let rolling = deployments::rolling_types(&mut tx, app.guid).await?;
    let mut all = match rolling.is_empty() {
        true => processes_of_app_tx(&mut tx, app.guid).await?,
        false => processes_with_interim_tx(&mut tx, app.guid).await?,
    };
    let found = all.iter().find(|row| row.guid == process).ok_or(DomainError::NotFound("Process"))?;
    deployments::refuse_change(&rolling, &found.kind, change.disturbance())?;
    let mut row = found.clone();
    change.apply(&mut row)?;
    let changed = match &change {
        ProcessChange::Scale(scale) if rolling.contains(&row.kind) => {
            deployments::rescale_tx(&context.config.limits, &mut tx, &app, &row.kind, scale).await?
        }
        _ => {
            all.retain(|one| one.deployment_guid.is_none());
            for one in all.iter_mut().filter(|one| one.guid == process) {
                one.clone_from(&row);
            }
            save_tx(&context.config.limits, &mut tx, &app, &all, &[process]).await?;
            vec![row.clone()]
        }
    };
    let data = json!({ "process_guid": process, "process_type": row.kind, "request": request });
    record(&mut tx, change.event(), actor, &app, data).await?;
    finish(context, tx, &app, &changed).await?;
    Ok(row)
}

/// Asks the cell to replace one running instance.
///
/// # Errors
/// `Instance not found`.
pub async fn restart_instance(
    context: &Context,
    actor: &AuditSubject,
    app: Uuid,
    process: &ProcessRow,
    index: i32,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, app).await?;
    let data = json!({ "process_guid": process.guid, "process_type": process.kind, "process_index": index });
    record(&mut tx, "audit.app.process.terminate_instance", actor, &app, data).await?;
    // Dropped without a commit, the transaction takes the event back.
    instance_restart_tx(&mut tx, process.guid, index).await?.ok_or(DomainError::NotFound("Instance"))?;
    tx.commit().await?;
    Ok(())
}
