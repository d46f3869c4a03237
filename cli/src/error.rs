//! What can go wrong in a command. The exit code is chosen in `exit`, the advice in `hints`.

use slipway_api_types::error::ApiErrorEntry;

use crate::client::ClientError;
use crate::manifest::ManifestError;
use crate::push::{FilesError, PushError};
use crate::settings::SettingsError;
use crate::size::SizeError;

/// What a command needs to be targeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An organization.
    Org,
    /// A space.
    Space,
}

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Talking to the platform failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The stored login could not be read or written.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The app's files cannot be read or packed.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A push, restage or start went wrong on the platform.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A size with a wrong unit.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The command line makes no sense in a way that the parser cannot know.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// There is no stored login.
    #[error("Not logged in.")]
    NotLoggedIn,
    /// No org or space is targeted.
    #[error("No {} is targeted.", match .0 { Target::Org => "org", Target::Space => "space" })]
    NoTarget(Target),
    /// A look-up by name found nothing.
    #[error("{kind} '{name}' not found{place}.")]
    Missing {
        /// `App`, `Space`, …
        kind: &'static str,
        /// The name looked for.
        name: String,
        /// ` in space 'dev'`, or nothing.
        place: String,
    },
    /// A job of the platform failed.
    #[error("{}", describe_entries(.errors))]
    JobFailed {
        /// What the job said.
        errors: Vec<ApiErrorEntry>,
    },
    /// `delete -r` would take another app's route away.
    #[error("Route '{url}' also leads to other apps; nothing was deleted.")]
    RouteShared {
        /// The route.
        url: String,
    },
    /// A task ended badly.
    #[error("Task {sequence} failed: {reason}")]
    TaskFailed {
        /// Its number.
        sequence: u64,
        /// What the platform said.
        reason: String,
    },
    /// A question could not be asked.
    #[error("Cannot ask on this terminal")]
    Prompt(#[source] std::io::Error),
    /// The answer to a question was no.
    #[error("Nothing was done.")]
    Declined,
    /// The output cannot be written.
    #[error("Cannot write the output")]
    Output(#[source] std::io::Error),
    /// Work on another thread ended abnormally.
    #[error("Work in the background ended abnormally")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Joins the details of several API errors; never empty.
pub(crate) fn describe_entries(entries: &[ApiErrorEntry]) -> String {
    let details: Vec<String> = entries
        .iter()
        .map(|entry| printable(if entry.detail.is_empty() { &entry.title } else { &entry.detail }))
        .filter(|text| !text.is_empty())
        .collect();
    match details.as_slice() {
        [] => "The platform gave no reason.".to_owned(),
        [one] => one.clone(),
        many => format!("{} problems:\n  - {}", many.len(), many.join("\n  - ")),
    }
}

/// Text of a server without control characters, which could move the cursor or repaint what was printed before.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
