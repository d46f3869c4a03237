//! Files that the platform has already: revealed to, and accepted from, those who may read a package with them, and nobody
//! else.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha1::Digest as _;
use uuid::Uuid;

use crate::support::apps::{app_of, package, refused, upload, zip_of};
use crate::support::{TestClient, TestController};

fn entry(content: &[u8]) -> Value {
    let sha1 = hex::encode(sha1::Sha1::digest(content));
    json!({ "path": "f", "mode": "644", "checksum": { "value": sha1 }, "size_in_bytes": content.len() })
}

async fn known(client: &TestClient, entry: &Value) -> usize {
    let (status, body) = client.post("/v3/resource_matches", json!({ "resources": [entry] })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["resources"].as_array().expect("a list").len()
}

async fn give(admin: &TestClient, kind: &str, user: &str, place: (&str, &str)) {
    let body = json!({ "type": kind, "relationships": {
        "user": { "data": { "username": user } }, place.0: { "data": { "guid": place.1 } } } });
    let (status, body) = admin.post("/v3/roles", body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

/// Another organization with a space, and a developer there.
async fn neighbour(controller: &TestController, name: &str) -> (TestClient, Uuid) {
    let admin = controller.admin().await;
    let (_, org) = admin.post("/v3/organizations", json!({ "name": name })).await;
    let org = org["guid"].as_str().expect("a guid").to_owned();
    let space = json!({ "name": name, "relationships": { "organization": { "data": { "guid": org } } } });
    let (_, space) = admin.post("/v3/spaces", space).await;
    let space = space["guid"].as_str().expect("a guid").to_owned();
    let user = format!("{name}@example.com");
    let client = controller.user(&user).await;
    give(&admin, "organization_user", &user, ("organization", &org)).await;
    give(&admin, "space_developer", &user, ("space", &space)).await;
    (client, space.parse().expect("a guid"))
}

#[tokio::test]
async fn known_files_of_others_are_not_revealed() {
    let controller = TestController::start().await;
    let owner = controller.user_with("owner@example.com", "space_developer").await;
    let (_, dev) = controller.dev().await;
    let secret = b"a model ".repeat(10_000);
    let app = app_of(&owner, dev, "secret", "").await;
    let first = package(&owner, &app).await;
    assert_eq!(upload(&owner, &first, &json!([]), Some(zip_of(&[("model", &secret)]))).await.0, StatusCode::OK);
    let entry = entry(&secret);

    let (thief, space) = neighbour(&controller, "thief").await;
    assert_eq!(known(&thief, &entry).await, 0, "nobody is told");
    let own = app_of(&thief, space, "thief", "").await;
    let stolen = package(&thief, &own).await;
    refused(&upload(&thief, &stolen, &json!([entry]), None).await, 422, &["does not have the file \"f\""]);
    // Who may see the space, but not download its packages, neither.
    let auditor = controller.user_with("auditor@example.com", "space_auditor").await;
    assert_eq!(known(&auditor, &entry).await, 0);

    // In the same space, by another developer, and in another space of who may read both.
    let colleague = controller.user_with("colleague@example.com", "space_developer").await;
    let second = app_of(&colleague, dev, "second", "").await;
    assert_eq!(known(&colleague, &entry).await, 1);
    let shared = package(&colleague, &second).await;
    assert_eq!(upload(&colleague, &shared, &json!([entry]), None).await.0, StatusCode::OK);
    give(
        &controller.admin().await,
        "organization_user",
        "owner@example.com",
        ("organization", &org_of(&controller, space).await),
    )
    .await;
    give(&controller.admin().await, "space_developer", "owner@example.com", ("space", &space.to_string())).await;
    let app = app_of(&owner, space, "copy", "").await;
    let copy = package(&owner, &app).await;
    assert_eq!(upload(&owner, &copy, &json!([entry]), None).await.0, StatusCode::OK);
    let bits = owner.request(Method::GET, &format!("/v3/packages/{copy}/download")).send().await.expect("an answer");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bits.bytes().await.expect("bits"))).expect("a zip");
    assert_eq!(archive.by_name("f").expect("the file").size(), secret.len() as u64);
    // Now a package that the other may read holds it.
    assert_eq!(known(&thief, &entry).await, 1);
}

async fn org_of(controller: &TestController, space: Uuid) -> String {
    let org: Uuid = sqlx::query_scalar("select org_guid from space where guid = $1")
        .bind(space)
        .fetch_one(&controller.database.pool)
        .await
        .expect("a space");
    org.to_string()
}

/// A row that speaks of another content than its SHA-1 says: whoever wrote it, nobody gets that content for the file.
#[tokio::test]
async fn a_known_file_is_checked_against_its_digest() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let (good, evil) = (b"good".repeat(20_000), b"evil".repeat(20_000));
    let first = package(&client, &app).await;
    assert_eq!(upload(&client, &first, &json!([]), Some(zip_of(&[("f", &good)]))).await.0, StatusCode::OK);
    let planted = controller.put_blob(&evil).await;
    sqlx::query("update space_file set blob = $1")
        .bind(planted.to_vec())
        .execute(&controller.database.pool)
        .await
        .expect("planted");
    let second = package(&client, &app).await;
    refused(&upload(&client, &second, &json!([entry(&good)]), None).await, 422, &["does not have the file"]);
    // Sent whole, it takes its place again.
    let bits = Some(zip_of(&[("f", &good)]));
    assert_eq!(upload(&client, &second, &json!([]), bits).await.0, StatusCode::OK);
    let third = package(&client, &app).await;
    assert_eq!(upload(&client, &third, &json!([entry(&good)]), None).await.0, StatusCode::OK);
}
