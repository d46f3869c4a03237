//! Any query that a list understands.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::spec::List;

/// One condition on labels, as `kubectl` writes it.
#[derive(Clone, Debug)]
pub(crate) enum Label {
    Has(&'static str),
    Lacks(&'static str),
    Is(&'static str, &'static str, bool),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
}

/// A condition on a time: the operator (empty for a list of instants) and offsets in seconds from the first row's.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) field: &'static str,
    pub(crate) operator: &'static str,
    pub(crate) offsets: Vec<i64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) filters: Vec<(&'static str, Vec<String>)>,
    pub(crate) labels: Vec<Label>,
    pub(crate) times: Vec<Times>,
    /// Field and whether descending.
    pub(crate) order: Option<(&'static str, bool)>,
    pub(crate) include: Vec<&'static str>,
    pub(crate) per_page: usize,
}

const KEYS: &[&str] = &["env", "team", "example.com/tier", "nobody-has-it"];
const VALUES: &[&str] = &["prod", "dev", "", "team-0", "team-3", "gold", "nothing"];

/// Filters that take one value, of a few.
const CLOSED: &[&str] = &["type"];

fn label() -> impl Strategy<Value = Label> {
    let key = || select(KEYS);
    let values = || subsequence(VALUES, 1..4);
    prop_oneof![
        key().prop_map(Label::Has),
        key().prop_map(Label::Lacks),
        (key(), select(VALUES), either()).prop_map(|(key, value, twice)| Label::Is(key, value, twice)),
        (key(), select(VALUES)).prop_map(|(key, value)| Label::IsNot(key, value)),
        (key(), values()).prop_map(|(key, values)| Label::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Label::NotIn(key, values)),
    ]
}

fn times() -> impl Strategy<Value = Times> {
    let field = select(&["created_ats", "updated_ats"][..]);
    let operator = select(&["", "lt", "lte", "gt", "gte"][..]);
    (field, operator, prop::collection::vec(-1..14_i64, 1..4)).prop_map(|(field, operator, mut offsets)| {
        if !operator.is_empty() {
            offsets.truncate(1);
        }
        Times { field, operator, offsets }
    })
}

/// Queries of a list in which these values occur.
pub(crate) fn queries_of(list: &'static List, values: Vec<(&'static str, Vec<String>)>) -> BoxedStrategy<Query> {
    let filter = select(values).prop_flat_map(|(name, mut values)| {
        let closed = CLOSED.contains(&name);
        if !closed || values.is_empty() {
            values.push(if closed { "app" } else { "no-such-value" }.to_owned());
        }
        let most = if closed { 1 } else { values.len().min(5) };
        (Just(name), subsequence(values, 1..=most))
    });
    let labels = if list.labels { 0..4_usize } else { 0..1 };
    let mut fields = vec!["created_at", "updated_at"];
    fields.extend(list.orders.iter().map(|(name, _)| *name));
    let names: Vec<&'static str> = list.includes.iter().map(|(name, _, _)| *name).collect();
    let most = names.len();
    (
        prop::collection::vec(filter, 0..3),
        prop::collection::vec(label(), labels),
        prop::collection::vec(times(), 0..2),
        prop::option::of((select(fields), either())),
        subsequence(names, 0..=most),
        1..20_usize,
    )
        .prop_map(|(mut filters, labels, times, order, include, per_page)| {
            // A parameter that comes twice counts once, with its last value: not what this asks.
            filters.sort_by_key(|(name, _)| *name);
            filters.dedup_by_key(|(name, _)| *name);
            Query { filters, labels, times, order, include, per_page }
        })
        .boxed()
}

fn either() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}
