//! No user takes the API from the others.

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use slipway_controller::config::Limits;

use crate::support::{TestClient, TestController, error};

async fn get(client: &TestClient, path: &str) -> Response {
    client.request(Method::GET, path).send().await.expect("an answer")
}

fn number(response: &Response, header: &str) -> Option<i64> {
    Some(response.headers().get(header)?.to_str().ok()?.parse().expect("a number"))
}

#[tokio::test]
async fn a_user_s_requests_are_counted_and_shown_as_on_cloud_foundry() {
    let limits = Limits { requests_per_user: 2, access_token_s: 86_400, ..Limits::default() };
    let controller = TestController::with_limits(limits).await;
    let (dora, other, admin) =
        (controller.user("dora").await, controller.user("other").await, controller.admin().await);
    for left in [1, 0] {
        let answer = get(&dora, "/v3/apps").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            (number(&answer, "x-ratelimit-limit"), number(&answer, "x-ratelimit-remaining")),
            (Some(2), Some(left))
        );
        let ends = number(&answer, "x-ratelimit-reset").expect("an end") - chrono::Utc::now().timestamp();
        assert!((1..=3600).contains(&ends), "{ends}");
    }
    let answer = get(&dora, "/v3/apps").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((number(&answer, "x-ratelimit-limit"), number(&answer, "x-ratelimit-remaining")), (Some(2), Some(0)));
    assert_eq!(
        number(&answer, "retry-after").map(|wait| (1..=3600).contains(&wait)),
        Some(true),
        "as long as the interval lasts"
    );
    let body: Value = answer.json().await.expect("json");
    assert_eq!(error(&body), (10013, "Rate Limit Exceeded".to_owned()));
    assert_eq!(body["errors"][0]["title"], "CF-RateLimitExceeded");
    // What needs no token is open, and nobody else has made a request.
    assert_eq!(get(&dora, "/v3").await.status(), StatusCode::OK);
    assert_eq!(get(&other, "/v3/apps").await.status(), StatusCode::OK);
    for _ in 0..4 {
        let answer = get(&admin, "/v3/apps").await;
        assert_eq!((answer.status(), number(&answer, "x-ratelimit-limit")), (StatusCode::OK, None));
    }
}

#[tokio::test]
async fn a_user_with_many_requests_at_once_leaves_the_others_their_turn() {
    let limits = Limits { requests_at_once: 1, access_token_s: 86_400, ..Limits::default() };
    let controller = TestController::with_limits(limits).await;
    let (dora, other) = (controller.user("dora").await, controller.user("other").await);
    let guid = controller.account("dora").await.guid;
    let held = controller.context.guard.turns.of(&guid, 1).await.expect("free");
    let waits = tokio::spawn(dora.request(Method::GET, "/v3/apps").send());
    assert_eq!(get(&other, "/v3/apps").await.status(), StatusCode::OK);
    // The token was looked at, and no more.
    assert!(!waits.is_finished());
    drop(held);
    assert_eq!(waits.await.expect("joins").expect("an answer").status(), StatusCode::OK);
    // A turn ends with its answer: as many as one likes, one after the other.
    for _ in 0..3 {
        assert_eq!(get(&dora, "/v3/apps").await.status(), StatusCode::OK);
    }
    let all = futures::future::join_all((0..20).map(|_| get(&dora, "/v3/apps"))).await;
    assert!(all.iter().all(|answer| answer.status() == StatusCode::OK));
    // Those who would wait too long are told.
    let held = controller.context.guard.turns.of(&guid, 1).await.expect("free");
    let limit = std::time::Duration::from_secs(2);
    let many = futures::future::join_all((0..60).map(|_| tokio::time::timeout(limit, get(&dora, "/v3/apps")))).await;
    let refused = many.iter().flatten().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS).count();
    assert!(refused > 0, "{many:?}");
    drop(held);
}

#[tokio::test]
async fn who_asks_for_logs_all_the_time_waits_for_nothing_but_his_own_questions() {
    let limits = Limits { access_token_s: 86_400, ..Limits::default() };
    let controller = TestController::with_limits(limits).await;
    let (dora, other) = (controller.user("dora").await, controller.user("other").await);
    let guid = controller.account("dora").await.guid;
    let turns = &controller.context.guard.log_turns;
    let held = futures::future::join_all((0..4).map(|_| turns.of(&guid, 4))).await;
    assert!(held.iter().all(Option::is_some));
    let logs = format!("/api/v1/read/{guid}");
    let waits = tokio::spawn(dora.request(Method::GET, &logs).send());
    // Nobody has an app of this name; what counts is that it was looked for.
    assert_eq!(get(&other, &logs).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&dora, "/v3/apps").await.status(), StatusCode::OK);
    assert!(!waits.is_finished());
    drop(held);
    assert_eq!(waits.await.expect("joins").expect("an answer").status(), StatusCode::NOT_FOUND);
    // A program that asks for hundreds at once is told.
    let guid = controller.account("other").await.guid;
    let held = futures::future::join_all((0..4).map(|_| turns.of(&guid, 4))).await;
    let limit = std::time::Duration::from_secs(2);
    let many = futures::future::join_all((0..200).map(|_| tokio::time::timeout(limit, get(&other, &logs)))).await;
    let refused = many.iter().flatten().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS).count();
    assert!(refused > 0, "{many:?}");
    drop(held);
}
