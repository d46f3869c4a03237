//! Links of the pages that indexes of Python projects are made of (PEP 503).

use std::collections::BTreeMap;

/// Bytes of an escape between `&` and `;`.
const LONGEST_ESCAPE: usize = 8;

/// An element `a`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Values without their escapes, by lower-case name.
    pub(super) attributes: BTreeMap<String, String>,
}

/// All links of a page, in order.
pub(super) fn anchors(page: &str) -> Vec<Anchor> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        rest = after;
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
        } else if let Some(inner) = after.strip_prefix(['a', 'A'])
            && inner.starts_with(|c: char| c.is_ascii_whitespace())
        {
            let (anchor, behind) = attributes(inner);
            found.push(anchor);
            rest = behind;
        }
    }
    found
}

/// The attributes of an element whose name has been read, and what is behind it.
fn attributes(mut rest: &str) -> (Anchor, &str) {
    let mut anchor = Anchor::default();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(behind) = rest.strip_prefix('>') {
            return (anchor, behind);
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || "=>/".contains(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        if name.is_empty() && !behind.starts_with('=') {
            return (anchor, "");
        }
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('=').map(str::trim_start) {
            None => ("", behind),
            Some(quoted) => match quoted.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                Some(quote) => quoted[1..].split_once(quote).unwrap_or((&quoted[1..], "")),
                None => {
                    quoted.split_at(quoted.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(quoted.len()))
                }
            },
        };
        anchor.attributes.entry(name.to_ascii_lowercase()).or_insert_with(|| plain(value));
        rest = behind;
    }
}

/// Without escapes.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out += before;
        // No further: a page of nothing but `&` would be read to its end at each of them.
        let end = after.bytes().take(LONGEST_ESCAPE + 1).position(|byte| byte == b';');
        let escape = end.map(|end| (&after[..end], &after[end + 1..]));
        let character = escape.and_then(|(name, _)| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            name => {
                let number = name.strip_prefix('#')?;
                let number = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(number)
            }
        });
        match (character, escape) {
            (Some(character), Some((_, behind))) => {
                out.push(character);
                rest = behind;
            }
            _ => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

/// For text and for values of attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_in_every_spelling() {
        let page = r#"<!DOCTYPE html><html><body><!-- <a href="not">x</a> --><h1>Links</h1><abbr href="no"></abbr>
            <a href="one.whl#sha256=1" data-requires-python="&gt;=3.6,&lt;4">one.whl</a><br/>
            <A HREF='two.whl?a=1&amp;b=2' data-yanked>two.whl</A>
            <a
              rel=internal href=three.whl data-yanked="it&#39;s &#x62;ad &nothing; & more" href="second">three</a>
            <a name="x">no address</a>"#;
        let anchors = anchors(page);
        let value = |number: usize, name: &str| anchors[number].attributes.get(name).map(String::as_str);
        assert_eq!(anchors.len(), 4);
        assert_eq!((value(0, "href"), value(0, "data-requires-python")), (Some("one.whl#sha256=1"), Some(">=3.6,<4")));
        assert_eq!((value(1, "href"), value(1, "data-yanked")), (Some("two.whl?a=1&b=2"), Some("")));
        assert_eq!((value(2, "href"), value(2, "data-yanked")), (Some("three.whl"), Some("it's bad &nothing; & more")));
        assert_eq!(value(3, "href"), None);
    }

    #[test]
    fn a_page_of_ampersands_is_read_once() {
        // Whoever looks for an end at each of them is not done within an hour.
        let page = format!("<a href=\"{}\">", "&".repeat(8 << 20));
        assert_eq!(anchors(&page)[0].attributes["href"].len(), 8 << 20);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_and_what_is_escaped_comes_back(page in "[<>a \"'=/&;#x0-9é!-]{0,60}", value in "\\PC{0,40}") {
            anchors(&page);
            let link = format!("<a href=\"{}\">x</a>{page}", escaped(&value));
            assert_eq!(anchors(&link)[0].attributes["href"], value);
        }
    }
}
