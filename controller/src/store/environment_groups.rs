//! The platform's groups of environment variables, sealed.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Store;

/// A group as stored.
#[derive(Clone, Debug)]
pub struct EnvironmentGroupRow {
    /// `running` or `staging`.
    pub name: String,
    /// Sealed JSON object.
    pub var: Option<Vec<u8>>,
    /// Of the last change.
    pub updated_at: DateTime<Utc>,
}

/// The sealed variables, locked until the end of the transaction; `None` when there is no such group.
///
/// # Errors
/// When the database fails.
pub async fn environment_group_lock_tx(tx: &mut PgConnection, name: &str) -> sqlx::Result<Option<Option<Vec<u8>>>> {
    sqlx::query_scalar!("select var from environment_variable_group where name = $1 for update", name)
        .fetch_optional(tx)
        .await
}

/// Writes a group.
///
/// # Errors
/// When the database fails.
pub async fn environment_group_set_tx(tx: &mut PgConnection, name: &str, sealed: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("update environment_variable_group set var = $2, updated_at = now() where name = $1", name, sealed)
        .execute(tx)
        .await?;
    Ok(())
}

impl Store {
    /// One group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn environment_group_get(&self, name: &str) -> sqlx::Result<Option<EnvironmentGroupRow>> {
        sqlx::query_as!(EnvironmentGroupRow, "select * from environment_variable_group where name = $1", name)
            .fetch_optional(self.pool())
            .await
    }
}
