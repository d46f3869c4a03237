//! Builds, instances and tasks over a real session, through the API.

use serde_json::{Value, json};
use slipway_protocol::instance::instance_guid;
use slipway_protocol::v1::{self, InstanceState, WorkloadKind};
use slipway_test_support::eventually;
use uuid::Uuid;

use crate::apps::{action, app_of, build, build_result, catalogue, dev_space, ready_package, use_droplet};
use crate::client::TestClient;
use crate::harness::{Harness, LIMIT};
use crate::sim::{SimCell, SimRouter, cell_hello};

const DROPLET: &[u8] = b"a droplet";

/// An app with a package, on a cluster that has layers.
pub(crate) async fn made(harness: &Harness, admin: &TestClient, name: &str) -> (String, String) {
    catalogue(harness.pool()).await;
    let space = dev_space(harness.pool()).await;
    let app = app_of(admin, space, name, "  memory: 64M\n  disk_quota: 128M\n  default-route: true\n").await;
    let package = ready_package(admin, &app).await;
    (app, package)
}

/// The same, staged by this cell, with its droplet assigned.
pub(crate) async fn staged(harness: &Harness, admin: &TestClient, cell: &mut SimCell, name: &str) -> String {
    let (app, package) = made(harness, admin, name).await;
    let guid = build(admin, &package).await;
    let assignment = cell.one(WorkloadKind::Build).await;
    harness.put(DROPLET).await;
    let mut done = cell.observation(&assignment.id, InstanceState::Completed);
    done.build = Some(build_result(DROPLET));
    done.exit = Some(v1::ExitRecord::default());
    cell.report(vec![done]).await;
    cell.acked().await;
    use_droplet(admin, &app, &guid).await;
    cell.stops_until(0).await;
    app
}

/// Waits until something of the API is so.
pub(crate) async fn shows(client: &TestClient, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, LIMIT, || async {
        let (_, body) = client.get(path).await;
        if is(&body) { Ok(body) } else { Err(body) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_staged_placed_routed_and_then_running() {
    let harness = Harness::start().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    action(&admin, &app, "start").await;
    let assignment = cell.one(WorkloadKind::Lrp).await;
    let stats = format!("/v3/processes/{app}/stats");
    shows(&admin, &stats, "starting", |body| body["resources"][0]["state"] == "STARTING").await;
    cell.run_all(std::slice::from_ref(&assignment)).await;
    router.routes(app.parse().expect("a guid"), 1).await;
    let body = shows(&admin, &stats, "running", |body| body["resources"][0]["state"] == "RUNNING").await;
    let row = &body["resources"][0];
    let place = assignment.id.parse().expect("an id");
    assert_eq!(row["instance_guid"], instance_guid(place, 0).to_string());
    assert_eq!((&row["host"], &row["instance_ports"][0]["external"]), (&json!("127.0.0.1"), &json!(61_000)));
    assert!(row.get("instance_internal_ip").is_none(), "behind a port of its cell it has none for others: {row}");

    // It crashed and was started again where it was: another guid, as its program sees one.
    let mut again = cell.observation(&assignment.id, InstanceState::Running);
    again.incarnation = 2;
    cell.report(vec![again]).await;
    let guid = instance_guid(place, 2).to_string();
    shows(&admin, &stats, "the guid of the second start", |body| body["resources"][0]["instance_guid"] == guid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_and_tasks_end_as_the_cell_says() {
    let harness = Harness::start().await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    let guid = build(&admin, &ready_package(&admin, &app).await).await;
    let assignment = cell.one(WorkloadKind::Build).await;
    let mut done = cell.observation(&assignment.id, InstanceState::Completed);
    done.build = Some(v1::BuildResult {
        error_id: "NoAppDetectedError".to_owned(),
        error_text: "nothing was detected".to_owned(),
        ..v1::BuildResult::default()
    });
    cell.report(vec![done]).await;
    cell.acked().await;
    let (_, body) = admin.get(&format!("/v3/builds/{guid}")).await;
    assert_eq!(
        (&body["state"], &body["error"]),
        (&json!("FAILED"), &json!("NoAppDetectedError - nothing was detected"))
    );
    cell.stops_until(0).await;

    for (code, state, failure) in [(0, "SUCCEEDED", Value::Null), (7, "FAILED", json!("exited with status 7"))] {
        let wish = json!({ "command": "true", "memory_in_mb": 32 });
        let (status, task) = admin.post(&format!("/v3/apps/{app}/tasks"), wish).await;
        assert_eq!((status.as_u16(), &task["state"]), (202, &json!("PENDING")), "{task}");
        let path = format!("/v3/tasks/{}", task["guid"].as_str().expect("a guid"));
        let assignment = cell.one(WorkloadKind::Task).await;
        let running = cell.observation(&assignment.id, InstanceState::Running);
        cell.report(vec![running]).await;
        cell.acked().await;
        assert_eq!(admin.get(&path).await.1["state"], "RUNNING");
        let mut done = cell.observation(&assignment.id, InstanceState::Completed);
        done.exit = Some(v1::ExitRecord { code, ..v1::ExitRecord::default() });
        // Told twice, as after a lost acknowledgement.
        cell.report(vec![done.clone()]).await;
        cell.report(vec![done]).await;
        cell.acked().await;
        let task = shows(&admin, &path, state, |body| body["state"] == state).await;
        assert_eq!(task["result"]["failure_reason"], failure, "{task}");
        cell.stops_until(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cell_instances_and_builds_say_why() {
    let harness = Harness::that_loses_cells().await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    drop(cell);
    harness.until("select count(*) from cell where state = 'lost'", 1).await;
    action(&admin, &app, "start").await;
    let none = json!("no cell is connected");
    let stats = format!("/v3/processes/{app}/stats");
    shows(&admin, &stats, "the reason", |body| body["resources"][0]["details"] == none).await;
    assert_eq!(admin.get(&stats).await.1["resources"][0]["state"], "DOWN");
    let guid = build(&admin, &ready_package(&admin, &app).await).await;
    harness.until("select count(*) from unplaced", 2).await;
    // The patience of a minute, passed at once.
    sqlx::query("update unplaced set since = since - interval '2 minutes'").execute(harness.pool()).await.expect("age");
    let path = format!("/v3/builds/{guid}");
    let body = shows(&admin, &path, "the build fails", |body| body["state"] == "FAILED").await;
    let text = body["error"].as_str().expect("an error");
    assert!(text.starts_with("InsufficientResources - ") && text.ends_with("no cell is connected"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cell_of_its_kind_a_build_waits_for_a_moment_only() {
    let harness = Harness::start().await;
    let mut shared = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut shared, "web").await;
    let (_, segment) = admin.post("/v3/isolation_segments", json!({ "name": "gpu" })).await;
    let place =
        format!("/v3/isolation_segments/{}/relationships/organizations", segment["guid"].as_str().expect("one"));
    let (_, page) = admin.get("/v3/spaces").await;
    let space = &page["resources"][0];
    let body = json!({ "data": [space["relationships"]["organization"]["data"]] });
    assert_eq!(admin.post(&place, body).await.0, 200);
    let own = format!("/v3/spaces/{}/relationships/isolation_segment", space["guid"].as_str().expect("a guid"));
    assert_eq!(admin.patch(&own, json!({ "data": { "guid": segment["guid"] } })).await.0, 200);

    action(&admin, &app, "start").await;
    let which = "found no compatible cell: no connected cell is in the isolation segment \"gpu\"";
    let stats = format!("/v3/processes/{app}/stats");
    shows(&admin, &stats, "the reason", |body| body["resources"][0]["details"] == which).await;
    let guid = build(&admin, &ready_package(&admin, &app).await).await;
    harness.until("select count(*) from unplaced", 2).await;
    // Less than what a build waits for room, and longer than a cell takes to come back.
    let aged = "update unplaced set since = since - interval '10 seconds'";
    sqlx::query(aged).execute(harness.pool()).await.expect("age");
    let body = shows(&admin, &format!("/v3/builds/{guid}"), "the build fails", |body| body["state"] == "FAILED").await;
    assert_eq!(body["error"], format!("NoCompatibleCell - F{}", &which[1..]));

    // With a cell of its kind it goes there.
    let id = Uuid::new_v4();
    let mut hello = cell_hello(&harness, id, "z1");
    let info = hello.cell.as_mut().expect("info");
    // For the app, too, which was started.
    (info.isolation_segment, info.memory_mb, info.disk_mb) = ("GPU".into(), 4096, 16_384);
    let own = SimCell::with_hello(&harness, id, hello).await;
    let guid = build(&admin, &ready_package(&admin, &app).await).await;
    own.one(v1::WorkloadKind::Build).await;
    assert_eq!(admin.get(&format!("/v3/builds/{guid}")).await.1["state"], "STAGING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_does_not_answer_is_named_in_the_logs() {
    let harness = Harness::start().await;
    let admin = harness.admin().await;
    let (app, _) = harness.app("quiet", 1, 64).await;
    // Accepts and says nothing.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let id = Uuid::new_v4();
    let mut hello = cell_hello(&harness, id, "z1");
    hello.cell.as_mut().expect("info").query_address = deaf.local_addr().expect("address").to_string();
    let cell = SimCell::with_hello(&harness, id, hello).await;
    cell.welcomed().await;
    // Only cells that have something of the app are asked.
    cell.assigned(v1::Intent::Run, 1).await;
    let (status, body) = admin.get(&format!("/api/v1/read/{app}")).await;
    assert_eq!(status, 200, "{body}");
    let marker = body["envelopes"]["batch"].as_array().and_then(|batch| batch.last()).expect("a marker");
    let payload = marker["log"]["payload"].as_str().expect("a payload");
    let text = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).expect("base64");
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains(&format!("cell {id}")) && text.contains("did not answer"), "{text}");
}
