//! `/v3/organization_quotas`, `/v3/space_quotas`: made, changed, given, taken away, deleted; and the limits they set.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::apps::refused;
use crate::support::{TestClient, TestController};

fn guid(body: &Value) -> String {
    body["guid"].as_str().unwrap_or_else(|| panic!("a guid in {body}")).to_owned()
}

async fn patch(client: &TestClient, path: &str, body: Value) -> (reqwest::StatusCode, Value) {
    client.send(client.request(Method::PATCH, path).json(&body)).await
}

async fn quota(client: &TestClient, body: Value) -> String {
    let (status, body) = client.post("/v3/organization_quotas", body).await;
    assert_eq!(status, 201, "{body}");
    guid(&body)
}

#[tokio::test]
async fn an_organization_quota_is_created_changed_and_deleted() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, _) = controller.dev().await;
    let (_, default) = admin.get("/v3/organization_quotas?names=default").await;
    let default = &default["resources"][0];
    let limits = (&default["apps"]["total_memory_in_mb"], &default["routes"]["total_routes"]);
    assert_eq!(limits, (&json!(102_400), &json!(1000)), "as Cloud Foundry is deployed");
    assert_eq!(default["services"]["total_service_instances"], Value::Null);

    let (status, made) = admin
        .post(
            "/v3/organization_quotas",
            json!({
                "name": "small",
                "apps": { "total_memory_in_mb": 512, "log_rate_limit_in_bytes_per_second": null },
                "services": { "total_service_instances": 0 },
                "routes": { "total_routes": 5, "total_reserved_ports": 0 },
            }),
        )
        .await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["apps"]["total_memory_in_mb"], 512);
    assert_eq!(made["apps"]["total_instances"], Value::Null);
    assert_eq!(made["services"]["paid_services_allowed"], true);
    assert_eq!(made["domains"]["total_domains"], Value::Null);
    assert_eq!(made["relationships"]["organizations"]["data"], json!([]));
    let path = format!("/v3/organization_quotas/{}", guid(&made));

    let again = admin.post("/v3/organization_quotas", json!({ "name": "small" })).await;
    refused(&again, 422, &["Organization Quota 'small' already exists."]);
    refused(&admin.post("/v3/organization_quotas", json!({})).await, 422, &["Name can't be blank"]);
    let negative = json!({ "apps": { "total_instances": -1 } });
    refused(&patch(&admin, &path, negative).await, 422, &["must be greater than or equal to 0"]);

    let (status, changed) =
        patch(&admin, &path, json!({ "name": "tiny", "apps": { "total_memory_in_mb": null, "per_app_tasks": 3 } }))
            .await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!((&changed["name"], &changed["apps"]["per_app_tasks"]), (&json!("tiny"), &json!(3)));
    assert_eq!(changed["apps"]["total_memory_in_mb"], Value::Null);
    assert_eq!(changed["routes"]["total_routes"], 5, "what was not mentioned stays");

    let apply = format!("{path}/relationships/organizations");
    let nobody = Uuid::new_v4();
    let (status, body) = admin.post(&apply, json!({ "data": [{ "guid": nobody }] })).await;
    assert_eq!(status, 422, "{body}");
    assert_eq!(body["errors"][0]["detail"], format!("Organizations with guids [\"{nobody}\"] do not exist"));
    let (status, body) = admin.post(&apply, json!({ "data": [{ "guid": org }] })).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"][0]["guid"], org.to_string());
    let (_, found) = admin.get(&format!("/v3/organization_quotas?organization_guids={org}")).await;
    assert_eq!(found["resources"][0]["name"], "tiny");
    assert_eq!(found["pagination"]["total_results"], 1);
    let (_, shown) = admin.get(&format!("/v3/organizations/{org}")).await;
    assert_eq!(shown["relationships"]["quota"]["data"]["guid"], made["guid"]);

    let delete = |path: String| admin.send(admin.request(Method::DELETE, &path));
    refused(&delete(path.clone()).await, 422, &["applied to one or more organizations"]);
    let (_, default) = admin.get("/v3/organization_quotas?names=default").await;
    let default = guid(&default["resources"][0]);
    refused(&delete(format!("/v3/organization_quotas/{default}")).await, 422, &["default"]);
    let back = format!("/v3/organization_quotas/{default}/relationships/organizations");
    assert_eq!(admin.post(&back, json!({ "data": [{ "guid": org }] })).await.0, 200);
    let job = admin.job(admin.request(Method::DELETE, &path)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(admin.get(&path).await.0, 404);

    // A renamed default is still the one of new organizations.
    let renamed = patch(&admin, &format!("/v3/organization_quotas/{default}"), json!({ "name": "standard" })).await;
    assert_eq!(renamed.0, 200);
    let (status, made) = admin.post("/v3/organizations", json!({ "name": "new" })).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["relationships"]["quota"]["data"]["guid"], default);
}

#[tokio::test]
async fn only_administrators_make_organization_quotas() {
    let controller = TestController::start().await;
    let manager = controller.user_with("boss@example.com", "organization_manager").await;
    let other = controller.user("guest@example.com").await;
    let admin = controller.admin().await;
    quota(&admin, json!({ "name": "unused" })).await;
    refused(&manager.post("/v3/organization_quotas", json!({ "name": "x" })).await, 403, &[]);
    let (org, _) = controller.dev().await;
    let applied = format!("/v3/organization_quotas?organization_guids={org}");
    for (client, all, own) in [(&manager, 2, 1), (&other, 2, 0)] {
        assert_eq!(client.get("/v3/organization_quotas").await.1["pagination"]["total_results"], all);
        assert_eq!(client.get(&applied).await.1["pagination"]["total_results"], own, "whose organization it is");
    }
}

#[tokio::test]
async fn a_space_quota_is_created_changed_and_deleted() {
    let controller = TestController::start().await;
    let manager = controller.user_with("boss@example.com", "organization_manager").await;
    let developer = controller.user_with("dev@example.com", "space_developer").await;
    let (org, space) = controller.dev().await;
    let owner = json!({ "organization": { "data": { "guid": org } } });
    let wish = json!({ "name": "team", "apps": { "total_memory_in_mb": 64 }, "relationships": owner });
    refused(&developer.post("/v3/space_quotas", wish.clone()).await, 403, &[]);
    let (status, made) = manager.post("/v3/space_quotas", wish.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["relationships"]["organization"]["data"]["guid"], org.to_string());
    assert_eq!(made["domains"], Value::Null);
    refused(&manager.post("/v3/space_quotas", wish).await, 422, &["Space Quota 'team' already exists."]);
    refused(&manager.post("/v3/space_quotas", json!({ "name": "x" })).await, 422, &["Organization"]);
    let path = format!("/v3/space_quotas/{}", guid(&made));
    assert_eq!(developer.get(&path).await.0, 404, "a quota of no space of the developer's");

    let (status, body) =
        manager.post(&format!("{path}/relationships/spaces"), json!({ "data": [{ "guid": space }] })).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"][0]["guid"], space.to_string());
    assert_eq!(developer.get(&path).await.0, 200);
    let (_, found) = manager.get(&format!("/v3/space_quotas?space_guids={space}&organization_guids={org}")).await;
    assert_eq!(found["resources"][0]["name"], "team");

    let admin = controller.admin().await;
    let (_, foreign) = admin.post("/v3/organizations", json!({ "name": "foreign" })).await;
    let wish = json!({ "name": "far", "relationships": { "organization": { "data": { "guid": foreign["guid"] } } } });
    let (_, other) = admin.post("/v3/spaces", json!({ "name": "s", "relationships": wish["relationships"] })).await;
    let outside = json!({ "data": [{ "guid": other["guid"] }] });
    let answer = admin.post(&format!("{path}/relationships/spaces"), outside.clone()).await;
    refused(&answer, 422, &["cannot be applied outside of their owning organization"]);
    refused(&manager.post(&format!("{path}/relationships/spaces"), outside).await, 422, &["do not exist"]);

    refused(&manager.send(manager.request(Method::DELETE, &path)).await, 422, &["applied to one or more spaces"]);
    let unset = format!("{path}/relationships/spaces/{space}");
    assert_eq!(manager.send(manager.request(Method::DELETE, &unset)).await.0, 204);
    refused(&manager.send(manager.request(Method::DELETE, &unset)).await, 422, &["Ensure the space quota is applied"]);
    let job = manager.job(manager.request(Method::DELETE, &path)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(manager.get(&path).await.0, 404);
}

#[tokio::test]
async fn limits_hold_from_the_moment_they_are_set() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (org, _) = controller.dev().await;
    let quota = quota(
        &admin,
        json!({ "name": "tight", "apps": { "per_app_tasks": 0 }, "routes": { "total_routes": 1 },
                "domains": { "total_domains": 1 } }),
    )
    .await;
    let path = format!("/v3/organization_quotas/{quota}");
    let apply = json!({ "data": [{ "guid": org }] });
    assert_eq!(admin.post(&format!("{path}/relationships/organizations"), apply).await.0, 200);

    let task = client.post(&format!("/v3/apps/{app}/tasks"), json!({ "command": "true" })).await;
    refused(&task, 422, &["allows 0 tasks"]);
    let domain = |name: &str| json!({ "name": name, "relationships": { "organization": { "data": { "guid": org } } } });
    let (status, body) = admin.post("/v3/domains", domain("one.test")).await;
    assert_eq!(status, 201, "{body}");
    let text = "The number of private domains exceeds the quota for organization \"dev\"";
    refused(&admin.post("/v3/domains", domain("two.test")).await, 422, &[text]);

    // The app's log rate has no limit, so no quota may bring one.
    let limited = json!({ "apps": { "log_rate_limit_in_bytes_per_second": 1000 } });
    refused(&patch(&admin, &path, limited.clone()).await, 422, &["org 'dev' which contains apps"]);
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let rate = json!({ "log_rate_limit_in_bytes_per_second": 600 });
    assert_eq!(client.post(&scale, rate).await.0, 202);
    assert_eq!(patch(&admin, &path, limited).await.0, 200);
    let more = json!({ "instances": 2 });
    refused(&client.post(&scale, more).await, 422, &["allows 1000 bytes per second", "1200 bytes per second"]);
    let free = json!({ "log_rate_limit_in_bytes_per_second": -1 });
    refused(&client.post(&scale, free).await, 422, &["has no limit of its log rate"]);
}

#[tokio::test]
async fn usage_is_shown() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (org, space) = controller.dev().await;
    let (status, task) =
        client.post(&format!("/v3/apps/{app}/tasks"), json!({ "command": "true", "memory_in_mb": 32 })).await;
    assert_eq!(status, 202, "{task}");
    for path in [format!("/v3/organizations/{org}/usage_summary"), format!("/v3/spaces/{space}/usage_summary")] {
        let (status, body) = client.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let usage = &body["usage_summary"];
        assert_eq!((&usage["started_instances"], &usage["memory_in_mb"]), (&json!(1), &json!(96)), "{usage}");
        assert_eq!((&usage["routes"], &usage["per_app_tasks"]), (&json!(1), &json!(1)), "{usage}");
    }
}
