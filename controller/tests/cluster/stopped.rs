//! A controller that is stopped in the middle of a transaction.

use std::sync::Arc;
use std::time::Duration;

use slipway_controller::domain::DomainError;
use slipway_controller::domain::constraints::translate;
use slipway_controller::store::Store;
use slipway_controller::store::change_log::{self, ChangeKind};
use slipway_controller::store::connections::{API_CONNECTIONS, API_LIMITS, TimeLimits, guarded};
use slipway_test_support::{TestDatabase, eventually};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use super::LIMIT;
use crate::harness::Harness;

async fn connect(database: &TestDatabase, limits: TimeLimits) -> Store {
    let options = guarded(database.url.parse().expect("a URL"), limits);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.expect("connected");
    Store::new(pool, Arc::default())
}

/// Ends what is idle for less than a heartbeat.
const IMPATIENT: TimeLimits = TimeLimits { idle_in_transaction: Duration::from_millis(300), ..API_LIMITS };

#[tokio::test]
async fn a_stopped_controller_does_not_keep_the_lock_of_the_log() {
    let database = TestDatabase::create().await;
    let identity = sqlx::query("insert into store_identity (cluster_id) values ($1)").bind(Uuid::new_v4());
    identity.execute(&database.pool).await.expect("a cluster of its own");
    let stopped = connect(&database, IMPATIENT).await;
    let mut held = stopped.begin().await.expect("begun");
    change_log::lock(&mut held).await.expect("locked");
    // From here on it does nothing, as a process that was stopped.
    let other = connect(&database, API_LIMITS).await;
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
    let store = connect(&database, IMPATIENT).await;
    let mut tx = store.begin().await.expect("begun");
    sqlx::query("select pg_sleep(1)").execute(&mut *tx).await.expect("a long query is not idle");
    let set = sqlx::query_scalar("show idle_in_transaction_session_timeout").fetch_one(&mut *tx).await;
    let set: String = set.expect("shown");
    assert_eq!(set, "300ms");
    tx.commit().await.expect("committed");
}

#[tokio::test]
async fn a_statement_ends_when_it_takes_too_long_or_waits_too_long() {
    let database = TestDatabase::create().await;
    let soon = Duration::from_millis(300);
    let retryable = |error: sqlx::Error, part: &str| match translate(error) {
        DomainError::Unavailable(text) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    };
    let store = connect(&database, TimeLimits { statement: soon, ..API_LIMITS }).await;
    let error = sqlx::query("select pg_sleep(600)").execute(store.pool()).await.expect_err("ended");
    retryable(error, "did not finish this in time");

    let mut held = database.pool.acquire().await.expect("a connection");
    sqlx::query("select pg_advisory_lock(7)").execute(&mut *held).await.expect("locked");
    let store = connect(&database, TimeLimits { lock: soon, ..API_LIMITS }).await;
    let error = sqlx::query("select pg_advisory_lock(7)").execute(store.pool()).await.expect_err("ended");
    retryable(error, "Another change of the same resource");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_lists_do_not_cost_the_lease() {
    let mut harness = Harness::start().await;
    harness.stop().await;
    // One caller stands for several, who have a few requests at a time each.
    harness.config.limits.requests_at_once = 2 * API_CONNECTIONS as usize;
    harness.run().await;
    let admin = harness.admin().await;
    let renewed = async || -> chrono::DateTime<chrono::Utc> {
        let found = sqlx::query_scalar("select renewed_at from lease").fetch_one(harness.pool()).await;
        found.expect("somebody has the lease")
    };
    // Whoever reads events waits from here on.
    let mut held = slipway_controller::store::begin(harness.pool()).await.expect("begun");
    sqlx::query("lock table event in access exclusive mode").execute(&mut *held).await.expect("locked");
    let lists = futures::future::select_all((0..2 * API_CONNECTIONS).map(|_| Box::pin(admin.get("/v3/audit_events"))));
    let lease = async {
        eventually("every connection of the API waits", LIMIT, || async {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(harness.pool())
            .await
            .expect("counted");
            if waiting >= i64::from(API_CONNECTIONS) { Ok(()) } else { Err(format!("{waiting} wait")) }
        })
        .await;
        let before = renewed().await;
        eventually("the lease is renewed", LIMIT, || async {
            let now = renewed().await;
            if now > before { Ok(()) } else { Err(format!("last at {now}")) }
        })
        .await;
    };
    tokio::select! {
        () = lease => {}
        ((status, body), ..) = lists => panic!("a list ended before the lease was renewed: {status} {body}"),
    }
    held.rollback().await.expect("rolled back");
}
