//! `push` against the simulated platform: what is sent, what is printed, how it fails.

mod support;

use std::collections::VecDeque;

use serde_json::{Value, json};
use slipway_cli::Exit;
use support::{Instead, Platform, api_error, envelope, row, unzip};

fn app(platform: &Platform) {
    platform.write("index.js", "console.log('hello')");
    platform.write("lib/util.js", "exports.x = 1");
    platform.write("empty", "");
}

#[tokio::test]
async fn a_push_goes_all_the_way() {
    let platform = Platform::logged_in().await;
    app(&platform);
    {
        let mut world = platform.lock();
        world.logs.push(envelope(5, "STG/0", "a line of an earlier build"));
        world.build_logs =
            vec![envelope(10, "STG/0", "-----> nodejs"), envelope(11, "APP/PROC/WEB", "not of the build")];
        world.stats = VecDeque::from([json!([]), json!([row("STARTING", "new")]), json!([row("RUNNING", "new")])]);
    }
    platform.lock().calls.clear();
    let ran = platform.run(&["push", "web", "-m", "128M"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(ran.out, "http://web.slipway.localhost:PORT\n");
    let mut settings = insta::Settings::clone_current();
    // Told only when the platform takes its time.
    settings.add_filter(r"   web: [^\n]*\n", "");
    settings.add_filter(r"Uploading [^\n]* of [^\n]*\n", "");
    settings.add_filter(r"\d+\.\d s", "TIME");
    settings.add_filter(r"Uploading \d+B", "Uploading SIZE");
    settings.bind(|| insta::assert_snapshot!(ran.err));
    let world = platform.lock();
    insta::assert_snapshot!(world.bodies["POST /v3/spaces/space-1/actions/apply_manifest"]);
    let bits = unzip(world.bits.as_deref().expect("bits"));
    let names: Vec<&str> = bits.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["empty", "index.js", "lib/util.js"]);
    assert_eq!(world.resources, json!([]));
    insta::assert_snapshot!(world.calls.join("\n"));
}

#[tokio::test]
async fn settings_that_a_manifest_reverts_are_shown_before_it_is_applied() {
    let platform = Platform::logged_in().await;
    platform.write("app.js", "1\n");
    platform.write("manifest.yml", "applications:\n- name: web\n  instances: 1\n  env: {TOKEN: secret-value}\n");
    let ran = platform.run(&["push", "--no-start"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(!ran.err.contains("changes"), "nothing was there: {}", ran.err);
    let diff = json!({ "diff": [
        { "op": "replace", "path": "/applications/0/instances", "was": 3, "value": 1 },
        { "op": "replace", "path": "/applications/0/env/TOKEN", "was": "other", "value": "secret-value" },
    ] });
    platform.lock().answers.insert("POST /v3/spaces/space-1/manifest_diff".to_owned(), diff);
    let ran = platform.run(&["push", "--no-start"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("This push changes 'web': instances 3 → 1, env TOKEN.\n"), "{}", ran.err);
    assert!(!ran.err.contains("secret-value"), "{}", ran.err);
    let world = platform.lock();
    let place = |path: &str| world.calls.iter().rposition(|call| call.contains(path));
    assert!(place("manifest_diff") < place("apply_manifest"), "{:?}", world.calls);
}

#[tokio::test]
async fn json_gives_the_times() {
    let platform = Platform::logged_in().await;
    app(&platform);
    let ran = platform.run(&["push", "web", "--json", "--quiet"]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Success, ""));
    let value: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(value["app_guid"], "app-1");
    assert_eq!(value["url"], "http://web.slipway.localhost:PORT");
    for key in ["prepare_ms", "upload_ms", "stage_ms", "place_ms", "start_ms", "route_ms", "total_ms"] {
        assert!(value["timings"][key].is_u64(), "{key} in {value}");
    }
}

#[tokio::test]
async fn only_unknown_files_are_sent() {
    let platform = Platform::logged_in().await;
    platform.write("known.js", "console.log('hello')");
    platform.write("new.js", "new");
    let asked = platform.run(&["push", "web", "--no-start"]).await;
    assert_eq!(asked.exit, Exit::Success, "{}", asked.err);
    assert_eq!(asked.err.matches("is uploaded").count(), 1, "one closing line: {}", asked.err);
    let request: Value = serde_json::from_str(&platform.lock().bodies["POST /v3/resource_matches"]).expect("JSON");
    let entries = request["resources"].as_array().expect("list").clone();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["mode"], "644");
    platform.lock().known.insert(entries[0]["checksum"]["value"].as_str().expect("sha1").to_owned());
    platform.run(&["push", "web", "--no-start"]).await;
    {
        let world = platform.lock();
        assert_eq!(unzip(world.bits.as_deref().expect("bits")), [("new.js".to_owned(), "new".to_owned())]);
        assert_eq!(world.resources[0]["path"], "known.js");
        assert_eq!(world.builds, 0, "--no-start does not stage");
    }
    platform.lock().known.insert(entries[1]["checksum"]["value"].as_str().expect("sha1").to_owned());
    let ran = platform.run(&["push", "web", "--no-start"]).await;
    assert!(ran.err.contains("the platform has every file"), "{}", ran.err);
    assert!(platform.lock().bits.is_none());
}

#[tokio::test]
async fn a_failed_build_says_why_and_what_to_do() {
    let platform = Platform::logged_in().await;
    app(&platform);
    {
        let mut world = platform.lock();
        world.build_error =
            Some("NoAppDetectedError - An app was not successfully detected by any available buildpack".into());
        world.build_logs = vec![envelope(10, "STG", "no buildpack wants it")];
    }
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Staging);
    assert_eq!(ran.out, "");
    assert!(ran.err.contains("   no buildpack wants it\n"), "{}", ran.err);
    let end: Vec<&str> = ran.err.lines().rev().take(3).collect();
    insta::assert_snapshot!(end.into_iter().rev().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn a_crash_shows_reason_and_last_lines() {
    let platform = Platform::logged_in().await;
    app(&platform);
    {
        let mut world = platform.lock();
        let mut crashed = row("CRASHED", "new");
        crashed["details"] = "out of memory: 256 MiB".into();
        world.stats = VecDeque::from([json!([row("STARTING", "new")]), json!([crashed])]);
        world.logs = vec![envelope(20, "APP/PROC/WEB", "Error: heap\u{1b}[2J"), envelope(21, "RTR", "not of the app")];
    }
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Start);
    assert!(ran.err.contains("web.0 | Error: heap\u{fffd}[2J\n"), "{}", ran.err);
    assert!(!ran.err.contains("not of the app"));
    assert!(ran.err.contains("Error: 'web' crashed: out of memory: 256 MiB\nHint: "), "{}", ran.err);
}

#[tokio::test]
async fn a_program_that_runs_for_a_moment_has_crashed() {
    let platform = Platform::logged_in().await;
    app(&platform);
    let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "health_check": { "type": "process" } });
    {
        let mut world = platform.lock();
        world.answers.insert("GET /v3/apps/app-1/processes".to_owned(), json!({ "resources": [process] }));
        let mut crashed = row("CRASHED", "new");
        crashed["details"] = "exited with status 5".into();
        world.stats =
            VecDeque::from([json!([row("RUNNING", "new")]), json!([row("RUNNING", "new")]), json!([crashed])]);
    }
    let ran = platform.run(&["push", "web", "-u", "process"]).await;
    assert_eq!(ran.exit, Exit::Start, "{}", ran.err);
    assert!(ran.err.contains("Error: 'web' crashed: exited with status 5\n"), "{}", ran.err);
    // What runs for long enough is good, and what is waited for is said.
    let steady = |uptime: u64| {
        let mut row = row("RUNNING", "new");
        row["uptime"] = uptime.into();
        json!([row])
    };
    platform.lock().stats = std::iter::repeat_n(steady(1), 80).chain([steady(5)]).collect();
    let ran = platform.run(&["start", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("   web: 1 running, the check `process` counts after 5 s\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_broken_upload_is_repeated_and_a_finished_one_is_recognised() {
    let platform = Platform::logged_in().await;
    app(&platform);
    let gateway = Instead::Status(502, "text/html", "<html>bad gateway</html>".into());
    let twice =
        Instead::Status(400, "application/json", api_error(150_004, "CF-PackageBitsAlreadyUploaded", "Bits uploaded"));
    platform.instead("/v3/packages/package-1/upload", [gateway.clone(), twice]);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("trying again"));
    platform.instead("/v3/packages/package-1/upload", [gateway.clone(), gateway.clone(), gateway]);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Unavailable);
    assert!(ran.err.contains("The upload of 'web' failed after 3 tries"), "{}", ran.err);
}

#[tokio::test]
async fn mistakes_are_reported_before_anything_is_sent() {
    let platform = Platform::logged_in().await;
    app(&platform);
    platform.lock().calls.clear();
    for (args, part) in [
        (vec!["push", "web", "-m", "512Q"], "'512Q' is not a size"),
        (vec!["push", "web", "-p", "nowhere"], "There is nothing at WORK/nowhere"),
        (vec!["push", "-p", "nowhere"], "There is nothing at WORK/nowhere"),
        (vec!["push", "web", "-p", "index.js"], "neither a directory nor a zip"),
        (vec!["push", "web", "-f", "other.yml"], "There is no manifest at WORK/other.yml"),
        (vec!["push", "web", "--var", "novalue"], "'novalue' is not of the form"),
        (vec!["push"], "No app name is given"),
    ] {
        let ran = platform.run(&args).await;
        assert_eq!(ran.exit, Exit::Usage, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(part) && ran.err.contains("\nHint: "), "{args:?}: {}", ran.err);
    }
    assert_eq!(platform.lock().calls, Vec::<String>::new());
    assert_eq!(platform.run(&["push", "web", "-i", "-1"]).await.exit, Exit::Usage);
    assert_eq!(platform.run(&["push", "web", "-i", "many"]).await.exit, Exit::Usage);
}

#[tokio::test]
async fn an_empty_directory_makes_nothing() {
    let platform = Platform::logged_in().await;
    platform.write(".cfignore", "*");
    platform.write("index.js", "console.log('hello')");
    platform.lock().calls.clear();
    let ran = platform.run(&["push", "web"]).await;
    assert!(ran.err.contains("There are no files to push"), "{}", ran.err);
    let world = platform.lock();
    assert!(!world.app_exists && world.calls.iter().all(|call| call.starts_with("GET ")), "{:?}", world.calls);
}

#[tokio::test]
async fn a_route_that_leads_to_another_app_as_well_is_warned_of() {
    let platform = Platform::logged_in().await;
    platform.write("index.html", "hello");
    let to = |guid: &str| json!({ "guid": guid, "app": { "guid": guid, "process": { "type": "web" } } });
    let route = json!({ "guid": "route-1", "url": "web.slipway.localhost", "protocol": "http",
                        "destinations": [to("app-1"), to("app-2")] });
    let other = json!({ "guid": "app-2", "name": "shop", "state": "STARTED" });
    let answer = |one: &Value| Instead::Status(200, "application/json", json!({ "resources": [one] }).to_string());
    platform.lock().answers.insert("GET /v3/apps/app-1/routes".to_owned(), json!({ "resources": [route] }));
    platform.instead("/v3/apps", [Instead::Usual, Instead::Usual, Instead::Usual, answer(&other)]);
    let ran = platform.run(&["push", "web", "--no-start"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("Warning: web.slipway.localhost leads to 'shop' as well"), "{}", ran.err);
}

#[tokio::test]
async fn routes_that_a_push_takes_from_the_app_are_named() {
    let platform = Platform::logged_in().await;
    platform.write("index.html", "hello");
    platform.lock().app_exists = true;
    let to = |guid: &str| json!({ "guid": guid, "app": { "guid": guid, "process": { "type": "web" } } });
    let own = json!({ "guid": "route-1", "url": "own.slipway.localhost", "destinations": [to("app-1")] });
    let shared = json!({ "guid": "route-2", "url": "shared.slipway.localhost",
                         "destinations": [to("app-1"), to("app-2")] });
    let before = json!({ "resources": [own, shared] }).to_string();
    platform.instead(
        "/v3/apps/app-1/routes",
        [
            Instead::Status(200, "application/json", before),
            Instead::Status(200, "application/json", r#"{"resources":[]}"#.to_owned()),
        ],
    );
    let ran = platform.run(&["push", "web", "--no-start", "--no-route"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    let said = "'own.slipway.localhost' no longer leads to 'web'. The route stays in the space; \
                `slipway delete-orphaned-routes` deletes it.";
    assert!(ran.err.contains(said) && !ran.err.contains("shared."), "{}", ran.err);
}

#[tokio::test]
async fn apps_after_one_that_failed_are_named() {
    let platform = Platform::logged_in().await;
    platform.write("index.html", "hello");
    platform.write("manifest.yml", "applications:\n- name: web\n- name: worker\n- name: cron\n");
    let refusal = json!({ "errors": [{ "code": 1, "title": "CF-Some", "detail": "No room." }] });
    platform.instead("/v3/packages", [Instead::Status(422, "application/json", refusal.to_string())]);
    let ran = platform.run(&["push"]).await;
    assert_ne!(ran.exit, Exit::Success);
    let said = "'worker', 'cron' were not pushed after this failure; they were made, stay without files. Push again, or \
                remove: `slipway delete worker -r -f`, `slipway delete cron -r -f`";
    assert!(ran.err.contains(said), "{}", ran.err);
}

#[tokio::test]
async fn a_push_that_fails_sets_the_sizes_back() {
    let platform = Platform::logged_in().await;
    platform.write("index.html", "hello");
    let processes = |instances: u32, memory: u64| {
        let process = json!({ "guid": "process-1", "type": "web", "instances": instances, "memory_in_mb": memory,
                              "disk_in_mb": 1024 });
        Instead::Status(200, "application/json", json!({ "resources": [process] }).to_string())
    };
    let refusal = json!({ "errors": [{ "code": 1, "title": "CF-Some", "detail": "Broken." }] });
    platform.lock().app_exists = true;
    platform.lock().answers.insert("POST /v3/processes/process-1/actions/scale".to_owned(), json!({}));
    let diff = json!({ "diff": [
        { "op": "replace", "path": "/applications/0/memory", "was": "128M", "value": "300M" },
        { "op": "add", "path": "/applications/0/env/TOKEN", "value": "secret" },
    ] });
    platform.lock().answers.insert("POST /v3/spaces/space-1/manifest_diff".to_owned(), diff);
    platform.instead("/v3/apps/app-1/processes", [processes(1, 128), processes(2, 300), processes(2, 300)]);
    platform.instead("/v3/packages", [Instead::Status(422, "application/json", refusal.to_string())]);
    let ran = platform.run(&["push", "web", "-m", "300M", "-i", "2"]).await;
    assert_eq!(ran.exit, Exit::Invalid, "{}", ran.err);
    let sent: Value =
        serde_json::from_str(&platform.lock().bodies["POST /v3/processes/process-1/actions/scale"]).expect("JSON");
    assert_eq!(sent, json!({ "instances": 1, "memory_in_mb": 128 }));
    assert!(ran.err.contains("Set back for 'web': web instances 2 → 1, web memory 300M → 128M."), "{}", ran.err);
    assert!(ran.err.contains("'web' keeps from this push: env TOKEN."), "{}", ran.err);
}

#[tokio::test]
async fn a_key_that_nobody_knows_is_warned_of_once() {
    let platform = Platform::logged_in().await;
    platform.write("index.html", "hello");
    platform.write("manifest.yml", "applications:\n- name: web\n  instnces: 2\n");
    let warnings = ["For application 'web': the key 'instnces' is not known and was ignored.", "the key 'x' is odd"];
    let warnings = warnings.map(|text| json!({ "detail": text }));
    platform.lock().answers.insert(
        "GET /v3/jobs/job-1".to_owned(),
        json!({ "guid": "job-1", "state": "COMPLETE", "errors": [], "warnings": warnings }),
    );
    let ran = platform.run(&["push", "--no-start"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("'instnces' is unknown and ignored; did you mean 'instances'?"), "{}", ran.err);
    assert_eq!(ran.err.matches("'instnces'").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("the key 'x' is odd"), "what only the platform warns of: {}", ran.err);
}

#[tokio::test]
async fn a_failed_manifest_job_shows_every_detail() {
    let platform = Platform::logged_in().await;
    app(&platform);
    let body = json!({ "guid": "job-1", "state": "FAILED", "errors": [
        { "code": 10008, "title": "CF-UnprocessableEntity", "detail": "For application 'web': memory exceeds the quota" },
        { "code": 10008, "title": "CF-UnprocessableEntity", "detail": "For application 'web': route is taken" } ] });
    platform.instead("/v3/jobs/job-1", [Instead::Status(200, "application/json", body.to_string())]);
    let ran = platform.run(&["push", "web"]).await;
    assert_eq!(ran.exit, Exit::Invalid);
    assert!(ran.err.contains("memory exceeds the quota") && ran.err.contains("route is taken"), "{}", ran.err);
}
