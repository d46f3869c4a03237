//! What an app is told of its services: `VCAP_SERVICES` as a variable, the same as a file, or a directory per binding.
//! Pure.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use slipway_protocol::v1;
use uuid::Uuid;

/// Where files of bindings stand in a sandbox.
pub const FILES_ROOT: &str = "/etc/cf-service-bindings";
/// The file that holds what `VCAP_SERVICES` would.
const SERVICES_FILE: &str = "vcap_services";
/// All files of one app, names and contents.
const MAX_FILES: usize = 1_000_000;
/// One variable: the kernel refuses to execute a program with a longer one (`MAX_ARG_STRLEN`, with name and NUL).
const MAX_VARIABLE: usize = 128 * 1024 - 32;
const MAX_FILE_NAME: usize = 253;

/// How an app gets its bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The variable `VCAP_SERVICES`.
    #[default]
    Variable,
    /// One file with what the variable would hold.
    VcapFile,
    /// A directory per binding, as Kubernetes has it.
    Directories,
}

/// The features that switch to files, by name, with what they do in words.
pub const FEATURES: [(&str, &str, Delivery); 2] = [
    ("service-binding-k8s", "Enable k8s service bindings for the app", Delivery::Directories),
    ("file-based-vcap-services", "Enable file-based VCAP service bindings for the app", Delivery::VcapFile),
];

impl Delivery {
    /// From the feature that is on.
    #[must_use]
    pub fn of_feature(feature: Option<&str>) -> Self {
        FEATURES.iter().find(|(name, _, _)| Some(*name) == feature).map_or(Self::Variable, |(_, _, delivery)| *delivery)
    }
}

/// One service of an app.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundService {
    /// `user-provided`, or the offering's name.
    pub label: String,
    /// What apps look for.
    pub tags: Vec<String>,
    /// The instance.
    pub instance_guid: Uuid,
    /// Its name.
    pub instance_name: String,
    /// The binding.
    pub binding_guid: Uuid,
    /// Its name, if it has one.
    pub binding_name: Option<String>,
    /// The secret part.
    pub credentials: Map<String, Value>,
    /// Where log lines go.
    pub syslog_drain_url: Option<String>,
}

/// Why an app's bindings cannot be given to it in the way it asks for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingsError {
    /// The name of a directory.
    #[error(
        "Invalid binding name: '{0}'. It becomes the name of a directory, so it may have lower-case letters, digits, '-' and '.' only; give the binding another name"
    )]
    Name(String),
    /// Two directories of one name.
    #[error("Duplicate binding name: {0}")]
    Duplicate(String),
    /// The name of a file.
    #[error(
        "Invalid file name: {0}. The name of a credential becomes the name of a file, so it may have lower-case letters, digits, '-', '.' and '_' only"
    )]
    FileName(String),
    /// Too much.
    #[error("Bindings exceed the maximum allowed bytesize of {MAX_FILES}: {0}")]
    FilesTooLarge(usize),
    /// Too much for a variable.
    #[error(
        "VCAP_SERVICES would hold {0} bytes, more than the {MAX_VARIABLE} that one variable can; enable the app feature file-based-vcap-services"
    )]
    VariableTooLarge(usize),
}

impl BoundService {
    fn name(&self) -> &str {
        self.binding_name.as_deref().unwrap_or(&self.instance_name)
    }

    /// One entry of `VCAP_SERVICES`, members in Cloud Foundry's order.
    fn entry(&self) -> Map<String, Value> {
        let value = json!({
            "label": self.label,
            "name": self.name(),
            "tags": self.tags,
            "instance_guid": self.instance_guid,
            "instance_name": self.instance_name,
            "binding_guid": self.binding_guid,
            "binding_name": self.binding_name,
            "credentials": self.credentials,
            "syslog_drain_url": self.syslog_drain_url,
            "volume_mounts": [],
        });
        match value {
            Value::Object(map) => map,
            // The literal above is an object.
            _ => Map::new(),
        }
    }
}

/// What `VCAP_SERVICES` holds: entries by label.
#[must_use]
pub fn services(bound: &[BoundService]) -> Map<String, Value> {
    let mut all: Map<String, Value> = Map::new();
    for service in bound {
        let list = all.entry(service.label.clone()).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(Value::Object(service.entry()));
        }
    }
    all
}

/// The variables that tell an app of its services.
#[must_use]
pub fn variables(bound: &[BoundService], delivery: Delivery) -> Map<String, Value> {
    let (name, value) = match delivery {
        Delivery::Variable => ("VCAP_SERVICES", Value::Object(services(bound))),
        Delivery::VcapFile => ("VCAP_SERVICES_FILE_PATH", format!("{FILES_ROOT}/{SERVICES_FILE}").into()),
        Delivery::Directories => ("SERVICE_BINDING_ROOT", FILES_ROOT.into()),
    };
    Map::from_iter([(name.to_owned(), value)])
}

/// The files that an app gets, below [`FILES_ROOT`]; none when it gets a variable.
///
/// # Errors
/// When names cannot be those of files, or all is too much.
pub fn files(bound: &[BoundService], delivery: Delivery) -> Result<Vec<v1::WorkloadFile>, BindingsError> {
    match delivery {
        Delivery::Variable => {
            let size = Value::Object(services(bound)).to_string().len();
            if size > MAX_VARIABLE { Err(BindingsError::VariableTooLarge(size)) } else { Ok(Vec::new()) }
        }
        Delivery::VcapFile => {
            let content = Value::Object(services(bound)).to_string();
            limited(vec![v1::WorkloadFile { path: SERVICES_FILE.to_owned(), content }])
        }
        Delivery::Directories => limited(directories(bound)?),
    }
}

fn limited(files: Vec<v1::WorkloadFile>) -> Result<Vec<v1::WorkloadFile>, BindingsError> {
    let size: usize = files.iter().map(|file| file.path.len() + file.content.len()).sum();
    if size > MAX_FILES { Err(BindingsError::FilesTooLarge(size)) } else { Ok(files) }
}

fn is_name(text: &str, more: &[char]) -> bool {
    // `.` and `..` match Cloud Foundry's pattern, but are not names of files.
    (1..=MAX_FILE_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(&c))
        && !text.chars().all(|c| c == '.')
}

fn directories(bound: &[BoundService]) -> Result<Vec<v1::WorkloadFile>, BindingsError> {
    let mut names = HashSet::new();
    let mut files = Vec::new();
    for service in bound {
        let name = service.name();
        if !is_name(name, &['-', '.']) {
            return Err(BindingsError::Name(name.to_owned()));
        }
        if !names.insert(name) {
            return Err(BindingsError::Duplicate(name.to_owned()));
        }
        // What the platform says wins over a credential of the same name.
        let mut members = service.credentials.clone();
        let mut entry = service.entry();
        entry.shift_remove("credentials");
        members.extend(entry);
        members.insert("type".to_owned(), service.label.clone().into());
        members.insert("provider".to_owned(), service.label.clone().into());
        for (key, value) in members {
            if !is_name(&key, &['-', '.', '_']) {
                return Err(BindingsError::FileName(key));
            }
            let content = match value {
                Value::Null => continue,
                Value::Array(list) if list.is_empty() => continue,
                Value::Object(map) if map.is_empty() => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            files.push(v1::WorkloadFile { path: format!("{name}/{key}"), content });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(name: &str, credentials: Value) -> BoundService {
        BoundService {
            label: "user-provided".to_owned(),
            instance_name: name.to_owned(),
            credentials: credentials.as_object().cloned().expect("an object"),
            ..BoundService::default()
        }
    }

    #[test]
    fn services_have_cloud_foundrys_shape() {
        let mut named = bound("cache", json!({}));
        named.binding_name = Some("fast".to_owned());
        named.syslog_drain_url = Some("syslog://x.test".to_owned());
        let all = services(&[bound("db", json!({ "uri": "pg://" })), named]);
        let list = all["user-provided"].as_array().expect("a list");
        let keys: Vec<&str> = list[0].as_object().expect("an object").keys().map(String::as_str).collect();
        let expected = [
            "label",
            "name",
            "tags",
            "instance_guid",
            "instance_name",
            "binding_guid",
            "binding_name",
            "credentials",
            "syslog_drain_url",
            "volume_mounts",
        ];
        assert_eq!(keys, expected);
        assert_eq!((&list[0]["name"], &list[0]["binding_name"]), (&json!("db"), &Value::Null));
        assert_eq!((&list[1]["name"], &list[1]["instance_name"]), (&json!("fast"), &json!("cache")));
        assert_eq!(variables(&[], Delivery::Variable)["VCAP_SERVICES"], json!({}));
    }

    #[test]
    fn directories_hold_a_file_per_member() {
        let service = bound("my-db", json!({ "uri": "pg://", "port": 5432, "type": "mine", "none": null }));
        let found = files(&[service], Delivery::Directories).expect("files");
        let get = |path: &str| found.iter().find(|file| file.path == path).map(|file| file.content.as_str());
        assert_eq!(get("my-db/uri"), Some("pg://"));
        assert_eq!(get("my-db/port"), Some("5432"));
        assert_eq!(get("my-db/type"), Some("user-provided"), "the platform's word wins");
        assert_eq!(get("my-db/provider"), Some("user-provided"));
        assert_eq!(get("my-db/instance_name"), Some("my-db"));
        for absent in ["my-db/none", "my-db/credentials", "my-db/tags", "my-db/volume_mounts"] {
            assert_eq!(get(absent), None, "{absent}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_files_are_refused_by_name() {
        let refusal = |service: BoundService| files(&[service], Delivery::Directories).expect_err("refused");
        assert_eq!(refusal(bound("My_DB", json!({}))), BindingsError::Name("My_DB".to_owned()));
        assert_eq!(refusal(bound("..", json!({}))), BindingsError::Name("..".to_owned()));
        for key in ["../../etc/passwd", "A", "", ".."] {
            assert_eq!(refusal(bound("db", json!({ key: "x" }))), BindingsError::FileName(key.to_owned()));
        }
        let twice = [bound("db", json!({})), bound("db", json!({}))];
        assert_eq!(files(&twice, Delivery::Directories), Err(BindingsError::Duplicate("db".to_owned())));
    }

    #[test]
    fn sizes_have_limits() {
        let large = |size: usize| [bound("db", json!({ "k": "x".repeat(size) }))];
        assert!(matches!(files(&large(1_000_000), Delivery::VcapFile), Err(BindingsError::FilesTooLarge(_))));
        assert!(matches!(files(&large(1_000_000), Delivery::Directories), Err(BindingsError::FilesTooLarge(_))));
        assert_eq!(files(&large(900_000), Delivery::VcapFile).expect("a file")[0].path, "vcap_services");
        assert!(matches!(files(&large(140_000), Delivery::Variable), Err(BindingsError::VariableTooLarge(_))));
        assert_eq!(files(&large(1000), Delivery::Variable), Ok(Vec::new()));
    }
}
