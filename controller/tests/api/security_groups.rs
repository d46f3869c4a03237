//! `/v3/security_groups`: made, changed, bound, read, deleted; and what cells are told of it.

use serde_json::{Value, json};
use slipway_api_types::CellId;
use slipway_controller::store::placement::PgPlacement;
use slipway_placement::PlacementStore as _;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1;
use uuid::Uuid;

use crate::support::apps::refused;
use crate::support::{TestClient, TestController};

fn tcp(destination: &str) -> Value {
    json!([{ "protocol": "tcp", "destination": destination, "ports": "443" }])
}

async fn made(admin: &TestClient, name: &str, rules: Value) -> String {
    let (status, body) = admin.post("/v3/security_groups", json!({ "name": name, "rules": rules })).await;
    assert_eq!(status, 201, "{body}");
    format!("/v3/security_groups/{}", body["guid"].as_str().expect("a guid"))
}

async fn names(client: &TestClient, path: &str) -> Vec<String> {
    let (status, body) = client.get(path).await;
    assert_eq!(status, 200, "{body}");
    let resources = body["resources"].as_array().expect("a list");
    resources.iter().map(|group| group["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_security_group_is_created_changed_and_deleted() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let (status, body) = admin.post("/v3/security_groups", json!({ "name": "empty" })).await;
    assert_eq!((status.as_u16(), &body["rules"]), (201, &json!([])), "{body}");
    assert_eq!(body["globally_enabled"], json!({ "running": false, "staging": false }));
    let again = admin.post("/v3/security_groups", json!({ "name": "empty" })).await;
    refused(&again, 422, &["Security group with name 'empty' already exists."]);
    let bad = json!({ "name": "bad", "rules": [{ "protocol": "tcp", "destination": "x", "ports": "99999" }] });
    refused(
        &admin.post("/v3/security_groups", bad).await,
        422,
        &["Rules[0]: destination must", "Rules[0]: ports must"],
    );
    let bad = json!({ "name": "bad", "globally_enabled": { "walking": true } });
    refused(&admin.post("/v3/security_groups", bad).await, 422, &["only allows keys 'running' or 'staging'"]);
    let bad = json!({ "name": "bad", "relationships": { "running_spaces": { "data": [{ "guid": Uuid::new_v4() }] } } });
    refused(&admin.post("/v3/security_groups", bad).await, 422, &["do not exist."]);

    let path = made(&admin, "web", tcp("192.0.2.1")).await;
    let change = json!({ "name": "web2", "globally_enabled": { "staging": true }, "rules": tcp("192.0.2.2") });
    let (status, body) = admin.patch(&path, change).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["name"], &body["rules"][0]["destination"]), (&json!("web2"), &json!("192.0.2.2")));
    assert_eq!(body["globally_enabled"], json!({ "running": false, "staging": true }));
    assert!(names(&admin, "/v3/security_groups?globally_enabled_staging=true").await.contains(&"web2".to_owned()));
    assert!(!names(&admin, "/v3/security_groups?globally_enabled_running=true").await.contains(&"web2".to_owned()));
    refused(&admin.get("/v3/security_groups?globally_enabled_running=maybe").await, 400, &["'true' or 'false'"]);

    let bind = format!("{path}/relationships/running_spaces");
    let (status, body) = admin.post(&bind, json!({ "data": [{ "guid": space }] })).await;
    assert_eq!((status.as_u16(), &body["data"][0]["guid"]), (200, &json!(space)), "{body}");
    refused(&admin.post(&bind, json!({ "data": [{ "guid": "nobody" }] })).await, 422, &["\"nobody\"", "do not exist"]);
    assert_eq!(names(&admin, &format!("/v3/security_groups?running_space_guids={space}")).await, ["web2"]);
    assert!(names(&admin, &format!("/v3/security_groups?staging_space_guids={space}")).await.is_empty());
    let mut in_space = names(&admin, &format!("/v3/spaces/{space}/running_security_groups")).await;
    in_space.sort();
    assert_eq!(in_space, ["dns", "public_networks", "web2"], "the global ones hold too");
    let unbind = format!("{bind}/{space}");
    assert_eq!(admin.delete(&unbind).await.0, 204);
    refused(&admin.delete(&unbind).await, 422, &["Ensure the space is bound to this security group."]);

    let job = admin.delete_job(&path).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(admin.get(&path).await.0, 404);
}

#[tokio::test]
async fn who_may_do_what() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let manager = controller.user_with("boss@example.com", "space_manager").await;
    let developer = controller.user_with("dev@example.com", "space_developer").await;
    let path = made(&admin, "hidden", tcp("192.0.2.1")).await;
    let bind = format!("{path}/relationships/staging_spaces");
    let here = json!({ "data": [{ "guid": space }] });
    refused(&developer.post("/v3/security_groups", json!({ "name": "x" })).await, 403, &[]);
    assert_eq!(developer.get(&path).await.0, 404, "it holds in no space of the developer's");
    assert_eq!(manager.post(&bind, here.clone()).await.0, 404);
    assert_eq!(admin.post(&bind, here.clone()).await.0, 200);
    assert_eq!(developer.get(&path).await.0, 200);
    refused(&developer.post(&bind, here.clone()).await, 403, &[]);
    refused(&manager.patch(&path, json!({ "name": "mine" })).await, 403, &[]);
    assert_eq!(manager.post(&format!("{path}/relationships/running_spaces"), here).await.0, 200);
    assert_eq!(manager.delete(&format!("{bind}/{space}")).await.0, 204);
}

#[tokio::test]
async fn cells_get_changed_policies_at_once_by_content() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    let pool = controller.database.pool.clone();
    let cell = CellId(Uuid::new_v4());
    sqlx::query("insert into cell (id, zone, memory_mb, disk_mb, slots) values ($1, 'z', 1024, 1024, 10)")
        .bind(cell.0)
        .execute(&pool)
        .await
        .expect("a cell");
    sqlx::query(
        "insert into assignment (id, group_id, app_id, index, spec, kind, cell, slot, seq)
         select gen_random_uuid(), p.guid, p.app_guid, 0, p.spec, 'lrp', $1, 1, 1 from process p
         where app_guid = $2 and type = 'web'",
    )
    .bind(cell.0)
    .bind(app.parse::<Uuid>().expect("a guid"))
    .execute(&pool)
    .await
    .expect("an assignment");
    let placement = PgPlacement::new(pool);
    let policy_of_cell = || async {
        let set = placement.cell_set(cell).await.expect("a set");
        assert_eq!(set.policies.len(), 1);
        assert_eq!(set.assignments[0].egress_policy, set.policies[0].id);
        let policy: v1::EgressPolicy = prost::Message::decode(set.policies[0].body.clone()).expect("a policy");
        let destinations: Vec<String> = policy.rules.into_iter().map(|rule| rule.destination).collect();
        (set.version, SetDigest::of_assignments(&set.assignments), destinations)
    };
    let (version, digest, destinations) = policy_of_cell().await;
    assert!(destinations.contains(&"0.0.0.0-9.255.255.255".to_owned()), "public networks by default: {destinations:?}");
    assert!(!destinations.iter().any(|destination| destination.starts_with("10.")), "{destinations:?}");

    let path = made(&admin, "inside", tcp("10.1.2.3")).await;
    assert_eq!(policy_of_cell().await.1, digest, "a group that holds nowhere changes nothing for the cell");
    let bind = format!("{path}/relationships/running_spaces");
    assert_eq!(admin.post(&bind, json!({ "data": [{ "guid": space }] })).await.0, 200);
    let bound = policy_of_cell().await;
    assert!(bound.0 > version && bound.1 != digest && bound.2.contains(&"10.1.2.3".to_owned()), "{bound:?}");
    assert_eq!(admin.patch(&path, json!({ "rules": tcp("10.9.9.9") })).await.0, 200);
    let changed = policy_of_cell().await;
    assert!(changed.0 > bound.0 && changed.1 != bound.1 && changed.2.contains(&"10.9.9.9".to_owned()), "{changed:?}");
    assert_eq!(admin.delete_job(&path).await["state"], "COMPLETE");
    let after = policy_of_cell().await;
    assert!(after.0 > changed.0, "cells hear of the deletion");
    assert_eq!(after.1, digest, "and are back where they were");
}
