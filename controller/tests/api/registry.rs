//! The table of controllers, by which routers know where the API is.

use slipway_controller::store::cluster::ControllerRow;
use uuid::Uuid;

use crate::support::TestController;

#[tokio::test]
async fn a_controller_that_another_one_gave_up_is_there_again() {
    let controller = TestController::start().await;
    let (pool, store) = (&controller.database.pool, &controller.context.store);
    let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)]
        .map(|id| ControllerRow { id, cluster_address: format!("127.0.0.1:{}", id.as_u128()) });
    let known = async || -> Vec<Uuid> {
        sqlx::query_scalar("select id from controller order by id").fetch_all(pool).await.expect("rows")
    };
    let logged = async || -> i64 {
        sqlx::query_scalar("select count(*) from change_log where kind = 'controller' and id = $1")
            .bind(one.id)
            .fetch_one(pool)
            .await
            .expect("a count")
    };
    store.controller_put(&one).await.expect("registered");
    store.controller_put(&other).await.expect("registered");
    // The database was away for long, and the other one is back first.
    sqlx::query("update controller set seen_at = now() - interval '11 minutes'").execute(pool).await.expect("away");
    store.controller_seen(&other).await.expect("seen");
    assert_eq!(known().await, [other.id]);
    let before = logged().await;
    store.controller_seen(&one).await.expect("seen");
    assert_eq!(known().await, [one.id, other.id]);
    assert_eq!(logged().await, before + 1, "routers are told");
    // What is there is only seen.
    store.controller_seen(&one).await.expect("seen");
    assert_eq!(logged().await, before + 1);
}
