//! Guessing passwords: it gets slow for whoever guesses, and for nobody else. How slow is the business of
//! `controller/src/auth/guesses.rs`, whose tests own the clock.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_controller::auth::guesses::LoginAttempt;

use crate::support::{PASSWORD, TestController};

const STRANGER: &str = "203.0.113.7";
const HOLDER: &str = "198.51.100.1";
/// Where requests come from of which no router tells anything.
const TEST: &str = "127.0.0.1";
const TOO_MANY: &str = "Your account has been locked because of too many failed attempts to login.";

async fn login(controller: &TestController, from: &str, user: &str, password: &str) -> (StatusCode, Value) {
    let form = [("grant_type", "password"), ("username", user), ("password", password)];
    controller.token_from(Some(from), &form).await
}

/// Somebody there has guessed for a while, and has so many guesses waiting that no further one would have its turn in time.
fn guessed(controller: &TestController, kind: &str, name: &str, from: &str) {
    let tried = LoginAttempt::new(kind, name, from.parse().expect("an address"));
    let guesses = &controller.context.guard.guesses;
    for _ in 0..20 {
        guesses.wrong(tried);
    }
    while guesses.admit(tried).is_some() {}
}

#[tokio::test]
async fn wrong_passwords_of_a_stranger_lock_nobody_out() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    for from in [HOLDER, STRANGER] {
        for _ in 0..5 {
            let (status, body) = login(&controller, from, "dora", "wrong").await;
            assert_eq!((status, &body["error_description"]), (StatusCode::UNAUTHORIZED, &json!("Bad credentials")));
        }
    }
    // Later, but in: also from where the wrong ones came from.
    let (status, body) = login(&controller, HOLDER, "dora", PASSWORD).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    guessed(&controller, "user", "dora", STRANGER);
    let (status, body) = login(&controller, HOLDER, "dora", PASSWORD).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_answered_as_one_that_somebody_has() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    for name in ["dora", "nobody"] {
        for from in [HOLDER, STRANGER] {
            let (status, body) = login(&controller, from, name, "wrong").await;
            assert_eq!((status, &body["error_description"]), (StatusCode::UNAUTHORIZED, &json!("Bad credentials")));
            guessed(&controller, "user", name, from);
            let (status, body) = login(&controller, from, name, "wrong").await;
            assert_eq!((status, &body["error_description"]), (StatusCode::UNAUTHORIZED, &json!(TOO_MANY)), "{name}");
        }
    }
}

#[tokio::test]
async fn a_pipeline_and_a_change_of_password_are_guessed_at_as_slowly() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let wish = json!({ "client_id": "ci", "client_secret": PASSWORD });
    assert_eq!(admin.post("/oauth/clients", wish).await.0, StatusCode::CREATED);
    let by_client = async |from: &str, secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "ci"), ("client_secret", secret)];
        let anybody = controller.client(None);
        let request = anybody.request(Method::POST, "/oauth/token").header("x-forwarded-for", from).form(&form);
        anybody.send(request).await
    };
    for _ in 0..5 {
        assert_eq!(by_client(HOLDER, "wrong").await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(by_client(HOLDER, PASSWORD).await.0, StatusCode::OK, "later, but in");
    guessed(&controller, "client", "ci", STRANGER);
    assert_eq!(by_client(STRANGER, PASSWORD).await.1["error_description"], TOO_MANY);
    assert_eq!(by_client(HOLDER, PASSWORD).await.0, StatusCode::OK);

    // Changing the password is no other place to guess at.
    let dora = controller.user("dora").await;
    let path = format!("/Users/{}/password", controller.account("dora").await.guid);
    let change = json!({ "oldPassword": PASSWORD, "password": "quite another one" });
    guessed(&controller, "user", "dora", TEST);
    let (status, body) = dora.send(dora.request(Method::PUT, &path).json(&change)).await;
    assert_eq!((status, &body["error_description"]), (StatusCode::UNAUTHORIZED, &json!(TOO_MANY)));
}

#[tokio::test]
async fn right_ones_at_once_lock_nobody_out() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    let answers = futures::future::join_all((0..10).map(|_| login(&controller, HOLDER, "dora", PASSWORD))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
}
