//! `label_selector`: `k`, `!k`, `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, joined with commas.

use super::error::{ApiError, ApiResult};
use crate::domain::list::LabelRequirement;

/// Most requirements in one selector.
const MAX_REQUIREMENTS: usize = 50;

/// Parses a selector.
///
/// # Errors
/// 400 `CF-BadQueryParameter` with the requirement that was not understood.
pub fn parse(text: &str) -> ApiResult<Vec<LabelRequirement>> {
    let pieces = split(text);
    if pieces.len() > MAX_REQUIREMENTS {
        return Err(ApiError::bad_query(format!(
            "The query parameter is invalid: Too many label_selector requirements (maximum is {MAX_REQUIREMENTS})"
        )));
    }
    pieces.into_iter().map(requirement).collect()
}

/// Splits at commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut pieces, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (place, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                pieces.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

fn requirement(piece: &str) -> ApiResult<LabelRequirement> {
    let text = piece.trim();
    let bad = || {
        ApiError::bad_query(format!(
            "The query parameter is invalid: Invalid label_selector requirement '{}'; use k, !k, k=v, k!=v, \
             k in (a,b) or k notin (a,b)",
            text.chars().take(200).collect::<String>()
        ))
    };
    let key = |text: &str| {
        let text = text.trim();
        if is_key(text) { Ok(text.to_owned()) } else { Err(bad()) }
    };
    let value = |text: &str| {
        let text = text.trim();
        if is_value(text) { Ok(text.to_owned()) } else { Err(bad()) }
    };
    if let Some(inner) = text.strip_suffix(')') {
        let (head, list) = inner.split_once('(').ok_or_else(bad)?;
        let (name, operator) = head.trim_end().rsplit_once(char::is_whitespace).ok_or_else(bad)?;
        let values = list.split(',').map(value).collect::<ApiResult<Vec<_>>>()?;
        return match operator {
            "in" => Ok(LabelRequirement::In(key(name)?, values)),
            "notin" => Ok(LabelRequirement::NotIn(key(name)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((name, wanted)) = text.split_once("!=") {
        return Ok(LabelRequirement::NotIn(key(name)?, vec![value(wanted)?]));
    }
    if let Some((name, wanted)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(LabelRequirement::In(key(name)?, vec![value(wanted)?]));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(LabelRequirement::NotExists(key(name)?)),
        None => Ok(LabelRequirement::Exists(key(text)?)),
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.matches('/').count() <= 1
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

fn is_value(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_grammar() {
        use LabelRequirement::{Exists, In, NotExists, NotIn};
        let s = |text: &str| text.to_owned();
        assert_eq!(
            parse("a,!b, c=1,d==2,e!=3,f in (x, y),g notin (z),p.test/h=").expect("valid"),
            vec![
                Exists(s("a")),
                NotExists(s("b")),
                In(s("c"), vec![s("1")]),
                In(s("d"), vec![s("2")]),
                NotIn(s("e"), vec![s("3")]),
                In(s("f"), vec![s("x"), s("y")]),
                NotIn(s("g"), vec![s("z")]),
                In(s("p.test/h"), vec![s("")]),
            ]
        );
        for bad in ["", ",", "a b", "a in x", "a in", "in (a)", "a like (b)", "a=b=c", "a in (b", "a/b/c", "a>1", "!"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&vec!["k"; 51].join(",")).is_err());
        assert!(parse(&vec!["k"; 50].join(",")).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(key in "[a-z]{1,8}", values in prop::collection::vec("[a-z0-9]{0,6}", 1..5)) {
            let text = format!("{key} notin ({})", values.join(","));
            prop_assert_eq!(parse(&text).expect("valid"), vec![LabelRequirement::NotIn(key, values)]);
        }
    }
}
