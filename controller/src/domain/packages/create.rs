//! Making packages, empty or as copies, and deleting them.

use serde_json::json;
use uuid::Uuid;

use crate::context::Context;
use crate::domain::audit::AuditSubject;
use crate::domain::lifecycle::{app_event, lock, record};
use crate::domain::metadata::MetadataChange;
use crate::domain::{DomainError, DomainResult, removal, stored};
use crate::store::apps::AppRow;
use crate::store::blobs::package_keep_tx;
use crate::store::packages::{PackageRow, package_insert_tx};

/// A package to be made.
#[derive(Clone, Debug)]
pub(crate) struct PackageCreate {
    /// Of this app.
    pub(crate) app: Uuid,
    /// A copy of this one; `None` = to be uploaded.
    pub(crate) source: Option<Uuid>,
    /// Labels and annotations.
    pub(crate) metadata: MetadataChange,
}

/// Makes a package.
///
/// # Errors
/// [`DomainError::Invalid`] when the source is not ready, or the app's organization would store too much.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: PackageCreate) -> DomainResult<PackageRow> {
    let metadata = &wish.metadata;
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, wish.app).await?;
    let unready = || DomainError::invalid("Source package is not ready to be copied.");
    let source = match wish.source {
        // It stays until the copy is there, and with it the blob.
        Some(source) => Some(package_keep_tx(&mut tx, source).await?.ok_or_else(unready)?),
        None => None,
    };
    let blob = match &source {
        Some(source) => match (&source.blob, source.blob_size) {
            (Some(blob), Some(size)) => Some((blob.as_slice(), size)),
            _ => return Err(unready()),
        },
        None => None,
    };
    let guid = Uuid::new_v4();
    if let Some((_, size)) = blob {
        stored::check_tx(&mut tx, &context.config.limits, app.guid, size).await?;
    }
    let row = package_insert_tx(&mut tx, guid, app.guid, blob, &metadata.labels, &metadata.annotations).await?;
    record(&mut tx, "audit.app.package.create", actor, &app, json!({ "package_guid": guid })).await?;
    tx.commit().await?;
    Ok(row)
}

/// Asks for the removal of a package of this app; gives the job.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, app: &AppRow, package: Uuid) -> DomainResult<Uuid> {
    let data = json!({ "package_guid": package });
    let event = app_event(context, "audit.app.package.delete", actor, app, data).await?;
    removal::request_recorded(context, &event, "package.delete", "package", package).await
}
