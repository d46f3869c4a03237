//! Apps that get their bindings as files.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::Store;

/// The style in which an app gets its bindings; `None` = as a variable.
///
/// # Errors
/// When the database fails.
pub async fn binding_files_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select style from app_binding_files where app_guid = $1", app).fetch_optional(tx).await
}

/// Switches a style on. The one that is on before stays when it is another: gives the one that is on then.
///
/// # Errors
/// When the database fails.
pub async fn binding_files_on_tx(tx: &mut PgConnection, app: Uuid, style: &str) -> sqlx::Result<Option<String>> {
    sqlx::query!("insert into app_binding_files (app_guid, style) values ($1, $2) on conflict do nothing", app, style)
        .execute(&mut *tx)
        .await?;
    binding_files_tx(tx, app).await
}

/// Switches a style off; another one stays on.
///
/// # Errors
/// When the database fails.
pub async fn binding_files_off_tx(tx: &mut PgConnection, app: Uuid, style: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from app_binding_files where app_guid = $1 and style = $2", app, style).execute(tx).await?;
    Ok(())
}

impl Store {
    /// As [`binding_files_tx`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn binding_files(&self, app: Uuid) -> sqlx::Result<Option<String>> {
        let mut connection = self.pool().acquire().await?;
        binding_files_tx(&mut connection, app).await
    }
}
