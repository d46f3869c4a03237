//! What does not fit a quota or any cell: refused with the figures, nothing changed.

use serde_json::json;
use slipway_controller::config::Limits;
use uuid::Uuid;

use crate::support::apps::{action, app_of, manifest, ready_package, refused};
use crate::support::{TestClient, TestController};

async fn execute(controller: &TestController, statement: &'static str) {
    sqlx::query(statement).execute(&controller.database.pool).await.expect(statement);
}

async fn web(client: &TestClient, app: &str) -> (i64, i64, i64) {
    let (_, process) = client.get(&format!("/v3/apps/{app}/processes/web")).await;
    let figure = |name: &str| process[name].as_i64().unwrap_or_else(|| panic!("{name} in {process}"));
    (figure("instances"), figure("memory_in_mb"), figure("disk_in_mb"))
}

#[tokio::test]
async fn exceeding_the_organization_quota_is_refused_with_figures() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let first = controller.pushed(&client, "first").await;
    let second = controller.pushed(&client, "second").await;
    execute(&controller, "update organization_quota set total_memory_in_mb = 256, total_instances = 3").await;
    let scale = |app: &str| format!("/v3/apps/{app}/processes/web/actions/scale");

    // 64 MiB of the other app, and 2 × 128 of this one.
    let wish = json!({ "instances": 2, "memory_in_mb": 128 });
    let texts = ["organization \"dev\"", "256 MiB of memory", "64 MiB are in use", "256 MiB are asked for"];
    refused(&client.post(&scale(&first), wish).await, 422, &texts);
    let texts = ["allows 3 instances:", "1 are in use", "3 are asked for"];
    refused(&client.post(&scale(&first), json!({ "instances": 3, "memory_in_mb": 8 })).await, 422, &texts);
    let texts = ["asks for 512 MiB", "allows 256 MiB"];
    refused(&client.post(&scale(&first), json!({ "memory_in_mb": 512 })).await, 422, &texts);
    assert_eq!(web(&client, &first).await, (1, 64, 128), "nothing of it was kept");

    // A stopped app may ask for what it cannot start with.
    assert_eq!(action(&client, &second, "stop").await, "STOPPED");
    let (status, body) = client.post(&scale(&second), json!({ "instances": 4, "memory_in_mb": 64 })).await;
    assert_eq!(status, 202, "{body}");
    let start = format!("/v3/apps/{second}/actions/start");
    refused(&client.act(&start).await, 422, &["256 MiB of memory", "64 MiB are in use", "256 MiB are asked for"]);
    let (_, app) = client.get(&format!("/v3/apps/{second}")).await;
    assert_eq!(app["state"], "STOPPED");

    let tasks = format!("/v3/apps/{first}/tasks");
    let task = json!({ "command": "true", "memory_in_mb": 200 });
    refused(&client.post(&tasks, task).await, 422, &["256 MiB", "64 MiB are in use", "200 MiB are asked for"]);
    assert_eq!(client.get(&tasks).await.1["pagination"]["total_results"], 0);
    let package = ready_package(&client, &first).await;
    let build = json!({ "package": { "guid": package } });
    refused(&client.post("/v3/builds", build).await, 422, &["The build asks for 1024 MiB", "256 MiB"]);
}

#[tokio::test]
async fn exceeding_the_space_quota_is_refused_with_figures() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    execute(
        &controller,
        "with q as (insert into space_quota (guid, org_guid, name, total_memory_in_mb, per_process_memory_in_mb,
                                             total_instances)
                    select gen_random_uuid(), org_guid, 'small', 128, 100, 2 from space returning guid)
         update space set quota_guid = q.guid from q",
    )
    .await;
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let texts = ["space \"dev\"", "allows 2 instances:", "3 are asked for"];
    refused(&client.post(&scale, json!({ "instances": 3, "memory_in_mb": 8 })).await, 422, &texts);
    let texts = ["space \"dev\"", "allows 128 MiB", "180 MiB are asked for"];
    refused(&client.post(&scale, json!({ "instances": 2, "memory_in_mb": 90 })).await, 422, &texts);
    refused(&client.post(&scale, json!({ "memory_in_mb": 101 })).await, 422, &["101 MiB", "allows 100 MiB"]);
    let (_, space) = controller.dev().await;
    let text = "applications: [{name: web, memory: 101M}]";
    refused(&client.send(manifest(&client, space, text)).await, 422, &["101 MiB", "allows 100 MiB"]);
    assert_eq!(web(&client, &app).await, (1, 64, 128), "nothing of it was kept");
    assert_eq!(client.post(&scale, json!({ "instances": 2 })).await.0, 202);
}

#[tokio::test]
async fn limits_above_every_cell_s_capacity_are_refused_with_figures() {
    let controller = TestController::with_limits(Limits { maximum_app_disk_mb: 1 << 20, ..Limits::default() }).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    for (memory_mb, disk_mb, state) in
        [(2048, 4096, "connected"), (1024, 8192, "connected"), (1 << 20, 1 << 20, "lost")]
    {
        sqlx::query("insert into cell (id, zone, memory_mb, disk_mb, slots, state) values ($1, 'z', $2, $3, 10, $4)")
            .bind(Uuid::new_v4())
            .bind(i64::from(memory_mb))
            .bind(i64::from(disk_mb))
            .bind(state)
            .execute(&controller.database.pool)
            .await
            .expect("a cell");
    }
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let texts = ["4096 MiB of memory", "the largest cell has 2048 MiB"];
    refused(&client.post(&scale, json!({ "memory_in_mb": 4096 })).await, 422, &texts);
    let texts = ["9000 MiB of disk", "the largest cell has 8192 MiB"];
    refused(&client.post(&scale, json!({ "disk_in_mb": 9000 })).await, 422, &texts);
    let text = "applications: [{name: other, memory: 64G}]";
    refused(&client.send(manifest(&client, space, text)).await, 422, &["65536 MiB", "2048 MiB"]);
    let text = "applications: [{name: other, disk_quota: 9000M}]";
    refused(&client.send(manifest(&client, space, text)).await, 422, &["9000 MiB", "8192 MiB"]);
    assert_eq!(client.get("/v3/apps").await.1["pagination"]["total_results"], 1, "no other app was made");
    let task = json!({ "command": "true", "disk_in_mb": 9000 });
    refused(&client.post(&format!("/v3/apps/{app}/tasks"), task).await, 422, &["9000 MiB", "8192 MiB"]);
    let other = app_of(&client, space, "other", "").await;
    let package = ready_package(&client, &other).await;
    let build = json!({ "package": { "guid": package }, "staging_memory_in_mb": 4096 });
    refused(&client.post("/v3/builds", build).await, 422, &["4096 MiB", "2048 MiB"]);
    assert_eq!(web(&client, &app).await, (1, 64, 128), "nothing of it was kept");
}

/// An app that is given less than any cell can run it with would be stopped for nothing.
#[tokio::test]
async fn too_small_limits_are_refused_with_figures() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    let (scale, tasks) = (format!("/v3/apps/{app}/processes/web/actions/scale"), format!("/v3/apps/{app}/tasks"));
    let memory = "Memory must be at least 4 MiB, not 2 MiB: with less no program starts";
    let disk = "Disk must be at least 4 MiB, not 3 MiB: with less no program can write a file";
    refused(&client.post(&scale, json!({ "memory_in_mb": 2 })).await, 422, &[memory]);
    refused(&client.post(&scale, json!({ "disk_in_mb": 3 })).await, 422, &[disk]);
    for value in [0, -1] {
        let text = format!("Memory in mb must be greater than 0, not {value}");
        refused(&client.post(&scale, json!({ "memory_in_mb": value })).await, 422, &[&text]);
        refused(&client.post(&tasks, json!({ "command": "true", "memory_in_mb": value })).await, 422, &[&text]);
    }
    let most = "Memory in mb must be at most 2147483647, not 2147483648";
    refused(&client.post(&scale, json!({ "memory_in_mb": 1_i64 << 31 })).await, 422, &[most]);
    refused(&client.post(&tasks, json!({ "command": "true", "memory_in_mb": 2 })).await, 422, &[memory]);
    refused(&client.post(&tasks, json!({ "command": "true", "disk_in_mb": 3 })).await, 422, &[disk]);
    let deployment =
        json!({ "relationships": { "app": { "data": { "guid": app } } }, "options": { "memory_in_mb": 2 } });
    refused(&client.post("/v3/deployments", deployment).await, 422, &[memory]);
    for (key, text) in [
        ("memory: 2M", "For application 'web': Memory must be at least 4M, not \"2M\""),
        ("disk_quota: 3M", "For application 'web': Disk quota must be at least 4M, not \"3M\""),
    ] {
        let asked = format!("applications: [{{name: web, {key}}}]");
        refused(&client.send(manifest(&client, space, &asked)).await, 422, &[text]);
    }
    let package = ready_package(&client, &app).await;
    let build = json!({ "package": { "guid": package }, "staging_memory_in_mb": 2 });
    refused(&client.post("/v3/builds", build).await, 422, &["Staging memory must be at least 4 MiB, not 2 MiB"]);
    assert_eq!(web(&client, &app).await, (1, 64, 128), "nothing of it was kept");
    assert_eq!(client.post(&scale, json!({ "memory_in_mb": 4, "disk_in_mb": 4 })).await.0, 202);

    // What was given less before can be read and scaled.
    execute(&controller, "update process set memory_in_mb = 2, disk_in_mb = 1").await;
    assert_eq!(client.post(&scale, json!({ "instances": 2 })).await.0, 202);
    assert_eq!(web(&client, &app).await, (2, 2, 1));
}

/// Disk is placed as it is asked for: what one instance, task or build may have is bounded, whatever the cells have.
#[tokio::test]
async fn one_instance_has_so_much_disk_and_not_more() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let text = "disk_quota too much disk requested (requested 2049 MB - must be less than 2048 MB)";
    refused(&client.post(&scale, json!({ "disk_in_mb": 2049 })).await, 422, &[text]);
    let manifest_text = "applications: [{name: web, disk_quota: 2049M}]";
    refused(&client.send(manifest(&client, space, manifest_text)).await, 422, &[text]);
    assert_eq!(web(&client, &app).await, (1, 64, 128), "nothing of it was kept");
    let task = json!({ "command": "true", "disk_in_mb": 2049 });
    let text = "Cannot request disk_in_mb greater than 2048";
    refused(&client.post(&format!("/v3/apps/{app}/tasks"), task).await, 422, &[text]);
    let deployment = json!({
        "relationships": { "app": { "data": { "guid": app } } }, "options": { "disk_in_mb": 2049 },
    });
    refused(&client.post("/v3/deployments", deployment).await, 422, &["must be less than 2048 MB"]);
    // A build has 4096 MiB without being asked.
    let package = ready_package(&client, &app).await;
    let build = |disk: i64| json!({ "package": { "guid": package }, "staging_disk_in_mb": disk });
    refused(&client.post("/v3/builds", build(4097)).await, 422, &["4097 is greater than 4096"]);
    assert_eq!(client.post("/v3/builds", build(4096)).await.0, 201);
    assert_eq!(client.post(&scale, json!({ "disk_in_mb": 2048 })).await.0, 202);
}

#[tokio::test]
async fn one_organization_leaves_room_on_the_cells_for_the_others() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    execute(
        &controller,
        "insert into cell (id, zone, memory_mb, disk_mb, slots, state)
         select gen_random_uuid(), 'z', 100000, 1000, 10, 'connected' from generate_series(1, 2)",
    )
    .await;
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    // 15 instances of 128 MiB: all that there is, and nobody else is there.
    assert_eq!(client.post(&scale, json!({ "instances": 15 })).await.0, 202);
    execute(
        &controller,
        "insert into organization (guid, name, quota_guid) select gen_random_uuid(), 'other', guid from organization_quota",
    )
    .await;
    let texts = ["\"dev\" may use 1500 MiB of disk, 75 % of the 2000 MiB", "2048 MiB are asked for"];
    refused(&client.post(&scale, json!({ "instances": 16 })).await, 422, &texts);
    assert_eq!(action(&client, &app, "restart").await, "STARTED", "what ran before goes on");
    assert_eq!(client.post(&scale, json!({ "instances": 11 })).await.0, 202);
    refused(&client.post(&scale, json!({ "instances": 12 })).await, 422, &["may use 1500 MiB of disk"]);
    // Builds and tasks count too.
    let task = json!({ "command": "true", "memory_in_mb": 64, "disk_in_mb": 128 });
    refused(&client.post(&format!("/v3/apps/{app}/tasks"), task).await, 422, &["may use 1500 MiB of disk"]);
}

/// Apps of an isolated space run on the cells of its segment only: the largest of the others says nothing.
#[tokio::test]
async fn limits_above_every_cell_of_the_segment_are_refused_with_figures() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let admin = controller.admin().await;
    let app = controller.pushed(&client, "web").await;
    let (org, space) = controller.dev().await;
    for (memory_mb, segment) in [(2048, None), (1024, Some("secure"))] {
        sqlx::query("insert into cell (id, zone, memory_mb, disk_mb, slots, isolation_segment) values ($1, 'z', $2, $2, 10, $3)")
            .bind(Uuid::new_v4())
            .bind(i64::from(memory_mb))
            .bind(segment)
            .execute(&controller.database.pool)
            .await
            .expect("a cell");
    }
    let (_, made) = admin.post("/v3/isolation_segments", json!({ "name": "Secure" })).await;
    let segment = made["guid"].as_str().expect("a guid");
    let entitle = format!("/v3/isolation_segments/{segment}/relationships/organizations");
    assert_eq!(admin.post(&entitle, json!({ "data": [{ "guid": org }] })).await.0, 200);
    let scale = format!("/v3/apps/{app}/processes/web/actions/scale");
    let deploy = |memory: u32| json!({ "options": { "memory_in_mb": memory }, "relationships": { "app": { "data": { "guid": app } } } });
    let texts = ["3000 MiB of memory", "but the largest cell has 2048 MiB"];
    refused(&client.post("/v3/deployments", deploy(3000)).await, 422, &texts);

    let of_space = format!("/v3/spaces/{space}/relationships/isolation_segment");
    assert_eq!(admin.patch(&of_space, json!({ "data": { "guid": segment } })).await.0, 200);
    let texts = ["1500 MiB of memory", "the largest cell of the isolation segment \"Secure\" has 1024 MiB"];
    refused(&client.post("/v3/deployments", deploy(1500)).await, 422, &texts);
    refused(&client.post(&scale, json!({ "memory_in_mb": 1500 })).await, 422, &texts);
    let task = json!({ "command": "true", "memory_in_mb": 1500 });
    refused(&client.post(&format!("/v3/apps/{app}/tasks"), task).await, 422, &texts);
    assert_eq!(client.get("/v3/deployments").await.1["pagination"]["total_results"], 0);
    assert_eq!(web(&client, &app).await, (1, 64, 128), "nothing of it was kept");

    // The organization's default, from which the space can step back into the shared one.
    assert_eq!(admin.patch(&of_space, json!({ "data": null })).await.0, 200);
    let default = format!("/v3/organizations/{org}/relationships/default_isolation_segment");
    assert_eq!(admin.patch(&default, json!({ "data": { "guid": segment } })).await.0, 200);
    refused(&client.post("/v3/deployments", deploy(1500)).await, 422, &texts);
    assert_eq!(admin.patch(&default, json!({ "data": null })).await.0, 200);
    let (status, body) = client.post("/v3/deployments", deploy(1500)).await;
    assert_eq!(status, 201, "{body}");
}
