//! YAML as JSON, of which nothing is longer than its text.
//!
//! An alias stands for what its anchor holds, however much that is: a kilobyte of text may be gigabytes of values. Without
//! aliases a text has more bytes than values, and its texts are no longer than it. That is what is counted here, while
//! the values are made.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess as _, Visitor};
use serde_json::{Map, Number, Value};

/// How much may still come out of a text.
#[derive(Debug)]
pub(super) struct Budget {
    values: Cell<usize>,
    bytes: Cell<usize>,
}

impl Budget {
    pub(super) fn of(text: &str) -> Self {
        // An escape of two characters may be a letter of three bytes.
        Self { values: Cell::new(text.len().saturating_add(1)), bytes: Cell::new(text.len().saturating_mul(2)) }
    }

    fn take<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let (values, left) = (self.values.get().checked_sub(1), self.bytes.get().checked_sub(bytes));
        let (Some(values), Some(left)) = (values, left) else {
            return Err(E::custom("it stands for more than it says; write it without anchors and aliases"));
        };
        self.values.set(values);
        self.bytes.set(left);
        Ok(())
    }
}

/// Reads one value within a budget. Keys that are numbers or truth values become text; a key that comes twice is refused.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'a>(pub(super) &'a Budget);

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Bounded<'_> {
    fn scalar<E: Error>(self, value: impl Into<Value>) -> Result<Value, E> {
        self.0.take(0)?;
        Ok(value.into())
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.0.take(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.take(0)?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.take(0)?;
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(self)? {
            let key = match key {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                _ => return Err(A::Error::custom("a key is no text")),
            };
            let value = access.next_value_seed(self)?;
            if map.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("duplicate entry with key {shown:?}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// A value with a tag of its own.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (tag, value) = access.variant::<String>()?;
        let value = value.newtype_variant_seed(self)?;
        Ok(Value::Object(Map::from_iter([(format!("!{}", tag.trim_start_matches('!')), value)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        let budget = Budget::of(text);
        let read = Bounded(&budget).deserialize(serde_norway::Deserializer::from_str(text));
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_of_aliases_ends_early() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x]\n".to_owned();
        for (this, last) in ('b'..='i').zip('a'..) {
            text.push_str(&format!(
                "{this}: &{this} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]\n"
            ));
        }
        assert!(read(&text).expect_err("a bomb").contains("stands for more than it says"));
        let long = format!("a: &a {}\nb: [*a, *a, *a]", "x".repeat(100_000));
        assert!(read(&long).expect_err("long texts").contains("stands for more than it says"));
    }

    #[test]
    fn what_is_read_is_what_another_reader_reads() {
        for text in [
            "a: 1\nb: [x, ~, true, -1, 1.5, 1e3, .nan, 0x10, '0x10', \"\\L\"]\n1: {true: y}\n",
            "- |\n  text\n  more\n- >\n  folded\n",
            "",
            "[,]",
            "a: !tag {b: c}",
            "a: !!str 1",
        ] {
            let plain = serde_norway::from_str::<serde_norway::Value>(text).map_err(|error| error.to_string());
            let plain = plain.and_then(|value| serde_json::to_value(value).map_err(|error| error.to_string()));
            match (read(text), plain) {
                (Ok(one), Ok(other)) => assert_eq!(one, other, "{text}"),
                (one, other) => assert!(one.is_err() && other.is_err(), "{text}: {one:?}, {other:?}"),
            }
        }
        for text in ["a: 1\na: 2", "1: a\n'1': b", "[]: 1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever has no alias is read within its budget.
        #[test]
        fn an_honest_text_is_always_in_budget(
            keys in proptest::collection::vec("[a-z]{1,3}", 0..20),
            values in proptest::collection::vec("\\PC{0,20}", 20),
        ) {
            let map: serde_json::Map<String, Value> =
                keys.into_iter().zip(values).map(|(key, value)| (key, Value::String(value))).collect();
            let value = Value::Array(vec![Value::Object(map.clone()), Value::Object(map)]);
            let text = serde_norway::to_string(&value).expect("text");
            proptest::prop_assert_eq!(read(&text).expect("in budget"), value);
        }
    }
}
