//! Typed configuration from a TOML file.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type; the text names line and key.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<toml::de::Error>,
    },
    /// Every value that makes no sense, one per line.
    #[error("the configuration {path} cannot be used:\n  - {}", .problems.join("\n  - "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All mistakes, not only the first.
        problems: Vec<String>,
    },
}

/// A configuration that can check itself beyond types.
pub trait Validate {
    /// All mistakes, in words that name the key and what to do. Empty = usable.
    fn problems(&self) -> Vec<String>;
}

/// Reads and checks a configuration.
///
/// # Errors
/// When the file cannot be read or parsed, or [`Validate::problems`] finds any.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config: T = toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: path.to_owned(), problems }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        port: u16,
        name: String,
    }

    impl Validate for Sample {
        fn problems(&self) -> Vec<String> {
            let mut problems = Vec::new();
            if self.port == 0 {
                problems.push("port: 0 is not a port".to_owned());
            }
            if self.name.is_empty() {
                problems.push("name: must not be empty".to_owned());
            }
            problems
        }
    }

    fn load_text(text: &str) -> Result<Sample, ConfigError> {
        let file = tempfile();
        std::fs::write(&file, text).expect("write");
        let result = load(&file);
        std::fs::remove_file(&file).expect("remove");
        result
    }

    fn tempfile() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("slipway-config-{}-{number}.toml", std::process::id()))
    }

    #[test]
    fn all_mistakes_at_once() {
        let error = load_text("port = 0\nname = ''").expect_err("must refuse");
        let text = error.to_string();
        assert!(text.contains("port: 0") && text.contains("name: must"), "{text}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(matches!(load_text("port = 1\nname = 'x'\nprot = 2"), Err(ConfigError::Parse { .. })));
    }
}
