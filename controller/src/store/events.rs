//! Audit and app events.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::audit::NewEvent;
use crate::values::list::ListOptions;

/// An event as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct EventRow {
    pub guid: Uuid,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub actor_guid: String,
    pub actor_type: String,
    pub actor_name: String,
    pub target_guid: String,
    pub target_type: String,
    pub target_name: String,
    pub data: Value,
    pub space_guid: Option<Uuid>,
    pub org_guid: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "e.guid, e.type, e.actor_guid, e.actor_type, e.actor_name, e.target_guid, e.target_type,
    e.target_name, e.data, e.space_guid, e.org_guid, e.created_at";

/// Which part of a sequence of events.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "two ends, a direction and a bound")]
pub struct Span {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub descending: bool,
    pub limit: i64,
}

/// Records an event in the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn event_record_tx(tx: &mut PgConnection, event: &NewEvent) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name,
                            data, space_guid, org_guid)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        Uuid::new_v4(),
        &*event.kind,
        event.actor.guid,
        event.actor.kind,
        event.actor.name,
        event.target.guid,
        event.target.kind,
        event.target.name,
        Value::Object(event.data.clone()),
        event.space,
        event.org,
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// A page of the events in these spaces and organizations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn event_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        orgs: &Visible,
    ) -> sqlx::Result<(Vec<EventRow>, u64)> {
        let mut listing = Listing::of_unchanging("event e", "e", options);
        if let (Visible::Only(spaces), Visible::Only(orgs)) = (spaces, orgs) {
            listing
                .sql("(e.space_guid = any(")
                .bind_uuids(spaces.clone())
                .sql(") or e.org_guid = any(")
                .bind_uuids(orgs.clone())
                .sql("))")
                .done();
        }
        listing.guids("guids", "e.guid").texts("types", "e.type").texts("target_guids", "e.target_guid");
        listing.not_texts("target_guids[not]", "e.target_guid");
        listing.guids("space_guids", "e.space_guid").guids("organization_guids", "e.org_guid");
        listing.insertion_order("e.seq");
        listing.fetch(self.pool(), COLUMNS).await
    }

    /// Events of these kinds of one app: the first in the direction of the span.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events_of_app(&self, app: Uuid, kinds: &[&str], span: &Span) -> sqlx::Result<Vec<EventRow>> {
        let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        sqlx::query_as!(
            EventRow,
            r#"select guid, type as "kind", actor_guid, actor_type, actor_name, target_guid, target_type,
                      target_name, data, space_guid, org_guid, created_at
               from event
               where target_guid = $1 and target_type = 'app' and created_at >= $2 and created_at < $3
                     and type = any($4)
               order by case when $5 then -seq else seq end limit $6"#,
            app.to_string(),
            span.from,
            span.to,
            &kinds,
            span.descending,
            span.limit
        )
        .fetch_all(self.pool())
        .await
    }

    /// One event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn event_get(&self, guid: Uuid) -> sqlx::Result<Option<EventRow>> {
        sqlx::query_as!(
            EventRow,
            r#"select guid, type as "kind", actor_guid, actor_type, actor_name, target_guid, target_type,
                      target_name, data, space_guid, org_guid, created_at
               from event where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }
}
