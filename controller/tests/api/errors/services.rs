//! Services. What only a broker can bring about is made in the database: the rows are those that one would leave.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Cases, assert_error, expected, to_one, unprocessable};
use crate::services::{bind, create, instance};
use crate::support::TestController;

#[tokio::test]
async fn duplicate_bindings_and_names() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = controller.bare_app(space, "a").await.to_string();
    let db = instance(&admin, space, "db", json!({})).await;
    assert_error(
        &create(&admin, space, "db", json!({})).await,
        &unprocessable("The service instance name is taken: db."),
    );
    assert_eq!(bind(&admin, &app, &db, json!({})).await.0, StatusCode::CREATED);
    assert_error(
        &bind(&admin, &app, &db, json!({})).await,
        &unprocessable("The app is already bound to the service instance"),
    );
    let key = json!({ "type": "key", "name": "k", "relationships": { "service_instance": to_one(&db) } });
    assert_error(
        &admin.post("/v3/service_credential_bindings", key).await,
        &unprocessable(
            "Service credential bindings of type 'key' are not supported for user-provided service instances.",
        ),
    );
    let guard = instance(&admin, space, "guard", json!({ "route_service_url": "https://guard.test" })).await;
    let (_, domains) = admin.get("/v3/domains?names=apps.slipway.test").await;
    let domain = domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned();
    let body = json!({ "host": "h", "relationships": { "space": to_one(space), "domain": to_one(domain) } });
    let (_, route) = admin.post("/v3/routes", body).await;
    let body = json!({ "relationships": {
        "service_instance": to_one(&guard), "route": to_one(route["guid"].as_str().expect("a guid")) } });
    assert_eq!(admin.post("/v3/service_route_bindings", body.clone()).await.0, StatusCode::CREATED);
    let words = "The route and service instance are already bound.";
    assert_error(
        &admin.post("/v3/service_route_bindings", body).await,
        &expected(422, 130_008, "CF-ServiceInstanceAlreadyBoundToSameRoute", words),
    );
}

#[tokio::test]
async fn services_without_parameters() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = controller.bare_app(space, "a").await.to_string();
    let db = instance(&admin, space, "db", json!({})).await;
    let (_, bound) = bind(&admin, &app, &db, json!({})).await;
    let bound = bound["guid"].as_str().expect("a guid");
    let mut cases = Cases::default();
    for (path, code, title, what) in [
        (format!("service_instances/{db}"), 120_004, "CF-ServiceFetchInstanceParametersNotSupported", "instance"),
        (
            format!("service_credential_bindings/{bound}"),
            90007,
            "CF-ServiceFetchBindingParametersNotSupported",
            "binding",
        ),
    ] {
        let words = format!("This service does not support fetching service {what} parameters.");
        cases.add(&admin, ("GET", &format!("/v3/{path}/parameters")), None, expected(400, code, title, words));
    }
    cases.check().await;
}

#[tokio::test]
async fn one_operation_at_a_time() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let db = instance(&admin, space, "db", json!({})).await;
    sqlx::query(
        "update service_instance set last_operation = last_operation || '{\"type\": \"update\", \"state\": \"in progress\"}'",
    )
    .execute(&controller.database.pool)
    .await
    .expect("an operation");
    let mut cases = Cases::default();
    let path = format!("/v3/service_instances/{db}");
    for (method, body) in [("PATCH", Some(json!({ "name": "other" }))), ("DELETE", None)] {
        let words = "An operation for service instance db is in progress.";
        let busy = expected(409, 60016, "CF-AsyncServiceInstanceOperationInProgress", words);
        cases.add(&admin, (method, &path), body, busy);
    }
    cases.check().await;
    let (_, still) = admin.get(&path).await;
    assert_eq!((&still["name"], &still["last_operation"]["state"]), (&json!("db"), &json!("in progress")), "{still}");
}

/// `cf share-service` takes it as done.
#[tokio::test]
async fn duplicate_shares() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let mut made = Vec::new();
    for name in ["other", "third"] {
        let body = json!({ "name": name, "relationships": { "organization": to_one(org) } });
        let (_, space) = admin.post("/v3/spaces", body).await;
        made.push(space["guid"].as_str().expect("a guid").parse::<Uuid>().expect("a guid"));
    }
    let mut paths = Vec::new();
    for place in [space, made[1]] {
        let guid = Uuid::new_v4();
        sqlx::query("insert into service_instance (guid, space_guid, name, type) values ($1, $2, 'queue', 'managed')")
            .bind(guid)
            .bind(place)
            .execute(&controller.database.pool)
            .await
            .expect("an instance");
        paths.push(format!("/v3/service_instances/{guid}/relationships/shared_spaces"));
    }
    let with: Value = json!({ "data": [{ "guid": made[0] }] });
    assert_eq!(admin.post(&paths[0], with.clone()).await.0, StatusCode::OK);
    let words = "A service instance called queue has already been shared with other.";
    for (path, whose) in paths.iter().zip(["the same again", "another of this name"]) {
        let answer = admin.post(path, with.clone()).await;
        assert!(!answer.0.is_success(), "{whose}: {}", answer.1);
        assert_error(&answer, &unprocessable(words));
    }
    assert_eq!(admin.get(&paths[0]).await.1["data"], with["data"]);
}
