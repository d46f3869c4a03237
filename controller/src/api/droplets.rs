//! Droplets.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::common::Links;
use slipway_api_types::views::{DropletView, Lifecycle};
use slipway_api_types::{Page, ToOne};
use uuid::Uuid;

use super::Router;
use super::apps::actions::AppRelationship;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::of_app::{self, Listed, Relabelled, Shown, by_guid, listed, of_app, with_app};
use super::permissions::SpaceAction;
use super::query::Query;
use super::{download, jobs, upload};
use crate::context::Context;
use crate::domain::lifecycle::note;
use crate::domain::metadata::metadata_of;
use crate::domain::{droplets, stored};
use crate::store::droplets::DropletRow;
use crate::store::list::Visible;
use crate::store::metadata::Labelled;
use crate::store::packages::PackageRow;

/// What clients save as `.tgz`.
const GZIP: &str = "application/gzip";

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/droplets", get(of_app::list::<DropletRow>).post(create))
        .route(
            "/v3/droplets/{guid}",
            get(of_app::one::<DropletRow>).patch(of_app::relabel::<DropletRow>).delete(delete),
        )
        .route("/v3/droplets/{guid}/download", get(fetch))
        .route("/v3/droplets/{guid}/upload", post(receive).layer(DefaultBodyLimit::disable()))
        .route("/v3/apps/{guid}/droplets", get(of_app::list_of_app::<DropletRow>))
        .route("/v3/packages/{guid}/droplets", get(list_of_package))
}

of_app!(DropletRow, "Droplet", droplet_get);

impl Shown for DropletRow {
    type View = DropletView;

    fn show(self, base: &BaseUrl) -> ApiResult<DropletView> {
        Ok(view(base, self))
    }
}

listed!(
    DropletRow,
    "droplets",
    droplet_list(None),
    ListSpec {
        filters: &["app_guids", "space_guids", "organization_guids", "states", "current"],
        labels: true,
        ..ListSpec::PLAIN
    }
);

impl Relabelled for DropletRow {
    const TABLE: Labelled = Labelled::Droplet;
}

/// A droplet as clients see it.
#[must_use]
pub fn view(base: &BaseUrl, row: DropletRow) -> DropletView {
    let own = format!("/v3/droplets/{}", row.guid);
    let mut links = Links::from([
        ("self".to_owned(), base.link(&own)),
        ("app".to_owned(), base.link(&format!("/v3/apps/{}", row.app_guid))),
        ("download".to_owned(), base.link(&format!("{own}/download"))),
    ]);
    if let Some(package) = row.package_guid {
        links.insert("package".to_owned(), base.link(&format!("/v3/packages/{package}")));
    }
    let object = |value: Value| match value {
        Value::Object(map) => Some(map),
        _ => None,
    };
    DropletView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        state: row.state,
        error: row.error,
        lifecycle: Lifecycle { kind: row.lifecycle_type, data: Map::new() },
        checksum: row.blob.map(|blob| json!({ "type": "sha256", "value": hex::encode(blob) })),
        buildpacks: row.buildpacks.and_then(|packs| packs.as_array().cloned()),
        stack: row.stack,
        image: None,
        execution_metadata: row.execution_metadata,
        process_types: object(row.process_types),
        relationships: BTreeMap::from([("app".to_owned(), ToOne::to(row.app_guid))]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links,
    }
}

async fn list_of_package(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<DropletView>>> {
    let package: PackageRow = by_guid(&context, &caller, &guid, SpaceAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &DropletRow::LIST)?;
    let (rows, total) = context.store.droplet_list(&query.options, &Visible::All, None, Some(package.guid)).await?;
    let views = rows.into_iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, &format!("/v3/packages/{}/droplets", package.guid), total, views)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    relationships: AppRelationship,
    process_types: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct CreateQuery {
    source_guid: Option<String>,
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Query(query): Query<CreateQuery>,
    JsonBody(body): JsonBody<CreateBody>,
) -> ApiResult<(StatusCode, Json<DropletView>)> {
    let app = body.relationships.find(&context, &caller).await?;
    let source = match &query.source_guid {
        Some(guid) => Some(by_guid::<DropletRow>(&context, &caller, guid, SpaceAction::Develop).await?),
        None => None,
    };
    let row = droplets::create(&context, &caller.actor(), app.guid, source, body.process_types).await?;
    Ok((StatusCode::CREATED, Json(view(&base, row))))
}

async fn delete(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let (row, app) = with_app::<DropletRow>(&context, &caller, &guid, SpaceAction::Develop).await?;
    let job = droplets::delete(&context, &caller.actor(), &app, row.guid).await?;
    Ok(jobs::accepted(&base, job))
}

async fn fetch(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<Response> {
    let (row, app) = with_app::<DropletRow>(&context, &caller, &guid, SpaceAction::Download).await?;
    let Some(blob) = &row.blob else {
        return Err(ApiError::unprocessable("Only staged droplets can be downloaded."));
    };
    let name = format!("droplet_{}.tgz", row.guid);
    let answer = match row.format.as_str() {
        "tar.gz" => download::blob(&context, blob, row.blob_size, GZIP, &name).await?,
        _ => download::as_gzip(&context, blob, GZIP, &name).await?,
    };
    let data = json!({ "droplet_guid": row.guid });
    note(&context, "audit.app.droplet.download", &caller.actor(), &app, data).await?;
    Ok(answer)
}

async fn receive(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    let (row, app) = with_app::<DropletRow>(&context, &caller, &guid, SpaceAction::Develop).await?;
    if row.state != "AWAITING_UPLOAD" {
        return Err(ApiError::unprocessable("Droplet may be uploaded only once. Create a new droplet to upload bits."));
    }
    let org = stored::check_others(&context, app.guid).await?;
    let bounds = upload::Bounds { bits: droplets::MAX_BYTES, resources: None };
    let parts = upload::receive(&context, org, bounds, request).await?;
    let actor = caller.actor();
    // In a task of its own: a client that hangs up does not free the place of what goes on.
    let work = tokio::spawn(async move {
        let _check_permit = context.uploads.checking().await?;
        let bits = parts.bits.ok_or_else(|| ApiError::unprocessable("A droplet file must be uploaded as 'bits'"))?;
        let name = parts.filename.as_deref().unwrap_or("The file");
        let job = droplets::receive(&context, &actor, &row, &bits, name).await?;
        drop((parts.directory, parts.permit));
        Ok::<Uuid, ApiError>(job)
    });
    let job = work.await.map_err(|error| ApiError::internal("finishing an upload", error))??;
    Ok(jobs::accepted(&base, job))
}
