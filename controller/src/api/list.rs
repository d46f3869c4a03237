//! The list grammar: `page`, `per_page`, `order_by`, filters as comma lists, time conditions, `label_selector`,
//! `include`; and the page that answers it.
//!
//! A comma inside an item arrives encoded twice. So the query is decoded once, split at commas, and each item decoded
//! once more. `hosts=` is a list holding the empty string, not "no filter".

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use slipway_api_types::{Link, Page, Pagination};

use super::error::{ApiError, ApiResult};
use super::label_selector;
use super::links::BaseUrl;
use crate::domain::list::{ListOptions, TimeCondition};

/// Default size of a page.
pub const PER_PAGE: u64 = 50;
/// Largest page.
pub const MAX_PER_PAGE: u64 = 5000;
/// Most values of one filter: ten groups of what clients send at once.
const MAX_VALUES: usize = 5000;

/// What one list understands.
#[derive(Clone, Copy, Debug)]
pub struct ListSpec {
    /// Filters, besides `created_ats`, `updated_ats` and `guids`, which all lists have.
    pub filters: &'static [&'static str],
    /// Orders, besides `created_at` and `updated_at`.
    pub order: &'static [&'static str],
    /// Values of `include`.
    pub include: &'static [&'static str],
    /// Other parameters that are accepted and kept as they are: `embed`, `fields[space]`, …
    pub other: &'static [&'static str],
    /// Whether the resource has labels.
    pub labels: bool,
}

impl ListSpec {
    /// A list without anything of its own.
    pub const PLAIN: Self = Self { filters: &[], order: &[], include: &[], other: &[], labels: false };

    fn known(&self) -> Vec<&'static str> {
        let mut known = vec!["page", "per_page", "order_by", "guids", "created_ats", "updated_ats"];
        if self.labels {
            known.push("label_selector");
        }
        if !self.include.is_empty() {
            known.push("include");
        }
        known.extend(self.filters);
        known.extend(self.other);
        known
    }
}

/// A parsed query: what was asked for, and the parameters as they came, to be repeated in links.
#[derive(Clone, Debug, PartialEq)]
pub struct ListQuery {
    /// What was asked for.
    pub options: ListOptions,
    /// Parameters of `ListSpec::other`, decoded.
    pub other: BTreeMap<String, String>,
    /// All parameters except `page` and `per_page`, decoded once.
    repeated: Vec<(String, String)>,
}

impl ListQuery {
    /// Parses the part of the URL behind the question mark.
    ///
    /// # Errors
    /// 400 `CF-BadQueryParameter` naming the parameter, and the valid ones when it is unknown.
    pub fn parse(query: Option<&str>, spec: &ListSpec) -> ApiResult<Self> {
        let mut options = ListOptions::everything(PER_PAGE);
        let (mut other, mut repeated) = (BTreeMap::new(), Vec::new());
        let mut unknown = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if name.is_empty() && value.is_empty() {
                continue;
            }
            if !matches!(&*name, "page" | "per_page") {
                repeated.push((name.to_string(), value.to_string()));
            }
            match &*name {
                "page" => options.page = number("page", &value, u64::MAX / MAX_PER_PAGE)?,
                "per_page" => options.per_page = number("per_page", &value, MAX_PER_PAGE)?,
                "order_by" => options.order = Some(order(&value, spec)?),
                "created_ats" => options.created = times("created_ats", "=", &value)?,
                "updated_ats" => options.updated = times("updated_ats", "=", &value)?,
                "label_selector" if spec.labels => options.labels = label_selector::parse(&value)?,
                "include" if !spec.include.is_empty() => options.include = include(&value, spec)?,
                name if name == "guids" || spec.filters.contains(&name) => {
                    options.filters.insert(name.to_owned(), items(name, &value)?);
                }
                name if spec.other.contains(&name) => {
                    other.insert(name.to_owned(), value.to_string());
                }
                name => match bracketed(name) {
                    Some(("created_ats", operator)) => options.created.extend(times("created_ats", operator, &value)?),
                    Some(("updated_ats", operator)) => options.updated.extend(times("updated_ats", operator, &value)?),
                    _ => unknown.push(name.chars().take(100).collect::<String>()),
                },
            }
        }
        if !unknown.is_empty() {
            return Err(ApiError::bad_query(format!(
                "The query parameter is invalid: Unknown query parameter(s): '{}'. Valid parameters are: '{}'",
                unknown.join("', '"),
                spec.known().join("', '")
            )));
        }
        Ok(Self { options, other, repeated })
    }

    /// The query of one resource, where `include` is all that there is: the list of this one, with the same parents.
    /// `None` when nothing is to be included.
    ///
    /// # Errors
    /// As [`ListQuery::parse`].
    pub fn of_one(query: Option<&str>, list: &ListSpec, guid: uuid::Uuid) -> ApiResult<Option<Self>> {
        let mut query = Self::parse(query, &ListSpec { include: list.include, ..ListSpec::PLAIN })?;
        query.options.filters.insert("guids".to_owned(), vec![guid.to_string()]);
        Ok((!query.options.include.is_empty()).then_some(query))
    }

    /// The page that answers this query, with absolute links that repeat every parameter.
    #[must_use]
    pub fn page<T>(&self, base: &BaseUrl, path: &str, total: u64, resources: Vec<T>) -> Page<T> {
        let (page, per_page) = (self.options.page, self.options.per_page);
        let pages = total.div_ceil(per_page).max(1);
        let link = |page: u64| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&self.repeated);
            query.append_pair("page", &page.to_string()).append_pair("per_page", &per_page.to_string());
            Link::get(base.url(&format!("{path}?{}", query.finish())))
        };
        Page {
            pagination: Pagination {
                total_results: total,
                total_pages: pages,
                first: link(1),
                last: link(pages),
                next: (page < pages).then(|| link(page + 1)),
                previous: (page > 1).then(|| link(page - 1)),
            },
            resources,
            included: None,
        }
    }
}

/// One resource, with the parents that were asked for.
#[derive(Debug, Serialize)]
pub struct One<T> {
    #[serde(flatten)]
    resource: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    included: Option<BTreeMap<String, Vec<Value>>>,
}

impl<T> One<T> {
    /// Without parents.
    #[must_use]
    pub fn alone(resource: T) -> Self {
        Self { resource, included: None }
    }

    /// The one of this page, if it is still there.
    #[must_use]
    pub fn of(page: Page<T>) -> Option<Self> {
        let included = page.included;
        page.resources.into_iter().next().map(|resource| Self { resource, included })
    }
}

/// Adds whole parents to a page, under their plural name.
pub fn add_included<T>(page: &mut Page<T>, name: &str, parents: Vec<Value>) {
    page.included.get_or_insert_default().insert(name.to_owned(), parents);
}

/// `per_page` is called "Per page" in what people read.
fn invalid(name: &str, problem: impl std::fmt::Display) -> ApiError {
    let words = name.replace('_', " ");
    let (first, rest) = words.split_at_checked(1).unwrap_or((&words, ""));
    ApiError::bad_query(format!("The query parameter is invalid: {}{rest} {problem}", first.to_uppercase()))
}

fn number(name: &str, text: &str, maximum: u64) -> ApiResult<u64> {
    match text.parse::<u64>() {
        Ok(number) if (1..=maximum).contains(&number) => Ok(number),
        Ok(number) if number > maximum && maximum == MAX_PER_PAGE => {
            Err(invalid(name, format!("must be between 1 and {maximum}")))
        }
        _ => Err(invalid(name, "must be a positive integer")),
    }
}

fn order(text: &str, spec: &ListSpec) -> ApiResult<(String, bool)> {
    // An unencoded `+` reads as a space.
    let text = text.trim_start_matches([' ', '+']);
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    if matches!(name, "created_at" | "updated_at") || spec.order.contains(&name) {
        return Ok((name.to_owned(), descending));
    }
    let known: Vec<&str> = ["created_at", "updated_at"].iter().chain(spec.order).copied().collect();
    Err(invalid("order_by", format!("can only be: '{}'", known.join("', '"))))
}

fn include(text: &str, spec: &ListSpec) -> ApiResult<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !spec.include.contains(&name.as_str())) {
        Some(bad) => Err(ApiError::bad_query(format!(
            "The query parameter is invalid: Invalid included resource: '{}'. Valid included resources are: '{}'",
            bad.chars().take(100).collect::<String>(),
            spec.include.join("', '")
        ))),
        None => Ok(names),
    }
}

/// Items of a comma list, each decoded once more.
fn items(name: &str, value: &str) -> ApiResult<Vec<String>> {
    let items: Vec<String> = value.split(',').map(decode).collect();
    if items.len() > MAX_VALUES {
        return Err(invalid(name, format!("has more than {MAX_VALUES} values")));
    }
    Ok(items)
}

/// Percent-decodes; `+` stays, because the list's own decoding has been done. A stray `%` is itself.
fn decode(item: &str) -> String {
    let bytes = item.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let hex = bytes.get(place + 1..place + 3).filter(|_| byte == b'%').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok().filter(|text| text.chars().all(|c| c.is_ascii_hexdigit()))?;
            u8::from_str_radix(text, 16).ok()
        });
        decoded.push(hex.unwrap_or(byte));
        place += if hex.is_some() { 3 } else { 1 };
    }
    // What does not decode to text was not encoded twice.
    String::from_utf8(decoded).unwrap_or_else(|_| item.to_owned())
}

/// `created_ats[lt]` gives `created_ats` and `lt`.
fn bracketed(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(']')?.split_once('[')
}

fn times(name: &str, operator: &str, value: &str) -> ApiResult<Vec<TimeCondition>> {
    let bad =
        || invalid(name, "has an invalid timestamp format. Timestamps should be formatted as 'YYYY-MM-DDThh:mm:ssZ'");
    let time = |text: &str| {
        // An unencoded `+` of an offset reads as a space.
        let text = text.trim().replace(' ', "+");
        DateTime::parse_from_rfc3339(&text).map(|time| time.with_timezone(&Utc)).map_err(|_| bad())
    };
    let one = || {
        if value.contains(',') {
            return Err(invalid(name, "only accepts one value when using a relational operator"));
        }
        time(value)
    };
    Ok(vec![match operator {
        "=" => TimeCondition::In(value.split(',').map(time).collect::<ApiResult<_>>()?),
        "lt" => TimeCondition::Lt(one()?),
        "lte" => TimeCondition::Lte(one()?),
        "gt" => TimeCondition::Gt(one()?),
        "gte" => TimeCondition::Gte(one()?),
        _ => {
            let operator: String = operator.chars().take(20).collect();
            return Err(invalid(name, format!("Invalid relational operator: '{operator}'")));
        }
    }])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEC: ListSpec = ListSpec {
        filters: &["names", "hosts"],
        order: &["name"],
        include: &["space"],
        other: &["embed"],
        labels: true,
    };

    fn parse(query: &str) -> ApiResult<ListQuery> {
        ListQuery::parse(Some(query), &SPEC)
    }

    fn filter(query: &str, name: &str) -> Vec<String> {
        parse(query).expect("valid").options.filter(name).expect("there").to_vec()
    }

    #[test]
    fn lists_are_split_before_items_are_decoded() {
        assert_eq!(filter("names=a%2Cb,c", "names"), ["a", "b", "c"]);
        assert_eq!(filter("names=a%252Cb", "names"), ["a,b"]);
        assert_eq!(filter("hosts=", "hosts"), [""]);
        assert_eq!(filter("hosts=&names=100%25", "names"), ["100%"]);
        assert!(parse("").expect("valid").options.filter("hosts").is_none());
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (query, part) in [
            ("nmaes=x", "'names'"),
            ("page=0", "Page must be a positive integer"),
            ("per_page=0", "Per page must be a positive integer"),
            ("per_page=5001", "Per page must be between 1 and 5000"),
            ("per_page=x", "Per page must be a positive integer"),
            ("order_by=size", "Order by can only be: 'created_at', 'updated_at', 'name'"),
            ("include=org", "'space'"),
            ("created_ats=yesterday", "Created ats has an invalid timestamp format."),
            ("created_ats[near]=2026-01-01T00:00:00Z", "Invalid relational operator: 'near'"),
            ("label_selector=a%20b", "label_selector"),
        ] {
            let error = parse(query).expect_err(query);
            assert_eq!(error.entries()[0].code, 10005);
            assert!(error.entries()[0].detail.contains(part), "{query}: {}", error.entries()[0].detail);
        }
    }

    #[test]
    fn times_have_operators() {
        let query = parse(
            "created_ats%5Blte%5D=2026-01-01T00:00:00Z&updated_ats=2026-01-01T00:00:00Z,2026-01-02T00:00:00%2B01:00",
        )
        .expect("valid");
        assert!(matches!(query.options.created[..], [TimeCondition::Lte(_)]));
        assert!(matches!(&query.options.updated[..], [TimeCondition::In(times)] if times.len() == 2));
    }

    #[test]
    fn links_are_absolute_and_repeat_everything() {
        let query = parse("names=a%252Cb&page=2&per_page=2&order_by=-name").expect("valid");
        let page = query.page(&BaseUrl::new("https://api.x"), "/v3/apps", 5, vec![1, 2]);
        let next = page.pagination.next.expect("a next page").href;
        assert_eq!(next, "https://api.x/v3/apps?names=a%252Cb&order_by=-name&page=3&per_page=2");
        assert_eq!(page.pagination.total_pages, 3);
        let beyond =
            parse("page=9").expect("valid").page(&BaseUrl::new("https://api.x"), "/v3/apps", 0, Vec::<u8>::new());
        assert_eq!((beyond.pagination.total_pages, beyond.pagination.next), (1, None));
    }

    proptest! {
        #[test]
        fn any_query_is_parsed_or_refused(query in "[ -~]{0,80}") {
            let _ = parse(&query);
        }

        #[test]
        fn a_doubly_encoded_list_comes_back(names in prop::collection::vec("\\PC{0,10}", 1..6)) {
            let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
            let list = names.iter().map(|name| encode(name)).collect::<Vec<_>>().join(",");
            let query = format!("names={}", encode(&list));
            prop_assert_eq!(filter(&query, "names"), names);
        }

        #[test]
        fn following_next_visits_every_page_once(total in 0_u64..60, per_page in 1_u64..20) {
            let mut query = parse(&format!("per_page={per_page}&names=x")).expect("valid");
            let mut visited = 1;
            let base = BaseUrl::new("http://h");
            while let Some(next) = query.page(&base, "/v3/apps", total, Vec::<u8>::new()).pagination.next {
                let (_, text) = next.href.split_once('?').expect("a query");
                query = parse(text).expect("our own link");
                visited += 1;
                prop_assert_eq!(query.options.page, visited);
            }
            prop_assert_eq!(visited, total.div_ceil(per_page).max(1));
        }
    }
}
