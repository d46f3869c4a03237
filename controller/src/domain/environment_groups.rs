//! The variables that every app gets, while it runs or while it is staged.

use serde_json::{Map, Value, json};

use super::audit::{AuditSubject, NewEvent};
use super::compose::{group_place, open_object, seal_object};
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::environment_groups::{environment_group_lock_tx, environment_group_set_tx};
use crate::store::events::event_record_tx;

/// More would not fit beside an app's own variables into what a program can be given.
const MAX_BYTES: usize = 64 << 10;

/// Merges variables into a group; null removes. Apps see them after their next start or staging.
///
/// # Errors
/// [`DomainError::NotFound`] when there is no such group; [`DomainError::Invalid`] naming the variable.
pub(crate) async fn merge(
    context: &Context,
    actor: &AuditSubject,
    name: &str,
    change: Map<String, Value>,
) -> DomainResult<()> {
    check(&change)?;
    // Values are often secrets: an event holds names only.
    let names: Vec<String> = change.keys().cloned().collect();
    let mut tx = context.store.begin().await?;
    let sealed = environment_group_lock_tx(&mut tx, name).await?;
    let sealed = sealed.ok_or(DomainError::NotFound("Environment variable group"))?;
    let mut group = open_object(context, &group_place(name), sealed.as_deref())?;
    for (variable, value) in change {
        match value {
            Value::Null => drop(group.shift_remove(&variable)),
            value => drop(group.insert(variable, value)),
        }
    }
    let size: usize = group.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len) + 2).sum();
    if size > MAX_BYTES {
        return Err(DomainError::invalid(
            "Environment variable group is too large. Specify fewer variables or reduce key/value lengths.",
        ));
    }
    let sealed = seal_object(context, &group_place(name), &group)?;
    environment_group_set_tx(&mut tx, name, &sealed).await?;
    let target = AuditSubject::new("environment_variable_group", name, name);
    let event = NewEvent::new("audit.environment_variable_group.update", actor.clone(), target)
        .with_request(json!({ "names": names }));
    event_record_tx(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}

fn check(change: &Map<String, Value>) -> DomainResult<()> {
    for (name, value) in change {
        let upper = name.to_ascii_uppercase();
        let problem = if name.is_empty() {
            "Var key must be a minimum length of 1".to_owned()
        } else if upper.starts_with("VCAP_") {
            "Var cannot start with VCAP_".to_owned()
        } else if upper.starts_with("VMC") {
            "Var cannot start with VMC_".to_owned()
        } else if upper == "PORT" {
            "Var cannot set PORT".to_owned()
        } else if name.contains(['=', '\0']) || value.as_str().is_some_and(|text| text.contains('\0')) {
            format!("Var {name:?} cannot be given to a program: a name must not hold '=', neither may hold NUL")
        } else if !(value.is_string() || value.is_null()) {
            format!("Non-string value in environment variable for key '{name}', value '{value}'")
        } else {
            continue;
        };
        return Err(DomainError::Invalid(problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_platform_and_other_values_than_text_are_refused() {
        let refusal = |body: Value| {
            check(body.as_object().expect("an object")).map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(refusal(json!({ "A": "b", "gone": null })), "");
        assert_eq!(refusal(json!({ "vcap_x": "1" })), "Var cannot start with VCAP_");
        assert_eq!(refusal(json!({ "VMCX": "1" })), "Var cannot start with VMC_");
        assert_eq!(refusal(json!({ "port": "1" })), "Var cannot set PORT");
        assert_eq!(refusal(json!({ "": "1" })), "Var key must be a minimum length of 1");
        assert!(refusal(json!({ "A": 7 })).contains("for key 'A', value '7'"));
        assert!(refusal(json!({ "A=B": "7" })).contains("A=B"));
    }
}
