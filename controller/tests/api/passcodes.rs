//! Logging in with a passcode.

use crate::support::{ADMIN_PASSWORD, PASSWORD, TestClient, TestController};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use slipway_controller::auth::tokens;

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
    let (_, page) = form(&controller, &[("username", "dora"), ("password", PASSWORD)]).await;
    let code = code_of(&page);
    sqlx::query("update passcode set expires_at = now() - interval '1 second'")
        .execute(&controller.database.pool)
        .await
        .expect("update");
    assert_eq!(redeem(&controller, &code).await.0, StatusCode::UNAUTHORIZED, "expired");
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select code_hash from passcode").fetch_all(&controller.database.pool).await.expect("rows");
    assert!(stored.iter().all(|hash| hash.len() == 32 && hash != code.as_bytes()), "only hashes are kept");

    // The form shows nothing of what was typed.
    for _ in 0..2 {
        let (status, page) = form(&controller, &[("username", "dora"), ("password", "<script>wrong")]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(page.contains("Bad credentials") && !page.contains("script") && !page.contains("wrong"), "{page}");
    }
}

/// A token restricted to this, of the administrator.
async fn restricted(controller: &TestController, scope: &str) -> TestClient {
    let fields = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD), ("scope", scope)];
    let (status, answer) = controller.token(&fields).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    controller.client(answer["access_token"].as_str())
}

#[tokio::test]
async fn a_code_is_good_for_no_more_than_the_token_it_came_from() {
    let controller = TestController::start().await;
    // What was restricted to be handed on stands for nobody.
    let reader = restricted(&controller, "cloud_controller.read").await;
    for path in ["/passcode", "/oauth/authorize?response_type=code&client_id=ssh-proxy"] {
        let (status, body) = reader.get(path).await;
        assert_eq!((status, &body["error"]), (StatusCode::FORBIDDEN, &"insufficient_scope".into()), "{path} {body}");
    }
    let user = restricted(&controller, "cloud_controller.read uaa.user").await;
    let (status, body) = user.get("/passcode").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, answer) = redeem(&controller, body["passcode"].as_str().expect("a code")).await;
    assert_eq!((status, &answer["scope"]), (StatusCode::OK, &"cloud_controller.read uaa.user".into()), "{answer}");
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", answer["refresh_token"].as_str().expect("one"))];
    let (status, again) = controller.token(&refresh).await;
    assert_eq!((status, &again["scope"]), (StatusCode::OK, &answer["scope"]), "{again}");

    let claims = tokens::check(&controller.context, user.token.as_deref().expect("a token")).await.expect("good");
    let code = tokens::issue_code(&controller.context, &claims).await.expect("a code");
    let (_, scopes) = tokens::redeem_code(&controller.context, &code).await.expect("good");
    assert_eq!(scopes, claims.scope);
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
