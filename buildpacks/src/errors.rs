//! All that can go wrong with somebody's app, and the words for it: what happened and what to do.

use crate::contract::BuildError;
use crate::reason;

/// A build came to nothing, by who must change what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No buildpack knows the source.
    NothingDetected {
        /// Buildpacks that were asked.
        tried: Vec<String>,
        /// Some entries of the app directory, and whether there are more.
        found: Vec<String>,
        /// See [`crate::kinds`].
        looks_like: Option<String>,
        /// What is wrong with buildpacks that could not be asked.
        broken: Vec<String>,
    },
    /// A buildpack's name that this platform has not.
    UnknownBuildpack(String),
    /// No buildpack to run at all.
    NoBuildpacks,
    /// The wanted version of a runtime is not there.
    NoSuchVersion {
        /// `Node.js`, `Python`.
        runtime: &'static str,
        /// As the app says.
        wanted: String,
        /// Where it says so.
        file: &'static str,
        /// Versions that are there.
        available: Vec<String>,
    },
    /// The catalogue has no layer of a kind that every such app needs.
    NoLayer {
        /// `node`, `nginx`.
        name: &'static str,
    },
    /// A file of the app that cannot be read as what it is.
    BadFile {
        /// Its name.
        file: String,
        /// What is wrong, with its place.
        detail: String,
    },
    /// The package cannot be unpacked.
    BadPackage(String),
    /// A kind of dependency file that the built-in buildpack does not install.
    UnsupportedDependencies {
        /// Its name.
        file: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// An installer or build script failed.
    StepFailed {
        /// The buildpack.
        buildpack: String,
        /// As it would be typed.
        step: String,
        /// How it ended.
        status: String,
        /// What it printed about it, see [`crate::reason`].
        reason: String,
    },
    /// A foreign buildpack's script failed.
    ScriptFailed {
        /// The buildpack.
        buildpack: String,
        /// `supply`, `finalize`, `compile`, `release`.
        script: &'static str,
        /// How it ended.
        status: String,
        /// What it printed about it, see [`crate::reason`].
        reason: String,
    },
    /// A foreign buildpack that is none.
    NotABuildpack {
        /// The buildpack.
        buildpack: String,
        /// What is missing.
        detail: String,
    },
    /// Time is over.
    TimedOut {
        /// Seconds.
        limit: u64,
        /// What was running.
        step: String,
    },
    /// A binary needs a library that will not be there when the app runs.
    MissingLibrary {
        /// File and libraries.
        missing: Vec<(String, String)>,
    },
    /// The result is too large.
    DropletTooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The result has too many files.
    DropletTooManyFiles {
        /// Files, directories and links.
        found: u64,
        /// Permitted.
        limit: u64,
    },
    /// The disk quota of the build is used up.
    NoSpace {
        /// What was being done.
        step: String,
    },
    /// The platform failed.
    Platform(String),
}

impl Problem {
    /// Cloud Foundry's name, and the text for the developer.
    #[must_use]
    pub fn to_error(&self) -> BuildError {
        BuildError { id: self.id().to_owned(), text: self.text() }
    }

    fn id(&self) -> &'static str {
        match self {
            Self::NothingDetected { .. } | Self::NoBuildpacks => "NoAppDetectedError",
            Self::NoSuchVersion { .. }
            | Self::BadFile { .. }
            | Self::UnsupportedDependencies { .. }
            | Self::StepFailed { .. }
            | Self::MissingLibrary { .. }
            | Self::NotABuildpack { .. } => "BuildpackCompileFailed",
            Self::ScriptFailed { script: "release", .. } => "BuildpackReleaseFailed",
            Self::ScriptFailed { .. } => "BuildpackCompileFailed",
            Self::TimedOut { .. } => "StagingTimeExpired",
            Self::UnknownBuildpack(_)
            | Self::NoLayer { .. }
            | Self::BadPackage(_)
            | Self::DropletTooLarge { .. }
            | Self::DropletTooManyFiles { .. }
            | Self::NoSpace { .. }
            | Self::Platform(_) => "StagingError",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NothingDetected { tried, found, looks_like, broken } => {
                let seen = if found.is_empty() {
                    "The app directory is empty.".to_owned()
                } else {
                    format!("The app directory holds {}.", found.join(", "))
                };
                let advice = looks_like.as_deref().unwrap_or(
                    "Push the directory that has package.json, requirements.txt, Staticfile or index.html at its top (-p), \
                     or name the buildpack (-b).",
                );
                let broken: String = broken.iter().map(|text| format!("\n{text}")).collect();
                format!(
                    "An app was not successfully detected by any available buildpack ({}).\n{advice}\n{seen}{broken}",
                    tried.join(", ")
                )
            }
            Self::UnknownBuildpack(name) => format!(
                "There is no built-in buildpack {name:?}. Use staticfile_buildpack, nodejs_buildpack, python_buildpack or \
                 binary_buildpack, or give the address of a buildpack."
            ),
            Self::NoBuildpacks => {
                "No buildpack is installed or named. Name one with option -b, or ask the operator to install one."
                    .into()
            }
            Self::NoSuchVersion { runtime, wanted, file, available } => format!(
                "{runtime} {wanted:?}, as asked for in {file}, is not available here. Available: {}. Change {file} to one of \
                 these, or ask the operator for a layer with that version.",
                if available.is_empty() { "none".to_owned() } else { available.join(", ") }
            ),
            Self::NoLayer { name } => {
                format!("This platform has no layer with {name}. The operator adds it with `slipway stack build`.")
            }
            Self::BadFile { file, detail } => format!("{file} cannot be read: {detail}. Correct it and push again."),
            Self::BadPackage(detail) => format!("The app's package cannot be unpacked: {detail}."),
            Self::UnsupportedDependencies { file, advice } => {
                format!("The dependencies are listed in {file}, which this buildpack does not install. {advice}")
            }
            Self::StepFailed { buildpack, step, status, reason } => format!(
                "The command `{step}` failed: {status} ({buildpack}).\n{}",
                with_remedy(
                    reason,
                    "Correct what it names, or try the same command in a clean copy of the app's directory."
                )
            ),
            Self::ScriptFailed { buildpack, script, status, reason } => format!(
                "The script bin/{script} of the buildpack {buildpack} failed: {status}.\n{}",
                with_remedy(
                    reason,
                    "Correct what it names; whoever keeps this buildpack knows what it expects of an app."
                )
            ),
            Self::NotABuildpack { buildpack, detail } => format!(
                "{buildpack} is not a usable buildpack: {detail}. A buildpack has bin/detect, and bin/supply, bin/finalize or \
                 bin/compile at its top, all executable."
            ),
            Self::TimedOut { limit, step } => format!(
                "Staging took longer than {limit} s and was ended during `{step}`. Make the build shorter, or push built files."
            ),
            Self::MissingLibrary { missing } => {
                let lines: Vec<String> =
                    missing.iter().map(|(file, library)| format!("{file} needs {library}")).collect();
                format!(
                    "Libraries are missing at run time: {}. They exist neither in the app nor in the stack (those of the \
                     build tools are not there when the app runs). Use a package that brings its libraries along or link \
                     them statically. To push all the same, name the libraries in the variable \
                     SLIPWAY_ALLOW_MISSING_LIBRARIES, separated by commas.",
                    lines.join("; ")
                )
            }
            Self::DropletTooLarge { limit } => format!(
                "The staged app is larger than {} MB. Remove what is not needed at run time, or list it in .cfignore.",
                limit >> 20
            ),
            Self::DropletTooManyFiles { found, limit } => format!(
                "The staged app has {found} files and directories, and an app may have {limit}. Remove what is not needed \
                 at run time (caches, sources of dependencies, test data), or pack it into archives."
            ),
            Self::NoSpace { step } => format!(
                "The disk space of the build is used up ({step}). Give the app a larger disk quota (option -k, or disk_quota \
                 in the manifest), or push less."
            ),
            Self::Platform(detail) => {
                format!(
                    "The platform failed while staging: {detail}. Push again; if it fails again, tell the operator."
                )
            }
        }
    }
}

/// What a program said, and what to do about it.
fn with_remedy(reason: &str, otherwise: &str) -> String {
    match reason {
        "" => format!("It printed nothing. {otherwise}"),
        reason => format!("{reason}\n{}", reason::remedy(reason, otherwise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_failures_carry_the_known_sentence() {
        let nothing = |found: &[&str], looks_like: Option<&str>| {
            Problem::NothingDetected {
                tried: vec!["nodejs_buildpack".into()],
                found: found.iter().map(|name| (*name).to_owned()).collect(),
                looks_like: looks_like.map(str::to_owned),
                broken: vec![],
            }
            .to_error()
        };
        let error = nothing(&[], None);
        assert_eq!(error.id, "NoAppDetectedError");
        assert!(error.text.starts_with("An app was not successfully detected by any available buildpack"));
        assert!(error.text.contains("empty") && error.text.contains("index.html"), "{}", error.text);
        let error = nothing(&["go.mod", "…"], Some("This looks like Go (go.mod)."));
        assert!(
            error.text.ends_with("\nThis looks like Go (go.mod).\nThe app directory holds go.mod, …."),
            "{}",
            error.text
        );
        assert!(!error.text.contains("package.json"), "advice for others is none: {}", error.text);
    }

    #[test]
    fn a_missing_version_names_those_that_exist() {
        let text = Problem::NoSuchVersion {
            runtime: "Node.js",
            wanted: "18".into(),
            file: "package.json",
            available: vec!["22.11.0".into()],
        }
        .to_error()
        .text;
        assert!(text.contains("\"18\"") && text.contains("22.11.0") && text.contains("package.json"), "{text}");
    }

    #[test]
    fn a_command_that_failed_is_named_with_its_end_and_what_to_do() {
        let text = |reason: &str| {
            let (buildpack, step) = ("nodejs_buildpack".into(), "npm ci".into());
            Problem::StepFailed { buildpack, step, status: "exit status 1".into(), reason: reason.into() }
                .to_error()
                .text
        };
        let known = text("npm error code E404");
        let lines: Vec<&str> = known.lines().collect();
        assert_eq!(lines[0], "The command `npm ci` failed: exit status 1 (nodejs_buildpack).");
        assert_eq!(lines[1], "npm error code E404");
        assert!(lines[2].starts_with("Correct the package's name"), "{known}");
        assert!(text("strange").ends_with(
            "\nstrange\nCorrect what it names, or try the same command in a clean copy of the app's directory."
        ));
        assert!(text("").contains("\nIt printed nothing. "));
        let script = Problem::ScriptFailed {
            buildpack: "theirs".into(),
            script: "compile",
            status: "exit status 3".into(),
            reason: "why".into(),
        };
        let text = script.to_error().text;
        assert!(
            text.starts_with("The script bin/compile of the buildpack theirs failed: exit status 3.\nwhy\n"),
            "{text}"
        );
    }
}
