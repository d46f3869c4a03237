//! Lists: conditions are collected once and rendered twice, for the count and for the page.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::values::list::{LabelRequirement, ListOptions, TimeCondition};

/// What a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visible {
    /// Everything.
    All,
    /// Only these.
    Only(Vec<Uuid>),
}

impl Visible {
    /// Whether this one may be seen.
    #[must_use]
    pub fn contains(&self, guid: Uuid) -> bool {
        match self {
            Self::All => true,
            Self::Only(guids) => guids.contains(&guid),
        }
    }
}

enum Part {
    Sql(&'static str),
    Text(String),
    Texts(Vec<String>),
    Json(serde_json::Value),
    Uuids(Vec<Uuid>),
    Time(DateTime<Utc>),
    Times(Vec<DateTime<Utc>>),
}

/// A list under construction. Everything that is text from a client is bound, never written into the statement.
pub struct Listing<'a> {
    from: &'static str,
    alias: &'static str,
    options: &'a ListOptions,
    conditions: Vec<Vec<Part>>,
    /// The column behind `updated_at`.
    updated: &'static str,
    /// Order columns besides `created_at` and `updated_at`: the client's name and ours.
    order: Vec<(&'static str, &'static str)>,
    insertion: Option<&'static str>,
}

/// One condition under construction.
pub struct Condition<'l, 'a> {
    listing: &'l mut Listing<'a>,
    parts: Vec<Part>,
}

impl Condition<'_, '_> {
    /// Fixed text.
    #[must_use]
    pub fn sql(mut self, sql: &'static str) -> Self {
        self.parts.push(Part::Sql(sql));
        self
    }

    /// Binds an array of guids.
    #[must_use]
    pub fn bind_uuids(mut self, guids: Vec<Uuid>) -> Self {
        self.parts.push(Part::Uuids(guids));
        self
    }

    /// Binds an array of texts.
    #[must_use]
    pub fn bind_texts(mut self, texts: Vec<String>) -> Self {
        self.parts.push(Part::Texts(texts));
        self
    }

    /// Binds a text.
    #[must_use]
    pub fn bind_text(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// Adds the condition to the list.
    pub fn done(self) {
        self.listing.conditions.push(self.parts);
    }
}

impl<'a> Listing<'a> {
    /// A list over `from` (`route r join domain d on …`), where each join leads to the one parent that every row has.
    /// The table behind `alias` must have `guid` and `created_at`; with filters on `updated_ats` or labels also those
    /// columns.
    #[must_use]
    pub fn new(from: &'static str, alias: &'static str, options: &'a ListOptions) -> Self {
        Self::with_times(from, alias, ".updated_at", options)
    }

    /// A list of what never changes and has no column for it: `updated_at` is `created_at`.
    #[must_use]
    pub fn of_unchanging(from: &'static str, alias: &'static str, options: &'a ListOptions) -> Self {
        Self::with_times(from, alias, ".created_at", options)
    }

    fn with_times(from: &'static str, alias: &'static str, updated: &'static str, options: &'a ListOptions) -> Self {
        let conditions = Vec::new();
        let mut listing = Self { from, alias, options, conditions, updated, order: Vec::new(), insertion: None };
        for condition in &options.created {
            listing.time(".created_at", condition);
        }
        for condition in &options.updated {
            listing.time(updated, condition);
        }
        for requirement in &options.labels {
            listing.label(requirement);
        }
        listing
    }

    /// Begins a condition.
    pub fn sql(&mut self, sql: &'static str) -> Condition<'_, 'a> {
        Condition { listing: self, parts: vec![Part::Sql(sql)] }
    }

    fn time(&mut self, column: &'static str, condition: &TimeCondition) {
        // Clients see whole seconds, so whole seconds are compared.
        let mut parts =
            vec![Part::Sql("date_trunc('second', "), Part::Sql(self.alias), Part::Sql(column), Part::Sql(")")];
        let (operator, value) = match condition {
            TimeCondition::In(times) => (" = any(", Part::Times(times.clone())),
            TimeCondition::Lt(time) => (" < (", Part::Time(*time)),
            TimeCondition::Lte(time) => (" <= (", Part::Time(*time)),
            TimeCondition::Gt(time) => (" > (", Part::Time(*time)),
            TimeCondition::Gte(time) => (" >= (", Part::Time(*time)),
        };
        parts.extend([Part::Sql(operator), value, Part::Sql(")")]);
        self.conditions.push(parts);
    }

    fn label(&mut self, requirement: &LabelRequirement) {
        let column = |sql: &'static str| vec![Part::Sql(sql), Part::Sql(self.alias), Part::Sql(".labels")];
        let parts = match requirement {
            LabelRequirement::Exists(key) => {
                let mut parts = column("");
                parts.extend([Part::Sql(" ? "), Part::Text(key.clone())]);
                parts
            }
            LabelRequirement::NotExists(key) => {
                let mut parts = column("not ");
                parts.extend([Part::Sql(" ? "), Part::Text(key.clone())]);
                parts
            }
            LabelRequirement::In(key, values) => {
                // As containment, because that is what an index answers.
                let mut parts = vec![Part::Sql("(")];
                for (place, value) in values.iter().enumerate() {
                    parts.extend(column(if place == 0 { "" } else { " or " }));
                    let object = serde_json::Map::from_iter([(key.clone(), value.clone().into())]);
                    parts.extend([Part::Sql(" @> "), Part::Json(object.into())]);
                }
                parts.push(Part::Sql(")"));
                parts
            }
            LabelRequirement::NotIn(key, values) => {
                let mut parts = column("coalesce(not (");
                parts.extend([Part::Sql(" ->> "), Part::Text(key.clone())]);
                parts.extend([Part::Sql(" = any("), Part::Texts(values.clone()), Part::Sql(")), true)")]);
                parts
            }
        };
        self.conditions.push(parts);
    }

    /// Only these.
    pub fn visible(&mut self, column: &'static str, visible: &Visible) -> &mut Self {
        if let Visible::Only(guids) = visible {
            self.conditions.push(vec![
                Part::Sql(column),
                Part::Sql(" = any("),
                Part::Uuids(guids.clone()),
                Part::Sql(")"),
            ]);
        }
        self
    }

    /// Filter on a text column.
    pub fn texts(&mut self, filter: &str, column: &'static str) -> &mut Self {
        if let Some(values) = self.options.filter(filter) {
            let values = values.to_vec();
            self.conditions.push(vec![Part::Sql(column), Part::Sql(" = any("), Part::Texts(values), Part::Sql(")")]);
        }
        self
    }

    /// Filter on a text column, whatever the case.
    pub fn texts_any_case(&mut self, filter: &str, column: &'static str) -> &mut Self {
        if let Some(values) = self.options.filter(filter) {
            let values = values.iter().map(|value| value.to_lowercase()).collect();
            let parts = vec![Part::Sql("lower("), Part::Sql(column), Part::Sql(") = any(")];
            self.conditions.push(parts.into_iter().chain([Part::Texts(values), Part::Sql(")")]).collect());
        }
        self
    }

    /// Filter that leaves out.
    pub fn not_texts(&mut self, filter: &str, column: &'static str) -> &mut Self {
        if let Some(values) = self.options.filter(filter) {
            let values = values.to_vec();
            self.conditions.push(vec![Part::Sql(column), Part::Sql(" <> all("), Part::Texts(values), Part::Sql(")")]);
        }
        self
    }

    /// Filter on a guid column. What is no guid matches nothing.
    pub fn guids(&mut self, filter: &str, column: &'static str) -> &mut Self {
        if let Some(values) = self.options.filter(filter) {
            let values = values.iter().filter_map(|value| value.parse().ok()).collect();
            self.conditions.push(vec![Part::Sql(column), Part::Sql(" = any("), Part::Uuids(values), Part::Sql(")")]);
        }
        self
    }

    /// Filter through another table: `exists (select 1 from … where …column` is completed with the guids.
    pub fn guids_through(&mut self, filter: &str, exists: &'static str) -> &mut Self {
        if let Some(values) = self.options.filter(filter) {
            let values = values.iter().filter_map(|value| value.parse().ok()).collect();
            self.conditions.push(vec![
                Part::Sql("exists ("),
                Part::Sql(exists),
                Part::Sql(" = any("),
                Part::Uuids(values),
                Part::Sql("))"),
            ]);
        }
        self
    }

    /// A column by which clients may order. Names are ordered like their indexes, whatever their case.
    pub fn ordered_by(&mut self, name: &'static str, column: &'static str) -> &mut Self {
        self.order.push((name, column));
        self
    }

    /// What insertion order is, when `created_at` is not precise enough, or the list has an order of its own.
    pub fn insertion_order(&mut self, columns: &'static str) -> &mut Self {
        self.insertion = Some(columns);
        self
    }

    fn push_where(&self, builder: &mut QueryBuilder<Postgres>) {
        for (place, condition) in self.conditions.iter().enumerate() {
            builder.push(if place == 0 { " where " } else { " and " });
            for part in condition {
                push_part(builder, part);
            }
        }
    }

    /// What must be read to count: the table alone, unless a condition speaks of a parent.
    fn counted_from(&self) -> &'static str {
        let Some((table, joins)) = self.from.split_once(" join ") else { return self.from };
        let spoken_of = |alias: &str| {
            self.conditions.iter().flatten().any(|part| {
                let Part::Sql(sql) = part else { return false };
                sql.match_indices(alias).any(|(place, _)| {
                    let before = sql[..place].chars().next_back();
                    sql[place + alias.len()..].starts_with('.')
                        && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                })
            })
        };
        // `domain d on …`: the second word is the alias.
        let mut aliases = joins.split(" join ").map(|join| join.split_whitespace().nth(1).unwrap_or_default());
        if aliases.any(spoken_of) { self.from } else { table.trim_end_matches(" left") }
    }

    /// Reads the page and counts what matches in all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fetch<T>(&self, pool: &PgPool, columns: &'static str) -> sqlx::Result<(Vec<T>, u64)>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut count = QueryBuilder::<Postgres>::new("select count(*) from ");
        count.push(self.counted_from());
        self.push_where(&mut count);
        let total: i64 = count.build_query_scalar().fetch_one(pool).await?;

        let mut rows = QueryBuilder::<Postgres>::new("select ");
        rows.push(columns).push(" from ").push(self.from);
        self.push_where(&mut rows);
        rows.push(" order by ");
        if let Some((name, descending)) = &self.options.order {
            let direction = if *descending { " desc, " } else { " asc, " };
            match name.as_str() {
                "created_at" => rows.push(self.alias).push(".created_at").push(direction),
                "updated_at" => rows.push(self.alias).push(self.updated).push(direction),
                name => match self.order.iter().find(|(known, _)| *known == name) {
                    Some((_, column)) => rows.push(*column).push(direction),
                    None => &mut rows,
                },
            };
        } else if let Some(columns) = self.insertion {
            rows.push(columns).push(", ");
        } else {
            rows.push(self.alias).push(".created_at asc, ");
        }
        // Rows of one instant need an order too, or a page may repeat what the one before showed. The same direction
        // for both, so that one index gives either.
        let descending = self.options.order.as_ref().is_some_and(|(_, descending)| *descending);
        rows.push(self.alias).push(if descending { ".guid desc" } else { ".guid" });
        let offset = (self.options.page.saturating_sub(1)).saturating_mul(self.options.per_page);
        rows.push(" limit ").push_bind(i64::try_from(self.options.per_page).unwrap_or(i64::MAX));
        rows.push(" offset ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
        let rows = rows.build_query_as::<T>().fetch_all(pool).await?;
        Ok((rows, total.unsigned_abs()))
    }
}

fn push_part(builder: &mut QueryBuilder<Postgres>, part: &Part) {
    match part {
        Part::Sql(sql) => builder.push(*sql),
        Part::Text(text) => builder.push_bind(text.clone()),
        Part::Texts(texts) => builder.push_bind(texts.clone()),
        Part::Json(value) => builder.push_bind(value.clone()),
        Part::Uuids(guids) => builder.push_bind(guids.clone()),
        Part::Time(time) => builder.push_bind(*time),
        Part::Times(times) => builder.push_bind(times.clone()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reads_parents_only_when_a_condition_names_them() {
        let options = ListOptions::everything(50);
        let from = "route r join domain d on d.guid = r.domain_guid join space s on s.guid = r.space_guid";
        let counted = |condition: &'static str| {
            let mut listing = Listing::new(from, "r", &options);
            listing.sql(condition).done();
            listing.counted_from()
        };
        assert_eq!(counted("r.host = 'a'"), "route r");
        assert_eq!(counted("lower(r.hosts.x) = 'a' and bad.d = r.guid"), "route r");
        assert_eq!(counted("s.org_guid = any('{}')"), from);
        assert_eq!(counted("lower(d.name) = 'a'"), from);
        let left = Listing::new("revision r left join droplet d on d.guid = r.droplet_guid", "r", &options);
        assert_eq!(left.counted_from(), "revision r");
    }
}
