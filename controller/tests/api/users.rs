//! `/v3/users`, and users of spaces and organizations.

use serde_json::{Value, json};

use crate::support::apps::refused;
use crate::support::{TestClient, TestController};

async fn names(client: &TestClient, path: &str) -> Vec<String> {
    let (status, body) = client.get(path).await;
    assert_eq!(status, 200, "{body}");
    let list = body["resources"].as_array().expect("a list");
    let mut names: Vec<String> = list.iter().map(|user| user["username"].as_str().unwrap_or("-").to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn users_of_other_origins_are_made_and_found() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let wish = json!({ "username": "ada", "origin": "ldap" });
    let (status, made) = admin.post("/v3/users", wish.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["username"], &made["origin"], &made["presentation_name"]),
        (&json!("ada"), &json!("ldap"), &json!("ada"))
    );
    let text = "User with username 'ada' and origin 'ldap' already exists.";
    refused(&admin.post("/v3/users", wish).await, 422, &[text]);
    for (body, text) in [
        (json!({}), "Guid or 'username' and 'origin' must be provided"),
        (json!({ "username": "x" }), "Username can only be provided together with 'origin'"),
        (json!({ "origin": "x" }), "Origin can only be provided together with 'username'"),
        (json!({ "username": "x", "origin": "uaa" }), "Origin cannot be 'uaa' when creating a user by username"),
        (json!({ "guid": "x", "origin": "y" }), "Origin cannot be provided with 'guid'"),
    ] {
        refused(&admin.post("/v3/users", body).await, 422, &[text]);
    }
    controller.user("adalbert").await;
    let guid = admin.get("/Users?filter=userName%20eq%20%22adalbert%22").await.1["resources"][0]["id"].clone();
    let made = admin.post("/v3/users", json!({ "guid": guid })).await;
    assert!(made.0 == 201 || made.0 == 422, "{}", made.1);
    assert_eq!(names(&admin, "/v3/users?partial_usernames=ADA").await, ["ada", "adalbert"]);
    assert_eq!(names(&admin, "/v3/users?partial_usernames=ada&origins=ldap").await, ["ada"]);
    assert_eq!(names(&admin, "/v3/users?usernames=Ada").await, ["ada"]);
    refused(&admin.get("/v3/users?origins=ldap").await, 400, &["cannot be provided without usernames"]);
    refused(&admin.get("/v3/users?usernames=a&partial_usernames=a").await, 400, &["cannot be provided with both"]);

    let user = format!("/v3/users/{}", made_guid(&admin, "ada").await);
    let (_, body) = admin.patch(&user, json!({ "metadata": { "labels": { "team": "red" } } })).await;
    assert_eq!(body["metadata"]["labels"]["team"], "red", "{body}");
    assert_eq!(names(&admin, "/v3/users?label_selector=team%3Dred").await, ["ada"]);
}

async fn made_guid(admin: &TestClient, name: &str) -> String {
    let (_, body): (_, Value) = admin.get(&format!("/v3/users?usernames={name}")).await;
    body["resources"][0]["guid"].as_str().expect("a guid").to_owned()
}

#[tokio::test]
async fn spaces_and_organizations_list_their_users() {
    let controller = TestController::start().await;
    let developer = controller.user_with("dev@example.com", "space_developer").await;
    controller.user_with("boss@example.com", "organization_manager").await;
    controller.user("stranger@example.com").await;
    let (org, space) = controller.dev().await;
    let all = ["admin", "boss@example.com", "dev@example.com"];
    assert_eq!(names(&developer, &format!("/v3/organizations/{org}/users")).await, all);
    assert_eq!(names(&developer, &format!("/v3/spaces/{space}/users")).await, ["admin", "dev@example.com"]);
    assert_eq!(
        names(&developer, &format!("/v3/spaces/{space}/users?partial_usernames=dev")).await,
        ["dev@example.com"]
    );
}
