//! `Staticfile`: what a site wants, in Cloud Foundry's words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_norway::Value;

use crate::errors::Problem;
use crate::source::Source;

const FILE: &str = "Staticfile";
/// Answers that a class stands for, as far as a web server gives them.
const CLASSES: [(&str, &[u16]); 2] = [
    (
        "4xx",
        &[
            400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422,
            423, 424, 426, 428, 429, 431, 451,
        ],
    ),
    ("5xx", &[500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511]),
];

/// As it is written. Switches are `enabled` or `true`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    root: Option<String>,
    directory: Option<Value>,
    ssi: Option<Value>,
    pushstate: Option<Value>,
    http_strict_transport_security: Option<Value>,
    http_strict_transport_security_include_subdomains: Option<Value>,
    http_strict_transport_security_preload: Option<Value>,
    host_dot_files: Option<Value>,
    force_https: Option<Value>,
    enable_http2: Option<Value>,
    location_include: Option<String>,
    status_codes: Option<BTreeMap<Code, String>>,
}

/// A status, or a class of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
enum Code {
    One(u16),
    Text(String),
}

/// What it means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The directory that is served, relative to the app; `None` is the app itself.
    pub(super) root: Option<String>,
    pub(super) listing: bool,
    pub(super) ssi: bool,
    pub(super) pushstate: bool,
    /// The value of `Strict-Transport-Security`.
    pub(super) hsts: Option<String>,
    pub(super) dot_files: bool,
    pub(super) force_https: bool,
    pub(super) http2: bool,
    /// Relative to `nginx/conf` of the app.
    pub(super) include: Option<String>,
    /// By page, which is a path on the site.
    pub(super) pages: Vec<(Vec<u16>, String)>,
    /// For the developer.
    pub(super) notes: Vec<String>,
}

fn on(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => ["enabled", "true"].contains(&text.as_str()),
        _ => false,
    }
}

fn bad(detail: String) -> Problem {
    Problem::BadFile { file: FILE.into(), detail }
}

impl Code {
    fn statuses(&self) -> Result<Vec<u16>, Problem> {
        let text = match self {
            Self::One(code) => code.to_string(),
            Self::Text(text) => text.trim().to_owned(),
        };
        if let Some((_, codes)) = CLASSES.iter().find(|(class, _)| text == *class) {
            return Ok(codes.to_vec());
        }
        match text.parse() {
            Ok(code @ 300..=599) => Ok(vec![code]),
            _ => Err(bad(format!("status_codes: {text:?} is not a status from 300 to 599, 4xx or 5xx"))),
        }
    }
}

/// These become part of a configuration file: nothing that could end a line or leave the app.
fn path(name: &str, value: &str) -> Result<(), Problem> {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
    if value.is_empty() || !plain || value.split('/').any(|part| part == "..") {
        return Err(bad(format!("{name}: {value:?} is not a path inside the app")));
    }
    Ok(())
}

/// Reads the app's `Staticfile`; without one, or with an empty one, nothing is turned on.
pub(super) fn read(source: &dyn Source) -> Result<Options, Problem> {
    let text = source.read(FILE).unwrap_or_default();
    let written: Option<Written> = if text.trim().is_empty() {
        None
    } else {
        serde_norway::from_str(&text).map_err(|error| bad(error.to_string()))?
    };
    let written = written.unwrap_or_default();
    for (name, value) in [("root", &written.root), ("location_include", &written.location_include)] {
        value.as_deref().map_or(Ok(()), |value| path(name, value))?;
    }
    let mut options = Options {
        listing: match &written.directory {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        },
        ssi: on(written.ssi.as_ref()),
        pushstate: on(written.pushstate.as_ref()),
        dot_files: on(written.host_dot_files.as_ref()),
        force_https: on(written.force_https.as_ref()),
        http2: on(written.enable_http2.as_ref()),
        ..Options::default()
    };
    let root = written.root.as_deref().map(|root| root.trim_start_matches("./").trim_matches('/'));
    options.root = root.filter(|root| !["", "."].contains(root)).map(str::to_owned);
    let subdomains = on(written.http_strict_transport_security_include_subdomains.as_ref());
    let preload = on(written.http_strict_transport_security_preload.as_ref());
    if on(written.http_strict_transport_security.as_ref()) {
        let further = [(subdomains, "; includeSubDomains"), (preload, "; preload")];
        let further = further.iter().filter(|(on, _)| *on).map(|(_, text)| *text);
        options.hsts = Some(std::iter::once("max-age=31536000").chain(further).collect());
    } else if subdomains || preload {
        let note = "Staticfile: without http_strict_transport_security its include_subdomains and preload do nothing.";
        options.notes.push(note.to_owned());
    }
    for (code, page) in written.status_codes.iter().flatten() {
        path("status_codes", page)?;
        options.pages.push((code.statuses()?, format!("/{}", page.trim_start_matches('/'))));
    }
    if let Some(include) = written.location_include {
        let include = include.trim_start_matches("./").trim_matches('/').to_owned();
        if !include.contains('*') && !source.has(&format!("nginx/conf/{include}")) {
            return Err(bad(format!("location_include: there is no file nginx/conf/{include} in the app")));
        }
        options.include = Some(include);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Listing;

    fn of(text: &str) -> Result<Options, Problem> {
        read(&Listing::of(&[("Staticfile", text), ("nginx/conf/h.conf", "")]))
    }

    #[test]
    fn switches_are_cloud_foundrys() {
        for (value, is) in [("enabled", true), ("true", true), ("'true'", true), ("false", false), ("disabled", false)]
        {
            let options = of(&format!(
                "ssi: {value}\npushstate: {value}\nhost_dot_files: {value}\nforce_https: {value}\nenable_http2: {value}\n"
            ));
            let Options { ssi, pushstate, dot_files, force_https, http2, .. } = options.unwrap();
            assert_eq!([ssi, pushstate, dot_files, force_https, http2], [is; 5], "{value}");
        }
        for (value, is) in [("visible", true), ("true", true), ("''", false), ("false", false), ("", false)] {
            assert_eq!(of(&format!("directory: {value}")).unwrap().listing, is, "{value}");
        }
    }

    #[test]
    fn strict_transport_security_has_its_parts() {
        let name = "http_strict_transport_security";
        assert_eq!(of(&format!("{name}: true")).unwrap().hsts.as_deref(), Some("max-age=31536000"));
        let all = of(&format!("{name}: true\n{name}_include_subdomains: enabled\n{name}_preload: true\n")).unwrap();
        assert_eq!(all.hsts.as_deref(), Some("max-age=31536000; includeSubDomains; preload"));
        let alone = of(&format!("{name}_preload: true")).unwrap();
        assert!(alone.hsts.is_none() && alone.notes.len() == 1);
    }

    #[test]
    fn pages_are_given_by_status_or_class() {
        let options = of("status_codes:\n  404: missing.html\n  5xx: /broken.html\n").unwrap();
        assert_eq!(options.pages[0], (vec![404], "/missing.html".to_owned()));
        assert!(options.pages[1].0.contains(&503) && options.pages[1].1 == "/broken.html");
        for text in ["status_codes: {200: a}", "status_codes: {6xx: a}", "status_codes: {4xxx: a}"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_of_a_staticfile_cannot_become_configuration() {
        for text in [
            "root: ../..",
            "root: 'x; } evil {'",
            "location_include: \"a\\nb\"",
            "location_include: missing.conf",
            "location_include: ../../../etc/passwd",
            "status_codes: {404: 'x y'}",
            "root: [",
        ] {
            assert!(matches!(of(text), Err(Problem::BadFile { .. })), "{text}");
        }
        for text in
            ["", "\n", "root: a/b", "root: .", "unknown: 1", "location_include: h.conf", "location_include: x/*.conf"]
        {
            assert!(of(text).is_ok(), "{text}");
        }
    }
}
