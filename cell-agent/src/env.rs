//! The part of an environment that only the cell knows: address, port, directories, the instance's identity.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use slipway_protocol::v1::{WorkloadKind, WorkloadSpec};

/// What an instance's environment says about it.
#[derive(Clone, Debug)]
pub struct InstanceContext {
    /// The guid of this start of the instance.
    pub instance: String,
    /// Its index.
    pub index: u32,
    /// Kind of workload; tasks and builds have no address.
    pub kind: WorkloadKind,
    /// Address that others dial (the host's, or the instance's own).
    pub external_host: IpAddr,
    /// Port that others dial.
    pub external_port: u32,
    /// The instance's own address.
    pub internal_host: IpAddr,
}

/// The port that an app listens on.
#[must_use]
pub fn port(spec: &WorkloadSpec) -> u16 {
    spec.ports.first().and_then(|port| u16::try_from(*port).ok()).filter(|port| *port != 0).unwrap_or(8080)
}

/// Where a program is looked for that no buildpack and no developer has put elsewhere.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole environment: the spec's, and what only the cell knows. The cell's facts win, except where a developer may
/// choose (`MEMORY_LIMIT`, `LANG`, and `PATH` of what runs). A build calls on programs of the stack by their names, so it
/// has the path on which they are.
#[must_use]
pub fn environment(spec: &WorkloadSpec, context: &InstanceContext) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> =
        spec.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
    let port = port(spec).to_string();
    let own = context.internal_host.to_string();
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), value.to_owned());
    };
    set("HOME", "/home/vcap/app");
    set("USER", "vcap");
    set("TMPDIR", "/home/vcap/tmp");
    set("DEPS_DIR", "/home/vcap/deps");
    set("CF_STACK", &spec.stack);
    set("CF_INSTANCE_GUID", &context.instance);
    set("INSTANCE_GUID", &context.instance);
    set("CF_INSTANCE_IP", &context.external_host.to_string());
    set("CF_INSTANCE_INTERNAL_IP", &own);
    if context.kind == WorkloadKind::Lrp {
        let external = context.external_port.to_string();
        let ports = json!([{ "external": context.external_port, "internal": port.parse::<u16>().unwrap_or(8080) }]);
        set("PORT", &port);
        set("VCAP_APP_PORT", &port);
        set("VCAP_APP_HOST", "0.0.0.0");
        set("CF_INSTANCE_INDEX", &context.index.to_string());
        set("INSTANCE_INDEX", &context.index.to_string());
        set("CF_INSTANCE_PORT", &external);
        set("CF_INSTANCE_ADDR", &format!("{}:{external}", context.external_host));
        set("CF_INSTANCE_PORTS", &ports.to_string());
    } else {
        // Set, and empty: programs test whether they exist.
        set("CF_INSTANCE_PORT", "");
        set("CF_INSTANCE_ADDR", "");
        set("CF_INSTANCE_PORTS", "[]");
    }
    let chosen = matches!(context.kind, WorkloadKind::Lrp | WorkloadKind::Task) && env.contains_key("PATH");
    if !chosen {
        env.insert("PATH".to_owned(), PATH.to_owned());
    }
    env.entry("MEMORY_LIMIT".to_owned()).or_insert_with(|| format!("{}m", spec.memory_mb));
    env.entry("LANG".to_owned()).or_insert_with(|| "en_US.UTF-8".to_owned());
    if let Some(application) = env.get("VCAP_APPLICATION").and_then(|text| application(text, context, &port)) {
        env.insert("VCAP_APPLICATION".to_owned(), application);
    }
    env.into_iter().collect()
}

/// `VCAP_APPLICATION` with the instance's part; `None` when it is not an object, which is left as it is.
fn application(text: &str, context: &InstanceContext, port: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let object = value.as_object_mut()?;
    object.insert("instance_id".to_owned(), json!(context.instance));
    if context.kind == WorkloadKind::Lrp {
        object.insert("host".to_owned(), json!("0.0.0.0"));
        object.insert("port".to_owned(), json!(port.parse::<u16>().unwrap_or(8080)));
        object.insert("instance_index".to_owned(), json!(context.index));
    }
    Some(value.to_string())
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::EnvVar;

    use super::*;

    fn context(kind: WorkloadKind) -> InstanceContext {
        InstanceContext {
            instance: "11111111-2222-3333-4444-555555555555".to_owned(),
            index: 3,
            kind,
            external_host: "192.0.2.7".parse().expect("address"),
            external_port: 61005,
            internal_host: "10.62.0.7".parse().expect("address"),
        }
    }

    fn spec() -> WorkloadSpec {
        let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
        WorkloadSpec {
            env: vec![
                variable("VCAP_APPLICATION", r#"{"application_name":"x"}"#),
                variable("PORT", "99"),
                variable("MINE", "yes"),
            ],
            memory_mb: 256,
            stack: "debian12".to_owned(),
            ports: vec![8080],
            ..WorkloadSpec::default()
        }
    }

    #[test]
    fn an_instance_knows_its_address_and_index() {
        let env: BTreeMap<_, _> = environment(&spec(), &context(WorkloadKind::Lrp)).into_iter().collect();
        for (name, value) in [
            ("PORT", "8080"),
            ("MINE", "yes"),
            ("CF_INSTANCE_ADDR", "192.0.2.7:61005"),
            ("CF_INSTANCE_INDEX", "3"),
            ("CF_INSTANCE_INTERNAL_IP", "10.62.0.7"),
            ("CF_INSTANCE_PORTS", r#"[{"external":61005,"internal":8080}]"#),
            ("MEMORY_LIMIT", "256m"),
            ("CF_STACK", "debian12"),
            ("HOME", "/home/vcap/app"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        let application: Value = serde_json::from_str(&env["VCAP_APPLICATION"]).expect("json");
        assert_eq!(application["application_name"], "x");
        assert_eq!(application["port"], 8080);
        assert_eq!(application["host"], "0.0.0.0");
        assert_eq!(application["instance_index"], 3);
        let guid = "11111111-2222-3333-4444-555555555555";
        assert_eq!((&env["CF_INSTANCE_GUID"][..], &env["INSTANCE_GUID"][..]), (guid, guid));
        assert_eq!(application["instance_id"], guid);
    }

    #[test]
    fn a_developer_chooses_the_path_of_what_runs() {
        let path = |spec: &WorkloadSpec, kind| {
            let env: BTreeMap<_, _> = environment(spec, &context(kind)).into_iter().collect();
            env["PATH"].clone()
        };
        let mut chosen = spec();
        chosen.env.push(EnvVar { name: "PATH".into(), value: "/home/vcap/app/bin:/bin".into() });
        for kind in [WorkloadKind::Lrp, WorkloadKind::Task] {
            assert_eq!(path(&spec(), kind), PATH);
            assert_eq!(path(&chosen, kind), "/home/vcap/app/bin:/bin");
        }
        assert_eq!(path(&chosen, WorkloadKind::Build), PATH);
    }

    #[test]
    fn a_task_has_no_address() {
        let env: BTreeMap<_, _> = environment(&spec(), &context(WorkloadKind::Task)).into_iter().collect();
        assert_eq!(env["CF_INSTANCE_ADDR"], "");
        assert_eq!(env["CF_INSTANCE_PORT"], "");
        assert!(!env.contains_key("CF_INSTANCE_INDEX"));
    }
}
