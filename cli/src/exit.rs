//! Exit codes by kind of failure, so that scripts can tell a wrong password from a broken app.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | anything not listed below |
//! | 2 | the command line or the manifest is wrong; nothing was sent |
//! | 3 | not logged in, or not allowed |
//! | 4 | the thing named does not exist |
//! | 5 | the platform refused the request as invalid |
//! | 6 | the platform could not be reached, or is not well |
//! | 7 | staging failed |
//! | 8 | the app did not start, or its new version did not take over |
//! | 130 | interrupted |
//!
//! `run` ends with the exit code of the command that it ran.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::error::CliError;
use crate::push::PushError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// Anything not listed below.
    General,
    /// The command line or the manifest is wrong; nothing was sent.
    Usage,
    /// Not logged in, or not allowed.
    Denied,
    /// The thing named does not exist.
    NotFound,
    /// The platform refused the request as invalid.
    Invalid,
    /// The platform could not be reached, or is not well.
    Unavailable,
    /// Staging failed.
    Staging,
    /// The app did not start, or its new version did not take over.
    Start,
    /// Interrupted.
    Interrupted,
    /// What the command of `run` ended with.
    Task(u8),
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::General => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Invalid => 5,
            Self::Unavailable => 6,
            Self::Staging => 7,
            Self::Start => 8,
            Self::Interrupted => 130,
            Self::Task(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The code for a failure.
pub(crate) fn of(error: &CliError) -> Exit {
    match error {
        CliError::Client(error) => of_client(error),
        CliError::Push(error) => match error {
            PushError::StagingFailed { .. } | PushError::StagingTimeout { .. } => Exit::Staging,
            PushError::Crashed { .. }
            | PushError::StartTimeout { .. }
            | PushError::NotPlaced { .. }
            | PushError::NotTakenOver { .. } => Exit::Start,
            PushError::NoDeployment { .. } | PushError::NoRevision { .. } => Exit::NotFound,
            PushError::NotStaged { .. } => Exit::Invalid,
            PushError::Upload { source, .. } => of_client(source),
            PushError::PackageFailed { .. } => Exit::Invalid,
            PushError::AppVanished { .. } => Exit::NotFound,
        },
        CliError::Manifest(_)
        | CliError::Usage { .. }
        | CliError::Files(_)
        | CliError::Size(_)
        | CliError::NeedsForce { .. }
        | CliError::NobodyToAsk { .. } => Exit::Usage,
        CliError::NotLoggedIn | CliError::NoTarget(_) => Exit::Denied,
        CliError::Missing { .. } => Exit::NotFound,
        CliError::JobFailed { .. } | CliError::RouteShared { .. } => Exit::Invalid,
        CliError::TaskFailed { code, .. } => code.map_or(Exit::General, Exit::Task),
        CliError::Settings(_)
        | CliError::Prompt(_)
        | CliError::Declined
        | CliError::Output(_)
        | CliError::Panicked(_) => Exit::General,
    }
}

fn of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::Refused { .. } if error.says("no start command") => Exit::Start,
        ClientError::Refused { status, .. } => match status {
            401 | 403 => Exit::Denied,
            404 => Exit::NotFound,
            500.. => Exit::Unavailable,
            _ => Exit::Invalid,
        },
        ClientError::BadCredentials { .. } | ClientError::SessionExpired => Exit::Denied,
        ClientError::Address { .. } | ClientError::Authority { .. } => Exit::Usage,
        ClientError::Unreachable { .. }
        | ClientError::Untrusted { .. }
        | ClientError::Answer { .. }
        | ClientError::TooLong { .. }
        | ClientError::JobStuck { .. }
        | ClientError::Logs { .. } => Exit::Unavailable,
        ClientError::Settings(_) | ClientError::Setup(_) => Exit::General,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_a_start_command_is_an_app_that_did_not_start() {
        let refused = |detail: &str| {
            let entry = serde_json::json!({ "code": 10008, "title": "CF-UnprocessableEntity", "detail": detail });
            let errors = vec![serde_json::from_value(entry).expect("an entry")];
            of(&CliError::Client(ClientError::Refused { status: 422, what: "POST /v3/apps".to_owned(), errors }))
        };
        assert_eq!(refused("The process \"web\" has no start command: its buildpack gave none"), Exit::Start);
        assert_eq!(refused("Name must be unique"), Exit::Invalid);
    }
}
