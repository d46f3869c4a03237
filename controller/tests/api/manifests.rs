//! Manifests over the API: whole or not at all.

use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::support::apps::manifest;
use crate::support::{TestController, error};

#[tokio::test]
async fn manifests_are_applied_whole_or_not_at_all() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    for (text, status, part) in [
        ("applications:\n- name: a\n- name: b\n  memory: 12 apples\n", 422, "For application 'b': Memory"),
        ("applications:\n- name: a\n- name: a\n", 422, "more than once"),
        ("applications:\n- name: a\n- name: b\n  buildpacks: [nonsense]\n", 422, "must be an existing admin buildpack"),
        (
            "applications:\n- name: a\n- name: b\n  routes: [{route: x.nowhere.example}]\n",
            422,
            "did not match any existing domains",
        ),
        ("applications:\n- name: a\n- name: b\n  env: {PORT: 1}\n", 422, "PORT"),
        ("version: 3\napplications: [{name: a}]\n", 422, "version 3"),
        ("name: a\n", 422, "applications"),
        ("applications: [&x {name: a}, *x]\n", 400, "Anchors"),
        ("applications: [", 400, "YAML"),
        ("applications:\n- name: a\n- name: b\n  instances: lots\n", 422, "instances"),
    ] {
        let (found, body) = client.send(manifest(&client, space, text)).await;
        assert_eq!(found.as_u16(), status, "{text}: {body}");
        assert!(body.to_string().contains(part), "{part} in {body}");
        let (_, apps) = client.get("/v3/apps").await;
        assert_eq!(apps["pagination"]["total_results"], 0, "{text} left something behind");
    }
    let large = format!("applications: [{{name: a, env: {{X: {}}}}}]", "x".repeat(1 << 20));
    assert_eq!(client.send(manifest(&client, space, &large)).await.0, StatusCode::BAD_REQUEST);
    let json_type = client
        .request(Method::POST, &format!("/v3/spaces/{space}/actions/apply_manifest"))
        .json(&json!({ "applications": [] }));
    assert_eq!(client.send(json_type).await.0, StatusCode::BAD_REQUEST);

    let text = "applications:\n- name: a\n  colour: red\n  random-route: true\n";
    let job = client.job(manifest(&client, space, text)).await;
    assert_eq!(job["state"], "COMPLETE");
    assert!(job["warnings"][0]["detail"].as_str().is_some_and(|text| text.contains("colour")), "{job}");
    let diff = client
        .request(Method::POST, &format!("/v3/spaces/{space}/manifest_diff"))
        .header("content-type", "application/x-yaml")
        .body("applications:\n- name: a\n  memory: 2G\n");
    let (status, body) = client.send(diff).await;
    assert_eq!((status, &body["diff"][0]["value"]), (StatusCode::CREATED, &json!("2048M")), "{body}");

    // Beyond any cell, with figures.
    sqlx::query("insert into cell (id, zone, memory_mb, disk_mb, slots) values ($1, 'z', 2048, 4096, 10)")
        .bind(Uuid::new_v4())
        .execute(&controller.database.pool)
        .await
        .expect("a cell");
    let (status, body) = client.send(manifest(&client, space, "applications: [{name: a, memory: 64G}]")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&body).1.contains("65536 MiB") && error(&body).1.contains("2048 MiB"), "{body}");
}
