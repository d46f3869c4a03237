//! All SQL. Methods are named noun first (`app_create`, `route_list`) and say in their suffix when they need a
//! transaction. Nothing here mentions HTTP.

pub mod addresses;
pub mod apps;
pub mod apptasks;
pub mod blobs;
pub mod bootstrap;
pub mod buildpacks;
pub mod builds;
pub mod change_log;
pub mod cluster;
pub mod connections;
pub mod deployments;
pub mod destinations;
pub mod domains;
pub mod done_jobs;
pub mod drains;
pub mod droplets;
pub mod egress;
pub mod environment_groups;
pub mod events;
pub mod feature_flags;
pub mod instances;
pub mod jobs;
pub mod keys;
pub mod list;
pub mod manifest_routes;
pub mod members;
pub mod metadata;
pub mod organizations;
pub mod packages;
pub mod parents;
pub mod passcodes;
pub mod placement;
pub mod processes;
pub mod query_times;
pub mod quotas;
pub mod retention;
pub mod revisions;
pub mod roles;
pub mod route_shares;
pub mod routes;
pub mod security_groups;
pub mod segments;
pub mod services;
pub mod sidecars;
pub mod space_files;
pub mod spaces;
pub mod specs;
pub mod stacks;
pub mod stored;
pub mod usage;
pub mod usage_events;
pub mod users;

use std::sync::Arc;

use slipway_protocol::v1::Version;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::notifiers::TaskNotifiers;
use change_log::ChangeKind;

/// Begins a transaction, also when nobody waits for it any more.
///
/// The future of [`sqlx::Pool::begin`] must not be dropped while `BEGIN` is on its way, as it is when a client hangs up:
/// the connection goes back into the pool, in a transaction that nobody knows of. What others write on it after that is
/// acknowledged to them, and taken back with the next transaction that fails there. So the beginning runs in a task of
/// its own, to its end; a transaction that nobody takes is rolled back.
///
/// # Errors
/// When the database fails.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    #[expect(clippy::disallowed_methods, reason = "this is where it runs to its end")]
    let begun = tokio::spawn(async move { pool.begin().await });
    begun.await.unwrap_or_else(|error| Err(sqlx::Error::Io(std::io::Error::other(error))))
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    wake: Arc<TaskNotifiers>,
}

impl Store {
    /// A store over a pool that has been migrated. Its commits wake tasks of `wake`.
    #[must_use]
    pub fn new(pool: PgPool, wake: Arc<TaskNotifiers>) -> Self {
        Self { pool, wake }
    }

    /// Ends a transaction that has changed input of placement or routing: appends the changes, commits, and wakes the task
    /// that wakes whatever they concern.
    ///
    /// # Errors
    /// When the database fails. An error of the commit itself is ambiguous: it may have happened.
    pub async fn commit(&self, tx: Transaction<'_, Postgres>, changes: &[(ChangeKind, Uuid)]) -> sqlx::Result<Version> {
        let version = change_log::commit(tx, changes).await?;
        self.wake.tail.wake();
        Ok(version)
    }

    /// Begins a transaction, see [`begin`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        begin(&self.pool).await
    }

    /// The pool, for the methods in this module's children.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
