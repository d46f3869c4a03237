//! A controller that is stopped in the middle of a transaction.

use std::time::Duration;

use slipway_controller::store::Store;
use slipway_controller::store::change_log::{self, ChangeKind};
use slipway_controller::store::connections::{IDLE_IN_TRANSACTION, guarded};
use slipway_test_support::TestDatabase;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use super::LIMIT;

async fn connect(database: &TestDatabase, idle: Duration) -> Store {
    let options = guarded(database.url.parse().expect("a URL"), idle);
    Store::new(PgPoolOptions::new().max_connections(1).connect_with(options).await.expect("connected"))
}

#[tokio::test]
async fn a_stopped_controller_does_not_keep_the_lock_of_the_log() {
    let database = TestDatabase::create().await;
    let identity = sqlx::query("insert into store_identity (cluster_id) values ($1)").bind(Uuid::new_v4());
    identity.execute(&database.pool).await.expect("a cluster of its own");
    let stopped = connect(&database, Duration::from_millis(300)).await;
    let mut held = stopped.begin().await.expect("begun");
    change_log::lock(&mut held).await.expect("locked");
    // From here on it does nothing, as a process that was stopped.
    let other = connect(&database, IDLE_IN_TRANSACTION).await;
    let writes = async {
        let mut tx = other.begin().await.expect("begun");
        change_log::append(&mut tx, &[(ChangeKind::App, Uuid::new_v4())]).await.expect("appended");
        tx.commit().await.expect("committed");
    };
    tokio::time::timeout(LIMIT, writes).await.expect("the lock is free again");
    held.commit().await.expect_err("its transaction was ended");
}

#[tokio::test]
async fn a_transaction_that_works_is_left_alone() {
    let database = TestDatabase::create().await;
    let store = connect(&database, Duration::from_millis(300)).await;
    let mut tx = store.begin().await.expect("begun");
    sqlx::query("select pg_sleep(1)").execute(&mut *tx).await.expect("a long query is not idle");
    let set = sqlx::query_scalar("show idle_in_transaction_session_timeout").fetch_one(&mut *tx).await;
    let set: String = set.expect("shown");
    assert_eq!(set, "300ms");
    tx.commit().await.expect("committed");
}
