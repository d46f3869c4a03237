//! What an operator sets for everybody: variable groups, feature flags, stacks; and the record of usage.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::apps::{action, app_of, manifest, ready_package, refused};
use crate::support::{TestClient, TestController};

#[tokio::test]
async fn variable_groups_reach_every_app() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let running = "/v3/environment_variable_groups/running";
    assert_eq!(client.get(running).await.1["var"], json!({}));
    let wish = json!({ "var": { "ALL": "yes", "GONE": "soon" } });
    refused(&client.patch(running, wish.clone()).await, 403, &[]);
    let (status, body) = admin.patch(running, wish).await;
    assert_eq!((status.as_u16(), &body["var"]["ALL"]), (200, &json!("yes")), "{body}");
    assert_eq!(body["name"], "running");
    let (_, body) = admin.patch(running, json!({ "var": { "GONE": null } })).await;
    assert_eq!(body["var"], json!({ "ALL": "yes" }));
    for (var, text) in [
        (json!({ "VCAP_X": "1" }), "Var cannot start with VCAP_"),
        (json!({ "PORT": "1" }), "Var cannot set PORT"),
        (json!({ "N": 1 }), "Non-string value in environment variable for key 'N', value '1'"),
    ] {
        refused(&admin.patch(running, json!({ "var": var })).await, 422, &[text]);
    }
    refused(
        &admin.get("/v3/environment_variable_groups/walking").await,
        404,
        &["Environment variable group not found"],
    );
    admin.patch("/v3/environment_variable_groups/staging", json!({ "var": { "BUILD": "fast" } })).await;
    let (_, env) = client.get(&format!("/v3/apps/{app}/env")).await;
    assert_eq!((&env["running_env_json"]["ALL"], &env["staging_env_json"]["BUILD"]), (&json!("yes"), &json!("fast")));
    // At rest it is sealed.
    let stored: Vec<u8> = sqlx::query_scalar("select var from environment_variable_group where name = 'running'")
        .fetch_one(&controller.database.pool)
        .await
        .expect("stored");
    assert!(!String::from_utf8_lossy(&stored).contains("yes"));
}

async fn switch(admin: &TestClient, flag: &str, enabled: bool, message: Option<&str>) {
    let body = json!({ "enabled": enabled, "custom_error_message": message });
    let (status, body) = admin.patch(&format!("/v3/feature_flags/{flag}"), body).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["enabled"], &body["custom_error_message"]), (&json!(enabled), &json!(message)));
}

#[tokio::test]
async fn routes_choose_hash_while_the_flag_is_on() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let (_, domains) = admin.get("/v3/domains").await;
    let one = |guid: &Value| json!({ "data": { "guid": guid } });
    let to = json!({ "space": one(&json!(space)), "domain": one(&domains["resources"][0]["guid"]) });
    let options = json!({ "loadbalancing": "hash", "hash_header": "x-who" });
    let body = |host: &str| json!({ "host": host, "relationships": to, "options": options });
    let text =
        "applications:\n- name: a\n  routes:\n  - {route: m.apps.slipway.test, options: {loadbalancing: hash}}\n";
    let (status, route) = admin.post("/v3/routes", body("a")).await;
    assert_eq!((status.as_u16(), &route["options"]["loadbalancing"]), (201, &json!("hash")), "{route}");
    switch(&admin, "hash_based_routing", false, None).await;
    refused(&admin.post("/v3/routes", body("b")).await, 422, &["hash_based_routing", "'least-connection'"]);
    let path = format!("/v3/routes/{}", route["guid"].as_str().expect("a guid"));
    refused(&admin.patch(&path, json!({ "options": options })).await, 422, &["hash_based_routing"]);
    let other = json!({ "options": { "loadbalancing": "round-robin" } });
    assert_eq!(admin.patch(&path, other).await.0, 200);
    refused(&admin.send(manifest(&admin, space, text)).await, 422, &["hash_based_routing", "'m.apps.slipway.test'"]);
}

#[tokio::test]
async fn flags_that_are_off_refuse_everybody_but_administrators() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    refused(&client.patch("/v3/feature_flags/app_scaling", json!({ "enabled": false })).await, 403, &[]);
    refused(
        &admin.patch("/v3/feature_flags/flying", json!({ "enabled": false })).await,
        404,
        &["Feature flag not found"],
    );

    let (_, domains) = client.get("/v3/domains").await;
    let route = json!({ "host": "other", "relationships": {
        "space": { "data": { "guid": space } }, "domain": { "data": { "guid": domains["resources"][0]["guid"] } } } });
    let files = json!({ "resources": [{ "path": "a", "mode": "644", "size_in_bytes": 1,
        "checksum": { "value": "da39a3ee5e6b4b0d3255bfef95601890afd80709" } }] });
    let cases: [(&str, Method, String, Value); 6] = [
        ("app_scaling", Method::POST, format!("/v3/apps/{app}/processes/web/actions/scale"), json!({ "instances": 1 })),
        ("task_creation", Method::POST, format!("/v3/apps/{app}/tasks"), json!({ "command": "true" })),
        ("route_creation", Method::POST, "/v3/routes".to_owned(), route),
        ("app_bits_upload", Method::POST, "/v3/resource_matches".to_owned(), files.clone()),
        ("env_var_visibility", Method::GET, format!("/v3/apps/{app}/env"), Value::Null),
        (
            "space_developer_env_var_visibility",
            Method::GET,
            format!("/v3/apps/{app}/environment_variables"),
            Value::Null,
        ),
    ];
    for (flag, method, path, body) in cases {
        switch(&admin, flag, false, None).await;
        let ask = |client: &TestClient| {
            let request = client.request(method.clone(), &path);
            if body.is_null() { request } else { request.json(&body) }
        };
        let answer = client.send(ask(&client)).await;
        refused(&answer, 403, &[&format!("Feature Disabled: {flag}")]);
        assert_eq!(answer.1["errors"][0]["code"], 330_002, "{flag}");
        assert_eq!(answer.1["errors"][0]["title"], "CF-FeatureDisabled");
        switch(&admin, flag, false, Some("Ask the platform team.")).await;
        refused(&client.send(ask(&client)).await, 403, &["Feature Disabled: Ask the platform team."]);
        let (status, body) = admin.send(ask(&admin)).await;
        assert!(status.is_success(), "{flag} binds administrators: {status} {body}");
        switch(&admin, flag, true, None).await;
        // The administrator has made the route meanwhile.
        if flag != "route_creation" {
            let (status, body) = client.send(ask(&client)).await;
            assert!(status.is_success(), "{flag}: {status} {body}");
        }
    }
    switch(&admin, "resource_matching", false, None).await;
    let (status, body) = client.post("/v3/resource_matches", files).await;
    assert_eq!((status.as_u16(), &body["resources"]), (201, &json!([])));

    refused(&client.post("/v3/organizations", json!({ "name": "mine" })).await, 403, &[]);
    switch(&admin, "user_org_creation", true, None).await;
    assert_eq!(client.post("/v3/organizations", json!({ "name": "mine" })).await.0, 201);
}

#[tokio::test]
async fn a_stack_is_created_and_deleted_and_decides_about_builds() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    refused(&client.post("/v3/stacks", json!({ "name": "x" })).await, 403, &[]);
    let (status, made) = admin.post("/v3/stacks", json!({ "name": "plan9", "description": "From Bell Labs" })).await;
    assert_eq!((status.as_u16(), &made["state"]), (201, &json!("ACTIVE")), "{made}");
    refused(&admin.post("/v3/stacks", json!({ "name": "plan9" })).await, 422, &["Name must be unique"]);
    let bad = json!({ "name": "x", "state": "TIRED" });
    refused(
        &admin.post("/v3/stacks", bad).await,
        422,
        &["State must be one of ACTIVE, RESTRICTED, DEPRECATED, DISABLED"],
    );
    let path = format!("/v3/stacks/{}", made["guid"].as_str().expect("a guid"));
    let (status, body) = admin
        .patch(&path, json!({ "state": "DEPRECATED", "state_reason": "old", "metadata": { "labels": { "a": "b" } } }))
        .await;
    assert_eq!((status.as_u16(), &body["state_reason"]), (200, &json!("old")), "{body}");
    assert_eq!(client.get("/v3/stacks?label_selector=a%3Db").await.1["pagination"]["total_results"], 1);
    assert_eq!(client.get("/v3/stacks?default=true").await.1["resources"][0]["name"], "debian12");
    assert_eq!(admin.delete(&path).await.0, 204);
    assert_eq!(admin.get(&path).await.0, 404);

    crate::support::apps::catalogue(&controller.database.pool).await;
    let app = app_of(&client, space, "web", "").await;
    let (_, found) = admin.get("/v3/stacks?names=debian12").await;
    let stack = format!("/v3/stacks/{}", found["resources"][0]["guid"].as_str().expect("a guid"));
    refused(
        &admin.delete(&stack).await,
        422,
        &["Cannot delete stack 'debian12' because apps are currently using the stack."],
    );
    assert_eq!(client.get(&format!("{stack}/apps")).await.1["resources"][0]["name"], "web");
    let package = ready_package(&client, &app).await;
    let build = || async { client.post("/v3/builds", json!({ "package": { "guid": package } })).await };
    let request =
        admin.request(Method::PATCH, &stack).json(&json!({ "state": "RESTRICTED", "state_reason": "Use t." }));
    let response = request.send().await.expect("an answer");
    let warning = response.headers()["x-cf-warnings"].to_str().expect("text").to_owned();
    assert!(warning.starts_with("Changing+state+on+the+default+stack+%27debian12%27"), "{warning}");
    let text = "ERROR: Staging failed. The stack 'debian12' is 'RESTRICTED' and cannot be used for staging. Use t.";
    refused(&build().await, 422, &[text]);
    admin.patch(&stack, json!({ "state": "DEPRECATED", "state_reason": null })).await;
    let request = client.request(Method::POST, "/v3/builds").json(&json!({ "package": { "guid": package } }));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    let warning = response.headers()["x-cf-warnings"].to_str().expect("text").to_owned();
    assert!(warning.starts_with("WARNING%3A+The+stack+%27debian12%27+is+%27DEPRECATED%27"), "{warning}");
}

#[tokio::test]
async fn manifests_make_routes_only_where_they_may() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (org, space) = controller.dev().await;
    let text = |name: &str| format!("applications: [{{name: {name}, default-route: true}}]");
    switch(&admin, "route_creation", false, None).await;
    let answer = client.send(manifest(&client, space, &text("one"))).await;
    refused(&answer, 403, &["Feature Disabled: route_creation"]);
    switch(&admin, "route_creation", true, None).await;
    assert_eq!(client.send(manifest(&client, space, &text("one"))).await.0, 202);
    let (_, quota) =
        admin.post("/v3/organization_quotas", json!({ "name": "tight", "routes": { "total_routes": 1 } })).await;
    let apply =
        format!("/v3/organization_quotas/{}/relationships/organizations", quota["guid"].as_str().expect("a guid"));
    assert_eq!(admin.post(&apply, json!({ "data": [{ "guid": org }] })).await.0, 200);
    let answer = client.send(manifest(&client, space, &text("two"))).await;
    refused(&answer, 422, &["Routes quota exceeded for organization 'dev'."]);
    assert_eq!(client.send(manifest(&client, space, &text("one"))).await.0, 202, "what is there stays");
    assert_eq!(client.get("/v3/apps").await.1["pagination"]["total_results"], 1, "nothing of the other was kept");
}

async fn usage(admin: &TestClient, after: Option<&str>) -> Vec<Value> {
    let query = after.map(|guid| format!("?after_guid={guid}")).unwrap_or_default();
    let (status, body) = admin.get(&format!("/v3/app_usage_events{query}")).await;
    assert_eq!(status, 200, "{body}");
    body["resources"].as_array().expect("a list").clone()
}

/// State before and after, process type, instances.
fn short(event: &Value) -> (String, String, String, i64) {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let state = &event["state"];
    let instances = event["instance_count"]["current"].as_i64().unwrap_or(-1);
    (text(&state["previous"]), text(&state["current"]), text(&event["process"]["type"]), instances)
}

#[tokio::test]
async fn usage_is_recorded_wherever_it_changes() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let events = usage(&admin, None).await;
    let staged: Vec<_> =
        events.iter().map(|event| short(event).1).filter(|state| state.starts_with("STAGING")).collect();
    assert_eq!(staged, ["STAGING_STARTED", "STAGING_STOPPED"]);
    let set = events.iter().find(|event| short(event).1 == "BUILDPACK_SET").expect("what it was built with");
    let (_, buildpacks) = admin.get("/v3/buildpacks?names=nodejs_buildpack").await;
    let buildpack = json!({ "guid": buildpacks["resources"][0]["guid"], "name": "nodejs_buildpack" });
    assert_eq!((&set["buildpack"], &set["app"]["name"]), (&buildpack, &json!("web")), "{set}");
    let last = events.last().expect("events");
    assert_eq!(last["app"]["name"], "web");
    let started = ("STOPPED".to_owned(), "STARTED".to_owned(), "web".to_owned(), 1);
    assert!(events.iter().any(|event| short(event) == started), "{events:?}");
    let since = last["guid"].as_str().expect("a guid").to_owned();

    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    assert_eq!(client.post(&scale, json!({ "instances": 2 })).await.0, 202);
    let (_, task) =
        client.post(&format!("/v3/apps/{app}/tasks"), json!({ "command": "true", "memory_in_mb": 32 })).await;
    assert_eq!(action(&client, &app, "stop").await, "STOPPED");
    let new = usage(&admin, Some(&since)).await;
    assert_eq!(short(&new[0]), ("STARTED".to_owned(), "STARTED".to_owned(), "web".to_owned(), 2));
    assert_eq!(new[0]["instance_count"]["previous"], 1);
    assert_eq!(new[0]["memory_in_mb_per_instance"], json!({ "current": 64, "previous": 64 }));
    assert_eq!((&new[1]["task"]["guid"], short(&new[1]).1), (&task["guid"], "TASK_STARTED".to_owned()));
    let stopped = ("STARTED".to_owned(), "STOPPED".to_owned(), "web".to_owned(), 2);
    assert!(new.iter().any(|event| short(event) == stopped), "{new:?}");

    assert_eq!(client.get("/v3/app_usage_events").await.1["pagination"]["total_results"], 0);
    assert_eq!(client.get(&format!("/v3/app_usage_events/{since}")).await.0, 404);
    assert_eq!(admin.get(&format!("/v3/app_usage_events/{since}")).await.1["guid"], since);
    let nobody = admin.get(&format!("/v3/app_usage_events?after_guid={}", uuid::Uuid::new_v4())).await;
    refused(&nobody, 422, &["After guid filter must be a valid app usage event guid."]);

    assert_eq!(action(&client, &app, "start").await, "STARTED");
    let purge = "/v3/app_usage_events/actions/destructively_purge_all_and_reseed";
    refused(&client.act(purge).await, 403, &[]);
    assert_eq!(admin.act(purge).await.0, 200);
    let anew = usage(&admin, None).await;
    assert!(anew.iter().all(|event| short(event).1 == "STARTED" && short(event).0 == "STARTED"), "{anew:?}");
    assert!(anew.iter().any(|event| short(event).3 == 2));
}

#[tokio::test]
async fn service_instances_are_counted_too() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let pool = &controller.database.pool;
    for statement in [
        "insert into service_instance (guid, space_guid, name, type) select $1, $2, 'db', 'managed'",
        "update service_instance set name = 'db2' where guid = $1 and space_guid = $2",
        "delete from service_instance where guid = $1 and space_guid = $2",
    ] {
        sqlx::query(statement).bind(uuid::Uuid::nil()).bind(space).execute(pool).await.expect(statement);
    }
    let (_, body) = admin.get("/v3/service_usage_events?service_instance_types=managed_service_instance").await;
    let seen: Vec<(&str, &str)> = body["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| {
            (event["state"].as_str().expect("a state"), event["service_instance"]["name"].as_str().expect("a name"))
        })
        .collect();
    assert_eq!(seen, [("CREATED", "db"), ("UPDATED", "db2"), ("DELETED", "db2")]);
    let purge = "/v3/service_usage_events/actions/destructively_purge_all_and_reseed";
    assert_eq!(admin.act(purge).await.0, 200);
    assert_eq!(admin.get("/v3/service_usage_events").await.1["pagination"]["total_results"], 0);
}

#[tokio::test]
async fn caches_of_all_apps_can_be_cleared() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let (app, other) = (controller.bare_app(space, "web").await, controller.bare_app(space, "other").await);
    for app in [app, other] {
        sqlx::query("update app set build_cache = $2, build_cache_size = 1 where guid = $1")
            .bind(app)
            .bind(vec![7_u8; 32])
            .execute(&controller.database.pool)
            .await
            .expect("a cache");
    }
    let links = admin.get(&format!("/v3/apps/{app}")).await.1["links"].clone();
    let path = format!("/v3/apps/{app}/actions/clear_buildpack_cache");
    assert!(links["clear_buildpack_cache"]["href"].as_str().expect("a link").ends_with(&path), "{links}");
    let job = admin.job(admin.request(Method::POST, &path)).await;
    assert_eq!((&job["state"], &job["operation"]), (&json!("COMPLETE"), &json!("app.clear_buildpack_cache")), "{job}");
    let with_cache: Vec<uuid::Uuid> = sqlx::query_scalar("select guid from app where build_cache is not null")
        .fetch_all(&controller.database.pool)
        .await
        .expect("apps");
    assert_eq!(with_cache, [other]);
    let job = admin.job(admin.request(Method::POST, "/v3/admin/actions/clear_buildpack_cache")).await;
    assert_eq!(
        (&job["state"], &job["operation"]),
        (&json!("COMPLETE"), &json!("admin.clear_buildpack_cache")),
        "{job}"
    );
    let left: i64 = sqlx::query_scalar("select count(*) from app where build_cache is not null")
        .fetch_one(&controller.database.pool)
        .await
        .expect("a count");
    assert_eq!(left, 0);
    let (status, body) = admin.get("/v3/admin/background_tasks").await;
    let tasks = body["resources"].as_array().expect("a list");
    let jobs = tasks.iter().find(|task| task["name"] == "jobs").expect("the task that runs jobs");
    assert_eq!((status.as_u16(), &jobs["period_in_seconds"], &jobs["last_error"]), (200, &json!(2.0), &Value::Null));
    assert!(jobs["runs"].as_u64() > Some(0) && jobs["last_run_at"].is_string(), "{jobs}");
    let (status, body) = admin.get("/v3/info/usage_summary").await;
    assert_eq!((status.as_u16(), &body["usage_summary"]["apps"]), (200, &json!(2)), "{body}");
    let (_, root) = admin.get("/").await;
    assert!(root["links"]["routing"]["href"].as_str().expect("a link").ends_with("/routing"));
    assert_eq!(admin.get("/routing/v1/router_groups").await.1, json!([]));
}
