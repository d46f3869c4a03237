//! What `cf` and cloudfoundry-client stumble over, as far as no other test has come by it. What every answer must look
//! like is in `tests/roles/shape.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_protocol::v1;
use uuid::Uuid;

use crate::support::apps::{app_of, build, manifest, ready_package};
use crate::support::{ADMIN_PASSWORD, TestClient, TestController, error};

fn decoded(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("json")
}

/// The client takes the token apart itself, strips `bearer ` from its type, and renews it a minute before its end.
#[tokio::test]
async fn tokens_are_as_the_clients_parse_them() {
    let controller = TestController::start().await;
    let password = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD), ("scope", "")];
    let (_, first) = controller.token(&password).await;
    let refresh = first["refresh_token"].as_str().expect("a refresh token");
    let (_, second) =
        controller.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh), ("scope", "")]).await;
    for answer in [first.clone(), second] {
        assert_eq!(answer["token_type"], "bearer");
        assert!(answer["refresh_token"].is_string(), "{answer}");
        let token = answer["access_token"].as_str().expect("a token");
        assert_eq!(decoded(token, 0)["alg"], "RS256");
        let claims = decoded(token, 1);
        assert!(claims["user_name"].is_string() && claims["user_id"].is_string() && claims["origin"].is_string());
        let life = claims["exp"].as_i64().expect("a time") - chrono::Utc::now().timestamp();
        assert!(life > 120, "{life} s are renewed before every call");
        assert!(claims["scope"].as_array().is_some_and(|scopes| !scopes.is_empty()), "{claims}");
    }
    let (_, login) = controller.client(None).get("/login").await;
    for (name, prompt) in login["prompts"].as_object().expect("prompts") {
        let prompt: Vec<&str> = prompt.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(matches!(prompt[..], ["text" | "password", _]), "{name}: {prompt:?}");
    }
    let (_, root) = controller.client(None).get("/").await;
    let log_cache = root["links"]["log_cache"]["href"].as_str().expect("a URL");
    assert_eq!(url::Url::parse(log_cache).expect("a URL").path(), "/", "a path there is dropped");
}

/// A header about a body that is not there is sent with every call.
#[tokio::test]
async fn a_content_type_without_a_body_is_no_harm() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "web").await;
    let bare = async |method: Method, path: &str| {
        let request = admin.request(method, path).header("content-type", "application/json");
        admin.send(request).await
    };
    let (status, task) = admin.post(&format!("/v3/apps/{app}/tasks"), json!({ "command": "true" })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{task}");
    let task = task["guid"].as_str().expect("a guid");
    for (method, path, wanted) in [
        (Method::GET, format!("/v3/apps/{app}"), 200),
        (Method::POST, format!("/v3/apps/{app}/actions/stop"), 200),
        (Method::POST, format!("/v3/apps/{app}/actions/start"), 200),
        (Method::POST, format!("/v3/apps/{app}/actions/restart"), 200),
        (Method::PUT, format!("/v3/tasks/{task}/cancel"), 202),
        (Method::DELETE, format!("/v3/apps/{app}/processes/web/instances/7"), 404),
        (Method::DELETE, format!("/v3/apps/{app}"), 202),
    ] {
        let (status, body) = bare(method.clone(), &path).await;
        assert_eq!(status.as_u16(), wanted, "{method} {path}: {body}");
    }
}

/// A client that lost an answer asks again: what it asked for is so, whoever has done it.
#[tokio::test]
async fn changes_and_removals_may_be_sent_again() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let path = format!("/v3/apps/{app}");
    for change in [
        json!({ "name": "b", "metadata": { "labels": { "x": "y", "gone": null } } }),
        json!({ "lifecycle": { "type": "buildpack", "data": { "buildpacks": ["nodejs_buildpack"], "stack": null } } }),
    ] {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (status, mut body) = admin.patch(&path, change.clone()).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            body["updated_at"] = Value::Null;
            seen.push(body);
        }
        assert!(seen.iter().all(|body| *body == seen[0]), "{seen:?}");
    }
    assert_eq!(admin.delete_job(&path).await["state"], "COMPLETE");
    assert_eq!(admin.delete(&path).await.0, StatusCode::NOT_FOUND);
}

/// Groups of 200 guids make a query of more than 7 KB; a whole page is 5000.
#[tokio::test]
async fn long_queries_are_answered() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "  default-route: true\n").await;
    let guids: Vec<String> = (0..199).map(|_| Uuid::new_v4().to_string()).chain([app]).collect();
    for separator in [",", "%2C"] {
        let guids = guids.join(separator);
        for list in ["apps?guids", "routes?app_guids", "processes?app_guids", "service_route_bindings?route_guids"] {
            let (status, page) = admin.get(&format!("/v3/{list}={guids}&per_page=5000")).await;
            assert_eq!(status, StatusCode::OK, "{list}: {page}");
            let found = page["pagination"]["total_results"].as_u64();
            assert_eq!(found, Some(u64::from(!list.starts_with("service"))), "{list}");
        }
    }
}

/// What the client writes into a manifest, or leaves in it, is not the platform's business.
#[tokio::test]
async fn manifests_may_hold_what_only_the_client_knows() {
    let controller = TestController::start().await;
    let client = controller.user_with("dora", "space_developer").await;
    let (_, space) = controller.dev().await;
    let text = "---\napplications:\n- name: a\n  path: ./somewhere\n  default-route: true\n  disk-quota: 128M\n  \
                health-check-type: process\n  cnb-credentials: {registry: {user: x}}\n  no-such-thing: [1, {a: b}]\n";
    let diff = client.request(Method::POST, &format!("/v3/spaces/{space}/manifest_diff"));
    let (status, body) = client.send(diff.header("content-type", "application/x-yaml").body(text)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert!(body["diff"].is_array());
    let job = client.job(manifest(&client, space, text)).await;
    assert_eq!((&job["state"], &job["errors"]), (&json!("COMPLETE"), &json!([])), "{job}");
    let app = crate::support::apps::app_named(&client, "a").await;
    let (_, process) = client.get(&format!("/v3/apps/{app}/processes/web")).await;
    assert_eq!((&process["disk_in_mb"], &process["health_check"]["type"]), (&json!(128), &json!("process")));
}

/// Who watches an app's events sees that a push changed it.
#[tokio::test]
async fn a_manifest_is_a_change_of_the_app() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let (_, events) = admin.get(&format!("/v3/audit_events?target_guids={app}&types=audit.app.update")).await;
    assert_eq!(events["resources"][0]["data"]["manifest_triggered"], true, "{events}");
}

/// Names in paths arrive percent-encoded.
#[tokio::test]
async fn names_in_paths_are_decoded() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "  processes:\n  - {type: 'web worker+1', instances: 0}\n").await;
    let path = format!("/v3/apps/{app}/processes/web%20worker%2B1");
    assert_eq!(admin.get(&path).await.1["type"], "web worker+1");
    let (status, body) = admin.post(&format!("{path}/actions/scale"), json!({ "memory_in_mb": 77 })).await;
    assert_eq!((status, &body["memory_in_mb"]), (StatusCode::ACCEPTED, &json!(77)), "{body}");
    assert_eq!(admin.get(&format!("/v3/apps/{app}/features/%73sh")).await.1["name"], "ssh");
}

/// Some clients end a path with a slash, also before the query; Cloud Foundry does not mind.
#[tokio::test]
async fn a_slash_at_the_end_says_nothing() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let (status, body) = admin.get("/v3/apps/?names=a").await;
    assert_eq!((status, &body["resources"][0]["guid"]), (StatusCode::OK, &json!(app)), "{body}");
    let first = body["pagination"]["first"]["href"].as_str().expect("a link");
    assert!(first.contains("/v3/apps?"), "links are without it: {first}");
    let body = json!({ "relationships": { "app": { "data": { "guid": app } } }, "type": "bits" });
    assert_eq!(admin.post("/v3/packages/", body).await.0, StatusCode::CREATED);
    assert_eq!(admin.get(&format!("/v3/apps/{app}/")).await.0, StatusCode::OK);
    let anybody = controller.client(None);
    assert_eq!(anybody.get("/").await.0, StatusCode::OK);
    assert_eq!(anybody.get("/v3/").await.0, StatusCode::OK);
    let (status, body) = admin.get("/v3/nothing/").await;
    assert_eq!((status, error(&body).0), (StatusCode::NOT_FOUND, 10000), "{body}");
}

/// Numbers as text count as numbers, as on Cloud Foundry.
#[tokio::test]
async fn numbers_may_be_text() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let process = format!("/v3/apps/{app}/processes/web");
    let (status, body) =
        admin.post(&format!("{process}/actions/scale"), json!({ "memory_in_mb": "77", "instances": "2" })).await;
    assert_eq!((status, &body["memory_in_mb"]), (StatusCode::ACCEPTED, &json!(77)), "{body}");
    assert_eq!(body["instances"], 2);
    let check = json!({ "health_check": { "type": "port", "data": { "timeout": "90" } } });
    assert_eq!(admin.patch(&process, check).await.1["health_check"]["data"]["timeout"], 90);
    let (status, body) = admin.post(&format!("{process}/actions/scale"), json!({ "memory_in_mb": "much" })).await;
    assert_eq!(
        (status, error(&body).1),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            "'memory_in_mb' is not as expected: invalid value: string \"much\", expected a whole number".to_owned()
        )
    );
}

/// No row counts as healthy, so a wanted instance has one before anything runs; asking is never an error.
#[tokio::test]
async fn instances_that_are_wanted_have_a_row() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "web").await;
    let rows = async || {
        let (status, stats) = admin.get(&format!("/v3/processes/{app}/stats")).await;
        assert_eq!(status, StatusCode::OK, "{stats}");
        stats["resources"].as_array().expect("rows").clone()
    };
    let scale = |instances: u32| {
        let (admin, path) = (admin.clone(), format!("/v3/apps/{app}/processes/web/actions/scale"));
        async move { assert_eq!(admin.post(&path, json!({ "instances": instances })).await.0, StatusCode::ACCEPTED) }
    };
    scale(3).await;
    let down = rows().await;
    assert_eq!(down.iter().map(|row| row["index"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert!(down.iter().all(|row| row["state"] == "DOWN" && row["type"] == "web"), "{down:?}");
    // One that starts again says that it had crashed: the state between the two is too short to be seen.
    sqlx::query(
        "insert into cell (id, zone, memory_mb, disk_mb, slots) values (gen_random_uuid(), 'z1', 65536, 65536, 99)",
    )
    .execute(&controller.database.pool)
    .await
    .expect("a cell");
    sqlx::query(
        "insert into assignment (id, group_id, app_id, index, spec, kind, cell, slot, seq, observed, crashes)
         select gen_random_uuid(), p.guid, p.app_guid, i, p.spec, 'lrp', c.id, i, 1, 'starting',
                case when i = 0 then 2 end
         from process p cross join generate_series(0, 1) i cross join cell c
         where p.app_guid::text = $1 and p.type = 'web'",
    )
    .bind(&app)
    .execute(&controller.database.pool)
    .await
    .expect("instances");
    let starting = rows().await;
    let of = |index: usize| (starting[index]["state"].as_str(), starting[index].get("crashes").cloned());
    assert_eq!((of(0), of(1)), ((Some("STARTING"), Some(json!(2))), (Some("STARTING"), None)));
    let (_, listed) = admin.get(&format!("/v3/processes?app_guids={app}&types=web&embed=process_instances")).await;
    let listed = &listed["resources"][0]["process_instances"];
    assert_eq!((&listed[0]["crashes"], listed[1].get("crashes")), (&json!(2), None), "lists say it as well: {listed}");
    sqlx::query("delete from assignment").execute(&controller.database.pool).await.expect("gone");
    scale(0).await;
    assert!(rows().await.is_empty());
    scale(2).await;
    assert_eq!(admin.act(&format!("/v3/apps/{app}/actions/stop")).await.0, StatusCode::OK);
    assert!(rows().await.iter().all(|row| row["state"] == "DOWN"));
}

/// `cf org` and `cf space` follow these wherever they lead.
#[tokio::test]
async fn an_unset_relationship_is_there_and_empty() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    for path in [
        format!("/v3/organizations/{org}/relationships/default_isolation_segment"),
        format!("/v3/spaces/{space}/relationships/isolation_segment"),
    ] {
        let (status, body) = admin.get(&path).await;
        assert_eq!((status, body.get("data")), (StatusCode::OK, Some(&Value::Null)), "{path}: {body}");
    }
    let (_, org) = admin.get(&format!("/v3/organizations/{org}")).await;
    let quota = org["relationships"]["quota"]["data"]["guid"].as_str().expect("every organization has a quota");
    assert_eq!(admin.get(&format!("/v3/organization_quotas/{quota}")).await.0, StatusCode::OK);
    let (status, page) = admin.get("/v3/service_route_bindings?include=service_instance&route_guids=x").await;
    assert_eq!((status, &page["resources"]), (StatusCode::OK, &json!([])), "{page}");
}

/// The client's decoder ends at the first member that it does not know.
#[tokio::test]
async fn log_envelopes_hold_what_the_decoder_knows_and_nothing_else() {
    let controller = TestController::start().await;
    let client = controller.user_with("dora", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let read = async |client: &TestClient, query: &str| client.get(&format!("/api/v1/read/{app}?{query}")).await;
    let recent = "descending=true&envelope_types=LOG&limit=1000&start_time=-6795364578871345152";
    // The oldest line is the API's own.
    let (_, body) = read(&client, recent).await;
    let mut first = body["envelopes"]["batch"].as_array().and_then(|batch| batch.last()).expect("a line").clone();
    let at = first["timestamp"].take();
    assert!(at.as_str().is_some_and(|at| at.parse::<i64>().is_ok()), "{at}");
    let text = STANDARD.encode(format!("Created app with guid {app}"));
    assert_eq!(
        first,
        json!({
            "timestamp": null, "source_id": app, "instance_id": "0", "deprecated_tags": {},
            "tags": { "source_type": "API", "instance_id": "0", "origin": "cloud_controller", "app_name": "web" },
            "log": { "payload": text, "type": "OUT" },
        })
    );
    let recent = &format!("{recent}&end_time=1000");
    assert_eq!(read(&client, recent).await, (StatusCode::OK, json!({ "envelopes": { "batch": [] } })));
    let tag = |name: &str, value: &str| v1::EnvVar { name: name.to_owned(), value: value.to_owned() };
    controller.cells.lines.lock().expect("lock").push(v1::LogLine {
        unix_ns: 7,
        text: "hello\n".into(),
        source_type: "APP/PROC/WEB".into(),
        instance_id: "0".into(),
        tags: vec![tag("process_type", "web"), tag("app_name", "web")],
        ..v1::LogLine::default()
    });
    assert_eq!(client.patch(&format!("/v3/apps/{app}"), json!({ "name": "renamed" })).await.0, StatusCode::OK);
    let (_, body) = read(&client, recent).await;
    assert_eq!(
        body["envelopes"]["batch"],
        json!([{
            "timestamp": "7", "source_id": app, "instance_id": "0", "deprecated_tags": {},
            "tags": {
                "source_type": "APP/PROC/WEB", "instance_id": "0", "process_type": "web", "origin": "rep",
                "app_name": "renamed",
            },
            "log": { "payload": "aGVsbG8=", "type": "OUT" },
        }])
    );
    let stranger = controller.user("stranger").await;
    assert_eq!(read(&stranger, recent).await.0, StatusCode::NOT_FOUND);
}

/// A decoded archive would be saved under the name of the encoded one.
#[tokio::test]
async fn archives_are_downloaded_packed() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "web").await;
    let (_, droplet) = admin.get(&format!("/v3/apps/{app}/droplets/current")).await;
    let path = format!("/v3/droplets/{}/download", droplet["guid"].as_str().expect("a guid"));
    let request = admin.request(Method::GET, &path).header("accept-encoding", "gzip, zstd");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("content-encoding"));
    assert!(response.bytes().await.expect("bytes").starts_with(&[0x1f, 0x8b]), "it is still packed");
}

/// `cf` stops showing the log as soon as it hears of the end, and shows no line younger than two seconds.
#[tokio::test]
async fn cf_hears_later_than_others_that_a_build_failed() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let app = controller.pushed(&admin, "web").await;
    let guid = build(&admin, &ready_package(&admin, &app).await).await;
    // As of a clock that is ahead: how long the test took to come here does not count.
    sqlx::query("update build set state = 'FAILED', error = 'StagingError - no', updated_at = now() + interval '1 hour' where guid = $1::uuid")
        .bind(&guid)
        .execute(&controller.database.pool)
        .await
        .expect("a failed build");
    let asked = |agent: &str| {
        let request = admin.request(Method::GET, &format!("/v3/builds/{guid}")).header("user-agent", agent);
        async move { request.send().await.expect("an answer").json::<Value>().await.expect("a build") }
    };
    let cf = tokio::spawn(asked("cf/8.18.4 (go1.25; amd64 linux)"));
    for _ in 0..5 {
        assert_eq!(asked("slipway/0.1.0").await["state"], "FAILED");
    }
    assert!(!cf.is_finished(), "five others were told first");
    assert_eq!(cf.await.expect("told")["error"], "StagingError - no");
}
