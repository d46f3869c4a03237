//! What an organization stores is on its account, and the disk of the store has a reserve.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_api_types::AssignmentId;
use slipway_controller::config::Limits;
use slipway_controller::domain::outcomes;
use slipway_controller::store::stored::SETTLE_S;

use crate::support::apps::{app_of, build, build_result, catalogue, package, ready_package, refused, upload, zip_of};
use crate::support::{TestClient, TestController, error};

/// Bytes that no compression makes less.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn push(client: &TestClient, app: &str, mib: usize, seed: u64) -> (StatusCode, Value) {
    let package = package(client, app).await;
    // A little less: the zip has its own bytes.
    upload(client, &package, &json!([]), Some(zip_of(&[("x", &noise((mib << 20) - 4096, seed))]))).await
}

async fn later(controller: &TestController) {
    sqlx::query("update stored_put set put_at = put_at - make_interval(secs => $1)")
        .bind(SETTLE_S)
        .execute(&controller.database.pool)
        .await
        .expect("time passes");
}

#[tokio::test]
async fn an_organization_stores_as_much_as_it_may() {
    let controller = TestController::with_limits(Limits { stored_mb_per_organization: 4, ..Limits::default() }).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (org, space) = controller.dev().await;
    let (one, two) = (app_of(&client, space, "one", "").await, app_of(&client, space, "two", "").await);
    for seed in 0..3 {
        assert_eq!(push(&client, &one, 1, seed).await.0, StatusCode::OK);
    }
    assert_eq!(push(&client, &two, 1, 3).await.0, StatusCode::OK);
    let over = push(&client, &two, 1, 4).await;
    refused(
        &over,
        422,
        &["\"dev\" stores 4 MiB of the 4 MiB", "this has 1 MiB", "4 MiB of packages", "Delete packages"],
    );
    let (_, found) = client.get(&format!("/v3/apps/{two}/packages?order_by=-created_at")).await;
    assert_eq!(found["resources"][0]["state"], "AWAITING_UPLOAD");

    // Copies are as much as what they are copies of, though they share its bits.
    let source = found["resources"][1]["guid"].as_str().expect("a guid");
    let copy = json!({ "type": "bits", "relationships": { "app": { "data": { "guid": one } } } });
    refused(&client.post(&format!("/v3/packages?source_guid={source}"), copy).await, 422, &["stores 4 MiB"]);

    // What was sent and deleted is on the disk for an hour, and so is it on the account.
    client.job(client.request(Method::DELETE, &format!("/v3/packages/{source}"))).await;
    refused(&push(&client, &two, 1, 5).await, 422, &["3 MiB of packages", "1 MiB deleted within an hour"]);
    later(&controller).await;
    assert_eq!(push(&client, &two, 1, 6).await.0, StatusCode::OK);

    // An operator gives one organization more.
    let admin = controller.admin().await;
    let quota = json!({
        "name": "large", "apps": { "total_stored_in_mb": 6 },
        "relationships": { "organizations": { "data": [{ "guid": org }] } },
    });
    let (status, quota) = admin.post("/v3/organization_quotas", quota).await;
    assert_eq!((status, &quota["apps"]["total_stored_in_mb"]), (StatusCode::CREATED, &json!(6)), "{quota}");
    assert_eq!(push(&client, &two, 1, 7).await.0, StatusCode::OK);
    let path = format!("/v3/organization_quotas/{}", quota["guid"].as_str().expect("a guid"));
    let (_, quota) = admin.patch(&path, json!({ "apps": { "total_stored_in_mb": null } })).await;
    assert_eq!(quota["apps"]["total_stored_in_mb"], Value::Null);
    refused(&push(&client, &two, 1, 8).await, 422, &["of the 4 MiB"]);
}

#[tokio::test]
async fn a_droplet_over_the_quota_fails_its_build_with_the_reason() {
    let controller = TestController::with_limits(Limits { stored_mb_per_organization: 4, ..Limits::default() }).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let package = ready_package(&client, &app).await;
    let end = async |build: &str, bytes: &[u8], cache: u64| {
        controller.put_blob(bytes).await;
        let mut result = build_result(bytes);
        result.cache =
            Some(slipway_protocol::v1::Blob { digest: vec![7; 32].into(), size: cache, ..Default::default() });
        let guid = build.parse().expect("a guid");
        outcomes::build_completed(&controller.context, AssignmentId::new(), guid, 1, Some(result), None)
            .await
            .expect("ended");
        client.get(&format!("/v3/builds/{build}")).await.1
    };
    let staged = end(&build(&client, &package).await, &noise(2 << 20, 1), 3 << 20).await;
    assert_eq!(staged["state"], "STAGED", "{staged}");
    let cache: Option<i64> = sqlx::query_scalar("select build_cache_size from app where guid = $1::uuid")
        .bind(&app)
        .fetch_one(&controller.database.pool)
        .await
        .expect("the app");
    assert_eq!(cache, None, "a cache that does not fit is not kept");
    let failed = end(&build(&client, &package).await, &noise(3 << 20, 2), 1).await;
    assert_eq!(failed["state"], "FAILED", "{failed}");
    let text = failed["error"].as_str().expect("why");
    assert!(
        text.starts_with("StagingError - The droplet cannot be kept: The organization \"dev\" stores 3 MiB"),
        "{text}"
    );
    // It is on the disk all the same, until the sweep takes it: nobody builds for nothing meanwhile.
    refused(&client.post("/v3/builds", json!({ "package": { "guid": package } })).await, 422, &["6 MiB of the 4 MiB"]);
    later(&controller).await;
    let staged = end(&build(&client, &package).await, &noise(1 << 20, 3), 1).await;
    assert_eq!(staged["state"], "STAGED", "{staged}");
}

/// The disk of the store is full up to its reserve: nothing is received, whatever it is, and what is there goes on.
#[tokio::test]
async fn uploads_leave_the_reserve_of_the_disk() {
    let full = Limits { store_reserve_mb: u64::MAX >> 20, ..Limits::default() };
    let controller = TestController::with_limits(full).await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let package = package(&admin, &app).await;
    let of_app = json!({ "app": { "data": { "guid": app } } });
    let (_, droplet) = admin.post("/v3/droplets", json!({ "relationships": of_app })).await;
    let (_, pack) = admin.post("/v3/buildpacks", json!({ "name": "mine" })).await;
    let guid = |made: &Value| made["guid"].as_str().expect("a guid").to_owned();
    for path in
        [format!("packages/{package}"), format!("droplets/{}", guid(&droplet)), format!("buildpacks/{}", guid(&pack))]
    {
        let form = Form::new().part("bits", Part::bytes(zip_of(&[("bin/compile", b"x")])).file_name("x.zip"));
        let request = admin.request(Method::POST, &format!("/v3/{path}/upload")).multipart(form);
        let (status, body) = admin.send(request).await;
        assert_eq!((status.as_u16(), error(&body).0), (507, 10_507), "{path}: {body}");
        assert_eq!(body["errors"][0]["title"], "CF-InsufficientStorage");
        assert!(error(&body).1.contains("are kept for what runs"), "{body}");
        assert_eq!(admin.get(&format!("/v3/{path}")).await.1["state"], "AWAITING_UPLOAD", "{path}");
    }
    assert!(!controller.context.config.blob_directory.join("incoming").exists(), "nothing was received");
    // What is no upload is answered, and written.
    app_of(&admin, space, "b", "").await;
}
