//! Instances that wait for capacity say so and are given up in time; default memory depends on the buildpack.

use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_api_types::AssignmentId;
use slipway_controller::domain::outcomes;
use slipway_protocol::v1;
use uuid::Uuid;

use crate::support::apps::{app_of, build, build_result, catalogue, droplet, ready_package};
use crate::support::{TestClient, TestController};

const REASON: &str = "waiting for room: needs 1024 MiB; the largest free is 62 MiB on cell 00000001";

async fn wait_for_place(controller: &TestController, group: Uuid, reason: &str, seconds: f64) {
    sqlx::query(
        "insert into unplaced (group_id, index, kind, reason, since)
         values ($1, 0, $4, $2, now() - make_interval(secs => $3))
         on conflict (group_id, index) do update
             set kind = excluded.kind, reason = excluded.reason, since = excluded.since",
    )
    .bind(group)
    .bind(reason)
    .bind(seconds)
    .bind(if reason == REASON { "no_room" } else { "other" })
    .execute(&controller.database.pool)
    .await
    .expect("it waits");
}

async fn lines(client: &TestClient, app: &str) -> Vec<String> {
    use base64::Engine as _;
    let (status, answer) = client.get(&format!("/api/v1/read/{app}?envelope_types=LOG&limit=1000")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let batch = answer["envelopes"]["batch"].as_array().cloned().unwrap_or_default();
    let text = |envelope: &Value| {
        let payload = envelope["log"]["payload"].as_str().expect("a payload");
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(payload).expect("base64")).expect("text")
    };
    batch.iter().map(text).collect()
}

#[tokio::test]
async fn a_build_waits_for_room_and_says_so() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let guid = build(&client, &ready_package(&client, &app).await).await;
    let id: Uuid = guid.parse().expect("a guid");
    let state = async || client.get(&format!("/v3/builds/{guid}")).await.1["state"].as_str().map(str::to_owned);

    // Longer than what has no cell at all may wait.
    wait_for_place(&controller, id, REASON, 300.0).await;
    outcomes::sweep(&controller.context).await.expect("swept");
    assert_eq!(state().await.as_deref(), Some("STAGING"));
    let said = lines(&client, &app).await;
    let expected = format!("No place yet for the build: {REASON}");
    assert_eq!(said.iter().filter(|line| **line == expected).count(), 1, "{said:?}");

    wait_for_place(&controller, id, "no cell is connected", 61.0).await;
    outcomes::sweep(&controller.context).await.expect("swept");
    assert_eq!(state().await.as_deref(), Some("FAILED"), "that is no queue");

    let guid = build(&client, &ready_package(&client, &app).await).await;
    wait_for_place(&controller, guid.parse().expect("a guid"), REASON, 601.0).await;
    outcomes::sweep(&controller.context).await.expect("swept");
    let (_, failed) = client.get(&format!("/v3/builds/{guid}")).await;
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("InsufficientResources - ") && error.contains(REASON), "{failed}");
}

#[tokio::test]
async fn default_memory_depends_on_the_buildpack() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let bits = droplet();
    controller.put_blob(&bits).await;
    let built_with = async |app: &str, name: &str| {
        let guid = build(&client, &ready_package(&client, app).await).await;
        let mut result = build_result(&bits);
        result.buildpacks = vec![v1::DetectedBuildpack { name: name.into(), ..v1::DetectedBuildpack::default() }];
        let id = guid.parse().expect("a guid");
        outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(result), None)
            .await
            .expect("recorded");
        client.get(&format!("/v3/apps/{app}/processes/web")).await.1["memory_in_mb"].clone()
    };
    let site = app_of(&client, space, "site", "  disk_quota: 128M\n").await;
    assert_eq!(built_with(&site, "staticfile_buildpack").await, json!(64));
    assert_eq!(built_with(&site, "nodejs_buildpack").await, json!(1024), "it has become a program");
    assert_eq!(built_with(&site, "staticfile_buildpack").await, json!(64));
    // What is the default is a choice too when somebody makes it.
    let (status, _) =
        client.post(&format!("/v3/apps/{site}/processes/web/actions/scale"), json!({ "memory_in_mb": 1024 })).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(built_with(&site, "staticfile_buildpack").await, json!(1024));
    let chosen = app_of(&client, space, "chosen", "  memory: 256M\n").await;
    assert_eq!(built_with(&chosen, "staticfile_buildpack").await, json!(256));
}
