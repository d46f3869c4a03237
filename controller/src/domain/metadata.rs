//! Labels and annotations: what is allowed, and how a change is written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use slipway_api_types::{Metadata, MetadataPatch};

use super::names::shown;
use super::{DomainError, DomainResult};
pub use crate::values::metadata::MetadataChange;

/// Most labels, and most annotations, of one resource.
const MAX_ENTRIES: usize = 200;
const MAX_PREFIX: usize = 253;
const MAX_LABEL: usize = 63;
const MAX_ANNOTATION: usize = 5000;
/// Most problems that one answer names.
const MAX_PROBLEMS: usize = 10;

impl MetadataChange {
    /// Checks a change; no change at all is two empty objects.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] naming everything that is wrong, in the words of Cloud Foundry.
    pub fn check(patch: Option<MetadataPatch>) -> DomainResult<Self> {
        let patch = patch.unwrap_or_default();
        let mut problems = Vec::new();
        check_entries("label", &patch.labels, label_value, &mut problems);
        check_entries("annotation", &patch.annotations, annotation_value, &mut problems);
        if problems.is_empty() {
            return Ok(Self { labels: object(patch.labels), annotations: object(patch.annotations) });
        }
        problems.truncate(MAX_PROBLEMS);
        Err(DomainError::invalid(problems.join(", ")))
    }
}

fn object(entries: BTreeMap<String, Option<String>>) -> Value {
    Value::Object(entries.into_iter().map(|(key, value)| (key, value.map_or(Value::Null, Value::String))).collect())
}

fn check_entries(
    kind: &str,
    entries: &BTreeMap<String, Option<String>>,
    value_problem: impl Fn(&str) -> Option<String>,
    problems: &mut Vec<String>,
) {
    if entries.len() > MAX_ENTRIES {
        problems.push(format!("Metadata may hold at most {MAX_ENTRIES} {kind}s"));
        return;
    }
    for (key, value) in entries {
        problems.extend(key_problem(key).map(|problem| format!("Metadata {kind} key error: {problem}")));
        let problem = value.as_deref().and_then(&value_problem);
        problems.extend(problem.map(|problem| format!("Metadata {kind} value error: {problem}")));
    }
}

fn key_problem(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if name.contains('/') {
        return Some("key has more than one '/'".to_owned());
    }
    if let Some(prefix) = prefix {
        let parts_are_good = prefix.split('.').all(|part| {
            !part.is_empty()
                && part.len() <= 63
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        });
        if !prefix.contains('.') || !parts_are_good {
            return Some(format!("prefix '{}' must be in valid dns format", shown(prefix)));
        }
        if prefix.len() > MAX_PREFIX {
            return Some(format!("prefix '{}' is greater than {MAX_PREFIX} characters", shown(prefix)));
        }
        if prefix.eq_ignore_ascii_case("cloudfoundry.org") {
            return Some("prefix 'cloudfoundry.org' is reserved".to_owned());
        }
    }
    if name.is_empty() { Some("key cannot be empty string".to_owned()) } else { text_problem(name) }
}

fn label_value(value: &str) -> Option<String> {
    if value.is_empty() { None } else { text_problem(value) }
}

fn annotation_value(value: &str) -> Option<String> {
    (value.chars().count() > MAX_ANNOTATION)
        .then(|| format!("'{}' is greater than {MAX_ANNOTATION} characters", shown(value)))
}

/// What is wrong with a name or a label: letters, digits, `-_.`, beginning and ending with a letter or digit.
fn text_problem(text: &str) -> Option<String> {
    let problem = if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        "contains invalid characters".to_owned()
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        "starts or ends with invalid characters".to_owned()
    } else if text.len() > MAX_LABEL {
        format!("is greater than {MAX_LABEL} characters")
    } else {
        return None;
    };
    Some(format!("'{}' {problem}", shown(text)))
}

/// Metadata as stored, for a view. Values that are not strings cannot be stored, and would be left out.
#[must_use]
pub fn metadata_of(labels: &Value, annotations: &Value) -> Metadata {
    let read = |value: &Value| {
        let none = Map::new();
        let entries = value.as_object().unwrap_or(&none);
        entries.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    Metadata { labels: read(labels), annotations: read(annotations) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str, value: Option<&str>) -> DomainResult<MetadataChange> {
        MetadataChange::check(Some(MetadataPatch {
            labels: BTreeMap::from([(key.to_owned(), value.map(ToOwned::to_owned))]),
            annotations: BTreeMap::new(),
        }))
    }

    #[test]
    fn keys_and_values_are_checked() {
        assert!(label("env", Some("prod")).is_ok());
        assert!(label("example.com/env", Some("")).is_ok());
        assert!(label("env", None).is_ok());
        for key in ["", "/x", "example.com/", "a b", "-a", "cloudfoundry.org/x", "nodot/x", "a.b/c/d"] {
            assert!(label(key, None).is_err(), "{key:?}");
        }
        assert!(label(&"k".repeat(64), None).is_err());
        assert!(label("k", Some(&"v".repeat(64))).is_err());
        assert!(label("k", Some("a/b")).is_err());
        let message = label("", Some("108&eb")).expect_err("both are wrong").to_string();
        assert_eq!(
            message,
            "Metadata label key error: key cannot be empty string, Metadata label value error: '108&eb' contains invalid \
             characters"
        );
    }

    #[test]
    fn null_stays_null() {
        let change = label("gone", None).expect("valid");
        assert_eq!(change.labels, serde_json::json!({"gone": null}));
        assert_eq!(change.annotations, serde_json::json!({}));
    }
}
