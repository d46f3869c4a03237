//! The table: one row per endpoint (or per kind of call of it), one sign per caller.

use std::collections::BTreeMap;

/// Callers, in the order of the signs.
pub(crate) const CALLERS: [&str; 14] = [
    "admin",
    "admin_read_only",
    "global_auditor",
    "organization_manager",
    "organization_billing_manager",
    "organization_auditor",
    "organization_user",
    "space_manager",
    "space_developer",
    "space_supporter",
    "space_auditor",
    "elsewhere",
    "roleless",
    "anonymous",
];

/// What a caller must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// `+`: it works.
    Allowed,
    /// `0`: it works, and shows nothing.
    Empty,
    /// `-`: 403.
    Forbidden,
    /// `.`: 404.
    Hidden,
    /// `?`: 422, what the body names is not there for this caller.
    Unusable,
    /// `!`: 401.
    Anonymous,
}

impl Sign {
    fn read(sign: char) -> Option<Self> {
        Some(match sign {
            '+' => Self::Allowed,
            '0' => Self::Empty,
            '-' => Self::Forbidden,
            '.' => Self::Hidden,
            '?' => Self::Unusable,
            '!' => Self::Anonymous,
            _ => return None,
        })
    }
}

/// One call, and what everybody gets.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) method: String,
    /// As it is registered: `/v3/apps/{guid}`.
    pub(crate) path: String,
    pub(crate) signs: Vec<Sign>,
    options: BTreeMap<String, String>,
    pub(crate) body: Option<String>,
}

impl Row {
    /// What stands behind the signs as `name=value`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn endpoint(&self) -> (String, String) {
        (self.method.clone(), self.path.clone())
    }

    /// Whether the call may change something.
    pub(crate) fn changes(&self) -> bool {
        self.method != "GET"
    }
}

/// Reads the table.
///
/// # Panics
/// On a line that is none of comment, row and body.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let row = rows.last_mut().expect("a body follows a row");
            match &mut row.body {
                Some(body) => *body = format!("{body}\n{trimmed}"),
                None => row.body = Some(trimmed.to_owned()),
            }
            continue;
        }
        let mut words = trimmed.split_whitespace();
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let (mut signs, mut options) = (Vec::new(), BTreeMap::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => drop(options.insert(name.to_owned(), value.to_owned())),
                None => signs.extend(
                    word.chars().map(|sign| Sign::read(sign).unwrap_or_else(|| panic!("sign {sign:?} in {line:?}"))),
                ),
            }
        }
        assert_eq!(signs.len(), CALLERS.len(), "{} signs in {line:?}", signs.len());
        rows.push(Row { method: method.to_owned(), path: path.to_owned(), signs, options, body: None });
    }
    rows
}
