//! Labels and annotations: what is allowed, and how a change is written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use slipway_api_types::{Metadata, MetadataPatch};

use super::{DomainError, DomainResult};

/// Most labels, and most annotations, of one resource.
const MAX_ENTRIES: usize = 200;
const MAX_PREFIX: usize = 253;
const MAX_LABEL: usize = 63;
const MAX_ANNOTATION: usize = 5000;

/// A checked change, as two JSON objects in which null removes. SQL applies it with
/// `labels = jsonb_strip_nulls(labels || $1)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataChange {
    /// Labels.
    pub labels: Value,
    /// Annotations.
    pub annotations: Value,
}

impl MetadataChange {
    /// Checks a change; no change at all is two empty objects.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] naming the key.
    pub fn check(patch: Option<MetadataPatch>) -> DomainResult<Self> {
        let patch = patch.unwrap_or_default();
        check_entries("label", &patch.labels, check_label_value)?;
        check_entries("annotation", &patch.annotations, |key, value| {
            if value.chars().count() > MAX_ANNOTATION {
                return Err(invalid("annotation", key, &format!("value is greater than {MAX_ANNOTATION} characters")));
            }
            Ok(())
        })?;
        Ok(Self { labels: object(patch.labels), annotations: object(patch.annotations) })
    }
}

fn object(entries: BTreeMap<String, Option<String>>) -> Value {
    Value::Object(entries.into_iter().map(|(key, value)| (key, value.map_or(Value::Null, Value::String))).collect())
}

fn invalid(kind: &str, key: &str, problem: &str) -> DomainError {
    DomainError::invalid(format!("Metadata {kind} key error: '{}' {problem}", key.chars().take(80).collect::<String>()))
}

fn check_entries(
    kind: &str,
    entries: &BTreeMap<String, Option<String>>,
    check_value: impl Fn(&str, &str) -> DomainResult<()>,
) -> DomainResult<()> {
    if entries.len() > MAX_ENTRIES {
        return Err(DomainError::invalid(format!("Metadata may hold at most {MAX_ENTRIES} {kind}s")));
    }
    for (key, value) in entries {
        check_key(kind, key)?;
        if let Some(value) = value {
            check_value(key, value)?;
        }
    }
    Ok(())
}

fn check_key(kind: &str, key: &str) -> DomainResult<()> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(prefix) = prefix {
        let parts_are_good = prefix.split('.').all(|part| {
            !part.is_empty()
                && part.len() <= 63
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        });
        if prefix.len() > MAX_PREFIX || !prefix.contains('.') || !parts_are_good {
            return Err(invalid(kind, key, "prefix must be in valid dns format"));
        }
        if prefix.eq_ignore_ascii_case("cloudfoundry.org") {
            return Err(invalid(kind, key, "prefix 'cloudfoundry.org' is reserved"));
        }
    }
    if name.is_empty() {
        return Err(invalid(kind, key, "cannot be empty string"));
    }
    if name.contains('/') {
        return Err(invalid(kind, key, "has more than one '/'"));
    }
    if name.chars().count() > MAX_LABEL {
        return Err(invalid(kind, key, &format!("is greater than {MAX_LABEL} characters")));
    }
    if !is_label_text(name) {
        return Err(invalid(kind, key, "contains invalid characters"));
    }
    Ok(())
}

/// Letters, digits, `-_.`, beginning and ending with a letter or digit.
fn is_label_text(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn check_label_value(key: &str, value: &str) -> DomainResult<()> {
    if value.len() > MAX_LABEL {
        return Err(invalid("label", key, &format!("value is greater than {MAX_LABEL} characters")));
    }
    if !value.is_empty() && !is_label_text(value) {
        return Err(invalid("label", key, "value contains invalid characters"));
    }
    Ok(())
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
    }

    #[test]
    fn null_stays_null() {
        let change = label("gone", None).expect("valid");
        assert_eq!(change.labels, serde_json::json!({"gone": null}));
        assert_eq!(change.annotations, serde_json::json!({}));
    }
}
