//! How much of its quotas and of the cells a space uses, and what is used as a whole.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::segments::SHARED;

/// Limits (`None` = none) and what counts against them, for a space and its organization. Memory in MiB. Running
/// processes of other apps, and tasks and builds that go on, count; `except_app`'s own processes do not.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "figures of the two quotas")]
pub struct QuotaFigures {
    pub org_name: String,
    pub space_name: String,
    pub org_memory: Option<i64>,
    pub org_per_process: Option<i64>,
    pub org_instances: Option<i64>,
    pub org_tasks: Option<i64>,
    /// Bytes per second.
    pub org_log_rate: Option<i64>,
    pub space_memory: Option<i64>,
    pub space_per_process: Option<i64>,
    pub space_instances: Option<i64>,
    pub space_tasks: Option<i64>,
    /// Bytes per second.
    pub space_log_rate: Option<i64>,
    pub org_memory_used: i64,
    pub org_instances_used: i64,
    pub space_memory_used: i64,
    pub space_instances_used: i64,
    pub org_log_rate_used: i64,
    pub space_log_rate_used: i64,
    pub app_tasks_used: i64,
    /// MiB; no quota has a limit of it.
    pub org_disk_used: i64,
    /// What the app that is left out runs with at the moment.
    pub app_memory_now: i64,
    /// What the app that is left out runs with at the moment.
    pub app_disk_now: i64,
}

/// What the largest cell offers, MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LargestCell {
    /// The isolation segment that it is in; `None` = the shared one.
    pub segment: Option<String>,
    /// For instances.
    pub memory_mb: Option<i64>,
    /// For instances.
    pub disk_mb: Option<i64>,
    /// Of all these cells together.
    pub all_memory_mb: Option<i64>,
    /// Of all these cells together.
    pub all_disk_mb: Option<i64>,
    /// Other organizations may use these cells too.
    pub shared: bool,
}

/// Locks the space's organization (changes of its use are serialised by that row) and reads the figures.
///
/// # Errors
/// When the database fails.
pub async fn quota_figures_tx(tx: &mut PgConnection, space: Uuid, except_app: Uuid) -> sqlx::Result<QuotaFigures> {
    sqlx::query!(
        "select o.guid from organization o join space s on s.org_guid = o.guid where s.guid = $1 for no key update of o",
        space
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query_as!(
        QuotaFigures,
        r#"with here as (
               select o.guid as org, o.name as org_name, s.name as space_name, o.quota_guid as org_quota,
                      s.quota_guid as space_quota
               from space s join organization o on o.guid = s.org_guid where s.guid = $1),
           used as (
               select a.space_guid as space, p.instances::bigint as instances, p.instances * p.memory_in_mb as memory,
                      p.instances * p.disk_in_mb as disk,
                      p.instances * greatest(p.log_rate_limit, 0) as log_rate
               from process p join app a on a.guid = p.app_guid join space s on s.guid = a.space_guid, here
               where s.org_guid = here.org and a.state = 'STARTED' and a.guid <> $2
               union all
               select a.space_guid, 0, t.memory_in_mb, t.disk_in_mb, greatest(t.log_rate_limit, 0) from task t join app a on a.guid = t.app_guid
               join space s on s.guid = a.space_guid, here
               where s.org_guid = here.org and t.state in ('PENDING', 'RUNNING')
               union all
               select a.space_guid, 0, b.staging_memory_in_mb, b.staging_disk_in_mb, 0 from build b join app a on a.guid = b.app_guid
               join space s on s.guid = a.space_guid, here
               where s.org_guid = here.org and b.state = 'STAGING')
           select here.org_name, here.space_name, oq.total_memory_in_mb as org_memory,
                  oq.per_process_memory_in_mb as org_per_process, oq.total_instances as org_instances,
                  oq.per_app_tasks as org_tasks, oq.log_rate_limit_in_bytes_per_second as org_log_rate,
                  sq.total_memory_in_mb as "space_memory?",
                  sq.per_process_memory_in_mb as "space_per_process?", sq.total_instances as "space_instances?",
                  sq.per_app_tasks as "space_tasks?",
                  sq.log_rate_limit_in_bytes_per_second as "space_log_rate?",
                  coalesce((select sum(memory) from used), 0)::bigint as "org_memory_used!",
                  coalesce((select sum(instances) from used), 0)::bigint as "org_instances_used!",
                  coalesce((select sum(memory) from used where space = $1), 0)::bigint as "space_memory_used!",
                  coalesce((select sum(instances) from used where space = $1), 0)::bigint as "space_instances_used!",
                  coalesce((select sum(log_rate) from used), 0)::bigint as "org_log_rate_used!",
                  coalesce((select sum(log_rate) from used where space = $1), 0)::bigint as "space_log_rate_used!",
                  coalesce((select sum(disk) from used), 0)::bigint as "org_disk_used!",
                  coalesce((select sum(p.instances * p.memory_in_mb) from process p join app a on a.guid = p.app_guid
                            where a.guid = $2 and a.state = 'STARTED'), 0)::bigint as "app_memory_now!",
                  coalesce((select sum(p.instances * p.disk_in_mb) from process p join app a on a.guid = p.app_guid
                            where a.guid = $2 and a.state = 'STARTED'), 0)::bigint as "app_disk_now!",
                  (select count(*) from task where app_guid = $2 and state in ('PENDING', 'RUNNING'))
                      as "app_tasks_used!"
           from here join organization_quota oq on oq.guid = here.org_quota
           left join space_quota sq on sq.guid = here.space_quota"#,
        space,
        except_app
    )
    .fetch_one(tx)
    .await
}

/// How many private domains an organization has, and may have.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "figures of the quota")]
pub struct DomainFigures {
    pub name: String,
    pub limit: Option<i64>,
    pub used: i64,
}

/// Locks the organization and counts its private domains.
///
/// # Errors
/// When the database fails.
pub async fn domain_figures_tx(tx: &mut PgConnection, org: Uuid) -> sqlx::Result<Option<DomainFigures>> {
    sqlx::query!("select guid from organization where guid = $1 for no key update", org)
        .fetch_optional(&mut *tx)
        .await?;
    sqlx::query_as!(
        DomainFigures,
        r#"select o.name, q.total_domains as "limit", (select count(*) from domain d where d.org_guid = o.guid) as "used!"
           from organization o join organization_quota q on q.guid = o.quota_guid where o.guid = $1"#,
        org
    )
    .fetch_optional(tx)
    .await
}

/// What the largest cells offer on which apps of this space may run: those of its isolation segment. Nothing while there
/// is none. Segments are compared as the planner compares them: without regard to case.
///
/// # Errors
/// When the database fails.
pub async fn largest_cell_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<LargestCell> {
    sqlx::query_as!(
        LargestCell,
        r#"with here as (
               select case when g.guid <> $2 then g.name end as segment, o.guid as org, g.guid as segment_guid
               from space s join organization o on o.guid = s.org_guid
               left join isolation_segment g
                   on g.guid = coalesce(s.isolation_segment_guid, o.default_isolation_segment_guid)
               where s.guid = $1)
           select (select segment from here) as segment, max(memory_mb) as memory_mb, max(disk_mb) as disk_mb,
                  sum(memory_mb)::bigint as all_memory_mb, sum(disk_mb)::bigint as all_disk_mb,
                  (select case when segment is null then exists (select 1 from organization x where x.guid <> here.org)
                          else exists (select 1 from isolation_segment_organization e
                                       where e.isolation_segment_guid = here.segment_guid
                                         and e.org_guid <> here.org) end
                   from here) as "shared!"
           from cell where state in ('connected', 'suspect')
             and lower(isolation_segment) is not distinct from lower((select segment from here))"#,
        space,
        SHARED
    )
    .fetch_one(tx)
    .await
}

/// What some spaces use, as a usage summary tells it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the answer")]
pub struct Usage {
    pub started_instances: i64,
    pub memory_in_mb: i64,
    pub routes: i64,
    pub service_instances: i64,
    pub reserved_ports: i64,
    /// Private domains.
    pub domains: i64,
    /// Tasks under way.
    pub per_app_tasks: i64,
    pub service_keys: i64,
    pub apps: i64,
}

impl Store {
    /// What these spaces use; `org` is whose private domains count (`None` = everybody's).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage_of(&self, spaces: &[Uuid], org: Option<Uuid>) -> sqlx::Result<Usage> {
        sqlx::query_as!(
            Usage,
            r#"with p as (select p.instances, p.memory_in_mb from process p join app a on a.guid = p.app_guid
                          where a.state = 'STARTED' and a.space_guid = any($1)),
                    t as (select t.memory_in_mb from task t join app a on a.guid = t.app_guid
                          where t.state in ('PENDING', 'RUNNING', 'CANCELING') and a.space_guid = any($1))
               select coalesce((select sum(instances) from p), 0)::bigint as "started_instances!",
                      (coalesce((select sum(instances * memory_in_mb) from p), 0)
                       + coalesce((select sum(memory_in_mb) from t), 0))::bigint as "memory_in_mb!",
                      (select count(*) from route where space_guid = any($1)) as "routes!",
                      (select count(*) from service_instance where space_guid = any($1) and type = 'managed')
                          as "service_instances!",
                      (select count(*) from route where space_guid = any($1) and port is not null) as "reserved_ports!",
                      (select count(*) from domain where org_guid is not null and ($2::uuid is null or org_guid = $2))
                          as "domains!",
                      (select count(*) from t) as "per_app_tasks!",
                      (select count(*) from app where space_guid = any($1)) as "apps!",
                      (select count(*) from service_binding b join service_instance i on i.guid = b.service_instance_guid
                       where b.type = 'key' and i.space_guid = any($1)) as "service_keys!""#,
            spaces,
            org
        )
        .fetch_one(self.pool())
        .await
    }

    /// What the whole platform uses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage_of_all(&self) -> sqlx::Result<Usage> {
        let spaces = sqlx::query_scalar!("select guid from space").fetch_all(self.pool()).await?;
        self.usage_of(&spaces, None).await
    }
}
