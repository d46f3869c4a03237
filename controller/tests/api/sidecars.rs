//! Sidecars over HTTP: made, changed, removed, by a manifest too, and what a spec says of them.

use crate::support::{TestClient, TestController, apps, error};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn sidecar(client: &TestClient, app: &str, body: Value) -> (StatusCode, Value) {
    client.post(&format!("/v3/apps/{app}/sidecars"), body).await
}

#[tokio::test]
async fn a_sidecar_is_made_changed_and_removed() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "shop").await;
    let body = json!({ "name": "proxy", "command": "./proxy", "process_types": ["worker", "web"], "memory_in_mb": 16 });
    let (status, made) = sidecar(&client, &app, body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["process_types"], &made["origin"]), (&json!(["web", "worker"]), &json!("user")));
    let (status, again) = sidecar(&client, &app, body).await;
    let message = "Sidecar with name 'proxy' already exists for given app";
    assert_eq!((status, error(&again)), (StatusCode::UNPROCESSABLE_ENTITY, (10_008, message.to_owned())));

    let path = format!("/v3/sidecars/{}", made["guid"].as_str().expect("guid"));
    let (status, changed) = client.patch(&path, json!({ "command": "./other", "memory_in_mb": null })).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!((&changed["name"], &changed["memory_in_mb"]), (&json!("proxy"), &Value::Null));
    let (_, read) = client.get(&path).await;
    assert_eq!(read, changed);
    for list in [format!("/v3/apps/{app}/sidecars"), format!("/v3/processes/{app}/sidecars")] {
        let (_, page) = client.get(&list).await;
        assert_eq!(page["resources"], json!([changed]), "{list}");
    }
    assert_eq!(client.delete(&path).await.0, StatusCode::NO_CONTENT);
    let (status, gone) = client.get(&path).await;
    assert_eq!((status, error(&gone).1), (StatusCode::NOT_FOUND, "Sidecar not found".to_owned()));
}

#[tokio::test]
async fn invalid_sidecars_are_refused() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "shop").await;
    let good = json!({ "name": "proxy", "command": "./proxy", "process_types": ["web"] });
    for (change, message) in [
        (json!({ "name": " " }), "Name can't be blank"),
        (json!({ "name": null }), "Name can't be blank"),
        (json!({ "command": "" }), "Command can't be blank"),
        (json!({ "name": "n".repeat(256) }), "Name is too long (maximum is 255 characters)"),
        (json!({ "command": "c".repeat(4097) }), "Command is too long (maximum is 4096 characters)"),
        (json!({ "process_types": [] }), "Process types must have at least 1 process_type"),
        (json!({ "memory_in_mb": 0 }), "Memory in mb must be greater than 0"),
        (
            json!({ "memory_in_mb": 64 }),
            "The memory allocation defined is too large to run with the dependent \"web\" process",
        ),
    ] {
        let mut body = good.clone();
        body.as_object_mut().expect("object").extend(change.as_object().expect("object").clone());
        let (status, answer) = sidecar(&client, &app, body).await;
        assert_eq!((status, error(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, message), "{change}");
    }
    let (_, page) = client.get(&format!("/v3/apps/{app}/sidecars")).await;
    assert_eq!(page["pagination"]["total_results"], 0);

    let body = json!({ "name": "proxy", "command": "./proxy", "process_types": ["web"], "memory_in_mb": 40 });
    assert_eq!(sidecar(&client, &app, body).await.0, StatusCode::CREATED);
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let (status, answer) = client.post(&scale, json!({ "memory_in_mb": 40 })).await;
    let message = "The requested memory allocation is not large enough to run all of your sidecar processes";
    assert_eq!((status, error(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, message));
    for number in 0..14 {
        let body = json!({ "name": format!("s{number}"), "command": "x", "process_types": ["web"] });
        assert_eq!(sidecar(&client, &app, body).await.0, StatusCode::CREATED, "{number}");
    }
    let (status, answer) = sidecar(&client, &app, good.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let body = json!({ "name": "one more", "command": "x", "process_types": ["web"] });
    let (_, answer) = sidecar(&client, &app, body).await;
    assert!(error(&answer).1.contains("at most 15"), "{answer}");
}

#[tokio::test]
async fn a_manifest_declares_sidecars_and_a_start_records_them() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "shop").await;
    let (_, space) = controller.dev().await;
    let of = |command: &str| {
        format!(
            "applications:\n- name: shop\n  sidecars:\n  - name: proxy\n    command: {command}\n    process_types: [web]\n    memory: 8M\n"
        )
    };
    for command in ["./proxy", "./other"] {
        let job = client.job(apps::manifest(&client, space, &of(command))).await;
        assert_eq!(job["state"], "COMPLETE", "{job}");
    }
    let (_, page) = client.get(&format!("/v3/apps/{app}/sidecars")).await;
    let names: Vec<&Value> = page["resources"].as_array().expect("a list").iter().map(|one| &one["command"]).collect();
    assert_eq!(names, ["./other"], "the name is the same, so it is the same sidecar");
    assert_eq!(apps::action(&client, &app, "restart").await, "STARTED");
    let (_, page) = client.get(&format!("/v3/apps/{app}/revisions?order_by=-created_at")).await;
    let newest = &page["resources"][0];
    assert_eq!(newest["description"], "Sidecars updated.");
    let sidecar = json!({ "name": "proxy", "command": "./other", "memory_in_mb": 8, "process_types": ["web"] });
    assert_eq!(newest["sidecars"], json!([sidecar]));
    // Back to the revision without any.
    let first = page["resources"][1]["guid"].clone();
    let body = json!({ "revision": { "guid": first }, "relationships": { "app": { "data": { "guid": app } } } });
    let (status, deployment) = client.post("/v3/deployments", body).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    let (_, page) = client.get(&format!("/v3/apps/{app}/sidecars")).await;
    assert_eq!(page["pagination"]["total_results"], 0);
}
