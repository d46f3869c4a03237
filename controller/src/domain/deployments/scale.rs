//! Another number or size of instances for a type that is being deployed. `web` is not scaled while its deployment
//! counts its instances, as on Cloud Foundry; the other types are: they wait for `web` for long, and a worker that
//! falls behind must not wait with them.

use serde_json::json;
use slipway_api_types::ErrorCode;
use sqlx::PgConnection;

use super::{DeploymentSnapshot, Disturbance, ROLLED};
use crate::config::Limits;
use crate::domain::lifecycle::demands;
use crate::domain::processes::{Scale, save_tx};
use crate::domain::{DomainError, DomainResult, quota, sidecars};
use crate::store::apps::AppRow;
use crate::store::deployments::{
    DeploymentRow, deployment_active_tx, deployment_snapshot_tx, processes_with_interim_tx,
};
use crate::store::processes::{ProcessRow, process_update_tx, processes_of_app_tx};
use crate::store::sidecars::sidecars_of_app_tx;
use crate::values::InstanceCount;
use slipway_placement::rollout::rescale;

/// Scales a type other than `web` of an app that is being deployed: what runs of it now, what the deployment brings it
/// to, and what a cancellation brings back. Gives the processes that changed, the app's own first. The caller holds the
/// app's row.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub async fn rescale_tx(
    limits: &Limits,
    tx: &mut PgConnection,
    app: &AppRow,
    kind: &str,
    scale: &Scale,
) -> DomainResult<Vec<ProcessRow>> {
    let Some(active) = deployment_active_tx(tx, app.guid).await? else {
        return alone(limits, tx, app, kind, scale).await;
    };
    let mut snapshot = DeploymentSnapshot::of(&active)?;
    // A type whose new process could not be composed keeps its old one.
    let Some(lane) = snapshot.others.iter_mut().find(|lane| lane.kind == kind) else {
        return alone(limits, tx, app, kind, scale).await;
    };
    let all = processes_with_interim_tx(tx, app.guid).await?;
    let (mut rows, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|process| process.kind == kind);
    // As a deployment's steps see them: the app's own, what superseded ones left, the new one.
    rows.sort_by_key(|process| process.guid == lane.process);
    if rows.len() < 2 || rows.last().is_none_or(|process| process.guid != lane.process) {
        return alone(limits, tx, app, kind, scale).await;
    }
    let size = Scale { instances: None, ..*scale };
    for row in &mut rows {
        size.apply(row)?;
    }
    if scale.instances.is_some() {
        let mut asked = rows[0].clone();
        scale.apply(&mut asked)?;
        let mut counts: Vec<u32> = rows.iter().map(|row| row.instances.get()).collect();
        rescale(&mut counts, lane.wanted.get(), asked.instances.get());
        for (row, count) in rows.iter_mut().zip(counts) {
            row.instances = InstanceCount::at_most(count);
        }
        (lane.wanted, lane.restore) = (asked.instances, asked.instances);
        deployment_snapshot_tx(tx, active.guid, &json!(snapshot)).await?;
    }
    check_room(limits, tx, app, &active, &snapshot, &rows, &others).await?;
    for row in &rows {
        process_update_tx(tx, row).await?;
    }
    Ok(rows)
}

/// Scales the app's own process, of which the deployment has no other.
async fn alone(
    limits: &Limits,
    tx: &mut PgConnection,
    app: &AppRow,
    kind: &str,
    scale: &Scale,
) -> DomainResult<Vec<ProcessRow>> {
    let mut all = processes_of_app_tx(tx, app.guid).await?;
    let row = all.iter_mut().find(|row| row.kind == kind).ok_or(DomainError::NotFound("Process"))?;
    scale.apply(row)?;
    let row = row.clone();
    save_tx(limits, tx, app, &all, &[row.guid]).await?;
    Ok(vec![row])
}

/// What is wanted at the end must fit, and so must what runs now beside the instances in flight of this type.
async fn check_room(
    limits: &Limits,
    tx: &mut PgConnection,
    app: &AppRow,
    active: &DeploymentRow,
    snapshot: &DeploymentSnapshot,
    rows: &[ProcessRow],
    others: &[ProcessRow],
) -> DomainResult<()> {
    let references: Vec<&ProcessRow> = rows.iter().collect();
    sidecars::check_room(&sidecars_of_app_tx(tx, app.guid).await?, &references)?;
    let lanes = snapshot.lanes();
    let every = || others.iter().chain(rows);
    let at_the_end: Vec<ProcessRow> = every()
        .filter_map(|process| match lanes.iter().find(|lane| lane.kind == process.kind) {
            None => Some(process.clone()),
            Some(lane) => {
                let row = || ProcessRow { instances: lane.wanted, ..process.clone() };
                (lane.process == process.guid).then(row)
            }
        })
        .collect();
    quota::check(limits, tx, app.space_guid, app.guid, &demands(&at_the_end), true).await?;
    let now: Vec<ProcessRow> = every().cloned().collect();
    let mut asked = demands(&now);
    let in_flight = active.options.get("max_in_flight").and_then(serde_json::Value::as_i64).unwrap_or(1);
    if let Some(new) = rows.last()
        && let Some(lane) = lanes.iter().find(|lane| lane.process == new.guid)
    {
        let left = lane.wanted.get().saturating_sub(new.instances.get());
        let instances = InstanceCount::at_most(left).capped(u32::try_from(in_flight).unwrap_or(u32::MAX));
        asked.extend(demands(&[ProcessRow { instances, ..new.clone() }]));
    }
    quota::check(limits, tx, app.space_guid, app.guid, &asked, true).await
}

/// Refuses to scale `web`, or to change anything else of a process of a type that is being deployed: whether a new
/// instance is good is judged by its check, and that is the one its deployment began with.
///
/// # Errors
/// [`ErrorCode::ScaleDisabledDuringDeployment`], [`ErrorCode::ProcessUpdateDisabledDuringDeployment`].
pub fn refuse_change(rolling: &[String], kind: &str, change: Disturbance) -> DomainResult<()> {
    if !rolling.iter().any(|rolling| rolling == kind) {
        return Ok(());
    }
    match change {
        Disturbance::Scale if kind != ROLLED => Ok(()),
        Disturbance::Scale => Err(DomainError::refused(
            ErrorCode::ScaleDisabledDuringDeployment,
            "Cannot scale this process while a deployment is in flight.",
        )),
        Disturbance::Update => Err(DomainError::refused(
            ErrorCode::ProcessUpdateDisabledDuringDeployment,
            "Cannot update this process while a deployment is in flight.",
        )),
    }
}
