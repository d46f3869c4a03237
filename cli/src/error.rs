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
    #[error("Task {sequence} of '{app}' failed: {reason}")]
    TaskFailed {
        /// Its app.
        app: String,
        /// Its number.
        sequence: u64,
        /// What the platform said.
        reason: String,
        /// What its command ended with, when it ended by itself and its output was shown.
        code: Option<u8>,
    },
    /// Nobody is there to confirm what has consequences.
    #[error("{consequence} Add -f to go on; nothing was done.")]
    NeedsForce {
        /// What would happen: a sentence.
        consequence: String,
    },
    /// Nobody is there to say what is missing.
    #[error("{what} is not given, and there is no terminal to ask on")]
    NobodyToAsk {
        /// `The user name`, …
        what: &'static str,
        /// Which variable of the environment it is read from.
        variable: &'static str,
    },
    /// A question could not be asked.
    #[error("Cannot read the answer")]
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
        // The platform speaks to users of `cf` as well, and names its commands.
        .map(|text| text.replace("cf stacks lists", "`slipway stacks` lists"))
        .filter(|text| !text.is_empty())
        .collect();
    match details.as_slice() {
        [] => "The platform gave no reason.".to_owned(),
        [one] => one.clone(),
        many => format!("{} problems:\n  - {}", many.len(), many.join("\n  - ")),
    }
}

/// Text of a server without control characters, which could move the cursor or repaint what was printed before. Colours
/// are taken out: build tools write them whether anybody can see them or not.
pub(crate) fn printable(text: &str) -> String {
    clean(text, false)
}

/// As [`printable`], with the colours left in when `colours` is true.
pub(crate) fn clean(text: &str, colours: bool) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(end) = colour(rest) {
            if colours {
                plain.push_str(&rest[..end]);
                coloured = true;
            }
            rest = &rest[end..];
            continue;
        }
        plain.push(if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c });
        rest = &rest[c.len_utf8()..];
    }
    if coloured {
        // A colour that was left on would go on into whatever is printed next.
        plain.push_str("\u{1b}[0m");
    }
    plain
}

/// The length of the colour sequence at the beginning of a text: `ESC [ digits ; … m`.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[")?;
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    body[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out_or_ended_and_everything_else_is_made_visible() {
        let text = "\u{1b}[1;32mgreen\u{1b}[0m \u{1b}[2J\u{1b}[31mred\r";
        assert_eq!(printable(text), "green \u{fffd}[2Jred\u{fffd}");
        let shown = clean(text, true);
        assert_eq!(shown, "\u{1b}[1;32mgreen\u{1b}[0m \u{fffd}[2J\u{1b}[31mred\u{fffd}\u{1b}[0m");
        for unfinished in ["\u{1b}", "\u{1b}[", "\u{1b}[31", "\u{1b}]0;title\u{7}"] {
            assert!(!clean(unfinished, true).contains('\u{1b}'), "{unfinished:?}");
        }
    }
}
