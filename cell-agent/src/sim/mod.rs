//! A simulated sandbox runtime for tests: nothing is contained and no process runs. A test says how each program
//! behaves, and sees what the agent did. It outlives an agent, so that a restart finds what was left running.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slipway_chassis::clock;
use tokio::sync::watch;
use uuid::Uuid;

use crate::sandbox::{
    Adopted, EgressRule, Exit, HostFacts, Members, SandboxError, SandboxId, SandboxRuntime, SandboxSpec, SandboxUsage,
};

/// How a simulated program behaves.
#[derive(Clone, Debug)]
pub enum Program {
    /// Listens at once and runs until it is stopped.
    Serve,
    /// Listens at once and takes no connection for this time.
    Late(Duration),
    /// Runs and never listens on its port; it may listen elsewhere.
    Deaf(Vec<SocketAddr>),
    /// Ends at once.
    Exit(Exit),
    /// Cannot be started.
    Unstartable,
    /// There is no room for it.
    NoRoom,
}

/// An exit that a test needs often.
#[must_use]
pub fn exit(code: i32) -> Exit {
    Exit {
        code,
        signal: None,
        out_of_memory: false,
        reason: String::new(),
        platform_fault: false,
        at_unix_ms: clock::unix_ms(),
    }
}

fn simulated(step: &str) -> SandboxError {
    SandboxError::Host { step: step.to_owned(), source: std::io::Error::other("simulated") }
}

/// Decides how a start behaves; may write files into the build's volume, given as the second argument.
pub type Script = dyn Fn(&SandboxSpec, Option<&Path>) -> Program + Send + Sync;

struct Sandbox {
    slot: u32,
    listening: bool,
    /// When it takes connections.
    accepts: tokio::time::Instant,
    healthy: bool,
    elsewhere: Vec<SocketAddr>,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Default)]
struct World {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    started: Vec<SandboxSpec>,
    gates: BTreeMap<u32, bool>,
    permitted: BTreeMap<Uuid, Vec<EgressRule>>,
    members: Option<Members>,
    volumes: BTreeMap<Uuid, PathBuf>,
    stuck: bool,
    failed_removals: usize,
    broken_gates: bool,
    broken_members: bool,
}

/// See the module.
pub struct SimRuntime {
    directory: PathBuf,
    script: Box<Script>,
    world: Mutex<World>,
}

impl SimRuntime {
    /// A runtime whose volumes are made below `directory`.
    #[must_use]
    pub fn new(
        directory: &Path,
        script: impl Fn(&SandboxSpec, Option<&Path>) -> Program + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { directory: directory.to_owned(), script: Box::new(script), world: Mutex::default() })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every start so far, in order.
    #[must_use]
    pub fn started(&self) -> Vec<SandboxSpec> {
        self.world().started.clone()
    }

    /// Sandboxes that have not ended.
    #[must_use]
    pub fn running(&self) -> Vec<SandboxId> {
        let world = self.world();
        world.sandboxes.iter().filter(|(_, sandbox)| sandbox.exit.borrow().is_none()).map(|(id, _)| *id).collect()
    }

    /// Everything that was not removed: sandboxes and volumes.
    #[must_use]
    pub fn leftovers(&self) -> usize {
        let world = self.world();
        world.sandboxes.len() + world.volumes.len()
    }

    /// What a running sandbox was permitted after its start, if anything was changed.
    #[must_use]
    pub fn permitted(&self, assignment: Uuid) -> Option<Vec<EgressRule>> {
        self.world().permitted.get(&assignment).cloned()
    }

    /// Forgets what was permitted, so that a later change is seen.
    pub fn forget_permitted(&self) {
        self.world().permitted.clear();
    }

    /// What was last told of the cluster's members.
    #[must_use]
    pub fn announced_members(&self) -> Option<Members> {
        self.world().members.clone()
    }

    /// Forgets that, as the host does when its rules are loaded anew.
    pub fn forget_members(&self) {
        self.world().members = None;
    }

    /// Whether traffic to a slot passes.
    #[must_use]
    pub fn gate_is_open(&self, slot: u32) -> bool {
        self.world().gates.get(&slot).copied().unwrap_or(false)
    }

    /// The program of an instance ends by itself.
    pub fn end(&self, assignment: Uuid, exit: &Exit) {
        for (id, sandbox) in &self.world().sandboxes {
            if id.assignment == assignment && sandbox.exit.borrow().is_none() {
                sandbox.exit.send_replace(Some(exit.clone()));
            }
        }
    }

    /// A running program stops, or begins again, to answer its checks.
    pub fn answer(&self, assignment: Uuid, healthy: bool) {
        for (id, sandbox) in &mut self.world().sandboxes {
            if id.assignment == assignment {
                sandbox.healthy = healthy;
            }
        }
    }

    /// From now on nothing can be removed, or everything again.
    pub fn keep_everything(&self, keep: bool) {
        self.world().stuck = keep;
    }

    /// How often something could not be removed.
    #[must_use]
    pub fn failed_removals(&self) -> usize {
        self.world().failed_removals
    }

    /// From now on no gate can be opened, or every one again.
    pub fn break_gates(&self, broken: bool) {
        self.world().broken_gates = broken;
    }

    /// From now on no list of members can be brought into force, or every one again.
    pub fn break_members(&self, broken: bool) {
        self.world().broken_members = broken;
    }

    /// The host loses everything, as in a power cut.
    pub fn power_cut(&self) {
        let mut world = self.world();
        world.sandboxes.clear();
        world.gates.clear();
    }

    fn watch(&self, id: SandboxId) -> Result<watch::Receiver<Option<Exit>>, SandboxError> {
        let world = self.world();
        world.sandboxes.get(&id).map(|sandbox| sandbox.exit.subscribe()).ok_or(SandboxError::Unknown(id))
    }
}

#[async_trait]
impl SandboxRuntime for SimRuntime {
    async fn prepare(&self) -> Result<HostFacts, SandboxError> {
        let warnings = vec!["nothing is contained: this host is simulated".to_owned()];
        Ok(HostFacts { cgroup_mode: "v2", disk_quota_mode: "none", warnings })
    }

    async fn adopt(&self) -> Result<Vec<Adopted>, SandboxError> {
        let world = self.world();
        let adopted = world.sandboxes.iter().map(|(id, sandbox)| Adopted {
            id: *id,
            slot: sandbox.slot,
            exit: sandbox.exit.borrow().clone(),
        });
        Ok(adopted.collect())
    }

    async fn start(&self, spec: SandboxSpec) -> Result<(), SandboxError> {
        let volume = spec.volume.as_ref().and_then(|(id, _)| self.world().volumes.get(id).cloned());
        let program = (self.script)(&spec, volume.as_deref());
        let mut accepts = tokio::time::Instant::now();
        let (listening, elsewhere, exit) = match program {
            Program::Serve => (true, Vec::new(), None),
            Program::Late(time) => {
                accepts += time;
                (true, vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8080)], None)
            }
            Program::Deaf(elsewhere) => (false, elsewhere, None),
            Program::Exit(exit) => (false, Vec::new(), Some(exit)),
            Program::Unstartable => {
                return Err(simulated("mounting the root"));
            }
            Program::NoRoom => {
                return Err(SandboxError::Exhausted { what: "disk", detail: "0 MiB free".to_owned() });
            }
        };
        let exit = watch::Sender::new(exit);
        let sandbox = Sandbox { slot: spec.slot, listening, accepts, healthy: true, elsewhere, exit };
        let mut world = self.world();
        world.sandboxes.insert(spec.id, sandbox);
        world.started.push(spec);
        Ok(())
    }

    async fn wait(&self, id: SandboxId) -> Result<Exit, SandboxError> {
        let mut watch = self.watch(id)?;
        let exit = watch.wait_for(Option::is_some).await.map_err(|_| SandboxError::Unknown(id))?.clone();
        exit.ok_or(SandboxError::Unknown(id))
    }

    async fn stop(&self, id: SandboxId, _grace: Duration) -> Result<Exit, SandboxError> {
        {
            let world = self.world();
            let sandbox = world.sandboxes.get(&id).ok_or(SandboxError::Unknown(id))?;
            sandbox.exit.send_if_modified(|current| {
                let ends = current.is_none();
                if ends {
                    *current = Some(Exit { code: 143, signal: Some(15), ..exit(143) });
                }
                ends
            });
        }
        self.wait(id).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError> {
        let mut world = self.world();
        if world.stuck && world.sandboxes.contains_key(&id) {
            world.failed_removals += 1;
            return Err(simulated("unmounting the root"));
        }
        world.sandboxes.remove(&id).map(|_| ()).ok_or(SandboxError::Unknown(id))
    }

    async fn remove_volume(&self, volume: Uuid) -> Result<(), SandboxError> {
        let path = self.world().volumes.remove(&volume);
        if let Some(path) = path {
            std::fs::remove_dir_all(&path)
                .map_err(|source| SandboxError::Host { step: format!("removing {}", path.display()), source })?;
        }
        Ok(())
    }

    async fn volume(&self, volume: Uuid, _disk_bytes: u64) -> Result<PathBuf, SandboxError> {
        let path = self.directory.join(volume.to_string());
        std::fs::create_dir_all(&path)
            .map_err(|source| SandboxError::Host { step: format!("making {}", path.display()), source })?;
        self.world().volumes.insert(volume, path.clone());
        Ok(path)
    }

    async fn usage(&self, id: SandboxId) -> Result<SandboxUsage, SandboxError> {
        self.watch(id)?;
        Ok(SandboxUsage { cpu_nanos: 1_000_000, memory_bytes: 10 << 20, disk_bytes: 1 << 20, pids: 3, oom_kills: 0 })
    }

    async fn gate(&self, slot: u32, open: bool) -> Result<(), SandboxError> {
        let mut world = self.world();
        if world.broken_gates && open {
            return Err(simulated("opening the gate"));
        }
        world.gates.insert(slot, open);
        Ok(())
    }

    async fn members(&self, members: Members) -> Result<(), SandboxError> {
        let mut world = self.world();
        if world.broken_members {
            return Err(simulated("loading the members"));
        }
        world.members = Some(members);
        Ok(())
    }

    async fn permit(&self, id: SandboxId, egress: Vec<EgressRule>) -> Result<(), SandboxError> {
        self.watch(id)?;
        self.world().permitted.insert(id.assignment, egress);
        Ok(())
    }

    fn address(&self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 62, 0, 2)).saturating_add(slot))
    }

    async fn probe_tcp(&self, slot: u32, _port: u16, _timeout: Duration) -> bool {
        self.world().sandboxes.values().any(|sandbox| {
            sandbox.slot == slot && sandbox.listening && sandbox.healthy && sandbox.exit.borrow().is_none()
        })
    }

    async fn probe_http(&self, slot: u32, port: u16, _path: &str, timeout: Duration) -> Option<u16> {
        self.probe_tcp(slot, port, timeout).await.then_some(200)
    }

    async fn listeners(&self, id: SandboxId) -> Vec<SocketAddr> {
        self.world().sandboxes.get(&id).map(|sandbox| sandbox.elsewhere.clone()).unwrap_or_default()
    }

    async fn unaccepted(&self, id: SandboxId, _port: u16) -> Option<u32> {
        let world = self.world();
        let sandbox = world.sandboxes.get(&id).filter(|sandbox| sandbox.listening)?;
        Some(u32::from(sandbox.accepts > tokio::time::Instant::now()))
    }
}

/// An address that nobody outside reaches.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
