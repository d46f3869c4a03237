//! Feature flags.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Store;
use crate::values::list::ListOptions;

/// A flag as stored.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct FeatureFlagRow {
    pub name: String,
    pub enabled: bool,
    pub custom_error_message: Option<String>,
    pub updated_at: DateTime<Utc>,
}

/// Changes a flag; `None` leaves as it is, `Some(None)` takes the message away.
///
/// # Errors
/// When the database fails.
pub async fn feature_flag_set_tx(
    tx: &mut PgConnection,
    name: &str,
    enabled: Option<bool>,
    message: Option<Option<&str>>,
) -> sqlx::Result<Option<FeatureFlagRow>> {
    sqlx::query_as!(
        FeatureFlagRow,
        "update feature_flag set enabled = coalesce($2, enabled),
                custom_error_message = case when $3 then $4 else custom_error_message end, updated_at = now()
         where name = $1 returning *",
        name,
        enabled,
        message.is_some(),
        message.flatten()
    )
    .fetch_optional(tx)
    .await
}

/// Reads a flag, also within a transaction.
///
/// # Errors
/// When the database fails.
pub async fn feature_flag_get_tx(
    executor: impl sqlx::PgExecutor<'_>,
    name: &str,
) -> sqlx::Result<Option<FeatureFlagRow>> {
    sqlx::query_as!(FeatureFlagRow, "select * from feature_flag where name = $1", name).fetch_optional(executor).await
}

impl Store {
    /// One flag.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn feature_flag_get(&self, name: &str) -> sqlx::Result<Option<FeatureFlagRow>> {
        feature_flag_get_tx(self.pool(), name).await
    }

    /// A page of flags by name, and how many there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn feature_flag_list(&self, options: &ListOptions) -> sqlx::Result<(Vec<FeatureFlagRow>, u64)> {
        let mut rows =
            sqlx::query_as!(FeatureFlagRow, "select * from feature_flag order by name").fetch_all(self.pool()).await?;
        let total = rows.len();
        let start = usize::try_from((options.page - 1).saturating_mul(options.per_page)).unwrap_or(usize::MAX);
        rows = rows.split_off(start.min(total));
        rows.truncate(usize::try_from(options.per_page).unwrap_or(usize::MAX));
        Ok((rows, total as u64))
    }
}
