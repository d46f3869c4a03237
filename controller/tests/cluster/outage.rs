//! Postgres stopped and started under the API.

use reqwest::StatusCode;
use serde_json::json;
use slipway_protocol::v1::Intent;
use slipway_test_support::eventually;
use uuid::Uuid;

use crate::apps::{app_of, dev_space};
use crate::client::{TestClient, error};
use crate::harness::{Harness, LIMIT};
use crate::sim::SimCell;

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_the_api_says_so_and_recovers_by_itself() {
    let harness = Harness::that_loses_cells().await;
    let cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let space = dev_space(harness.pool()).await;
    let app = app_of(&admin, space, "kept", "").await;
    harness.app("steady", 1, 128).await;
    cell.assigned(Intent::Run, 1).await;

    harness.proxy.down();
    let create = json!({ "name": "new", "relationships": { "space": { "data": { "guid": space } } } });
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let path = format!("/v3/apps/{app}");
    let answers = tokio::join!(
        admin.get("/v3/apps"),
        admin.post("/v3/apps", create.clone()),
        admin.post(&scale, json!({ "instances": 2 })),
        admin.delete(&path),
    );
    for (status, body) in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        let (code, detail) = error(&body);
        assert_eq!(code, 10015, "{body}");
        assert!(detail.contains("The database is not available"), "{detail}");
        assert!(!detail.contains("PGSQL"), "no path of the host: {detail}");
    }
    let nobody = TestClient::new(&harness.api, None);
    let form = [("grant_type", "password"), ("username", "admin"), ("password", "a-long-password")];
    let login = nobody.request(reqwest::Method::POST, "/oauth/token").basic_auth("cf", Some("")).form(&form);
    let (status, body) = nobody.send(login).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("temporarily_unavailable")),
        "{body}"
    );
    assert_eq!(nobody.get("/v3/info").await.0, StatusCode::OK, "what needs no database is answered");

    harness.proxy.up();
    eventually("the API is back", LIMIT, || async {
        let (status, body) = admin.get("/v3/apps").await;
        if status == StatusCode::OK { Ok(()) } else { Err(body) }
    })
    .await;
    let (_, apps) = admin.get("/v3/apps?names=kept,new").await;
    assert_eq!(apps["pagination"]["total_results"], 1, "nothing half-done: {apps}");
    let (_, process) = admin.get(&format!("/v3/apps/{app}/processes/web")).await;
    assert_eq!(process["instances"], 1);
    assert_eq!(admin.post("/v3/apps", create).await.0, StatusCode::CREATED);
    cell.assigned(Intent::Run, 1).await;
    assert!(cell.seen.lock().expect("lock").ended.is_none(), "the session stood");
}
