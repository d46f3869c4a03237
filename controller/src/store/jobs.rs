//! The job table: written in the caller's transaction, claimed with skip-locked and a lease.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::Store;

/// A job to be done after the caller's commit.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// `app.delete`; must be known to [`crate::jobs::registry`].
    pub operation: &'static str,
    /// What it is about: `app`.
    pub resource_type: &'static str,
    /// What it is about.
    pub resource_guid: Uuid,
    /// What the handler needs. Never a secret.
    pub payload: Value,
    /// Who asked for it.
    pub created_by: String,
}

/// A job as clients see it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct JobRow {
    pub guid: Uuid,
    pub operation: String,
    pub resource_type: Option<String>,
    pub resource_guid: Option<Uuid>,
    pub state: String,
    pub errors: Value,
    pub warnings: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A job that this controller has claimed.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct ClaimedJob {
    pub guid: Uuid,
    pub operation: String,
    pub resource_guid: Option<Uuid>,
    pub payload: Value,
    /// How often it was claimed, this time included.
    pub tries: i32,
    /// How often whoever had claimed it was gone before it said how the job ended.
    pub deaths: i32,
    pub created_by: Option<String>,
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// Writes a job in the caller's transaction. Wake the task `jobs` after the commit.
///
/// # Errors
/// When the database fails.
pub async fn job_create_tx(tx: &mut PgConnection, job: &NewJob) -> sqlx::Result<Uuid> {
    let guid = Uuid::new_v4();
    sqlx::query!(
        "insert into job (guid, operation, resource_type, resource_guid, payload, created_by)
         values ($1, $2, $3, $4, $5, $6)",
        guid,
        job.operation,
        job.resource_type,
        job.resource_guid,
        job.payload,
        job.created_by
    )
    .execute(tx)
    .await?;
    Ok(guid)
}

/// Writes a job that the caller's own transaction has already done: clients of slow operations expect a job, and this
/// one reads `COMPLETE` at first look.
///
/// # Errors
/// When the database fails.
pub async fn job_completed_tx(tx: &mut PgConnection, job: &NewJob) -> sqlx::Result<Uuid> {
    let guid = job_create_tx(tx, job).await?;
    sqlx::query!("update job set state = 'COMPLETE' where guid = $1", guid).execute(tx).await?;
    Ok(guid)
}

/// Lets one transaction at a time ask for this operation about this resource.
///
/// # Errors
/// When the database fails.
pub async fn job_lock_tx(tx: &mut PgConnection, operation: &str, resource: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1 || $2::text, 0)) as locked",
        operation,
        resource.to_string()
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

/// An open job of this operation about this resource, if there is one: a DELETE that is sent again is answered with
/// the job of the first.
///
/// # Errors
/// When the database fails.
pub async fn job_open_for_tx(tx: &mut PgConnection, operation: &str, resource: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select guid from job where operation = $1 and resource_guid = $2 and state in ('PROCESSING', 'POLLING') limit 1",
        operation,
        resource
    )
    .fetch_optional(tx)
    .await
}

impl Store {
    /// One job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_get(&self, guid: Uuid) -> sqlx::Result<Option<JobRow>> {
        sqlx::query_as!(
            JobRow,
            "select guid, operation, resource_type, resource_guid, state, errors, warnings, created_at, updated_at
             from job where guid = $1",
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// Claims up to `limit` jobs whose time has come and that nobody holds. Whoever ends a job or puts it back gives up
    /// its lease: a lease that ran out is one whose holder died.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_claim(&self, holder: Uuid, lease: Duration, limit: i64) -> sqlx::Result<Vec<ClaimedJob>> {
        sqlx::query_as!(
            ClaimedJob,
            "update job set lease_holder = $1, lease_until = now() + $2, tries = tries + 1, updated_at = now(),
                            deaths = deaths + case when lease_until is null then 0 else 1 end
             where guid in (select guid from job
                            where state in ('PROCESSING', 'POLLING') and run_at <= now()
                              and (lease_until is null or lease_until < now())
                            order by run_at limit $3 for update skip locked)
             returning guid, operation, resource_guid, payload, tries, deaths, created_by",
            holder,
            interval(lease),
            limit
        )
        .fetch_all(self.pool())
        .await
    }

    /// Holds a job longer. False when it is no longer ours.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_renew(&self, guid: Uuid, holder: Uuid, lease: Duration) -> sqlx::Result<bool> {
        let done = sqlx::query!(
            "update job set lease_until = now() + $3 where guid = $1 and lease_holder = $2 and state in ('PROCESSING', 'POLLING')",
            guid,
            holder,
            interval(lease)
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a job well.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_complete(&self, guid: Uuid, holder: Uuid, warnings: &Value) -> sqlx::Result<()> {
        sqlx::query!(
            "update job set state = 'COMPLETE', warnings = $3, errors = '[]', lease_until = null, updated_at = now()
             where guid = $1 and lease_holder = $2",
            guid,
            holder,
            warnings
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Puts a job back, to run again after `pause`. `counted` = false gives back the try: waiting is no failure.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_again(
        &self,
        guid: Uuid,
        holder: Uuid,
        state: &str,
        pause: Duration,
        counted: bool,
    ) -> sqlx::Result<()> {
        sqlx::query!(
            "update job set state = $3, run_at = now() + $4, lease_until = null, updated_at = now(),
                            tries = tries - case when $5 then 0 else 1 end
             where guid = $1 and lease_holder = $2",
            guid,
            holder,
            state,
            interval(pause),
            counted
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Ends a job badly.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_fail(&self, guid: Uuid, holder: Uuid, errors: &Value, reason: &str) -> sqlx::Result<()> {
        sqlx::query!(
            "update job set state = 'FAILED', errors = $3, dead_reason = $4, lease_until = null, updated_at = now()
             where guid = $1 and lease_holder = $2",
            guid,
            holder,
            errors,
            reason
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
