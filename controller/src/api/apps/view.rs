//! Apps as clients see them.

use std::collections::BTreeMap;

use serde_json::{Map, json};
use slipway_api_types::common::Links;
use slipway_api_types::views::{AppView, Lifecycle};
use slipway_api_types::{Link, ToOne};

use crate::api::links::BaseUrl;
use crate::domain::metadata::metadata_of;
use crate::store::apps::AppRow;

/// An app.
#[must_use]
pub fn app(base: &BaseUrl, row: AppRow) -> AppView {
    let own = format!("/v3/apps/{}", row.guid);
    let at = |name: &str, path: &str| (name.to_owned(), base.link(&format!("{own}{path}")));
    let post = |name: &str, path: &str| (name.to_owned(), base.post(&format!("{own}{path}")));
    let links: Links = [
        at("self", ""),
        at("environment_variables", "/environment_variables"),
        ("space".to_owned(), base.link(&format!("/v3/spaces/{}", row.space_guid))),
        at("processes", "/processes"),
        at("packages", "/packages"),
        at("current_droplet", "/droplets/current"),
        at("droplets", "/droplets"),
        at("tasks", "/tasks"),
        post("start", "/actions/start"),
        post("stop", "/actions/stop"),
        post("clear_buildpack_cache", "/actions/clear_buildpack_cache"),
        at("revisions", "/revisions"),
        at("deployed_revisions", "/revisions/deployed"),
        at("features", "/features"),
    ]
    .into_iter()
    .collect::<BTreeMap<String, Link>>();
    let mut data = Map::new();
    data.insert("buildpacks".to_owned(), json!(row.lifecycle_buildpacks));
    data.insert("stack".to_owned(), json!(row.lifecycle_stack));
    let relationships = BTreeMap::from([
        ("space".to_owned(), ToOne::to(row.space_guid)),
        ("current_droplet".to_owned(), ToOne::maybe(row.droplet_guid)),
    ]);
    AppView {
        guid: row.guid.to_string(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        name: row.name,
        state: row.state,
        lifecycle: Lifecycle { kind: row.lifecycle_type, data },
        relationships,
        metadata: metadata_of(&row.labels, &row.annotations),
        links,
    }
}
