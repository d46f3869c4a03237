//! Who has seen, taken or removed what of an app's.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::apps::{package, upload, zip_of};
use crate::support::{TestClient, TestController};

/// The events of this kind about the app, oldest first.
async fn events(client: &TestClient, app: &str, kind: &str) -> Vec<Value> {
    let (status, page) = client.get(&format!("/v3/audit_events?target_guids={app}&types={kind}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["resources"].as_array().expect("events").clone()
}

/// There is one event of this kind, with this data, by this user, in the app's space.
async fn assert_event(client: &TestClient, app: &str, kind: &str, data: Value, actor: &str) {
    let events = events(client, app, kind).await;
    let [event] = events.as_slice() else { panic!("one {kind}: {events:?}") };
    assert_eq!(event["data"], data, "{event}");
    assert_eq!((&event["actor"]["type"], &event["actor"]["name"]), (&json!("user"), &json!(actor)), "{event}");
    assert_eq!((&event["target"]["type"], &event["target"]["guid"]), (&json!("app"), &json!(app)), "{event}");
    assert!(event["space"]["guid"].is_string() && event["organization"]["guid"].is_string(), "{event}");
}

#[tokio::test]
async fn reading_of_variables_is_recorded_when_they_are_shown() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let dev = controller.user_with("dev@example.com", "space_developer").await;
    let auditor = controller.user_with("aud@example.com", "space_auditor").await;
    let app = controller.pushed(&admin, "web").await;
    for path in ["env", "environment_variables"] {
        assert_eq!(auditor.get(&format!("/v3/apps/{app}/{path}")).await.0, StatusCode::FORBIDDEN);
    }
    for kind in ["audit.app.environment.show", "audit.app.environment_variables.show"] {
        assert!(events(&admin, &app, kind).await.is_empty(), "nothing was shown: {kind}");
    }
    for path in ["env", "environment_variables"] {
        assert_eq!(dev.get(&format!("/v3/apps/{app}/{path}")).await.0, StatusCode::OK);
    }
    assert_event(&admin, &app, "audit.app.environment.show", json!({}), "dev@example.com").await;
    assert_event(&admin, &app, "audit.app.environment_variables.show", json!({}), "dev@example.com").await;
}

#[tokio::test]
async fn downloads_and_removals_of_packages_and_droplets_are_recorded() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let dev = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&admin, "web").await;
    let empty = package(&admin, &app).await;
    let (status, _) = dev.get(&format!("/v3/packages/{empty}/download")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let full = package(&admin, &app).await;
    let bits = zip_of(&[("a.txt", b"a")]);
    assert_eq!(upload(&admin, &full, &json!([]), Some(bits)).await.0, StatusCode::OK);
    let (_, droplet) = admin.get(&format!("/v3/apps/{app}/droplets/current")).await;
    let droplet = droplet["guid"].as_str().expect("a guid");

    for path in [format!("/v3/packages/{full}"), format!("/v3/droplets/{droplet}")] {
        let response = dev.request(Method::GET, &format!("{path}/download")).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        response.bytes().await.expect("a whole file");
        assert_eq!(dev.delete_job(&path).await["state"], "COMPLETE");
    }
    for done in ["download", "delete"] {
        let data = json!({ "package_guid": full });
        assert_event(&admin, &app, &format!("audit.app.package.{done}"), data, "dev@example.com").await;
        let data = json!({ "droplet_guid": droplet });
        assert_event(&admin, &app, &format!("audit.app.droplet.{done}"), data, "dev@example.com").await;
    }
}

#[tokio::test]
async fn new_processes_are_recorded_as_events() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "web").await;
    let made = events(&admin, &app, "audit.app.process.create").await;
    let types: Vec<_> = made.iter().map(|event| event["data"]["process_type"].clone()).collect();
    assert_eq!(types, ["web", "worker"]);
    assert_eq!(made[0]["data"]["process_guid"], json!(app));
}
