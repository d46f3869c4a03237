//! Changes that follow each other faster than cells can apply them.

use std::collections::BTreeSet;

use serde_json::json;
use slipway_protocol::v1::{InstanceState, Intent, WorkloadKind};
use uuid::Uuid;

use crate::apps::{action, build, build_result};
use crate::harness::Harness;
use crate::pushes::{made, shows, staged};
use crate::sim::{SimCell, SimRouter};

const LIVE: &str = "select count(*) from assignment where tombstone_at is null";

#[tokio::test(flavor = "multi_thread")]
async fn after_quick_changes_only_the_last_one_counts() {
    let harness = Harness::start().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    let process: Uuid = app.parse().expect("a guid");
    action(&admin, &app, "start").await;
    let first = cell.one(WorkloadKind::Lrp).await;
    cell.run_all(std::slice::from_ref(&first)).await;
    router.routes(process, 1).await;

    for orders in [["stop", "start"], ["restart", "restart"]] {
        let before = cell.one(WorkloadKind::Lrp).await;
        for order in orders {
            action(&admin, &app, order).await;
        }
        let wanted: Vec<u8> = sqlx::query_scalar("select spec from process where guid = $1")
            .bind(process)
            .fetch_one(harness.pool())
            .await
            .expect("a spec");
        // The one that ran gives way to one of the newest spec; it drains, so it is asked to stop a little later. One of a
        // spec in between may come and go.
        let now = slipway_test_support::eventually("an instance of the newest spec", crate::harness::LIMIT, || async {
            let now = cell.one(WorkloadKind::Lrp).await;
            if now.id != before.id && now.spec_digest[..] == wanted[..] { Ok(now) } else { Err(now) }
        })
        .await;
        cell.stops_until(1).await;
        assert_eq!(cell.one(WorkloadKind::Lrp).await.id, now.id, "{orders:?}");
        cell.run_all(&[now]).await;
        router.routes(process, 1).await;
        assert_eq!(harness.count(LIVE).await, 1, "{orders:?}");
        assert_eq!(admin.get(&format!("/v3/apps/{app}")).await.1["state"], "STARTED");
    }

    // One instance anew: the same place, told to the cell once.
    let before = cell.one(WorkloadKind::Lrp).await;
    let seq = harness.count("select seq from assignment where tombstone_at is null").await;
    let path = format!("/v3/processes/{app}/instances/0");
    assert_eq!(admin.delete(&path).await.0, 204);
    slipway_test_support::eventually("the cell is told", crate::harness::LIMIT, || async {
        let now = cell.one(WorkloadKind::Lrp).await;
        if now.restart_nonce == before.restart_nonce + 1 { Ok(()) } else { Err(now.restart_nonce) }
    })
    .await;
    assert_eq!(cell.one(WorkloadKind::Lrp).await.id, before.id);
    assert!(harness.count("select seq from assignment where tombstone_at is null").await > seq);
    assert_eq!(admin.delete(&format!("/v3/processes/{app}/instances/1")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn scaled_to_nothing_and_back_every_index_has_one_instance() {
    let harness = Harness::start().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    let process: Uuid = app.parse().expect("a guid");
    action(&admin, &app, "start").await;
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    for instances in [2, 0, 3] {
        assert_eq!(admin.post(&scale, json!({ "instances": instances })).await.0, 202);
    }
    cell.stops_until(3).await;
    let assigned = cell.assigned(Intent::Run, 3).await;
    assert_eq!(assigned.iter().map(|a| a.index).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
    assert_eq!(assigned.iter().map(|a| a.slot).collect::<BTreeSet<_>>().len(), 3);
    cell.run_all(&assigned).await;
    router.routes(process, 3).await;

    assert_eq!(admin.post(&scale, json!({ "instances": 0 })).await.0, 202);
    router.routes(process, 0).await;
    cell.stops_until(0).await;
    let (status, stats) = admin.get(&format!("/v3/processes/{app}/stats")).await;
    assert_eq!((status.as_u16(), &stats["resources"]), (200, &json!([])));
    harness.until(LIVE, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_deleted_while_it_stages_leaves_nothing() {
    let harness = Harness::start().await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let admin = harness.admin().await;
    let (app, package) = made(&harness, &admin, "short").await;
    let guid = build(&admin, &package).await;
    let assignment = cell.one(WorkloadKind::Build).await;
    let running = cell.observation(&assignment.id, InstanceState::Running);
    cell.report(vec![running]).await;
    cell.acked().await;

    let path = format!("/v3/apps/{app}");
    let response = admin.request(reqwest::Method::DELETE, &path).send().await.expect("an answer");
    let job = response.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(admin.act(&format!("{path}/actions/start")).await.0, 404, "nobody can do anything with it any more");
    // Its build ends at the very moment at which it is to stop: too late to matter.
    cell.assigned(Intent::Stop, 1).await;
    harness.put(b"late").await;
    let mut done = cell.observation(&assignment.id, InstanceState::Completed);
    done.build = Some(build_result(b"late"));
    cell.report(vec![done]).await;
    cell.acked().await;
    shows(&admin, &job, "the job", |body| body["state"] == "COMPLETE").await;
    assert_eq!(admin.get(&format!("/v3/builds/{guid}")).await.0, 404);
    for table in ["app", "build", "package", "droplet", "process"] {
        assert_eq!(harness.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    cell.assigned(Intent::Run, 0).await;
    harness.until(LIVE, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_a_lost_cell_can_be_deleted_and_is_stopped_when_the_cell_returns() {
    let harness = Harness::that_loses_cells().await;
    let id = Uuid::new_v4();
    let mut cell = SimCell::connect(&harness, id, "z1").await;
    let admin = harness.admin().await;
    let app = staged(&harness, &admin, &mut cell, "web").await;
    action(&admin, &app, "start").await;
    let assignment = cell.one(WorkloadKind::Lrp).await;
    cell.run_all(std::slice::from_ref(&assignment)).await;
    drop(cell);
    harness.until("select count(*) from cell where state = 'lost'", 1).await;
    let job = admin.delete_job(&format!("/v3/apps/{app}")).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(harness.count("select count(*) from app").await, 0);
    let mut cell = SimCell::connect(&harness, id, "z1").await;
    let stopping = cell.assigned(Intent::Stop, 1).await;
    assert_eq!(stopping[0].id, assignment.id);
    cell.counter = 100;
    cell.stops_until(0).await;
    harness.until(LIVE, 0).await;
}
