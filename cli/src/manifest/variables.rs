//! `((name))` in a manifest, filled in from `--var` and `--vars-file`.

use std::path::{Path, PathBuf};

use serde_norway::{Mapping, Value};

use super::ManifestError;

/// Values by name.
#[derive(Debug, Default)]
pub(super) struct Variables(Mapping);

impl Variables {
    /// Reads the files in their order, then the flags: the last value of a name wins.
    pub(super) fn load(flags: &[String], files: &[PathBuf], directory: &Path) -> Result<Self, ManifestError> {
        let mut values = Mapping::new();
        for file in files {
            let path = directory.join(file);
            let text =
                std::fs::read_to_string(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
            let part: Option<Mapping> =
                serde_norway::from_str(&text).map_err(|source| ManifestError::Yaml { path, source })?;
            values.extend(part.unwrap_or_default());
        }
        for flag in flags {
            let (name, value) = flag
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                // The value may be a password: only the name is shown.
                .ok_or_else(|| ManifestError::Variable {
                    text: flag.split('=').next().unwrap_or_default().to_owned(),
                })?;
            // As `cf` has it, 4 is a number and true a boolean; what is not YAML is text.
            let value = serde_norway::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            values.insert(name.into(), value);
        }
        Ok(Self(values))
    }

    /// Replaces the placeholders and gives the names without a value, each once.
    pub(super) fn fill(&self, value: &mut Value) -> Vec<String> {
        let mut missing = Vec::new();
        self.fill_into(value, &mut missing);
        missing
    }

    fn fill_into(&self, value: &mut Value, missing: &mut Vec<String>) {
        match value {
            Value::String(text) => {
                if let Some(filled) = self.fill_text(text, missing) {
                    *value = filled;
                }
            }
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.fill_into(item, missing)),
            Value::Mapping(mapping) => {
                for (mut key, mut item) in std::mem::take(mapping) {
                    self.fill_into(&mut key, missing);
                    self.fill_into(&mut item, missing);
                    mapping.insert(key, item);
                }
            }
            _ => {}
        }
    }

    /// A text that is one placeholder takes the value with its type; placeholders inside a longer text become text.
    fn fill_text(&self, text: &str, missing: &mut Vec<String>) -> Option<Value> {
        let mut filled = String::new();
        let mut rest = text;
        let mut found = false;
        while let Some((name, before, after)) = placeholder(rest) {
            found = true;
            filled.push_str(before);
            match self.0.get(name) {
                Some(value) if before.is_empty() && after.is_empty() && filled.is_empty() => {
                    return Some(value.clone());
                }
                Some(value) => filled.push_str(&scalar(value)),
                None => {
                    if !missing.iter().any(|known| known == name) {
                        missing.push(name.to_owned());
                    }
                }
            }
            rest = after;
        }
        filled.push_str(rest);
        found.then_some(Value::String(filled))
    }
}

/// The first `((name))`: its name, what stands before, what stands after.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let begin = from + text[from..].find("((")?;
        let end = begin + 2 + text[begin + 2..].find("))")?;
        let name = text[begin + 2..end].trim();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if !name.is_empty() && name.chars().all(plain) {
            return Some((name, &text[..begin], &text[end + 2..]));
        }
        // `((` of something else, such as shell arithmetic in a start command.
        from = begin + 1;
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        other => serde_norway::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}
