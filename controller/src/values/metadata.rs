//! A change of labels and annotations. What is allowed is checked in [`crate::domain::metadata`].

use serde_json::Value;

/// A checked change, as two JSON objects in which null removes. SQL applies it with
/// `labels = jsonb_strip_nulls(labels || $1)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataChange {
    /// Labels.
    pub labels: Value,
    /// Annotations.
    pub annotations: Value,
}
