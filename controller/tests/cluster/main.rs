//! One controller, simulated cells and routers, real mutual TLS, real Postgres.

#[path = "../support/apps.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with another test binary, which uses other parts")]
mod apps;
#[path = "../support/client.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with another test binary, which uses other parts")]
mod client;
mod harness;
mod hostile;
mod outage;
mod pushes;
mod sequences;
mod sim;
mod stopped;

use std::sync::Arc;
use std::time::Duration;

use harness::{Harness, LIMIT};
use sim::{SimCell, SimRouter};
use slipway_controller::store::change_log::ChangeKind;
use slipway_controller::store::placement::PgPlacement;
use slipway_placement::{ApplyOutcome, PlacementStore as _, PlanChanges};
use slipway_protocol::v1::{self, InstanceState, Intent, Role};
use slipway_test_support::eventually;
use uuid::Uuid;

const UNRELEASED: &str = "select count(*) from assignment where released_at is null";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_placed_routed_drained_stopped_and_its_slot_freed() {
    let harness = Harness::start().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let (app, process) = harness.app("shop", 2, 128).await;
    let assigned = cell.assigned(Intent::Run, 2).await;
    let slots: Vec<u32> = assigned.iter().map(|assignment| assignment.slot).collect();
    assert!(slots.contains(&0) && slots.contains(&1), "the lowest slots: {slots:?}");
    cell.run_all(&assigned).await;
    router.routes(process, 2).await;
    assert!(router.seen.lock().expect("lock").deltas > 0, "the change came as a delta");
    harness
        .until("select count(*) from router r join assignment a on a.route_seq > 0 and r.applied_seq >= a.route_seq", 2)
        .await;

    harness.desire(&format!("update app set state = 'STOPPED' where guid = '{app}'"), ChangeKind::App, app).await;
    router.routes(process, 0).await;
    let stopping = cell.assigned(Intent::Stop, 2).await;
    for assignment in &stopping {
        let stopped = cell.observation(&assignment.id, InstanceState::Stopped);
        cell.report(vec![stopped]).await;
    }
    harness.until(UNRELEASED, 0).await;
    cell.assigned(Intent::Stop, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_room_says_why_and_is_placed_when_there_is_some() {
    let harness = Harness::start().await;
    let (_, process) = harness.app("big", 1, 4096).await;
    let reason = || async {
        sqlx::query_scalar::<_, String>("select reason from unplaced where group_id = $1")
            .bind(process)
            .fetch_optional(harness.pool())
            .await
            .expect("query")
            .unwrap_or_default()
    };
    let await_reason = |text: &'static str| async move {
        eventually(text, LIMIT, || async {
            let found = reason().await;
            if found.contains(text) { Ok(()) } else { Err(found) }
        })
        .await;
    };
    await_reason("no cell is connected").await;
    let cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    await_reason("waiting for room: needs 4096 MiB; the largest free is 1024 MiB on cell").await;
    let digest = harness.spec("smaller", 512).await;
    let statement = format!("update process set spec = '\\x{}' where guid = '{process}'", hex::encode(digest));
    harness.desire(&statement, ChangeKind::Process, process).await;
    cell.assigned(Intent::Run, 1).await;
    harness.until("select count(*) from unplaced", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_instance_goes_elsewhere() {
    let harness = Harness::start().await;
    let mut first = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    harness.app("picky", 1, 128).await;
    let assigned = first.assigned(Intent::Run, 1).await;
    let second = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let mut refused = first.observation(&assigned[0].id, InstanceState::Refused);
    refused.refusal = v1::Refusal::LayerUnavailable.into();
    refused.reason = "layer x is not there".into();
    first.report(vec![refused]).await;
    let moved = second.assigned(Intent::Run, 1).await;
    assert_ne!(moved[0].id, assigned[0].id);
    first.assigned(Intent::Run, 0).await;
    assert_eq!(harness.count("select count(*) from refusal").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_an_event_and_stays_on_its_cell() {
    let harness = Harness::start().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let (app, process) = harness.app("shaky", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    cell.run_all(&assigned).await;
    router.routes(process, 1).await;
    let mut crash = cell.observation(&assigned[0].id, InstanceState::Crashed);
    crash.crash_event = true;
    crash.exit = Some(v1::ExitRecord { code: 137, reason: "out of memory".into(), ..v1::ExitRecord::default() });
    // Told twice, as after a lost acknowledgement.
    cell.report(vec![crash.clone()]).await;
    cell.report(vec![crash]).await;
    router.routes(process, 0).await;
    let data: serde_json::Value = eventually("crash event", LIMIT, || async {
        sqlx::query_scalar("select data from event where type = 'app.crash'").fetch_one(harness.pool()).await
    })
    .await;
    assert_eq!(data["exit_description"], "out of memory");
    assert_eq!((data["exit_status"].as_i64(), data["index"].as_i64()), (Some(137), Some(0)));
    cell.run_all(&assigned).await;
    router.routes(process, 1).await;
    assert_eq!(harness.count("select count(*) from event where type = 'app.crash'").await, 1);
    assert_eq!(harness.count("select count(*) from assignment").await, 1, "the cell restarts it, nobody moves it");
    // The app tells it, and the process.
    let actors: Vec<(String, String, String, serde_json::Value)> =
        sqlx::query_as("select type, actor_type, actor_guid, data from event where type like '%crash' order by type")
            .fetch_all(harness.pool())
            .await
            .expect("events");
    let [(first, kind, guid, data), (second, second_kind, second_guid, second_data)] = actors.as_slice() else {
        panic!("one of each: {actors:?}")
    };
    assert_eq!((first.as_str(), kind.as_str(), guid), ("app.crash", "app", &app.to_string()));
    assert_eq!((second.as_str(), second_kind.as_str()), ("audit.app.process.crash", "process"));
    assert_eq!((second_guid, second_data), (&process.to_string(), data));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_readiness_is_an_event_and_a_failed_check_of_health_is_none() {
    let harness = Harness::start().await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let (_, process) = harness.app("moody", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    let events = async |count: usize| {
        eventually("events", LIMIT, async || {
            let events: Vec<(String, String, serde_json::Value)> = sqlx::query_as(
                "select type, actor_guid, data from event where type like 'audit.app.process.%ready' order by seq",
            )
            .fetch_all(harness.pool())
            .await
            .expect("events");
            if events.len() == count { Ok(events) } else { Err(events) }
        })
        .await
    };
    cell.run_all(&assigned).await;
    let (kind, actor, data) = events(1).await.remove(0);
    assert_eq!((kind.as_str(), &actor), ("audit.app.process.ready", &process.to_string()));
    assert_eq!((data["index"].as_i64(), data["ready"].as_bool()), (Some(0), Some(true)));
    assert_eq!(data["instance"], assigned[0].id);
    assert!(data["cell_id"].is_string() && data["version"].is_string(), "{data}");

    let mut unready = cell.observation(&assigned[0].id, InstanceState::Running);
    unready.ready = false;
    cell.report(vec![unready.clone()]).await;
    // Told again, nothing changes.
    cell.report(vec![unready]).await;
    let (kind, _, data) = events(2).await.remove(1);
    assert_eq!((kind.as_str(), data["ready"].as_bool()), ("audit.app.process.not-ready", Some(false)));
    cell.run_all(&assigned).await;
    events(3).await;

    let mut sick = cell.observation(&assigned[0].id, InstanceState::Running);
    sick.ready = false;
    sick.reason = "the health check failed".into();
    cell.report(vec![sick]).await;
    let mut crash = cell.observation(&assigned[0].id, InstanceState::Crashed);
    crash.crash_event = true;
    cell.report(vec![crash]).await;
    eventually("crash event", LIMIT, || async {
        let count = harness.count("select count(*) from event where type = 'audit.app.process.crash'").await;
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    events(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cell_gets_replacements_and_gives_way_when_it_returns() {
    let harness = Harness::that_loses_cells().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let id = Uuid::new_v4();
    let mut first = SimCell::connect(&harness, id, "z1").await;
    let (_, process) = harness.app("moved", 1, 128).await;
    let assigned = first.assigned(Intent::Run, 1).await;
    first.run_all(&assigned).await;
    let mut second = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    drop(first);
    let replacement = second.assigned(Intent::Run, 1).await;
    second.run_all(&replacement).await;
    // The suspect stays routable beside its replacement.
    router.routes(process, 2).await;
    let back = SimCell::connect(&harness, id, "z1").await;
    let stopped = back.assigned(Intent::Stop, 1).await;
    assert_eq!((stopped[0].id.as_str(), stopped[0].role()), (assigned[0].id.as_str(), Role::Extra));
    router.routes(process, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_cell_never_loses_its_instances() {
    let harness = Harness::that_loses_cells().await;
    let id = Uuid::new_v4();
    let mut cell = SimCell::connect(&harness, id, "z1").await;
    harness.app("alone", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    cell.run_all(&assigned).await;
    drop(cell);
    harness.until("select count(*) from cell where state = 'lost'", 1).await;
    let back = SimCell::connect(&harness, id, "z1").await;
    harness.until("select count(*) from cell where state = 'connected'", 1).await;
    let same = back.assigned(Intent::Run, 1).await;
    assert_eq!((same[0].id.as_str(), same[0].role()), (assigned[0].id.as_str(), Role::Primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_adopts_what_runs() {
    let mut harness = Harness::start().await;
    let (cell_id, router_id) = (Uuid::new_v4(), Uuid::new_v4());
    let router = SimRouter::connect(&harness, router_id).await;
    let mut cell = SimCell::connect(&harness, cell_id, "z1").await;
    let (_, process) = harness.app("steady", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    cell.run_all(&assigned).await;
    router.routes(process, 1).await;
    let held = Arc::clone(&router.seen);
    harness.stop().await;
    drop((cell, router));
    harness.run().await;
    let cell = SimCell::connect(&harness, cell_id, "z1").await;
    let router = SimRouter::resume(&harness, router_id, held).await;
    let same = cell.assigned(Intent::Run, 1).await;
    assert_eq!(same[0].id, assigned[0].id);
    router.routes(process, 1).await;
    assert_eq!(harness.count("select count(*) from assignment").await, 1);
    assert_eq!(harness.count("select epoch from store_identity").await, 1, "no doubt about the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_sessions_stand_and_observations_wait() {
    let harness = Harness::that_loses_cells().await;
    let router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let (_, process) = harness.app("patient", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    harness.proxy.down();
    let running = cell.observation(&assigned[0].id, InstanceState::Running);
    cell.report(vec![running]).await;
    // Longer than the limit after which a cell would be lost, had it no session.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cell.seen.lock().expect("lock").acked, 0, "nothing is acknowledged that is not stored");
    assert!(cell.seen.lock().expect("lock").ended.is_none(), "the session stands");
    harness.proxy.up();
    cell.acked().await;
    router.routes(process, 1).await;
    assert_eq!(harness.count("select count(*) from assignment").await, 1, "nothing was placed again");
    assert_eq!(harness.count("select count(*) from cell where state = 'connected'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planner_of_an_old_term_is_fenced() {
    let harness = Harness::start().await;
    harness.until("select count(*) from lease", 1).await;
    let placement = PgPlacement::new(harness.pool().clone());
    let version = placement.version().await.expect("version");
    let term = harness.count("select term from lease").await;
    let changes = PlanChanges { unplaced: Some(Vec::new()), ..PlanChanges::default() };
    let outcome = placement.plan_apply(term - 1, version, &changes).await.expect("apply");
    assert_eq!(outcome, ApplyOutcome::Fenced);
}
