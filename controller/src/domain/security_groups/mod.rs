//! Making, changing and deleting security groups, and binding them to spaces. A change holds at once for everything that
//! runs.

mod rules;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::audit::{AuditSubject, NewEvent};
use super::names::{check_name, shown};
use super::{DomainError, DomainResult, removal};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::change_log::ChangeKind;
use crate::store::events::event_record_tx;
use crate::store::list::Visible;
use crate::store::security_groups::{self as store, SecurityGroupRow};
use crate::store::spaces::SpaceRow;
use rules::check_rules;

/// When a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// While apps run.
    Running,
    /// While apps are built.
    Staging,
}

impl Phase {
    /// As it stands in paths and in the store.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Staging => "staging",
        }
    }
}

/// A group to be made.
#[derive(Clone, Debug)]
pub(crate) struct GroupCreate {
    /// Unique.
    pub(crate) name: String,
    /// What it allows; `None` = nothing.
    pub(crate) rules: Option<Value>,
    /// An object that says whether it holds for every space, while `running` and while `staging`.
    pub(crate) globally_enabled: Option<Value>,
    /// Guids, as the client wrote them, of spaces whose apps it holds for while they run.
    pub(crate) running_spaces: Vec<String>,
    /// The same while they are built.
    pub(crate) staging_spaces: Vec<String>,
}

/// A change of a group; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupUpdate {
    /// Unique.
    pub(crate) name: Option<String>,
    /// What it allows.
    pub(crate) rules: Option<Value>,
    /// As in [`GroupCreate`].
    pub(crate) globally_enabled: Option<Value>,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &SecurityGroupRow) -> NewEvent {
    NewEvent::new(kind, actor.clone(), AuditSubject::new("security_group", row.guid, &row.name))
}

fn taken(name: &str) -> String {
    format!("Security group with name '{name}' already exists.")
}

/// `running` and `staging` of `globally_enabled`, as far as they were given.
fn globally(value: Option<&Value>) -> DomainResult<(Option<bool>, Option<bool>)> {
    let bad = |text: &str| Err(DomainError::invalid(format!("Globally enabled {text}")));
    let members: &Map<String, Value> = match value {
        None | Some(Value::Null) => return Ok((None, None)),
        Some(Value::Object(members)) => members,
        Some(_) => return bad("must be an object"),
    };
    if members.keys().any(|key| key != "running" && key != "staging") {
        return bad("only allows keys 'running' or 'staging'");
    }
    if members.values().any(|value| !value.is_boolean()) {
        return bad("values must be booleans");
    }
    let member = |name: &str| members.get(name).and_then(Value::as_bool);
    Ok((member("running"), member("staging")))
}

/// The spaces of these guids, as the client wrote them; all of them must exist and be visible.
async fn spaces_named(
    context: &Context,
    visible: &Visible,
    wanted: &[String],
    tail: &str,
) -> DomainResult<Vec<SpaceRow>> {
    let known: Vec<Uuid> = wanted.iter().filter_map(|space| space.parse().ok()).collect();
    let mut good = context.store.spaces_by_guid(&known).await?;
    good.retain(|space| visible.contains(space.guid));
    let bad: Vec<String> = wanted
        .iter()
        .filter(|wanted| !good.iter().any(|space| space.guid.to_string() == wanted.to_lowercase()))
        .map(|wanted| format!("\"{}\"", shown(wanted)))
        .collect();
    if bad.is_empty() {
        return Ok(good);
    }
    Err(DomainError::invalid(format!("Spaces with guids [{}] do not exist{tail}", bad.join(", "))))
}

fn guids(spaces: &[SpaceRow]) -> Vec<Uuid> {
    spaces.iter().map(|space| space.guid).collect()
}

async fn commit(context: &Context, tx: sqlx::Transaction<'static, sqlx::Postgres>, group: Uuid) -> DomainResult<()> {
    context.store.commit(tx, &[(ChangeKind::SecurityGroup, group)]).await?;
    Ok(())
}

/// Makes a group.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(
    context: &Context,
    actor: &AuditSubject,
    wish: GroupCreate,
) -> DomainResult<SecurityGroupRow> {
    check_name("Name", &wish.name)?;
    let rules = wish.rules.unwrap_or_else(|| json!([]));
    check_rules(&rules)?;
    let (running, staging) = globally(wish.globally_enabled.as_ref())?;
    let running_spaces = spaces_named(context, &Visible::All, &wish.running_spaces, ".").await?;
    let staging_spaces = spaces_named(context, &Visible::All, &wish.staging_spaces, ".").await?;
    let mut tx = context.store.begin().await?;
    let (running, staging) = (running.unwrap_or(false), staging.unwrap_or(false));
    let row = store::security_group_insert_tx(&mut tx, &wish.name, &rules, running, staging)
        .await
        .map_err(refuse("security_group_name_key", || taken(&wish.name)))?;
    for (spaces, phase) in [(running_spaces, Phase::Running), (staging_spaces, Phase::Staging)] {
        store::security_group_bind_tx(&mut tx, row.guid, &guids(&spaces), phase.as_str()).await?;
    }
    let event =
        event("audit.security_group.create", actor, &row).with_request(json!({ "name": row.name, "rules": row.rules }));
    event_record_tx(&mut tx, &event).await?;
    commit(context, tx, row.guid).await?;
    Ok(row)
}

/// Changes a group.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    guid: Uuid,
    change: GroupUpdate,
) -> DomainResult<SecurityGroupRow> {
    let GroupUpdate { name, rules, globally_enabled } = change;
    if let Some(name) = &name {
        check_name("Name", name)?;
    }
    if let Some(rules) = &rules {
        check_rules(rules)?;
    }
    let (running, staging) = globally(globally_enabled.as_ref())?;
    let mut tx = context.store.begin().await?;
    let row = store::security_group_patch_tx(&mut tx, guid, name.as_deref(), rules.as_ref(), running, staging)
        .await
        .map_err(refuse("security_group_name_key", || taken(name.as_deref().unwrap_or_default())))?
        .ok_or(DomainError::NotFound("Security group"))?;
    let event = event("audit.security_group.update", actor, &row)
        .with_request(json!({ "name": name, "rules": rules, "globally_enabled": globally_enabled }));
    event_record_tx(&mut tx, &event).await?;
    commit(context, tx, row.guid).await?;
    Ok(row)
}

/// Begins to delete a group. Gives the job, which may be open already.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &SecurityGroupRow) -> DomainResult<Uuid> {
    let event = event("audit.security_group.delete", actor, row);
    removal::request_recorded(context, &event, "security_group.delete", "security_group", row.guid).await
}

/// The spaces to which a client wants to bind a group, by their guids as the client wrote them.
///
/// # Errors
/// [`DomainError::Invalid`] naming those that do not exist or are not visible.
pub(crate) async fn spaces_to_bind(
    context: &Context,
    visible: &Visible,
    wanted: &[String],
) -> DomainResult<Vec<SpaceRow>> {
    spaces_named(context, visible, wanted, ", or you do not have access to them.").await
}

/// Binds a group to spaces.
///
/// # Errors
/// When the database fails.
pub(crate) async fn bind(
    context: &Context,
    actor: &AuditSubject,
    row: &SecurityGroupRow,
    spaces: &[SpaceRow],
    phase: Phase,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    store::security_group_bind_tx(&mut tx, row.guid, &guids(spaces), phase.as_str()).await?;
    for space in spaces {
        let event = event("audit.security_group.bind", actor, row)
            .in_space(space.guid, space.org_guid)
            .with("lifecycle", phase.as_str());
        event_record_tx(&mut tx, &event).await?;
    }
    commit(context, tx, row.guid).await
}

/// The refusal to unbind a group from a space, named as the client wrote it, to which it is not bound.
pub(crate) fn not_bound(space: &str) -> DomainError {
    DomainError::invalid(format!(
        "Unable to unbind security group from space with guid '{}'. Ensure the space is bound to this security group.",
        shown(space)
    ))
}

/// A space from which a group is to be unbound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundSpace<'a> {
    /// Its guid.
    pub(crate) guid: Uuid,
    /// Its organization.
    pub(crate) org: Uuid,
    /// Its guid as the client wrote it, for texts.
    pub(crate) written: &'a str,
}

/// Unbinds a group from a space.
///
/// # Errors
/// As [`not_bound`].
pub(crate) async fn unbind(
    context: &Context,
    actor: &AuditSubject,
    row: &SecurityGroupRow,
    space: BoundSpace<'_>,
    phase: Phase,
) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    if !store::security_group_unbind_tx(&mut tx, row.guid, space.guid, phase.as_str()).await? {
        return Err(not_bound(space.written));
    }
    let event = event("audit.security_group.unbind", actor, row)
        .in_space(space.guid, space.org)
        .with("lifecycle", phase.as_str());
    event_record_tx(&mut tx, &event).await?;
    commit(context, tx, row.guid).await
}
