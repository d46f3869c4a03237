//! Writing YAML that every reader understands alike.
//!
//! Cloud Foundry's API and its client read YAML 1.1, others 1.2: `no`, `12:30:45` or `1_000` are texts for one and
//! something else for the other. So a text stands plain only where both read it as that text, and in quotes otherwise,
//! as Ruby's writer does it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Longest key that may stand before its colon on one line, in bytes, with room for escapes.
const MAX_SIMPLE_KEY: usize = 100;

/// A document.
pub fn document(value: &Value) -> String {
    let mut out = String::from("---");
    node(&mut out, value, 0, false);
    out
}

/// A value behind `key:`, `-` or `---`; `in_list` when it stands behind a dash, where a mapping begins on the same line.
fn node(out: &mut String, value: &Value, indent: usize, in_list: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (place, (key, value)) in map.iter().enumerate() {
                begin(out, indent, in_list && place == 0);
                entry(out, key, value, indent);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (place, value) in list.iter().enumerate() {
                begin(out, indent, in_list && place == 0);
                out.push('-');
                node(out, value, indent + 2, true);
            }
        }
        value => {
            out.push(' ');
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

/// The place where an entry begins: a line of its own, or behind the dash.
fn begin(out: &mut String, indent: usize, here: bool) {
    if here {
        out.push(' ');
        return;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.extend(std::iter::repeat_n(' ', indent));
}

fn entry(out: &mut String, key: &str, value: &Value, indent: usize) {
    if key.len() > MAX_SIMPLE_KEY {
        out.push_str("? ");
        out.push_str(&text(key));
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        out.push(':');
    } else {
        out.push_str(&text(key));
        out.push(':');
    }
    // The entries of a list may stand as far left as its key, as Ruby writes them.
    let deeper = if value.is_array() && key.len() <= MAX_SIMPLE_KEY { indent } else { indent + 2 };
    node(out, value, deeper, false);
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        // Numbers as JSON has them, `true`, `false`, `null`: the same in both versions.
        value => value.to_string(),
    }
}

/// A text, plain or in quotes.
fn text(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    let printable = |c: char| matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let harmless = |c: char| printable(c) && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    // Between single quotes spaces at a line's end are the same, and nothing but the quote itself needs care.
    if value.chars().all(harmless) {
        return format!("'{}'", value.replace('\'', "''"));
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if harmless(c) => out.push(c),
            c if u32::from(c) <= 0xff => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if u32::from(c) <= 0xffff => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether both versions read it as this text. Stricter than they are: quotes never harm.
fn is_plain(value: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if words.iter().any(|word| value.eq_ignore_ascii_case(word)) {
        return false;
    }
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    // An amount: `64M`, `1G`.
    if digits > 0 {
        return matches!(&value[digits..], "B" | "K" | "M" | "G" | "T");
    }
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/');
    let mut previous = ' ';
    first
        && !value.ends_with([' ', ':'])
        && value.chars().all(|c| {
            let good = match c {
                ' ' => previous != ':',
                '#' => previous != ' ',
                _ => c.is_ascii_alphanumeric() || "-_./+=@$%^~;()<>!?:&*|".contains(c),
            };
            previous = c;
            good
        })
}

/// An object of one member, for a document.
pub fn object(key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What a reader of YAML 1.1 takes a plain text for, from the types that the standard has and Ruby's reader knows:
    /// written on its own, not from [`is_plain`].
    fn is_text_for_yaml_1_1(plain: &str) -> bool {
        let lower = plain.to_ascii_lowercase();
        if matches!(
            &*lower,
            "" | "~" | "null" | "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "<<" | "="
        ) {
            return false;
        }
        let unsigned = lower.trim_start_matches(['+', '-']);
        if matches!(unsigned, ".inf" | ".nan") {
            return false;
        }
        // Integers in four bases, floats, sexagesimals, dates and times all begin with a digit or a dot before one, and
        // hold nothing but these.
        let mut begins = unsigned.chars();
        let number = match (begins.next(), begins.next()) {
            (Some(first), _) if first.is_ascii_digit() => true,
            (Some('.'), Some(second)) => second.is_ascii_digit(),
            _ => false,
        };
        let of_numbers = unsigned.chars().all(|c| c.is_ascii_hexdigit() || "_,.:+-exobtz ".contains(c));
        let marked = plain.starts_with([':', '@', '`', '%', '!', '&', '*', '|', '>', '\'', '"', '#', '{', '[']);
        !(marked || number && of_numbers)
    }

    fn written(value: &Value) -> String {
        let text = document(&object("a", value.clone()));
        text.strip_prefix("---\na: ").unwrap_or_else(|| panic!("{text}")).trim_end_matches('\n').to_owned()
    }

    #[test]
    fn what_one_of_the_versions_reads_otherwise_is_quoted() {
        for text in [
            "no",
            "No",
            "NO",
            "yes",
            "on",
            "off",
            "y",
            "N",
            "n",
            "~",
            "null",
            "Null",
            "true",
            "False",
            "",
            " ",
            "1",
            "0",
            "-1",
            "+1",
            "0x1f",
            "0b11",
            "0o17",
            "017",
            "1_000",
            "1,000",
            "1e3",
            "1.5",
            ".5",
            "-.inf",
            ".NaN",
            "12:30:45",
            "190:20:30.15",
            "2001-12-14",
            "2001-12-14t21:59:43.10-05:00",
            "=",
            "<<",
            "- a",
            "-",
            "? a",
            ": a",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "[a]",
            "{a}",
            "a,",
            "'",
            "\"",
            "a\nb",
            "a ",
            " a",
            "a:",
            "\t",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}a",
            "\u{0}",
            "---",
            "...",
        ] {
            let out = written(&json!(text));
            assert!(out.starts_with(['\'', '"']), "{text:?} is written {out}");
        }
        for text in
            ["web", "64M", "1G", "node server.js", "https://a.example.com/x?y=1", "debian12", "/usr/bin/x", "a-b_c.d"]
        {
            assert_eq!(written(&json!(text)), text);
        }
        assert_eq!(written(&json!("it's")), "'it''s'");
        assert_eq!(
            [json!(1), json!(-1), json!(true), json!(null), json!({}), json!([])].map(|v| written(&v)),
            ["1", "-1", "true", "null", "{}", "[]"]
        );
    }

    #[test]
    fn manifests_look_as_ruby_writes_them() {
        let value = json!({ "applications": [
            { "name": "web", "env": { "NO": "no", "y": "1" }, "routes": [{ "route": "a.example.com" }], "list": [[1, [2]], "x"] },
        ] });
        assert_eq!(
            document(&value),
            "---\napplications:\n- name: web\n  env:\n    'NO': 'no'\n    'y': '1'\n  routes:\n  - route: a.example.com\n  \
             list:\n  - - 1\n    - - 2\n  - x\n"
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            "[0-9a-fox_:., +-]{0,12}",
            "[ynYNoOeEsSfFtrualn~]{0,5}",
            "[ \\-?:#&*!|>'\"%@`\\[\\]{}=<,\n\t]{0,6}"
        ];
        let leaf = prop_oneof![
            text.clone().prop_map(Value::String),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            let key = prop_oneof![text.clone(), "[a-z]{101,1200}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let value = object("a", value);
            let text = document(&value);
            let read: serde_norway::Value = serde_norway::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error} in {text}")))?;
            prop_assert_eq!(serde_json::to_value(read).expect("json"), value, "{}", text);
        }

        #[test]
        fn what_stands_plain_is_a_text_for_readers_of_1_1(
            value in prop_oneof![any::<String>(), "[0-9a-fox_:., +-]{0,12}", "[ynYNoOeEsSfFtrualn~]{0,5}", "[=<.a-z0-9:-]{0,4}"],
        ) {
            let out = text(&value);
            if !out.starts_with(['\'', '"']) {
                prop_assert_eq!(&out, &value);
                prop_assert!(is_text_for_yaml_1_1(&out), "{}", out);
            }
        }
    }
}
