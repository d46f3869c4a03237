//! Jobs: tried again, taken over, given up.

use std::time::Duration;

use serde_json::{Value, json};
use slipway_test_support::{PATIENCE, eventually};
use uuid::Uuid;

use crate::support::apps::{app_of, package};
use crate::support::{TestClient, TestController};

struct World {
    controller: TestController,
    client: TestClient,
    package: Uuid,
}

impl World {
    async fn start() -> Self {
        let controller = TestController::start().await;
        let client = controller.admin().await;
        let (_, space) = controller.dev().await;
        let app = app_of(&client, space, "a", "").await;
        let package = package(&client, &app).await.parse().expect("a guid");
        Self { controller, client, package }
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.controller.database.pool).await.expect(statement);
    }

    /// Deleting a package fails from now on.
    async fn break_deletion(&self) {
        self.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'the disk is on fire'; end $$;
             create trigger refuse before delete on package for each row execute function refuse()",
        )
        .await;
    }

    /// A job that deletes the package, with these columns.
    async fn job(&self, tries: i32, holder: Option<Uuid>, lease_s: f64) -> Uuid {
        let guid = Uuid::new_v4();
        sqlx::query(
            "insert into job (guid, operation, resource_type, resource_guid, tries, lease_holder, lease_until)
             values ($1, 'package.delete', 'package', $2, $3, $4, now() + make_interval(secs => $5))",
        )
        .bind(guid)
        .bind(self.package)
        .bind(tries)
        .bind(holder)
        .bind(lease_s)
        .execute(&self.controller.database.pool)
        .await
        .expect("a job");
        self.controller.context.wake.jobs.wake();
        guid
    }

    async fn until(&self, job: Uuid, state: &str) -> Value {
        eventually(state, PATIENCE, || async {
            let (_, body) = self.client.get(&format!("/v3/jobs/{job}")).await;
            if body["state"] == state { Ok(body) } else { Err(body) }
        })
        .await
    }

    async fn deaths(&self, job: Uuid) -> i32 {
        let deaths = sqlx::query_scalar("select deaths from job where guid = $1").bind(job);
        deaths.fetch_one(&self.controller.database.pool).await.expect("a job")
    }

    async fn package_is_there(&self) -> bool {
        self.client.get(&format!("/v3/packages/{}", self.package)).await.0 == 200
    }
}

#[tokio::test]
async fn a_job_that_fails_for_our_own_reasons_runs_again() {
    let world = World::start().await;
    world.break_deletion().await;
    let job = world.job(0, None, -1.0).await;
    // Put back for later by whoever tried; by the time that somebody looks it may have been tried more than once.
    let tried = "select count(*) from job
                 where tries >= 1 and state = 'PROCESSING' and run_at > updated_at and lease_until is null";
    eventually("the first try", PATIENCE, || async {
        let count: i64 = sqlx::query_scalar(tried).fetch_one(&world.controller.database.pool).await.expect("count");
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    assert!(world.package_is_there().await);
    // One after the other: a try that is under way holds the job and wants the package.
    world.execute("drop trigger refuse on package").await;
    world.execute("update job set run_at = now()").await;
    let done = world.until(job, "COMPLETE").await;
    assert_eq!(done["errors"], json!([]));
    assert!(!world.package_is_there().await);
}

#[tokio::test]
async fn a_job_that_never_succeeds_dies_with_its_reason() {
    let world = World::start().await;
    world.break_deletion().await;
    let job = world.job(9, None, -1.0).await;
    let dead = world.until(job, "FAILED").await;
    assert_eq!(dead["errors"][0]["detail"], "An unknown error occurred.", "the cause is for the operator: {dead}");
    let reason: String = sqlx::query_scalar("select dead_reason from job where guid = $1")
        .bind(job)
        .fetch_one(&world.controller.database.pool)
        .await
        .expect("a reason");
    assert!(reason.contains("the disk is on fire"), "{reason}");
    assert!(world.package_is_there().await);
}

#[tokio::test]
async fn the_job_of_a_dead_runner_is_taken_over_and_a_live_ones_is_not() {
    let world = World::start().await;
    let (dead, store) = (Uuid::new_v4(), &world.controller.context.store);
    let job = world.job(1, Some(dead), 3600.0).await;
    // A job that came later is done; the held one was looked at and left alone.
    let other = Uuid::new_v4();
    sqlx::query("insert into job (guid, operation) values ($1, 'nonsense')")
        .bind(other)
        .execute(&world.controller.database.pool)
        .await
        .expect("a job");
    world.controller.context.wake.jobs.wake();
    let refused = world.until(other, "FAILED").await;
    assert!(refused["errors"][0]["detail"].as_str().is_some_and(|text| text.contains("nonsense")), "{refused}");
    assert_eq!(world.client.get(&format!("/v3/jobs/{job}")).await.1["state"], "PROCESSING");
    assert!(world.package_is_there().await);

    world.execute("update job set lease_until = now() - interval '1 second'").await;
    world.until(job, "COMPLETE").await;
    assert!(!world.package_is_there().await);
    // The dead one comes back and finds that it has no say any more.
    assert_eq!(world.deaths(job).await, 1, "the one that was taken over counts");
    assert_eq!(world.deaths(other).await, 0);
    assert!(!store.job_renew(job, dead, Duration::from_secs(60)).await.expect("renew"));
    store.job_fail(job, dead, &json!([{}]), "late").await.expect("ignored");
    assert_eq!(world.until(job, "COMPLETE").await["errors"], json!([]));
}

#[tokio::test]
async fn a_job_whose_runners_die_is_given_up() {
    let world = World::start().await;
    // Ten have claimed it, the last one too is gone.
    let job = world.job(10, Some(Uuid::new_v4()), 3600.0).await;
    world.execute("update job set deaths = 9, lease_until = now() - interval '1 second'").await;
    let dead = world.until(job, "FAILED").await;
    let detail = dead["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("package.delete") && detail.contains("crashed 10 times"), "{detail}");
    let reason = sqlx::query_scalar::<_, String>("select dead_reason from job where guid = $1").bind(job);
    assert_eq!(reason.fetch_one(&world.controller.database.pool).await.expect("a reason"), detail);
    assert!(world.package_is_there().await, "it was not run once more");
}

#[tokio::test]
async fn the_last_try_of_a_job_is_made() {
    let world = World::start().await;
    let job = world.job(9, Some(Uuid::new_v4()), -1.0).await;
    world.until(job, "COMPLETE").await;
    assert!(!world.package_is_there().await);
}
