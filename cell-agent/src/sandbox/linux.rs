//! [`LinuxRuntime`]: the sandbox of this kernel.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use uuid::Uuid;

use super::cgroup::{Cgroups, Mode, Whole};
use super::firewall::{self, Firewall};
use super::records::{self, Records};
use super::scratch::Scratch;
use super::{
    Adopted, EgressRule, Exit, HostFacts, Members, RuntimeConfig, SandboxError, SandboxId, SandboxRuntime, SandboxSpec,
    SandboxUsage, hardening, helper_file, host, listeners, network, probe, seccomp, shared, start,
};

/// What preparation found and made; everything a start needs of the host.
pub(super) struct Host {
    pub(super) config: RuntimeConfig,
    pub(super) records: Records,
    pub(super) cgroups: Cgroups,
    pub(super) scratch: Scratch,
    pub(super) firewall: Firewall,
    pub(super) helper: PathBuf,
    pub(super) stage: PathBuf,
    pub(super) filters: Vec<Vec<u64>>,
}

impl Host {
    /// Fails here when a test asks for it.
    pub(super) fn checkpoint(&self, step: &str) -> Result<(), SandboxError> {
        match &self.config.fail_at {
            Some(wanted) if wanted == step => Err(host(step)(std::io::Error::other("asked to fail"))),
            _ => Ok(()),
        }
    }
}

/// A sandbox that this agent knows.
#[derive(Clone)]
struct KnownSandbox {
    slot: u32,
    /// Process 1; none when it is known to have ended.
    pidfd: Option<Arc<OwnedFd>>,
}

/// Namespaces, cgroups, overlay mounts and nftables of this host.
pub struct LinuxRuntime {
    config: RuntimeConfig,
    /// Replaced by each preparation, which loads a table without the chains that an earlier one knew of.
    host: RwLock<Option<Arc<Host>>>,
    known: Mutex<BTreeMap<SandboxId, KnownSandbox>>,
    /// Whose gate, rules and interface a slot has: the sandbox that was started there last. What is left of an earlier one
    /// goes without touching them.
    tenants: Arc<SlotTenants>,
}

#[derive(Default)]
struct SlotTenants(Mutex<BTreeMap<u32, SandboxId>>);

impl SlotTenants {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, SandboxId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, slot: u32, id: SandboxId) {
        self.lock().insert(slot, id);
    }

    /// The slot, when nobody else has it.
    fn own(&self, slot: u32, id: SandboxId) -> Option<u32> {
        self.lock().get(&slot).is_none_or(|tenant| *tenant == id).then_some(slot)
    }

    fn leave(&self, id: SandboxId) {
        self.lock().retain(|_, tenant| *tenant != id);
    }
}

impl std::fmt::Debug for LinuxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxRuntime").field("config", &self.config).finish_non_exhaustive()
    }
}

impl LinuxRuntime {
    /// A runtime that has touched nothing yet; [`SandboxRuntime::prepare`] comes first.
    #[must_use]
    pub fn new(config: RuntimeConfig) -> Self {
        Self { config, host: RwLock::new(None), known: Mutex::new(BTreeMap::new()), tenants: Arc::default() }
    }

    /// Takes everything of this cell off the host: sandboxes, groups, rules, bridge, mounts.
    ///
    /// # Errors
    /// The first thing that could not be removed; the others are tried all the same.
    pub async fn dismantle(&self) -> Result<(), SandboxError> {
        let on = self.host()?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tenants.lock().clear();
        blocking(move || {
            let (records, broken) = on.records.list()?;
            let ids: Vec<SandboxId> = records.iter().map(|record| record.id).chain(broken).collect();
            let mut results: Vec<Result<(), SandboxError>> = Vec::new();
            for id in ids {
                let slot = records.iter().find(|record| record.id == id).map(|record| record.slot);
                results.push(remove(&on, id, slot));
            }
            on.cgroups.dismantle();
            results.push(Firewall::remove(&on.config));
            results.push(network::dismantle(&on.config));
            results.push(on.scratch.close());
            results.push(helper_file::remove(&on.config.run_directory));
            results.into_iter().collect()
        })
        .await
    }

    fn host(&self) -> Result<Arc<Host>, SandboxError> {
        let unprepared = || host("use the host")(std::io::Error::other("prepare() was not called"));
        self.host.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(unprepared)
    }

    fn find(&self, id: SandboxId) -> Result<KnownSandbox, SandboxError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).cloned().ok_or(SandboxError::Unknown(id))
    }

    fn learn(&self, id: SandboxId, slot: u32, pidfd: Option<OwnedFd>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id, KnownSandbox { slot, pidfd: pidfd.map(Arc::new) });
    }

    fn application(&self, slot: u32, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.config.address(slot), port)
    }
}

/// Runs what waits for the kernel away from the tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(host("work on the host")(std::io::Error::other(error))))
}

fn prepare(config: &RuntimeConfig) -> Result<(Host, HostFacts), SandboxError> {
    let mut warnings = network::warnings(config);
    let records = Records::open(&config.run_directory)?;
    let stage = config.run_directory.join("stage");
    std::fs::create_dir_all(&stage).map_err(host(format!("make {}", stage.display())))?;
    let helper = helper_file::put_out(&config.run_directory)?;
    let cgroups = Cgroups::detect(std::path::Path::new("/sys/fs/cgroup"), &config.name, &config.guards)?;
    warnings.extend(cgroups.prepare(&Whole::of_host(&config.state_directory, config.shares.disk_mib_per_s))?);
    if !cgroups.has(&["hugetlb"]) && shared::huge_pages() > 0 {
        warnings.push(
            "instances may take the huge pages of this host: its kernel has no cgroup controller for them".to_owned(),
        );
    }
    let (scratch, more) = Scratch::open(&config.state_directory, config.disk_bytes)?;
    warnings.extend(more);
    network::prepare(config)?;
    let mut config = config.clone();
    if let Some(warning) = network::without_bandwidth(&config) {
        config.shares.bandwidth_mbit = 0;
        warnings.push(warning);
    }
    let config = &config;
    warnings.extend(shared::prepare(config.slots));
    warnings.extend(hardening::warnings());
    let (intact, broken) = records.list()?;
    let live: Vec<_> = intact
        .iter()
        .filter(|record| {
            records::watch(record.pid).is_ok_and(|found| found.is_some_and(|w| w.started == record.started))
        })
        .map(|record| (config.address(record.slot), record.egress.iter().map(Into::into).collect()))
        .collect();
    let (firewall, more) = Firewall::load(config, &live)?;
    warnings.extend(more);
    warnings.extend(firewall::foreign_obstacles(config));
    let filters = seccomp::compile(&config.guards)?;
    let on = Host { config: config.clone(), records, cgroups, scratch, firewall, helper, stage, filters };
    warnings.extend(sweep(&on, &intact, broken));
    let facts = HostFacts {
        cgroup_mode: match on.cgroups.mode() {
            Mode::V2 => "v2",
            Mode::Hybrid => "hybrid",
        },
        disk_quota_mode: on.scratch.mode(),
        warnings,
    };
    Ok((on, facts))
}

/// Removes what a crash or power cut left: whatever belongs to no record, and all volumes of builds. Answers, in words, what could not be removed:
/// that is no reason to leave alone what runs.
fn sweep(on: &Host, intact: &[records::Record], broken: Vec<SandboxId>) -> Vec<String> {
    let mut results: Vec<Result<(), SandboxError>> = broken.into_iter().map(|id| remove(on, id, None)).collect();
    let names: Vec<String> = intact.iter().map(|record| records::name(record.id)).collect();
    let unknown = |found: Vec<String>| found.into_iter().filter(|name| !names.contains(name));
    results.extend(unknown(on.cgroups.list()).map(|name| on.cgroups.remove(&name)));
    results.extend(unknown(on.scratch.instances()).map(|name| on.scratch.remove_instance(&name)));
    results.extend(on.scratch.remove_volumes().into_iter().map(Err));
    let used: Vec<String> = intact.iter().map(|record| on.config.interface(record.slot)).collect();
    let interfaces = network::interfaces(&on.config).into_iter().filter(|name| !used.contains(name));
    results.extend(interfaces.map(|name| network::remove_interface(&name)));
    let failures = results.into_iter().filter_map(Result::err);
    failures.map(|error| format!("a leftover was not removed: {}", slipway_chassis::chain(&error))).collect()
}

/// Takes a sandbox off the host, with gate, rules and interface of a slot that is its own. Tries everything; returns the
/// first failure.
fn remove(on: &Host, id: SandboxId, slot: Option<u32>) -> Result<(), SandboxError> {
    let name = records::name(id);
    let mut results = Vec::new();
    if let Some(slot) = slot {
        results.push(on.firewall.forget(on.config.address(slot)));
    }
    on.cgroups.kill(&name);
    results.push(on.cgroups.remove(&name));
    if let Some(slot) = slot {
        results.push(network::remove_interface(&on.config.interface(slot)));
    }
    results.push(on.scratch.remove_instance(&name));
    let result: Result<(), SandboxError> = results.into_iter().collect();
    // The record goes last and only then: what could not be removed is found by it again.
    result.and_then(|()| on.records.remove(id))
}

#[async_trait]
impl SandboxRuntime for LinuxRuntime {
    async fn prepare(&self) -> Result<HostFacts, SandboxError> {
        let config = self.config.clone();
        let (on, facts) = blocking(move || prepare(&config)).await?;
        *self.host.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(on));
        Ok(facts)
    }

    async fn adopt(&self) -> Result<Vec<Adopted>, SandboxError> {
        let on = self.host()?;
        let found = blocking(move || {
            let (intact, _) = on.records.list()?;
            let mut found = Vec::new();
            for record in intact {
                let watched = records::watch(record.pid).map_err(host(format!("watch process {}", record.pid)))?;
                let pidfd = watched.filter(|watched| watched.started == record.started).map(|watched| watched.pidfd);
                let exit = pidfd.is_none().then(|| on.records.exit(record.id));
                found.push((Adopted { id: record.id, slot: record.slot, exit }, pidfd));
            }
            Ok(found)
        })
        .await?;
        // Of several in one slot the one that runs has it, or else the youngest.
        let mut by_age: Vec<_> =
            found.iter().map(|(adopted, pidfd)| (pidfd.is_some(), adopted.id.incarnation, adopted)).collect();
        by_age.sort_unstable_by_key(|(runs, incarnation, _)| (*runs, *incarnation));
        for (_, _, adopted) in by_age {
            self.tenants.take(adopted.slot, adopted.id);
        }
        let learn = |(adopted, pidfd): (Adopted, Option<OwnedFd>)| {
            self.learn(adopted.id, adopted.slot, pidfd);
            adopted
        };
        Ok(found.into_iter().map(learn).collect())
    }

    async fn start(&self, spec: SandboxSpec) -> Result<(), SandboxError> {
        let on = self.host()?;
        let (id, slot) = (spec.id, spec.slot);
        self.tenants.take(slot, id);
        match blocking(move || start::start(&on, &spec)).await {
            Ok(pidfd) => {
                self.learn(id, slot, pidfd);
                Ok(())
            }
            Err(error) => {
                self.tenants.leave(id);
                Err(error)
            }
        }
    }

    async fn wait(&self, id: SandboxId) -> Result<Exit, SandboxError> {
        let on = self.host()?;
        if let Some(pidfd) = self.find(id)?.pidfd {
            let shown = || host(format!("wait for {}", records::name(id)));
            let copy = pidfd.as_fd().try_clone_to_owned().map_err(shown())?;
            // SAFETY: the registration owns the handle, which therefore stays open as long as it is registered.
            let ended = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
            let ended = ended.map_err(|error| shown()(error.into()))?;
            ended.readable().await.map_err(shown())?.retain_ready();
            // Its last process has ended; the handle is of no further use.
            if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
                known.pidfd = None;
            }
        }
        blocking(move || Ok(on.records.exit(id))).await
    }

    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<Exit, SandboxError> {
        let on = self.host()?;
        let Some(pidfd) = self.find(id)?.pidfd else { return self.wait(id).await };
        // A process that has ended meanwhile needs no signal; the wait below finds its record.
        let send = |signal| _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), signal);
        send(rustix::process::Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
            return exit;
        }
        // First through init, which then records the end.
        send(rustix::process::Signal::USR1);
        if let Ok(exit) = tokio::time::timeout(Duration::from_secs(5), self.wait(id)).await {
            return exit;
        }
        send(rustix::process::Signal::KILL);
        blocking(move || {
            on.cgroups.kill(&records::name(id));
            Ok(())
        })
        .await?;
        self.wait(id).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError> {
        let on = self.host()?;
        let slot = self.find(id).ok().and_then(|known| self.tenants.own(known.slot, id));
        blocking(move || remove(&on, id, slot)).await?;
        self.tenants.leave(id);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    async fn remove_volume(&self, volume: Uuid) -> Result<(), SandboxError> {
        let on = self.host()?;
        blocking(move || on.scratch.remove_volume(volume)).await
    }

    async fn volume(&self, volume: Uuid, disk_bytes: u64) -> Result<PathBuf, SandboxError> {
        let on = self.host()?;
        blocking(move || on.scratch.volume(volume, disk_bytes)).await
    }

    async fn usage(&self, id: SandboxId) -> Result<SandboxUsage, SandboxError> {
        let on = self.host()?;
        self.find(id)?;
        blocking(move || {
            let name = records::name(id);
            let usage = on.cgroups.usage(&name)?;
            Ok(SandboxUsage { disk_bytes: on.scratch.used(&name), ..usage })
        })
        .await
    }

    async fn gate(&self, slot: u32, open: bool) -> Result<(), SandboxError> {
        let on = self.host()?;
        // One message to the kernel, tens of microseconds: not worth another thread.
        on.firewall.gate(self.config.address(slot), open)
    }

    async fn permit(&self, id: SandboxId, egress: Vec<EgressRule>) -> Result<(), SandboxError> {
        let on = self.host()?;
        let slot = self.find(id)?.slot;
        blocking(move || {
            on.firewall.admit(on.config.address(slot), &egress)?;
            // After the rules: whoever reads the old record after a crash is told the new rules by the agent again.
            on.records.write_egress(id, &egress)?;
            if let Err(error) = on.firewall.prune() {
                // The new rules hold. What was not cleaned up is tried again with the next change.
                tracing::warn!(error = %slipway_chassis::chain(&error), "egress rules that nobody uses were not removed");
            }
            Ok(())
        })
        .await
    }

    async fn members(&self, members: Members) -> Result<(), SandboxError> {
        let on = self.host()?;
        blocking(move || on.firewall.members(&on.config, &members)).await
    }

    fn address(&self, slot: u32) -> Ipv4Addr {
        self.config.address(slot)
    }

    async fn probe_tcp(&self, slot: u32, port: u16, timeout: Duration) -> bool {
        probe::tcp(self.application(slot, port), timeout).await
    }

    async fn probe_http(&self, slot: u32, port: u16, path: &str, timeout: Duration) -> Option<u16> {
        probe::http(self.application(slot, port), path, timeout).await
    }

    async fn listeners(&self, id: SandboxId) -> Vec<SocketAddr> {
        let Ok(on) = self.host() else { return Vec::new() };
        // For the text of an error only: what cannot be read is left out of it.
        blocking(move || Ok(on.records.running(id)?.map_or_else(Vec::new, listeners::of))).await.unwrap_or_else(
            |error: SandboxError| {
                tracing::debug!(error = &error as &dyn std::error::Error, "the listeners of a sandbox are not known");
                Vec::new()
            },
        )
    }

    async fn unaccepted(&self, id: SandboxId, port: u16) -> Option<u32> {
        let on = self.host().ok()?;
        blocking(move || Ok(on.records.running(id)?.and_then(|pid| listeners::unaccepted(pid, port)))).await.ok()?
    }
}
