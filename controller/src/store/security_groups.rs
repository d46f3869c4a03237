//! Security groups: rules, and the spaces in which they hold.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// A security group as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct SecurityGroupRow {
    pub guid: Uuid,
    pub name: String,
    pub rules: Value,
    pub globally_running: bool,
    pub globally_staging: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A group that holds in a space.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct BindingRow {
    pub security_group_guid: Uuid,
    pub space_guid: Uuid,
    /// `running` or `staging`.
    pub phase: String,
}

/// Makes a group.
///
/// # Errors
/// When the database fails; a taken name violates `security_group_name_key`.
pub async fn security_group_insert_tx(
    tx: &mut PgConnection,
    name: &str,
    rules: &Value,
    running: bool,
    staging: bool,
) -> sqlx::Result<SecurityGroupRow> {
    sqlx::query_as!(
        SecurityGroupRow,
        "insert into security_group (guid, name, rules, globally_running, globally_staging)
         values ($1, $2, $3, $4, $5) returning *",
        Uuid::new_v4(),
        name,
        rules,
        running,
        staging
    )
    .fetch_one(tx)
    .await
}

/// Changes a group; `None` leaves as it is.
///
/// # Errors
/// When the database fails; a taken name violates `security_group_name_key`.
pub async fn security_group_patch_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    name: Option<&str>,
    rules: Option<&Value>,
    running: Option<bool>,
    staging: Option<bool>,
) -> sqlx::Result<Option<SecurityGroupRow>> {
    sqlx::query_as!(
        SecurityGroupRow,
        "update security_group set name = coalesce($2, name), rules = coalesce($3, rules),
                globally_running = coalesce($4, globally_running), globally_staging = coalesce($5, globally_staging),
                updated_at = now()
         where guid = $1 returning *",
        guid,
        name,
        rules,
        running,
        staging
    )
    .fetch_optional(tx)
    .await
}

/// Removes a group; it holds nowhere any more.
///
/// # Errors
/// When the database fails.
pub async fn security_group_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from security_group where guid = $1", guid).execute(tx).await?;
    Ok(())
}

/// Lets a group hold in these spaces; where it does already nothing changes.
///
/// # Errors
/// When the database fails.
pub async fn security_group_bind_tx(
    tx: &mut PgConnection,
    group: Uuid,
    spaces: &[Uuid],
    phase: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into security_group_space (security_group_guid, space_guid, phase)
         select $1, space, $3 from unnest($2::uuid[]) as space on conflict do nothing",
        group,
        spaces,
        phase
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a group from a space. False when it did not hold there.
///
/// # Errors
/// When the database fails.
pub async fn security_group_unbind_tx(
    tx: &mut PgConnection,
    group: Uuid,
    space: Uuid,
    phase: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "delete from security_group_space where security_group_guid = $1 and space_guid = $2 and phase = $3",
        group,
        space,
        phase
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds who may see which group: those that hold everywhere, and those that hold in a visible space.
fn visible_only(listing: &mut Listing<'_>, spaces: &Visible) {
    if let Visible::Only(spaces) = spaces {
        listing
            .sql(
                "(g.globally_running or g.globally_staging or exists (select 1 from security_group_space v
                  where v.security_group_guid = g.guid and v.space_guid = any(",
            )
            .bind_uuids(spaces.clone())
            .sql(")))")
            .done();
    }
}

impl Store {
    /// One group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn security_group_get(&self, guid: Uuid) -> sqlx::Result<Option<SecurityGroupRow>> {
        sqlx::query_as!(SecurityGroupRow, "select * from security_group where guid = $1", guid)
            .fetch_optional(self.pool())
            .await
    }

    /// A page of groups that a reader of these spaces may see.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn security_group_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<SecurityGroupRow>, u64)> {
        let mut listing = Listing::new("security_group g", "g", options);
        visible_only(&mut listing, spaces);
        listing.guids("guids", "g.guid").texts("names", "g.name").ordered_by("name", "lower(g.name)");
        listing.guids_through(
            "running_space_guids",
            "select 1 from security_group_space s where s.security_group_guid = g.guid and s.phase = 'running'
             and s.space_guid",
        );
        listing.guids_through(
            "staging_space_guids",
            "select 1 from security_group_space s where s.security_group_guid = g.guid and s.phase = 'staging'
             and s.space_guid",
        );
        listing.texts("globally_enabled_running", "g.globally_running::text");
        listing.texts("globally_enabled_staging", "g.globally_staging::text");
        listing.fetch(self.pool(), "g.*").await
    }

    /// A page of the groups in force in a space, `running` or `staging`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_security_group_list(
        &self,
        options: &ListOptions,
        space: Uuid,
        phase: &str,
    ) -> sqlx::Result<(Vec<SecurityGroupRow>, u64)> {
        let mut listing = Listing::new("security_group g", "g", options);
        listing
            .sql("(case when ")
            .bind_text(phase)
            .sql(
                " = 'running' then g.globally_running else g.globally_staging end
                  or exists (select 1 from security_group_space s where s.security_group_guid = g.guid and s.phase = ",
            )
            .bind_text(phase)
            .sql(" and s.space_guid = any(")
            .bind_uuids(vec![space])
            .sql(")))")
            .done();
        listing.guids("guids", "g.guid").texts("names", "g.name");
        listing.fetch(self.pool(), "g.*").await
    }

    /// Where these groups hold by a binding of their own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn security_group_bindings(&self, groups: &[Uuid]) -> sqlx::Result<Vec<BindingRow>> {
        sqlx::query_as!(
            BindingRow,
            "select x.security_group_guid, x.space_guid, x.phase from security_group_space x
             join space s on s.guid = x.space_guid
             where x.security_group_guid = any($1) order by s.created_at, s.guid",
            groups
        )
        .fetch_all(self.pool())
        .await
    }
}
