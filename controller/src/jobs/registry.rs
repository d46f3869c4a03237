//! Which operation is done by what: the one place where jobs are registered.

use futures::future::BoxFuture;

use super::{JobOutcome, spaces_and_organizations};
use crate::context::Context;
use crate::domain::{DomainError, apps, removal};
use crate::store::jobs::ClaimedJob;

/// Does one job. Idempotent: it may run again after it has succeeded.
pub type Handler = fn(Context, ClaimedJob) -> BoxFuture<'static, Result<JobOutcome, DomainError>>;

/// The handler of an operation.
#[must_use]
pub fn handler(operation: &str) -> Option<Handler> {
    HANDLERS.iter().find(|(name, _)| *name == operation).map(|(_, handler)| *handler)
}

/// `("app.delete", |context, job| Box::pin(apps::delete(context, job)))`, one line per operation.
const HANDLERS: &[(&str, Handler)] = &[
    ("app.delete", |context, job| Box::pin(apps::delete_job(context, job))),
    ("package.delete", |context, job| Box::pin(removal::job(context, job))),
    ("droplet.delete", |context, job| Box::pin(removal::job(context, job))),
    ("buildpack.delete", |context, job| Box::pin(removal::job(context, job))),
    ("space.delete", |context, job| Box::pin(spaces_and_organizations::delete_space(context, job))),
    ("organization.delete", |context, job| Box::pin(spaces_and_organizations::delete_organization(context, job))),
    ("organization_quota.delete", |context, job| Box::pin(removal::job(context, job))),
    ("security_group.delete", |context, job| Box::pin(removal::job(context, job))),
    ("admin.clear_buildpack_cache", |context, job| Box::pin(removal::job(context, job))),
    ("app.clear_buildpack_cache", |context, job| Box::pin(removal::job(context, job))),
    ("space_quota.delete", |context, job| Box::pin(removal::job(context, job))),
];
