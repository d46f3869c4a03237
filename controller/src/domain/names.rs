//! Limits of what a user may name something.

use super::{DomainError, DomainResult};

/// Longest name of an organization, a space, an app, a role holder, …
pub const MAX_NAME: usize = 250;

/// Checks a name: not blank, not over-long, no control characters. `what` begins the sentence: `Name`.
///
/// # Errors
/// [`DomainError::Invalid`] with the limit or the offending character.
pub fn check_name(what: &str, value: &str) -> DomainResult<()> {
    if value.trim().is_empty() {
        return Err(DomainError::invalid(format!("{what} can't be blank")));
    }
    check_length(what, value, MAX_NAME)?;
    if let Some(bad) = value.chars().find(|c| c.is_control()) {
        return Err(DomainError::invalid(format!(
            "{what} must not contain the control character {}",
            bad.escape_unicode()
        )));
    }
    Ok(())
}

/// Checks a length in characters.
///
/// # Errors
/// [`DomainError::Invalid`] with the limit.
pub fn check_length(what: &str, value: &str, maximum: usize) -> DomainResult<()> {
    if value.chars().count() > maximum {
        return Err(DomainError::invalid(format!("{what} is too long (maximum is {maximum} characters)")));
    }
    Ok(())
}

/// What a client wrote, as it stands in a refusal.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_limits() {
        assert!(check_name("Name", "ok").is_ok());
        assert!(check_name("Name", &"ä".repeat(250)).is_ok());
        let long = check_name("Name", &"x".repeat(251)).expect_err("too long").to_string();
        assert_eq!(long, "Name is too long (maximum is 250 characters)");
        assert!(check_name("Name", " ").is_err());
        assert!(check_name("Name", "a\nb").is_err());
    }
}
