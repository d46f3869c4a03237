//! What a client asked of a list, understood and checked.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

/// Page, order and filters of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListOptions {
    /// From 1.
    pub page: u64,
    /// 1..=5000.
    pub per_page: u64,
    /// Column as the client names it, and whether descending; `None` = insertion order.
    pub order: Option<(String, bool)>,
    /// Filter name to the values, any of which may match. Present but `[""]` when the client sent `hosts=`.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Conditions on the time of creation.
    pub created: Vec<TimeCondition>,
    /// Conditions on the time of the last change.
    pub updated: Vec<TimeCondition>,
    /// All must hold.
    pub labels: Vec<LabelRequirement>,
    /// Names of parents to be added.
    pub include: Vec<String>,
}

impl ListOptions {
    /// Values of a filter, if the client sent it.
    #[must_use]
    pub fn filter(&self, name: &str) -> Option<&[String]> {
        self.filters.get(name).map(Vec::as_slice)
    }

    /// Whether the client asked for this parent.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        self.include.iter().any(|included| included == name)
    }

    /// The same list with a page of one, without filters: for reading something by itself.
    #[must_use]
    pub fn everything(per_page: u64) -> Self {
        Self {
            page: 1,
            per_page,
            order: None,
            filters: BTreeMap::new(),
            created: Vec::new(),
            updated: Vec::new(),
            labels: Vec::new(),
            include: Vec::new(),
        }
    }
}

/// A condition on a time. Times have the precision of a second, as clients see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeCondition {
    /// One of these.
    In(Vec<DateTime<Utc>>),
    /// Before.
    Lt(DateTime<Utc>),
    /// Before or at.
    Lte(DateTime<Utc>),
    /// After.
    Gt(DateTime<Utc>),
    /// After or at.
    Gte(DateTime<Utc>),
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelRequirement {
    /// The key is there.
    Exists(String),
    /// The key is not there.
    NotExists(String),
    /// The key has one of these values.
    In(String, Vec<String>),
    /// The key is not there, or has none of these values.
    NotIn(String, Vec<String>),
}
