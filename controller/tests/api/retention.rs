//! Rows that are over are removed when they are old, and no others.

use std::sync::Arc;

use serde_json::{Value, json};
use slipway_api_types::AssignmentId;
use slipway_controller::blobs::BlobDigest;
use slipway_controller::domain::outcomes;
use slipway_controller::store::Store;
use slipway_controller::store::stored::SETTLE_S;
use slipway_protocol::digest::sha256;
use sqlx::AssertSqlSafe;

use crate::support::apps::{
    build, build_result, droplet, package, ready_package, refused, upload, use_droplet, zip_of,
};
use crate::support::{TestClient, TestController};

#[tokio::test]
async fn finished_resources_are_retained_for_a_while() {
    let controller = TestController::start().await;
    let pool = &controller.database.pool;
    let run = async |sql: &str| sqlx::query(AssertSqlSafe(sql.to_owned())).execute(pool).await.expect(sql);
    for (name, age, spec_age) in [("old", "100 days", "2 days"), ("young", "20 days", "1 hour")] {
        run(&format!(
            "insert into job (guid, operation, state, updated_at)
             select gen_random_uuid(), '{name}.' || s, s, now() - interval '{age}'
             from unnest(array['COMPLETE', 'FAILED']) s"
        ))
        .await;
        run(&format!(
            "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name,
                                created_at)
             values (gen_random_uuid(), '{name}', '', '', '', '', '', '', now() - interval '{age}')"
        ))
        .await;
        run(&format!(
            "insert into spec (digest, kind, body, memory_mb, disk_mb, stack, created_at)
             select sha256(('{name}' || k)::bytea), 'lrp', '', 1, 1, '{name}', now() - interval '{spec_age}'
             from unnest(array['used', 'unused']) k"
        ))
        .await;
    }
    run("insert into job (guid, operation, state, updated_at)
         values (gen_random_uuid(), 'old.open', 'PROCESSING', now() - interval '100 days')")
    .await;
    run("insert into cell (id, zone, memory_mb, disk_mb, slots) values (gen_random_uuid(), 'z', 1, 1, 8)").await;
    run("insert into assignment (id, group_id, index, spec, kind, cell, slot, seq)
         select gen_random_uuid(), gen_random_uuid(), 0, sha256('oldused'), 'lrp', id, 1, 1 from cell limit 1")
    .await;
    Store::new(pool.clone(), Arc::default()).trim().await.expect("trimmed");
    let names = async |sql: &str| -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await.expect(sql)
    };
    let jobs =
        names("select operation from job where operation like 'old%' or operation like 'young%' order by 1").await;
    assert_eq!(jobs, ["old.open", "young.COMPLETE", "young.FAILED"]);
    assert_eq!(names("select type from event where type in ('old', 'young')").await, ["young"]);
    let specs = "select stack from spec where stack in ('old', 'young') order by 1";
    assert_eq!(names(specs).await, ["old", "young", "young"], "the old one that is assigned stays");
    let used = "select stack from spec s join assignment a on a.spec = s.digest";
    assert_eq!(names(used).await, ["old"]);
}

async fn states(client: &TestClient, app: &str, kind: &str) -> Vec<(String, bool)> {
    let (_, page) = client.get(&format!("/v3/apps/{app}/{kind}?order_by=created_at&per_page=50")).await;
    let checksum = |one: &Value| one["checksum"]["value"].is_string() || one["data"]["checksum"]["value"].is_string();
    let of = |one: &Value| (one["state"].as_str().expect("a state").to_owned(), checksum(one));
    page["resources"].as_array().expect("a list").iter().map(of).collect()
}

/// Pushes and builds `content`; the build and the digest of what it made.
async fn built(controller: &TestController, client: &TestClient, app: &str, content: &str) -> (String, BlobDigest) {
    let package = package(client, app).await;
    let (status, body) = upload(client, &package, &json!([]), Some(zip_of(&[("a", content.as_bytes())]))).await;
    assert_eq!(status, 200, "{body}");
    let build = build(client, &package).await;
    let blob = controller.put_blob(content.as_bytes()).await;
    let (id, result) = (build.parse().expect("a guid"), build_result(content.as_bytes()));
    outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(result), None)
        .await
        .expect("recorded");
    (build, blob)
}

#[tokio::test]
async fn versions_that_never_took_over_do_not_push_out_those_that_did() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (build, _) = built(&controller, &client, &app, "good").await;
    use_droplet(&client, &app, &build).await;
    // A restart of it that was given up says nothing against it.
    sqlx::query(
        "insert into deployment (guid, app_guid, status_value, status_reason, droplet_guid, previous_droplet_guid)
         select gen_random_uuid(), guid, 'FINALIZED', 'CANCELED', droplet_guid, droplet_guid from app where guid = $1::uuid",
    )
    .bind(app.parse::<uuid::Uuid>().expect("a guid"))
    .execute(&controller.database.pool)
    .await
    .expect("a deployment that was given up");
    let (build, _) = built(&controller, &client, &app, "better").await;
    use_droplet(&client, &app, &build).await;
    for number in 0..6 {
        built(&controller, &client, &app, &format!("bad {number}")).await;
        sqlx::query(
            "insert into deployment (guid, app_guid, status_value, status_reason, droplet_guid)
             select gen_random_uuid(), app_guid, 'FINALIZED', 'CANCELED', guid from droplet
             where app_guid = $1::uuid order by created_at desc limit 1",
        )
        .bind(app.parse::<uuid::Uuid>().expect("a guid"))
        .execute(&controller.database.pool)
        .await
        .expect("a deployment that was given up");
    }
    // What runs, the good one, the one in use, and of the bad ones the last four.
    let retained = ("STAGED".to_owned(), true);
    let gone = ("EXPIRED".to_owned(), false);
    let expected =
        [&retained, &retained, &retained, &gone, &gone, &retained, &retained, &retained, &retained].map(Clone::clone);
    assert_eq!(states(&client, &app, "droplets").await, expected);

    // Starts that came to nothing count as little as deployments.
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    for (content, serves) in [("good", true)].into_iter().chain([("bad", false); 6]) {
        let (build, _) = built(&controller, &client, &app, content).await;
        use_droplet(&client, &app, &build).await;
        let (status, body) = client.act(&format!("/v3/apps/{app}/actions/restart")).await;
        assert_eq!(status, 200, "{body}");
        if serves {
            sqlx::query("delete from revision_unserved").execute(&controller.database.pool).await.expect("it serves");
        }
    }
    let expected = [&retained, &retained, &gone, &gone, &retained, &retained, &retained, &retained].map(Clone::clone);
    assert_eq!(states(&client, &app, "droplets").await, expected, "the first two have served");
}

#[tokio::test]
async fn an_app_keeps_the_bits_of_its_last_pushes_and_of_what_is_in_use() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let mut droplets = Vec::new();
    for number in 0..7 {
        let (build, blob) = built(&controller, &client, &app, &format!("content {number}")).await;
        droplets.push(blob);
        if number == 0 {
            use_droplet(&client, &app, &build).await;
        }
    }
    // The first one runs, the second is the app's, five are the last ones.
    let retained = ("STAGED".to_owned(), true);
    let gone = ("EXPIRED".to_owned(), false);
    let found = states(&client, &app, "droplets").await;
    let expected =
        [&retained, &retained, &gone, &retained, &retained, &retained, &retained, &retained].map(Clone::clone);
    assert_eq!(found, expected);
    let retained = ("READY".to_owned(), true);
    let found = states(&client, &app, "packages").await;
    assert_eq!(
        found,
        [&gone, &retained, &gone, &retained, &retained, &retained, &retained, &retained].map(Clone::clone)
    );
    // Their blobs go when those who have just read of them had their time.
    let there = async |number: usize| controller.context.blobs.exists(&droplets[number]).await.expect("an answer");
    controller.context.blobs.sweep().await.expect("swept");
    assert!(there(1).await);
    sqlx::query("update blob set put_at = put_at - make_interval(secs => $1)")
        .bind(SETTLE_S)
        .execute(&controller.database.pool)
        .await
        .expect("settled");
    controller.context.blobs.sweep().await.expect("swept");
    assert!(!there(1).await && there(0).await && there(2).await);
    assert!(controller.context.blobs.exists(&sha256(&droplet())).await.expect("an answer"), "it runs");
    // What is gone cannot be used.
    let (_, page) = client.get(&format!("/v3/apps/{app}/droplets?order_by=created_at")).await;
    let expired = json!({ "data": { "guid": page["resources"][2]["guid"] } });
    let answer = client.patch(&format!("/v3/apps/{app}/relationships/current_droplet"), expired).await;
    refused(&answer, 422, &["is EXPIRED", "push the app again"]);
}

/// What runs may have to start again on another cell, long after somebody has deleted its droplet.
#[tokio::test]
async fn the_bits_of_a_deleted_droplet_stay_while_something_wanted_names_them() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let pool = &controller.database.pool;
    // Each look at them comes when whoever has just read of them has had their time.
    let there = async |digest: &[u8; 32]| {
        sqlx::query("update blob set put_at = put_at - make_interval(secs => $1)")
            .bind(SETTLE_S)
            .execute(pool)
            .await
            .expect("settled");
        controller.context.blobs.sweep().await.expect("swept");
        controller.context.blobs.exists(digest).await.expect("an answer")
    };
    let (_, current) = client.get(&format!("/v3/apps/{app}/droplets/current")).await;
    let first = sha256(&droplet());
    let gone = client.delete_job(&format!("/v3/droplets/{}", current["guid"].as_str().expect("a guid"))).await;
    assert_eq!(gone["state"], "COMPLETE", "{gone}");
    assert!(there(&first).await, "it runs");
    assert!(there(&first).await, "and goes on to run");

    // A deployment of another droplet, which is deleted while it goes on: both are wanted, the first if it is cancelled.
    let bits = b"another droplet";
    let second = controller.put_blob(bits).await;
    let next = build(&client, &ready_package(&client, &app).await).await;
    let id = next.parse().expect("a guid");
    outcomes::build_completed(&controller.context, AssignmentId::new(), id, 1, Some(build_result(bits)), None)
        .await
        .expect("recorded");
    let (_, next) = client.get(&format!("/v3/builds/{next}")).await;
    let droplet = &next["droplet"]["guid"];
    let body = json!({
        "droplet": { "guid": droplet }, "relationships": { "app": { "data": { "guid": app } } },
    });
    let (status, deployment) = client.post("/v3/deployments", body).await;
    assert_eq!(status, 201, "{deployment}");
    let gone = client.delete_job(&format!("/v3/droplets/{}", droplet.as_str().expect("a guid"))).await;
    assert_eq!(gone["state"], "COMPLETE", "{gone}");
    assert!(there(&first).await && there(&second).await);

    // What a stop and the end of a deployment write: nothing wants them any more.
    sqlx::query("update process set spec = null").execute(pool).await.expect("cleared");
    assert!(!there(&first).await && !there(&second).await);
}
