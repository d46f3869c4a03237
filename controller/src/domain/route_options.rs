//! What a route's options may be: how its requests are shared out.

use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::{DomainError, DomainResult};
use crate::store::feature_flags::feature_flag_get_tx;

/// Longest value that a refusal repeats.
const MAX_SHOWN: usize = 128;
/// The flag that lets routes choose `hash`.
const HASH: &str = "hash_based_routing";

/// Checks a change of route options; null members remove. Numbers come back as texts, which is how clients read them.
///
/// # Errors
/// [`DomainError::Invalid`] naming the option and its value.
fn check_options(mut options: Map<String, Value>) -> DomainResult<Map<String, Value>> {
    for (key, value) in &mut options {
        if let Value::Number(number) = value {
            *value = Value::String(number.to_string());
        }
        let text = value.as_str();
        let (good, rule) = match key.as_str() {
            "loadbalancing" => (
                matches!(text, Some("round-robin" | "least-connection" | "hash")),
                "it must be one of 'round-robin', 'least-connection', 'hash'",
            ),
            "hash_header" => (
                text.is_some_and(|name| name.len() <= 128 && http::HeaderName::from_bytes(name.as_bytes()).is_ok()),
                "it must be the name of a header, of at most 128 characters",
            ),
            "hash_balance" => (
                text.filter(|number| number.len() <= 16)
                    .and_then(|number| number.parse::<f64>().ok())
                    .is_some_and(|n| n == 0.0 || (1.1..=10.0).contains(&n)),
                "it must be 0 or a number from 1.1 to 10",
            ),
            _ => {
                return Err(DomainError::invalid(format!(
                    "Options Unknown field(s): '{key}'. Valid options: 'loadbalancing', 'hash_header', 'hash_balance'"
                )));
            }
        };
        if !good && !value.is_null() {
            let shown: String = value.to_string().chars().take(MAX_SHOWN).collect();
            return Err(DomainError::invalid(format!("Options '{key}' is not valid: {shown}; {rule}")));
        }
    }
    if options.get("loadbalancing").is_some_and(|way| way != "hash") {
        let given = |key: &str| options.get(key).is_some_and(|value| !value.is_null());
        let wrong: Vec<&str> = [
            ("hash_header", "Options Hash header can only be set when loadbalancing is hash"),
            ("hash_balance", "Options Hash balance can only be set when loadbalancing is hash"),
        ]
        .into_iter()
        .filter_map(|(key, text)| given(key).then_some(text))
        .collect();
        if !wrong.is_empty() {
            return Err(DomainError::invalid(wrong.join(", ")));
        }
        // What the hash needed goes with it.
        options.insert("hash_header".to_owned(), Value::Null);
        options.insert("hash_balance".to_owned(), Value::Null);
    }
    Ok(options)
}

/// Checks all options of a route together, as they are after a change.
///
/// # Errors
/// [`DomainError::Invalid`] with what is missing.
pub(super) fn check_complete(options: Option<&Value>) -> DomainResult<()> {
    match options {
        Some(options) if options["loadbalancing"] == "hash" && !options["hash_header"].is_string() => {
            Err(DomainError::invalid("Hash header must be present when loadbalancing is set to hash."))
        }
        _ => Ok(()),
    }
}

/// As [`check_options`], and refuses `hash` while it is switched off.
///
/// # Errors
/// As [`check_options`].
pub(super) async fn allowed_options_tx(
    tx: &mut PgConnection,
    options: Map<String, Value>,
) -> DomainResult<Map<String, Value>> {
    let options = check_options(options)?;
    let hash = options.get("loadbalancing").is_some_and(|value| value == "hash");
    if hash && !feature_flag_get_tx(tx, HASH).await?.is_some_and(|flag| flag.enabled) {
        return Err(DomainError::invalid(format!(
            "Options 'loadbalancing' is not valid: \"hash\"; it must be one of 'round-robin', 'least-connection', because \
             the feature flag '{HASH}' is off"
        )));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_checked() {
        let check = |value: Value| check_options(value.as_object().expect("an object").clone());
        assert!(check(json!({"loadbalancing": "least-connection", "hash_header": null})).is_ok());
        assert_eq!(check(json!({"hash_balance": 1.5})).expect("valid")["hash_balance"], "1.5");
        let refusal = check(json!({"loadbalancing": "random"})).expect_err("unknown").to_string();
        assert!(refusal.contains("\"random\"") && !refusal.contains("hash_header"), "{refusal}");
        for bad in [
            json!({"loadbalancing": "random"}),
            json!({"loadbalancing": 1}),
            json!({"x": "y"}),
            json!({"hash_balance": 11}),
            json!({"hash_balance": "NaN"}),
            json!({"hash_header": "a b"}),
            json!({"hash_header": ["a"]}),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
        let both = json!({"loadbalancing": "round-robin", "hash_header": "x", "hash_balance": 2});
        let refusal = check(both).expect_err("for a hash only").to_string();
        assert!(refusal.contains("Hash header can only") && refusal.contains("Hash balance can only"), "{refusal}");
        assert!(check(json!({"loadbalancing": "round-robin"})).expect("valid")["hash_header"].is_null());
    }
}
