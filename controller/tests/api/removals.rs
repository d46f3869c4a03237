//! Deleting twice: one job, one event.

use serde_json::{Value, json};

use crate::support::{TestClient, TestController};

async fn made(admin: &TestClient, kind: &str, body: Value) -> String {
    let (status, body) = admin.post(&format!("/v3/{kind}"), body).await;
    assert_eq!(status, 201, "{body}");
    body["guid"].as_str().expect("a guid").to_owned()
}

/// The job that a DELETE is answered with.
async fn delete(admin: &TestClient, path: &str) -> String {
    let response = admin.request(reqwest::Method::DELETE, path).send().await.expect("an answer");
    assert_eq!(response.status(), 202, "{path}");
    response.headers()["location"].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_delete_that_is_sent_again_is_the_same() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let pool = &controller.database.pool;
    let (org, _) = controller.dev().await;
    let of_org = json!({ "organization": { "data": { "guid": org } } });
    for (kind, table, event, body) in [
        ("security_groups", "security_group", "audit.security_group.delete", json!({ "name": "x" })),
        ("organization_quotas", "organization_quota", "audit.organization_quota.delete", json!({ "name": "x" })),
        ("space_quotas", "space_quota", "audit.space_quota.delete", json!({ "name": "x", "relationships": of_org })),
        ("buildpacks", "buildpack", "audit.buildpack.delete", json!({ "name": "x" })),
    ] {
        let guid = made(&admin, kind, body).await;
        let path = format!("/v3/{kind}/{guid}");
        // The row is held, so that the job lasts.
        let mut held = slipway_controller::store::begin(pool).await.expect("a transaction");
        sqlx::query(sqlx::AssertSqlSafe(format!("select 1 from {table} where guid::text = $1 for update")))
            .bind(&guid)
            .execute(&mut *held)
            .await
            .expect("held");
        let jobs = futures::future::join_all((0..5).map(|_| delete(&admin, &path))).await;
        assert!(jobs.iter().all(|job| *job == jobs[0]), "{kind}: {jobs:?}");
        let events: i64 = sqlx::query_scalar("select count(*) from event where type = $1")
            .bind(event)
            .fetch_one(pool)
            .await
            .expect("a number");
        assert_eq!(events, 1, "{kind}");
        held.rollback().await.expect("let go");
    }
}
