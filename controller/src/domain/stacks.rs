//! Making, changing and deleting stacks, and their states: which may be staged for.

use serde_json::json;
use slipway_api_types::MetadataPatch;

use super::audit::{AuditSubject, NewEvent};
use super::metadata::MetadataChange;
use super::names::{check_length, check_name};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::domain::constraints::refuse;
use crate::store::events::event_record_tx;
use crate::store::stacks::{self as store, StackRow};

/// The stack of apps that name none.
pub const DEFAULT: &str = "debian12";

/// What a stack may be.
const STATES: &[&str] = &["ACTIVE", "RESTRICTED", "DEPRECATED", "DISABLED"];
const MAX_DESCRIPTION: usize = 250;
const MAX_REASON: usize = 5000;
const MISSING: DomainError = DomainError::NotFound("Stack");

/// Whether a build for a stack may begin; `staged_before` = the app has a droplet already. Gives a warning for the
/// developer, if there is one.
///
/// # Errors
/// [`DomainError::Invalid`] for a disabled stack, and for a restricted one that the app does not use yet.
pub fn check(name: &str, state: &str, reason: Option<&str>, staged_before: bool) -> DomainResult<Option<String>> {
    let tail = reason.filter(|reason| !reason.is_empty()).map(|reason| format!(" {reason}")).unwrap_or_default();
    match (state, staged_before) {
        ("DISABLED", _) | ("RESTRICTED", false) => Err(DomainError::Invalid(format!(
            "ERROR: Staging failed. The stack '{name}' is '{state}' and cannot be used for staging.{tail}"
        ))),
        ("RESTRICTED" | "DEPRECATED", _) => {
            Ok(Some(format!("WARNING: The stack '{name}' is '{state}' and will be removed in the future.{tail}")))
        }
        _ => Ok(None),
    }
}

/// A stack to be made.
#[derive(Clone, Debug)]
pub(crate) struct StackCreate {
    /// Unique.
    pub(crate) name: String,
    /// Free text.
    pub(crate) description: String,
    /// `None` = active.
    pub(crate) state: Option<String>,
    /// Why it is in that state, for developers.
    pub(crate) state_reason: Option<String>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

/// A change of a stack; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackUpdate {
    /// What it may be used for.
    pub(crate) state: Option<String>,
    /// Why it is in that state; `Some(None)` = not said.
    pub(crate) state_reason: Option<Option<String>>,
    /// Labels and annotations.
    pub(crate) metadata: Option<MetadataPatch>,
}

fn event(kind: &'static str, actor: &AuditSubject, row: &StackRow) -> NewEvent {
    NewEvent::new(kind, actor.clone(), AuditSubject::new("stack", row.guid, &row.name))
}

fn check_state(state: Option<&str>, reason: Option<&str>) -> DomainResult<()> {
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(DomainError::invalid(format!("State must be one of {}", STATES.join(", "))));
    }
    check_length("State reason", reason.unwrap_or_default(), MAX_REASON)
}

/// Makes a stack.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn create(context: &Context, actor: &AuditSubject, wish: StackCreate) -> DomainResult<StackRow> {
    check_name("Name", &wish.name)?;
    check_length("Description", &wish.description, MAX_DESCRIPTION)?;
    let reason = wish.state_reason.as_deref();
    check_state(wish.state.as_deref(), reason)?;
    let metadata = MetadataChange::check(wish.metadata)?;
    let mut tx = context.store.begin().await?;
    let state = wish.state.as_deref().unwrap_or("ACTIVE");
    let row = store::stack_insert_tx(&mut tx, &wish.name, &wish.description, state, reason, &metadata)
        .await
        .map_err(refuse("stack_name_key", || "Name must be unique".to_owned()))?;
    let event = event("audit.stack.create", actor, &row).with_request(json!({ "name": row.name, "state": row.state }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}

/// Changes a stack. Gives it with a warning for the operator, if there is one.
///
/// # Errors
/// [`DomainError::Invalid`] naming what is wrong.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    found: &StackRow,
    change: StackUpdate,
) -> DomainResult<(StackRow, Option<String>)> {
    check_state(change.state.as_deref(), change.state_reason.as_ref().and_then(Option::as_deref))?;
    let metadata = MetadataChange::check(change.metadata)?;
    let warning = (found.name == DEFAULT && change.state.is_some()).then(|| {
        format!("Changing state on the default stack '{}' may affect new application deployments.", found.name)
    });
    let mut tx = context.store.begin().await?;
    let mut row = store::stack_lock_tx(&mut tx, found.guid).await?.ok_or(MISSING)?;
    row.state = change.state.unwrap_or(row.state);
    row.state_reason = change.state_reason.unwrap_or(row.state_reason);
    let row = store::stack_update_tx(&mut tx, &row, &metadata).await?.ok_or(MISSING)?;
    let event = event("audit.stack.update", actor, &row)
        .with_request(json!({ "state": row.state, "state_reason": row.state_reason }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok((row, warning))
}

/// Removes a stack that no app uses.
///
/// # Errors
/// [`DomainError::Invalid`] while apps use it.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, row: &StackRow) -> DomainResult<()> {
    let mut tx = context.store.begin().await?;
    if !store::stack_delete_tx(&mut tx, row.guid).await? {
        return Err(DomainError::invalid(format!(
            "Cannot delete stack '{}' because apps are currently using the stack.",
            row.name
        )));
    }
    event_record_tx(&mut tx, &event("audit.stack.delete", actor, row)).await?;
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_decide() {
        let of = |state, before| check("s", state, Some("Use t."), before);
        assert_eq!(of("ACTIVE", false).expect("allowed"), None);
        assert!(of("DEPRECATED", false).expect("allowed").expect("a warning").ends_with("in the future. Use t."));
        assert!(of("RESTRICTED", true).expect("allowed").is_some());
        assert!(of("RESTRICTED", false).expect_err("refused").to_string().contains("'RESTRICTED' and cannot be used"));
        assert!(of("DISABLED", true).is_err());
    }
}
