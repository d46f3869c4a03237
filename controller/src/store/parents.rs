//! Spaces and organizations as parents of listed resources.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::Store;

/// A space with its organization.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct SpaceWithOrg {
    pub guid: Uuid,
    pub name: String,
    pub quota_guid: Option<Uuid>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub org_guid: Uuid,
    pub org_name: String,
    pub suspended: bool,
    pub org_quota_guid: Uuid,
    pub org_labels: Value,
    pub org_annotations: Value,
    pub org_created_at: DateTime<Utc>,
    pub org_updated_at: DateTime<Utc>,
}

impl Store {
    /// These spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spaces_with_orgs(&self, spaces: &[Uuid]) -> sqlx::Result<Vec<SpaceWithOrg>> {
        sqlx::query_as!(
            SpaceWithOrg,
            "select s.guid, s.name, s.quota_guid, s.labels, s.annotations, s.created_at, s.updated_at,
                    o.guid as org_guid, o.name as org_name, o.suspended, o.quota_guid as org_quota_guid,
                    o.labels as org_labels, o.annotations as org_annotations, o.created_at as org_created_at,
                    o.updated_at as org_updated_at
             from space s join organization o on o.guid = s.org_guid where s.guid = any($1)
             order by s.created_at, s.guid",
            spaces
        )
        .fetch_all(self.pool())
        .await
    }
}
