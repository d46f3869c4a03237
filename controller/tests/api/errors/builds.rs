//! Packages, builds and tasks at the wrong moment, and builds that fail.

use reqwest::StatusCode;
use serde_json::json;
use slipway_api_types::AssignmentId;
use slipway_controller::domain::outcomes;
use slipway_protocol::v1;
use uuid::Uuid;

use super::{Cases, assert_error, expected, to_one, unprocessable};
use crate::support::apps::{app_of, build, catalogue, package, ready_package, upload, zip_of};
use crate::support::{TestClient, TestController};

/// The administrator, a space, and an app in it that can be built.
async fn to_build(controller: &TestController) -> (TestClient, Uuid, String) {
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    (admin, space, app)
}

#[tokio::test]
async fn actions_in_the_wrong_state() {
    let controller = TestController::start().await;
    let (admin, space, app) = to_build(&controller).await;
    let empty = package(&admin, &app).await;
    let ready = ready_package(&admin, &app).await;
    build(&admin, &ready).await;
    let mut cases = Cases::default();
    let start = format!("/v3/apps/{app}/actions/start");
    cases.add(&admin, ("POST", &start), None, unprocessable("Assign a droplet before starting this app."));
    let run = format!("/v3/apps/{app}/tasks");
    cases.add(
        &admin,
        ("POST", &run),
        Some(json!({ "command": "true" })),
        unprocessable("Task must have a droplet. Specify droplet or assign current droplet to app."),
    );
    let of = |guid: &str| Some(json!({ "package": { "guid": guid } }));
    cases.add(
        &admin,
        ("POST", "/v3/builds"),
        of(&empty),
        expected(400, 1004, "CF-BadRequest", "Bad request: Cannot stage package whose state is not ready."),
    );
    cases.add(
        &admin,
        ("POST", "/v3/builds"),
        of(&ready),
        expected(422, 170_017, "CF-StagingInProgress", "Only one build can be STAGING at a time per application."),
    );
    let buildpacks = json!({ "name": "b", "relationships": { "space": to_one(space) },
        "lifecycle": { "type": "buildpack", "data": { "buildpacks": ["nonsense"], "stack": null } } });
    cases.add(
        &admin,
        ("POST", "/v3/apps"),
        Some(buildpacks),
        unprocessable("Buildpack \"nonsense\" must be an existing admin buildpack or a valid git URI"),
    );
    let droplet = format!("/v3/apps/{app}/relationships/current_droplet");
    cases.add(
        &admin,
        ("PATCH", &droplet),
        Some(to_one(Uuid::new_v4())),
        unprocessable("Unable to assign current droplet. Ensure the droplet exists and belongs to this app."),
    );
    cases.check().await;
}

#[tokio::test]
async fn a_package_takes_its_bits_once() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let ready = ready_package(&admin, &app).await;
    let words = "Bits may be uploaded only once. Create a new package to upload different bits.";
    let again = upload(&admin, &ready, &json!([]), Some(zip_of(&[("other.js", b"x")]))).await;
    assert_error(&again, &expected(400, 150_004, "CF-PackageBitsAlreadyUploaded", words));
}

/// Whoever interrupts a push need not wait for its build before the next one.
#[tokio::test]
async fn a_cancelled_build_makes_room_for_the_next_one() {
    let controller = TestController::start().await;
    let (admin, _, app) = to_build(&controller).await;
    let ready = ready_package(&admin, &app).await;
    let first = build(&admin, &ready).await;
    let cancel = format!("/v3/builds/{first}/actions/cancel");
    let (status, ended) = admin.post(&cancel, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{ended}");
    assert_eq!(ended["state"], "FAILED");
    assert_eq!(ended["error"], "BuildCancelled - The build was cancelled by 'admin'");
    let second = build(&admin, &ready).await;
    assert_ne!(first, second);
    let (status, body) = admin.post(&cancel, json!({})).await;
    assert_eq!(
        (status, body["errors"][0]["detail"].clone()),
        (StatusCode::UNPROCESSABLE_ENTITY, json!("Cannot cancel a build with state: FAILED"),)
    );
    // What the cell may still say of the first one changes nothing.
    let late = v1::BuildResult { ok: true, ..v1::BuildResult::default() };
    let guid: Uuid = first.parse().expect("a guid");
    outcomes::build_completed(&controller.context, AssignmentId(Uuid::new_v4()), guid, 1, Some(late), None)
        .await
        .expect("a report");
    let (_, still) = admin.get(&format!("/v3/builds/{first}")).await;
    assert_eq!(still["error"], ended["error"]);
}

/// `cf` looks for `NoAppDetectedError` and shows the rest as it is.
#[tokio::test]
async fn a_failed_build_carries_the_name_of_its_failure() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let ready = ready_package(&admin, &app).await;
    let said = |id: &str, text: &str| {
        Some(v1::BuildResult { error_id: id.to_owned(), error_text: text.to_owned(), ..v1::BuildResult::default() })
    };
    let exit = v1::ExitRecord { code: 3, ..v1::ExitRecord::default() };
    let undetected = "An app was not successfully detected by any available buildpack";
    for (result, exit, error) in [
        (said("NoAppDetectedError", undetected), None, format!("NoAppDetectedError - {undetected}")),
        (
            said("", "Staging error: the disk is full"),
            None,
            "StagingError - Staging error: the disk is full".to_owned(),
        ),
        (None, Some(exit), "StagingError - Staging error: the build ended with status 3 and no result".to_owned()),
        (None, None, "StagingError - Staging error: the cell that ran the build lost it; push again".to_owned()),
    ] {
        let guid = build(&admin, &ready).await;
        let id: Uuid = guid.parse().expect("a guid");
        let at = AssignmentId::new();
        outcomes::build_completed(&controller.context, at, id, 1, result, exit).await.expect("recorded");
        let (status, build) = admin.get(&format!("/v3/builds/{guid}")).await;
        assert_eq!(
            (status, &build["state"], &build["error"]),
            (StatusCode::OK, &json!("FAILED"), &json!(error)),
            "{build}"
        );
    }
}
