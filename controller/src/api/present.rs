//! Parents of resources, for `include`.

use serde_json::{Value, json};
use slipway_api_types::Timestamp;
use uuid::Uuid;

use super::error::ApiResult;
use super::links::BaseUrl;
use crate::context::Context;
use crate::domain::metadata::metadata_of;

/// These spaces and their organizations, each once.
///
/// # Errors
/// When the database fails.
pub async fn parents(context: &Context, base: &BaseUrl, spaces: &[Uuid]) -> ApiResult<(Vec<Value>, Vec<Value>)> {
    let rows = context.store.spaces_with_orgs(spaces).await?;
    let mut orgs: Vec<Value> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for row in rows {
        found.push(json!({
            "guid": row.guid, "name": row.name, "suspended": row.suspended,
            "created_at": Timestamp(row.created_at), "updated_at": Timestamp(row.updated_at),
            "relationships": { "organization": { "data": { "guid": row.org_guid } },
                               "quota": { "data": row.quota_guid.map(|guid| json!({ "guid": guid })) } },
            "metadata": metadata_of(&row.labels, &row.annotations),
            "links": { "self": base.link(&format!("/v3/spaces/{}", row.guid)) },
        }));
        if seen.insert(row.org_guid) {
            orgs.push(json!({
                "guid": row.org_guid, "name": row.org_name, "suspended": row.suspended,
                "created_at": Timestamp(row.org_created_at), "updated_at": Timestamp(row.org_updated_at),
                "relationships": { "quota": { "data": { "guid": row.org_quota_guid } } },
                "metadata": metadata_of(&row.org_labels, &row.org_annotations),
                "links": { "self": base.link(&format!("/v3/organizations/{}", row.org_guid)) },
            }));
        }
    }
    Ok((found, orgs))
}
