//! Revisions: what an app was at each of its starts and deployments.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::Listing;
use crate::values::list::ListOptions;

/// A revision as stored, whether its droplet is still there, and whether it has served.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct RevisionRow {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub version: i32,
    pub description: String,
    pub droplet_guid: Option<Uuid>,
    pub environment: Option<Vec<u8>>,
    pub commands: Value,
    pub sidecars: Value,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub deployable: bool,
    pub served: bool,
}

/// A revision to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewRevision<'a> {
    pub guid: Uuid,
    pub app_guid: Uuid,
    pub version: i32,
    pub description: &'a str,
    pub droplet_guid: Uuid,
    pub environment: &'a [u8],
    pub commands: &'a Value,
    pub sidecars: &'a Value,
}

/// Inserts a revision; another one of the app with this version goes, since the counter begins anew one day.
///
/// # Errors
/// When the database fails.
pub async fn revision_insert_tx(tx: &mut PgConnection, new: &NewRevision<'_>) -> sqlx::Result<RevisionRow> {
    sqlx::query!("delete from revision where app_guid = $1 and version = $2", new.app_guid, new.version)
        .execute(&mut *tx)
        .await?;
    let row = sqlx::query_as!(
        RevisionRow,
        r#"insert into revision (guid, app_guid, version, description, droplet_guid, environment, commands, sidecars)
           values ($1, $2, $3, $4, $5, $6, $7, $8) returning *, true as "deployable!", false as "served!""#,
        new.guid,
        new.app_guid,
        new.version,
        new.description,
        new.droplet_guid,
        new.environment,
        new.commands,
        new.sidecars,
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!("insert into revision_unserved (guid) values ($1)", new.guid).execute(tx).await?;
    Ok(row)
}

/// Removes all but the newest `max_retained` revisions of an app.
///
/// # Errors
/// When the database fails.
pub async fn revisions_prune_tx(tx: &mut PgConnection, app: Uuid, max_retained: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from revision where guid in
             (select guid from revision where app_guid = $1 order by created_at desc, guid offset $2)",
        app,
        max_retained
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The newest revision of an app.
///
/// # Errors
/// When the database fails.
pub async fn revision_latest_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Option<RevisionRow>> {
    sqlx::query_as!(
        RevisionRow,
        r#"select r.*, coalesce(d.state = 'STAGED', false) as "deployable!",
                  not exists (select 1 from revision_unserved u where u.guid = r.guid) as "served!"
           from revision r left join droplet d on d.guid = r.droplet_guid
           where r.app_guid = $1 order by r.created_at desc, r.guid limit 1"#,
        app
    )
    .fetch_optional(tx)
    .await
}

/// One revision of an app.
///
/// # Errors
/// When the database fails.
pub async fn revision_of_app_tx(tx: &mut PgConnection, app: Uuid, guid: Uuid) -> sqlx::Result<Option<RevisionRow>> {
    sqlx::query_as!(
        RevisionRow,
        r#"select r.*, coalesce(d.state = 'STAGED', false) as "deployable!",
                  not exists (select 1 from revision_unserved u where u.guid = r.guid) as "served!"
           from revision r left join droplet d on d.guid = r.droplet_guid
           where r.app_guid = $1 and r.guid = $2"#,
        app,
        guid
    )
    .fetch_optional(tx)
    .await
}

/// Start commands that the developer set, by process type: those of the newest process of each type.
///
/// # Errors
/// When the database fails.
pub async fn commands_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<(String, Option<String>)>> {
    let rows = sqlx::query!(
        "select distinct on (type) type as kind, command from process where app_guid = $1
         order by type, created_at desc, guid",
        app
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.kind, row.command)).collect())
}

/// Says of which revision the app's own processes are.
///
/// # Errors
/// When the database fails.
pub async fn processes_revision_tx(tx: &mut PgConnection, app: Uuid, revision: Option<Uuid>) -> sqlx::Result<()> {
    sqlx::query!(
        "update process set revision_guid = $2 where app_guid = $1 and deployment_guid is null",
        app,
        revision
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that a revision has served.
///
/// # Errors
/// When the database fails.
pub async fn revision_served_tx(tx: &mut PgConnection, revision: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from revision_unserved where guid = $1", revision).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision_get(&self, guid: Uuid) -> sqlx::Result<Option<RevisionRow>> {
        sqlx::query_as!(
            RevisionRow,
            r#"select r.*, coalesce(d.state = 'STAGED', false) as "deployable!",
                      not exists (select 1 from revision_unserved u where u.guid = r.guid) as "served!"
               from revision r left join droplet d on d.guid = r.droplet_guid where r.guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of an app's revisions; with `deployed`, only those of which processes are wanted now: not of one
    /// that a deployment has given up and still keeps.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision_list(
        &self,
        options: &ListOptions,
        app: Uuid,
        deployed: bool,
    ) -> sqlx::Result<(Vec<RevisionRow>, u64)> {
        let mut listing = Listing::new("revision r left join droplet d on d.guid = r.droplet_guid", "r", options);
        listing.sql("r.app_guid = any(").bind_uuids(vec![app]).sql(")").done();
        if deployed {
            listing
                .sql(
                    "exists (select 1 from process p join app a on a.guid = p.app_guid
                             where p.revision_guid = r.guid and p.spec is not null and a.state = 'STARTED'
                               and (p.deployment_guid is null or p.instances > 0 or exists (
                                    select 1 from deployment one
                                    where one.guid = p.deployment_guid and one.status_value = 'ACTIVE')))",
                )
                .done();
        }
        listing.guids("guids", "r.guid").texts("versions", "r.version::text");
        listing.texts("deployable", "coalesce(d.state = 'STAGED', false)::text");
        let columns = "r.*, coalesce(d.state = 'STAGED', false) as deployable,
                       not exists (select 1 from revision_unserved u where u.guid = r.guid) as served";
        listing.fetch(self.pool(), columns).await
    }

    /// Notes of which revisions an instance serves that were not known to: it is ready, and where the check only asks
    /// whether the program runs, it has run for `steady_s` seconds. Only what is of an app's own processes counts; whether
    /// a deployment takes over is its own matter. Beside `web`, nothing else tells whether a version is good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revisions_seen_serving(&self, steady_s: i32) -> sqlx::Result<()> {
        sqlx::query!(
            "delete from revision_unserved where guid in (
                 select u.guid from revision_unserved u where exists (
                     select 1 from process p join assignment a on a.group_id = p.guid
                     where p.revision_guid = u.guid and p.deployment_guid is null and a.spec = p.spec and a.kind = 'lrp'
                       and a.tombstone_at is null and a.intent = 'run' and a.observed = 'running' and a.ready
                       and coalesce(a.observed_since, a.created_at) <= now() - make_interval(secs => case
                           when p.health_check ->> 'type' = 'process' then $1::double precision else 0 end)
                       and (p.type = 'web' or not exists (
                            select 1 from process w
                            where w.revision_guid = u.guid and w.type = 'web' and w.instances > 0)))
                 for update skip locked)",
            f64::from(steady_s)
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
