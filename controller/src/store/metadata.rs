//! Labels and annotations of rows that nothing else of is changed by clients.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::Store;
use crate::values::metadata::MetadataChange;

/// Where the rows are.
#[derive(Clone, Copy, Debug)]
pub enum Labelled {
    /// Builds.
    Build,
    /// Deployments.
    Deployment,
    /// Droplets.
    Droplet,
    /// Packages.
    Package,
    /// Revisions.
    Revision,
    /// Bindings of services to apps, routes and keys.
    ServiceBinding,
    /// Tasks.
    Task,
}

impl Labelled {
    const fn table(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Deployment => "deployment",
            Self::Droplet => "droplet",
            Self::Package => "package",
            Self::Revision => "revision",
            Self::ServiceBinding => "service_binding",
            Self::Task => "task",
        }
    }
}

/// Changes labels and annotations of a row; without such a row it does nothing.
///
/// # Errors
/// When the database fails.
pub async fn relabel_tx(
    tx: &mut PgConnection,
    rows: Labelled,
    guid: Uuid,
    change: &MetadataChange,
) -> sqlx::Result<()> {
    // The table is one of the names above, never a client's text.
    let statement = format!(
        "update {} set labels = jsonb_strip_nulls(labels || $2),
                annotations = jsonb_strip_nulls(annotations || $3), updated_at = now() where guid = $1",
        rows.table()
    );
    let update = sqlx::query(AssertSqlSafe(statement)).bind(guid).bind(&change.labels).bind(&change.annotations);
    update.execute(tx).await?;
    Ok(())
}

impl Store {
    /// [`relabel_tx`] with nothing beside it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn relabel(&self, rows: Labelled, guid: Uuid, change: &MetadataChange) -> sqlx::Result<()> {
        relabel_tx(&mut *self.pool().acquire().await?, rows, guid, change).await
    }
}
