//! The platform's own trouble: in JSON too, with nothing of its inside in the words.

use serde_json::json;

use super::{Cases, expected};
use crate::support::TestController;

#[tokio::test]
async fn internal_errors_are_reported_without_internals() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'the disk is on fire'; end $$;
         create trigger refuse before insert on organization for each row execute function refuse()",
    )
    .execute(&controller.database.pool)
    .await
    .expect("a trigger");
    let mut cases = Cases::default();
    let unknown = expected(500, 10001, "UnknownError", "An unknown error occurred.");
    cases.add(&admin, ("POST", "/v3/organizations"), Some(json!({ "name": "x" })), unknown);
    cases.check().await;
    assert_eq!(admin.get("/v3/organizations").await.1["pagination"]["total_results"], 1);
}

#[tokio::test]
async fn without_a_database_every_request_gets_service_unavailable() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    controller.database.pool.close().await;
    let mut cases = Cases::default();
    let words = "The database is not available at the moment. Apps keep running; try again soon.";
    for (call, body) in [
        (("GET", "/v3/apps"), None),
        (("POST", "/v3/organizations"), Some(json!({ "name": "x" }))),
        (("DELETE", "/v3/organizations/x"), None),
    ] {
        cases.add(&admin, call, body, expected(503, 10015, "CF-ServiceUnavailable", words));
    }
    cases.check().await;
}
