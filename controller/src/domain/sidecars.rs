//! Sidecars: programs that run beside the command of a process, in the same instance. A change holds from the next start.

use sqlx::PgConnection;
use uuid::Uuid;

use super::lifecycle::{finish, lock};
use super::manifest::SidecarManifest;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::processes::{ProcessRow, processes_of_app_tx};
use crate::store::sidecars::{
    SidecarRow, sidecar_delete_tx, sidecar_insert_tx, sidecar_put_tx, sidecar_update_tx, sidecars_of_app_tx,
};

/// Most sidecars of one process: the log of an instance tells so many programs apart.
const MOST: usize = 15;
const MAX_NAME: usize = 255;
const MAX_COMMAND: usize = 4096;

/// A change of a sidecar, or one to be made; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SidecarChange {
    /// Unique in the app.
    pub name: Option<String>,
    /// What it runs.
    pub command: Option<String>,
    /// Beside these processes.
    pub process_types: Option<Vec<String>>,
    /// MiB of its process's memory that are meant for it; `Some(None)` = not said.
    pub memory_mb: Option<Option<i64>>,
}

/// Makes a sidecar.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub async fn create(context: &Context, app: Uuid, change: SidecarChange) -> DomainResult<SidecarRow> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, app).await?;
    let now = chrono::Utc::now();
    let row = SidecarRow {
        guid: Uuid::new_v4(),
        app_guid: app.guid,
        name: change.name.unwrap_or_default(),
        command: change.command.unwrap_or_default(),
        process_types: change.process_types.unwrap_or_default(),
        memory_in_mb: change.memory_mb.flatten(),
        origin: "user".to_owned(),
        created_at: now,
        updated_at: now,
    };
    check(&mut tx, &row).await?;
    let row = sidecar_insert_tx(&mut tx, &row).await.map_err(refuse("sidecar_name_key", || taken(&row.name)))?;
    finish(context, tx, &app, &[]).await?;
    Ok(row)
}

/// Changes a sidecar.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub async fn update(context: &Context, row: SidecarRow, change: SidecarChange) -> DomainResult<SidecarRow> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, row.app_guid).await?;
    // As it is now that nobody else changes it.
    let all = sidecars_of_app_tx(&mut tx, app.guid).await?;
    let mut row = all.into_iter().find(|one| one.guid == row.guid).ok_or(DomainError::NotFound("Sidecar"))?;
    row.name = change.name.unwrap_or(row.name);
    row.command = change.command.unwrap_or(row.command);
    row.process_types = change.process_types.unwrap_or(row.process_types);
    row.memory_in_mb = change.memory_mb.unwrap_or(row.memory_in_mb);
    check(&mut tx, &row).await?;
    let row = sidecar_update_tx(&mut tx, &row).await.map_err(refuse("sidecar_name_key", || taken(&row.name)))?;
    finish(context, tx, &app, &[]).await?;
    Ok(row)
}

/// Removes a sidecar.
///
/// # Errors
/// When the database fails.
pub async fn delete(context: &Context, row: &SidecarRow) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, row.app_guid).await?;
    sidecar_delete_tx(&mut tx, row.guid).await?;
    finish(context, tx, &app, &[]).await?;
    Ok(())
}

/// Writes a sidecar of a manifest, by its name.
///
/// # Errors
/// As [`create`].
pub async fn put_tx(tx: &mut PgConnection, app: Uuid, wish: &SidecarManifest) -> DomainResult<()> {
    let now = chrono::Utc::now();
    let known = sidecars_of_app_tx(tx, app).await?.into_iter().find(|one| one.name == wish.name);
    let row = SidecarRow {
        guid: known.map_or_else(Uuid::new_v4, |known| known.guid),
        app_guid: app,
        name: wish.name.clone(),
        command: wish.command.clone(),
        process_types: wish.process_types.clone(),
        memory_in_mb: wish.memory_mb,
        origin: "user".to_owned(),
        created_at: now,
        updated_at: now,
    };
    check(tx, &row).await?;
    sidecar_put_tx(tx, app, &row.name, &row.command, &row.process_types, row.memory_in_mb).await?;
    Ok(())
}

fn taken(name: &str) -> String {
    format!("Sidecar with name '{name}' already exists for given app")
}

async fn check(tx: &mut PgConnection, row: &SidecarRow) -> DomainResult<()> {
    refusal(row).map_or(Ok(()), |detail| Err(DomainError::invalid(detail)))?;
    let mut all = sidecars_of_app_tx(tx, row.app_guid).await?;
    all.retain(|other| other.guid != row.guid);
    all.push(row.clone());
    let processes = processes_of_app_tx(tx, row.app_guid).await?;
    for process in processes.iter().filter(|process| row.process_types.contains(&process.kind)) {
        let beside = all.iter().filter(|one| one.process_types.contains(&process.kind)).count();
        if beside > MOST {
            return Err(DomainError::invalid(format!(
                "The process {:?} would have {beside} sidecars; at most {MOST} are possible.",
                process.kind
            )));
        }
        if row.memory_in_mb.is_some() && total(&all, &process.kind) >= process.memory_in_mb {
            return Err(DomainError::invalid(format!(
                "The memory allocation defined is too large to run with the dependent \"{}\" process",
                process.kind
            )));
        }
    }
    Ok(())
}

fn refusal(row: &SidecarRow) -> Option<String> {
    let blank = |text: &str| text.trim().is_empty();
    let long = |text: &str, most: usize| text.chars().count() > most;
    if blank(&row.name) {
        Some("Name can't be blank".to_owned())
    } else if blank(&row.command) {
        Some("Command can't be blank".to_owned())
    } else if long(&row.name, MAX_NAME) {
        Some(format!("Name is too long (maximum is {MAX_NAME} characters)"))
    } else if long(&row.command, MAX_COMMAND) {
        Some(format!("Command is too long (maximum is {MAX_COMMAND} characters)"))
    } else if row.name.contains('\0') || row.command.contains('\0') {
        Some("Name and command must not hold a NUL".to_owned())
    } else if row.process_types.is_empty() {
        Some("Process types must have at least 1 process_type".to_owned())
    } else if row.process_types.iter().any(|kind| blank(kind) || long(kind, MAX_NAME)) {
        Some(format!("Process types must be names of 1 to {MAX_NAME} characters"))
    } else if row.memory_in_mb.is_some_and(|memory| memory <= 0) {
        Some("Memory in mb must be greater than 0".to_owned())
    } else {
        None
    }
}

fn total(all: &[SidecarRow], kind: &str) -> i64 {
    let beside = all.iter().filter(|one| one.process_types.iter().any(|beside| beside == kind));
    beside.filter_map(|one| one.memory_in_mb).fold(0, i64::saturating_add)
}

/// Refuses memory for a process that its sidecars would leave nothing of.
///
/// # Errors
/// [`DomainError::Invalid`].
pub fn check_room(all: &[SidecarRow], processes: &[&ProcessRow]) -> DomainResult<()> {
    for process in processes {
        let total = total(all, &process.kind);
        if total > 0 && total >= process.memory_in_mb {
            return Err(DomainError::invalid(
                "The requested memory allocation is not large enough to run all of your sidecar processes",
            ));
        }
    }
    Ok(())
}
