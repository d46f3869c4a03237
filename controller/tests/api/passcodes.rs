//! Logging in with a passcode.

use crate::support::{ADMIN_PASSWORD, TestController};
use reqwest::{Client, StatusCode};
use serde_json::Value;

async fn form(controller: &TestController, fields: &[(&str, &str)]) -> (StatusCode, String) {
    let answer =
        Client::new().post(format!("{}/passcode", controller.base)).form(fields).send().await.expect("an answer");
    assert!(answer.headers()["content-security-policy"].to_str().expect("text").contains("frame-ancestors 'none'"));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status(), answer.text().await.expect("a page"))
}

fn code_of(page: &str) -> String {
    let (_, rest) = page.split_once("<code>").unwrap_or_else(|| panic!("no code in {page}"));
    rest.split('<').next().expect("an end").to_owned()
}

async fn redeem(controller: &TestController, code: &str) -> (StatusCode, Value) {
    controller.token(&[("grant_type", "password"), ("passcode", code)]).await
}

#[tokio::test]
async fn a_passcode_logs_in_once() {
    let controller = TestController::start().await;
    let (_, login) = controller.client(None).get("/login").await;
    let prompt = login["prompts"]["passcode"].as_array().expect("a prompt");
    assert!(prompt[1].as_str().expect("text").contains("/passcode )"), "{login}");
    let (status, page) = controller.client(None).get("/passcode").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.as_str().expect("a page").contains("<form"), "{page}");

    let (status, page) = form(&controller, &[("username", "admin"), ("password", ADMIN_PASSWORD)]).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let code = code_of(&page);
    let (status, token) = redeem(&controller, &code).await;
    assert_eq!(status, StatusCode::OK, "{token}");
    assert!(token["refresh_token"].is_string());
    let client = controller.client(token["access_token"].as_str());
    assert_eq!(client.get("/v3/organizations").await.0, StatusCode::OK);
    let (status, body) = redeem(&controller, &code).await;
    assert_eq!((status, &body["error_description"]), (StatusCode::UNAUTHORIZED, &"Invalid passcode".into()), "used up");

    // Whoever is logged in gets one without a password.
    let (status, body) = client.get("/passcode").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(redeem(&controller, body["passcode"].as_str().expect("a code")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn bad_passcodes_and_passwords_are_refused() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    for code in ["", "x", "AAAAAAAAAA"] {
        assert_eq!(redeem(&controller, code).await.0, StatusCode::UNAUTHORIZED, "{code:?}");
    }
    let (_, page) = form(&controller, &[("username", "dora"), ("password", "pw")]).await;
    let code = code_of(&page);
    sqlx::query("update passcode set expires_at = now() - interval '1 second'")
        .execute(&controller.database.pool)
        .await
        .expect("update");
    assert_eq!(redeem(&controller, &code).await.0, StatusCode::UNAUTHORIZED, "expired");
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select code_hash from passcode").fetch_all(&controller.database.pool).await.expect("rows");
    assert!(stored.iter().all(|hash| hash.len() == 32 && hash != code.as_bytes()), "only hashes are kept");

    // The form locks as the token endpoint does, and shows nothing of what was typed.
    for _ in 0..5 {
        let (status, page) = form(&controller, &[("username", "dora"), ("password", "<script>wrong")]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(page.contains("Bad credentials") && !page.contains("script") && !page.contains("wrong"), "{page}");
    }
    let (_, page) = form(&controller, &[("username", "dora"), ("password", "pw")]).await;
    assert!(page.contains("Your account has been locked"), "{page}");
}

#[tokio::test]
async fn other_ways_to_log_in_are_refused_by_name() {
    let controller = TestController::start().await;
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let (status, body) = controller.token(&[("grant_type", grant), ("assertion", "x.y.z")]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &"unsupported_grant_type".into()), "{body}");
    let (status, body) = controller
        .token(&[("grant_type", "client_credentials"), ("client_id", "ci"), ("client_assertion", "x.y.z")])
        .await;
    assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &"invalid_client".into()), "{body}");
    assert!(body["error_description"].as_str().expect("text").contains("client secret"), "{body}");
}
