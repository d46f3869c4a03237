//! From YAML's values to a [`Manifest`]: every problem is named, with the app it belongs to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use slipway_api_types::MetadataPatch;
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};

use super::{AppManifest, CheckManifest, Manifest, ProcessManifest, RouteManifest, ServiceManifest, SidecarManifest};
use crate::domain::app_protocol::{AppProtocol, NotSpoken};
use crate::domain::apps::BindingFiles;
use crate::domain::processes::Scale;
use crate::domain::services::vcap::FEATURES;
use crate::domain::specs::environment::{as_text, check_variable};

/// Reads a manifest.
///
/// # Errors
/// Every problem, for people; those of an app begin with `For application 'N': `.
pub fn manifest(document: &Value) -> Result<Manifest, Vec<String>> {
    let Some(document) = document.as_object() else {
        return Err(vec!["The manifest must be a mapping with the key 'applications'".to_owned()]);
    };
    let mut problems = Vec::new();
    match document.get("version") {
        None => {}
        Some(version) if version.as_i64() == Some(1) => {}
        Some(version) => {
            problems.push(format!("Unsupported manifest schema version {version}. Currently supported versions: [1]."))
        }
    }
    let mut found = Manifest::default();
    let empty = Vec::new();
    let apps = match document.get("applications") {
        Some(Value::Array(apps)) if !apps.is_empty() => apps,
        _ => {
            problems.push(
                "Applications must be a list of at least one application ('applications' is missing or empty)"
                    .to_owned(),
            );
            &empty
        }
    };
    for key in document.keys().filter(|key| !matches!(key.as_str(), "applications" | "version")) {
        found.warnings.push(format!("The manifest's key '{key}' is not known and was ignored."));
    }
    for (place, app) in apps.iter().enumerate() {
        let mut reader = Reader::default();
        let app = match app {
            Value::Object(app) => reader.app(app),
            _ => {
                reader.problems.push("an application must be a mapping".to_owned());
                AppManifest::default()
            }
        };
        let label = match app.name.is_empty() {
            true => format!("For application at index {place}: "),
            false => format!("For application '{}': ", app.name),
        };
        problems.extend(reader.problems.into_iter().map(|problem| format!("{label}{problem}")));
        found.warnings.extend(reader.warnings.into_iter().map(|warning| format!("{label}{warning}")));
        if !app.name.is_empty() && found.apps.iter().any(|other| other.name.eq_ignore_ascii_case(&app.name)) {
            problems.push(format!("For application '{}': the name occurs more than once in the manifest", app.name));
        }
        found.apps.push(app);
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// One entry of `services`: a name, or a mapping with `name`, `binding_name` and `parameters`.
fn service(item: &Value) -> Option<ServiceManifest> {
    if let Some(name) = item.as_str() {
        return Some(ServiceManifest { name: name.to_owned(), binding_name: None, has_parameters: false });
    }
    let map = item.as_object()?;
    let (mut name, mut binding_name, mut has_parameters) = (None, None, false);
    for (key, value) in map {
        match key.replace('-', "_").as_str() {
            "name" => name = Some(value.as_str()?.to_owned()),
            "binding_name" => binding_name = Some(value.as_str()?.to_owned()),
            "parameters" => has_parameters = !value.as_object()?.is_empty(),
            _ => return None,
        }
    }
    Some(ServiceManifest { name: name?, binding_name, has_parameters })
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    fn app(&mut self, raw: &Map<String, Value>) -> AppManifest {
        let keys: BTreeMap<String, &Value> = raw.iter().map(|(key, value)| (key.replace('-', "_"), value)).collect();
        let mut app = AppManifest::default();
        let mut web = ProcessManifest { kind: "web".to_owned(), ..ProcessManifest::default() };
        for (key, value) in &keys {
            if self.process_key(&mut web, key, value) {
                continue;
            }
            match key.as_str() {
                "name" => app.name = self.text("name", value).unwrap_or_default(),
                "buildpacks" => app.lifecycle.buildpacks = Some(self.texts("buildpacks", value)),
                "buildpack" => {
                    let name = self.text("buildpack", value);
                    app.lifecycle.buildpacks =
                        Some(name.filter(|name| name != "default" && name != "null").into_iter().collect());
                }
                "stack" => app.lifecycle.stack = Some(self.text("stack", value)),
                "env" => app.env = self.env(value),
                "no_route" => app.no_route = self.flag("no-route", value),
                "random_route" => app.random_route = self.flag("random-route", value),
                "default_route" => app.default_route = self.flag("default-route", value),
                "routes" => app.routes = self.routes(value),
                "processes" => app.processes = self.processes(value),
                "sidecars" => app.sidecars = self.sidecars(value),
                "services" => app.services = self.services(value),
                "metadata" => match serde_json::from_value::<MetadataPatch>((*value).clone()) {
                    Ok(metadata) => app.metadata = Some(metadata),
                    Err(error) => self.problems.push(format!("metadata must hold labels and annotations: {error}")),
                },
                "features" => self.features(&mut app, value),
                "lifecycle" if value.as_str().is_none_or(|kind| kind != "buildpack") => {
                    self.problems
                        .push(format!("the lifecycle {value} is not supported by this platform; use buildpack"));
                }
                "docker" => self.problems.push("docker images are not supported by this platform yet".to_owned()),
                // For the client, or for other platforms.
                "path" | "cnb_credentials" | "lifecycle" => {}
                unknown => self.warnings.push(format!("the key '{unknown}' is not known and was ignored.")),
            }
        }
        if app.name.trim().is_empty() {
            self.problems.push("Name must not be empty".to_owned());
        }
        if app.random_route && app.default_route {
            self.problems.push("Random-route and default-route may not be used together".to_owned());
        }
        if web != (ProcessManifest { kind: "web".to_owned(), ..ProcessManifest::default() }) {
            match app.processes.iter().position(|process| process.kind == "web") {
                // What the process itself says wins over what stands at the app.
                Some(place) => app.processes[place] = over(web, app.processes[place].clone()),
                None => app.processes.insert(0, web),
            }
        }
        app
    }

    /// Whether the key belongs to a process; then it is read.
    fn process_key(&mut self, process: &mut ProcessManifest, key: &str, value: &Value) -> bool {
        let kind = ["port", "http", "process", "none"];
        match key {
            "instances" => process.scale.instances = self.number(key, value, 0),
            "memory" => process.scale.memory_mb = self.mebibytes("Memory", value, LEAST_MEMORY_MB),
            "disk_quota" => process.scale.disk_mb = self.mebibytes("Disk quota", value, LEAST_DISK_MB),
            "log_rate_limit_per_second" => process.scale.log_rate = self.rate(value),
            "command" => {
                process.command = match value {
                    Value::Null => Some(None),
                    value => {
                        let command = self.text(key, value);
                        Some(command.filter(|command| command != "null" && command != "default"))
                    }
                }
            }
            "health_check_type" => process.health.kind = self.one_of(key, value, &kind),
            "health_check_http_endpoint" => process.health.endpoint = self.text(key, value),
            "health_check_invocation_timeout" => process.health.invocation_timeout = self.seconds(key, value),
            "health_check_interval" => process.health.interval = self.seconds(key, value),
            "timeout" => process.health.timeout = self.seconds(key, value),
            "readiness_health_check_type" => process.readiness.kind = self.one_of(key, value, &kind),
            "readiness_health_check_http_endpoint" => process.readiness.endpoint = self.text(key, value),
            "readiness_health_check_invocation_timeout" => {
                process.readiness.invocation_timeout = self.seconds(key, value)
            }
            "readiness_health_check_interval" => process.readiness.interval = self.seconds(key, value),
            _ => return false,
        }
        true
    }

    fn processes(&mut self, value: &Value) -> Vec<ProcessManifest> {
        let Some(list) = value.as_array() else {
            self.problems.push("processes must be a list".to_owned());
            return Vec::new();
        };
        let mut processes: Vec<ProcessManifest> = Vec::new();
        for item in list {
            let Some(raw) = item.as_object() else {
                self.problems.push("a process must be a mapping with a type".to_owned());
                continue;
            };
            let mut process = ProcessManifest::default();
            for (key, value) in raw {
                let key = key.replace('-', "_");
                if self.process_key(&mut process, &key, value) {
                    continue;
                }
                match key.as_str() {
                    "type" => process.kind = self.text("type", value).unwrap_or_default(),
                    _ => self.warnings.push(format!("the key '{key}' of a process is not known and was ignored.")),
                }
            }
            if process.kind.is_empty() || process.kind.len() > 255 {
                self.problems.push("Process \"\": Type must be between 1 and 255 characters".to_owned());
            } else if processes.iter().any(|other| other.kind == process.kind) {
                self.problems.push(format!("Process \"{}\" may only be present once", process.kind));
            }
            processes.push(process);
        }
        processes
    }

    fn sidecars(&mut self, value: &Value) -> Vec<SidecarManifest> {
        let mut sidecars = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            let text = |key: &str| item.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
            let (Some(name), Some(command)) = (text("name"), text("command")) else {
                self.problems.push("a sidecar must have a name and a command".to_owned());
                continue;
            };
            let process_types =
                item.get("process_types").map(|value| self.texts("process_types", value)).unwrap_or_default();
            if process_types.is_empty() {
                self.problems.push(format!("Sidecar \"{name}\": Process types must have at least 1 process_type"));
            }
            let memory_mb = item.get("memory").and_then(|value| self.mebibytes("Memory", value, 1));
            sidecars.push(SidecarManifest { name, command, process_types, memory_mb });
        }
        sidecars
    }

    fn routes(&mut self, value: &Value) -> Vec<RouteManifest> {
        let Some(list) = value.as_array() else {
            self.problems.push("routes must be a list of mappings with the key 'route'".to_owned());
            return Vec::new();
        };
        let mut routes = Vec::new();
        for item in list {
            let Some(address) = item.get("route").and_then(Value::as_str) else {
                self.problems.push("routes must be a list of mappings with the key 'route'".to_owned());
                continue;
            };
            let address = address.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
            let host = address.split('/').next().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
            if !host.contains('.')
                || !host.chars().all(plain)
                || address.contains(['?', '#', ' '])
                || address.len() > 400
            {
                self.problems.push(format!("The route '{address}' is not a properly formed URL"));
                continue;
            }
            let options = match item.get("options") {
                None | Some(Value::Null) => None,
                Some(Value::Object(options)) => Some(options.clone()),
                Some(_) => {
                    self.problems.push(format!("Route '{address}': options must be a mapping"));
                    None
                }
            };
            let protocol = self.protocol(address, item.get("protocol").unwrap_or(&Value::Null));
            routes.push(RouteManifest { address: address.to_owned(), protocol, options });
        }
        routes
    }

    /// `None` when the manifest leaves it open, which is not the same as `http1`: then a mapping that is there keeps its own.
    fn protocol(&mut self, address: &str, value: &Value) -> Option<AppProtocol> {
        if value.is_null() {
            return None;
        }
        let problem = match AppProtocol::read(value) {
            Ok(protocol) => return Some(protocol),
            Err(problem @ NotSpoken::Tcp) => format!("For route '{address}': {}", problem.of_new_destination()),
            Err(NotSpoken::Unknown) => {
                let shown: String = value.to_string().chars().take(80).collect();
                format!("Route protocol must be 'http1', 'http2' or 'tcp'. Route '{address}' has {shown}")
            }
        };
        self.problems.push(problem);
        None
    }

    fn services(&mut self, value: &Value) -> Vec<ServiceManifest> {
        let items = match value {
            Value::Null => Some(Vec::new()),
            Value::Array(items) => items.iter().map(service).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        items.unwrap_or_else(|| {
            self.problems.push("Services must be a list of service instances".to_owned());
            Vec::new()
        })
    }

    fn features(&mut self, app: &mut AppManifest, value: &Value) {
        for (name, enabled) in value.as_object().into_iter().flatten() {
            match (name.as_str(), enabled.as_bool()) {
                ("ssh", Some(enabled)) => app.ssh = Some(enabled),
                ("revisions", Some(enabled)) => app.revisions = Some(enabled),
                (name, Some(enabled)) if FEATURES.iter().any(|(feature, _, _)| *feature == name) => {
                    let feature = FEATURES.iter().find(|(feature, _, _)| *feature == name);
                    app.binding_files.extend(feature.map(|(feature, _, _)| BindingFiles { feature, enabled }));
                }
                ("ssh" | "revisions" | "service-binding-k8s" | "file-based-vcap-services", None) => {
                    self.problems.push(format!("feature {name} must be true or false"))
                }
                _ => self.warnings.push(format!("the feature '{name}' is not known and was ignored.")),
            }
        }
    }

    fn env(&mut self, value: &Value) -> Map<String, Value> {
        let Some(raw) = value.as_object() else {
            self.problems.push("env must be a mapping of names to values".to_owned());
            return Map::new();
        };
        let mut env = Map::new();
        for (name, value) in raw {
            let text = as_text(value);
            match check_variable(name, &text) {
                Ok(()) => drop(env.insert(name.clone(), Value::String(text))),
                Err(error) => self.problems.push(format!("Env: {error}")),
            }
        }
        env
    }

    fn text(&mut self, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null => None,
            other => {
                self.problems.push(format!("{} must be a text, not {other}", key.replace('_', "-")));
                None
            }
        }
    }

    fn texts(&mut self, key: &str, value: &Value) -> Vec<String> {
        match value.as_array() {
            Some(list) => list.iter().filter_map(|item| self.text(key, item)).collect(),
            None if value.is_null() => Vec::new(),
            None => {
                self.problems.push(format!("{} must be a list of texts", key.replace('_', "-")));
                Vec::new()
            }
        }
    }

    fn one_of(&mut self, key: &str, value: &Value, allowed: &[&str]) -> Option<String> {
        let text = self.text(key, value)?;
        if !allowed.contains(&text.as_str()) {
            self.problems
                .push(format!("{} must be \"port\", \"process\", or \"http\", not \"{text}\"", key.replace('_', "-")));
            return None;
        }
        // An old word for it.
        Some(if text == "none" { "process".to_owned() } else { text })
    }

    fn flag(&mut self, key: &str, value: &Value) -> bool {
        value.as_bool().unwrap_or_else(|| {
            self.problems.push(format!("{key} must be true or false, not {value}"));
            false
        })
    }

    fn number(&mut self, key: &str, value: &Value, least: i64) -> Option<i64> {
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        match number {
            Some(number) if number >= least => return Some(number),
            // The words of Cloud Foundry, and the value.
            Some(_) => {
                let mut name = key.replace('_', " ");
                if let Some(first) = name.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                self.problems.push(format!("{name} must be greater than or equal to {least}, not {value}"));
            }
            None => {
                let key = key.replace('_', "-");
                self.problems.push(format!("{key} must be a whole number of at least {least}, not {value}"));
            }
        }
        None
    }

    fn seconds(&mut self, key: &str, value: &Value) -> Option<u32> {
        self.number(key, value, 1).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn mebibytes(&mut self, what: &str, value: &Value, least: u64) -> Option<i64> {
        let bytes = value.as_str().and_then(bytes);
        match bytes {
            Some(bytes) if bytes >> 20 >= least => i64::try_from(bytes >> 20).ok(),
            Some(_) => {
                self.problems.push(format!("{what} must be at least {least}M, not {value}"));
                None
            }
            None => {
                self.problems.push(format!(
                    "{what} must use a supported unit: B, K, KB, M, MB, G, GB, T, or TB (such as 256M), not {value}"
                ));
                None
            }
        }
    }

    fn rate(&mut self, value: &Value) -> Option<i64> {
        if value.as_i64() == Some(-1) || value.as_str() == Some("-1") {
            return Some(-1);
        }
        let rate = value
            .as_i64()
            .filter(|rate| *rate == 0)
            .or_else(|| value.as_str().and_then(bytes).and_then(|rate| i64::try_from(rate).ok()));
        if rate.is_none() {
            self.problems
                .push(format!("Log rate limit must use a supported unit (such as 16K), or be -1, not {value}"));
        }
        rate
    }
}

/// `256M`, in bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "B" => 0,
        "K" | "KB" => 10,
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn over(below: ProcessManifest, above: ProcessManifest) -> ProcessManifest {
    let check = |below: CheckManifest, above: CheckManifest| CheckManifest {
        kind: above.kind.or(below.kind),
        endpoint: above.endpoint.or(below.endpoint),
        timeout: above.timeout.or(below.timeout),
        invocation_timeout: above.invocation_timeout.or(below.invocation_timeout),
        interval: above.interval.or(below.interval),
    };
    ProcessManifest {
        kind: above.kind,
        scale: Scale {
            instances: above.scale.instances.or(below.scale.instances),
            memory_mb: above.scale.memory_mb.or(below.scale.memory_mb),
            disk_mb: above.scale.disk_mb.or(below.scale.disk_mb),
            log_rate: above.scale.log_rate.or(below.scale.log_rate),
        },
        command: above.command.or(below.command),
        health: check(below.health, above.health),
        readiness: check(below.readiness, above.readiness),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::yaml;
    use super::*;

    fn read(text: &str) -> Result<Manifest, Vec<String>> {
        manifest(&yaml::parse(text).expect("yaml"))
    }

    #[test]
    fn a_usual_manifest_is_understood() {
        let found = read(
            "version: 1\nspeed: fast\napplications:\n- name: web\n  memory: 256M\n  disk-quota: 1GB\n  instances: 2\n  colour: red\n  env: {N: 1, B: true}\n  health-check-type: http\n  processes:\n  - type: web\n    memory: 64m\n  - type: worker\n    command: run\n  routes:\n  - route: https://Web.Example.com/Path\n",
        )
        .expect("good");
        let app = &found.apps[0];
        assert_eq!((app.processes[0].scale.memory_mb, app.processes[0].scale.disk_mb), (Some(64), Some(1024)));
        assert_eq!((app.processes[0].scale.instances, app.processes[1].kind.as_str()), (Some(2), "worker"));
        assert_eq!(app.env["N"], "1");
        assert_eq!(app.routes[0].address, "Web.Example.com/Path");
        assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        use slipway_api_types::manifest_keys::{MANIFEST_KEYS, Place};
        let warnings = |app: Value| {
            let mut reader = Reader::default();
            reader.app(app.as_object().expect("a mapping"));
            reader.warnings
        };
        for key in MANIFEST_KEYS {
            if key.place != Place::Process {
                assert_eq!(warnings(json!({ key.name: null })), Vec::<String>::new(), "{}", key.name);
            }
            if key.place != Place::App {
                let process = json!({ "processes": [{ "type": "web", key.name: null }] });
                assert_eq!(warnings(process), Vec::<String>::new(), "{}", key.name);
            }
        }
        assert_eq!(warnings(json!({ "colour": "red", "processes": [{ "colour": "red" }] })).len(), 2);
    }

    #[test]
    fn every_problem_is_named_with_its_app() {
        let problems = read(
            "version: 2\napplications:\n- name: a\n  memory: 256\n  instances: many\n- name: a\n  disk_quota: 3 apples\n- memory: 3M\n  disk_quota: 4095K\n",
        )
        .expect_err("bad");
        let all = problems.join("\n");
        for part in [
            "version 2",
            "For application 'a': Memory must use",
            "instances must be",
            "more than once",
            "3 apples",
            "at index 2: Name",
            "Memory must be at least 4M, not \"3M\"",
            "Disk quota must be at least 4M, not \"4095K\"",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
        assert!(read("{}").is_err());
        assert!(read("applications: []").is_err());
        assert!(read("- 1").is_err());
    }
}
