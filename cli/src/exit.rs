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
//! | 8 | the app did not start |
//! | 130 | interrupted |

use std::process::ExitCode;

use crate::client::ClientError;
use crate::error::CliError;
use crate::push::PushError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Anything not listed below.
    General = 1,
    /// The command line or the manifest is wrong; nothing was sent.
    Usage = 2,
    /// Not logged in, or not allowed.
    Denied = 3,
    /// The thing named does not exist.
    NotFound = 4,
    /// The platform refused the request as invalid.
    Invalid = 5,
    /// The platform could not be reached, or is not well.
    Unavailable = 6,
    /// Staging failed.
    Staging = 7,
    /// The app did not start.
    Start = 8,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The code for a failure.
pub(crate) fn of(error: &CliError) -> Exit {
    match error {
        CliError::Client(error) => of_client(error),
        CliError::Push(error) => match error {
            PushError::StagingFailed { .. } | PushError::StagingTimeout { .. } => Exit::Staging,
            PushError::Crashed { .. } | PushError::StartTimeout { .. } | PushError::NotPlaced { .. } => Exit::Start,
            PushError::NotStaged { .. } => Exit::Invalid,
            PushError::Upload { source, .. } => of_client(source),
            PushError::PackageFailed { .. } => Exit::Invalid,
            PushError::AppVanished { .. } => Exit::NotFound,
        },
        CliError::Manifest(_) | CliError::Usage { .. } | CliError::Files(_) | CliError::Size(_) => Exit::Usage,
        CliError::NotLoggedIn | CliError::NoTarget(_) => Exit::Denied,
        CliError::Missing { .. } => Exit::NotFound,
        CliError::JobFailed { .. } | CliError::RouteShared { .. } => Exit::Invalid,
        CliError::TaskFailed { .. }
        | CliError::Settings(_)
        | CliError::Prompt(_)
        | CliError::Declined
        | CliError::Output(_)
        | CliError::Panicked(_) => Exit::General,
    }
}

fn of_client(error: &ClientError) -> Exit {
    match error {
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
