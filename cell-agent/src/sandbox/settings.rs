//! What the sandbox needs to know of the cell's configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use slipway_helper::guards::{Guard, Guards};

use super::SandboxError;
use crate::config::{Advertise, CellConfig, Shares};

/// The first id of slot 0 on the host.
const FIRST_ID: u32 = 1_879_048_192;
/// Ids of one slot.
const IDS_PER_SLOT: u32 = 65_536;
/// Host port of slot 0.
pub(super) const FIRST_PORT: u16 = 61_000;
/// The port that an app listens on.
pub(super) const APP_PORT: u16 = 8080;

/// Settings of [`super::LinuxRuntime`].
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Distinguishes bridges, cgroups and tables of several cells on one kernel; at most 6 letters or digits.
    pub name: String,
    /// Scratch volume and helper; on a disk.
    pub state_directory: PathBuf,
    /// Records of what runs; empty after a reboot.
    pub run_directory: PathBuf,
    /// Of the bridge; its first address is the host's.
    pub network: Ipv4Net,
    /// Most instances at once.
    pub slots: u32,
    /// Size of the scratch volume.
    pub disk_bytes: u64,
    /// Translate host port 61000 + slot to the slot's address.
    pub host_ports: bool,
    /// What instances use; may be the host's own addresses.
    pub resolvers: Vec<Ipv4Addr>,
    /// Ports of the platform on other hosts, refused to instances.
    pub platform: Vec<SocketAddrV4>,
    /// What instances may take of what the host has once.
    pub shares: Shares,
    /// Port of the bridge's address where the cell serves registries to builds.
    pub registries_port: Option<u16>,
    /// Makes a step of `start` fail, so that tests can see what a failure leaves behind. Empty in production.
    pub fail_at: Option<String>,
    /// What keeps sandboxes in: everything, in production.
    pub guards: Guards,
}

impl RuntimeConfig {
    /// Takes what matters from the cell's file, and what it leaves open from the host.
    ///
    /// # Errors
    /// When the network is none.
    pub fn from_cell(cell: &CellConfig) -> Result<Self, SandboxError> {
        let network = cell
            .network
            .parse()
            .map_err(|_| SandboxError::Invalid(format!("network {:?} is not an IPv4 network", cell.network)))?;
        let mut resolvers: Vec<Ipv4Addr> = cell.resolvers.iter().filter_map(|address| v4(*address)).collect();
        if resolvers.is_empty() {
            let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            resolvers = name_servers(&file);
        }
        let disk_bytes = match cell.disk_mb {
            0 => free_bytes(&cell.state_directory) / 2,
            mb => mb << 20,
        };
        Ok(Self {
            name: cell.name.clone(),
            state_directory: cell.state_directory.clone(),
            run_directory: cell.run_directory.clone(),
            network,
            slots: cell.slots,
            disk_bytes,
            host_ports: cell.advertise == Advertise::HostPort,
            resolvers,
            platform: cell
                .controllers
                .iter()
                .filter_map(|address| match address {
                    SocketAddr::V4(address) => Some(*address),
                    SocketAddr::V6(_) => None,
                })
                .collect(),
            shares: cell.shares,
            registries_port: cell.registries.as_ref().map(|door| door.port),
            fail_at: None,
            guards: Guards::default(),
        })
    }

    /// Address of the bridge.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        crate::config::gateway(self.network)
    }

    /// Address of a slot.
    pub(super) fn address(&self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.network()).wrapping_add(2).wrapping_add(slot))
    }

    /// The host's id of a slot's root.
    pub(super) fn id_base(&self, slot: u32) -> u32 {
        let slot = if self.guards.hold(Guard::OwnIds) { slot } else { 0 };
        FIRST_ID.wrapping_add(slot.wrapping_mul(IDS_PER_SLOT))
    }

    /// Bytes a second that an interface may carry in each direction, where that is limited.
    pub(super) fn bandwidth_bytes(&self) -> Option<u32> {
        let bytes = u64::from(self.shares.bandwidth_mbit) * 1_000_000 / 8;
        (bytes > 0 && self.guards.hold(Guard::Bandwidth)).then(|| u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Name of the bridge.
    pub(super) fn bridge(&self) -> String {
        format!("sw{}br", self.name)
    }

    /// The host's end of a slot's interface.
    pub(super) fn interface(&self, slot: u32) -> String {
        format!("{}{slot}", self.interface_prefix())
    }

    /// With which all of this cell's interfaces but the bridge begin.
    pub(super) fn interface_prefix(&self) -> String {
        format!("sw{}-", self.name)
    }

    /// Content of `/etc/resolv.conf` inside.
    pub(super) fn resolv_conf(&self) -> String {
        self.resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect()
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn name_servers(file: &str) -> Vec<Ipv4Addr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().parse().ok();
    file.lines().filter_map(server).take(3).collect()
}

fn free_bytes(directory: &Path) -> u64 {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    nix::sys::statvfs::statvfs(existing).map_or(0, |stat| stat.blocks_available() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_follows_from_the_slot() {
        let config = RuntimeConfig {
            name: "a".into(),
            state_directory: "/s".into(),
            run_directory: "/r".into(),
            network: "10.62.0.0/16".parse().unwrap(),
            slots: 4096,
            disk_bytes: 0,
            host_ports: true,
            resolvers: vec![],
            platform: vec![],
            shares: Shares::default(),
            registries_port: None,
            fail_at: None,
            guards: Guards::default(),
        };
        assert_eq!(config.gateway(), Ipv4Addr::new(10, 62, 0, 1));
        assert_eq!(config.address(0), Ipv4Addr::new(10, 62, 0, 2));
        assert_eq!(config.address(300), Ipv4Addr::new(10, 62, 1, 46));
        assert_eq!(config.id_base(1), 1_879_113_728);
        // The last slot's ids end below the kernel's reserved -1.
        assert!(config.id_base(4095).checked_add(IDS_PER_SLOT).is_some());
        assert!(config.interface(4095).len() <= 15);
    }

    #[test]
    fn resolvers_are_read_and_foreign_lines_passed_over() {
        let file = "# x\nsearch a.b\nnameserver 10.0.0.53\nnameserver ::1\nnameserver  127.0.0.53 \n";
        assert_eq!(name_servers(file), [Ipv4Addr::new(10, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 53)]);
    }
}
