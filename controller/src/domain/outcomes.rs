//! How builds and tasks end: by what a cell reports, or because nobody could run them.
//!
//! A cell reports again until it is acknowledged, and a report may race with the sweep, so every function here does
//! nothing when the build or task has ended, or is of another attempt.

use serde_json::{Map, Value, json};
use slipway_api_types::AssignmentId;
use slipway_protocol::v1;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::lifecycle::record;
use super::specs::LayerRef;
use super::{DomainError, DomainResult, start_hint, stored};
use crate::blobs::BlobDigest;
use crate::config::Limits;
use crate::context::Context;
use crate::store::apps::{app_build_cache_tx, app_lock_tx};
use crate::store::apptasks::{task_lock_tx, task_state_tx};
use crate::store::builds::{BuildRow, build_app_tx, build_end_tx, build_lock_tx};
use crate::store::change_log::ChangeKind;
use crate::store::droplets::{NewDroplet, droplet_insert_tx};
use crate::store::processes::process_usual_memory_tx;
use crate::store::retention::bits_expire_tx;
use slipway_placement::UnplacedReason;

/// Added to the staging timeout, seconds: the cell ends a build in time by itself and says more about it.
const STAGING_GRACE_S: i64 = 60;

/// What a build left behind, checked.
struct Made {
    droplet: NewDroplet,
    /// Name of the last buildpack: the one whose start command holds.
    built_with: Option<String>,
    cache: Option<v1::Blob>,
}

/// Memory of an app's `web` when nobody has asked for another.
fn usual_memory_mb(limits: &Limits, built_with: Option<&str>) -> i64 {
    let usual = built_with.and_then(|name| limits.default_memory_mb_by_buildpack.get(name));
    i64::try_from(*usual.unwrap_or(&limits.default_memory_mb)).unwrap_or(i64::MAX)
}

/// Ends a build by what its cell reports.
///
/// # Errors
/// When the database or the object store fails; the report must then be made again.
pub async fn build_completed(
    context: &Context,
    assignment: AssignmentId,
    build: Uuid,
    attempt: u32,
    result: Option<v1::BuildResult>,
    exit: Option<v1::ExitRecord>,
) -> DomainResult<()> {
    let mut missing = None;
    if let Some(blob) = result.as_ref().filter(|result| result.ok).and_then(|result| result.droplet.as_ref()) {
        // What is announced must be there before a droplet speaks of it.
        let there = match BlobDigest::try_from(&blob.digest[..]) {
            Ok(digest) => context
                .blobs
                .exists(&digest)
                .await
                .map_err(|error| DomainError::internal("looking for a droplet in the object store", error))?,
            Err(_) => false,
        };
        missing = (!there).then(|| {
            "StagingError - The droplet was announced but did not reach the object store; push again.".to_owned()
        });
    }
    let mut tx = context.store.begin().await?;
    let Some(row) = open_build(&mut tx, build, attempt).await? else { return Ok(()) };
    let made = match (missing, result) {
        (Some(error), _) => Err(error),
        (None, Some(result)) => made(&row, &result).map(|made| (made, timings(&result))),
        (None, None) => Err(exit_error(exit.as_ref())),
    };
    let made = match made {
        Ok((made, timings)) => within_quota(context, &mut tx, made).await?.map(|made| (made, timings)),
        Err(error) => Err(error),
    };
    match made {
        Ok((made, timings)) => {
            let droplet = droplet_insert_tx(&mut tx, &made.droplet).await?;
            build_end_tx(&mut tx, build, Some(droplet.guid), None, &timings).await?;
            if let Some(cache) = made.cache {
                let size = i64::try_from(cache.size).unwrap_or(i64::MAX);
                app_build_cache_tx(&mut tx, row.app_guid, &cache.digest, size).await?;
            }
            let memory_mb = usual_memory_mb(&context.config.limits, made.built_with.as_deref());
            process_usual_memory_tx(&mut tx, row.app_guid, memory_mb).await?;
            bits_expire_tx(&mut tx, row.app_guid).await?;
            build_event(&mut tx, &row, "audit.app.build.staged", json!({ "droplet_guid": droplet.guid })).await?;
        }
        Err(error) => {
            tracing::info!(build.guid = %build, assignment.id = %assignment, error, "a build failed");
            build_end_tx(&mut tx, build, None, Some(&error), &json!({})).await?;
            build_event(&mut tx, &row, "audit.app.build.failed", failure(&error)).await?;
        }
    }
    context.store.commit(tx, &[(ChangeKind::Build, build)]).await?;
    Ok(())
}

/// The results of a build that fit into the organization's quota: refused without room for the droplet, and without its
/// cache when only that has none.
async fn within_quota(
    context: &Context,
    tx: &mut sqlx::PgConnection,
    made: Made,
) -> DomainResult<Result<Made, String>> {
    let (Some(digest), Some(size)) = (&made.droplet.blob, made.droplet.blob_size) else { return Ok(Ok(made)) };
    let cache = made.cache.as_ref().map(|cache| i64::try_from(cache.size).unwrap_or(i64::MAX));
    let limits = &context.config.limits;
    let fits = stored::built_tx(tx, limits, made.droplet.app_guid, (digest, size), cache).await?;
    Ok(match fits {
        Ok(with_cache) => Ok(Made { cache: made.cache.filter(|_| with_cache), ..made }),
        Err(refusal) => Err(format!("StagingError - The droplet cannot be kept: {refusal}")),
    })
}

/// The build, locked, when this attempt of it goes on. Its app is locked first, as everywhere: whoever deletes the app
/// holds that when it ends the builds.
async fn open_build(tx: &mut sqlx::PgConnection, build: Uuid, attempt: u32) -> DomainResult<Option<BuildRow>> {
    let Some(app) = build_app_tx(tx, build).await? else { return Ok(None) };
    app_lock_tx(tx, app).await?;
    let row = build_lock_tx(tx, build).await?;
    Ok(row.filter(|row| row.state == "STAGING" && i64::from(row.attempt) == i64::from(attempt)))
}

/// A build's error, `ID - text`, as its event has it.
fn failure(error: &str) -> Value {
    let (id, message) = error.split_once(" - ").unwrap_or(("StagingError", error));
    json!({ "error_id": id, "error_message": message })
}

async fn build_event(
    tx: &mut sqlx::PgConnection,
    build: &BuildRow,
    kind: &'static str,
    mut data: Value,
) -> DomainResult<()> {
    let Some(app) = app_lock_tx(tx, build.app_guid).await? else { return Ok(()) };
    data["build_guid"] = json!(build.guid);
    data["package_guid"] = json!(build.package_guid);
    let text = |key: &str| build.created_by.get(key).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let actor = AuditSubject::new("user", text("guid"), text("name"));
    record(tx, kind, &actor, &app, data).await
}

fn made(build: &BuildRow, result: &v1::BuildResult) -> Result<Made, String> {
    let droplet = match &result.droplet {
        Some(droplet) if result.ok && droplet.digest.len() == 32 => droplet,
        _ if result.ok => return Err("StagingError - The build ended without a droplet.".to_owned()),
        _ => {
            let id = if result.error_id.is_empty() { "StagingError" } else { &result.error_id };
            let text = if result.error_text.is_empty() { "Staging error" } else { &result.error_text };
            return Err(format!("{id} - {text}"));
        }
    };
    let process_types: Map<String, Value> = result
        .process_types
        .iter()
        .map(|process| (process.r#type.clone(), Value::String(process.command.clone())))
        .collect();
    super::droplets::check_process_types(process_types.keys()).map_err(|error| format!("StagingError - {error}"))?;
    let buildpacks: Vec<Value> = result
        .buildpacks
        .iter()
        .map(|pack| {
            json!({ "name": pack.name, "detect_output": pack.detect_output, "buildpack_name": pack.buildpack_name,
                    "version": pack.version })
        })
        .collect();
    let layers: Vec<LayerRef> = result.layers.iter().map(LayerRef::from).collect();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Ok(Made {
        droplet: NewDroplet {
            guid: Uuid::new_v4(),
            app_guid: build.app_guid,
            package_guid: Some(build.package_guid),
            build_guid: Some(build.guid),
            state: "STAGED",
            blob: Some(droplet.digest.to_vec()),
            blob_size: Some(number(droplet.size)),
            unpacked_size: Some(number(result.droplet_unpacked_bytes)),
            format: if droplet.format.is_empty() { "tar.zst".to_owned() } else { droplet.format.clone() },
            stack: Some(result.stack.clone()).filter(|stack| !stack.is_empty()),
            buildpacks: Some(Value::Array(buildpacks)),
            process_types: Value::Object(process_types),
            layers: json!(layers),
            sonames: serde_json::from_str(&result.sonames_json).ok(),
            execution_metadata: start_hint::metadata(result.start_hint.as_ref()),
        },
        built_with: result.buildpacks.last().map(|pack| pack.name.clone()),
        cache: result.cache.clone().filter(|cache| cache.digest.len() == 32),
    })
}

fn timings(result: &v1::BuildResult) -> Value {
    json!({ "fetch_ms": result.fetch_ms, "stage_ms": result.stage_ms, "upload_ms": result.upload_ms })
}

fn exit_error(exit: Option<&v1::ExitRecord>) -> String {
    match exit {
        Some(exit) if !exit.reason.is_empty() => format!("StagingError - Staging error: {}", exit.reason),
        Some(exit) => format!("StagingError - Staging error: the build ended with status {} and no result", exit.code),
        None => "StagingError - Staging error: the cell that ran the build lost it; push again".to_owned(),
    }
}

/// Fails a build for a reason that is none of its own.
///
/// # Errors
/// When the database fails.
pub async fn build_failed(context: &Context, build: Uuid, attempt: u32, error: &str) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let Some(row) = open_build(&mut tx, build, attempt).await? else { return Ok(()) };
    build_end_tx(&mut tx, build, None, Some(error), &json!({})).await?;
    build_event(&mut tx, &row, "audit.app.build.failed", failure(error)).await?;
    context.store.commit(tx, &[(ChangeKind::Build, build)]).await?;
    Ok(())
}

/// Ends a build because somebody has no use for it any more; the cell stops it. The build as it is then.
///
/// # Errors
/// [`DomainError::Invalid`] when it has ended; when the database fails.
pub async fn build_cancelled(context: &Context, actor: &AuditSubject, build: Uuid) -> DomainResult<BuildRow> {
    let gone = || DomainError::NotFound("Build");
    let mut tx = context.store.begin().await?;
    let app = build_app_tx(&mut tx, build).await?.ok_or_else(gone)?;
    app_lock_tx(&mut tx, app).await?;
    let row = build_lock_tx(&mut tx, build).await?.ok_or_else(gone)?;
    if row.state != "STAGING" {
        return Err(DomainError::invalid(format!("Cannot cancel a build with state: {}", row.state)));
    }
    let error = format!("BuildCancelled - The build was cancelled by '{}'", actor.name);
    build_end_tx(&mut tx, build, None, Some(&error), &json!({})).await?;
    build_event(&mut tx, &row, "audit.app.build.failed", failure(&error)).await?;
    let row = build_lock_tx(&mut tx, build).await?.ok_or_else(gone)?;
    context.store.commit(tx, &[(ChangeKind::Build, build)]).await?;
    Ok(row)
}

/// Ends a task by what its cell reports; without an exit record the cell lost it.
///
/// # Errors
/// When the database fails; the report must then be made again.
pub async fn task_completed(
    context: &Context,
    assignment: AssignmentId,
    task: Uuid,
    attempt: u32,
    exit: Option<v1::ExitRecord>,
) -> DomainResult<()> {
    let failure = match &exit {
        Some(exit) if exit.code == 0 && exit.signal == 0 && !exit.out_of_memory => None,
        Some(exit) if !exit.reason.is_empty() => Some(exit.reason.clone()),
        Some(exit) => Some(format!("exited with status {}", exit.code)),
        None => Some("the cell that ran the task lost it".to_owned()),
    };
    tracing::debug!(task.guid = %task, assignment.id = %assignment, failure, "a task ended");
    task_ended(context, task, Some(attempt), failure.as_deref()).await
}

/// Ends a task; with `attempt`, only that one.
///
/// # Errors
/// When the database fails.
pub async fn task_ended(
    context: &Context,
    task: Uuid,
    attempt: Option<u32>,
    failure: Option<&str>,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    let Some(row) = task_lock_tx(&mut tx, task).await? else { return Ok(()) };
    let of_attempt = attempt.is_none_or(|attempt| i64::from(row.attempt) == i64::from(attempt));
    if !of_attempt || matches!(row.state.as_str(), "SUCCEEDED" | "FAILED") {
        return Ok(());
    }
    let failure = if row.state == "CANCELING" { Some(super::tasks::CANCELLED) } else { failure };
    let state = if failure.is_none() { "SUCCEEDED" } else { "FAILED" };
    task_state_tx(&mut tx, task, state, failure).await?;
    context.store.commit(tx, &[(ChangeKind::Task, task)]).await?;
    Ok(())
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Fails the builds and tasks that found no place, and the builds that ran out of time. Call it every few seconds.
///
/// # Errors
/// When the database fails.
pub async fn sweep(context: &Context) -> DomainResult<()> {
    let seconds = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX / 2);
    let limits = &context.config.limits;
    let (limit, unplaced_limit) = (seconds(limits.staging_timeout_s), seconds(limits.unplaced_timeout_s));
    let incompatible_limit = seconds(limits.no_compatible_cell_after_s).min(unplaced_limit);
    let room_limit = seconds(limits.room_timeout_s);
    for build in context.store.builds_open().await? {
        let attempt = build.attempt.unsigned_abs();
        // One of a kind that only a newer controller knows is none of those with a limit of their own.
        let reason = build.unplaced_kind.and_then(|kind| kind.parse().ok()).unwrap_or(UnplacedReason::Other);
        match (build.unplaced, build.unplaced_s) {
            (Some(details), Some(waited))
                if waited >= incompatible_limit && !build.assigned && reason == UnplacedReason::NoCompatibleCell =>
            {
                // It begins with the words by which clients know it, and says which kind of cell is missing.
                let error = format!("NoCompatibleCell - {}", capitalised(&details));
                build_failed(context, build.guid, attempt, &error).await?;
            }
            (Some(details), Some(waited))
                if waited > if reason == UnplacedReason::NoRoom { room_limit } else { unplaced_limit }
                    && !build.assigned =>
            {
                let error =
                    format!("InsufficientResources - No cell could take the build for {waited} seconds: {details}");
                build_failed(context, build.guid, attempt, &error).await?;
            }
            // What it waited for room is not its own time.
            _ if build.age_s > limit.saturating_add(STAGING_GRACE_S).saturating_add(room_limit) => {
                let error = format!("StagingTimeExpired - The build did not end within {limit} seconds");
                build_failed(context, build.guid, attempt, &error).await?;
            }
            _ => {}
        }
    }
    for task in context.store.tasks_unplaced(unplaced_limit, incompatible_limit, room_limit).await? {
        let failure = format!("No cell could take the task: {}", task.reason);
        task_ended(context, task.guid, None, Some(&failure)).await?;
    }
    Ok(())
}
