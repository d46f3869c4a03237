//! Guessing passwords: it gets slow for whoever guesses, and for nobody else.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{PASSWORD, TestController};

const STRANGER: &str = "203.0.113.7";
const HOLDER: &str = "198.51.100.1";

async fn login(controller: &TestController, from: &str, user: &str, password: &str) -> (StatusCode, Value) {
    let form = [("grant_type", "password"), ("username", user), ("password", password)];
    controller.token_from(Some(from), &form).await
}

/// As many wrong ones at once as fill every queue: what is told, each with how often.
async fn flood(controller: &TestController, from: &str, user: &str) -> std::collections::BTreeMap<String, usize> {
    let limit = std::time::Duration::from_millis(1500);
    let guesses = (0..120).map(|_| tokio::time::timeout(limit, login(controller, from, user, "wrong")));
    let mut told = std::collections::BTreeMap::new();
    for answer in futures::future::join_all(guesses).await {
        // Who still waits has learned nothing.
        let text = answer.map_or_else(|_| "waits".to_owned(), |(_, body)| body["error_description"].to_string());
        *told.entry(text).or_default() += 1;
    }
    told
}

#[tokio::test]
async fn nobody_is_locked_out_by_a_stranger() {
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
    let told = flood(&controller, STRANGER, "dora").await;
    let tried = told.get("\"Bad credentials\"").copied().unwrap_or_default();
    assert!(tried < 15, "one after the other, further and further apart: {told:?}");
    let (status, body) = login(&controller, HOLDER, "dora", PASSWORD).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_answered_as_one_that_somebody_has() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    let mut told = Vec::new();
    for (name, from) in [("dora", "203.0.113.7"), ("nobody", "203.0.114.7")] {
        for _ in 0..5 {
            login(&controller, from, name, "wrong").await;
        }
        let answers = flood(&controller, from, name).await;
        // How many are through by now is up to the machine.
        told.push(answers.into_keys().filter(|text| text.contains("too many")).collect::<Vec<_>>());
    }
    let text = "\"Your account has been locked because of too many failed attempts to login.\"";
    assert_eq!(told, [[text], [text]]);
}

#[tokio::test]
async fn a_pipeline_is_not_locked_out_and_a_password_change_is_no_other_place_to_guess_at() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let wish = json!({ "client_id": "ci", "client_secret": PASSWORD });
    assert_eq!(admin.post("/oauth/clients", wish).await.0, StatusCode::CREATED);
    let by_client = async |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "ci"), ("client_secret", secret)];
        let anybody = controller.client(None);
        anybody.send(anybody.request(Method::POST, "/oauth/token").form(&form)).await.0
    };
    for _ in 0..5 {
        assert_eq!(by_client("wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(by_client(PASSWORD).await, StatusCode::OK);

    let dora = controller.user("dora").await;
    let path = format!("/Users/{}/password", controller.account("dora").await.guid);
    let change = json!({ "oldPassword": "wrong", "password": "quite another one" });
    let limit = std::time::Duration::from_millis(1500);
    let guesses =
        (0..40).map(|_| tokio::time::timeout(limit, dora.send(dora.request(Method::PUT, &path).json(&change))));
    let answers = futures::future::join_all(guesses).await;
    let tried = answers.iter().flatten().filter(|(_, body)| body["error_description"] == "Old password is incorrect");
    let tried = tried.count();
    assert!((1..15).contains(&tried), "{tried}");
}

#[tokio::test]
async fn right_ones_at_once_lock_nobody_out() {
    let controller = TestController::start().await;
    controller.user("dora").await;
    let answers = futures::future::join_all((0..10).map(|_| login(&controller, HOLDER, "dora", PASSWORD))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
}
