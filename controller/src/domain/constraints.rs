//! Names of the schema's constraints, and the refusals that clients know for them.
//!
//! A check before a write races with other writers; the constraint decides. Where the text needs the value that was
//! refused, the caller asks [`violates`] and makes its own; [`translate`] has a text for every other place.

use slipway_api_types::ErrorCode;

use crate::domain::DomainError;

/// Whether the error is a violation of this constraint.
#[must_use]
pub fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(|cause| cause.constraint()) == Some(constraint)
}

/// Maps a violation of `constraint` to a refusal with this text, everything else as [`translate`].
pub fn refuse<'a>(
    constraint: &'a str,
    detail: impl FnOnce() -> String + 'a,
) -> impl FnOnce(sqlx::Error) -> DomainError + 'a {
    move |error| {
        if violates(&error, constraint) { DomainError::Invalid(detail()) } else { translate(error) }
    }
}

/// What clients are told for each constraint, when no better text is at hand.
const REFUSALS: &[(&str, &str)] = &[
    ("organization_name_key", "Organization name has already been taken."),
    ("organization_quota_name_key", "Organization Quota name has already been taken."),
    ("space_name_key", "Name must be unique per organization"),
    ("space_quota_name_key", "Space Quota name has already been taken."),
    ("user_account_name", "The username is already taken."),
    ("role_org_key", "The user already has this role."),
    ("role_space_key", "The user already has this role."),
    ("isolation_segment_name_key", "Isolation Segment names are case insensitive and must be unique"),
    ("security_group_name_key", "Security group name has already been taken."),
    ("stack_name_key", "Name must be unique"),
    ("buildpack_name_key", "Buildpack with this name, stack and lifecycle already exists."),
    ("app_name_key", "name must be unique in space"),
    ("process_type_key", "A process of this type already exists."),
    ("build_one_at_a_time", "Only one build can be STAGING at a time per application."),
    ("task_sequence_key", "Another task was created at the same moment; try again."),
    ("revision_version_key", "Another revision was created at the same moment; try again."),
    ("sidecar_name_key", "Sidecar names must be unique within an application."),
    ("deployment_one_active", "Another deployment is active."),
    ("domain_name_key", "The domain name is already in use."),
    ("route_address_key", "Route already exists."),
    ("route_destination_key", "The destination already exists."),
    ("service_instance_name_key", "The service instance name is taken."),
    (
        "organization_quota_guid_fkey",
        "This quota is applied to one or more organizations. Apply different quotas to those organizations before deleting.",
    ),
    (
        "organization_default_isolation_segment_guid_fkey",
        "Revoke the Organization entitlements for your Isolation Segment.",
    ),
    ("space_isolation_segment_guid_fkey", "Revoke the Organization entitlements for your Isolation Segment."),
    ("service_binding_route_key", "A route may only be bound to a single service instance"),
    ("service_binding_key_name_key", "The binding name is invalid. Key binding names must be unique."),
    ("service_binding_service_instance_guid_fkey", "The service instance no longer exists, or is still bound."),
    ("service_binding_app_guid_fkey", "The app no longer exists."),
    ("service_binding_route_guid_fkey", "The route no longer exists."),
    ("service_instance_share_space_guid_fkey", "The space no longer exists."),
    ("role_user_guid_fkey", "The user no longer exists."),
    ("role_org_guid_fkey", "The organization no longer exists."),
    ("role_space_guid_fkey", "The space no longer exists."),
    ("space_org_guid_fkey", "The organization does not exist, or still holds spaces."),
    ("app_space_guid_fkey", "The space does not exist, or still holds apps."),
    ("route_space_guid_fkey", "The space does not exist, or still holds routes."),
    ("route_domain_guid_fkey", "The domain does not exist, or still has routes."),
    ("route_destination_app_guid_fkey", "The app no longer exists."),
    ("route_destination_route_guid_fkey", "The route no longer exists."),
    ("service_instance_space_guid_fkey", "The space does not exist, or still holds service instances."),
];

/// Turns a database error into one that a caller can act on.
#[must_use]
pub fn translate(error: sqlx::Error) -> DomainError {
    if let Some(cause) = error.as_database_error() {
        if let Some(name) = cause.constraint()
            && let Some((_, detail)) = REFUSALS.iter().find(|(known, _)| *known == name)
        {
            let code = match name {
                "build_one_at_a_time" => ErrorCode::StagingInProgress,
                _ => ErrorCode::UnprocessableEntity,
            };
            return DomainError::refused(code, *detail);
        }
        let state = cause.code().unwrap_or_default().into_owned();
        return match state.as_str() {
            // A NUL or another value that no column of its type can hold.
            "22021" | "22P05" => DomainError::invalid("A text holds a character that cannot be stored (U+0000)."),
            "22003" => DomainError::invalid("A number is out of range."),
            "22001" => DomainError::invalid("A text is too long."),
            // Two transactions met; the whole request may be repeated.
            "40001" | "40P01" | "55P03" => {
                DomainError::Unavailable("Another change of the same resource was under way. Try again.".to_owned())
            }
            "57014" => DomainError::Unavailable(
                "The database did not finish this in time. Try again, or ask for less at once.".to_owned(),
            ),
            state if state.starts_with("08") || state.starts_with("57P") || state.starts_with("53") => {
                unavailable(error)
            }
            _ => DomainError::Store(error),
        };
    }
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_) => {
            unavailable(error)
        }
        error => DomainError::Store(error),
    }
}

fn unavailable(error: sqlx::Error) -> DomainError {
    tracing::warn!(error = %slipway_chassis::chain(&error), "the database cannot be used");
    DomainError::Unavailable(
        "The database is not available at the moment. Apps keep running; try again soon.".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_errors_may_be_retried() {
        let error = translate(sqlx::Error::PoolTimedOut);
        assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
        assert!(error.retryable());
        assert_eq!(translate(sqlx::Error::RowNotFound).code(), ErrorCode::ServerError);
    }
}
