//! `/v3/isolation_segments`: made, entitled, used, revoked, deleted; and where apps may run by it.

use serde_json::{Value, json};
use slipway_controller::store::placement::PgPlacement;
use slipway_placement::PlacementStore as _;

use crate::support::TestController;
use crate::support::apps::refused;

const SHARED: &str = "/v3/isolation_segments/933b4c58-120b-499a-b85d-4b6fc9e2903b";

fn one(guid: impl serde::Serialize) -> Value {
    json!({ "data": { "guid": guid } })
}

#[tokio::test]
async fn an_isolation_segment_is_created_changed_and_deleted() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let developer = controller.user_with("dev@example.com", "space_developer").await;
    let (_, shared) = admin.get(SHARED).await;
    assert_eq!(shared["name"], "shared", "{shared}");
    refused(&admin.patch(SHARED, json!({ "name": "x" })).await, 422, &["Cannot update the shared Isolation Segment"]);
    refused(&admin.delete(SHARED).await, 422, &["Cannot delete the shared Isolation Segment"]);

    let (status, made) = admin.post("/v3/isolation_segments", json!({ "name": "Secure" })).await;
    assert_eq!(status, 201, "{made}");
    let guid = made["guid"].as_str().expect("a guid").to_owned();
    let path = format!("/v3/isolation_segments/{guid}");
    let again = admin.post("/v3/isolation_segments", json!({ "name": "secure" })).await;
    refused(&again, 422, &["Isolation Segment names are case insensitive and must be unique"]);
    refused(&admin.post("/v3/isolation_segments", json!({ "name": " " })).await, 422, &["non-blank"]);
    refused(&developer.post("/v3/isolation_segments", json!({ "name": "x" })).await, 403, &[]);
    assert_eq!(developer.get(&path).await.0, 404);

    let default = format!("/v3/organizations/{org}/relationships/default_isolation_segment");
    let of_space = format!("/v3/spaces/{space}/relationships/isolation_segment");
    refused(&admin.patch(&default, one(&guid)).await, 422, &["Ensure it has been entitled to the organization."]);
    refused(&admin.patch(&of_space, one(&guid)).await, 422, &["that this space belongs to"]);
    let entitle = format!("{path}/relationships/organizations");
    let answer = admin.post(&entitle, json!({ "data": [{ "guid": "nobody" }] })).await;
    refused(&answer, 422, &["Unable to entitle organizations ['nobody']"]);
    let (status, body) = admin.post(&entitle, json!({ "data": [{ "guid": org }] })).await;
    assert_eq!((status.as_u16(), &body["data"][0]["guid"]), (200, &json!(org)), "{body}");
    assert_eq!(developer.get(&path).await.0, 200);
    assert_eq!(admin.get(&format!("{path}/organizations")).await.1["resources"][0]["name"], "dev");
    let (_, found) = admin.get(&format!("/v3/isolation_segments?organization_guids={org}")).await;
    assert_eq!(found["resources"][0]["name"], "Secure");

    let (status, body) = admin.patch(&default, one(&guid)).await;
    assert_eq!((status.as_u16(), &body["data"]["guid"]), (200, &json!(guid)), "{body}");
    assert_eq!(admin.patch(&of_space, one(&guid)).await.0, 200);
    assert_eq!(admin.get(&format!("{path}/relationships/spaces")).await.1["data"][0]["guid"], json!(space));
    refused(&admin.patch(&path, json!({ "name": "x" })).await, 422, &["assigned as the default"]);
    refused(&admin.delete(&path).await, 422, &["Revoke the Organization entitlements"]);
    let revoke = format!("{entitle}/{org}");
    refused(&admin.delete(&revoke).await, 422, &["assigned as the Default Isolation Segment for the Organization."]);
    assert_eq!(admin.patch(&default, json!({ "data": null })).await.1["data"], Value::Null);
    refused(&admin.delete(&revoke).await, 422, &["Currently assigned to: 'dev'"]);
    assert_eq!(admin.patch(&of_space, json!({ "data": null })).await.0, 200);
    assert_eq!(admin.delete(&revoke).await.0, 204);
    let (status, renamed) = admin.patch(&path, json!({ "name": "quiet" })).await;
    assert_eq!((status.as_u16(), &renamed["name"]), (200, &json!("quiet")), "{renamed}");
    assert_eq!(admin.delete(&path).await.0, 204);
    assert_eq!(admin.get(&path).await.0, 404);
}

#[tokio::test]
async fn spaces_decide_where_apps_run() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    controller.pushed(&client, "web").await;
    let (org, space) = controller.dev().await;
    let placement = PgPlacement::new(controller.database.pool.clone());
    let segment = || async { placement.snapshot_for_planning().await.expect("a snapshot").wanted.remove(0).segment };
    assert_eq!(segment().await, None);
    let (_, made) = admin.post("/v3/isolation_segments", json!({ "name": "secure" })).await;
    let path = format!("/v3/isolation_segments/{}/relationships/organizations", made["guid"].as_str().expect("a guid"));
    for entitle in [path, format!("{SHARED}/relationships/organizations")] {
        assert_eq!(admin.post(&entitle, json!({ "data": [{ "guid": org }] })).await.0, 200);
    }
    let default = format!("/v3/organizations/{org}/relationships/default_isolation_segment");
    let (_, now) = admin.get(&default).await;
    assert!(SHARED.ends_with(now["data"]["guid"].as_str().expect("a default")), "the shared one became the default");
    assert_eq!(segment().await, None, "which is none");
    assert_eq!(admin.patch(&default, one(&made["guid"])).await.0, 200);
    assert_eq!(segment().await.as_deref(), Some("secure"));
    let of_space = format!("/v3/spaces/{space}/relationships/isolation_segment");
    let shared = SHARED.rsplit('/').next().expect("a guid");
    assert_eq!(admin.patch(&of_space, one(shared)).await.0, 200);
    assert_eq!(segment().await, None, "the space's own comes first");
}
