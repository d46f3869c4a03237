//! Whole numbers in bodies. Cloud Foundry takes `"256"` where it takes `256`, and clients that put a body together from
//! text rely on it.

use std::fmt::{Display, Formatter};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::value::{I64Deserializer, U64Deserializer};
use serde::de::{Error, IntoDeserializer as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number, the same as text, or nothing. Use with `#[serde(default, deserialize_with = "whole")]`.
///
/// # Errors
/// When it is something else, or a number that `T` does not hold.
pub fn whole<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + FromStr,
    T::Err: Display,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(WholeNumberVisitor(PhantomData))
}

/// As [`whole`], where absent and null are two things; see [`present`](super::body::present).
///
/// # Errors
/// As [`whole`].
pub fn whole_present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de> + FromStr,
    T::Err: Display,
    D: Deserializer<'de>,
{
    whole(deserializer).map(Some)
}

struct WholeNumberVisitor<T>(PhantomData<T>);

impl<'de, T> Visitor<'de> for WholeNumberVisitor<T>
where
    T: Deserialize<'de> + FromStr,
    T::Err: Display,
{
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        let number: I64Deserializer<E> = value.into_deserializer();
        T::deserialize(number).map(Some)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        let number: U64Deserializer<E> = value.into_deserializer();
        T::deserialize(number).map(Some)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        value.trim().parse().map(Some).map_err(|_| E::invalid_value(Unexpected::Str(value), &self))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Body {
        #[serde(default, deserialize_with = "whole")]
        memory: Option<i64>,
        #[serde(default, deserialize_with = "whole")]
        timeout: Option<u32>,
        #[serde(default, deserialize_with = "whole_present")]
        extra: Option<Option<i64>>,
    }

    #[test]
    fn numbers_come_as_numbers_or_as_text() {
        let read = |text: &str| serde_json::from_str::<Body>(text);
        let body = |memory, timeout, extra| Body { memory, timeout, extra };
        assert_eq!(read("{}").unwrap(), body(None, None, None));
        assert_eq!(read(r#"{"memory": null, "extra": null}"#).unwrap(), body(None, None, Some(None)));
        assert_eq!(read(r#"{"memory": "256", "timeout": "9"}"#).unwrap(), body(Some(256), Some(9), None));
        assert_eq!(
            read(r#"{"memory": -1, "timeout": 9, "extra": " -7 "}"#).unwrap(),
            body(Some(-1), Some(9), Some(Some(-7)))
        );
    }

    #[test]
    fn values_other_than_whole_numbers_are_refused() {
        for (text, message) in [
            (r#"{"memory": "1.5"}"#, "invalid value: string \"1.5\", expected a whole number"),
            (r#"{"memory": ""}"#, "invalid value: string \"\", expected a whole number"),
            (r#"{"memory": 1.5}"#, "invalid type: floating point `1.5`, expected a whole number"),
            (r#"{"memory": "99999999999999999999"}"#, "invalid value: string \"99999999999999999999\""),
            (r#"{"memory": [1]}"#, "invalid type: sequence, expected a whole number"),
            (r#"{"timeout": -1}"#, "invalid value: integer `-1`, expected u32"),
            (r#"{"timeout": "-1"}"#, "invalid value: string \"-1\", expected a whole number"),
            (r#"{"extra": true}"#, "invalid type: boolean `true`, expected a whole number"),
        ] {
            let error = serde_json::from_str::<Body>(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
