//! The lists as values in memory, and the same query answered from them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use reqwest::StatusCode;
use serde_json::Value;

use crate::query::{Label, Query, Times};
use crate::spec::List;
use crate::support::TestClient;

/// Everything that the lists hold, by path.
#[derive(Default)]
pub(crate) struct Collections(BTreeMap<&'static str, Vec<Value>>);

impl Collections {
    /// Reads a whole list.
    pub(crate) async fn load(&mut self, client: &TestClient, path: &'static str) {
        let (status, body) = client.get(&format!("{path}?per_page=5000")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        let resources = body["resources"].as_array().expect("resources").clone();
        assert_eq!(body["pagination"]["total_results"].as_u64(), Some(resources.len() as u64), "{path}");
        self.0.insert(path, resources);
    }

    pub(crate) fn guids(&self, path: &str) -> BTreeSet<String> {
        self.0[path].iter().map(guid).collect()
    }

    /// The values that occur, for each filter of a list.
    pub(crate) fn values(&self, list: &'static List) -> Vec<(&'static str, Vec<String>)> {
        let of = |place: &str| {
            let found: BTreeSet<String> = self.0[list.path].iter().flat_map(|item| self.at(item, place)).collect();
            found.into_iter().collect()
        };
        list.filters.iter().map(|(name, place)| (*name, of(place))).collect()
    }

    /// The texts at a place of a resource, see `spec.rs`.
    fn at(&self, item: &Value, place: &str) -> Vec<String> {
        let (first, rest) = place.split_once('.').map_or((place, None), |(first, rest)| (first, Some(rest)));
        if let Some(relation) = first.strip_prefix('@') {
            let related = &item["relationships"][relation]["data"]["guid"];
            return match (related.as_str(), rest) {
                (None, _) => Vec::new(),
                (Some(guid), None) => vec![guid.to_owned()],
                (Some(guid), Some(rest)) => {
                    let parents = &self.0[format!("/v3/{relation}s").as_str()];
                    parents
                        .iter()
                        .filter(|parent| parent["guid"] == guid)
                        .flat_map(|parent| self.at(parent, rest))
                        .collect()
                }
            };
        }
        let next = &item[first];
        match (next, rest) {
            (Value::Array(items), Some(rest)) => items.iter().flat_map(|item| self.at(item, rest)).collect(),
            (next, Some(rest)) => self.at(next, rest),
            (Value::String(text), None) => vec![text.clone()],
            (Value::Number(number), None) => vec![number.to_string()],
            _ => Vec::new(),
        }
    }

    /// The earliest of these times in a list; any time when it is empty.
    fn first(&self, list: &List, field: &str) -> &str {
        self.0[list.path].iter().filter_map(|item| item[field].as_str()).min().unwrap_or("2026-01-05T10:00:00Z")
    }

    fn keeps(&self, list: &List, item: &Value, query: &Query) -> bool {
        let first = |field: &str| self.first(list, field);
        query.filters.iter().all(|(name, wanted)| {
            let place = list.filters.iter().find(|(known, _)| known == name).expect("a filter of this list").1;
            self.at(item, place).iter().any(|value| wanted.contains(value))
        }) && query.labels.iter().all(|label| label.holds(item))
            && query.times.iter().all(|times| {
                let field = times.field.trim_end_matches('s');
                times.hold(first(field), item[field].as_str().expect("a time"))
            })
    }
}

fn guid(item: &Value) -> String {
    item["guid"].as_str().expect("a guid").to_owned()
}

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).expect("a time").with_timezone(&Utc)
}

impl Label {
    fn holds(&self, item: &Value) -> bool {
        let has = |key: &str| item["metadata"]["labels"].get(key).and_then(Value::as_str);
        match self {
            Self::Has(key) => has(key).is_some(),
            Self::Lacks(key) => has(key).is_none(),
            Self::Is(key, value, _) => has(key) == Some(value),
            Self::IsNot(key, value) => has(key) != Some(value),
            Self::In(key, values) => has(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => has(key).is_none_or(|value| !values.contains(&value)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Has(key) => (*key).to_owned(),
            Self::Lacks(key) => format!("!{key}"),
            Self::Is(key, value, twice) => format!("{key}{}{value}", if *twice { "==" } else { "=" }),
            Self::IsNot(key, value) => format!("{key}!={value}"),
            Self::In(key, values) => format!("{key} in ({})", values.join(",")),
            Self::NotIn(key, values) => format!("{key} notin ({})", values.join(", ")),
        }
    }
}

impl Times {
    fn instants(&self, first: &str) -> Vec<DateTime<Utc>> {
        self.offsets.iter().map(|offset| time(first) + Duration::seconds(*offset)).collect()
    }

    fn hold(&self, first: &str, value: &str) -> bool {
        let (instants, value) = (self.instants(first), time(value));
        match self.operator {
            "lt" => value < instants[0],
            "lte" => value <= instants[0],
            "gt" => value > instants[0],
            "gte" => value >= instants[0],
            _ => instants.contains(&value),
        }
    }
}

/// The query as a client writes it.
fn written(all: &Collections, list: &List, query: &Query) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (name, values) in &query.filters {
        // An item's own comma is encoded before the list is.
        let items: Vec<String> = values.iter().map(|value| value.replace('%', "%25").replace(',', "%2C")).collect();
        text.append_pair(name, &items.join(","));
    }
    if !query.labels.is_empty() {
        let selector: Vec<String> = query.labels.iter().map(Label::text).collect();
        text.append_pair("label_selector", &selector.join(","));
    }
    for times in &query.times {
        let field = times.field.trim_end_matches('s');
        let first = all.first(list, field);
        let instants: Vec<String> =
            times.instants(first).iter().map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)).collect();
        let name = if times.operator.is_empty() {
            times.field.to_owned()
        } else {
            format!("{}[{}]", times.field, times.operator)
        };
        text.append_pair(&name, &instants.join(","));
    }
    if let Some((field, descending)) = query.order {
        text.append_pair("order_by", &format!("{}{field}", if descending { "-" } else { "" }));
    }
    if !query.include.is_empty() {
        text.append_pair("include", &query.include.join(","));
    }
    text.append_pair("per_page", &query.per_page.to_string());
    format!("{}?{}", list.path, text.finish())
}

/// The guids of all pages, in their order.
pub(crate) async fn follow_pages(client: &TestClient, first: &str) -> Vec<String> {
    pages(client, first)
        .await
        .iter()
        .flat_map(|page| page["resources"].as_array().expect("a list").iter().map(guid))
        .collect()
}

async fn pages(client: &TestClient, first: &str) -> Vec<Value> {
    let (mut pages, mut next) = (Vec::new(), first.to_owned());
    loop {
        let (status, page) = client.get(&next).await;
        assert_eq!(status, StatusCode::OK, "{next}: {page}");
        let href = page["pagination"]["next"]["href"].as_str().map(ToOwned::to_owned);
        pages.push(page);
        match href {
            Some(href) => next = href,
            None => return pages,
        }
    }
}

/// Asks the API and the model, and compares: which rows, how many, in which order, with which parents.
pub(crate) async fn matches(client: &TestClient, all: &Collections, list: &List, query: &Query) {
    let text = written(all, list, query);
    let wanted: BTreeSet<String> =
        all.0[list.path].iter().filter(|item| all.keeps(list, item, query)).map(guid).collect();
    let pages = pages(client, &text).await;
    let rows: Vec<&Value> = pages.iter().flat_map(|page| page["resources"].as_array().expect("a list")).collect();
    let seen: BTreeSet<String> = rows.iter().map(|row| guid(row)).collect();
    assert_eq!(seen, wanted, "{text}");
    assert_eq!(rows.len(), wanted.len(), "{text}: a row came twice");
    for page in &pages {
        assert_eq!(page["pagination"]["total_results"].as_u64(), Some(wanted.len() as u64), "{text}");
        let expected = wanted.len().div_ceil(query.per_page).max(1);
        assert_eq!(page["pagination"]["total_pages"].as_u64(), Some(expected as u64), "{text}");
        assert!(page["resources"].as_array().expect("a list").len() <= query.per_page, "{text}");
        for (name, place, key) in list.includes.iter().filter(|(name, _, _)| query.include.contains(name)) {
            let here = page["resources"].as_array().expect("a list");
            let parents: BTreeSet<String> = here.iter().flat_map(|row| all.at(row, place)).collect();
            let included = page["included"][key].as_array().unwrap_or_else(|| panic!("{text}: no {key} for {name}"));
            let given: Vec<String> = included.iter().map(guid).collect();
            assert_eq!(given.len(), parents.len(), "{text}: {key} {given:?}");
            assert_eq!(given.into_iter().collect::<BTreeSet<_>>(), parents, "{text}: {key}");
        }
    }
    if let Some((field, descending)) = query.order {
        let place = list.orders.iter().find(|(name, _)| *name == field).map_or(field, |(_, place)| *place);
        let number = |text: &String| text.parse::<i64>().ok();
        let keys: Vec<String> = rows.iter().flat_map(|row| all.at(row, place)).collect();
        for pair in keys.windows(2) {
            let order = match (number(&pair[0]), number(&pair[1])) {
                (Some(first), Some(second)) => first.cmp(&second),
                _ if field == "name" => pair[0].to_lowercase().cmp(&pair[1].to_lowercase()),
                _ => pair[0].cmp(&pair[1]),
            };
            let order = if descending { order.reverse() } else { order };
            assert!(order.is_le(), "{text}: {:?} stands before {:?}", pair[0], pair[1]);
        }
    }
}
