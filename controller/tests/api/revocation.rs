//! What ends tokens, at the next request: everything after which they would stand for somebody who is no more.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_controller::auth::tokens;

use crate::support::{ADMIN_PASSWORD, PASSWORD, TestClient, TestController};

const NEW_PASSWORD: &str = "quite another one";

/// A session: a client with the access token, and the refresh token.
async fn session(controller: &TestController, user: &str, password: &str) -> (TestClient, String) {
    let (status, answer) =
        controller.token(&[("grant_type", "password"), ("username", user), ("password", password)]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let refresh = answer["refresh_token"].as_str().expect("a token").to_owned();
    (controller.client(answer["access_token"].as_str()), refresh)
}

async fn refresh(controller: &TestController, token: &str) -> (StatusCode, Value) {
    controller.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

async fn pipeline(controller: &TestController, admin: &TestClient, authorities: &[&str]) -> (TestClient, i64) {
    let wish = json!({ "client_id": "ci", "client_secret": PASSWORD, "authorities": authorities });
    let (status, made) = admin.post("/oauth/clients", wish).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let form = [("grant_type", "client_credentials"), ("client_id", "ci"), ("client_secret", PASSWORD)];
    let anybody = controller.client(None);
    let (status, answer) = anybody.send(anybody.request(Method::POST, "/oauth/token").form(&form)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    (controller.client(answer["access_token"].as_str()), answer["expires_in"].as_i64().expect("a life"))
}

async fn works(client: &TestClient) -> bool {
    match client.get("/v3/organizations").await.0 {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => false,
        status => panic!("{status}"),
    }
}

async fn execute(controller: &TestController, sql: &'static str) {
    let done = sqlx::query(sql).execute(&controller.database.pool).await.expect(sql);
    assert!(done.rows_affected() > 0, "{sql}");
}

#[tokio::test]
async fn a_user_s_tokens_end_with_its_password_its_rights_and_itself() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    controller.user("dora").await;
    let dora = controller.account("dora").await.guid;
    let mut password = PASSWORD;
    for what in ["password", "scopes", "revoked", "deleted"] {
        let (client, token) = session(&controller, "dora", password).await;
        let code = client.get("/passcode").await.1["passcode"].as_str().expect("a code").to_owned();
        let claims = tokens::check(&controller.context, client.token.as_deref().expect("one")).await.expect("good");
        let ssh = tokens::issue_code(&controller.context, &claims).await.expect("a code");
        assert!(works(&client).await, "{what}");
        match what {
            "password" => {
                let change = admin.request(Method::PUT, &format!("/Users/{dora}/password"));
                let (status, answer) = admin.send(change.json(&json!({ "password": NEW_PASSWORD }))).await;
                assert_eq!(status, StatusCode::OK, "{answer}");
                password = NEW_PASSWORD;
            }
            // As an operator does it.
            "scopes" => {
                let grant =
                    "update user_account set scopes = '{cloud_controller.global_auditor}' where username = 'dora'";
                execute(&controller, grant).await;
            }
            "revoked" => {
                let (status, answer) = admin.get(&format!("/oauth/token/revoke/user/{dora}")).await;
                assert_eq!(status, StatusCode::OK, "{answer}");
            }
            _ => assert_eq!(admin.delete(&format!("/Users/{dora}")).await.0, StatusCode::OK),
        }
        assert!(!works(&client).await, "{what}: the access token");
        assert_eq!(refresh(&controller, &token).await.0, StatusCode::UNAUTHORIZED, "{what}: the refresh token");
        let redeemed = controller.token(&[("grant_type", "password"), ("passcode", &code)]).await;
        assert_eq!(redeemed.0, StatusCode::UNAUTHORIZED, "{what}: the passcode");
        assert!(tokens::redeem_code(&controller.context, &ssh).await.is_err(), "{what}: the code for ssh");
        if what != "deleted" {
            assert!(works(&session(&controller, "dora", password).await.0).await, "{what}: a new login");
        }
        assert!(works(&admin).await, "{what}: nobody else's");
    }
}

#[tokio::test]
async fn a_client_s_tokens_end_with_its_secret_its_rights_and_itself() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    for what in ["secret", "scopes", "revoked", "deleted"] {
        let (client, life) = pipeline(&controller, &admin, &["cloud_controller.admin"]).await;
        assert_eq!(life, 2 * 3600);
        assert!(works(&client).await, "{what}");
        match what {
            "secret" => {
                let change = admin.request(Method::PUT, "/oauth/clients/ci/secret");
                let (status, answer) = admin.send(change.json(&json!({ "secret": NEW_PASSWORD }))).await;
                assert_eq!(status, StatusCode::OK, "{answer}");
            }
            "scopes" => {
                execute(&controller, "update user_account set scopes = '{cloud_controller.read}' where guid = 'ci'")
                    .await;
            }
            "revoked" => {
                let (status, answer) = admin.get("/oauth/token/revoke/client/ci").await;
                assert_eq!(status, StatusCode::OK, "{answer}");
            }
            _ => {}
        }
        if what != "deleted" {
            assert!(!works(&client).await, "{what}");
        }
        assert_eq!(admin.delete("/oauth/clients/ci").await.0, StatusCode::OK);
        assert!(!works(&client).await, "deleted");
        // Another one of the same name does not bring them back.
        let (_, life) = pipeline(&controller, &admin, &["cloud_controller.read"]).await;
        assert_eq!(life, 12 * 3600, "what can only read may live longer");
        assert!(!works(&client).await, "of the client that was there before");
        assert_eq!(admin.delete("/oauth/clients/ci").await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn administrators_end_everybody_s_tokens_and_others_their_own() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    controller.user("dora").await;
    let (dora, _) = session(&controller, "dora", PASSWORD).await;
    let (guid, other) = (controller.account("dora").await.guid, controller.account("admin").await.guid);
    for path in [format!("/oauth/token/revoke/user/{other}"), "/oauth/token/revoke/client/cf".to_owned()] {
        assert_eq!(dora.get(&path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    assert!(works(&admin).await);
    assert_eq!(dora.get(&format!("/oauth/token/revoke/user/{guid}")).await.0, StatusCode::OK);
    assert!(!works(&dora).await);
    for path in ["/oauth/token/revoke/user/nobody", "/oauth/token/revoke/client/nobody"] {
        assert_eq!(admin.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    // Through one client: whoever used it, with refresh tokens.
    let (dora, token) = session(&controller, "dora", PASSWORD).await;
    assert_eq!(admin.get("/oauth/token/revoke/client/cf").await.0, StatusCode::OK);
    assert!(!works(&dora).await && !works(&admin).await);
    assert_eq!(refresh(&controller, &token).await.0, StatusCode::UNAUTHORIZED);
    assert!(works(&controller.admin().await).await);
}

#[tokio::test]
async fn a_login_that_a_change_overtook_is_worth_nothing() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    let before = controller.account("dora").await;
    let cf = controller.account("cf").await;
    let store = &controller.context.store;
    store.account_set_password(&before.guid, "x").await.expect("set");
    let session = slipway_controller::store::users::NewSession {
        user: &before.guid,
        user_generation: before.generation,
        client: "cf",
        client_generation: cf.generation,
        scopes: &[],
        life_s: 60.0,
    };
    assert!(!store.refresh_token_create(b"one", session).await.expect("an answer"), "stored for a password of before");
}

#[tokio::test]
async fn tokens_of_a_controller_that_knew_no_generations_hold_until_something_changes() {
    let controller = TestController::start().await;
    execute(&controller, "update user_account set generation = 0").await;
    let (dora, user) = (controller.user("dora").await, controller.account("dora").await);
    execute(&controller, "update user_account set generation = 0 where username = 'dora'").await;
    let token = dora.token.expect("a token");
    let payload = token.split('.').nth(1).expect("three parts");
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).expect("base64");
    let mut claims: tokens::Claims = serde_json::from_slice(&bytes).expect("claims");
    claims.rev_sig = String::new();
    let old = tokens::sign(&controller.context, &claims).await.expect("signed");
    assert!(works(&controller.client(Some(&old))).await);
    controller.context.store.account_set_password(&user.guid, "x").await.expect("set");
    assert!(!works(&controller.client(Some(&old))).await);
}

#[tokio::test]
async fn accounts_with_rights_are_for_administrators_and_the_last_one_stays() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (keeper, _) = pipeline(&controller, &admin, &["scim.read", "scim.write"]).await;
    controller.user("dora").await;
    controller.user("second").await;
    let guid = async |name: &str| controller.account(name).await.guid;
    let (first, dora, second) = (guid("admin").await, guid("dora").await, guid("second").await);
    execute(&controller, "update user_account set scopes = '{cloud_controller.admin}' where username = 'second'").await;

    for right in [&first, &second] {
        let (status, body) = keeper.delete(&format!("/Users/{right}")).await;
        let text = body["error_description"].as_str().unwrap_or_default();
        assert!(status == StatusCode::FORBIDDEN && text.contains("Only an administrator"), "{status} {body}");
        let change = keeper.request(Method::PUT, &format!("/Users/{right}/password"));
        let (status, _) = keeper.send(change.json(&json!({ "password": NEW_PASSWORD }))).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    assert_eq!(keeper.delete(&format!("/Users/{dora}")).await.0, StatusCode::OK, "an account without rights");

    // Two administrators who remove each other at once: one stays.
    let other = controller.login("second", PASSWORD).await;
    let (path_first, path_second) = (format!("/Users/{first}"), format!("/Users/{second}"));
    let both = tokio::join!(admin.delete(&path_second), other.delete(&path_first));
    let gone = [both.0.0, both.1.0].iter().filter(|status| **status == StatusCode::OK).count();
    assert_eq!(gone, 1, "{both:?}");
    // Nobody else removes the last one either, a client that may do everything among them.
    let last = if both.0.0 == StatusCode::OK { first } else { second };
    execute(&controller, "update user_account set scopes = '{cloud_controller.admin}' where guid = 'ci'").await;
    let form = [("grant_type", "client_credentials"), ("client_id", "ci"), ("client_secret", PASSWORD)];
    let anybody = controller.client(None);
    let (_, answer) = anybody.send(anybody.request(Method::POST, "/oauth/token").form(&form)).await;
    let root = controller.client(answer["access_token"].as_str());
    let (status, body) = root.delete(&format!("/Users/{last}")).await;
    let text = body["error_description"].as_str().unwrap_or_default();
    assert!(status == StatusCode::UNPROCESSABLE_ENTITY && text.contains("last administrator"), "{status} {body}");
}

#[tokio::test]
async fn a_platform_without_an_administrator_gets_one_at_the_next_start() {
    let controller = TestController::start().await;
    let bootstrap = async || slipway_controller::auth::bootstrap(&controller.context).await.expect("a start");
    // Somebody else who has the name has not the rights, and one of another origin cannot log in.
    execute(&controller, "update user_account set scopes = '{}', password_hash = null where username = 'admin'").await;
    bootstrap().await;
    assert!(works(&controller.admin().await).await);
    let admin = controller.account("admin").await;
    assert_eq!(admin.scopes, ["cloud_controller.admin"]);

    execute(&controller, "update user_account set origin = 'ldap' where username = 'admin'").await;
    bootstrap().await;
    assert!(works(&controller.admin().await).await);

    // Under another name there is one, and nothing is made.
    execute(&controller, "delete from user_account where username = 'admin'").await;
    bootstrap().await;
    execute(&controller, "update user_account set username = 'root' where username = 'admin'").await;
    bootstrap().await;
    let named = controller.context.store.accounts_named("admin", None).await.expect("an answer");
    assert!(named.is_empty());
    let form = [("grant_type", "password"), ("username", "root"), ("password", ADMIN_PASSWORD)];
    assert_eq!(controller.token(&form).await.0, StatusCode::OK);
}
