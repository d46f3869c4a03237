//! Feature flags: what an operator has switched off for everybody but administrators.

use serde_json::json;
use slipway_api_types::ErrorCode;

use super::audit::{AuditSubject, NewEvent};
use super::names::check_length;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::events::event_record_tx;
use crate::store::feature_flags::{FeatureFlagRow, feature_flag_set_tx};

const MAX_MESSAGE: usize = 250;

/// A change of a flag; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlagUpdate {
    /// On or off.
    pub(crate) enabled: Option<bool>,
    /// What who is refused is told; `Some(None)` = the name of the flag.
    pub(crate) custom_error_message: Option<Option<String>>,
}

/// Whether a flag is on; one that does not exist is off.
///
/// # Errors
/// When the database fails.
pub(crate) async fn enabled(context: &Context, name: &str) -> DomainResult<bool> {
    Ok(context.store.feature_flag_get(name).await?.is_some_and(|flag| flag.enabled))
}

/// Refuses what a flag switches off. Admins are not asked.
///
/// # Errors
/// `CF-FeatureDisabled`, with the flag's own message if it has one.
pub(crate) async fn require(context: &Context, name: &str) -> DomainResult<()> {
    match context.store.feature_flag_get(name).await? {
        Some(flag) if flag.enabled => Ok(()),
        flag => {
            let message = flag.and_then(|flag| flag.custom_error_message).unwrap_or_else(|| name.to_owned());
            Err(DomainError::refused(ErrorCode::FeatureDisabled, format!("Feature Disabled: {message}")))
        }
    }
}

/// Changes a flag.
///
/// # Errors
/// [`DomainError::NotFound`]; [`DomainError::Invalid`] for a message that is too long.
pub(crate) async fn update(
    context: &Context,
    actor: &AuditSubject,
    name: &str,
    change: FlagUpdate,
) -> DomainResult<FeatureFlagRow> {
    if let Some(Some(message)) = &change.custom_error_message {
        check_length("Custom error message", message, MAX_MESSAGE)?;
    }
    let mut tx = context.store.begin().await?;
    let message = change.custom_error_message.as_ref().map(Option::as_deref);
    let row = feature_flag_set_tx(&mut tx, name, change.enabled, message).await?;
    let row = row.ok_or(DomainError::NotFound("Feature flag"))?;
    let target = AuditSubject::new("feature_flag", name, name);
    let event = NewEvent::new("audit.feature_flag.update", actor.clone(), target)
        .with_request(json!({ "enabled": row.enabled, "custom_error_message": row.custom_error_message }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(row)
}
