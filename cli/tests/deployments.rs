//! New versions against the simulated platform: how they take over, what is done when they do not, and what an interrupt
//! leaves behind.

mod support;

use std::collections::VecDeque;

use serde_json::{Value, json};
use slipway_cli::Exit;
use support::{Instead, Platform, api_error, envelope, row};

/// A platform on which `web` runs.
async fn running() -> Platform {
    let platform = Platform::logged_in().await;
    platform.write("index.js", "console.log('hello')");
    {
        let mut world = platform.lock();
        (world.app_exists, world.app_runs) = (true, true);
        world.stats = VecDeque::from([json!([row("RUNNING", "old")])]);
        world.deployment =
            VecDeque::from([("ACTIVE", "DEPLOYING"), ("ACTIVE", "DEPLOYING"), ("FINALIZED", "DEPLOYED")]);
        world.new_stats = VecDeque::from([json!([row("STARTING", "new")]), json!([row("RUNNING", "new")])]);
        world.calls.clear();
    }
    platform
}

fn asked(platform: &Platform, call: &str) -> bool {
    platform.lock().calls.iter().any(|made| made.starts_with(call))
}

fn body(platform: &Platform, call: &str) -> Value {
    serde_json::from_str(&platform.lock().bodies[call]).expect("JSON")
}

#[tokio::test]
async fn a_push_of_an_app_that_runs_replaces_it_instance_by_instance() {
    let platform = running().await;
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(
        ran.err.contains("the old version serves meanwhile") && ran.err.contains("'web' runs after"),
        "{}",
        ran.err
    );
    assert_eq!(
        body(&platform, "POST /v3/deployments"),
        json!({ "strategy": "rolling", "relationships": { "app": { "data": { "guid": "app-1" } } },
                "droplet": { "guid": "droplet-1" } })
    );
    assert!(!asked(&platform, "POST /v3/apps/app-1/actions/restart") && !asked(&platform, "PATCH"));

    // Asked for, the old version is stopped first.
    let platform = running().await;
    platform.lock().stats = VecDeque::from([json!([row("RUNNING", "old")]), json!([row("RUNNING", "new")])]);
    let ran = platform.run(&["push", "web", "--strategy", "recreate", "--json"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    let value: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(value["strategy"], "recreate");
    assert!(asked(&platform, "POST /v3/apps/app-1/actions/restart") && !asked(&platform, "POST /v3/deployments"));

    // What does not serve has nothing to lose.
    let platform = running().await;
    platform.lock().stats = VecDeque::from([json!([row("CRASHED", "old")]), json!([row("RUNNING", "new")])]);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(asked(&platform, "POST /v3/apps/app-1/actions/restart"));
}

#[tokio::test]
async fn a_new_version_that_crashes_is_given_up_and_the_old_one_serves_on() {
    let platform = running().await;
    {
        let mut world = platform.lock();
        let mut crashed = row("CRASHED", "new");
        crashed["details"] = "exited with status 3".into();
        world.deployment = VecDeque::from([("ACTIVE", "DEPLOYING")]);
        world.new_stats = VecDeque::from([json!([row("STARTING", "new")]), json!([crashed])]);
        world.logs = vec![envelope(20, "APP/PROC/WEB", "Error: no database")];
    }
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Start, "{}", ran.err);
    let end = "Error: The new version of 'web' did not take over: it crashed: exited with status 3.\nThe old version serves on.\n";
    assert!(ran.err.contains(end), "{}", ran.err);
    assert!(ran.err.contains("Error: no database") && ran.err.contains("slipway logs web --recent"), "{}", ran.err);
    assert!(asked(&platform, "POST /v3/deployments/deployment-1/actions/cancel"));
    assert!(!asked(&platform, "POST /v3/apps/app-1/actions"), "nothing is stopped");

    // Somebody else ends it: that is no success either.
    let platform = running().await;
    platform.lock().deployment = VecDeque::from([("ACTIVE", "DEPLOYING"), ("FINALIZED", "SUPERSEDED")]);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Start);
    assert!(
        ran.err.contains("another deployment has taken its place.\n`slipway app web` shows what runs."),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_canary_stands_at_its_step_and_goes_on_or_back() {
    let platform = running().await;
    platform.lock().deployment = VecDeque::from([("ACTIVE", "DEPLOYING"), ("ACTIVE", "PAUSED")]);
    let ran = platform
        .run(&["push", "web", "--strategy", "canary", "--instance-steps", "10,50", "--max-in-flight", "2"])
        .await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("step 1 of 2") && ran.err.contains("continue-deployment web"), "{}", ran.err);
    let sent = body(&platform, "POST /v3/deployments");
    assert_eq!(
        (&sent["strategy"], &sent["options"]),
        (
            &json!("canary"),
            &json!({ "max_in_flight": 2, "canary": { "steps": [{ "instance_weight": 10 }, { "instance_weight": 50 }] } })
        )
    );
    let ran = platform.run(&["continue-deployment", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("'web' runs the new version."), "{}", ran.err);

    platform.lock().deployment = VecDeque::from([("ACTIVE", "PAUSED")]);
    let ran = platform.run(&["cancel-deployment", "web"]).await;
    assert!(ran.exit == Exit::Success && ran.err.contains("given up. The old version serves on."), "{}", ran.err);
    let ran = platform.run(&["cancel-deployment", "web"]).await;
    assert!(ran.exit == Exit::NotFound && ran.err.contains("No deployment of 'web' is under way"), "{}", ran.err);

    for args in [
        &["push", "web", "--instance-steps", "10"][..],
        &["restart", "web", "--strategy", "rolling", "--instance-steps", "10"],
        &["push", "web", "--strategy", "recreate", "--max-in-flight", "2"],
        &["push", "web", "--strategy", "canary", "--instance-steps", "0"],
        &["push", "web", "--strategy", "canary", "--instance-steps", "60,20"],
        &["restart", "web", "--strategy", "canary", "--instance-steps", "20,20"],
    ] {
        platform.lock().calls.clear();
        let ran = platform.run(args).await;
        assert_eq!((ran.exit, platform.lock().calls.len()), (Exit::Usage, 0), "{args:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn restart_and_restage_can_roll_and_a_rollback_does() {
    let platform = running().await;
    let ran = platform.run(&["restart", "web", "--strategy", "rolling"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(body(&platform, "POST /v3/deployments").get("droplet").is_none(), "the droplet of now");
    assert!(ran.err.contains("'web' runs with its current settings."), "{}", ran.err);

    let platform = running().await;
    let ran = platform.run(&["restage", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("what was uploaded last for 'web', at 2026-01-31T12:00:00Z"), "{}", ran.err);
    assert_eq!(body(&platform, "POST /v3/deployments")["droplet"]["guid"], "droplet-1");

    let platform = running().await;
    let revision = |version: u64| {
        json!({ "guid": format!("revision-{version}"), "version": version, "deployable": version != 2,
                "created_at": "2026-01-31T12:00:00Z", "description": "New droplet deployed." })
    };
    let page = |all: &[u64]| json!({ "resources": all.iter().map(|version| revision(*version)).collect::<Vec<_>>() });
    platform.lock().answers.extend([
        ("GET /v3/apps/app-1/revisions".to_owned(), page(&[4, 3, 2, 1])),
        ("GET /v3/apps/app-1/revisions/deployed".to_owned(), page(&[4])),
        (
            "GET /v3/deployments".to_owned(),
            json!({ "resources": [{ "guid": "d", "revision": { "guid": "revision-3", "version": 3 },
                                    "status": { "value": "FINALIZED", "reason": "CANCELED" } }] }),
        ),
    ]);
    let ran = platform.run(&["revisions", "web"]).await;
    insta::assert_snapshot!(ran.out);
    let same = api_error(10008, "CF-UnprocessableEntity", "Unable to rollback. Nothing differs.");
    let same = Instead::Status(422, "application/json", same);
    let deployments = || [Instead::Usual, Instead::Usual, Instead::Usual];
    platform.instead("/v3/deployments", deployments().into_iter().chain([same]));
    let ran = platform.run(&["rollback", "web"]).await;
    assert!(ran.err.contains("Revision 1 is the same as what runs: going to the one before it."), "{}", ran.err);
    assert!(ran.exit == Exit::NotFound && ran.err.contains("no earlier version"), "there is none: {}", ran.err);
    let ran = platform.run(&["rollback", "web", "--revision", "3"]).await;
    assert!(ran.err.contains("Warning: revision 3 did not take over when it was pushed"), "{}", ran.err);
    let ran = platform.run(&["rollback", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(body(&platform, "POST /v3/deployments")["revision"]["guid"], "revision-1", "3 failed, 2 is gone");
    assert!(ran.err.contains("'web' runs that version again."), "{}", ran.err);
    let ran = platform.run(&["rollback", "web", "--revision", "9"]).await;
    assert!(ran.exit == Exit::NotFound && ran.err.contains("'web' has no revision 9"), "{}", ran.err);
}

#[tokio::test]
async fn a_canary_that_is_given_up_takes_its_sizes_along() {
    let platform = running().await;
    platform.lock().deployment = VecDeque::from([("ACTIVE", "PAUSED")]);
    memory(&platform, &[128, 300]);
    let ran = platform.run(&["push", "web", "--strategy", "canary", "-m", "300M"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    memory(&platform, &[300]);
    let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "memory_in_mb": 300 });
    platform.lock().answers.insert("GET /v3/processes/process-1".to_owned(), process);
    let ran = platform.run(&["app", "web"]).await;
    assert!(ran.out.contains("300M memory, 0B disk\nstill has, until its next start: 128M memory\n"), "{}", ran.out);
    memory(&platform, &[300, 300, 300]);
    let ran = platform.run(&["cancel-deployment", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("Set back for 'web': web memory 300M → 128M."), "{}", ran.err);
    assert_eq!(body(&platform, "POST /v3/processes/process-1/actions/scale"), json!({ "memory_in_mb": 128 }));
}

/// Answers of `GET /v3/apps/app-1/processes`, one for each of these sizes of memory.
fn memory(platform: &Platform, sizes: &[u64]) {
    let answer = |memory: &u64| {
        let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "memory_in_mb": memory });
        Instead::Status(200, "application/json", json!({ "resources": [process] }).to_string())
    };
    platform.instead("/v3/apps/app-1/processes", sizes.iter().map(answer).collect::<Vec<_>>());
    platform.lock().answers.insert("POST /v3/processes/process-1/actions/scale".to_owned(), json!({}));
}

#[tokio::test]
async fn a_canary_that_is_given_up_takes_its_command_along_and_says_what_stays() {
    let platform = running().await;
    let process = |command: Value| {
        let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "command": command });
        Instead::Status(200, "application/json", json!({ "resources": [process] }).to_string())
    };
    let diff = json!({ "diff": [
        { "op": "add", "path": "/applications/0/command", "value": "./new" },
        { "op": "add", "path": "/applications/0/env/TOKEN", "value": "secret" },
    ] });
    {
        let mut world = platform.lock();
        world.deployment = VecDeque::from([("ACTIVE", "PAUSED")]);
        world.answers.extend([
            ("POST /v3/spaces/space-1/manifest_diff".to_owned(), diff),
            (
                "GET /v3/processes/process-1".to_owned(),
                json!({ "guid": "process-1", "type": "web", "command": "./new" }),
            ),
            ("PATCH /v3/processes/process-1".to_owned(), json!({})),
        ]);
    }
    platform.instead("/v3/apps/app-1/processes", [process(Value::Null), process("hidden".into())]);
    let ran = platform.run(&["push", "web", "--strategy", "canary", "-c", "./new"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(!body(&platform, "POST /v3/deployments").to_string().contains("secret"));
    let now = || process("hidden".into());
    platform.instead("/v3/apps/app-1/processes", [now(), now(), now()]);
    let ran = platform.run(&["cancel-deployment", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("Set back for 'web': web command ./new → default."), "{}", ran.err);
    assert!(ran.err.contains("'web' keeps from what was given up: env TOKEN."), "{}", ran.err);
    assert_eq!(body(&platform, "PATCH /v3/processes/process-1"), json!({ "command": null }));
}

#[tokio::test]
async fn what_would_bring_a_canary_wholly_is_refused_while_it_waits() {
    for command in [&["restart", "web", "--strategy", "rolling"][..], &["restart", "web"], &["restage", "web"]] {
        let platform = running().await;
        platform.lock().deployment = VecDeque::from([("ACTIVE", "PAUSED")]);
        let ran = platform.run(command).await;
        assert_eq!(ran.exit, Exit::Usage, "{command:?}: {}", ran.err);
        for part in ["A canary of 'web' waits at step 1 of 2", "cancel-deployment web", "continue-deployment web"] {
            assert!(ran.err.contains(part), "{command:?}: {}", ran.err);
        }
        assert!(!asked(&platform, "POST") && !asked(&platform, "PATCH"), "{:?}", platform.lock().calls);
    }
}

#[tokio::test]
async fn what_takes_the_place_of_a_canary_brings_back_what_ran_before_both() {
    let canary = || async {
        let platform = running().await;
        platform.lock().deployment = VecDeque::from([("ACTIVE", "PAUSED")]);
        memory(&platform, &[64, 240]);
        let ran = platform.run(&["push", "web", "--strategy", "canary", "-m", "240M"]).await;
        assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
        platform
    };
    // Another push, which crashes.
    let platform = canary().await;
    {
        let mut world = platform.lock();
        world.deployment = VecDeque::from([("ACTIVE", "PAUSED"), ("ACTIVE", "DEPLOYING")]);
        world.new_stats = VecDeque::from([json!([row("CRASHED", "new")])]);
    }
    memory(&platform, &[240, 240, 240, 240, 240]);
    let continued = json!({ "guid": "deployment-1", "status": { "value": "ACTIVE", "reason": "DEPLOYING" },
                            "new_processes": [{ "guid": "process-2" }] });
    platform.lock().answers.insert("POST /v3/deployments".to_owned(), continued);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Start, "{}", ran.err);
    assert!(ran.err.contains("The canary that waits at step 1 of 2 is given up for this one.\n"), "{}", ran.err);
    assert!(ran.err.contains("Set back for 'web': web memory 240M → 64M."), "{}", ran.err);
    assert_eq!(body(&platform, "POST /v3/processes/process-1/actions/scale"), json!({ "memory_in_mb": 64 }));

    // A rollback.
    let platform = canary().await;
    let revision = |version: u64| json!({ "guid": format!("revision-{version}"), "version": version });
    let revisions = json!({ "resources": [revision(2), revision(1)] });
    platform.lock().answers.extend([
        ("GET /v3/apps/app-1/revisions".to_owned(), revisions),
        ("GET /v3/apps/app-1/revisions/deployed".to_owned(), json!({ "resources": [revision(2)] })),
    ]);
    memory(&platform, &[240, 240]);
    let ran = platform.run(&["rollback", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("The canary that waits at step 1 of 2 is given up for this one.\n"), "{}", ran.err);
    assert!(ran.err.contains("Set back for 'web' with it: web memory 240M → 64M."), "{}", ran.err);
    let sent = body(&platform, "POST /v3/deployments");
    assert_eq!(sent["options"], json!({ "memory_in_mb": 64 }));
    assert!(sent["metadata"]["annotations"]["slipway.dev/changes"].is_string(), "for when it is given up: {sent}");
}

#[tokio::test]
async fn an_old_version_that_crashes_is_not_said_to_serve() {
    let platform = running().await;
    {
        let mut world = platform.lock();
        world.deployment = VecDeque::from([("ACTIVE", "DEPLOYING")]);
        world.new_stats = VecDeque::from([json!([row("CRASHED", "new")])]);
        world.stats = VecDeque::from([json!([row("RUNNING", "old")]), json!([row("CRASHED", "old")])]);
    }
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Start, "{}", ran.err);
    assert!(ran.err.contains("\nThe old version is crashing as well.\n"), "{}", ran.err);
}

#[tokio::test]
async fn an_interrupted_push_says_what_becomes_of_it() {
    let platform = running().await;
    platform.lock().build_hangs = true;
    platform.lock().answers.insert("POST /v3/processes/process-1/actions/scale".to_owned(), json!({}));
    let processes = |memory: u64| {
        let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "memory_in_mb": memory });
        Instead::Status(200, "application/json", json!({ "resources": [process] }).to_string())
    };
    platform.instead("/v3/apps/app-1/processes", [processes(128), processes(300), processes(300)]);
    let ran = platform.run_interrupted(&["push", "web"], "GET /v3/builds").await;
    assert_eq!(ran.exit, Exit::Interrupted);
    assert!(ran.err.contains("Set back for 'web': web memory 300M → 128M."), "{}", ran.err);
    assert_eq!(body(&platform, "POST /v3/processes/process-1/actions/scale"), json!({ "memory_in_mb": 128 }));
    assert!(ran.err.contains("the build is cancelled, 'web' has the files that it had before"), "{}", ran.err);
    assert!(asked(&platform, "POST /v3/builds/build-1/actions/cancel"));
    assert!(!ran.err.contains("delete web"), "it was there before: {}", ran.err);

    // Nobody has seen yet what the manifest made.
    let platform = running().await;
    platform.lock().answers.insert("POST /v3/processes/process-1/actions/scale".to_owned(), json!({}));
    platform.instead("/v3/apps/app-1/processes", [processes(128), processes(300)]);
    platform.instead("/v3/spaces/space-1/actions/apply_manifest", [Instead::Hang]);
    let ran = platform.run_interrupted(&["push", "web"], "POST /v3/spaces/space-1/actions/apply_manifest").await;
    assert_eq!(ran.exit, Exit::Interrupted);
    assert!(ran.err.contains("Set back for 'web': web memory 300M → 128M."), "{}", ran.err);

    let platform = running().await;
    platform.lock().deployment = VecDeque::from([("ACTIVE", "DEPLOYING")]);
    let ran = platform.run_interrupted(&["push", "web"], "GET /v3/deployments/deployment-1").await;
    assert_eq!(ran.exit, Exit::Interrupted);
    assert!(ran.err.contains("the deployment of 'web' is cancelled. The old version serves on."), "{}", ran.err);
    assert!(asked(&platform, "POST /v3/deployments/deployment-1/actions/cancel"));

    // The request that begins it is on its way: what it begins is seen a moment later.
    let platform = running().await;
    {
        let mut world = platform.lock();
        world.deployment = VecDeque::from([("ACTIVE", "DEPLOYING")]);
        let none = Instead::Status(200, "application/json", json!({ "resources": [] }).to_string());
        world.instead.push(("/v3/deployments".to_owned(), VecDeque::from([none.clone(), Instead::Hang, none])));
    }
    let ran = platform.run_interrupted(&["push", "web"], "POST /v3/deployments").await;
    assert_eq!(ran.exit, Exit::Interrupted);
    assert!(asked(&platform, "POST /v3/deployments/deployment-1/actions/cancel"), "{}", ran.err);

    // A first push leaves an app, and says how to be rid of it.
    let platform = Platform::logged_in().await;
    platform.write("index.js", "console.log('hello')");
    platform.lock().build_hangs = true;
    let ran = platform.run_interrupted(&["push", "web"], "GET /v3/builds").await;
    assert!(ran.err.contains("with http://web.slipway.localhost:PORT was made by this push"), "{}", ran.err);
    assert!(ran.err.contains("`slipway delete web -r -f`"), "{}", ran.err);
}

#[tokio::test]
async fn a_push_takes_the_place_of_a_build_that_goes_on() {
    let platform = running().await;
    {
        let mut world = platform.lock();
        let busy = json!({ "errors": [{ "code": 170_017, "title": "CF-StagingInProgress",
                            "detail": "Only one build can be STAGING at a time per application." }] });
        world.instead.push((
            "/v3/builds".to_owned(),
            VecDeque::from([Instead::Status(422, "application/json", busy.to_string())]),
        ));
        world.answers.insert(
            "GET /v3/builds".to_owned(),
            json!({ "resources": [{ "guid": "build-0", "state": "STAGING", "created_by": { "name": "eve" } }] }),
        );
    }
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(asked(&platform, "POST /v3/builds/build-0/actions/cancel"));
    assert!(ran.err.contains("an earlier build by 'eve' was under way; it is cancelled for this one"), "{}", ran.err);
}

#[tokio::test]
async fn leftovers_of_a_failed_first_push_are_reported() {
    let platform = Platform::logged_in().await;
    platform.write("index.js", "console.log('hello')");
    platform.lock().build_error = Some("NoAppDetectedError - nothing fits".into());
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Staging);
    assert!(
        ran.err.contains("was made by this push and stays") && ran.err.contains("slipway delete web -r -f"),
        "{}",
        ran.err
    );
    let ran = platform.run(&["push", "web"]).await;
    assert!(!ran.err.contains("was made by this push"), "the second time it was there: {}", ran.err);
}

#[tokio::test]
async fn a_push_says_at_once_what_it_waits_for() {
    let platform = running().await;
    platform.lock().build_hangs = true;
    // Interrupted at the second look, before any length of time could have made it speak.
    let ran = platform.run_interrupted(&["push", "web"], "GET /v3/builds").await;
    assert!(ran.err.contains("Building 'web'"), "{}", ran.err);
    platform.lock().calls.clear();
    let ran = platform.run_with_variables(&["push", "web"], &[], &[("CF_STAGING_TIMEOUT", "0.001")]).await;
    assert_eq!(ran.exit, Exit::Staging);
    assert!(ran.err.contains("   waiting: needs 1024 MiB of memory, 62 are free\n"), "{}", ran.err);
}
