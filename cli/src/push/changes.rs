//! Shows what a push changes in existing apps: a manifest undoes what `scale` and `set-env` changed since the last push, and
//! nobody should find that out later.

use std::collections::HashMap;

use reqwest::Method;
use serde::Deserialize;
use serde_norway::Value as Yaml;

use crate::client::Body;
use crate::commands::Session;
use crate::error::printable;

use super::restore::Sizes;

/// Longest value that is shown whole.
const LONGEST: usize = 60;

/// What is set back when the push fails.
const SET_BACK: &[&str] = &["instances", "memory", "disk_quota", "disk-quota", "command"];

#[derive(Deserialize)]
struct ManifestDiff {
    #[serde(default)]
    diff: Vec<DiffEntry>,
}

/// One entry of `manifest_diff`.
#[derive(Deserialize)]
struct DiffEntry {
    /// `/applications/0/processes/1/memory`.
    path: String,
    #[serde(default)]
    was: serde_json::Value,
    #[serde(default)]
    value: serde_json::Value,
}

/// Tells what applying `manifest` changes about the apps `there`, and notes with each what is not set back. A platform that cannot
/// say it is no reason not to push.
pub(super) async fn tell(session: &Session, space: &str, manifest: &str, there: &mut HashMap<String, Sizes>) {
    let Ok(client) = session.client() else { return };
    let path = format!("/v3/spaces/{space}/manifest_diff");
    let Ok(answer) = client.send(Method::POST, &path, Body::Yaml(manifest.to_owned())).await else { return };
    let (Ok(ManifestDiff { diff }), Ok(document)) =
        (answer.json::<ManifestDiff>(), serde_norway::from_str::<Yaml>(manifest))
    else {
        return;
    };
    let apps = document.get("applications").and_then(Yaml::as_sequence);
    for (place, app) in apps.into_iter().flatten().enumerate() {
        let Some(name) = app.get("name").and_then(Yaml::as_str).filter(|name| there.contains_key(*name)) else {
            continue;
        };
        let start = format!("/applications/{place}/");
        let changes: Vec<String> =
            diff.iter().filter_map(|change| Some(described(app, change.path.strip_prefix(&start)?, change))).collect();
        if !changes.is_empty() {
            session.printer.say(&format!("This push changes '{name}': {}.", changes.join(", ")));
        }
        // `memory`, `processes/1/memory`; a variable may have such a name as well.
        let is_set_back = |path: &str| {
            let path = path.strip_prefix(&start).unwrap_or(path);
            let key =
                path.strip_prefix("processes/").and_then(|rest| rest.split_once('/')).map_or(path, |(_, key)| key);
            SET_BACK.contains(&key)
        };
        let others = diff.iter().filter(|change| !is_set_back(&change.path));
        let others =
            others.filter_map(|change| Some(described(app, change.path.strip_prefix(&start)?, change))).collect();
        if let Some(sizes) = there.get_mut(name) {
            sizes.others = others;
        }
    }
}

/// `worker memory 64M → 128M`. Values of variables are secrets: they are left out.
fn described(app: &Yaml, path: &str, change: &DiffEntry) -> String {
    let mut words = Vec::new();
    let mut at = app;
    for part in path.split('/') {
        let in_list = at.as_sequence().and_then(|list| list.get(part.parse::<usize>().ok()?));
        match in_list {
            // A member of a list has a name or is one.
            Some(item) => {
                let named = ["type", "name", "route"].iter().find_map(|key| item.get(*key)).unwrap_or(item);
                words.extend(named.as_str().map(str::to_owned));
                at = item;
            }
            None => {
                words.push(part.replace('_', "-"));
                at = at.get(part).unwrap_or(&Yaml::Null);
            }
        }
    }
    // `processes worker memory` says no more than `worker memory`.
    if words.len() > 1 && words[0] == "processes" {
        words.remove(0);
    }
    // One of a list is named as one.
    for (many, one) in [("routes", "route"), ("services", "service"), ("sidecars", "sidecar")] {
        if words.len() > 1 && words[0] == many {
            words[0] = one.to_owned();
        }
    }
    let place = printable(&words.join(" "));
    let is_list = change.value.is_array() || change.value.is_object();
    match (&change.was, &change.value) {
        _ if path.starts_with("env/") || is_list => place,
        // It is named by its place already.
        (serde_json::Value::Null, serde_json::Value::String(text)) if words.last() == Some(text) => place,
        (serde_json::Value::Null, value) => format!("{place} {}", shown(value)),
        (was, value) => format!("{place} {} → {}", shown(was), shown(value)),
    }
}

pub(super) fn shown(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::Null => "default".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = printable(&text);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let short: String = text.chars().take(LONGEST).collect();
    format!("{short}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_said_in_the_words_of_the_manifest() {
        let app: Yaml = serde_norway::from_str(
            "
name: shop
processes: [{type: web}, {type: worker, memory: 128M}]
routes: [{route: a.example.org, protocol: http2}, {route: b.example.org}]
services: [cache]
",
        )
        .expect("YAML");
        for (path, was, value, expected) in [
            ("instances", json!(3), json!(1), "instances 3 → 1"),
            ("disk_quota", json!("1024M"), json!("512M"), "disk-quota 1024M → 512M"),
            ("env/TOKEN", json!("old"), json!("secret"), "env TOKEN"),
            ("env/NEW", json!(null), json!("secret"), "env NEW"),
            ("command", json!("node a.js"), json!(null), "command node a.js → default"),
            ("processes/1/memory", json!("64M"), json!("128M"), "worker memory 64M → 128M"),
            ("routes/0/protocol", json!("http1"), json!("http2"), "route a.example.org protocol http1 → http2"),
            ("routes/1", json!(null), json!({ "route": "b.example.org" }), "route b.example.org"),
            ("metadata/labels/services x", json!(null), json!("y"), "metadata labels services x y"),
            ("services/0", json!(null), json!("cache"), "service cache"),
            ("no-route", json!(null), json!(true), "no-route true"),
            ("command", json!(null), json!("x".repeat(70)), &format!("command {}…", "x".repeat(60))),
            ("nowhere/7/else", json!(null), json!("v"), "nowhere 7 else v"),
        ] {
            let change = DiffEntry { path: String::new(), was, value };
            assert_eq!(described(&app, path, &change), expected, "{path}");
        }
    }
}
