//! Both stores behind what the API and time do to them.

use std::sync::Arc;
use std::time::Duration;

use slipway_controller::store::Store;
use slipway_controller::store::change_log::ChangeKind;
use slipway_controller::store::placement::PgPlacement;
use slipway_placement::memory::MemoryPlacement;
use slipway_placement::{PlacementStore, Wanted};
use slipway_test_support::TestDatabase;
use sqlx::PgPool;
use uuid::Uuid;

/// A store with hands for what is not its own: desired state and time.
pub(crate) trait Desired {
    fn store(&self) -> &dyn PlacementStore;
    async fn want(&self, wanted: Wanted);
    async fn unwant(&self, group: Uuid);
    async fn advance(&self, by: Duration);
}

impl Desired for MemoryPlacement {
    fn store(&self) -> &dyn PlacementStore {
        self
    }
    async fn want(&self, wanted: Wanted) {
        Self::want(self, wanted);
    }
    async fn unwant(&self, group: Uuid) {
        Self::unwant(self, group);
    }
    async fn advance(&self, by: Duration) {
        Self::advance(self, by);
    }
}

pub(crate) struct PgTwin {
    database: TestDatabase,
    placement: PgPlacement,
}

/// A clock that only [`Desired::advance`] moves, in place of the database's own, for statements and for defaults of columns.
/// With the real one an instance would have drained, or a lease run out, in one store and not in the other, only because
/// the machine was slow.
const CLOCK: &str = "
    create table test_clock as select pg_catalog.now() as at;
    create function public.now() returns timestamptz language sql stable as 'select at from public.test_clock';
    create function public.clock_timestamp() returns timestamptz language sql stable as 'select at from public.test_clock';
    do $$ declare found record; begin
        for found in select table_name, column_name from information_schema.columns
                     where table_schema = 'public' and column_default = 'now()'
        loop
            execute format('alter table %I alter column %I set default public.now()', found.table_name, found.column_name);
        end loop;
        -- Names are looked for here first: by all sessions that begin from now on.
        execute format('alter database %I set search_path = public, pg_catalog', current_database());
    end $$;";

impl PgTwin {
    /// The store as the API has it.
    fn api(&self) -> Store {
        Store::new(self.database.pool.clone(), Arc::default())
    }

    pub(crate) async fn create() -> Self {
        let database = TestDatabase::create().await;
        sqlx::raw_sql(CLOCK).execute(&database.pool).await.expect("the clock");
        let pool = PgPool::connect(&database.url).await.expect("connect to the test's database");
        let statements = [
            "insert into store_identity (cluster_id) values (gen_random_uuid())",
            "insert into organization_quota (guid, name) values (gen_random_uuid(), 'q')",
            "insert into organization (guid, name, quota_guid) select gen_random_uuid(), 'o', guid from organization_quota",
            "insert into space (guid, org_guid, name) select gen_random_uuid(), guid, 's' from organization",
        ];
        for statement in statements {
            sqlx::query(statement).execute(&pool).await.expect("statement");
        }
        Self { database, placement: PgPlacement::new(pool) }
    }
}

impl Desired for PgTwin {
    fn store(&self) -> &dyn PlacementStore {
        &self.placement
    }

    async fn want(&self, wanted: Wanted) {
        let mut tx = slipway_controller::store::begin(&self.database.pool).await.expect("begin");
        sqlx::query("insert into spec (digest, kind, body, memory_mb, disk_mb) values ($1, 'lrp', '', $2, $3) on conflict do nothing")
            .bind(&wanted.spec[..])
            .bind(i64::try_from(wanted.memory_mb).expect("memory"))
            .bind(i64::try_from(wanted.disk_mb).expect("disk"))
            .execute(&mut *tx)
            .await
            .expect("spec");
        sqlx::query(
            "insert into app (guid, space_guid, name, state) select $1, guid, $1::text, 'STARTED' from space
             on conflict (guid) do update set state = 'STARTED'",
        )
        .bind(wanted.app)
        .execute(&mut *tx)
        .await
        .expect("app");
        sqlx::query(
            "insert into process (guid, app_guid, type, instances, spec) values ($1, $2, 'web', $3, $4)
             on conflict (guid) do update set instances = excluded.instances, spec = excluded.spec",
        )
        .bind(wanted.group)
        .bind(wanted.app)
        .bind(i32::try_from(wanted.instances).expect("instances"))
        .bind(&wanted.spec[..])
        .execute(&mut *tx)
        .await
        .expect("process");
        self.api().commit(tx, &[(ChangeKind::Process, wanted.group)]).await.expect("commit");
    }

    async fn unwant(&self, group: Uuid) {
        let mut tx = slipway_controller::store::begin(&self.database.pool).await.expect("begin");
        sqlx::query("update app set state = 'STOPPED' where guid = (select app_guid from process where guid = $1)")
            .bind(group)
            .execute(&mut *tx)
            .await
            .expect("stop");
        self.api().commit(tx, &[(ChangeKind::Process, group)]).await.expect("commit");
    }

    async fn advance(&self, by: Duration) {
        sqlx::query("update test_clock set at = at + make_interval(secs => $1)")
            .bind(by.as_secs_f64())
            .execute(&self.database.pool)
            .await
            .expect("advance");
    }
}
