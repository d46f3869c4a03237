//! Controller-side payload work, from the job table.
//!
//! A job is written in the transaction of the request that wants it, claimed with skip-locked under a lease that is
//! renewed while it runs, tried a bounded number of times, and ends `COMPLETE` or `FAILED` with its reason. A handler
//! may run twice (a controller died between the work and its record), so every one is idempotent.

pub mod registry;
pub mod spaces_and_organizations;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use slipway_api_types::ErrorCode;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use slipway_chassis::{Shutdown, chain};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::context::Context;
use crate::domain::{DomainError, JobOutcome};
use crate::store::jobs::ClaimedJob;

/// Jobs of one controller at a time: more would take connections from requests.
const AT_ONCE: usize = 6;
/// How long a claim holds without renewal: a dead controller's jobs are taken over after this.
const LEASE: Duration = Duration::from_secs(60);
const RENEW: Duration = Duration::from_secs(20);
/// Tries of a job that fails for reasons of ours. With the pauses below: ten minutes. Those count too at which the
/// controller died: a job that kills whoever runs it would otherwise end one controller after the other, for ever.
const MAX_TRIES: i32 = 10;
/// A lost wake costs this much.
const PERIOD: Duration = Duration::from_secs(2);

/// The claiming of jobs, as a task.
pub const JOBS: Definition = Definition {
    name: "jobs",
    description: "Claims jobs and runs a few at a time",
    period: PERIOD,
    woken_by: "jobs that are written",
};

/// Claims jobs and runs them beside each other.
pub struct Jobs {
    context: Context,
    shutdown: Shutdown,
    holder: Uuid,
    room: Arc<Semaphore>,
}

impl Jobs {
    /// Claims for a holder of its own.
    #[must_use]
    pub fn new(context: Context, shutdown: Shutdown) -> Self {
        Self { context, shutdown, holder: Uuid::new_v4(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl BackgroundTask for Jobs {
    type Error = sqlx::Error;

    async fn run(&mut self) -> sqlx::Result<Next> {
        let free = self.room.available_permits();
        if free == 0 {
            return Ok(Next::AfterPeriod);
        }
        let claimed = self.context.store.job_claim(self.holder, LEASE, i64::try_from(free).unwrap_or(1)).await?;
        let full = claimed.len() == free;
        for job in claimed {
            // No more are claimed than there is room for, and only this task takes room.
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { break };
            let (context, holder) = (self.context.clone(), self.holder);
            self.shutdown.spawn(async move {
                let again = run(&context, holder, job).await;
                drop(permit);
                if full {
                    context.wake.jobs.wake();
                }
                // A pause shorter than the task's own is slept here; the task would make it longer.
                if let Some(pause) = again.filter(|pause| *pause < PERIOD) {
                    tokio::time::sleep(pause).await;
                    context.wake.jobs.wake();
                }
            });
        }
        Ok(Next::AfterPeriod)
    }
}

/// Runs a job once and records how it ended. Gives the pause after which it wants to run again.
async fn run(context: &Context, holder: Uuid, job: ClaimedJob) -> Option<Duration> {
    let (guid, operation, tries) = (job.guid, job.operation.clone(), job.tries);
    if tries > MAX_TRIES {
        abandon(context, holder, &job).await;
        return None;
    }
    let work = work(context, job);
    let result = tokio::select! {
        // The handler first: a result that is there counts, whatever the lease says.
        biased;
        result = work => result,
        () = keep(context, guid, holder) => {
            tracing::warn!(job.guid = %guid, operation, "a job's lease was lost; another controller has it");
            return None;
        }
    };
    let mut again = None;
    let recorded = match result {
        Ok(JobOutcome::Done(warnings)) => {
            let warnings: Vec<_> = warnings.into_iter().map(|detail| json!({ "detail": detail })).collect();
            context.store.job_complete(guid, holder, &json!(warnings)).await
        }
        Ok(JobOutcome::Wait(pause, polling)) => {
            let state = if polling { "POLLING" } else { "PROCESSING" };
            again = Some(pause);
            context.store.job_again(guid, holder, state, pause, false).await
        }
        Err(error) if error.retryable() && tries < MAX_TRIES => {
            let pause = Duration::from_secs(1 << tries.clamp(0, 7).unsigned_abs());
            tracing::warn!(job.guid = %guid, operation, tries, error = %chain(&error), "a job failed; it will run again");
            context.store.job_again(guid, holder, "PROCESSING", pause, true).await
        }
        Err(error) => {
            let reason = chain(&error).to_string();
            let detail = match error.code() {
                ErrorCode::ServerError => "An unknown error occurred.".to_owned(),
                _ => error.to_string(),
            };
            if error.retryable() {
                tracing::error!(job.guid = %guid, operation, tries, error = reason, "a job failed for good");
            } else {
                tracing::info!(job.guid = %guid, operation, error = reason, "a job was refused");
            }
            let errors = json!([error.code().entry(detail)]);
            context.store.job_fail(guid, holder, &errors, &reason).await
        }
    };
    if let Err(error) = recorded {
        // The lease runs out and the job runs again.
        tracing::warn!(job.guid = %guid, operation, error = %chain(&error), "a job's end was not recorded");
    }
    again
}

/// Ends a job whose last try has begun and never ended: what fails otherwise at its last try is not claimed again.
async fn abandon(context: &Context, holder: Uuid, job: &ClaimedJob) {
    let (guid, operation, deaths) = (job.guid, &job.operation, job.deaths.max(1));
    let times = if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") };
    let reason = format!(
        "The job {operation} was abandoned: the controller running it crashed {times}. \
         See the controllers' logs for the cause, fix it, then send the request again."
    );
    tracing::error!(job.guid = %guid, operation, deaths, "a job was abandoned: controllers crash while running it");
    let errors = json!([ErrorCode::ServerError.entry(reason.clone())]);
    if let Err(error) = context.store.job_fail(guid, holder, &errors, &reason).await {
        // The lease runs out and the job comes here again.
        tracing::warn!(job.guid = %guid, operation, error = %chain(&error), "a job's end was not recorded");
    }
}

async fn work(context: &Context, job: ClaimedJob) -> Result<JobOutcome, DomainError> {
    match registry::handler(&job.operation) {
        Some(handler) => handler(context.clone(), job).await,
        None => Err(DomainError::invalid(format!("This controller does not know the job {:?}.", job.operation))),
    }
}

/// Ends only when the lease is lost.
async fn keep(context: &Context, guid: Uuid, holder: Uuid) {
    loop {
        tokio::time::sleep(RENEW).await;
        match context.store.job_renew(guid, holder, LEASE).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(job.guid = %guid, error = %chain(&error), "a job's lease was not renewed"),
        }
    }
}
