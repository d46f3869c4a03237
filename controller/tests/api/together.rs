//! Concurrent clients: one wins, the others get Cloud Foundry's errors, and nothing is created twice.

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_api_types::AssignmentId;
use slipway_controller::domain::outcomes;
use uuid::Uuid;

use crate::errors::{Expected, assert_error, expected, unprocessable};
use crate::support::apps::{app_of, build, build_result, catalogue, manifest, package, ready_package, upload, zip_of};
use crate::support::{TestClient, TestController, error};

const CLIENTS: usize = 8;

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

/// Sends the same thing eight times at once; the answers.
async fn at_once(client: &TestClient, method: Method, path: &str, body: &Value) -> Vec<(StatusCode, Value)> {
    join_all((0..CLIENTS).map(|_| client.send(client.request(method.clone(), path).json(body)))).await
}

/// One has made it; all others are told this.
fn one_wins(what: &str, answers: &[(StatusCode, Value)], made: StatusCode, expected: &Expected) {
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == made);
    assert_eq!(won.len(), 1, "{what}: {answers:?}");
    for answer in lost {
        assert_error(answer, expected);
    }
}

#[tokio::test]
async fn the_same_name_is_given_once() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    controller.user("twin").await;
    let (_, domains) = admin.get("/v3/domains?names=apps.slipway.test").await;
    let domain = domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned();
    let member = json!({ "type": "organization_user",
        "relationships": { "organization": to_one(org), "user": { "data": { "username": "twin" } } } });
    for (what, path, body, words) in [
        ("org", "/v3/organizations", json!({ "name": "same" }), "Organization 'same' already exists."),
        (
            "space",
            "/v3/spaces",
            json!({ "name": "same", "relationships": { "organization": to_one(org) } }),
            "Name must be unique per organization",
        ),
        (
            "app",
            "/v3/apps",
            json!({ "name": "same", "relationships": { "space": to_one(space) } }),
            "App with the name 'same' already exists.",
        ),
        (
            "route",
            "/v3/routes",
            json!({ "host": "same", "relationships": { "space": to_one(space), "domain": to_one(&domain) } }),
            "Route already exists with host 'same' for domain 'apps.slipway.test'.",
        ),
        (
            "domain",
            "/v3/domains",
            json!({ "name": "same.example.com" }),
            "The domain name \"same.example.com\" is already in use",
        ),
        ("role", "/v3/roles", member, "User 'twin' already has 'organization_user' role in organization 'dev'."),
        ("quota", "/v3/organization_quotas", json!({ "name": "same" }), "Organization Quota 'same' already exists."),
        ("group", "/v3/security_groups", json!({ "name": "same" }), "Security group with name 'same' already exists."),
        (
            "segment",
            "/v3/isolation_segments",
            json!({ "name": "same" }),
            "Isolation Segment names are case insensitive and must be unique",
        ),
    ] {
        let answers = at_once(&admin, Method::POST, path, &body).await;
        one_wins(what, &answers, StatusCode::CREATED, &unprocessable(words));
    }
}

#[tokio::test]
async fn a_route_is_mapped_once_and_environments_lose_nothing() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "  default-route: true\n").await;
    let (_, routes) = admin.get(&format!("/v3/apps/{app}/routes")).await;
    let route = routes["resources"][0]["guid"].as_str().expect("a route").to_owned();
    let other = controller.bare_app(space, "other").await;
    let body = json!({ "destinations": [{ "app": { "guid": other } }] });
    let path = format!("/v3/routes/{route}/destinations");
    for (status, answer) in at_once(&admin, Method::POST, &path, &body).await {
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let (_, listed) = admin.get(&path).await;
    assert_eq!(listed["destinations"].as_array().map(Vec::len), Some(2), "{listed}");

    let path = format!("/v3/apps/{app}/environment_variables");
    let changes = (0..CLIENTS).map(|number| {
        let body = json!({ "var": { format!("K{number}"): "v" } });
        let (client, path) = (admin.clone(), path.clone());
        async move { client.patch(&path, body).await }
    });
    for (status, answer) in join_all(changes).await {
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let (_, variables) = admin.get(&path).await;
    assert_eq!(variables["var"].as_object().map(serde_json::Map::len), Some(CLIENTS), "{variables}");

    // The same manifest from eight clients: one app, whoever made it.
    let text = "applications:\n- name: many\n  memory: 64M\n  default-route: true\n";
    let answers = join_all((0..CLIENTS).map(|_| admin.send(manifest(&admin, space, text)))).await;
    assert!(answers.iter().any(|(status, _)| *status == StatusCode::ACCEPTED), "{answers:?}");
    for (_, body) in answers.iter().filter(|(status, _)| *status != StatusCode::ACCEPTED) {
        assert_eq!(error(body).1, "For application 'many': App with the name 'many' already exists.");
    }
    let (_, apps) = admin.get("/v3/apps?names=many").await;
    assert_eq!(apps["pagination"]["total_results"], 1, "{apps}");
    let many = apps["resources"][0]["guid"].as_str().expect("a guid");
    let (_, routes) = admin.get(&format!("/v3/apps/{many}/routes")).await;
    assert_eq!(routes["pagination"]["total_results"], 1, "{routes}");
}

#[tokio::test]
async fn a_package_is_uploaded_once_and_staged_once_at_a_time() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let fresh = package(&admin, &app).await;
    let bits = zip_of(&[("a.txt", b"a")]);
    let none = json!([]);
    let answers = join_all((0..CLIENTS).map(|_| upload(&admin, &fresh, &none, Some(bits.clone())))).await;
    let words = "Bits may be uploaded only once. Create a new package to upload different bits.";
    let taken = expected(400, 150_004, "CF-PackageBitsAlreadyUploaded", words);
    one_wins("bits", &answers, StatusCode::OK, &taken);
    let answers = at_once(&admin, Method::POST, "/v3/builds", &json!({ "package": { "guid": fresh } })).await;
    let words = "Only one build can be STAGING at a time per application.";
    one_wins("build", &answers, StatusCode::CREATED, &expected(422, 170_017, "CF-StagingInProgress", words));
}

/// The cell says that the build went well, until that is taken: while the app goes away it may be told to come again.
async fn reported(controller: &TestController, build: &str) {
    controller.put_blob(b"a droplet").await;
    let guid = build.parse().expect("a guid");
    slipway_test_support::eventually("the report is taken", slipway_test_support::PATIENCE, || async {
        let result = Some(build_result(b"a droplet"));
        outcomes::build_completed(&controller.context, AssignmentId::new(), guid, 1, result, None).await
    })
    .await;
}

#[tokio::test]
async fn an_app_that_is_deleted_while_it_stages_is_gone_whatever_the_cell_says_later() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "  default-route: true\n").await;
    let open = build(&admin, &ready_package(&admin, &app).await).await;
    let path = format!("/v3/apps/{app}");
    let (first, second, ()) = tokio::join!(admin.delete(&path), admin.delete(&path), reported(&controller, &open));
    assert!(first.0 == StatusCode::ACCEPTED || second.0 == StatusCode::ACCEPTED, "{first:?} {second:?}");
    for (status, _) in [&first, &second] {
        assert!(matches!(status.as_u16(), 202 | 404), "{first:?} {second:?}");
    }
    slipway_test_support::eventually("the app is gone", slipway_test_support::PATIENCE, || async {
        match admin.get(&path).await {
            (StatusCode::NOT_FOUND, _) => Ok(()),
            answer => Err(answer),
        }
    })
    .await;
    // The cell reports until it is told that it is known; that the app is gone must be no trouble.
    reported(&controller, &open).await;
    // It is out of sight as soon as somebody asks; the rows go with the last of its jobs.
    slipway_test_support::eventually("no job is stuck", slipway_test_support::PATIENCE, || async {
        let open = "select count(*) from job where state not in ('COMPLETE', 'FAILED')";
        let stuck: i64 = sqlx::query_scalar(open).fetch_one(&controller.database.pool).await.expect("a count");
        if stuck == 0 { Ok(()) } else { Err(stuck) }
    })
    .await;
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from build where app_guid = $1) + (select count(*) from droplet where app_guid = $1)
              + (select count(*) from process where app_guid = $1) + (select count(*) from package where app_guid = $1)
              + (select count(*) from route_destination where app_guid = $1)",
    )
    .bind(app.parse::<Uuid>().expect("a guid"))
    .fetch_one(&controller.database.pool)
    .await
    .expect("a count");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_package_that_is_deleted_while_it_is_staged_goes_after_its_build_which_stays() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let package = ready_package(&admin, &app).await;
    let open = build(&admin, &package).await;
    let path = format!("/v3/packages/{package}");
    let (deleted, ()) = tokio::join!(admin.delete_job(&path), reported(&controller, &open));
    assert_eq!(deleted["state"], "COMPLETE", "{deleted}");
    assert_eq!(admin.get(&path).await.0, StatusCode::NOT_FOUND);
    let (_, build) = admin.get(&format!("/v3/builds/{open}")).await;
    assert_eq!((&build["state"], &build["package"]["guid"]), (&json!("STAGED"), &json!(package)), "{build}");
}

#[tokio::test]
async fn tasks_get_numbers_of_their_own_and_an_app_starts_once() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "a").await;
    let body = json!({ "command": "true" });
    let answers = at_once(&admin, Method::POST, &format!("/v3/apps/{app}/tasks"), &body).await;
    let mut numbers: Vec<u64> = answers.iter().filter_map(|(_, task)| task["sequence_id"].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=CLIENTS as u64).collect::<Vec<_>>(), "{answers:?}");

    // Starting, stopping and restarting at once ends in one of the states, with the desired process to match.
    let acts = ["start", "stop", "restart", "start", "stop", "restart"].map(|action| {
        let (client, path) = (admin.clone(), format!("/v3/apps/{app}/actions/{action}"));
        async move { client.act(&path).await }
    });
    for (status, answer) in join_all(acts).await {
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let matching: bool = sqlx::query_scalar(
        "select (a.state = 'STARTED') = (p.spec is not null) from app a join process p on p.app_guid = a.guid
         where a.guid = $1 and p.type = 'web'",
    )
    .bind(app.parse::<Uuid>().expect("a guid"))
    .fetch_one(&controller.database.pool)
    .await
    .expect("a row");
    assert!(matching);
}
