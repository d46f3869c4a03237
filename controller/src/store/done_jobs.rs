//! Jobs whose work was done before the answer: clients ask about a job all the same, and find it complete, or failed.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// Writes a job that is complete.
///
/// # Errors
/// When the database fails.
pub async fn job_done_tx(
    tx: &mut PgConnection,
    operation: &str,
    kind: &str,
    resource: Uuid,
    warnings: &Value,
    created_by: &str,
) -> sqlx::Result<Uuid> {
    let guid = Uuid::new_v4();
    sqlx::query!(
        "insert into job (guid, operation, resource_type, resource_guid, state, warnings, created_by)
         values ($1, $2, $3, $4, 'COMPLETE', $5, $6)",
        guid,
        operation,
        kind,
        resource,
        warnings,
        created_by
    )
    .execute(tx)
    .await?;
    Ok(guid)
}

/// Writes a job that has failed with these errors.
///
/// # Errors
/// When the database fails.
pub async fn job_refused_tx(
    tx: &mut PgConnection,
    operation: &str,
    kind: &str,
    resource: Uuid,
    errors: &Value,
    created_by: &str,
) -> sqlx::Result<Uuid> {
    let guid = Uuid::new_v4();
    sqlx::query!(
        "insert into job (guid, operation, resource_type, resource_guid, state, errors, created_by)
         values ($1, $2, $3, $4, 'FAILED', $5, $6)",
        guid,
        operation,
        kind,
        resource,
        errors,
        created_by
    )
    .execute(tx)
    .await?;
    Ok(guid)
}
