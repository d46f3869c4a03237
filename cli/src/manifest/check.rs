//! What a manifest may say. Each problem names the app, the key and the value.

use std::collections::HashSet;

use serde_norway::{Mapping, Value};
use slipway_api_types::manifest_keys::{MANIFEST_KEYS, ManifestKey, Place, manifest_key};
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};

use crate::commands::{closest, is_variable, unusual_variable};
use crate::size::{parse_bytes, parse_mib};

/// Keys of old manifests with what replaced them.
const OLD_KEYS: &[(&str, &str)] = &[
    ("host", "routes"),
    ("hosts", "routes"),
    ("domain", "routes"),
    ("domains", "routes"),
    ("no-hostname", "routes"),
    ("inherit", "YAML anchors"),
];

/// Takes the apps out of a manifest.
pub(super) fn root(root: &mut Value, text: &str, warnings: &mut Vec<String>) -> (Vec<Mapping>, Vec<String>) {
    let mut problems = Vec::new();
    let mut apps = Vec::new();
    let Value::Mapping(root) = root else {
        return (apps, vec!["it must be a mapping with the key 'applications'".to_owned()]);
    };
    for (key, value) in std::mem::take(root) {
        match (key.as_str(), value) {
            (Some("applications"), Value::Sequence(items)) => {
                for (number, item) in items.into_iter().enumerate() {
                    match item {
                        Value::Mapping(app) => apps.push(app),
                        other => problems.push(format!(
                            "entry {} of 'applications' must be a mapping, it is {}",
                            number + 1,
                            describe(&other)
                        )),
                    }
                }
            }
            (Some("applications"), other) => {
                problems.push(format!("'applications' must be a list, it is {}", describe(&other)));
            }
            (Some("version"), value) if value.as_u64() == Some(1) => {}
            (Some("version"), value) => problems.push(format!("'version' must be 1, it is {}", describe(&value))),
            (Some(key), _) if key.starts_with("x-") || holds_anchor(text, key) => {}
            (key, _) => {
                let meant = closest(key.unwrap_or_default(), ["applications"].into_iter());
                let meant = meant.map(|one| format!("; did you mean '{one}'?")).unwrap_or_default();
                warnings.push(format!("the manifest's key '{}' is unknown and ignored{meant}", key.unwrap_or("?")));
            }
        }
    }
    if apps.is_empty() && problems.is_empty() {
        problems.push("there is no app under 'applications'".to_owned());
    }
    (apps, problems)
}

/// Whether a top-level key is there to hold a template.
fn holds_anchor(text: &str, key: &str) -> bool {
    text.lines().any(|line| {
        line.strip_prefix(key)
            .and_then(|rest| rest.trim_start().strip_prefix(':'))
            .is_some_and(|rest| rest.trim_start().starts_with('&'))
    }) || text
        .lines()
        .skip_while(|line| !line.starts_with(key))
        .skip(1)
        .take_while(|line| line.starts_with([' ', '-', '#']) || line.is_empty())
        .any(|line| line.contains(": &") || line.trim_start().starts_with("- &"))
}

/// Checks the apps, flags merged in.
pub(super) fn apps(apps: &[Mapping], warnings: &mut Vec<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = HashSet::new();
    for (number, app) in apps.iter().enumerate() {
        let name = match app.get("name") {
            Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
            None => {
                problems.push(format!("app {} has no name", number + 1));
                format!("app {}", number + 1)
            }
            Some(other) => {
                problems.push(format!("app {}: 'name' must be text, it is {}", number + 1, describe(other)));
                format!("app {}", number + 1)
            }
        };
        if !names.insert(name.clone()) {
            problems.push(format!("app '{name}' is there more than once"));
        }
        let mut app_check = Check { place: format!("app '{name}'"), problems: &mut problems, warnings };
        app_check.app(app);
    }
    problems
}

struct Check<'a> {
    place: String,
    problems: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
}

impl Check<'_> {
    fn app(&mut self, app: &Mapping) {
        self.keys(app, Place::App);
        self.process(app);
        self.text(app, &["path", "stack", "buildpack", "lifecycle"]);
        self.list(app, "buildpacks", |value| value.is_string(), "a list of names or addresses");
        self.list(app, "services", |value| value.is_string() || value.is_mapping(), "a list of services");
        self.list(
            app,
            "routes",
            |value| value.get("route").is_some_and(Value::is_string),
            "a list of 'route: HOST.DOMAIN'",
        );
        for key in ["no-route", "random-route", "default-route"] {
            if let Some(value) = app.get(key)
                && !value.is_bool()
            {
                self.wrong(key, "must be true or false", value);
            }
        }
        match app.get("env") {
            None | Some(Value::Null) => {}
            Some(Value::Mapping(env)) => {
                for (key, value) in env {
                    if let Some(name) = key.as_str().filter(|name| !is_variable(name)) {
                        self.warnings.push(format!("{}: {}", self.place, unusual_variable(name)));
                    }
                    if !matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null) {
                        let key = key.as_str().unwrap_or("?");
                        // Values of variables are often secret.
                        self.problems.push(format!(
                            "{}: the variable '{key}' in 'env' must be text, a number or a boolean",
                            self.place
                        ));
                    }
                }
            }
            Some(other) => {
                self.problems.push(format!("{}: 'env' must be a mapping, it is {}", self.place, kind(other)))
            }
        }
        match app.get("processes") {
            None | Some(Value::Null) => {}
            Some(Value::Sequence(items)) => {
                let mut kinds = HashSet::new();
                for item in items {
                    let kind = item.get("type").and_then(Value::as_str);
                    match (item, kind) {
                        (Value::Mapping(process), Some(kind)) => {
                            if !kinds.insert(kind) {
                                self.problems
                                    .push(format!("{}: the process '{kind}' is there more than once", self.place));
                            }
                            let place = format!("{}, process '{kind}'", self.place);
                            let mut inner = Check { place, problems: self.problems, warnings: self.warnings };
                            inner.keys(process, Place::Process);
                            inner.process(process);
                        }
                        _ => self.wrong("processes", "must be a list of mappings with a 'type'", item),
                    }
                }
            }
            Some(other) => self.wrong("processes", "must be a list of mappings with a 'type'", other),
        }
    }

    /// Warns of keys that may not stand here.
    fn keys(&mut self, mapping: &Mapping, place: Place) {
        let fits = |key: &&ManifestKey| key.place == place || key.place == Place::Both;
        for key in mapping.keys() {
            let key = key.as_str().map_or_else(|| describe(key), str::to_owned);
            if let Some((_, instead)) = OLD_KEYS.iter().find(|(old, _)| *old == key) {
                self.warnings.push(format!("{}: the key '{key}' has no effect any more; use {instead}", self.place));
            } else if manifest_key(&key).filter(fits).is_none() {
                let meant = closest(&key, MANIFEST_KEYS.iter().filter(fits).map(|key| key.name));
                let meant = meant.map(|one| format!("; did you mean '{one}'?")).unwrap_or_default();
                self.warnings.push(format!("{}: the key '{key}' is unknown and ignored{meant}", self.place));
            }
        }
    }

    fn process(&mut self, process: &Mapping) {
        for key in ["memory", "disk_quota", "disk-quota", "log-rate-limit-per-second"] {
            let Some(value) = process.get(key) else { continue };
            let rate = key == "log-rate-limit-per-second";
            match value {
                Value::Null => {}
                Value::String(text) if rate && matches!(text.as_str(), "-1" | "0") => {}
                Value::Number(number) if rate && matches!(number.as_i64(), Some(-1 | 0)) => {}
                Value::String(text) => {
                    let least = if key == "memory" { LEAST_MEMORY_MB } else { LEAST_DISK_MB };
                    let result = if rate { parse_bytes(text).map(drop) } else { parse_mib(text, least).map(drop) };
                    if let Err(error) = result {
                        self.problems.push(format!("{}: '{key}': {error}", self.place));
                    }
                }
                Value::Number(number) if !rate => {
                    self.problems
                        .push(format!("{}: '{key}': '{number}' has no unit: write {number}M or {number}G", self.place));
                }
                other => self.wrong(key, "must be a size with a unit, such as 256M or 1G", other),
            }
        }
        if let Some(value) = process.get("instances")
            && value.as_u64().and_then(|count| u32::try_from(count).ok()).is_none()
        {
            self.wrong("instances", "must be a whole number, 0 or more", value);
        }
        for key in [
            "timeout",
            "health-check-invocation-timeout",
            "health-check-interval",
            "readiness-health-check-invocation-timeout",
            "readiness-health-check-interval",
        ] {
            match process.get(key) {
                None | Some(Value::Null) => {}
                Some(value) if value.as_u64().is_some_and(|seconds| seconds >= 1) => {}
                Some(value) => self.wrong(key, "must be a whole number of seconds, 1 or more", value),
            }
        }
        for key in ["health-check-type", "readiness-health-check-type"] {
            match process.get(key) {
                None | Some(Value::Null) => {}
                Some(value) if matches!(value.as_str(), Some("port" | "http" | "process" | "none")) => {}
                Some(value) => self.wrong(key, "must be port, http or process", value),
            }
        }
        for prefix in ["", "readiness-"] {
            let text = |key: &str| process.get(format!("{prefix}health-check-{key}")).and_then(Value::as_str);
            if let (Some(kind @ ("port" | "process" | "none")), Some(endpoint)) = (text("type"), text("http-endpoint"))
            {
                self.warnings.push(format!(
                    "{}: the endpoint '{endpoint}' has no effect, as '{prefix}health-check-type' is '{kind}' and not \
                     'http'",
                    self.place
                ));
            }
        }
        self.text(process, &["command", "health-check-http-endpoint", "readiness-health-check-http-endpoint"]);
    }

    fn text(&mut self, mapping: &Mapping, keys: &[&str]) {
        for key in keys {
            match mapping.get(*key) {
                None | Some(Value::Null | Value::String(_)) => {}
                Some(other) => self.wrong(key, "must be text", other),
            }
        }
    }

    fn list(&mut self, mapping: &Mapping, key: &str, fits: impl Fn(&Value) -> bool, wanted: &str) {
        match mapping.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Sequence(items)) => {
                for item in items.iter().filter(|item| !fits(item)) {
                    self.wrong(key, &format!("must be {wanted}"), item);
                }
            }
            Some(other) => self.wrong(key, &format!("must be {wanted}"), other),
        }
    }

    fn wrong(&mut self, key: &str, rule: &str, value: &Value) {
        self.problems.push(format!("{}: '{key}' {rule}, it is {}", self.place, describe(value)));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// A value in a message: scalars as they are, others by their kind.
fn describe(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        other => kind(other).to_owned(),
    }
}
