//! Bindings of service instances: to apps, to routes, and keys.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::Store;
use crate::store::list::{Listing, Visible};
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

/// A binding as stored; credentials of its own are sealed. A user-provided instance's bindings have none: they are the
/// instance's.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct ServiceBindingRow {
    pub guid: Uuid,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub service_instance_guid: Uuid,
    pub app_guid: Option<Uuid>,
    pub route_guid: Option<Uuid>,
    pub name: Option<String>,
    pub credentials: Option<Vec<u8>>,
    pub last_operation: Value,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingEnd {
    /// An app.
    App(Uuid),
    /// A route.
    Route(Uuid),
}

/// A binding to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewBinding<'a> {
    pub guid: Uuid,
    pub instance: Uuid,
    pub end: BindingEnd,
    pub name: Option<&'a str>,
    pub credentials: Option<&'a [u8]>,
    pub last_operation: &'a Value,
    pub metadata: &'a MetadataChange,
}

/// A binding that an app gets its services from, with what it needs of the instance.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the tables")]
pub struct AppServiceRow {
    pub binding_guid: Uuid,
    pub binding_name: Option<String>,
    pub binding_credentials: Option<Vec<u8>>,
    pub instance_guid: Uuid,
    pub instance_name: String,
    pub instance_type: String,
    pub instance_credentials: Option<Vec<u8>>,
    pub tags: Vec<String>,
    pub syslog_drain_url: Option<String>,
}

/// Makes a binding.
///
/// # Errors
/// When the route has a binding already (`service_binding_route_key`), or the database fails.
pub async fn binding_insert_tx(tx: &mut PgConnection, new: &NewBinding<'_>) -> sqlx::Result<ServiceBindingRow> {
    let (kind, app, route) = match new.end {
        BindingEnd::App(app) => ("app", Some(app), None),
        BindingEnd::Route(route) => ("route", None, Some(route)),
    };
    sqlx::query_as!(
        ServiceBindingRow,
        // Bindings of one transaction keep their order too.
        "insert into service_binding (guid, type, service_instance_guid, app_guid, route_guid, name, last_operation,
                                      labels, annotations, created_at, credentials)
         values ($1, $2, $3, $4, $5, $6, $7, jsonb_strip_nulls($8), jsonb_strip_nulls($9), clock_timestamp(), $10)
         returning guid, type as kind, service_instance_guid, app_guid, route_guid, name, credentials, last_operation,
                   labels, annotations, created_at, updated_at",
        new.guid,
        kind,
        new.instance,
        app,
        route,
        new.name,
        new.last_operation,
        new.metadata.labels,
        new.metadata.annotations,
        new.credentials
    )
    .fetch_one(tx)
    .await
}

/// Whole bindings of which the rest of the statement tells.
macro_rules! bindings {
    ($which:tt, $($value:expr),+) => {
        sqlx::query_as!(
            ServiceBindingRow,
            "select guid, type as kind, service_instance_guid, app_guid, route_guid, name, credentials, last_operation,
                    labels, annotations, created_at, updated_at
             from service_binding " + $which,
            $($value),+
        )
    };
}

/// Bindings of an instance, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn bindings_of_instance_tx(tx: &mut PgConnection, instance: Uuid) -> sqlx::Result<Vec<ServiceBindingRow>> {
    bindings!("where service_instance_guid = $1 order by created_at, guid", instance).fetch_all(tx).await
}

/// Bindings of an app, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn bindings_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<ServiceBindingRow>> {
    bindings!("where app_guid = $1 order by created_at, guid", app).fetch_all(tx).await
}

/// Bindings of an instance to apps of one space, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn bindings_in_space_tx(
    tx: &mut PgConnection,
    instance: Uuid,
    space: Uuid,
) -> sqlx::Result<Vec<ServiceBindingRow>> {
    sqlx::query_as!(
        ServiceBindingRow,
        "select b.guid, b.type as kind, b.service_instance_guid, b.app_guid, b.route_guid, b.name, b.credentials,
                b.last_operation, b.labels, b.annotations, b.created_at, b.updated_at
         from service_binding b join app a on a.guid = b.app_guid
         where b.service_instance_guid = $1 and a.space_guid = $2 order by b.created_at, b.guid",
        instance,
        space
    )
    .fetch_all(tx)
    .await
}

/// The binding of a route, if it has one.
///
/// # Errors
/// When the database fails.
pub async fn binding_of_route_tx(tx: &mut PgConnection, route: Uuid) -> sqlx::Result<Option<ServiceBindingRow>> {
    bindings!("where route_guid = $1", route).fetch_optional(tx).await
}

/// Removes a binding. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn binding_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from service_binding where guid = $1", guid).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// What an app gets: of each instance the newest binding that has been made, in the order in which they were bound.
///
/// # Errors
/// When the database fails.
pub async fn services_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<AppServiceRow>> {
    sqlx::query_as!(
        AppServiceRow,
        r#"select b.guid as binding_guid, b.name as binding_name, b.credentials as binding_credentials,
                  i.guid as instance_guid, i.name as instance_name, i.type as instance_type,
                  i.credentials as instance_credentials, i.tags, i.syslog_drain_url
           from (select distinct on (service_instance_guid) * from service_binding
                 where app_guid = $1 and last_operation ->> 'type' = 'create'
                   and last_operation ->> 'state' = 'succeeded'
                 order by service_instance_guid, created_at desc, guid desc) b
           join service_instance i on i.guid = b.service_instance_guid
           order by b.created_at, b.guid"#,
        app
    )
    .fetch_all(tx)
    .await
}

/// Names of the instances that an app is bound to, with the name of the newest binding.
///
/// # Errors
/// When the database fails.
pub async fn service_names_of_app_tx(tx: &mut PgConnection, app: Uuid) -> sqlx::Result<Vec<(String, Option<String>)>> {
    let rows = services_of_app_tx(tx, app).await?;
    Ok(rows.into_iter().map(|row| (row.instance_name, row.binding_name)).collect())
}

const FROM: &str = "service_binding b join service_instance i on i.guid = b.service_instance_guid
     left join app a on a.guid = b.app_guid left join route r on r.guid = b.route_guid";

impl Store {
    /// One binding, of any type.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_binding_get(&self, guid: Uuid) -> sqlx::Result<Option<ServiceBindingRow>> {
        sqlx::query_as!(
            ServiceBindingRow,
            "select guid, type as kind, service_instance_guid, app_guid, route_guid, name, credentials, last_operation,
                    labels, annotations, created_at, updated_at
             from service_binding where guid = $1",
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of the bindings to apps of these spaces, and of keys of instances in them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_binding_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<ServiceBindingRow>, u64)> {
        let mut listing = Listing::new(FROM, "b", options);
        listing.sql("b.type <> 'route'").done();
        listing.visible("coalesce(a.space_guid, i.space_guid)", spaces);
        listing.guids("guids", "b.guid").texts("names", "b.name").texts("type", "b.type");
        listing.guids("app_guids", "b.app_guid").texts("app_names", "a.name");
        listing.guids("service_instance_guids", "b.service_instance_guid").texts("service_instance_names", "i.name");
        for filter in ["service_plan_guids", "service_plan_names", "service_offering_guids", "service_offering_names"] {
            if options.filter(filter).is_some() {
                // Only instances of brokers have plans, and there are none.
                listing.sql("false").done();
            }
        }
        listing.ordered_by("name", "lower(b.name)");
        listing.fetch(self.pool(), "b.*").await
    }

    /// A page of the bindings to routes of these spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_route_binding_list(
        &self,
        options: &ListOptions,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<ServiceBindingRow>, u64)> {
        let mut listing = Listing::new(FROM, "b", options);
        listing.sql("b.type = 'route'").done();
        listing.visible("r.space_guid", spaces);
        listing.guids("guids", "b.guid").guids("route_guids", "b.route_guid");
        listing.guids("service_instance_guids", "b.service_instance_guid").texts("service_instance_names", "i.name");
        listing.fetch(self.pool(), "b.*").await
    }
}
