//! Shapes that every resource uses: relationships, metadata, links, pages.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// `{"guid": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// The guid of the other resource.
    pub guid: String,
}

impl Ref {
    /// A reference to anything with a guid.
    pub fn to(guid: impl ToString) -> Self {
        Self { guid: guid.to_string() }
    }
}

/// `{"data": {"guid": "…"}}`, or `{"data": null}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToOne {
    /// The other resource, if there is one.
    #[serde(default, deserialize_with = "ref_or_nothing")]
    pub data: Option<Ref>,
}

/// Some clients empty a relationship by `{"guid": null}`, which Cloud Foundry takes for `null`.
fn ref_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ref>, D::Error> {
    #[derive(Deserialize)]
    struct MaybeRef {
        // Null, but not absent: who names nothing may have meant something.
        #[serde(deserialize_with = "Option::deserialize")]
        guid: Option<String>,
    }
    let data = Option::<MaybeRef>::deserialize(deserializer)?;
    Ok(data.and_then(|data| data.guid).map(|guid| Ref { guid }))
}

impl ToOne {
    /// A relationship to one resource.
    pub fn to(guid: impl ToString) -> Self {
        Self { data: Some(Ref::to(guid)) }
    }

    /// A relationship that may be empty.
    pub fn maybe(guid: Option<impl ToString>) -> Self {
        Self { data: guid.map(Ref::to) }
    }

    /// The guid, if the relationship is set.
    #[must_use]
    pub fn guid(&self) -> Option<&str> {
        self.data.as_ref().map(|data| data.guid.as_str())
    }
}

/// `{"data": [{"guid": "…"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToMany {
    /// The other resources.
    pub data: Vec<Ref>,
}

/// Labels and annotations of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Selectable.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Free text.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A change of metadata: `null` removes a key, absent keys stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataPatch {
    /// Labels to set or remove.
    #[serde(default, deserialize_with = "null_as_none_given")]
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set or remove.
    #[serde(default, deserialize_with = "null_as_none_given")]
    pub annotations: BTreeMap<String, Option<String>>,
}

/// Clients send `null` for what they do not change.
fn null_as_none_given<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An absolute link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Absolute URL.
    pub href: String,
    /// HTTP method when it is not GET.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
}

impl Link {
    /// A link to be read.
    pub fn get(href: impl Into<String>) -> Self {
        Self { href: href.into(), method: None }
    }

    /// A link to be posted to.
    pub fn post(href: impl Into<String>) -> Self {
        Self { href: href.into(), method: Some("POST".to_owned()) }
    }
}

/// Links by name, in a stable order.
pub type Links = BTreeMap<String, Link>;

/// Where a page stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pagination {
    /// How many resources match in all.
    pub total_results: u64,
    /// At least 1.
    pub total_pages: u64,
    /// The first page.
    pub first: Link,
    /// The last page.
    pub last: Link,
    /// The next page, absolute, with all parameters repeated.
    pub next: Option<Link>,
    /// The page before.
    pub previous: Option<Link>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// Where it stands.
    pub pagination: Pagination,
    /// The resources.
    pub resources: Vec<T>,
    /// Whole parents asked for with `include`, by plural name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub included: Option<BTreeMap<String, Vec<Value>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relationship_is_emptied_in_two_ways() {
        let read = |text: &str| serde_json::from_str::<ToOne>(text);
        for empty in [r#"{"data": null}"#, r#"{"data": {"guid": null}}"#, "{}"] {
            assert_eq!(read(empty).expect(empty), ToOne::default());
        }
        assert_eq!(read(r#"{"data": {"guid": "a"}}"#).expect("a guid").guid(), Some("a"));
        for bad in [r#"{"data": {}}"#, r#"{"data": {"guid": 1}}"#, r#"{"data": "a"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
