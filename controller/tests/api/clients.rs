//! Clients of the UAA: made, used, given roles, removed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{TestClient, TestController};

async fn login(controller: &TestController, id: &str, secret: &str) -> (StatusCode, Value) {
    // As `cf auth --client-credentials`: in the form, without a Basic header.
    let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
    let client = controller.client(None);
    client.send(client.request(Method::POST, "/oauth/token").form(&form)).await
}

async fn logged_in(controller: &TestController, id: &str, secret: &str) -> TestClient {
    let (status, answer) = login(controller, id, secret).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    controller.client(answer["access_token"].as_str())
}

#[tokio::test]
async fn a_pipeline_gets_an_account_works_with_its_role_and_loses_it() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let wish = json!({
        "client_id": "ci", "client_secret": "a secret of ci",
        "authorities": ["cloud_controller.read", "cloud_controller.write"],
        "authorized_grant_types": ["client_credentials"],
    });
    let (status, made) = admin.post("/oauth/clients", wish.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["client_id"], "ci");
    assert!(!made.to_string().contains("a secret of ci"), "{made}");
    assert_eq!(admin.get("/oauth/clients/ci").await, (StatusCode::OK, made));
    let (status, again) = admin.post("/oauth/clients", wish).await;
    assert_eq!((status, &again["error_description"]), (StatusCode::CONFLICT, &json!("Client already exists: ci")));

    // As `cf set-org-role` and `cf set-space-role --client` do it.
    let path = format!("/v3/spaces/{space}");
    let ci = logged_in(&controller, "ci", "a secret of ci").await;
    assert_eq!(ci.get(&path).await.0, StatusCode::NOT_FOUND, "it has no role yet");
    let place = |kind: &str, guid: String| json!({ kind: { "data": { "guid": guid } } });
    for (role, mut relationships) in [
        ("organization_user", place("organization", org.to_string())),
        ("space_developer", place("space", space.to_string())),
    ] {
        relationships["user"] = json!({ "data": { "guid": "ci" } });
        let (status, answer) = admin.post("/v3/roles", json!({ "type": role, "relationships": relationships })).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    let body = json!({ "name": "by-ci", "relationships": { "space": { "data": { "guid": space } } } });
    let (status, app) = ci.post("/v3/apps", body).await;
    assert_eq!(status, StatusCode::CREATED, "{app}");
    assert_eq!(
        ci.post("/oauth/clients", json!({ "client_id": "x", "client_secret": "long enough" })).await.0,
        StatusCode::FORBIDDEN
    );

    let (status, _) = admin
        .send(admin.request(Method::PUT, "/oauth/clients/ci/secret").json(&json!({ "secret": "another secret" })))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(login(&controller, "ci", "a secret of ci").await.0, StatusCode::UNAUTHORIZED);
    logged_in(&controller, "ci", "another secret").await;

    assert_eq!(admin.delete("/oauth/clients/ci").await.0, StatusCode::OK);
    assert_eq!(login(&controller, "ci", "another secret").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(admin.get("/oauth/clients/ci").await.0, StatusCode::NOT_FOUND);
    assert_eq!(admin.delete("/oauth/clients/ci").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ci.get(&path).await.0, StatusCode::UNAUTHORIZED, "its token is gone with it");
}

#[tokio::test]
async fn invalid_clients_are_refused_with_the_reason() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    for (body, words) in [
        (json!({ "client_id": "a b", "client_secret": "long enough" }), "a b"),
        (json!({ "client_id": "ci", "client_secret": "1234567" }), "at least 8"),
        (json!({ "client_id": "ci", "client_secret": "long enough", "authorities": ["root"] }), "\"root\""),
        (
            json!({ "client_id": "ci", "client_secret": "long enough", "authorized_grant_types": ["password"] }),
            "password",
        ),
    ] {
        let (status, answer) = admin.post("/oauth/clients", body).await;
        let text = answer["error_description"].as_str().unwrap_or_default();
        assert!(status.is_client_error() && text.contains(words), "{status} {answer}");
    }
    assert_eq!(admin.get("/oauth/clients/ci").await.0, StatusCode::NOT_FOUND, "nothing was made");
    // A user is no client, and the one by which everybody logs in stays.
    let (_, users) = admin.get("/Users?filter=userName+eq+%22admin%22").await;
    let user = users["resources"][0]["id"].as_str().expect("the administrator");
    assert_eq!(admin.delete(&format!("/oauth/clients/{user}")).await.0, StatusCode::NOT_FOUND);
    let secret = admin.request(Method::PUT, "/oauth/clients/cf/secret").json(&json!({ "secret": "long enough" }));
    for (status, answer) in [admin.delete("/oauth/clients/cf").await, admin.send(secret).await] {
        let text = answer["error_description"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && text.contains("cf is a client of the platform"), "{answer}");
    }
}
