//! What seems to start an app whose developer does not say it, from its build until somebody starts it without a command.
//!
//! A build without a start command is a good one, as on Cloud Foundry: its app may be there for its tasks alone, and the
//! command may be set after it. Only who starts it needs one.

use serde::{Deserialize, Serialize};
use slipway_protocol::v1;

/// The metadata of a droplet that its build leaves for whoever starts it.
#[derive(Debug, Deserialize, Serialize)]
struct Metadata {
    start_hint: Hint,
}

#[derive(Debug, Deserialize, Serialize)]
struct Hint {
    command: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    missing: String,
}

/// The execution metadata of a droplet; empty when there is nothing to say.
#[must_use]
pub fn metadata(hint: Option<&v1::StartHint>) -> String {
    let metadata =
        hint.map(|hint| Metadata { start_hint: Hint { command: hint.command.clone(), missing: hint.missing.clone() } });
    // Two texts can always be written.
    metadata.and_then(|metadata| serde_json::to_string(&metadata).ok()).unwrap_or_default()
}

/// What a process without a start command lacks, and what to do.
#[must_use]
pub fn no_command(kind: &str, metadata: &str) -> String {
    let begin = format!("The process {kind:?} has no start command: its buildpack gave none");
    let hint = serde_json::from_str::<Metadata>(metadata).ok().map(|metadata| metadata.start_hint);
    let Some(Hint { command, missing }) = hint.filter(|_| kind == "web") else {
        return format!("{begin}; set one in the manifest (command) or in a Procfile.");
    };
    let (these, first) = if missing.is_empty() {
        ("this", String::new())
    } else {
        // The file may end without the end of a line.
        ("these", format!("  printf '\\n{missing}\\n' >> requirements.txt\n"))
    };
    format!(
        "{begin}. Run {these} in the app's directory and push again:\n{first}  echo 'web: {command}' > Procfile\n\
         A command other than this guess goes there too, into the manifest (command), or behind push -c."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guessed_line_is_repeated_for_web_alone() {
        let guess = |missing: &str| {
            metadata(Some(&v1::StartHint { command: "gunicorn app:app".to_owned(), missing: missing.to_owned() }))
        };
        let text = no_command("web", &guess(""));
        assert!(
            text.contains("\n  echo 'web: gunicorn app:app' > Procfile\n") && text.contains("Run this in"),
            "{text}"
        );
        assert!(text.contains("no start command") && !text.contains("requirements.txt"), "{text}");
        let text = no_command("web", &guess("gunicorn"));
        assert!(text.contains(
            "Run these in the app's directory and push again:\n  printf '\\ngunicorn\\n' >> requirements.txt\n  echo 'web: "
        ));
        for (kind, metadata) in [("worker", guess("")), ("web", metadata(None)), ("web", "other".to_owned())] {
            let text = no_command(kind, &metadata);
            assert!(text.ends_with("set one in the manifest (command) or in a Procfile."), "{text}");
        }
    }
}
