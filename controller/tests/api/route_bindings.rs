//! Route services.

use crate::services::{instance, to_one};
use crate::support::apps::{dev_space, refused};
use crate::support::{TestClient, TestController, error};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_controller::routers::publisher;
use slipway_placement::routing_table::{self, Table};
use uuid::Uuid;

async fn route(client: &TestClient, space: Uuid, domain: &str, host: &str) -> String {
    let relationships = json!({ "space": to_one(space), "domain": to_one(domain) });
    let (status, body) = client.post("/v3/routes", json!({ "host": host, "relationships": relationships })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["guid"].as_str().expect("a guid").to_owned()
}

async fn domain(client: &TestClient) -> String {
    let (_, domains) = client.get("/v3/domains?names=apps.slipway.test").await;
    domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned()
}

async fn bind(client: &TestClient, instance: &str, route: &str) -> (StatusCode, Value) {
    let relationships = json!({ "service_instance": to_one(instance), "route": to_one(route) });
    client.post("/v3/service_route_bindings", json!({ "relationships": relationships })).await
}

#[tokio::test]
async fn a_route_is_bound_to_its_service() {
    let controller = TestController::start().await;
    let client = controller.user_with("dora", "space_developer").await;
    let space = dev_space(&controller.database.pool).await;
    let domain = domain(&client).await;
    let shop = route(&client, space, &domain, "shop").await;
    let service = instance(&client, space, "guard", json!({ "route_service_url": "https://guard.test/in" })).await;
    let (status, bound) = bind(&client, &service, &shop).await;
    assert_eq!(status, StatusCode::CREATED, "{bound}");
    assert_eq!(
        (&bound["route_service_url"], &bound["last_operation"]["state"]),
        (&json!("https://guard.test/in"), &json!("succeeded"))
    );
    let path = format!("/v3/service_route_bindings/{}", bound["guid"].as_str().expect("a guid"));

    let (status, body) = bind(&client, &service, &shop).await;
    assert_eq!((status, error(&body).0), (StatusCode::UNPROCESSABLE_ENTITY, 130_008), "{body}");
    assert_eq!(body["errors"][0]["title"], "CF-ServiceInstanceAlreadyBoundToSameRoute");
    let other = instance(&client, space, "other", json!({ "route_service_url": "https://other.test" })).await;
    refused(&bind(&client, &other, &shop).await, 422, &["A route may only be bound to a single service instance"]);
    let plain = instance(&client, space, "plain", json!({})).await;
    refused(&bind(&client, &plain, &shop).await, 422, &["This service instance does not support route binding"]);
    refused(&bind(&client, "nope", &shop).await, 422, &["The service instance could not be found: nope"]);
    refused(&bind(&client, &service, "nope").await, 422, &["The route could not be found: nope"]);
    let relationships = json!({ "service_instance": to_one(&other), "route": to_one(&shop) });
    let body = json!({ "parameters": {}, "relationships": relationships });
    refused(&client.post("/v3/service_route_bindings", body).await, 422, &["Binding parameters are not supported"]);
    let body = json!({ "name": "apps.internal.test", "internal": true });
    let internal =
        controller.admin().await.post("/v3/domains", body).await.1["guid"].as_str().expect("a guid").to_owned();
    let inside = route(&client, space, &internal, "inside").await;
    refused(&bind(&client, &other, &inside).await, 422, &["Route services cannot be bound to internal routes"]);

    let (_, page) =
        client.get(&format!("/v3/service_route_bindings?route_guids={shop}&include=service_instance,route")).await;
    assert_eq!(page["resources"][0]["guid"], bound["guid"], "{page}");
    assert_eq!(page["included"]["service_instances"][0]["name"], "guard");
    assert_eq!(page["included"]["routes"][0]["host"], "shop");
    assert_eq!(
        client.get(&format!("/v3/routes?service_instance_guids={service}")).await.1["pagination"]["total_results"],
        1
    );
    assert_eq!(client.get("/v3/service_credential_bindings").await.1["pagination"]["total_results"], 0);
    refused(
        &client.get(&format!("{path}/parameters")).await,
        400,
        &["Bad request: user provided service instances do not support fetching route bindings parameters."],
    );
    let (status, changed) = client.patch(&path, json!({ "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!((status, &changed["metadata"]["labels"]["a"]), (StatusCode::OK, &json!("b")));

    // The routers are told where to go and with what to sign.
    let guarded = the_route(&controller, &shop).await;
    assert_eq!(guarded.route_service_url, "https://guard.test/in");
    assert_eq!(guarded.route_service_secret.len(), 32);
    client.patch(&format!("/v3/service_instances/{service}"), json!({ "route_service_url": "https://new.test" })).await;
    assert_eq!(the_route(&controller, &shop).await.route_service_url, "https://new.test");
    assert_eq!(client.delete(&path).await.0, StatusCode::NO_CONTENT);
    let free = the_route(&controller, &shop).await;
    assert!(free.route_service_url.is_empty() && free.route_service_secret.is_empty());
    refused(&client.get(&path).await, 404, &["Service route binding not found"]);
}

/// The route as routers get it.
pub(super) async fn the_route(controller: &TestController, guid: &str) -> slipway_protocol::v1::Route {
    the_table(controller).await.routes[guid].as_ref().clone()
}

/// The table as routers get it.
pub(super) async fn the_table(controller: &TestController) -> Table {
    use slipway_controller::store::placement::PgPlacement;
    use slipway_placement::PlacementStore as _;
    let placement = PgPlacement::new(controller.database.pool.clone());
    let mut input = placement.routing_input().await.expect("input");
    publisher::open_secrets(&controller.context.vault, &mut input);
    routing_table::build(&input, "slipway.test", &Table::default())
}
