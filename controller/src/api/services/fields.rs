//! `fields[a.b]=x,y` of service instances and shares: named members of parents, under `included`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::auth_extract::Caller;
use crate::api::error::{ApiError, ApiResult};
use crate::context::Context;

/// Parents and the members that may be asked of them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("space", &["guid", "name", "relationships.organization"]),
    ("space.organization", &["name", "guid"]),
    ("service_plan", &["guid", "name", "relationships.service_offering"]),
    (
        "service_plan.service_offering",
        &["name", "guid", "description", "documentation_url", "tags", "relationships.service_broker"],
    ),
    ("service_plan.service_offering.service_broker", &["name", "guid"]),
];

/// The parameters, for lists.
pub const PARAMETERS: &[&str] = &[
    "fields[space]",
    "fields[space.organization]",
    "fields[service_plan]",
    "fields[service_plan.service_offering]",
    "fields[service_plan.service_offering.service_broker]",
];

/// The parameters of what has no plan.
pub const OF_SPACES: &[&str] = &["fields[space]", "fields[space.organization]"];

fn asked<'q>(query: &'q BTreeMap<String, String>, parent: &str) -> ApiResult<Option<Vec<&'q str>>> {
    let Some(text) = query.get(&format!("fields[{parent}]")) else { return Ok(None) };
    let allowed = ALLOWED.iter().find(|(name, _)| *name == parent).map(|(_, members)| *members).unwrap_or_default();
    let members: Vec<&str> = text.split(',').collect();
    if members.iter().any(|member| !allowed.contains(member)) {
        let quoted: Vec<String> = allowed.iter().map(|member| format!("'{member}'")).collect();
        return Err(ApiError::bad_query(format!(
            "The query parameter is invalid: Fields valid values are: {} for '{parent}'",
            quoted.join(", ")
        )));
    }
    Ok(Some(members))
}

/// What was asked for, of these spaces; `None` when nothing was. Plans, offerings and brokers are checked and left
/// out: what a developer provides has none.
///
/// # Errors
/// 400 naming the members that are possible.
pub async fn included(
    context: &Context,
    caller: &Caller,
    query: &BTreeMap<String, String>,
    spaces: &[Uuid],
) -> ApiResult<Option<Map<String, Value>>> {
    for (parent, _) in ALLOWED.iter().skip(2) {
        asked(query, parent)?;
    }
    let (of_space, of_org) = (asked(query, "space")?, asked(query, "space.organization")?);
    if of_space.is_none() && of_org.is_none() {
        return Ok(None);
    }
    let rows = context.store.spaces_with_orgs(spaces).await?;
    let mut included = Map::new();
    if let Some(members) = of_space {
        let visible = caller.visible_spaces(context).await?;
        let views = rows.iter().map(|row| {
            let mut view = Map::new();
            if members.contains(&"guid") {
                view.insert("guid".to_owned(), json!(row.guid));
            }
            // The name of a space that the caller has no role in is not the caller's to know.
            if members.contains(&"name") && visible.contains(row.guid) {
                view.insert("name".to_owned(), json!(row.name));
            }
            if members.contains(&"relationships.organization") {
                let relationships = json!({ "organization": { "data": { "guid": row.org_guid } } });
                view.insert("relationships".to_owned(), relationships);
            }
            Value::Object(view)
        });
        included.insert("spaces".to_owned(), views.collect());
    }
    if let Some(members) = of_org {
        let visible = caller.visible_orgs(context).await?;
        let mut seen = std::collections::HashSet::new();
        let views = rows.iter().filter(|row| seen.insert(row.org_guid)).map(|row| {
            let mut view = Map::new();
            if members.contains(&"name") && visible.contains(row.org_guid) {
                view.insert("name".to_owned(), json!(row.org_name));
            }
            if members.contains(&"guid") {
                view.insert("guid".to_owned(), json!(row.org_guid));
            }
            Value::Object(view)
        });
        included.insert("organizations".to_owned(), views.collect());
    }
    Ok(Some(included))
}
