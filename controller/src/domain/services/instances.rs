//! Making, changing and removing user-provided service instances.
//!
//! A broker would be asked between [`LastOperation::begin`] and [`LastOperation::answered`]; what it answers decides
//! whether the transaction ends with the result or with a job that asks it again.

use chrono::Utc;
use serde_json::{Map, Value, json};
use slipway_protocol::v1::Version;
use sqlx::PgConnection;
use uuid::Uuid;

use super::operation::{Kind, LastOperation, ProviderResponse};
use super::{bindings, commit, require_user_provided, route_bindings, sharing};
use crate::context::Context;
use crate::domain::apps::merge;
use crate::domain::audit::{AuditSubject, NewEvent};
use crate::domain::compose::{open_object, seal_object};
use crate::domain::constraints::refuse;
use crate::domain::metadata::MetadataChange;
use crate::domain::names::{check_length, check_name};
use crate::domain::{DomainError, DomainResult};
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::services::bindings::{binding_delete_tx, bindings_of_instance_tx};
use crate::store::services::instances::{
    NewInstance, ServiceInstanceRow, instance_delete_tx, instance_insert_tx, instance_lock_tx, instance_update_tx,
};
use crate::store::services::shares::{name_in_space_tx, share_remove_tx, shared_spaces_tx};

/// Longest URL of a drain or a route service.
const MAX_URL: usize = 10_000;
/// All tags of one instance.
const MAX_TAGS: usize = 2048;

/// What a developer says of an instance; `None` stays as it is, `Some(None)` clears.
#[derive(Clone, Debug, Default)]
pub struct InstanceWish {
    /// Unique in the space, also among what is shared with it.
    pub name: Option<String>,
    /// What apps get.
    pub credentials: Option<Option<Map<String, Value>>>,
    /// What apps look for.
    pub tags: Option<Vec<String>>,
    /// Where log lines of bound apps go.
    pub syslog_drain_url: Option<Option<String>>,
    /// Where requests of bound routes go first.
    pub route_service_url: Option<Option<String>>,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

/// Place in the vault of an instance's credentials.
#[must_use]
pub fn credentials_place(instance: Uuid) -> String {
    format!("service_instance.credentials/{instance}")
}

/// An instance's credentials.
///
/// # Errors
/// When they cannot be opened.
fn credentials_of(context: &Context, row: &ServiceInstanceRow) -> DomainResult<Map<String, Value>> {
    open_object(context, &credentials_place(row.guid), row.credentials.as_deref())
}

/// An instance as target of an event.
fn audit_subject(row: &ServiceInstanceRow) -> AuditSubject {
    let kind = if row.is_user_provided() { "user_provided_service_instance" } else { "service_instance" };
    AuditSubject::new(kind, row.guid, &row.name)
}

impl InstanceWish {
    /// Checks what needs no database; empty URLs become none.
    fn check(&mut self) -> DomainResult<()> {
        if let Some(name) = &mut self.name {
            *name = name.trim().to_owned();
            check_name("Name", name)?;
        }
        if self.tags.as_ref().is_some_and(|tags| tags.iter().map(|tag| tag.chars().count()).sum::<usize>() > MAX_TAGS) {
            return Err(DomainError::invalid(format!(
                "Combined length of tags for service {} must be {MAX_TAGS} characters or less.",
                self.name.as_deref().unwrap_or_default()
            )));
        }
        for (what, url) in
            [("Syslog drain url", &mut self.syslog_drain_url), ("Route service url", &mut self.route_service_url)]
        {
            let Some(url) = url else { continue };
            *url = url.take().map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
            let Some(text) = url else { continue };
            check_length(what, text, MAX_URL)?;
            let parsed =
                url::Url::parse(text).ok().filter(|url| url.host_str().is_some_and(|host| !host.starts_with('.')));
            let Some(parsed) = parsed else {
                return Err(DomainError::invalid(format!("{what} must be a valid URI")));
            };
            if what.starts_with("Route") && parsed.scheme() != "https" {
                return Err(DomainError::invalid(format!("{what} must be https")));
            }
        }
        Ok(())
    }

    /// For events: without the credentials.
    fn request(&self) -> Value {
        let mut request = Map::new();
        if let Some(name) = &self.name {
            request.insert("name".to_owned(), json!(name));
        }
        if self.credentials.is_some() {
            request.insert("credentials".to_owned(), json!("[REDACTED]"));
        }
        if let Some(tags) = &self.tags {
            request.insert("tags".to_owned(), json!(tags));
        }
        // Drains and route services carry passwords in their URLs.
        for (key, url) in [("syslog_drain_url", &self.syslog_drain_url), ("route_service_url", &self.route_service_url)]
        {
            if let Some(url) = url {
                request.insert(key.to_owned(), url.as_deref().map_or(Value::Null, without_password));
            }
        }
        Value::Object(request)
    }
}

fn without_password(url: &str) -> Value {
    match url::Url::parse(url) {
        Ok(mut url) => {
            // A URL that cannot hold a user has none.
            let _ = url.set_password(None).and_then(|()| url.set_username(""));
            json!(url.as_str())
        }
        Err(_) => Value::Null,
    }
}

fn taken(name: &str) -> String {
    format!("The service instance name is taken: {name}.")
}

async fn refuse_clash(tx: &mut PgConnection, space: Uuid, name: &str, own: Uuid) -> DomainResult<()> {
    match name_in_space_tx(tx, space, name, own).await? {
        (false, false) => Ok(()),
        _ => Err(DomainError::Invalid(taken(name))),
    }
}

/// Makes a user-provided instance.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub async fn create(
    context: &Context,
    actor: &AuditSubject,
    space: Uuid,
    org: Uuid,
    mut wish: InstanceWish,
) -> DomainResult<ServiceInstanceRow> {
    wish.check()?;
    let request = wish.request();
    let name = wish.name.unwrap_or_default();
    check_name("Name", &name)?;
    let guid = Uuid::new_v4();
    let credentials = match wish.credentials.flatten() {
        Some(credentials) => Some(seal_object(context, &credentials_place(guid), &credentials)?),
        None => None,
    };
    let now = Utc::now();
    let operation = LastOperation::begin(&Value::Null, Kind::Create, &name, now)?
        .answered(ProviderResponse::Done(Some("Operation succeeded".to_owned())), now);
    let mut tx = context.store.begin().await?;
    refuse_clash(&mut tx, space, &name, guid).await?;
    let (drain, route_service) = (wish.syslog_drain_url.flatten(), wish.route_service_url.flatten());
    let new = NewInstance {
        guid,
        space_guid: space,
        name: &name,
        credentials: credentials.as_deref(),
        tags: &wish.tags.unwrap_or_default(),
        syslog_drain_url: drain.as_deref(),
        route_service_url: route_service.as_deref(),
        last_operation: &operation.stored()?,
        metadata: &wish.metadata,
    };
    let row = instance_insert_tx(&mut tx, &new).await.map_err(refuse("service_instance_name_key", || taken(&name)))?;
    let event = NewEvent::new("audit.user_provided_service_instance.create", actor.clone(), audit_subject(&row))
        .in_space(space, org)
        .with_request(request);
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Changes a user-provided instance. `org` is the organization of its space. Gives the instance as it is then, and the
/// version that routers must have if routes are bound to it.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong; 404 when it is gone; 409 while another operation is under way.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    guid: Uuid,
    mut wish: InstanceWish,
) -> DomainResult<(ServiceInstanceRow, Option<Version>)> {
    wish.check()?;
    let request = wish.request();
    let mut tx = context.store.begin().await?;
    let mut row = instance_lock_tx(&mut tx, guid).await?.ok_or(DomainError::NotFound("Service instance"))?;
    require_user_provided(&row)?;
    let now = Utc::now();
    let operation = LastOperation::begin(&row.last_operation, Kind::Update, &row.name, now)?
        .answered(ProviderResponse::Done(Some("Operation succeeded".to_owned())), now);
    let target = audit_subject(&row);
    let drain_before = row.syslog_drain_url.clone();
    let route_service_before = row.route_service_url.clone();
    if let Some(name) = wish.name {
        refuse_clash(&mut tx, row.space_guid, &name, row.guid).await?;
        for space in shared_spaces_tx(&mut tx, row.guid).await? {
            refuse_clash(&mut tx, space, &name, row.guid).await?;
        }
        row.name = name;
    }
    if let Some(credentials) = wish.credentials {
        row.credentials = match credentials {
            Some(credentials) => Some(seal_object(context, &credentials_place(guid), &credentials)?),
            None => None,
        };
    }
    row.tags = wish.tags.unwrap_or(row.tags);
    row.syslog_drain_url = wish.syslog_drain_url.unwrap_or(row.syslog_drain_url);
    row.route_service_url = wish.route_service_url.unwrap_or(row.route_service_url);
    merge(&mut row.labels, &wish.metadata.labels);
    merge(&mut row.annotations, &wish.metadata.annotations);
    row.last_operation = operation.stored()?;
    let name = row.name.clone();
    let row = instance_update_tx(&mut tx, &row).await.map_err(refuse("service_instance_name_key", || taken(&name)))?;
    let mut changes = Vec::new();
    if row.route_service_url != route_service_before || row.syslog_drain_url != drain_before {
        for binding in bindings_of_instance_tx(&mut tx, guid).await? {
            changes.extend(binding.route_guid.map(|route| (ChangeKind::Route, route)));
            changes.extend(binding.app_guid.map(|app| (ChangeKind::App, app)));
        }
    }
    let event = NewEvent::new("audit.user_provided_service_instance.update", actor.clone(), target)
        .in_space(row.space_guid, org)
        .with_request(request);
    event_record_tx(&mut tx, &event).await?;
    let version = commit(context, tx, &changes).await?;
    Ok((row, version))
}

/// Removes a user-provided instance with its bindings and shares. `org` is the organization of its space. Gives the version
/// that routers must have if routes were bound to it.
///
/// # Errors
/// 404 when it is gone; 409 while another operation is under way.
pub(crate) async fn delete(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    guid: Uuid,
) -> DomainResult<Option<Version>> {
    let mut tx = context.store.begin().await?;
    let row = instance_lock_tx(&mut tx, guid).await?.ok_or(DomainError::NotFound("Service instance"))?;
    require_user_provided(&row)?;
    LastOperation::begin(&row.last_operation, Kind::Delete, &row.name, Utc::now())?;
    let mut changes = Vec::new();
    for binding in bindings_of_instance_tx(&mut tx, guid).await? {
        binding_delete_tx(&mut tx, binding.guid).await?;
        if let Some(route) = binding.route_guid {
            route_bindings::record(&mut tx, "audit.service_route_binding.delete", actor, &binding, &row).await?;
            changes.push((ChangeKind::Route, route));
        } else {
            bindings::record(&mut tx, "audit.service_binding.delete", actor, &binding, &row).await?;
            changes.extend(binding.app_guid.map(|app| (ChangeKind::App, app)));
        }
    }
    for space in shared_spaces_tx(&mut tx, guid).await? {
        share_remove_tx(&mut tx, guid, space).await?;
        sharing::record(&mut tx, "audit.service_instance.unshare", actor, &row, org, &[space]).await?;
    }
    instance_delete_tx(&mut tx, guid).await?;
    let event = NewEvent::new("audit.user_provided_service_instance.delete", actor.clone(), audit_subject(&row))
        .in_space(row.space_guid, org);
    event_record_tx(&mut tx, &event).await?;
    commit(context, tx, &changes).await
}

/// An instance's credentials for somebody who may see them; records that they were seen. `org` is the organization of its
/// space.
///
/// # Errors
/// When they cannot be opened.
pub(crate) async fn show_credentials(
    context: &Context,
    actor: &AuditSubject,
    org: Uuid,
    row: &ServiceInstanceRow,
) -> DomainResult<Map<String, Value>> {
    let credentials = credentials_of(context, row)?;
    let event = NewEvent::new("audit.user_provided_service_instance.show", actor.clone(), audit_subject(row))
        .in_space(row.space_guid, org);
    let mut connection = context.store.pool().acquire().await?;
    event_record_tx(&mut connection, &event).await?;
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(drain: &str, route: &str) -> DomainResult<InstanceWish> {
        let mut wish = InstanceWish {
            name: Some(" db ".to_owned()),
            syslog_drain_url: Some(Some(drain.to_owned())),
            route_service_url: Some(Some(route.to_owned())),
            credentials: Some(Some(Map::from_iter([("password".to_owned(), json!("hidden"))]))),
            ..InstanceWish::default()
        };
        wish.check().map(|()| wish)
    }

    #[test]
    fn urls_are_checked() {
        for good in ["syslog://logs.test:514", "syslog-tls://u:p@logs.test", "https://logs.test/x?drain-type=all"] {
            assert!(check(good, "").is_ok(), "{good}");
        }
        for bad in ["logs.test", "://", "mailto:x@y", "https://.test"] {
            assert_eq!(check(bad, "").expect_err(bad).to_string(), "Syslog drain url must be a valid URI");
        }
        assert!(check("", "https://service.test/path").is_ok());
        assert_eq!(check("", "http://service.test").expect_err("plain").to_string(), "Route service url must be https");
    }

    #[test]
    fn events_hold_no_secrets() {
        let wish = check("syslog-tls://user:secret@logs.test", "").expect("valid");
        let request = wish.request().to_string();
        assert!(!request.contains("secret") && !request.contains("hidden"), "{request}");
        assert_eq!(wish.name.as_deref(), Some("db"));
    }
}
