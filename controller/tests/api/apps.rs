//! Apps from push to deletion, who may do what, and how builds and tasks end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::json;
use slipway_api_types::AssignmentId;
use slipway_controller::domain::outcomes;
use slipway_protocol::v1;
use uuid::Uuid;

use crate::support::apps::{app_of, build, build_result, catalogue, droplet, ready_package, refused, use_droplet};
use crate::support::{TestController, error};

#[tokio::test]
async fn a_push_ends_in_a_spec_that_says_everything() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (digest, sealed): (Vec<u8>, Vec<u8>) = sqlx::query_as(
        "select s.digest, s.body from process p join spec s on s.digest = p.spec where p.app_guid = $1 and p.type = 'web'",
    )
    .bind(app.parse::<Uuid>().expect("guid"))
    .fetch_one(&controller.database.pool)
    .await
    .expect("a spec");
    let body = controller.context.vault.open(&format!("spec/{}", hex::encode(&digest)), &sealed).expect("opens");
    let spec = <v1::WorkloadSpec as prost::Message>::decode(&body[..]).expect("decodes");
    assert_eq!(spec.command, "node server.js");
    assert_eq!(spec.layers.iter().map(|layer| layer.line.as_str()).collect::<Vec<_>>(), ["debian12", "node-22"]);
    let vcap = spec.env.iter().find(|var| var.name == "VCAP_APPLICATION").expect("VCAP_APPLICATION");
    assert!(vcap.value.contains("web.apps.slipway.test"), "{}", vcap.value);
    assert!(spec.env.iter().any(|var| var.name == "GREETING" && var.value == "hello"));

    // Nothing runs: one DOWN row, for the worker none, because none is wanted.
    let (status, stats) = client.get(&format!("/v3/processes/{app}/stats")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stats["resources"][0]["state"], "DOWN", "{stats}");
    let (_, list) = client.get(&format!("/v3/processes?embed=process_instances&app_guids={app}")).await;
    assert_eq!(list["pagination"]["total_results"], 2, "{list}");
    assert_eq!(list["resources"][0]["process_instances"][0]["state"], "DOWN");
    let web = format!("/v3/processes/{}", list["resources"][0]["guid"].as_str().expect("a guid"));
    let (_, one) = client.get(&format!("{web}?embed=process_instances")).await;
    assert_eq!(one["process_instances"], list["resources"][0]["process_instances"], "{one}");
    assert_eq!(client.get(&web).await.1.get("process_instances"), None);
    refused(&client.get(&format!("{web}?embed=nonsense")).await, 400, &["process_instances"]);

    let (_, events) = client.get(&format!("/v3/apps/{app}")).await;
    assert_eq!(events["relationships"]["current_droplet"]["data"]["guid"].as_str().map(str::len), Some(36));
    let types: Vec<String> = sqlx::query_scalar("select type from event where target_guid = $1 order by seq")
        .bind(&app)
        .fetch_all(&controller.database.pool)
        .await
        .expect("events");
    for wanted in [
        "audit.app.create",
        "audit.app.build.create",
        "audit.app.build.staged",
        "audit.app.droplet.mapped",
        "audit.app.start",
    ] {
        assert!(types.iter().any(|kind| kind == wanted), "{wanted} in {types:?}");
    }

    let (status, body) = client.act(&format!("/v3/apps/{app}/actions/stop")).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("STOPPED")));
    let job = client.delete_job(&format!("/v3/apps/{app}")).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(client.get(&format!("/v3/apps/{app}")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn roles_and_bad_bodies_are_refused() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let auditor = controller.user_with("aud@example.com", "space_auditor").await;
    let stranger = controller.user("stranger@example.com").await;
    let (_, space) = controller.dev().await;
    let create = |name: &str| json!({ "name": name, "relationships": { "space": { "data": { "guid": space } } } });
    let (status, app) = client.post("/v3/apps", create("one")).await;
    assert_eq!(status, StatusCode::CREATED, "{app}");
    let guid = app["guid"].as_str().expect("guid");
    let (status, body) = client.post("/v3/apps", create("ONE")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&body).1, "App with the name 'ONE' already exists.");
    assert_eq!(client.post("/v3/apps", create(&"x".repeat(300))).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let mut odd = create("two");
    odd["colour"] = json!("red");
    assert!(error(&client.post("/v3/apps", odd).await.1).1.contains("colour"));

    assert_eq!(auditor.get(&format!("/v3/apps/{guid}")).await.0, StatusCode::OK);
    assert_eq!(auditor.get(&format!("/v3/apps/{guid}/env")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(auditor.patch(&format!("/v3/apps/{guid}"), json!({ "name": "x" })).await.0, StatusCode::FORBIDDEN);
    assert_eq!(stranger.get(&format!("/v3/apps/{guid}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(stranger.get(&format!("/api/v1/read/{guid}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(controller.client(None).get("/v3/apps").await.0, StatusCode::UNAUTHORIZED);

    let (status, body) = client.act(&format!("/v3/apps/{guid}/actions/start")).await;
    assert_eq!(
        (status, error(&body).1.as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "Assign a droplet before starting this app.")
    );
    let (status, body) = client.get(&format!("/v3/apps/{guid}/droplets/current")).await;
    assert_eq!((status, error(&body).1.as_str()), (StatusCode::NOT_FOUND, "Droplet not found"));
    let vars = format!("/v3/apps/{guid}/environment_variables");
    assert_eq!(client.patch(&vars, json!({ "var": { "VCAP_X": "1" } })).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, body) = client.patch(&vars, json!({ "var": { "A": "1", "B": null } })).await;
    assert_eq!(body["var"], json!({ "A": "1" }));
    let scale = format!("/v3/apps/{guid}/processes/web/actions/scale");
    assert_eq!(client.post(&scale, json!({ "instances": -1 })).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = client.post(&scale, json!({ "instances": 3, "memory_in_mb": 32 })).await;
    assert_eq!((status, &body["instances"]), (StatusCode::ACCEPTED, &json!(3)), "{body}");
    let process = body["guid"].as_str().expect("a guid");
    let check = json!({ "health_check": { "type": "http", "data": { "endpoint": "healthy" } } });
    let text = "Health check endpoint must be a valid URI path such as /healthy, not \"healthy\"";
    refused(&client.patch(&format!("/v3/processes/{process}"), check).await, 422, &[text]);
    let (status, body) = client.delete(&format!("/v3/apps/{guid}/processes/web/instances/9")).await;
    assert_eq!((status, error(&body).1.as_str()), (StatusCode::NOT_FOUND, "Instance not found"));
    let (status, body) = client.get(&format!("/api/v1/read/{guid}?descending=true&limit=1")).await;
    let payload = STANDARD.encode("Scaling process: \"web\"");
    assert_eq!((status, &body["envelopes"]["batch"][0]["log"]["payload"]), (StatusCode::OK, &json!(payload)));
    assert_eq!(body["envelopes"]["batch"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_build_knows_the_start_command() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    for (name, fields, command) in [("a", "  command: ./app --fast\n", "./app --fast"), ("b", "", "")] {
        let app = app_of(&client, space, name, fields).await;
        let guid = build(&client, &ready_package(&client, &app).await).await;
        let (digest, sealed): (Vec<u8>, Vec<u8>) =
            sqlx::query_as("select s.digest, s.body from build b join spec s on s.digest = b.spec where b.guid = $1")
                .bind(guid.parse::<Uuid>().expect("guid"))
                .fetch_one(&controller.database.pool)
                .await
                .expect("a spec");
        let body = controller.context.vault.open(&format!("spec/{}", hex::encode(&digest)), &sealed).expect("opens");
        assert_eq!(<v1::WorkloadSpec as prost::Message>::decode(&body[..]).expect("decodes").command, command);
    }
}

#[tokio::test]
async fn ssh_needs_the_app_and_its_space() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = controller.bare_app(space, "ssh").await;
    let (space, app) = (format!("/v3/spaces/{space}/features/ssh"), format!("/v3/apps/{app}"));
    for (for_space, for_app, reason) in [
        (true, true, ""),
        (true, false, "ssh is disabled for app"),
        (false, true, "ssh is disabled for space 'dev'"),
        (false, false, "ssh is disabled for space 'dev'"),
    ] {
        assert_eq!(admin.patch(&space, json!({ "enabled": for_space })).await.0, StatusCode::OK);
        assert_eq!(admin.patch(&format!("{app}/features/ssh"), json!({ "enabled": for_app })).await.0, StatusCode::OK);
        let (_, ssh) = admin.get(&format!("{app}/ssh_enabled")).await;
        assert_eq!(ssh, json!({ "enabled": for_space && for_app, "reason": reason }));
    }
}

#[tokio::test]
async fn a_failed_build_says_why_and_a_task_ends_by_its_exit() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let guid = build(&client, &ready_package(&client, &app).await).await;
    let result = v1::BuildResult {
        error_id: "NoAppDetectedError".to_owned(),
        error_text: "An app was not successfully detected by any available buildpack".to_owned(),
        ..v1::BuildResult::default()
    };
    let id = guid.parse().expect("guid");
    outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(result), None).await.expect("ends");
    let (_, build) = client.get(&format!("/v3/builds/{guid}")).await;
    assert_eq!(build["state"], "FAILED");
    assert_eq!(build["error"], "NoAppDetectedError - An app was not successfully detected by any available buildpack");
    let (_, events) = client.get(&format!("/v3/audit_events?target_guids={app}&types=audit.app.build.failed")).await;
    let data = &events["resources"][0]["data"];
    assert_eq!((&data["build_guid"], &data["error_id"]), (&json!(guid), &json!("NoAppDetectedError")), "{events}");
    assert_eq!(data["error_message"], "An app was not successfully detected by any available buildpack");

    let (status, task) =
        client.post(&format!("/v3/apps/{app}/tasks"), json!({ "command": "true", "memory_in_mb": 32 })).await;
    assert_eq!((status, &task["sequence_id"]), (StatusCode::ACCEPTED, &json!(1)), "{task}");
    let id: Uuid = task["guid"].as_str().expect("guid").parse().expect("guid");
    let exit = v1::ExitRecord { code: 3, reason: "exited with status 3".to_owned(), ..v1::ExitRecord::default() };
    outcomes::task_completed(&controller.context, AssignmentId::new(), id, 1, Some(exit)).await.expect("ends");
    let (_, task) = client.get(&format!("/v3/tasks/{id}")).await;
    assert_eq!((&task["state"], &task["result"]["failure_reason"]), (&json!("FAILED"), &json!("exited with status 3")));
    let (status, _) = client.send(client.request(Method::PUT, &format!("/v3/tasks/{id}/cancel"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn commands_of_tasks_are_listed_with_their_app_and_a_cancelled_task_says_so() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let auditor = controller.user_with("auditor@example.com", "space_auditor").await;
    let app = controller.pushed(&client, "web").await;
    let tasks = format!("/v3/apps/{app}/tasks");
    let mut guids = Vec::new();
    for _ in 0..2 {
        let (status, task) = client.post(&tasks, json!({ "command": "sleep 9" })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{task}");
        guids.push(task["guid"].as_str().expect("guid").parse::<Uuid>().expect("guid"));
    }
    let command = async |who: &crate::support::TestClient, path: &str| {
        let (status, list) = who.get(path).await;
        assert_eq!((status, &list["pagination"]["total_results"]), (StatusCode::OK, &json!(2)), "{list}");
        list["resources"][0].get("command").cloned()
    };
    assert_eq!(command(&client, &tasks).await, Some(json!("sleep 9")));
    assert_eq!(command(&auditor, &tasks).await, None, "a command may hold secrets");
    assert_eq!(command(&client, "/v3/tasks").await, None);
    let labels = json!({ "metadata": { "labels": { "env": "dev" } } });
    let (status, task) = client.patch(&format!("/v3/tasks/{}", guids[0]), labels.clone()).await;
    assert_eq!((status, &task["command"]), (StatusCode::OK, &json!("sleep 9")), "{task}");
    assert_eq!(task["metadata"]["labels"], labels["metadata"]["labels"]);
    // Before a cell has it, and after.
    let cancelled = async |guid: Uuid| client.get(&format!("/v3/tasks/{guid}")).await.1;
    assert_eq!(client.act(&format!("/v3/tasks/{}/actions/cancel", guids[0])).await.0, StatusCode::ACCEPTED);
    assert_eq!(cancelled(guids[0]).await["result"]["failure_reason"], "task was cancelled");
    sqlx::query("update task set state = 'CANCELING' where guid = $1")
        .bind(guids[1])
        .execute(&controller.database.pool)
        .await
        .expect("being cancelled");
    let exit = v1::ExitRecord { code: 143, reason: "stopped".to_owned(), ..v1::ExitRecord::default() };
    outcomes::task_completed(&controller.context, AssignmentId::new(), guids[1], 1, Some(exit)).await.expect("ends");
    let task = cancelled(guids[1]).await;
    assert_eq!((&task["state"], &task["result"]["failure_reason"]), (&json!("FAILED"), &json!("task was cancelled")));
}

#[tokio::test]
async fn one_build_of_an_app_at_a_time_and_only_of_what_is_there() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let package = ready_package(&client, &app).await;
    let guid = build(&client, &package).await;
    let (status, again) = client.post("/v3/builds", json!({ "package": { "guid": package } })).await;
    assert_eq!((status, error(&again).0), (StatusCode::UNPROCESSABLE_ENTITY, 170_017));
    // Announced, but not in the object store.
    let id = guid.parse().expect("guid");
    let result = build_result(b"never uploaded");
    outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(result), None).await.expect("ends");
    let (_, failed) = client.get(&format!("/v3/builds/{guid}")).await;
    assert_eq!(failed["state"], "FAILED");
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("did not reach the object store")), "{failed}");
    let unknown = json!({ "package": { "guid": Uuid::new_v4() } });
    refused(&client.post("/v3/builds", unknown).await, 422, &["package"]);
}

#[tokio::test]
async fn a_gap_in_the_logs_is_shown_as_a_gap() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let line = v1::LogLine { unix_ns: 7, text: "hello".into(), instance_id: "0".into(), ..v1::LogLine::default() };
    controller.cells.lines.lock().expect("lock").push(line);
    controller.cells.unanswered.lock().expect("lock").push("cell 7".to_owned());
    let (status, body) = client.get(&format!("/api/v1/read/{app}?limit=10")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let batch = body["envelopes"]["batch"].as_array().expect("envelopes");
    let last = batch.len() - 1;
    let text = |index: usize| {
        let payload = batch[index]["log"]["payload"].as_str().expect("a payload");
        String::from_utf8(STANDARD.decode(payload).expect("base64")).expect("text")
    };
    assert_eq!(text(0), "hello");
    // What the API did stands among the lines of the app.
    assert_eq!(text(1), format!("Created app with guid {app}"));
    assert_eq!(text(last - 1), format!("Starting app with guid {app}"));
    assert_eq!(text(last), "lines may be missing here: cell 7 did not answer in time");
    refused(&client.get(&format!("/api/v1/read/{app}?limit=1001")).await, 400, &["at most 1000"]);
}

#[tokio::test]
async fn a_droplet_of_workers_alone_starts_without_a_web_process() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "workers").await;
    let types = async |types: &str| {
        let statement = format!("update droplet set process_types = '{types}'");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&controller.database.pool).await.expect("written");
    };
    let web = async || client.get(&format!("/v3/apps/{app}/processes/web")).await.1;
    let restart = async || client.act(&format!("/v3/apps/{app}/actions/restart")).await;

    types(r#"{"worker": "./work"}"#).await;
    let (status, body) = restart().await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(web().await["instances"], 0);

    // Who asks for instances of it is told what is missing.
    let scaled = client.post(&format!("/v3/apps/{app}/processes/web/actions/scale"), json!({ "instances": 2 })).await;
    assert_eq!(scaled.0, StatusCode::ACCEPTED, "{}", scaled.1);
    let (status, body) = restart().await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&body).1.contains("no start command"), "{body}");
    client.post(&format!("/v3/apps/{app}/processes/web/actions/scale"), json!({ "instances": 0 })).await;

    // The next droplet has a web process, and with it the instance that every app begins with.
    let package = ready_package(&client, &app).await;
    let build = build(&client, &package).await;
    controller.stage(&build).await;
    use_droplet(&client, &app, &build).await;
    assert_eq!(web().await["instances"], 1);
    assert_eq!(restart().await.0, StatusCode::OK);
}

#[tokio::test]
async fn starting_an_app_without_a_command_suggests_the_command_that_its_build_guessed() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "web").await;
    let guid = build(&client, &ready_package(&client, &app).await).await;
    let hint = v1::StartHint { command: "gunicorn app:app".to_owned(), missing: "gunicorn".to_owned() };
    let result = v1::BuildResult { process_types: Vec::new(), start_hint: Some(hint), ..build_result(&droplet()) };
    let id = guid.parse().expect("guid");
    outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(result), None).await.expect("ends");
    // Such a build is a good one: its app may be there for its tasks.
    use_droplet(&client, &app, &guid).await;
    let restart = async || client.act(&format!("/v3/apps/{app}/actions/restart")).await;
    let message =
        ["no start command", "echo 'web: gunicorn app:app' > Procfile", r"printf '\ngunicorn\n' >> requirements.txt"];
    refused(&restart().await, 422, &message);
    // So is who starts a copy of it, and nobody once there is a command.
    let (_, done) = client.get(&format!("/v3/builds/{guid}")).await;
    let source = done["droplet"]["guid"].as_str().expect("a droplet");
    let relationships = json!({ "relationships": { "app": { "data": { "guid": app } } } });
    let (_, copy) = client.post(&format!("/v3/droplets?source_guid={source}"), relationships).await;
    let chosen = json!({ "data": { "guid": copy["guid"] } });
    client.patch(&format!("/v3/apps/{app}/relationships/current_droplet"), chosen).await;
    refused(&restart().await, 422, &message);
    let web = client.get(&format!("/v3/apps/{app}/processes/web")).await.1["guid"].as_str().expect("guid").to_owned();
    client.patch(&format!("/v3/processes/{web}"), json!({ "command": "python app.py" })).await;
    assert_eq!(restart().await.0, StatusCode::OK);
}
