//! What a client may write into a quota: the sections `apps`, `services`, `routes`, `domains`, each with its limits.

use serde_json::{Map, Value};

use super::names::{check_length, shown};
use super::{DomainError, DomainResult};
use crate::store::quotas::QuotaRow;

const MAX_NAME: usize = 250;
const MAX_INT: i64 = i32::MAX as i64;

/// What an organization may store, which Cloud Foundry does not limit: of organization quotas only.
const STORED: &str = "total_stored_in_mb";

/// Section, limit, and the largest value of it.
const LIMITS: &[(&str, &str, i64)] = &[
    ("apps", "total_memory_in_mb", MAX_INT),
    ("apps", "per_process_memory_in_mb", MAX_INT),
    ("apps", "total_instances", MAX_INT),
    ("apps", "per_app_tasks", MAX_INT),
    ("apps", "log_rate_limit_in_bytes_per_second", i64::MAX),
    ("apps", STORED, MAX_INT),
    ("services", "total_service_instances", MAX_INT),
    ("services", "total_service_keys", MAX_INT),
    ("routes", "total_routes", MAX_INT),
    ("routes", "total_reserved_ports", MAX_INT),
    ("domains", "total_domains", MAX_INT),
];

/// A checked change of a quota. What a client did not mention stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaChange {
    name: Option<String>,
    limits: Vec<(&'static str, Option<i64>)>,
    paid_services: Option<bool>,
}

impl QuotaChange {
    /// Takes the members of a quota out of a body and checks them; `relationships` stays for the caller. `domains` says
    /// whether it is one of an organization, which has that section.
    ///
    /// # Errors
    /// [`DomainError::Invalid`] naming section and limit, in Cloud Foundry's words.
    pub fn take(body: &mut Map<String, Value>, domains: bool) -> DomainResult<Self> {
        let mut change = Self::default();
        if let Some(name) = body.remove("name") {
            let Value::String(name) = name else { return Err(DomainError::invalid("Name must be a string")) };
            if name.trim().is_empty() {
                return Err(DomainError::invalid("Name can't be blank"));
            }
            check_length("Name", &name, MAX_NAME)?;
            change.name = Some(name);
        }
        for section in ["apps", "services", "routes", "domains"] {
            if section == "domains" && !domains {
                continue;
            }
            let Some(value) = body.remove(section) else { continue };
            let title = capitalised(section);
            let Value::Object(members) = value else {
                return Err(DomainError::invalid(format!("{title} must be an object")));
            };
            for (name, value) in members {
                if name == STORED && !domains {
                    return Err(DomainError::invalid(format!("{title} Unknown field(s): '{name}'")));
                }
                change.member(section, &title, &name, &value)?;
            }
        }
        if let Some(unknown) = body.keys().find(|name| *name != "relationships") {
            return Err(DomainError::invalid(format!("Unknown field(s): '{}'", shown(unknown))));
        }
        Ok(change)
    }

    /// The same for a quota to be made, which needs a name.
    ///
    /// # Errors
    /// As [`QuotaChange::take`].
    pub(crate) fn take_new(body: &mut Map<String, Value>, domains: bool) -> DomainResult<Self> {
        let change = Self::take(body, domains)?;
        if change.name.is_none() {
            return Err(DomainError::invalid("Name can't be blank"));
        }
        Ok(change)
    }

    fn member(&mut self, section: &str, title: &str, name: &str, value: &Value) -> DomainResult<()> {
        if (section, name) == ("services", "paid_services_allowed") {
            self.paid_services = match value {
                Value::Bool(allowed) => Some(*allowed),
                Value::Null => None,
                _ => return Err(DomainError::invalid("Services Paid services allowed must be a boolean")),
            };
            return Ok(());
        }
        let known = LIMITS.iter().find(|(of, limit, _)| (*of, *limit) == (section, name));
        let Some((_, limit, maximum)) = known else {
            return Err(DomainError::invalid(format!("{title} Unknown field(s): '{}'", shown(name))));
        };
        let label = capitalised(&limit.replace('_', " "));
        let refuse = |problem: String| Err(DomainError::invalid(format!("{title} {label} {problem}")));
        let value = match value {
            Value::Null => None,
            Value::Number(number) => match number.as_i64() {
                None if number.is_f64() => return refuse("must be an integer".to_owned()),
                Some(number) if number < 0 => return refuse("must be greater than or equal to 0".to_owned()),
                Some(number) if number <= *maximum => Some(number),
                _ => return refuse(format!("must be less than or equal to {maximum}")),
            },
            _ => return refuse("is not a number".to_owned()),
        };
        self.limits.push((limit, value));
        Ok(())
    }

    /// Writes the change into a quota.
    pub fn apply(&self, quota: &mut QuotaRow) {
        if let Some(name) = &self.name {
            quota.name.clone_from(name);
        }
        if let Some(allowed) = self.paid_services {
            quota.paid_services_allowed = allowed;
        }
        for (limit, value) in &self.limits {
            let column = match *limit {
                "total_memory_in_mb" => &mut quota.total_memory_in_mb,
                "per_process_memory_in_mb" => &mut quota.per_process_memory_in_mb,
                "total_instances" => &mut quota.total_instances,
                "per_app_tasks" => &mut quota.per_app_tasks,
                "log_rate_limit_in_bytes_per_second" => &mut quota.log_rate_limit_in_bytes_per_second,
                STORED => &mut quota.total_stored_in_mb,
                "total_service_instances" => &mut quota.total_service_instances,
                "total_service_keys" => &mut quota.total_service_keys,
                "total_routes" => &mut quota.total_routes,
                "total_reserved_ports" => &mut quota.total_reserved_ports,
                "total_domains" => &mut quota.total_domains,
                _ => continue,
            };
            *column = *value;
        }
    }

    /// Whether the change brings a limit of the log rate, which processes without one would break.
    #[must_use]
    pub fn limits_logs(&self) -> bool {
        self.limits.iter().any(|(limit, value)| *limit == "log_rate_limit_in_bytes_per_second" && value.is_some())
    }
}

/// Why a quota with a limit of the log rate cannot hold for these organizations or spaces (`of` = `org`, `space`), in
/// which processes have none. `None` when there are no such.
#[must_use]
pub fn unlimited_logs(of: &str, names: &[String]) -> Option<String> {
    let text = match names {
        [] => return None,
        [one] => format!("{of} '{one}' which contains"),
        [one, two] => format!("{of}s '{one}', '{two}' which contain"),
        [one, two, rest @ ..] => format!("{of}s '{one}', '{two}' and {} other {of}s which contain", rest.len()),
    };
    Some(format!(
        "Current usage exceeds new quota values. This quota is applied to {text} apps running with an unlimited log rate \
         limit."
    ))
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(body: Value) -> DomainResult<QuotaChange> {
        let Value::Object(mut body) = body else { panic!("an object") };
        QuotaChange::take(&mut body, true)
    }

    #[test]
    fn null_is_no_limit_and_absent_stays() {
        let change = take(json!({
            "name": "small", "apps": { "total_memory_in_mb": 512, "total_instances": null },
            "services": { "paid_services_allowed": false },
        }))
        .expect("good");
        let mut quota = QuotaRow { total_instances: Some(3), total_routes: Some(7), ..QuotaRow::unlimited(None) };
        change.apply(&mut quota);
        assert_eq!((quota.total_memory_in_mb, quota.total_instances, quota.total_routes), (Some(512), None, Some(7)));
        assert!(!quota.paid_services_allowed);
        assert_eq!(quota.name, "small");
    }

    #[test]
    fn refusals_name_section_and_limit() {
        for (body, text) in [
            (
                json!({ "apps": { "total_memory_in_mb": -1 } }),
                "Apps Total memory in mb must be greater than or equal to 0",
            ),
            (json!({ "apps": { "total_instances": "x" } }), "Apps Total instances is not a number"),
            (json!({ "apps": { "total_instances": 1.5 } }), "Apps Total instances must be an integer"),
            (
                json!({ "routes": { "total_routes": 1_u64 << 40 } }),
                "Routes Total routes must be less than or equal to 2147483647",
            ),
            (json!({ "routes": { "n": 1 } }), "Routes Unknown field(s): 'n'"),
            (json!({ "services": { "paid_services_allowed": 1 } }), "Services Paid services allowed must be a boolean"),
            (json!({ "apps": 1 }), "Apps must be an object"),
            (json!({ "color": 1 }), "Unknown field(s): 'color'"),
            (json!({ "name": "" }), "Name can't be blank"),
        ] {
            assert_eq!(take(body.clone()).expect_err("refused").to_string(), text, "{body}");
        }
        let Value::Object(mut body) = json!({ "domains": {} }) else { panic!("an object") };
        assert!(QuotaChange::take(&mut body, false).is_err(), "a space quota has no domains");
        let Value::Object(mut body) = json!({ "apps": { "total_stored_in_mb": 1 } }) else { panic!("an object") };
        assert!(QuotaChange::take(&mut body.clone(), true).is_ok());
        assert!(QuotaChange::take(&mut body, false).is_err(), "a space stores for its organization");
    }

    #[test]
    fn unlimited_logs_are_listed_shortly() {
        let names = |n: usize| (0..n).map(|i| format!("o{i}")).collect::<Vec<_>>();
        assert_eq!(unlimited_logs("org", &names(0)), None);
        assert!(unlimited_logs("org", &names(1)).expect("one").contains("org 'o0' which contains apps"));
        assert!(unlimited_logs("org", &names(4)).expect("four").contains("'o0', 'o1' and 2 other orgs which contain"));
    }
}
