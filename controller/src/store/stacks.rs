//! Stacks.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::buildpacks::BuildpackRow;
use super::list::Listing;
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A stack as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct StackRow {
    pub guid: Uuid,
    pub name: String,
    pub description: String,
    pub state: String,
    pub state_reason: Option<String>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Makes a stack.
///
/// # Errors
/// When the database fails; a taken name violates `stack_name_key`.
pub async fn stack_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    description: &str,
    state: &str,
    reason: Option<&str>,
    change: &MetadataChange,
) -> sqlx::Result<StackRow> {
    sqlx::query_as!(
        StackRow,
        "insert into stack (guid, name, description, state, state_reason, labels, annotations)
         values ($1, $2, $3, $4, $5, jsonb_strip_nulls($6), jsonb_strip_nulls($7)) returning *",
        Uuid::new_v4(),
        name,
        description,
        state,
        reason,
        change.labels,
        change.annotations
    )
    .fetch_one(tx)
    .await
}

/// Reads a stack and locks it until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn stack_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<StackRow>> {
    sqlx::query_as!(StackRow, "select * from stack where guid = $1 for update", guid).fetch_optional(tx).await
}

/// Writes state and metadata of a stack.
///
/// # Errors
/// When the database fails.
pub async fn stack_update_tx(
    tx: &mut PgConnection,
    row: &StackRow,
    change: &MetadataChange,
) -> sqlx::Result<Option<StackRow>> {
    sqlx::query_as!(
        StackRow,
        "update stack set state = $2, state_reason = $3, labels = jsonb_strip_nulls(labels || $4),
                annotations = jsonb_strip_nulls(annotations || $5), updated_at = now()
         where guid = $1 returning *",
        row.guid,
        row.state,
        row.state_reason,
        change.labels,
        change.annotations
    )
    .fetch_optional(tx)
    .await
}

/// Removes a stack that no app uses; false when one does.
///
/// # Errors
/// When the database fails.
pub async fn stack_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "delete from stack s where guid = $1 and not exists (select 1 from app a where a.lifecycle_stack = s.name)",
        guid
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// State and reason of a stack.
///
/// # Errors
/// When the database fails.
pub async fn stack_state_tx(tx: &mut PgConnection, name: &str) -> sqlx::Result<Option<(String, Option<String>)>> {
    let row = sqlx::query!("select state, state_reason from stack where name = $1", name).fetch_optional(tx).await?;
    Ok(row.map(|row| (row.state, row.state_reason)))
}

impl Store {
    /// One stack.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stack_get(&self, guid: Uuid) -> sqlx::Result<Option<StackRow>> {
        sqlx::query_as!(StackRow, "select * from stack where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// A page of stacks; `default` is the name of the one that apps get which name none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stack_list(&self, options: &ListOptions, default: &str) -> sqlx::Result<(Vec<StackRow>, u64)> {
        let mut listing = Listing::new("stack s", "s", options);
        if let Some(values) = options.filter("default") {
            let wanted = values.iter().any(|value| value == "true");
            let condition = if wanted { "s.name = " } else { "s.name <> " };
            listing.sql(condition).bind_text(default).done();
        }
        listing.guids("guids", "s.guid").texts("names", "s.name").ordered_by("name", "lower(s.name)");
        listing.fetch(self.pool(), "s.*").await
    }

    /// One buildpack.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn buildpack_get(&self, guid: Uuid) -> sqlx::Result<Option<BuildpackRow>> {
        sqlx::query_as!(BuildpackRow, "select * from buildpack where guid = $1", guid).fetch_optional(self.pool()).await
    }

    /// A page of buildpacks, by position unless another order is asked for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn buildpack_list(&self, options: &ListOptions) -> sqlx::Result<(Vec<BuildpackRow>, u64)> {
        let mut listing = Listing::new("buildpack b", "b", options);
        listing.guids("guids", "b.guid").texts("names", "b.name").texts("lifecycle", "b.lifecycle");
        // An empty value asks for those without a stack.
        listing.texts("stacks", "coalesce(b.stack, '')");
        listing.ordered_by("position", "b.position").ordered_by("name", "lower(b.name)");
        listing.insertion_order("b.position, b.created_at");
        listing.fetch(self.pool(), "b.*").await
    }
}
