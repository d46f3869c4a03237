//! What every good answer must look like, so that `cf` and cloudfoundry-client can read it: they were written against
//! Cloud Foundry, and fail on a whole list for one member that is not as they expect.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Numbers that are read as whole ones, also in lists.
const WHOLE: &[&str] = &[
    "instances",
    "uptime",
    "since",
    "mem_quota",
    "disk_quota",
    "log_rate_limit",
    "log_rate",
    "mem",
    "disk",
    "index",
    "version",
    "sequence_id",
    "position",
    "total_results",
    "total_pages",
];
/// Without a sign: a negative number fails the decoding.
const UNSIGNED: &[&str] = &["memory_in_mb", "disk_in_mb", "staging_memory_in_mb", "staging_disk_in_mb"];
/// Resources whose relationships are read as to-one, all of them.
const TO_ONE: &[&str] = &["apps", "processes", "packages", "deployments", "spaces", "roles"];
/// The front pages: a link that leads nowhere is null or empty there, or bare text as UAA has it, and clients know it.
const FRONT: &[&str] = &["/", "/v3", "/v3/info", "/info", "/login"];

/// What is wrong with a good answer.
pub(crate) fn problems(path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let mut problems = Vec::new();
    // `Location` is a job's, to both clients. The page for ssh codes is the one redirect there is.
    match headers.get("location").map(|location| location.to_str().unwrap_or_default()) {
        None if status == StatusCode::FOUND => problems.push("a redirect leads nowhere".to_owned()),
        None => {}
        Some(location) if !location.starts_with("http") => problems.push(format!("Location {location} is relative")),
        Some(location) if status == StatusCode::ACCEPTED && !location.contains("/v3/jobs/") => {
            problems.push(format!("Location {location} is no job"));
        }
        Some(location) if status != StatusCode::ACCEPTED && status != StatusCode::FOUND => {
            problems.push(format!("Location {location} with status {status}"));
        }
        Some(_) => {}
    }
    if headers.contains_key("content-encoding") {
        problems.push("an encoded body, which clients save as it is".to_owned());
    }
    for warning in headers.get_all("x-cf-warnings") {
        let text = warning.to_str().unwrap_or_default();
        if text.is_empty() || text.contains([' ', ',']) {
            problems.push(format!("the warning {text:?} is not encoded"));
        }
    }
    let json = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if json {
        match serde_json::from_slice(body) {
            Ok(value) => {
                // What is in `/v3/spaces/{guid}/running_security_groups` are groups.
                let collection = path.split('/').rfind(|part| !part.starts_with('{')).unwrap_or_default();
                look(path, collection, &value, &mut problems);
            }
            Err(error) => problems.push(format!("no JSON: {error}")),
        }
    }
    problems
}

fn look(path: &str, collection: &str, value: &Value, problems: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| look(path, collection, item, problems)),
        Value::Object(members) => {
            for (name, member) in members {
                if let Some(problem) = member_problem(path, collection, name, member) {
                    problems.push(problem);
                }
                // What a client has stored is its own business.
                if !matches!(name.as_str(), "metadata" | "data" | "credentials" | "var" | "environment_variables") {
                    look(path, collection, member, problems);
                }
            }
        }
        _ => {}
    }
}

fn member_problem(path: &str, collection: &str, name: &str, member: &Value) -> Option<String> {
    let wrong = |why: &str| Some(format!("{name} {why}: {member}"));
    match (name, member) {
        ("links", Value::Object(links)) if !FRONT.contains(&path) => links
            .iter()
            .find(|(_, link)| !link["href"].is_string())
            .map(|(link, value)| format!("link {link} has no href: {value}")),
        ("href", Value::String(href)) if !FRONT.contains(&path) && !href.starts_with("http") => wrong("is relative"),
        ("created_at" | "updated_at", Value::String(at)) if !is_time(at) => wrong("is no time"),
        ("options", Value::Object(options)) if collection == "routes" => {
            options.values().any(|option| !option.is_string()).then(|| format!("options with {member}"))
        }
        ("relationships", Value::Object(relations)) if TO_ONE.contains(&collection) => relations
            .iter()
            .find(|(_, to)| !(to["data"].is_object() || to["data"].is_null()))
            .map(|(relation, to)| format!("relationship {relation} is not to one: {to}")),
        ("globally_enabled", on) if !(on["running"].is_boolean() && on["staging"].is_boolean()) => {
            wrong("is not whole")
        }
        ("services", services)
            if collection.ends_with("_quotas") && !services["paid_services_allowed"].is_boolean() =>
        {
            wrong("lacks paid_services_allowed")
        }
        ("apps" | "routes", limits) if collection.ends_with("_quotas") && !limits.is_object() => wrong("is no object"),
        ("data", data)
            if collection == "audit_events" && !(data["request"].is_object() || data["request"].is_null()) =>
        {
            wrong("holds a request that is no object")
        }
        ("metadata", metadata) if collection == "revisions" && !metadata.is_object() => wrong("is no object"),
        (name, Value::Number(number)) if UNSIGNED.contains(&name) && !number.is_u64() => wrong("is no whole number"),
        (name, Value::Number(number)) if WHOLE.contains(&name) && number.is_f64() => wrong("is no whole number"),
        _ => None,
    }
}

/// `2026-01-02T03:04:05Z`: whole seconds, UTC.
fn is_time(text: &str) -> bool {
    let pattern = b"0000-00-00T00:00:00Z";
    text.len() == pattern.len()
        && text.bytes().zip(pattern).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

#[test]
fn shapes_that_clients_cannot_read_are_seen() {
    let headers = HeaderMap::from_iter([(
        reqwest::header::CONTENT_TYPE,
        reqwest::header::HeaderValue::from_static("application/json"),
    )]);
    let of = |path: &str, body: &str| problems(path, StatusCode::OK, &headers, body.as_bytes());
    for (path, body) in [
        ("/v3/apps/{guid}", r#"{"links": {"self": null}}"#),
        ("/v3/apps/{guid}", r#"{"links": {"self": {"href": "/v3/apps/x"}}}"#),
        ("/v3/apps", r#"{"resources": [{"created_at": "2026-01-02"}]}"#),
        ("/v3/apps", r#"{"resources": [{"relationships": {"space": {"data": []}}}]}"#),
        ("/v3/routes", r#"{"resources": [{"options": {"loadbalancing": null}}]}"#),
        ("/v3/processes/{guid}", r#"{"memory_in_mb": -1}"#),
        ("/v3/processes/{guid}", r#"{"instances": 1.0}"#),
        ("/v3/space_quotas/{guid}", r#"{"services": {}}"#),
        ("/v3/audit_events", r#"{"resources": [{"data": {"request": "x"}}]}"#),
        ("/v3/security_groups/{guid}", r#"{"globally_enabled": {"running": true}}"#),
        ("/v3/apps", "{"),
    ] {
        assert_eq!(of(path, body).len(), 1, "{path}: {body}");
    }
    assert!(of("/", r#"{"links": {"logging": null}}"#).is_empty());
    let good = r#"{"created_at": "2026-01-02T03:04:05Z", "metadata": {"labels": {"links": "x"}}, "uptime": 3}"#;
    assert!(of("/v3/apps/{guid}", good).is_empty());
    let mut located = headers.clone();
    located.insert("location", reqwest::header::HeaderValue::from_static("http://x/v3/apps/y"));
    assert_eq!(problems("/v3/apps", StatusCode::CREATED, &located, b"{}").len(), 1);
}
