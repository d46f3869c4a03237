//! Migrating: from nothing, step by step over data, twice, two at once; and what is refused.

use slipway_migrations::{MIGRATOR, migrate};
use slipway_test_support::TestDatabase;
use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

/// A database with nothing in it.
async fn empty() -> TestDatabase {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("drop schema public cascade; create schema public").execute(&database.pool).await.expect("empty it");
    database
}

/// Everything that a schema is made of, as sorted lines. Names that Postgres makes up for checks of "not null" hold
/// numbers of the table, so these are left to the columns.
async fn schema(pool: &PgPool) -> Vec<String> {
    let mut lines: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', 'column', table_name, column_name, data_type, udt_name, is_nullable, column_default,
                          identity_generation)
         from information_schema.columns where table_schema = 'public' and table_name <> '_sqlx_migrations'
         union all
         select 'index ' || indexdef from pg_indexes where schemaname = 'public' and tablename <> '_sqlx_migrations'
         union all
         select concat_ws(' ', 'constraint', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
         from pg_constraint c join pg_namespace n on n.oid = c.connamespace
         where n.nspname = 'public' and c.contype <> 'n' and c.conrelid <> '_sqlx_migrations'::regclass
         union all
         select 'sequence ' || sequencename || ' ' || data_type from pg_sequences where schemaname = 'public'",
    )
    .fetch_all(pool)
    .await
    .expect("read the schema");
    lines.sort();
    lines
}

async fn applied(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from _sqlx_migrations where success").fetch_one(pool).await.expect("count")
}

#[tokio::test]
async fn step_by_step_gives_the_schema_of_a_fresh_database_and_keeps_data() {
    let fresh = empty().await;
    migrate(&fresh.pool).await.expect("migrate");
    let stepped = empty().await;
    let all: Vec<_> = MIGRATOR.iter().cloned().collect();
    assert!(all.len() > 2, "the first ones make the tables");
    for count in 1..=all.len() {
        Migrator::with_migrations(all[..count].to_vec()).run(&stepped.pool).await.expect("a step");
        if count == 2 {
            // What an installation of the first version holds.
            sqlx::raw_sql(
                "insert into store_identity (cluster_id) values (gen_random_uuid());
                 insert into cell (id, zone, memory_mb, disk_mb, slots, last_counter)
                 values (gen_random_uuid(), 'z1', 1024, 4096, 64, 7);
                 insert into organization_quota (guid, name) values (gen_random_uuid(), 'default');
                 insert into organization (guid, name, quota_guid)
                 select gen_random_uuid(), 'dev', guid from organization_quota;
                 insert into space (guid, org_guid, name) select gen_random_uuid(), guid, 'dev' from organization;
                 insert into app (guid, space_guid, name) select gen_random_uuid(), guid, 'web' from space;",
            )
            .execute(&stepped.pool)
            .await
            .expect("data");
        }
    }
    assert_eq!(schema(&stepped.pool).await, schema(&fresh.pool).await);
    let (zone, counter, app): (String, i64, String) =
        sqlx::query_as("select c.zone, c.last_counter, a.name from cell c, app a")
            .fetch_one(&stepped.pool)
            .await
            .expect("the data is there");
    assert_eq!((zone.as_str(), counter, app.as_str()), ("z1", 7, "web"));
}

#[tokio::test]
async fn migrating_again_or_twice_at_once_changes_nothing() {
    let database = empty().await;
    let (first, second) = tokio::join!(migrate(&database.pool), migrate(&database.pool));
    first.and(second).expect("both");
    let before = schema(&database.pool).await;
    assert!(before.iter().any(|line| line.starts_with("column app guid")), "{before:?}");
    migrate(&database.pool).await.expect("again");
    assert_eq!(schema(&database.pool).await, before);
    assert_eq!(applied(&database.pool).await, i64::try_from(MIGRATOR.iter().count()).expect("small"));
}

#[tokio::test]
async fn a_newer_or_a_changed_database_is_left_alone() {
    let database = empty().await;
    migrate(&database.pool).await.expect("migrate");
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'from the future', true, '', 0)";
    sqlx::query(newer).execute(&database.pool).await.expect("a newer one");
    let error = migrate(&database.pool).await.expect_err("refused");
    assert!(matches!(error, MigrateError::VersionMissing(9999)), "{error}");
    sqlx::raw_sql("delete from _sqlx_migrations where version = 9999; update _sqlx_migrations set checksum = 'x' where version = 1")
        .execute(&database.pool)
        .await
        .expect("another first one");
    let error = migrate(&database.pool).await.expect_err("refused");
    assert!(matches!(error, MigrateError::VersionMismatch(1)), "{error}");
}

#[test]
fn numbers_follow_each_other() {
    let numbers: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    assert!(numbers.iter().copied().eq(1..=i64::try_from(numbers.len()).expect("small")), "{numbers:?}");
}

#[tokio::test]
async fn a_migration_takes_its_time_whatever_the_limits_of_the_pool() {
    let database = empty().await;
    let options: sqlx::postgres::PgConnectOptions = database.url.parse().expect("a URL");
    let impatient = options.options([("statement_timeout", "1"), ("lock_timeout", "1")]);
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(impatient);
    migrate(&pool).await.expect("migrated");
    assert_eq!(applied(&database.pool).await, i64::try_from(MIGRATOR.iter().count()).expect("count"));
}
