//! Routes: made, mapped and proven, and where they lead.

use std::sync::PoisonError;

use crate::support::apps::{action, refused};
use crate::support::{TestClient, TestController, error};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_controller::context::Proof;
use uuid::Uuid;

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

async fn domain(client: &TestClient) -> String {
    let (_, domains) = client.get("/v3/domains?names=apps.slipway.test").await;
    domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned()
}

pub(crate) async fn route(client: &TestClient, space: Uuid, host: &str) -> (StatusCode, Value) {
    let relationships = json!({ "space": to_one(space), "domain": to_one(domain(client).await) });
    client.post("/v3/routes", json!({ "host": host, "relationships": relationships })).await
}

#[tokio::test]
async fn routes_are_made_mapped_and_proven() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let (status, made) = route(&admin, space, "Web").await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["url"], "Web.apps.slipway.test");
    assert!(made.get("options").is_none());
    let (status, body) = route(&admin, space, "web").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&body).1, "Route already exists with host 'web' for domain 'apps.slipway.test'.");
    assert_eq!(route(&admin, space, "a b").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(route(&admin, Uuid::new_v4(), "x").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let domain = domain(&admin).await;
    for (query, hits) in [("hosts=web&paths=", 1), ("hosts=&paths=", 0), ("hosts=web&paths=%2Fx", 0)] {
        let (_, page) = admin.get(&format!("/v3/routes?domain_guids={domain}&{query}")).await;
        assert_eq!(page["pagination"]["total_results"], hits, "{query}");
    }

    let path = format!("/v3/routes/{}/destinations", made["guid"].as_str().expect("a guid"));
    let app = controller.bare_app(space, "app").await;
    let body = json!({ "destinations": [{ "app": { "guid": app } }] });
    let response = admin.request(Method::POST, &path).json(&body).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("x-cf-warnings"));
    let answer: Value = response.json().await.expect("json");
    assert_eq!(answer["destinations"][0]["app"]["process"]["type"], "web");
    assert_eq!(controller.routers.waited_for.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    let (_, listed) = admin.get(&format!("/v3/apps/{app}/routes")).await;
    assert_eq!(listed["resources"][0]["guid"], made["guid"]);

    // Again: nothing changes. A laggard is named.
    *controller.routers.proof.lock().unwrap_or_else(PoisonError::into_inner) =
        Proof::Lagging(vec!["r1, slow".to_owned()]);
    let response = admin.request(Method::POST, &path).json(&body).send().await.expect("an answer");
    let warning = response.headers()["x-cf-warnings"].to_str().expect("text").to_owned();
    assert!(warning.contains("r1%2C+slow"), "{warning}");
    let answer: Value = response.json().await.expect("json");
    assert_eq!(answer["destinations"].as_array().map(Vec::len), Some(1));

    // An app of another space, and one that is not there.
    let (_, other) =
        admin.post("/v3/spaces", json!({ "name": "other", "relationships": { "organization": to_one(org) } })).await;
    let other: Uuid = other["guid"].as_str().expect("a guid").parse().expect("a uuid");
    let foreign = controller.bare_app(other, "app").await;
    let (status, body) = admin.post(&path, json!({ "destinations": [{ "app": { "guid": foreign } }] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&body).1, "Routes destinations must be in either the route's space or the route's shared spaces");
    let (status, body) = admin.post(&path, json!({ "destinations": [{ "app": { "guid": "x" } }] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&body).1.contains("do not exist"), "{body}");
    assert_eq!(route(&admin, other, "web").await.0, StatusCode::UNPROCESSABLE_ENTITY, "taken by another space");

    let weights = |first: u32, second: u32| {
        json!({ "destinations": [
            { "app": { "guid": app }, "weight": first },
            { "app": { "guid": app, "process": { "type": "worker" } }, "weight": second },
        ] })
    };
    assert_eq!(admin.patch(&path, weights(50, 40)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, answer) = admin.patch(&path, weights(90, 10)).await;
    assert_eq!((status, answer["destinations"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)));
    let (_, answer) = admin.patch(&path, body_of(app)).await;
    let destination = answer["destinations"][0]["guid"].as_str().expect("a guid");
    assert_eq!(admin.delete(&format!("{path}/{destination}")).await.0, StatusCode::NO_CONTENT);

    let options = json!({ "options": { "loadbalancing": "least-connection" } });
    let self_path = format!("/v3/routes/{}", made["guid"].as_str().expect("a guid"));
    assert_eq!(admin.patch(&self_path, options).await.1["options"]["loadbalancing"], "least-connection");
    let (_, bare) = admin.patch(&self_path, json!({ "options": { "loadbalancing": null } })).await;
    assert!(bare.get("options").is_none(), "{bare}");
    let set = async |options: Value| admin.patch(&self_path, json!({ "options": options })).await;
    let missing = "Hash header must be present when loadbalancing is set to hash.";
    let refused = async |options: Value, text: &str| {
        let (status, body) = set(options).await;
        assert_eq!((status, error(&body).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, text));
    };
    refused(json!({ "loadbalancing": "hash" }), missing).await;
    let (_, hashed) = set(json!({ "loadbalancing": "hash", "hash_header": "X-User", "hash_balance": "1.3" })).await;
    assert_eq!(hashed["options"], json!({ "loadbalancing": "hash", "hash_header": "X-User", "hash_balance": "1.3" }));
    refused(json!({ "hash_header": null }), missing).await;
    let (_, plain) = set(json!({ "loadbalancing": "round-robin" })).await;
    assert_eq!(plain["options"], json!({ "loadbalancing": "round-robin" }), "the header went with the hash");
    assert_eq!(admin.delete_job(&self_path).await["state"], "COMPLETE");
    assert_eq!(admin.get(&self_path).await.0, StatusCode::NOT_FOUND);
}

fn body_of(app: Uuid) -> Value {
    json!({ "destinations": [{ "app": { "guid": app } }] })
}

/// As on Cloud Foundry: routers say of a stopped app's route that it does not exist.
#[tokio::test]
async fn a_route_to_stopped_apps_leads_nowhere() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, routes) = client.get(&format!("/v3/apps/{app}/routes")).await;
    let guid = routes["resources"][0]["guid"].as_str().expect("a route").to_owned();
    let targets = async || super::route_bindings::the_route(&controller, &guid).await.targets.len();
    assert_eq!(targets().await, 1, "started, though nothing runs yet");
    assert_eq!(action(&client, &app, "stop").await, "STOPPED");
    assert_eq!(targets().await, 0);
    let (_, route) = client.get(&format!("/v3/routes/{guid}")).await;
    assert_eq!(route["destinations"][0]["app"]["guid"], app.as_str(), "it is mapped all the same");
    assert_eq!(action(&client, &app, "start").await, "STARTED");
    assert_eq!(targets().await, 1);
}

/// Clients send the app of a destination as they got it; what decides is its guid and the process.
#[tokio::test]
async fn destinations_may_hold_what_only_the_client_knows() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    let (_, made) = route(&client, space, "second").await;
    let path = format!("/v3/routes/{}/destinations", made["guid"].as_str().expect("a guid"));
    let body = json!({ "destinations": [{
        "app": { "guid": app, "name": "", "links": { "self": { "href": "" } }, "process": { "type": "web", "x": 1 } },
        "port": 7777,
    }] });
    let (status, body) = client.post(&path, body).await;
    assert_eq!((status, &body["destinations"][0]["port"]), (StatusCode::OK, &json!(7777)), "{body}");
    let strange = json!({ "destinations": [{ "app": { "guid": app }, "colour": "red" }] });
    refused(&client.post(&path, strange).await, 422, &["colour"]);
}
