//! Packages and resource matches.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api_types::common::Links;
use slipway_api_types::requests::ResourceMatches;
use slipway_api_types::views::PackageView;
use slipway_api_types::{MetadataPatch, ToOne};

use super::Router;
use super::apps::actions::AppRelationship;
use super::auth_extract::Caller;
use super::body::JsonBody;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::ListSpec;
use super::of_app::{self, Relabelled, Shown, by_guid, listed, of_app, with_app};
use super::permissions::SpaceAction;
use super::query::Query;
use super::{download, jobs, upload};
use crate::context::Context;
use crate::domain::lifecycle::note;
use crate::domain::metadata::{MetadataChange, metadata_of};
use crate::domain::packages::create::{self as domain, PackageCreate};
use crate::domain::packages::upload as received;
use crate::domain::stored;
use crate::store::metadata::Labelled;
use crate::store::packages::PackageRow;

/// Most entries of one question.
const MAX_MATCHES: usize = 5000;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/packages", get(of_app::list::<PackageRow>).post(create))
        .route(
            "/v3/packages/{guid}",
            get(of_app::one::<PackageRow>).patch(of_app::relabel::<PackageRow>).delete(delete),
        )
        .route("/v3/packages/{guid}/upload", post(receive).layer(DefaultBodyLimit::disable()))
        .route("/v3/packages/{guid}/download", get(fetch))
        .route("/v3/apps/{guid}/packages", get(of_app::list_of_app::<PackageRow>))
        .route("/v3/resource_matches", post(matches))
}

of_app!(PackageRow, "Package", package_get);

impl Shown for PackageRow {
    type View = PackageView;

    fn show(self, base: &BaseUrl) -> ApiResult<PackageView> {
        Ok(view(base, self))
    }
}

listed!(
    PackageRow,
    "packages",
    package_list(),
    ListSpec {
        filters: &["app_guids", "space_guids", "organization_guids", "states", "types"],
        labels: true,
        ..ListSpec::PLAIN
    }
);

impl Relabelled for PackageRow {
    const TABLE: Labelled = Labelled::Package;
}

fn view(base: &BaseUrl, row: PackageRow) -> PackageView {
    let own = format!("/v3/packages/{}", row.guid);
    let links = Links::from([
        ("self".to_owned(), base.link(&own)),
        ("upload".to_owned(), base.post(&format!("{own}/upload"))),
        ("download".to_owned(), base.link(&format!("{own}/download"))),
        ("app".to_owned(), base.link(&format!("/v3/apps/{}", row.app_guid))),
    ]);
    let mut data = Map::new();
    data.insert("error".to_owned(), json!(row.error));
    data.insert("checksum".to_owned(), json!({ "type": "sha256", "value": row.blob.as_ref().map(hex::encode) }));
    PackageView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        kind: row.kind,
        data,
        state: row.state,
        relationships: BTreeMap::from([("app".to_owned(), ToOne::to(row.app_guid))]),
        metadata: metadata_of(&row.labels, &row.annotations),
        links,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    relationships: AppRelationship,
    #[serde(default)]
    data: Option<Value>,
    metadata: Option<MetadataPatch>,
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
) -> ApiResult<(StatusCode, Json<PackageView>)> {
    let app = body.relationships.find(&context, &caller).await?;
    let source = match &query.source_guid {
        Some(guid) => Some(by_guid::<PackageRow>(&context, &caller, guid, SpaceAction::Develop).await?),
        None => None,
    };
    match body.kind.as_deref() {
        Some("bits") => {}
        None if source.is_some() => {}
        Some("docker") => {
            return Err(ApiError::unprocessable(
                "Packages of type 'docker' are not supported by this platform yet; push the source instead.",
            ));
        }
        _ => return Err(ApiError::unprocessable("Type must be one of 'bits', 'docker'")),
    }
    if body.data.as_ref().is_some_and(|data| data.as_object().is_none_or(|data| !data.is_empty())) {
        return Err(ApiError::unprocessable("Data must be empty if provided for bits packages"));
    }
    let wish = PackageCreate {
        app: app.guid,
        source: source.map(|source| source.guid),
        metadata: MetadataChange::check(body.metadata)?,
    };
    let row = domain::create(&context, &caller.actor(), wish).await?;
    Ok((StatusCode::CREATED, Json(view(&base, row))))
}

async fn delete(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Response> {
    let (row, app) = with_app::<PackageRow>(&context, &caller, &guid, SpaceAction::Develop).await?;
    let job = domain::delete(&context, &caller.actor(), &app, row.guid).await?;
    Ok(jobs::accepted(&base, job))
}

async fn receive(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    request: Request,
) -> ApiResult<Json<PackageView>> {
    let (row, app) = with_app::<PackageRow>(&context, &caller, &guid, SpaceAction::Develop).await?;
    super::feature_flags::require_for(&context, &caller, "app_bits_upload").await?;
    if row.state != "AWAITING_UPLOAD" {
        return Err(received::already_uploaded().into());
    }
    let org = stored::check_others(&context, app.guid).await?;
    let limits = &context.config.limits;
    let bounds = upload::Bounds { bits: limits.max_package_bytes, resources: Some(limits.max_package_files) };
    let mut parts = upload::receive(&context, org, bounds, request).await?;
    let readable = caller.downloadable_spaces(&context).await?;
    // In a task of its own: a client that hangs up now does not undo what it has sent, nor free the place of what goes on.
    let actor = caller.actor();
    let work = tokio::spawn(async move {
        let _check_permit = context.uploads.checking().await?;
        let resources = parts.resources()?;
        let received = received::Received { directory: parts.directory, bits: parts.bits, resources, readable };
        let row = received::finish(&context, &actor, &row, received).await?;
        drop(parts.permit);
        Ok::<PackageRow, ApiError>(row)
    });
    let row = work.await.map_err(|error| ApiError::internal("finishing an upload", error))??;
    Ok(Json(view(&base, row)))
}

async fn fetch(State(context): State<Context>, caller: Caller, Path(guid): Path<String>) -> ApiResult<Response> {
    let (row, app) = with_app::<PackageRow>(&context, &caller, &guid, SpaceAction::ReadSecrets).await?;
    let Some(blob) = &row.blob else { return Err(ApiError::unprocessable("Package has no bits to download.")) };
    let answer = download::blob(&context, blob, row.blob_size, "application/zip", "package.zip").await?;
    let data = json!({ "package_guid": row.guid });
    note(&context, "audit.app.package.download", &caller.actor(), &app, data).await?;
    Ok(answer)
}

async fn matches(
    State(context): State<Context>,
    caller: Caller,
    JsonBody(body): JsonBody<ResourceMatches>,
) -> ApiResult<(StatusCode, Json<ResourceMatches>)> {
    super::feature_flags::require_for(&context, &caller, "app_bits_upload").await?;
    if body.resources.is_empty() {
        return Err(ApiError::unprocessable("Resources must have at least 1 resource"));
    }
    if body.resources.len() > MAX_MATCHES {
        return Err(ApiError::unprocessable(format!("Array is limited to {MAX_MATCHES} resources")));
    }
    let bad = body.resources.iter().find(|entry| {
        entry.checksum.value.len() != 40 || !entry.checksum.value.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if let Some(bad) = bad {
        return Err(ApiError::unprocessable(format!(
            "The checksum {:?} of {:?} is not a SHA-1 in hex",
            bad.checksum.value.chars().take(80).collect::<String>(),
            bad.path
        )));
    }
    if !super::feature_flags::enabled(&context, "resource_matching").await? {
        // As if nothing were known: clients upload everything.
        return Ok((StatusCode::CREATED, Json(ResourceMatches::default())));
    }
    let readable = caller.downloadable_spaces(&context).await?;
    let known = received::lookup(&context, &readable, &body.resources).await?;
    // Clients parse the mode as octal, also where they sent none.
    let resources = body
        .resources
        .into_iter()
        .zip(known)
        .filter_map(|(mut entry, blob)| {
            blob?;
            if entry.mode.is_empty() {
                entry.mode = "644".to_owned();
            }
            Some(entry)
        })
        .collect();
    Ok((StatusCode::CREATED, Json(ResourceMatches { resources })))
}
