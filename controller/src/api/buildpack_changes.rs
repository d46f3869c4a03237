//! Making, changing and uploading buildpacks: admins only.

use std::path::Path as FilePath;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api_types::{ErrorCode, MetadataPatch, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Router;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::{jobs, upload};
use crate::blobs::BlobError;
use crate::context::Context;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::names::check_name;
use crate::domain::packages::archive::{self, ArchiveError, ArchiveLimits, Scratch};
use crate::domain::packages::buildpack_archive::{self, BuildpackArchiveError, BuildpackFacts};
use crate::domain::{DomainResult, apps, removal};
use crate::store::buildpacks::{
    BuildpackRow, buildpack_insert_tx, buildpack_lock_tx, buildpack_move_tx, buildpack_order_lock_tx,
    buildpack_update_tx, buildpack_uploaded_tx,
};
use crate::store::constraints::{refuse, violates};
use crate::store::done_jobs::{job_done_tx, job_refused_tx};
use crate::store::events::event_record_tx;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/buildpacks", post(create))
        .route("/v3/buildpacks/{guid}", axum::routing::patch(update).delete(delete))
        .route("/v3/buildpacks/{guid}/upload", post(receive).layer(DefaultBodyLimit::disable()))
}

/// A buildpack as clients see it.
#[must_use]
pub fn view(base: &BaseUrl, row: &BuildpackRow) -> Value {
    let own = format!("/v3/buildpacks/{}", row.guid);
    json!({
        "guid": row.guid, "created_at": Timestamp(row.created_at), "updated_at": Timestamp(row.updated_at),
        "name": row.name, "stack": row.stack, "state": row.state, "filename": row.filename,
        "position": row.position, "enabled": row.enabled, "locked": row.locked, "lifecycle": row.lifecycle,
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": { "self": base.link(&own), "upload": base.post(&format!("{own}/upload")) },
    })
}

async fn find(context: &Context, caller: &Caller, guid: &str) -> ApiResult<BuildpackRow> {
    let guid = super::guid(guid, "Buildpack")?;
    let row = context.store.buildpack_row(guid).await?.ok_or_else(|| ApiError::not_found("Buildpack"))?;
    caller.require_admin()?;
    Ok(row)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    stack: Option<String>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    position: Option<i32>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    locked: bool,
    lifecycle: Option<String>,
    metadata: Option<MetadataPatch>,
}

fn yes() -> bool {
    true
}

async fn check(context: &Context, name: &str, stack: Option<&str>, position: Option<i32>) -> ApiResult<()> {
    check_name("Name", name)?;
    if name.chars().any(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(ApiError::unprocessable("Name can only contain alphanumeric characters, '-', '_' and '.'"));
    }
    if position.is_some_and(|position| position < 1) {
        return Err(ApiError::unprocessable("Position must be greater than or equal to 1"));
    }
    match stack {
        Some(stack) if !context.store.stack_exists(stack).await? => {
            Err(ApiError::unprocessable(format!("Stack '{stack}' does not exist")))
        }
        _ => Ok(()),
    }
}

fn taken(name: &str, stack: Option<&str>) -> String {
    match stack {
        Some(stack) => {
            format!("Buildpack with name '{name}', stack '{stack}' and lifecycle 'buildpack' already exists")
        }
        None => format!("Buildpack with name '{name}' and an unassigned stack already exists"),
    }
}

async fn record(
    tx: &mut PgConnection,
    caller: &Caller,
    kind: &'static str,
    row: &BuildpackRow,
    request: Value,
) -> DomainResult<()> {
    event_record_tx(tx, &event(caller, kind, row, request)).await?;
    Ok(())
}

fn event(caller: &Caller, kind: &'static str, row: &BuildpackRow, request: Value) -> NewEvent {
    NewEvent::new(kind, caller.actor(), AuditSubject::new("buildpack", row.guid, &row.name)).with_request(request)
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    if body.lifecycle.as_deref().is_some_and(|lifecycle| lifecycle != "buildpack") {
        return Err(ApiError::unprocessable("Lifecycle must be \"buildpack\" on this platform"));
    }
    check(&context, &body.name, body.stack.as_deref(), body.position).await?;
    let position = body.position.unwrap_or(1);
    let change = MetadataChange::check(body.metadata)?;
    let mut tx = context.store.begin().await?;
    let mut row =
        buildpack_insert_tx(&mut tx, &body.name, body.stack.as_deref(), Some(position), body.enabled, body.locked)
            .await
            .map_err(refuse("buildpack_name_key", || taken(&body.name, body.stack.as_deref())))?;
    apps::merge(&mut row.labels, &change.labels);
    apps::merge(&mut row.annotations, &change.annotations);
    let row = buildpack_update_tx(&mut tx, &row).await?;
    record(&mut tx, &caller, "audit.buildpack.create", &row, json!({ "name": row.name, "position": row.position }))
        .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(view(&base, &row))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    stack: Option<String>,
    #[serde(default, deserialize_with = "super::numbers::whole")]
    position: Option<i32>,
    enabled: Option<bool>,
    locked: Option<bool>,
    metadata: Option<MetadataPatch>,
}

async fn update(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    JsonBody(body): JsonBody<UpdateBody>,
) -> ApiResult<Json<Value>> {
    let row = find(&context, &caller, &guid).await?;
    check(&context, body.name.as_deref().unwrap_or(&row.name), body.stack.as_deref(), body.position).await?;
    let request = json!({
        "name": body.name, "stack": body.stack, "position": body.position, "enabled": body.enabled,
        "locked": body.locked,
    });
    let change = MetadataChange::check(body.metadata)?;
    let mut tx = context.store.begin().await?;
    if body.position.is_some() {
        buildpack_order_lock_tx(&mut tx).await?;
    }
    let mut row = buildpack_lock_tx(&mut tx, row.guid).await?.ok_or_else(|| ApiError::not_found("Buildpack"))?;
    if let (Some(own), Some(other)) = (&row.stack, &body.stack)
        && own != other
    {
        return Err(ApiError::unprocessable(format!("Buildpack stack cannot be changed from '{own}'.")));
    }
    row.name = body.name.unwrap_or(row.name);
    row.stack = body.stack.or(row.stack);
    row.enabled = body.enabled.unwrap_or(row.enabled);
    row.locked = body.locked.unwrap_or(row.locked);
    apps::merge(&mut row.labels, &change.labels);
    apps::merge(&mut row.annotations, &change.annotations);
    let mut row = buildpack_update_tx(&mut tx, &row)
        .await
        .map_err(refuse("buildpack_name_key", || taken(&row.name, row.stack.as_deref())))?;
    if let Some(position) = body.position {
        row = buildpack_move_tx(&mut tx, row.guid, position).await?;
    }
    record(&mut tx, &caller, "audit.buildpack.update", &row, request).await?;
    tx.commit().await?;
    Ok(Json(view(&base, &row)))
}

async fn delete(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let row = find(&context, &caller, &guid).await?;
    let event = event(&caller, "audit.buildpack.delete", &row, Value::Null);
    let job = removal::request_recorded(&context, &event, "buildpack.delete", "buildpack", row.guid).await?;
    Ok(jobs::accepted(&base, job))
}

async fn receive(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    let row = find(&context, &caller, &guid).await?;
    if row.locked {
        return Err(ApiError::unprocessable("Buildpack is locked"));
    }
    let bounds = upload::Bounds { bits: context.config.limits.max_package_bytes, resources: None };
    let parts = upload::receive(&context, Uuid::nil(), bounds, request).await?;
    // In a task of its own: a client that hangs up does not free the place of what goes on.
    let work = tokio::spawn(async move { finish(&context, &caller, row, parts).await });
    let (row, job) = work.await.map_err(|error| ApiError::internal("finishing an upload", error))??;
    // Clients want the buildpack in the body besides the job's address.
    let mut response = (StatusCode::ACCEPTED, Json(view(&base, &row))).into_response();
    if let Ok(location) = HeaderValue::from_str(&base.url(&format!("/v3/jobs/{job}"))) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn finish(
    context: &Context,
    caller: &Caller,
    row: BuildpackRow,
    parts: upload::Parts,
) -> ApiResult<(BuildpackRow, Uuid)> {
    let _judging = context.uploads.judging().await?;
    let bits = parts.bits.ok_or_else(|| ApiError::unprocessable("A buildpack zip file must be uploaded as 'bits'"))?;
    let limits = &context.config.limits;
    let limits = ArchiveLimits { unpacked_bytes: limits.max_package_unpacked_bytes, files: limits.max_package_files };
    let (path, scratch) = (bits.clone(), parts.directory.path().to_owned());
    let judged = tokio::task::spawn_blocking(move || judge(&path, limits, &scratch))
        .await
        .map_err(|error| ApiError::internal("judging a buildpack", error))?;
    let filename = parts.filename.unwrap_or_else(|| "buildpack.zip".to_owned());
    let work = Uploaded { bits: &bits, filename: &filename };
    let done = match judged {
        Ok(facts) => keep(context, caller, &row, work, facts).await,
        Err(refusal) => refused(context, caller, row, refusal).await,
    };
    drop((parts.directory, parts.place));
    done
}

/// Why a job ends badly: clients tell these apart by their codes.
struct Refusal {
    code: ErrorCode,
    detail: String,
}

struct Uploaded<'a> {
    bits: &'a FilePath,
    filename: &'a str,
}

/// Whether an upload is a buildpack. Blocking.
fn judge(path: &FilePath, limits: ArchiveLimits, scratch: &FilePath) -> Result<BuildpackFacts, Refusal> {
    archive::judge(Some(path), &[], limits, Scratch { directory: scratch, remember: false, reserve: None }).map_err(
        |error| match error {
            ArchiveError::NotZip(text) => {
                Refusal { code: ErrorCode::BuildpackZipError, detail: format!("Buildpack zip error: {text}") }
            }
            error => Refusal { code: ErrorCode::BuildpackInvalid, detail: format!("Buildpack is invalid: {error}") },
        },
    )?;
    buildpack_archive::facts(path, limits.files).map_err(|error| match error {
        BuildpackArchiveError::Unreadable(text) => {
            Refusal { code: ErrorCode::BuildpackZipError, detail: format!("Buildpack zip error: {text}") }
        }
        error => Refusal { code: ErrorCode::BuildpackInvalid, detail: format!("Buildpack is invalid: {error}") },
    })
}

/// The stack that an archive says it is for: no other than the buildpack has.
fn stack_of(row: &BuildpackRow, facts: &BuildpackFacts) -> Result<Option<String>, Refusal> {
    match (&row.stack, &facts.stack) {
        (Some(own), Some(other)) if own != other => Err(Refusal {
            code: ErrorCode::BuildpackStacksDontMatch,
            detail: format!("Uploaded buildpack stack ({other}) does not match {own}"),
        }),
        (own, other) => Ok(other.clone().or_else(|| own.clone())),
    }
}

async fn keep(
    context: &Context,
    caller: &Caller,
    row: &BuildpackRow,
    uploaded: Uploaded<'_>,
    facts: BuildpackFacts,
) -> ApiResult<(BuildpackRow, Uuid)> {
    if let Err(refusal) = stack_of(row, &facts) {
        return refused(context, caller, row.clone(), refusal).await;
    }
    if let Some(stack) = &facts.stack
        && !context.store.stack_exists(stack).await?
    {
        let detail = format!("Uploaded buildpack stack ({stack}) does not exist");
        let refusal = Refusal { code: ErrorCode::BuildpackStackDoesNotExist, detail };
        return refused(context, caller, row.clone(), refusal).await;
    }
    let stored = |error: BlobError| error.while_doing("storing a buildpack");
    let file = context.blobs.digest(uploaded.bits).await.map_err(stored)?;
    context.blobs.room(file.size).map_err(|full| stored(full.into()))?;
    context.blobs.put_digested(&file).await.map_err(stored)?;
    let (digest, size) = (file.digest, file.size);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let mut tx = context.store.begin().await?;
    // It may have been changed while the upload came.
    let row = buildpack_lock_tx(&mut tx, row.guid).await?.ok_or_else(|| ApiError::not_found("Buildpack"))?;
    if row.locked {
        return Err(ApiError::unprocessable("Buildpack is locked"));
    }
    let stack = match stack_of(&row, &facts) {
        Ok(stack) => stack,
        Err(refusal) => {
            drop(tx);
            return refused(context, caller, row, refusal).await;
        }
    };
    let kept = buildpack_uploaded_tx(&mut tx, row.guid, &digest, size, uploaded.filename, stack.as_deref()).await;
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) if violates(&error, "buildpack_name_key") => {
            drop(tx);
            let detail = format!(
                "The buildpack name {} is already in use for the stack {} and the lifecycle {}",
                row.name,
                stack.unwrap_or_default(),
                row.lifecycle
            );
            let refusal = Refusal { code: ErrorCode::BuildpackNameStackLifecycleTaken, detail };
            return refused(context, caller, row, refusal).await;
        }
        Err(error) => return Err(error.into()),
    };
    let job = job_done_tx(&mut tx, "buildpack.upload", "buildpack", row.guid, &json!([]), &caller.user_guid).await?;
    record(&mut tx, caller, "audit.buildpack.upload", &row, json!({ "filename": uploaded.filename })).await?;
    tx.commit().await?;
    if let Some(old) = row.blob.as_ref().filter(|old| **old != digest) {
        context.blobs.remove_unused(std::slice::from_ref(old)).await;
    }
    Ok((kept, job))
}

async fn refused(
    context: &Context,
    caller: &Caller,
    row: BuildpackRow,
    refusal: Refusal,
) -> ApiResult<(BuildpackRow, Uuid)> {
    let errors = json!([refusal.code.entry(refusal.detail)]);
    let mut connection = context.store.pool().acquire().await?;
    let job =
        job_refused_tx(&mut connection, "buildpack.upload", "buildpack", row.guid, &errors, &caller.user_guid).await?;
    Ok((row, job))
}
