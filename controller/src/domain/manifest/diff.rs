//! What applying a manifest would change, at the places where the manifest says it: clients look a change up by its path
//! when they print the manifest, and do not see one at any other path.

use serde_json::{Map, Value, json};
use slipway_api_types::manifest_keys::{Comparison, manifest_key};
use uuid::Uuid;

use super::parse::bytes;
use super::written;
use crate::context::Context;
use crate::domain::DomainResult;
use crate::domain::specs::environment::as_text;
use crate::store::apps::app_lock_by_name_tx;

/// `[{"op", "path", "was", "value"}]`, as clients print it, for a manifest that has been found good.
///
/// # Errors
/// When the database fails.
pub async fn diff(context: &Context, space: Uuid, document: &Value) -> DomainResult<Vec<Value>> {
    let mut entries = Vec::new();
    for (place, wish) in document["applications"].as_array().into_iter().flatten().enumerate() {
        // The document has been found good: an app is a mapping with a name.
        let (Some(wish), Some(name)) = (wish.as_object(), wish["name"].as_str()) else { continue };
        let mut tx = context.store.begin().await?;
        let app = app_lock_by_name_tx(&mut tx, space, name).await?;
        // Only read: nothing is to be held meanwhile.
        drop(tx);
        let is = match app {
            Some(app) => Some(written::entry(context, &app).await?),
            None => None,
        };
        Changes { entries: &mut entries }.app(&format!("/applications/{place}"), wish, is.as_ref());
    }
    Ok(entries)
}

/// Keys are written with `-` or with `_`.
fn get<'a>(map: &'a Map<String, Value>, key: &str) -> &'a Value {
    map.iter().find(|(name, _)| name.replace('-', "_") == key).map_or(&Value::Null, |(_, value)| value)
}

struct Changes<'a> {
    entries: &'a mut Vec<Value>,
}

impl Changes<'_> {
    fn app(&mut self, at: &str, wish: &Map<String, Value>, is: Option<&Map<String, Value>>) {
        let none = Map::new();
        let new = is.is_none();
        let is = is.unwrap_or(&none);
        let web = by(get(is, "processes"), "type", "web").unwrap_or(&none);
        let routed = get(is, "routes").is_array();
        for (raw, value) in wish {
            let (key, at) = (raw.replace('-', "_"), format!("{at}/{raw}"));
            match key.as_str() {
                "name" if new => self.add(at, value.clone()),
                "env" => self.members(&at, value, get(is, &key)),
                "metadata" => {
                    for part in ["labels", "annotations"] {
                        self.members(&format!("{at}/{part}"), &value[part], &get(is, &key)[part]);
                    }
                }
                "features" => self.members(&at, value, get(is, &key)),
                "buildpacks" => self.list(at, value, get(is, &key)),
                "processes" => self.named(&at, value, get(is, &key), "type"),
                "sidecars" => self.named(&at, value, get(is, &key), "name"),
                "routes" => self.named(&at, value, get(is, &key), "route"),
                "services" => self.services(&at, value, get(is, &key)),
                "no_route" if value == &json!(true) && routed => self.add(at, value.clone()),
                "default_route" | "random_route" if value == &json!(true) && !routed => self.add(at, value.clone()),
                key => {
                    let was = if is.contains_key(key) { get(is, key) } else { get(web, key) };
                    self.key(at, key, was, value);
                }
            }
        }
    }

    /// A key of an app or a process.
    fn key(&mut self, at: String, key: &str, was: &Value, value: &Value) {
        match key {
            "memory" | "disk_quota" => self.scalar(at, was, &mebibytes(value)),
            "log_rate_limit_per_second" => self.scalar(at, was, &written::rate(rate(value))),
            // Means the droplet's own, as does none.
            "command" if [json!("null"), json!("default")].contains(value) => self.scalar(at, was, &Value::Null),
            "health_check_type" if value == "none" => self.scalar(at, was, &json!("process")),
            "command" | "health_check_type" => self.scalar(at, was, value),
            key if manifest_key(key).is_some_and(|key| key.comparison == Comparison::Plain) => {
                self.scalar(at, was, value)
            }
            _ => {}
        }
    }

    /// Numbers and texts that read the same are the same.
    fn scalar(&mut self, at: String, was: &Value, value: &Value) {
        if as_text(was) == as_text(value) {
            return;
        }
        match was {
            Value::Null => self.add(at, value.clone()),
            was => self.entries.push(json!({ "op": "replace", "path": at, "was": was, "value": value })),
        }
    }

    fn add(&mut self, at: String, value: Value) {
        self.entries.push(json!({ "op": "add", "path": at, "value": value }));
    }

    fn list(&mut self, at: String, value: &Value, was: &Value) {
        let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
        if items(was) == items(value) {
            return;
        }
        match was {
            Value::Null => self.add(at, value.clone()),
            was => self.entries.push(json!({ "op": "replace", "path": at, "was": was, "value": value })),
        }
    }

    /// What the manifest does not name stays, so that nothing is ever taken away here but by `null`.
    fn members(&mut self, at: &str, value: &Value, was: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            match (value, &was[key]) {
                (Value::Null, Value::Null) => {}
                (Value::Null, was) => {
                    self.entries
                        .push(json!({ "op": "replace", "path": format!("{at}/{key}"), "was": was, "value": null }));
                }
                (value, was) => self.scalar(format!("{at}/{key}"), was, value),
            }
        }
    }

    /// Mappings that are known by one of their members.
    fn named(&mut self, at: &str, value: &Value, was: &Value, id: &str) {
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            let at = format!("{at}/{number}");
            let Some(item) = item.as_object() else { continue };
            let Some(was) = item.get(id).and_then(Value::as_str).and_then(|name| by(was, id, name)) else {
                self.add(at, Value::Object(item.clone()));
                continue;
            };
            for (raw, value) in item {
                let (key, at) = (raw.replace('-', "_"), format!("{at}/{raw}"));
                match key.as_str() {
                    "process_types" => self.list(at, value, get(was, &key)),
                    "options" => self.members(&at, value, get(was, &key)),
                    // Left open, the mapping keeps its own.
                    "protocol" if value.is_null() => {}
                    "protocol" => self.scalar(at, get(was, &key), value),
                    key => self.key(at, key, get(was, key), value),
                }
            }
        }
    }

    fn services(&mut self, at: &str, value: &Value, was: &Value) {
        let name = |item: &Value| item.as_str().or_else(|| item["name"].as_str()).map(ToOwned::to_owned);
        let bound: Vec<_> = was.as_array().into_iter().flatten().filter_map(name).collect();
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            if name(item).is_some_and(|name| !bound.contains(&name)) {
                self.add(format!("{at}/{number}"), item.clone());
            }
        }
    }
}

/// The mapping of a list whose member `id` is `name`; host names know no case.
fn by<'a>(list: &'a Value, id: &str, name: &str) -> Option<&'a Map<String, Value>> {
    let same = |item: &&Map<String, Value>| {
        let known = item.get(id).and_then(Value::as_str).unwrap_or_default();
        known == name || id == "route" && known.eq_ignore_ascii_case(name)
    };
    list.as_array()?.iter().filter_map(Value::as_object).find(same)
}

fn mebibytes(value: &Value) -> Value {
    match value.as_str().and_then(bytes) {
        Some(bytes) => format!("{}M", bytes >> 20).into(),
        None => value.clone(),
    }
}

/// In bytes; -1 is no limit.
fn rate(value: &Value) -> i64 {
    let text = value.as_str().and_then(bytes).and_then(|bytes| i64::try_from(bytes).ok());
    text.or_else(|| as_text(value).parse().ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(is: Option<&str>, wish: &str) -> Vec<String> {
        let read = |text: &str| super::super::yaml::parse(text).expect("YAML").as_object().expect("a mapping").clone();
        let mut entries = Vec::new();
        let is = is.map(read);
        Changes { entries: &mut entries }.app("", &read(wish), is.as_ref());
        let line = |entry: &Value| match entry["op"].as_str() {
            Some("replace") => format!("{}: {} -> {}", as_text(&entry["path"]), entry["was"], entry["value"]),
            _ => format!("{} {} {}", as_text(&entry["op"]), as_text(&entry["path"]), entry["value"]),
        };
        entries.iter().map(line).collect()
    }

    const IS: &str = "
name: a
env: {N: '5', KEEP: x}
buildpacks: [binary_buildpack]
stack: debian12
services: [db]
routes: [{route: a.example.org, protocol: http1}]
metadata: {labels: {tier: front}}
processes:
- {type: web, instances: 2, memory: 1024M, disk_quota: 512M, log-rate-limit-per-second: 16K, command: ./a, health-check-type: port}
- {type: worker, instances: 1, memory: 64M, log-rate-limit-per-second: -1}
sidecars: [{name: s, process_types: [web], command: ./s}]
";

    #[test]
    fn an_equal_value_is_no_change_however_it_is_written() {
        let same = "
name: a
env: {N: 5}
buildpacks: [binary_buildpack]
services: [{name: db}]
routes: [{route: A.example.org, protocol: null}]
metadata: {labels: {tier: front}}
memory: 1G
disk-quota: 512MB
log_rate_limit_per_second: 16384B
instances: '2'
path: elsewhere
default-route: true
processes: [{type: web, command: ./a, memory: 1024M}, {type: worker, log-rate-limit-per-second: -1}]
sidecars: [{name: s, process_types: [web]}]
";
        assert_eq!(changes(Some(IS), same), Vec::<String>::new());
    }

    #[test]
    fn a_change_is_where_the_manifest_says_it() {
        let wish = "
name: a
memory: 2G
disk_quota: 1G
instances: 3
command: null
health-check-type: http
health-check-http-endpoint: /health
log-rate-limit-per-second: -1
buildpacks: []
stack: cflinuxfs4
env: {N: 6, NEW: y}
services: [db, cache]
routes: [{route: a.example.org, protocol: http2, options: {loadbalancing: hash}}, {route: b.example.org}]
metadata: {labels: {tier: null, gone: null, x: y}}
no-route: true
processes: [{type: worker, memory: 128M}, {type: clock, command: tick}]
sidecars: [{name: s, process_types: [web, worker], memory: 8M}]
";
        assert_eq!(
            changes(Some(IS), wish),
            [
                r#"/memory: "1024M" -> "2048M""#,
                r#"/disk_quota: "512M" -> "1024M""#,
                "/instances: 2 -> 3",
                r#"/command: "./a" -> null"#,
                r#"/health-check-type: "port" -> "http""#,
                r#"add /health-check-http-endpoint "/health""#,
                r#"/log-rate-limit-per-second: "16K" -> -1"#,
                r#"/buildpacks: ["binary_buildpack"] -> []"#,
                r#"/stack: "debian12" -> "cflinuxfs4""#,
                r#"/env/N: "5" -> 6"#,
                r#"add /env/NEW "y""#,
                r#"add /services/1 "cache""#,
                r#"/routes/0/protocol: "http1" -> "http2""#,
                r#"add /routes/0/options/loadbalancing "hash""#,
                r#"add /routes/1 {"route":"b.example.org"}"#,
                r#"/metadata/labels/tier: "front" -> null"#,
                r#"add /metadata/labels/x "y""#,
                "add /no-route true",
                r#"/processes/0/memory: "64M" -> "128M""#,
                r#"add /processes/1 {"type":"clock","command":"tick"}"#,
                r#"/sidecars/0/process_types: ["web"] -> ["web","worker"]"#,
                r#"add /sidecars/0/memory "8M""#,
            ]
        );
    }

    #[test]
    fn everything_of_a_new_app_is_new() {
        assert_eq!(
            changes(None, "name: n\nmemory: 64M\nbuildpacks: [x]\ndefault-route: true\npath: p\nrandom-route: false\n"),
            [r#"add /name "n""#, r#"add /memory "64M""#, r#"add /buildpacks ["x"]"#, "add /default-route true",]
        );
    }
}
