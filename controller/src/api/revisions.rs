//! Revisions of an app.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde_json::{Value, json};
use slipway_api_types::{Page, Timestamp};

use super::Router;
use super::apps::find;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::links::BaseUrl;
use super::list::{ListQuery, ListSpec};
use super::of_app::{self, Relabelled, Shown, by_guid, of_app};
use super::permissions::SpaceAction;
use crate::context::Context;
use crate::domain::metadata::metadata_of;
use crate::domain::revisions;
use crate::store::metadata::Labelled;
use crate::store::revisions::RevisionRow;

const LIST: ListSpec = ListSpec { filters: &["versions", "deployable"], labels: true, ..ListSpec::PLAIN };

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/v3/apps/{guid}/revisions", get(list))
        .route("/v3/apps/{guid}/revisions/deployed", get(deployed))
        .route("/v3/revisions/{guid}", get(of_app::one::<RevisionRow>).patch(of_app::relabel::<RevisionRow>))
        .route("/v3/revisions/{guid}/environment_variables", get(variables))
}

of_app!(RevisionRow, "Revision", revision_get);

impl Shown for RevisionRow {
    type View = Value;

    fn show(self, base: &BaseUrl) -> ApiResult<Value> {
        Ok(view(base, &self))
    }
}

impl Relabelled for RevisionRow {
    const TABLE: Labelled = Labelled::Revision;
}

fn view(base: &BaseUrl, row: &RevisionRow) -> Value {
    let own = format!("/v3/revisions/{}", row.guid);
    let commands: BTreeMap<&String, Value> = row
        .commands
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, command)| (kind, json!({ "command": command })))
        .collect();
    json!({
        "guid": row.guid,
        "version": row.version,
        "droplet": { "guid": row.droplet_guid },
        "processes": commands,
        "sidecars": row.sidecars,
        "description": row.description,
        "deployable": row.deployable,
        "served": row.served,
        "relationships": { "app": { "data": { "guid": row.app_guid } } },
        "created_at": Timestamp(row.created_at),
        "updated_at": Timestamp(row.updated_at),
        "metadata": metadata_of(&row.labels, &row.annotations),
        "links": {
            "self": base.link(&own),
            "app": base.link(&format!("/v3/apps/{}", row.app_guid)),
            "environment_variables": base.link(&format!("{own}/environment_variables")),
        },
    })
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &LIST)?;
    if let Some(values) = query.options.filter("deployable")
        && values.iter().any(|value| value != "true" && value != "false")
    {
        return Err(ApiError::bad_query("The query parameter is invalid: Deployable must be a boolean"));
    }
    let (rows, total) = context.store.revision_list(&query.options, app.guid, false).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, &format!("/v3/apps/{}/revisions", app.guid), total, views)))
}

async fn deployed(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Page<Value>>> {
    let app = find(&context, &caller, &guid, SpaceAction::Read).await?;
    let query = ListQuery::parse(query.as_deref(), &ListSpec::PLAIN)?;
    let (rows, total) = context.store.revision_list(&query.options, app.guid, true).await?;
    let views = rows.iter().map(|row| view(&base, row)).collect();
    Ok(Json(query.page(&base, &format!("/v3/apps/{}/revisions/deployed", app.guid), total, views)))
}

async fn variables(
    State(context): State<Context>,
    caller: Caller,
    base: BaseUrl,
    Path(guid): Path<String>,
) -> ApiResult<Json<Value>> {
    let row: RevisionRow = by_guid(&context, &caller, &guid, SpaceAction::ReadSecrets).await?;
    let var = revisions::show_environment(&context, &caller.actor(), &row).await?;
    let own = format!("/v3/revisions/{}", row.guid);
    Ok(Json(json!({
        "var": var,
        "links": {
            "self": base.link(&format!("{own}/environment_variables")),
            "revision": base.link(&own),
            "app": base.link(&format!("/v3/apps/{}", row.app_guid)),
        },
    })))
}
