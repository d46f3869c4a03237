//! A database per test: a template is migrated once, cloned for each test and dropped after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::wait::PATIENCE;

/// Where the tests' Postgres listens; `./test` starts one and sets it.
pub const URL_VARIABLE: &str = "SLIPWAY_TEST_DATABASE_URL";

/// A fresh, migrated database. Dropped with the value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Connected to it.
    pub pool: PgPool,
    /// Its URL.
    pub url: String,
    guard: Arc<DropGuard>,
}

#[derive(Debug)]
struct DropGuard {
    admin: String,
    name: String,
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // A test's runtime is gone or going here: a thread with its own runtime drops the database.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async {
                    let mut connection = PgConnection::connect(&admin).await?;
                    drop_database(&mut connection, &name).await?;
                    connection.close().await
                })
                .map_err(std::io::Error::other)
        });
        if !matches!(dropper.join(), Ok(Ok(()))) {
            tracing::warn!(database = self.name, "a test's database was not dropped");
        }
    }
}

/// Drops a database with all its sessions. Postgres gives up when they have not ended within five seconds, which on a busy
/// machine says nothing but that they were not scheduled: until then it is asked again.
async fn drop_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let begun = Instant::now();
    loop {
        let statement = format!("drop database if exists \"{name}\" with (force)");
        match sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await {
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == IN_USE) => {
                if begun.elapsed() > PATIENCE {
                    return Err(sqlx::Error::Database(error));
                }
            }
            done => return done.map(drop),
        }
    }
}

/// Waits until nobody is connected to a database: what was told to close ends a little later, and until then the database
/// cannot be renamed.
async fn sessions_end(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let begun = Instant::now();
    loop {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'",
        )
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
        if open == 0 {
            return Ok(());
        }
        assert!(begun.elapsed() < PATIENCE, "{open} sessions of {name} do not end");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Postgres' code for an object that somebody uses.
const IN_USE: &str = "55006";

impl TestDatabase {
    /// Clones the template.
    ///
    /// # Panics
    /// When `SLIPWAY_TEST_DATABASE_URL` is not set or its server cannot be used.
    pub async fn create() -> Self {
        let admin = admin_url();
        let template = template(&admin).await;
        let name = format!("slipway_test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&admin).await.expect("connect to the tests' Postgres");
        let statement = format!("create database \"{name}\" template \"{template}\"");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .expect("clone the template database");
        connection.close().await.expect("close");
        let url = with_database(&admin, &name);
        let pool = PgPool::connect(&url).await.expect("connect to the test's database");
        Self { pool, url, guard: Arc::new(DropGuard { admin, name }) }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.guard.name
    }
}

fn admin_url() -> String {
    std::env::var(URL_VARIABLE).unwrap_or_else(|_| {
        panic!("{URL_VARIABLE} is not set: run the tests with ./test, or point it at a Postgres whose user may create databases, e.g. postgres:///postgres?host=/tmp/pg")
    })
}

/// Replaces the database in a URL.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let (server, _) = base.rsplit_once('/').unwrap_or((base, ""));
    format!("{server}/{name}{query}")
}

/// Migrates the template once per schema: its name holds a digest of the migrations, and an advisory lock lets
/// parallel test processes wait for the one that makes it.
async fn template(admin: &str) -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let mut digest = 0_u64;
            for migration in slipway_migrations::MIGRATOR.iter() {
                for byte in migration.checksum.iter() {
                    digest = digest.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte) + 1);
                }
            }
            let name = format!("slipway_template_{digest:016x}");
            let mut connection = PgConnection::connect(admin).await.expect("connect to the tests' Postgres");
            sqlx::query("select pg_advisory_lock(815)").execute(&mut connection).await.expect("lock");
            let exists: bool = sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
                .bind(&name)
                .fetch_one(&mut connection)
                .await
                .expect("look for the template");
            if !exists {
                // One that failed half-way leaves its own behind, and is in nobody's way.
                let partial = format!("{name}_{}", Uuid::new_v4().simple());
                let create = format!("create database \"{partial}\"");
                sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.expect("create the template");
                let pool = PgPool::connect(&with_database(admin, &partial)).await.expect("connect to the template");
                slipway_migrations::migrate(&pool).await.expect("migrate the template");
                pool.close().await;
                sessions_end(&mut connection, &partial).await.expect("the sessions of the template end");
                let rename = format!("alter database \"{partial}\" rename to \"{name}\"");
                sqlx::query(sqlx::AssertSqlSafe(rename)).execute(&mut connection).await.expect("name the template");
            }
            connection.close().await.expect("close");
            name
        })
        .await
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_replaced_and_the_rest_unchanged() {
        assert_eq!(with_database("postgres:///postgres?host=/tmp", "x"), "postgres:///x?host=/tmp");
        assert_eq!(with_database("postgres://u@h:1/db", "x"), "postgres://u@h:1/x");
    }

    #[tokio::test]
    async fn a_database_is_migrated_and_dropped() {
        let database = TestDatabase::create().await;
        let count: i64 =
            sqlx::query_scalar("select count(*) from app").fetch_one(&database.pool).await.expect("migrated");
        assert_eq!(count, 0);
        let (admin, name) = (admin_url(), database.name().to_owned());
        drop(database);
        let mut connection = PgConnection::connect(&admin).await.expect("connect");
        let exists: bool = sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut connection)
            .await
            .expect("query");
        assert!(!exists);
    }
}
