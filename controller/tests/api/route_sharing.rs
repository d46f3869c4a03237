//! Routes in other spaces than their own.

use crate::services::to_one;
use crate::support::apps::refused;
use crate::support::{TestClient, TestController};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

struct World {
    controller: TestController,
    client: TestClient,
    space: Uuid,
    other: String,
    route: String,
}

impl World {
    async fn build() -> Self {
        let controller = TestController::start().await;
        let client = controller.admin().await;
        let (org, space) = controller.dev().await;
        let body = json!({ "name": "other", "relationships": { "organization": to_one(org) } });
        let other = guid(&client.post("/v3/spaces", body).await);
        let (_, domains) = client.get("/v3/domains?names=apps.slipway.test").await;
        let domain = domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned();
        let body = json!({ "host": "shop", "relationships": { "space": to_one(space), "domain": to_one(domain) } });
        let route = guid(&client.post("/v3/routes", body).await);
        Self { controller, client, space, other, route }
    }

    async fn enable(&self) {
        sqlx::query("update feature_flag set enabled = true where name = 'route_sharing'")
            .execute(&self.controller.database.pool)
            .await
            .expect("update");
    }

    fn path(&self, rest: &str) -> String {
        format!("/v3/routes/{}/{rest}", self.route)
    }

    async fn map(&self, app: Uuid) -> (StatusCode, Value) {
        let body = json!({ "destinations": [{ "app": { "guid": app } }] });
        self.client.post(&self.path("destinations"), body).await
    }
}

fn guid(answer: &(StatusCode, Value)) -> String {
    assert_eq!(answer.0, StatusCode::CREATED, "{}", answer.1);
    answer.1["guid"].as_str().expect("a guid").to_owned()
}

#[tokio::test]
async fn a_shared_route_leads_to_apps_of_both_spaces() {
    let world = World::build().await;
    let (client, other) = (&world.client, &world.other);
    let shared = world.path("relationships/shared_spaces");
    let with = |space: &str| json!({ "data": [{ "guid": space }] });
    refused(&client.post(&shared, with(other)).await, 403, &["Feature Disabled: route_sharing"]);
    world.enable().await;
    let app = world.controller.bare_app(other.parse().expect("a guid"), "far").await;
    let apart = "Routes destinations must be in either the route's space or the route's shared spaces";
    refused(&world.map(app).await, 422, &[apart]);
    refused(
        &client.post(&shared, with("nope")).await,
        422,
        &["Unable to share route shop.apps.slipway.test with spaces ['nope']."],
    );
    refused(
        &client.post(&shared, with(&world.space.to_string())).await,
        422,
        &["Routes cannot be shared into the space where they were created."],
    );

    let (status, body) = client.post(&shared, with(other)).await;
    assert_eq!((status, &body["data"][0]["guid"]), (StatusCode::OK, &json!(other)), "{body}");
    assert_eq!(client.get(&shared).await.1["data"][0]["guid"], *other);
    assert_eq!(world.map(app).await.0, StatusCode::OK);
    let (_, page) = client.get(&format!("/v3/routes?space_guids={other}")).await;
    assert_eq!(page["resources"][0]["guid"], world.route, "a shared route is listed in both spaces");
    assert_eq!(client.delete(&format!("{shared}/{}", world.space)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(client.delete(&format!("{shared}/{other}")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(client.get(&shared).await.1["data"], json!([]));
}

#[tokio::test]
async fn a_route_moves_and_stays_shared_with_where_it_was() {
    let world = World::build().await;
    world.enable().await;
    let (client, other) = (&world.client, &world.other);
    let owner = world.path("relationships/space");
    refused(
        &client.patch(&owner, to_one("nope")).await,
        422,
        &[
            "Unable to transfer owner of route 'shop.apps.slipway.test' to space 'nope'. Ensure the space exists and that you have access to it.",
        ],
    );
    let supporter = world.controller.user_with("sue", "space_supporter").await;
    assert_eq!(supporter.patch(&owner, to_one(other)).await.0, StatusCode::FORBIDDEN);
    for _ in 0..2 {
        let (status, body) = client.patch(&owner, to_one(other)).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("ok")), "{body}");
        let (_, route) = client.get(&format!("/v3/routes/{}", world.route)).await;
        assert_eq!(route["relationships"]["space"]["data"]["guid"], *other);
        let (_, shared) = client.get(&world.path("relationships/shared_spaces")).await;
        assert_eq!(shared["data"], json!([{ "guid": world.space.to_string() }]));
    }
}

#[tokio::test]
async fn weights_are_given_to_all_destinations_at_once() {
    let world = World::build().await;
    let client = &world.client;
    let app = world.controller.bare_app(world.space, "near").await;
    let weighted = |weight: u32| json!({ "destinations": [{ "app": { "guid": app }, "weight": weight }] });
    let destinations = world.path("destinations");
    refused(
        &client.post(&destinations, weighted(10)).await,
        422,
        &["weighted destinations can only be used when replacing all destinations."],
    );
    refused(
        &client.post(&destinations, json!({ "destinations": [] })).await,
        422,
        &["between 1 and 100 destination objects"],
    );
    refused(&client.patch(&destinations, weighted(99)).await, 422, &["must have weights that sum to 100."]);
    assert_eq!(client.patch(&destinations, weighted(100)).await.0, StatusCode::OK);
    refused(
        &world.map(app).await,
        422,
        &["Destinations cannot be inserted when there are weighted destinations already configured."],
    );
}

#[tokio::test]
async fn replaced_destinations_leave_events_of_what_changed() {
    let world = World::build().await;
    let client = &world.client;
    let (near, next) =
        (world.controller.bare_app(world.space, "near").await, world.controller.bare_app(world.space, "next").await);
    let events = async |app: Uuid| -> Vec<String> {
        let (_, page) = client.get(&format!("/v3/audit_events?target_guids={app}&order_by=created_at")).await;
        let all = page["resources"].as_array().expect("events").iter();
        all.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    };
    let replace = async |apps: &[Uuid]| {
        let apps: Vec<_> = apps.iter().map(|app| json!({ "app": { "guid": app } })).collect();
        let (status, body) = client.patch(&world.path("destinations"), json!({ "destinations": apps })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    };
    replace(&[near]).await;
    replace(&[near, next]).await;
    replace(&[next]).await;
    assert_eq!(events(near).await, ["audit.app.map-route", "audit.app.unmap-route"]);
    assert_eq!(events(next).await, ["audit.app.map-route"]);
}
