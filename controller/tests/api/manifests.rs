//! Manifests over the API: whole or not at all.

use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::support::apps::{app_of, catalogue, manifest};
use crate::support::{TestController, error};

#[tokio::test]
async fn manifests_are_applied_whole_or_not_at_all() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    for (text, status, part) in [
        ("applications:\n- name: a\n- name: b\n  memory: 12 apples\n", 422, "For application 'b': Memory"),
        ("applications:\n- name: a\n- name: a\n", 422, "more than once"),
        (
            "applications:\n- name: a\n- name: b\n  buildpacks: [nonsense]\n",
            422,
            r#"For application 'b': Specified unknown buildpack name: \"nonsense\""#,
        ),
        (
            "applications:\n- name: a\n- name: a2\n  stack: nonsense\n",
            422,
            "For application 'a2': Stack must be an existing stack",
        ),
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
        (
            "applications:\n- name: a\n  instances: -1\n  health-check-interval: 0\n",
            422,
            "For application 'a': Instances must be greater than or equal to 0, not -1",
        ),
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
    let text = "applications:\n- name: a\n  buildpacks: [nonsense]\n";
    let (_, body) = client.send(manifest(&client, space, text)).await;
    let detail = "For application 'a': Buildpack \"nonsense\" must be an existing admin buildpack or a valid git URI";
    assert_eq!(body["errors"][0]["detail"], detail, "an app that is there is told otherwise: {body}");
    let diff = client
        .request(Method::POST, &format!("/v3/spaces/{space}/manifest_diff"))
        .header("content-type", "application/x-yaml")
        .body("applications:\n- name: a\n  memory: 2G\n");
    let (status, body) = client.send(diff).await;
    let changed = json!([{ "op": "replace", "path": "/applications/0/memory", "was": "1024M", "value": "2048M" }]);
    assert_eq!((status, &body["diff"]), (StatusCode::CREATED, &changed), "{body}");

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

const WHOLE: &str = "  env:
    GREETING: hello
  lifecycle: buildpack
  buildpacks:
  - binary_buildpack
  stack: debian12
  features:
    ssh: false
    revisions: true
    service-binding-k8s: false
    file-based-vcap-services: true
  routes:
  - route: a.apps.slipway.test
    protocol: http1
    options:
      loadbalancing: least-connection
  - route: a.apps.slipway.test/api
    protocol: http1
  metadata:
    labels:
      tier: front
    annotations:
      contact: me@example.org
  processes:
  - type: web
    instances: 2
    memory: 64M
    disk_quota: 128M
    log-rate-limit-per-second: 16K
    command: './app'
    health-check-type: http
    health-check-http-endpoint: /health
    health-check-invocation-timeout: 3
    health-check-interval: 7
    readiness-health-check-type: http
    readiness-health-check-http-endpoint: /ready
    readiness-health-check-invocation-timeout: 2
    readiness-health-check-interval: 5
    timeout: 30
  - type: worker
    instances: 1
    memory: 32M
    disk_quota: 1024M
    log-rate-limit-per-second: -1
    command: './app worker'
    health-check-type: process
    readiness-health-check-type: process
  sidecars:
  - name: helper
    process_types:
    - web
    command: './app side'
    memory: 16M
";

#[tokio::test]
async fn the_manifest_of_an_app_says_everything_that_made_it() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", WHOLE).await;
    let (status, written) = client.get(&format!("/v3/apps/{app}/manifest")).await;
    let written = written.as_str().expect("YAML").to_owned();
    assert_eq!(
        (status, written.as_str()),
        (StatusCode::OK, format!("---\napplications:\n- name: a\n{WHOLE}").as_str())
    );
    // Applied again, it changes nothing.
    let diff = client
        .request(Method::POST, &format!("/v3/spaces/{space}/manifest_diff"))
        .header("content-type", "application/x-yaml")
        .body(written.clone());
    assert_eq!(client.send(diff).await.1["diff"], json!([]));
    let job = client.job(manifest(&client, space, &written)).await;
    assert_eq!((&job["state"], &job["warnings"]), (&json!("COMPLETE"), &json!([])), "{job}");
    assert_eq!(client.get(&format!("/v3/apps/{app}/manifest")).await.1, written);
}

#[tokio::test]
async fn the_manifest_of_an_app_without_a_route_asks_for_none() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "worker", "  no-route: true\n").await;
    let (_, written) = client.get(&format!("/v3/apps/{app}/manifest")).await;
    let written = written.as_str().expect("YAML").to_owned();
    assert!(written.contains("\n  no-route: true\n"), "{written}");
    let job = client.job(manifest(&client, space, &written)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(client.get(&format!("/v3/apps/{app}/manifest")).await.1, written);
}
