//! Routes.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A route as stored, with its domain's name.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct RouteRow {
    pub guid: Uuid,
    pub space_guid: Uuid,
    pub domain_guid: Uuid,
    pub domain_name: String,
    pub host: String,
    pub path: String,
    pub port: Option<i32>,
    pub protocol: String,
    pub options: Option<Value>,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl RouteRow {
    /// `host.domain/path`, without scheme.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(&self.host, &self.domain_name, &self.path)
    }
}

/// `host.domain/path`, without scheme; a route without host is at the domain itself.
#[must_use]
pub fn url_of(host: &str, domain: &str, path: &str) -> String {
    let dot = if host.is_empty() { "" } else { "." };
    format!("{host}{dot}{domain}{path}")
}

/// A route to be made. Host and path are checked; the host is in the case in which it was written.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewRoute {
    pub space_guid: Uuid,
    pub domain_guid: Uuid,
    pub host: String,
    pub path: String,
    pub options: Option<Value>,
    pub metadata: MetadataChange,
}

/// Makes a route.
///
/// # Errors
/// When the database fails; a taken address violates `route_address_key`.
pub async fn route_insert_tx(tx: &mut PgConnection, route: &NewRoute) -> sqlx::Result<Uuid> {
    let guid = Uuid::new_v4();
    sqlx::query!(
        "insert into route (guid, space_guid, domain_guid, host, path, options, labels, annotations)
         values ($1, $2, $3, $4, $5, $6, jsonb_strip_nulls($7), jsonb_strip_nulls($8))",
        guid,
        route.space_guid,
        route.domain_guid,
        route.host,
        route.path,
        route.options,
        route.metadata.labels,
        route.metadata.annotations
    )
    .execute(tx)
    .await?;
    Ok(guid)
}

/// The route at this address, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn route_at_tx(
    tx: &mut PgConnection,
    domain: Uuid,
    host: &str,
    path: &str,
) -> sqlx::Result<Option<RouteRow>> {
    sqlx::query_as!(
        RouteRow,
        "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid
         where r.domain_guid = $1 and lower(r.host) = lower($2) and r.path = $3 and r.port is null",
        domain,
        host,
        path
    )
    .fetch_optional(tx)
    .await
}

/// The route, locked: destinations of one route change one after the other.
///
/// # Errors
/// When the database fails.
pub async fn route_lock_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<Option<RouteRow>> {
    sqlx::query_as!(
        RouteRow,
        "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid
         where r.guid = $1 for update of r",
        guid
    )
    .fetch_optional(tx)
    .await
}

/// Removes a route. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn route_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from route where guid = $1", guid).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a space's routes that lead nowhere; their guids.
///
/// # Errors
/// When the database fails.
pub async fn routes_delete_unmapped_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "delete from route r where r.space_guid = $1
           and not exists (select 1 from route_destination d where d.route_guid = r.guid) returning r.guid",
        space
    )
    .fetch_all(tx)
    .await
}

/// Changes options (null members remove), labels and annotations.
///
/// # Errors
/// When the database fails.
pub async fn route_patch_tx(
    tx: &mut PgConnection,
    guid: Uuid,
    options: Option<&Value>,
    change: &MetadataChange,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update route set options = nullif(
                    jsonb_strip_nulls(coalesce(options, '{}'::jsonb) || coalesce($2::jsonb, '{}'::jsonb)), '{}'::jsonb),
                labels = jsonb_strip_nulls(labels || $3), annotations = jsonb_strip_nulls(annotations || $4),
                updated_at = now()
         where guid = $1",
        guid,
        options,
        change.labels,
        change.annotations
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many routes an organization and a space have, and may have. Counted under a lock of the organization's row,
/// so that two requests cannot both take the last one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as what they hold")]
pub struct RouteFigures {
    pub org_name: String,
    pub space_name: String,
    pub org_routes: i64,
    pub space_routes: i64,
    pub org_limit: Option<i64>,
    pub space_limit: Option<i64>,
}

/// Counts routes for the quota check.
///
/// # Errors
/// When the database fails.
pub async fn route_figures_tx(tx: &mut PgConnection, space: Uuid) -> sqlx::Result<RouteFigures> {
    sqlx::query!(
        "select guid from organization where guid = (select org_guid from space where guid = $1) for no key update",
        space
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query_as!(
        RouteFigures,
        r#"select o.name as org_name, s.name as space_name,
                  (select count(*) from route r join space x on x.guid = r.space_guid where x.org_guid = o.guid)
                      as "org_routes!",
                  (select count(*) from route r where r.space_guid = s.guid) as "space_routes!",
                  q.total_routes as org_limit, sq.total_routes as "space_limit?"
           from space s join organization o on o.guid = s.org_guid
           join organization_quota q on q.guid = o.quota_guid
           left join space_quota sq on sq.guid = s.quota_guid
           where s.guid = $1"#,
        space
    )
    .fetch_one(tx)
    .await
}

/// The shared ones as an array that is made once: a condition on each route would have all routes read.
fn in_or_shared_with(listing: &mut Listing<'_>, spaces: Vec<Uuid>) {
    listing
        .sql("(r.space_guid = any(")
        .bind_uuids(spaces.clone())
        .sql(") or r.guid = any(array(select h.route_guid from route_shared_space h where h.space_guid = any(")
        .bind_uuids(spaces)
        .sql("))))")
        .done();
}

const COLUMNS: &str = "r.*, d.name as domain_name";
const FROM: &str = "route r join domain d on d.guid = r.domain_guid join space s on s.guid = r.space_guid";

impl Store {
    /// One route.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn route_get(&self, guid: Uuid) -> sqlx::Result<Option<RouteRow>> {
        sqlx::query_as!(
            RouteRow,
            "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid where r.guid = $1",
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// These routes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn routes_by_guid(&self, guids: &[Uuid]) -> sqlx::Result<Vec<RouteRow>> {
        sqlx::query_as!(
            RouteRow,
            "select r.*, d.name as domain_name from route r join domain d on d.guid = r.domain_guid
             where r.guid = any($1) order by r.created_at, r.guid",
            guids
        )
        .fetch_all(self.pool())
        .await
    }

    /// A page of the routes in these spaces, and of those that lead to `app` when it is given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn route_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
        app: Option<Uuid>,
    ) -> sqlx::Result<(Vec<RouteRow>, u64)> {
        let mut listing = Listing::new(FROM, "r", options);
        if let Visible::Only(guids) = spaces {
            in_or_shared_with(&mut listing, guids.clone());
        }
        if let Some(values) = options.filter("space_guids") {
            in_or_shared_with(&mut listing, values.iter().filter_map(|value| value.parse().ok()).collect());
        }
        if let Some(app) = app {
            listing
                .sql("exists (select 1 from route_destination t where t.route_guid = r.guid and t.app_guid = any(")
                .bind_uuids(vec![app])
                .sql("))")
                .done();
        }
        listing.guids("guids", "r.guid").guids("domain_guids", "r.domain_guid");
        listing.guids("organization_guids", "s.org_guid");
        listing.guids_through(
            "service_instance_guids",
            "select 1 from service_binding b where b.route_guid = r.guid and b.service_instance_guid",
        );
        listing.texts_any_case("hosts", "r.host").texts("paths", "r.path").texts("ports", "r.port::text");
        listing
            .guids_through("app_guids", "select 1 from route_destination t where t.route_guid = r.guid and t.app_guid");
        listing.fetch(self.pool(), COLUMNS).await
    }

    /// Spaces of these apps; an app that does not exist is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_spaces(&self, apps: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
        let rows = sqlx::query!("select guid, space_guid from app where guid = any($1) and not deleting", apps)
            .fetch_all(self.pool())
            .await?;
        Ok(rows.into_iter().map(|row| (row.guid, row.space_guid)).collect())
    }
}
