//! Why a build came to nothing, in Cloud Foundry's names and in words.

use std::collections::BTreeSet;

use slipway_buildpacks::contract::BuildError;
use slipway_protocol::v1::BuildResult;

use crate::cache::CacheError;
use crate::sandbox::SandboxError;

/// A build's text is shown to people and stored: enough for an explanation, not for a log.
const MAX_TEXT: usize = 4096;

/// See the module.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    id: String,
    text: String,
    /// The build's own output has it.
    pub(super) in_output: bool,
}

impl Failure {
    fn new(id: &str, text: &str) -> Self {
        Self { id: id.to_owned(), text: shorten(text), in_output: false }
    }

    /// The build itself.
    pub(super) fn staging(text: &str) -> Self {
        Self::new("StagingError", text)
    }

    /// Not the developer's doing.
    pub(super) fn platform(text: &str) -> Self {
        Self::new("StagingError", &format!("the platform failed while staging: {text}"))
    }

    /// A file operation on this host.
    pub(super) fn host(step: &str, error: &std::io::Error) -> Self {
        if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return Self::staging(&format!("staging ran out of disk while {step}; give the app more disk (-k)"));
        }
        Self::platform(&format!("{step}: {error}"))
    }

    pub(super) fn expired() -> Self {
        Self::new("StagingTimeExpired", "staging took longer than it may and was ended")
    }

    pub(super) fn cancelled() -> Self {
        Self::new("StagingError", "staging was cancelled")
    }

    /// What the builder reports. It shares its sandbox with foreign code, so its name is checked.
    pub(super) fn reported(error: BuildError) -> Self {
        const KNOWN: [&str; 6] = [
            "NoAppDetectedError",
            "BuildpackCompileFailed",
            "BuildpackReleaseFailed",
            "StagingError",
            "StagingTimeExpired",
            "NoCompatibleCell",
        ];
        let id = KNOWN.into_iter().find(|known| *known == error.id).unwrap_or("StagingError");
        Self { in_output: true, ..Self::new(id, &error.text) }
    }

    /// With what else may have been the cause, a line each.
    pub(super) fn with(mut self, lines: BTreeSet<String>) -> Self {
        if !lines.is_empty() {
            let begin: String = self.text.chars().take(MAX_TEXT / 2).collect();
            let lines: Vec<String> = lines.into_iter().collect();
            self.text = shorten(&format!("{}\n{}", begin.trim_end(), lines.join("\n")));
        }
        self
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_result(self) -> BuildResult {
        BuildResult { ok: false, error_id: self.id, error_text: self.text, ..BuildResult::default() }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::platform(&slipway_chassis::chain(&error).to_string())
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::platform(&slipway_chassis::chain(&error).to_string())
    }
}

/// Cut at a character, without control characters that would play with a terminal.
pub(super) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_possible_causes_are_reported_and_not_cut_off() {
        let plain = Failure::staging("pip failed").with(BTreeSet::new());
        assert_eq!(plain.text(), "pip failed");
        let lines = BTreeSet::from(["registry proxy: offline".to_owned()]);
        assert_eq!(plain.with(lines.clone()).text(), "pip failed\nregistry proxy: offline");
        assert!(Failure::staging(&"x".repeat(100_000)).with(lines).text().ends_with("\nregistry proxy: offline"));
    }

    #[test]
    fn a_hostile_build_result_is_sanitized() {
        let error = BuildError { id: "<script>".into(), text: format!("\u{1b}[2J{}", "x".repeat(100_000)) };
        let result = Failure::reported(error).into_result();
        assert_eq!(result.error_id, "StagingError");
        assert_eq!(result.error_text.len(), MAX_TEXT);
        assert!(!result.error_text.contains('\u{1b}'));
        let known = BuildError { id: "NoAppDetectedError".into(), text: "none of them".into() };
        assert_eq!(Failure::reported(known).into_result().error_id, "NoAppDetectedError");
    }
}
