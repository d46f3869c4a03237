//! From a spec of the wire to what a sandbox needs: limits, egress ranges, arguments.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use slipway_chassis::sizes::LEAST_DISK_MB;
use slipway_protocol::instance::instance_guid;
use slipway_protocol::v1::{self, Assignment, Endpoint, WorkloadKind, WorkloadSpec};
use uuid::Uuid;

use crate::config::{Advertise, CellConfig};
use crate::env::{self, InstanceContext};
use crate::sandbox::{Companion, EgressRule, Limits, SandboxFile, SandboxId, SandboxSpec};

/// The first host port; see "Slots and addresses" in ARCHITECTURE.md.
const FIRST_HOST_PORT: u32 = 61_000;

/// A spec that says something no cell can do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub String);

/// Bytes of so many MiB.
#[must_use]
pub fn mib(count: u64) -> u64 {
    count.saturating_mul(1 << 20)
}

/// Limits with their defaults filled in.
#[must_use]
pub fn limits(spec: &WorkloadSpec) -> Limits {
    // Without a weight CPU follows memory, as on Cloud Foundry: 1 GiB is 100, the kernel's own default.
    let from_memory = u32::try_from(spec.memory_mb.saturating_mul(100) / 1024).unwrap_or(10_000);
    Limits {
        memory_bytes: mib(spec.memory_mb),
        disk_bytes: mib(spec.disk_mb),
        pids: if spec.pids == 0 { 1024 } else { spec.pids },
        cpu_weight: if spec.cpu_weight == 0 { from_memory } else { spec.cpu_weight }.clamp(1, 10_000),
        nofile: if spec.nofile == 0 { 16_384 } else { spec.nofile },
    }
}

/// Egress rules as ranges.
///
/// # Errors
/// Names the rule that cannot be read: a rule that was left out would silently refuse, or admit, traffic.
pub fn egress(rules: &[v1::EgressRule]) -> Result<Vec<EgressRule>, SpecError> {
    rules.iter().map(egress_rule).collect()
}

fn egress_rule(rule: &v1::EgressRule) -> Result<EgressRule, SpecError> {
    let bad = |what: &str, value: &str| SpecError(format!("egress rule: {value:?} is not {what}"));
    if !["tcp", "udp", "icmp", "all"].contains(&rule.protocol.as_str()) {
        return Err(bad("tcp, udp, icmp or all", &rule.protocol));
    }
    let text = rule.destination.trim();
    let wanted = "an IPv4 address, network or range";
    let (first, last) = if let Ok(network) = text.parse::<Ipv4Net>() {
        (network.network(), network.broadcast())
    } else if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| bad(wanted, &rule.destination));
        (parse(first)?, parse(last)?)
    } else {
        let address = text.parse::<Ipv4Addr>().map_err(|_| bad(wanted, &rule.destination))?;
        (address, address)
    };
    if first > last {
        return Err(bad("a range from low to high", &rule.destination));
    }
    let mut ports = Vec::new();
    for part in rule.ports.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| bad("a port or range of ports", part));
        let (low, high) = (port(low)?, port(high)?);
        if low > high {
            return Err(bad("a range from low to high", part));
        }
        ports.push((low, high));
    }
    // -1 is "every one", as in the rules of a security group.
    let icmp = |value: Option<i32>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u8::try_from(value).map(Some).map_err(|_| bad("an ICMP type or code", &value.to_string())),
    };
    let icmp = (icmp(rule.icmp_type)?, icmp(rule.icmp_code)?);
    Ok(EgressRule { protocol: rule.protocol.clone(), first, last, ports, icmp })
}

/// Where routers reach an instance with a port.
#[must_use]
pub fn endpoint(config: &CellConfig, own: Ipv4Addr, slot: u32, spec: &WorkloadSpec) -> Option<Endpoint> {
    if spec.kind() != WorkloadKind::Lrp || spec.ports.is_empty() {
        return None;
    }
    Some(match config.advertise {
        Advertise::HostPort => Endpoint { host: config.advertise_host.to_string(), port: FIRST_HOST_PORT + slot },
        Advertise::Direct => Endpoint { host: own.to_string(), port: env::port(spec).into() },
    })
}

/// Everything beside the spec that shapes a sandbox.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The cell.
    pub config: &'a CellConfig,
    /// Assignment.
    pub assignment: &'a Assignment,
    /// Which incarnation.
    pub id: SandboxId,
    /// The slot's own address.
    pub address: Ipv4Addr,
    /// Unpacked layers, lowest first, with the droplet.
    pub layers: Vec<PathBuf>,
    /// Bytes of the droplet on disk; they are the app's own.
    pub droplet_bytes: u64,
    /// Directory of the log ring.
    pub log_directory: PathBuf,
    /// What it may send to.
    pub egress: Vec<EgressRule>,
}

/// The sandbox of an instance or a task: the launcher runs the command in the droplet.
///
/// # Errors
/// When the spec says something no cell can do.
pub fn sandbox_spec(spec: &WorkloadSpec, setting: Setting<'_>) -> Result<SandboxSpec, SpecError> {
    if spec.memory_mb == 0 || spec.disk_mb == 0 {
        return Err(SpecError(format!("memory {} MiB and disk {} MiB must be above 0", spec.memory_mb, spec.disk_mb)));
    }
    let mut limits = limits(spec);
    limits.disk_bytes = writable(limits.disk_bytes, setting.droplet_bytes)?;
    let launched =
        |command: &str| ["/tmp/lifecycle/launcher", "/home/vcap/app", command, ""].map(str::to_owned).to_vec();
    let companion = |one: &v1::Sidecar| Companion { name: one.name.clone(), argv: launched(&one.command) };
    Ok(SandboxSpec {
        id: setting.id,
        slot: setting.assignment.slot,
        binds: Vec::new(),
        volume: None,
        files: files(spec),
        argv: launched(&spec.command),
        companions: spec.sidecars.iter().map(companion).collect(),
        env: env::environment(spec, &place(spec, &setting)),
        cwd: PathBuf::from("/home/vcap"),
        user: if spec.user.is_empty() { "vcap".to_owned() } else { spec.user.clone() },
        hostname: hostname(setting.id.assignment),
        limits,
        egress: setting.egress,
        registries: false,
        log_directory: setting.log_directory,
        log_bytes: setting.config.log_ring_bytes,
        log_rate_bytes: spec.log_rate_bytes,
        layers: setting.layers,
    })
}

/// Files that a workload finds.
#[must_use]
pub fn files(spec: &WorkloadSpec) -> Vec<SandboxFile> {
    spec.files
        .iter()
        .map(|file| SandboxFile { path: PathBuf::from(&file.path), content: file.content.clone() })
        .collect()
}

fn place(spec: &WorkloadSpec, setting: &Setting<'_>) -> InstanceContext {
    let slot = setting.assignment.slot;
    let own = IpAddr::V4(setting.address);
    let (external_host, external_port) = match setting.config.advertise {
        Advertise::HostPort => (setting.config.advertise_host, FIRST_HOST_PORT + slot),
        Advertise::Direct => (own, env::port(spec).into()),
    };
    InstanceContext {
        instance: instance_guid(setting.id.assignment, setting.id.incarnation).to_string(),
        index: setting.assignment.index,
        kind: spec.kind(),
        external_host,
        external_port,
        internal_host: own,
    }
}

/// What is left of a disk quota for the writable layer: the droplet counts, as on Cloud Foundry.
fn writable(disk_bytes: u64, droplet_bytes: u64) -> Result<u64, SpecError> {
    let left = disk_bytes.saturating_sub(droplet_bytes);
    if left >= mib(LEAST_DISK_MB) {
        return Ok(left);
    }
    Err(SpecError(format!(
        "the droplet takes {} MiB of disk, and the app's quota is {} MiB: {} MiB must be left to write to; raise the disk \
         quota (option -k, or disk_quota in the manifest), or push less",
        droplet_bytes.div_ceil(1 << 20),
        disk_bytes >> 20,
        LEAST_DISK_MB
    )))
}

/// A host name that fits, and still tells instances apart.
#[must_use]
pub fn hostname(assignment: Uuid) -> String {
    assignment.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: &str, destination: &str, ports: &str) -> v1::EgressRule {
        v1::EgressRule {
            protocol: protocol.into(),
            destination: destination.into(),
            ports: ports.into(),
            ..Default::default()
        }
    }

    #[test]
    fn rules_become_ranges() {
        let parsed = egress(&[
            rule("tcp", "10.0.0.0/8", "80,443, 8000-9000"),
            rule("all", "10.0.0.1-10.0.0.9", ""),
            rule("udp", "192.0.2.1", "53"),
        ])
        .expect("rules");
        assert_eq!(parsed[0].ports, [(80, 80), (443, 443), (8000, 9000)]);
        assert_eq!((parsed[0].first, parsed[0].last), (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 255, 255, 255)));
        assert_eq!(parsed[1].last, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(parsed[2].first, parsed[2].last);
    }

    #[test]
    fn rules_that_cannot_be_read_are_named() {
        for (bad, words) in [
            (rule("tcpx", "10.0.0.1", ""), "tcpx"),
            (rule("tcp", "example.com", ""), "example.com"),
            (rule("tcp", "10.0.0.9-10.0.0.1", ""), "low to high"),
            (rule("tcp", "10.0.0.1", "99999"), "99999"),
            (rule("tcp", "10.0.0.1", "90-80"), "low to high"),
        ] {
            let text = egress(&[bad]).expect_err("must be refused").to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn the_droplet_is_on_the_apps_disk() {
        assert_eq!(writable(mib(100), mib(30)).expect("room"), mib(70));
        assert_eq!(writable(mib(100), 0).expect("room"), mib(100));
        for droplet in [mib(97), mib(300)] {
            let text = writable(mib(100), droplet).expect_err("no room").to_string();
            assert!(
                text.contains(&format!("takes {} MiB", droplet >> 20)) && text.contains("quota is 100 MiB"),
                "{text}"
            );
        }
    }

    #[test]
    fn limits_have_defaults() {
        let spec = WorkloadSpec { memory_mb: 512, disk_mb: 1024, ..WorkloadSpec::default() };
        let limits = limits(&spec);
        assert_eq!((limits.pids, limits.cpu_weight, limits.nofile), (1024, 50, 16_384));
        assert_eq!(limits.memory_bytes, 512 << 20);
    }
}
