//! Deployments: beginning ([`create`]), cancelling, continuing, and moving them on ([`drive`]). What to do next is
//! decided by [`slipway_placement::rollout::step`]; these files read what it needs and write what it wants, one transaction each.
//!
//! A deployment has a process of its own beside the app's for each type that runs: same type, new spec, its own
//! instances. `web` rolls first, at its canary steps too, then the other types. When all are done, the new processes
//! become the app's and the old ones go. Until then everything can be taken back.

mod create;
mod drive;
mod options;
mod scale;

use serde::{Deserialize, Serialize};
use serde_json::json;
use slipway_api_types::ErrorCode;
use sqlx::PgConnection;
use uuid::Uuid;

pub use create::create;
pub use drive::{Driven, STEADY_S, drive};
pub use options::{DeploymentCreate, Options, Source, Strategy};
pub use scale::{refuse_change, rescale_tx};

use super::audit::AuditSubject;
use super::lifecycle::{finish, lock, record};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::apps::{AppRow, app_update_tx};
use crate::store::deployments::{
    DeploymentRow, deployment_active_tx, deployment_lock_tx, deployment_status_tx, deployment_step_tx,
    processes_with_interim_tx,
};
use crate::store::droplets::droplet_get_tx;
use crate::values::InstanceCount;
use slipway_placement::rollout::Canary;

/// The type that is rolled out first, and in canary steps.
pub const ROLLED: &str = "web";

/// One process type of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The new process.
    pub process: Uuid,
    /// Instances it is to have.
    pub wanted: InstanceCount,
    /// Instances that the old process gets back when the deployment is cancelled.
    pub restore: InstanceCount,
}

/// What a deployment remembers of its beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentSnapshot {
    /// The new process of type `web`.
    pub process: Uuid,
    /// Instances it is to have.
    pub wanted: InstanceCount,
    /// Instances that the old process gets back when the deployment is cancelled.
    pub restore: InstanceCount,
    /// The other types that roll after it.
    #[serde(default)]
    pub others: Vec<Lane>,
    /// Canaries of superseded deployments that never became more than that.
    #[serde(default)]
    pub abandoned: Vec<Uuid>,
    /// Version of the revision that is deployed.
    #[serde(default)]
    pub revision_version: Option<i32>,
    /// Start commands are those of the revision, not the app's own.
    #[serde(default)]
    pub rollback: bool,
}

impl DeploymentSnapshot {
    /// As stored.
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn of(row: &DeploymentRow) -> DomainResult<Self> {
        Self::deserialize(&row.snapshot).map_err(|error| DomainError::internal("reading a deployment", error))
    }

    /// All types, `web` first.
    fn lanes(&self) -> Vec<Lane> {
        let web = Lane { kind: ROLLED.to_owned(), process: self.process, wanted: self.wanted, restore: self.restore };
        std::iter::once(web).chain(self.others.iter().cloned()).collect()
    }
}

fn first_step() -> u32 {
    1
}

/// How far a deployment has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Most new instances that have served at a time.
    #[serde(default)]
    pub serving: u64,
    /// Step of a canary, from 1.
    #[serde(default = "first_step")]
    pub canary_step: u32,
    /// The developer has said that it may go on after the last step of the canary.
    #[serde(default)]
    pub approved: bool,
}

impl Progress {
    /// At the beginning.
    #[must_use]
    pub fn new() -> Self {
        Self { serving: 0, canary_step: first_step(), approved: false }
    }

    /// As stored.
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn of(row: &DeploymentRow) -> DomainResult<Self> {
        Self::deserialize(&row.step).map_err(|error| DomainError::internal("reading a deployment's progress", error))
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The step at which a deployment stops next, or stands; `None` when it goes to its end.
fn canary(row: &DeploymentRow, snapshot: &DeploymentSnapshot, progress: &Progress) -> Option<Canary> {
    let stops = row.strategy == Strategy::Canary.as_str() && !progress.approved;
    stops.then(|| Options::step(&row.options, progress.canary_step, snapshot.wanted.get(), snapshot.restore.get()))
}

/// The deployment, if it is active, and its app; both locked.
async fn active(
    tx: &mut PgConnection,
    deployment: &DeploymentRow,
    what: &str,
) -> DomainResult<(AppRow, DeploymentRow)> {
    let app = lock(tx, deployment.app_guid).await?;
    let row = deployment_lock_tx(tx, deployment.guid).await?.ok_or(DomainError::NotFound("Deployment"))?;
    if row.status_value == "ACTIVE" { Ok((app, row)) } else { Err(refused(&row, what)) }
}

fn refused(row: &DeploymentRow, what: &str) -> DomainError {
    DomainError::invalid(format!(
        "Cannot {what} a deployment with status: {} and reason: {}",
        row.status_value, row.status_reason
    ))
}

/// Asks for the old instances back. The old droplet is the app's current one again at once.
///
/// # Errors
/// [`DomainError::Invalid`] when the deployment is over.
pub async fn cancel(context: &Context, actor: &AuditSubject, deployment: &DeploymentRow) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let (mut app, active) = active(&mut tx, deployment, "cancel").await?;
    if active.status_reason == "CANCELING" {
        return Ok(());
    }
    if let Some(previous) = active.previous_droplet_guid
        && droplet_get_tx(&mut tx, previous).await?.is_some()
    {
        app.droplet_guid = Some(previous);
        app = app_update_tx(&mut tx, &app).await?;
    }
    deployment_status_tx(&mut tx, active.guid, "ACTIVE", "CANCELING").await?;
    let data = json!({ "deployment_guid": active.guid, "droplet_guid": app.droplet_guid });
    record(&mut tx, "audit.app.deployment.cancel", actor, &app, data).await?;
    finish(context, tx, &app, &[]).await.map(drop)
}

/// Lets a canary that stands at a step go on: to its next step, or, after the last one, to the end.
///
/// # Errors
/// [`DomainError::Invalid`] unless it is paused.
pub async fn proceed(context: &Context, actor: &AuditSubject, deployment: &DeploymentRow) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let (app, active) = active(&mut tx, deployment, "continue").await?;
    if active.status_reason != "PAUSED" {
        return Err(refused(&active, "continue"));
    }
    let mut progress = Progress::of(&active)?;
    if progress.canary_step < Options::step_count(&active.options) {
        progress.canary_step += 1;
    } else {
        progress.approved = true;
    }
    deployment_step_tx(&mut tx, active.guid, &json!(progress)).await?;
    deployment_status_tx(&mut tx, active.guid, "ACTIVE", "DEPLOYING").await?;
    let data = json!({ "deployment_guid": active.guid, "droplet_guid": active.droplet_guid });
    record(&mut tx, "audit.app.deployment.continue", actor, &app, data).await?;
    finish(context, tx, &app, &[]).await.map(drop)
}

/// Refuses to stop or restart an app that is being deployed.
///
/// # Errors
/// [`ErrorCode::StopDisabledDuringDeployment`].
pub async fn refuse_stop(tx: &mut PgConnection, app: Uuid) -> DomainResult<()> {
    match deployment_active_tx(tx, app).await? {
        None => Ok(()),
        Some(_) => Err(DomainError::refused(
            ErrorCode::StopDisabledDuringDeployment,
            "Cannot stop the app while it is deploying, please cancel the deployment before stopping the app.",
        )),
    }
}

/// Refuses another current droplet for an app that is being deployed.
///
/// # Errors
/// [`DomainError::Invalid`].
pub async fn refuse_droplet(tx: &mut PgConnection, app: Uuid) -> DomainResult<()> {
    match deployment_active_tx(tx, app).await? {
        None => Ok(()),
        Some(_) => Err(DomainError::invalid(
            "Unable to assign current droplet while the app has a deployment in progress. Wait for the deployment to \
             complete or cancel it.",
        )),
    }
}

/// What would disturb a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Another number or size of instances.
    Scale,
    /// Another command or check.
    Update,
}

/// Types of an app's processes that are being deployed now, for [`refuse_change`].
///
/// # Errors
/// When the database fails.
pub async fn rolling_types(tx: &mut PgConnection, app: Uuid) -> DomainResult<Vec<String>> {
    if deployment_active_tx(tx, app).await?.is_none() {
        return Ok(Vec::new());
    }
    let processes = processes_with_interim_tx(tx, app).await?;
    Ok(processes.into_iter().filter(|process| process.deployment_guid.is_some()).map(|row| row.kind).collect())
}
