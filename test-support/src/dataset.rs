//! A database filled as years of use would fill it, for tests and benchmarks of lists.

use sqlx::{AssertSqlSafe, PgPool};

/// How many rows of the kinds from which the others follow: each app brings one or two processes, two packages, builds,
/// droplets and revisions, a task and five events; each organization a domain, a security group, a space quota and an
/// isolation segment.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Organizations, at least 1.
    pub orgs: u32,
    /// Spaces in all of them, a multiple of `orgs`.
    pub spaces: u32,
    /// Users, each with a role in one organization and in one of its spaces.
    pub users: u32,
    /// Apps, a multiple of `spaces`.
    pub apps: u32,
    /// Routes, each to one app.
    pub routes: u32,
}

/// What created, updated and labels rows share: four neighbours have one instant, and a third to a half has each label.
const FUNCTIONS: &str = "
    create function pg_temp.created(i bigint) returns timestamptz language sql immutable
        as $$ select timestamptz '2026-01-05 10:00:00.25Z' + (i / 4) * interval '1 second' $$;
    create function pg_temp.updated(i bigint) returns timestamptz language sql immutable
        as $$ select timestamptz '2026-02-05 10:00:00.75Z' + (i % 7) * interval '1 second' $$;
    create function pg_temp.labels(i bigint) returns jsonb language sql immutable as $$
        select jsonb_strip_nulls(jsonb_build_object(
            'env', case i % 4 when 0 then 'prod' when 1 then 'dev' when 2 then '' end,
            'team', case when i % 3 = 0 then 'team-' || i % 5 end,
            'example.com/tier', case when i % 6 = 0 then 'gold' end)) $$;";

/// Fills a migrated and bootstrapped database.
///
/// # Errors
/// When the database refuses, for example because it was filled already.
pub async fn fill(pool: &PgPool, size: Size) -> sqlx::Result<()> {
    let mut sql = include_str!("dataset.sql").to_owned();
    for (name, number) in [
        ("{orgs}", size.orgs),
        ("{spaces}", size.spaces),
        ("{users}", size.users),
        ("{apps}", size.apps),
        ("{routes}", size.routes),
    ] {
        sql = sql.replace(name, &number.to_string());
    }
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(AssertSqlSafe(format!("begin; {FUNCTIONS} {sql} commit; analyze"))).execute(&mut *connection).await?;
    Ok(())
}
