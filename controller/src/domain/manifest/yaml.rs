//! Reading YAML without its dangers: no anchors, no aliases (a kilobyte of them expands to gigabytes).

use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::bounded::{Bounded, Budget};

/// Why a text is refused.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// Anchors or aliases.
    #[error("Manifest does not support Anchors and Aliases (line {0})")]
    Anchor(usize),
    /// Not YAML, or a key that is no text.
    #[error("Request invalid due to parse error: the manifest is not valid YAML: {0}")]
    Parse(String),
}

/// Parses.
///
/// # Errors
/// See [`YamlError`].
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if let Some(line) = anchor(text) {
        return Err(YamlError::Anchor(line));
    }
    let budget = Budget::of(text);
    Bounded(&budget)
        .deserialize(serde_norway::Deserializer::from_str(text))
        .map_err(|error| YamlError::Parse(error.to_string()))
}

/// The line of the first anchor or alias. They can stand only where a value or key begins, outside quotes, comments
/// and block texts.
fn anchor(text: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut block: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some(outer) = block {
            if line.trim().is_empty() || indent > outer {
                continue;
            }
            block = None;
        }
        let mut begins = true;
        let mut previous = ' ';
        let mut characters = line.char_indices().peekable();
        while let Some((place, c)) = characters.next() {
            if let Some(open) = quote {
                if c == '\\' && open == '"' {
                    characters.next();
                } else if c == open {
                    quote = None;
                }
                previous = c;
                begins = false;
                continue;
            }
            match c {
                '#' if previous == ' ' || previous == '\t' => break,
                '\'' | '"' if begins => quote = Some(c),
                '&' | '*' if begins && line[place + 1..].starts_with(|next: char| !next.is_whitespace()) => {
                    return Some(number + 1);
                }
                '|' | '>' if begins => {
                    block = Some(indent);
                    break;
                }
                ' ' | '\t' => {
                    // `- `, `: `, `, `, `[ `: what follows begins something.
                    begins = begins || matches!(previous, '-' | ':' | ',' | '[' | '{' | '?');
                    previous = c;
                    continue;
                }
                '[' | '{' | ',' => {
                    begins = true;
                    previous = c;
                    continue;
                }
                '-' | '?' if begins => {
                    previous = c;
                    begins = line[place + 1..].starts_with(' ');
                    continue;
                }
                _ => {}
            }
            previous = c;
            begins = false;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_and_aliases_are_found_and_nothing_else() {
        for text in ["a: &x 1", "a: *x", "- &x b", "a: [1, *x]", "&x a: 1", "<<: *base", "a: {b: *x}"] {
            assert!(matches!(parse(text), Err(YamlError::Anchor(1))), "{text}");
        }
        for text in [
            "a: b & c",
            "a: 'x *y &z'",
            "a: \"&x\"",
            "# &x\na: 1",
            "a: |\n  &x\n  *y\nb: 1",
            "a: 2*3",
            "a: \"\\\" &x\"",
            "route: '*.example.com'",
            "command: sleep 1 && ls *",
            "a: b\n# it's &x\nc: d",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        // One that is not found by its place is found by what it does.
        let hidden = format!("{{\"a\":&x [{0}], \"b\":*x, \"c\":*x}}", "1,".repeat(100));
        assert!(parse(&hidden).is_err(), "{hidden}");
        assert!(matches!(parse("a: [1"), Err(YamlError::Parse(_))));
        assert!(matches!(parse("a: 1\na: 2"), Err(YamlError::Parse(_))));
    }
}
