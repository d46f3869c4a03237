//! Quotas of organizations and of spaces.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// A quota of either kind as stored; a limit of `None` is none.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct QuotaRow {
    pub guid: Uuid,
    /// The organization that a space quota belongs to.
    pub org_guid: Option<Uuid>,
    pub name: String,
    pub total_memory_in_mb: Option<i64>,
    pub per_process_memory_in_mb: Option<i64>,
    pub total_instances: Option<i64>,
    pub per_app_tasks: Option<i64>,
    pub log_rate_limit_in_bytes_per_second: Option<i64>,
    /// Of organization quotas only; `None` = the platform's default.
    pub total_stored_in_mb: Option<i64>,
    pub paid_services_allowed: bool,
    pub total_service_instances: Option<i64>,
    pub total_service_keys: Option<i64>,
    pub total_routes: Option<i64>,
    pub total_reserved_ports: Option<i64>,
    /// Of organization quotas only.
    pub total_domains: Option<i64>,
    /// Whether organizations without a quota of their own get it.
    pub is_default: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl QuotaRow {
    /// A quota without any limit.
    #[must_use]
    pub fn unlimited(org_guid: Option<Uuid>) -> Self {
        let now = Utc::now();
        Self {
            guid: Uuid::new_v4(),
            org_guid,
            name: String::new(),
            total_memory_in_mb: None,
            per_process_memory_in_mb: None,
            total_instances: None,
            per_app_tasks: None,
            log_rate_limit_in_bytes_per_second: None,
            total_stored_in_mb: None,
            paid_services_allowed: true,
            total_service_instances: None,
            total_service_keys: None,
            total_routes: None,
            total_reserved_ports: None,
            total_domains: None,
            is_default: false,
            created_at: now,
            updated_at: now,
        }
    }
}

/// An organization or space, by guid and name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "two columns")]
pub struct Named {
    pub guid: Uuid,
    pub name: String,
}

/// Writes an organization quota: a new one, or all columns of one that is there.
///
/// # Errors
/// When the database fails; a taken name violates `organization_quota_name_key`.
pub async fn organization_quota_save_tx(tx: &mut PgConnection, quota: &QuotaRow) -> sqlx::Result<QuotaRow> {
    let row = sqlx::query_as!(
        QuotaRow,
        r#"insert into organization_quota (guid, name, total_memory_in_mb, per_process_memory_in_mb, total_instances,
               per_app_tasks, log_rate_limit_in_bytes_per_second, paid_services_allowed, total_service_instances,
               total_service_keys, total_routes, total_reserved_ports, total_domains)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
           on conflict (guid) do update set name = $2, total_memory_in_mb = $3, per_process_memory_in_mb = $4,
               total_instances = $5, per_app_tasks = $6, log_rate_limit_in_bytes_per_second = $7,
               paid_services_allowed = $8, total_service_instances = $9, total_service_keys = $10, total_routes = $11,
               total_reserved_ports = $12, total_domains = $13, updated_at = now()
           returning *, null::uuid as "org_guid?", $14::bigint as "total_stored_in_mb?""#,
        quota.guid,
        quota.name,
        quota.total_memory_in_mb,
        quota.per_process_memory_in_mb,
        quota.total_instances,
        quota.per_app_tasks,
        quota.log_rate_limit_in_bytes_per_second,
        quota.paid_services_allowed,
        quota.total_service_instances,
        quota.total_service_keys,
        quota.total_routes,
        quota.total_reserved_ports,
        quota.total_domains,
        quota.total_stored_in_mb
    )
    .fetch_one(&mut *tx)
    .await?;
    match quota.total_stored_in_mb {
        Some(limit) => sqlx::query!(
            "insert into organization_quota_storage (quota_guid, total_stored_in_mb) values ($1, $2)
             on conflict (quota_guid) do update set total_stored_in_mb = $2",
            quota.guid,
            limit
        ),
        None => sqlx::query!("delete from organization_quota_storage where quota_guid = $1", quota.guid),
    }
    .execute(tx)
    .await?;
    Ok(row)
}

/// Writes a space quota: a new one, or all columns of one that is there.
///
/// # Errors
/// When the database fails; a taken name violates `space_quota_name_key`.
pub async fn space_quota_save_tx(tx: &mut PgConnection, quota: &QuotaRow) -> sqlx::Result<QuotaRow> {
    sqlx::query_as!(
        QuotaRow,
        r#"insert into space_quota (guid, name, total_memory_in_mb, per_process_memory_in_mb, total_instances,
               per_app_tasks, log_rate_limit_in_bytes_per_second, paid_services_allowed, total_service_instances,
               total_service_keys, total_routes, total_reserved_ports, org_guid)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
           on conflict (guid) do update set name = $2, total_memory_in_mb = $3, per_process_memory_in_mb = $4,
               total_instances = $5, per_app_tasks = $6, log_rate_limit_in_bytes_per_second = $7,
               paid_services_allowed = $8, total_service_instances = $9, total_service_keys = $10, total_routes = $11,
               total_reserved_ports = $12, updated_at = now()
           returning *, null::bigint as "total_domains?", null::bigint as "total_stored_in_mb?", false as "is_default!""#,
        quota.guid,
        quota.name,
        quota.total_memory_in_mb,
        quota.per_process_memory_in_mb,
        quota.total_instances,
        quota.per_app_tasks,
        quota.log_rate_limit_in_bytes_per_second,
        quota.paid_services_allowed,
        quota.total_service_instances,
        quota.total_service_keys,
        quota.total_routes,
        quota.total_reserved_ports,
        quota.org_guid
    )
    .fetch_one(tx)
    .await
}

/// An organization quota, locked until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn organization_quota_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<QuotaRow>> {
    sqlx::query_as!(
        QuotaRow,
        r#"select q.*, null::uuid as "org_guid?",
                  (select z.total_stored_in_mb from organization_quota_storage z where z.quota_guid = q.guid)
                      as "total_stored_in_mb?"
           from organization_quota q where guid = $1 for update of q"#,
        guid
    )
    .fetch_optional(tx)
    .await
}

/// A space quota, locked until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn space_quota_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<QuotaRow>> {
    sqlx::query_as!(
        QuotaRow,
        r#"select q.*, null::bigint as "total_domains?", null::bigint as "total_stored_in_mb?", false as "is_default!"
           from space_quota q
           where guid = $1 for update"#,
        guid
    )
    .fetch_optional(tx)
    .await
}

/// Puts organizations under a quota.
///
/// # Errors
/// When the database fails.
pub async fn organization_quota_apply_tx(tx: &mut PgConnection, quota: Uuid, orgs: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("update organization set quota_guid = $1, updated_at = now() where guid = any($2)", quota, orgs)
        .execute(tx)
        .await?;
    Ok(())
}

/// Puts spaces under a quota, or under none.
///
/// # Errors
/// When the database fails.
pub async fn space_quota_apply_tx(tx: &mut PgConnection, quota: Option<Uuid>, spaces: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("update space set quota_guid = $1, updated_at = now() where guid = any($2)", quota, spaces)
        .execute(tx)
        .await?;
    Ok(())
}

/// Removes an organization quota that no organization has.
///
/// # Errors
/// When the database fails; an organization that has it violates `organization_quota_guid_fkey`.
pub async fn organization_quota_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from organization_quota where guid = $1 and not is_default", guid).execute(tx).await?;
    Ok(())
}

/// Removes a space quota, unless a space has it.
///
/// # Errors
/// When the database fails.
pub async fn space_quota_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from space_quota q where guid = $1 and not exists (select 1 from space s where s.quota_guid = q.guid)",
        guid
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Of these organizations, those with a process whose log rate has no limit, by name.
///
/// # Errors
/// When the database fails.
pub async fn organizations_with_unlimited_logs_tx(tx: &mut PgConnection, orgs: &[Uuid]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "select o.name from organization o where o.guid = any($1) and exists (
             select 1 from space s join app a on a.space_guid = s.guid join process p on p.app_guid = a.guid
             where s.org_guid = o.guid and p.log_rate_limit < 0 and p.instances > 0) order by o.name",
        orgs
    )
    .fetch_all(tx)
    .await
}

/// Of these spaces, those with a process whose log rate has no limit, by name.
///
/// # Errors
/// When the database fails.
pub async fn spaces_with_unlimited_logs_tx(tx: &mut PgConnection, spaces: &[Uuid]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "select s.name from space s where s.guid = any($1) and exists (
             select 1 from app a join process p on p.app_guid = a.guid
             where a.space_guid = s.guid and p.log_rate_limit < 0 and p.instances > 0) order by s.name",
        spaces
    )
    .fetch_all(tx)
    .await
}

impl Store {
    /// One organization quota.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organization_quota_get(&self, guid: Uuid) -> sqlx::Result<Option<QuotaRow>> {
        sqlx::query_as!(
            QuotaRow,
            r#"select q.*, null::uuid as "org_guid?",
                      (select z.total_stored_in_mb from organization_quota_storage z where z.quota_guid = q.guid)
                          as "total_stored_in_mb?"
               from organization_quota q where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// One space quota.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_quota_get(&self, guid: Uuid) -> sqlx::Result<Option<QuotaRow>> {
        sqlx::query_as!(
            QuotaRow,
            r#"select q.*, null::bigint as "total_domains?", null::bigint as "total_stored_in_mb?", false as "is_default!"
               from space_quota q where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of organization quotas. The filter by organization sees these organizations only.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organization_quota_list(
        &self,
        options: &ListOptions,
        orgs: &Visible,
    ) -> sqlx::Result<(Vec<QuotaRow>, u64)> {
        const APPLIED: &str = "select 1 from organization o where o.quota_guid = q.guid and o.guid";
        const COLUMNS: &str =
            "q.*, null::uuid as org_guid, (select z.total_stored_in_mb from organization_quota_storage z
            where z.quota_guid = q.guid) as total_stored_in_mb";
        let mut listing = Listing::new("organization_quota q", "q", options);
        if let (Visible::Only(orgs), true) = (orgs, options.filter("organization_guids").is_some()) {
            listing.sql("exists (").sql(APPLIED).sql(" = any(").bind_uuids(orgs.clone()).sql("))").done();
        }
        listing.guids("guids", "q.guid").texts("names", "q.name").ordered_by("name", "lower(q.name)");
        listing.guids_through("organization_guids", APPLIED);
        listing.fetch(self.pool(), COLUMNS).await
    }

    /// A page of space quotas: all of them (`reader` = none), or those of organizations that the user manages and of
    /// spaces in which it has a role.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_quota_list(
        &self,
        options: &ListOptions,
        reader: Option<&str>,
    ) -> sqlx::Result<(Vec<QuotaRow>, u64)> {
        let mut listing = Listing::new("space_quota q", "q", options);
        if let Some(user) = reader {
            listing
                .sql(
                    "(exists (select 1 from role r where r.org_guid = q.org_guid and r.type = 'organization_manager'
                              and r.user_guid = ",
                )
                .bind_text(user)
                .sql(
                    ") or exists (select 1 from space s join role r on r.space_guid = s.guid
                                  where s.quota_guid = q.guid and r.user_guid = ",
                )
                .bind_text(user)
                .sql("))")
                .done();
        }
        listing.guids("guids", "q.guid").texts("names", "q.name").ordered_by("name", "lower(q.name)");
        listing.guids("organization_guids", "q.org_guid");
        listing.guids_through("space_guids", "select 1 from space s where s.quota_guid = q.guid and s.guid");
        listing
            .fetch(
                self.pool(),
                "q.*, null::bigint as total_domains, null::bigint as total_stored_in_mb, false as is_default",
            )
            .await
    }

    /// Whether a user may read a space quota, as [`Self::space_quota_list`] decides.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_quota_visible_to(&self, quota: Uuid, user: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"select exists (
                   select 1 from space_quota q where q.guid = $1
                   and (exists (select 1 from role r where r.org_guid = q.org_guid and r.type = 'organization_manager'
                                and r.user_guid = $2)
                        or exists (select 1 from space s join role r on r.space_guid = s.guid
                                   where s.quota_guid = q.guid and r.user_guid = $2))) as "visible!""#,
            quota,
            user
        )
        .fetch_one(self.pool())
        .await
    }

    /// Organizations under these quotas, as pairs of quota and organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn organizations_of_quotas(&self, quotas: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
        let rows = sqlx::query!(
            "select quota_guid, guid from organization where quota_guid = any($1) order by created_at, guid",
            quotas
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.quota_guid, row.guid)).collect())
    }

    /// Spaces under these quotas, as pairs of quota and space.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spaces_of_quotas(&self, quotas: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
        let rows = sqlx::query!(
            r#"select quota_guid as "quota_guid!", guid from space where quota_guid = any($1) order by created_at, guid"#,
            quotas
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.quota_guid, row.guid)).collect())
    }
}
