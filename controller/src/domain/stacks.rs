//! States of stacks: which may be staged for.

use super::DomainResult;
use crate::domain::DomainError;

/// The stack of apps that name none.
pub const DEFAULT: &str = "debian12";

/// What a stack may be.
pub const STATES: &[&str] = &["ACTIVE", "RESTRICTED", "DEPRECATED", "DISABLED"];

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
