//! The agent: opens what survived, adopts what runs, and keeps doing what the newest set says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::join_all;
use slipway_chassis::driver::{Registry, Wake};
use slipway_chassis::{Backoff, Shutdown, chain, clock};
use slipway_protocol::identity::IdentityError;
use slipway_protocol::v1::query_server::QueryServer;
use slipway_protocol::v1::{Assignment, EgressPolicyBody, Version};
use slipway_protocol::{Credentials, PeerIdentity, Role};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use uuid::Uuid;

use crate::admin::Admin;
use crate::cache::{Cache, CacheError, Hold};
use crate::config::CellConfig;
use crate::controllers::{ConnectError, Controllers};
use crate::host;
use crate::instance::runner::{self, Command, Notice, Origin};
use crate::instance::state::FoundSandbox;
use crate::logs::{Logs, QueryService};
use crate::members;
use crate::policies::PolicyBook;
use crate::reconciler::{Action, Event, HeldAssignment, Reconciler};
use crate::registries::{Registries, RegistriesError};
use crate::sandbox::{Adopted, SandboxError, SandboxRuntime};
use crate::services::{LiveTable, Services};
use crate::session::{self, InForce, Incoming};
use crate::specs::SpecBook;
use crate::staging;
use crate::store::outbox::Outbox;
use crate::store::sealed::FileError;
use crate::store::{Header, Journal, Loaded};
use crate::usage::{Sampled, Sampler, USAGE};

/// How long a set may take to reach every instance's journal before the agent goes on without.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(60);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The certificate cannot be read, or is not this cell's.
    #[error("the cell's certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("the certificate in {directory} belongs to {found:?}, not to cell {id} of cluster {cluster}")]
    Stranger {
        /// Where it is.
        directory: PathBuf,
        /// Whose it is.
        found: PeerIdentity,
        /// This cell.
        id: Uuid,
        /// Its cluster.
        cluster: Uuid,
    },
    /// The state directory is another cluster's.
    #[error(
        "{directory} holds the state of cluster {found}, this cell belongs to {cluster}; give it a directory of its own"
    )]
    OtherCluster {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: Uuid,
        /// This cell's.
        cluster: Uuid,
    },
    /// The journal cannot be used.
    #[error("the journal cannot be used")]
    Journal(#[from] FileError),
    /// The cache cannot be used.
    #[error("the cache cannot be used")]
    Cache(#[from] CacheError),
    /// The host cannot be prepared for sandboxes.
    #[error("this host cannot run sandboxes")]
    Host(#[from] SandboxError),
    /// Builds cannot reach registries by this cell.
    #[error("the proxy for package registries cannot be started")]
    Registries(#[from] RegistriesError),
    /// A connection cannot be configured.
    #[error("the controllers cannot be dialled")]
    Connect(#[from] ConnectError),
    /// A directory, socket or file failed.
    #[error("{action} {what}")]
    Io {
        /// What was done.
        action: &'static str,
        /// To what.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The log service ended.
    #[error("the log service ended")]
    Serve(#[source] tonic::transport::Error),
}

fn io(action: &'static str, what: impl ToString) -> impl FnOnce(std::io::Error) -> RunError {
    let what = what.to_string();
    move |source| RunError::Io { action, what, source }
}

/// Runs an agent over a runtime until shutdown. Sandboxes outlive it.
///
/// # Errors
/// When it cannot begin; once it serves, failures are reported and retried.
pub async fn run_with(
    runtime: Arc<dyn SandboxRuntime>,
    config: CellConfig,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let state = config.state_directory.clone();
    for directory in [&state, &config.run_directory] {
        std::fs::create_dir_all(directory).map_err(io("make", directory.display()))?;
    }
    let credentials = credentials(&config)?;
    let journal = Arc::new(Journal::open(&state)?);
    let loaded = journal.load()?;
    for problem in &loaded.problems {
        tracing::error!(problem, "the journal is damaged; what runs goes on");
    }
    if let Some(found) = loaded.header.as_ref().map(|header| header.cluster).filter(|found| *found != config.cluster_id)
    {
        return Err(RunError::OtherCluster { directory: state, found, cluster: config.cluster_id });
    }
    if let Err(error) = staging::forget_settings(&state) {
        tracing::warn!(%error, "registry settings of earlier builds were not removed");
    }
    staging::tell_withheld(&config);
    let facts = runtime.prepare().await?;
    for warning in &facts.warnings {
        tracing::warn!(warning, "this host does not do all it should");
    }
    let adopted = runtime.adopt().await?;
    let memory_mb = host::memory_mb(&config);
    let disk_mb = host::disk_mb(&config);
    let controllers = Arc::new(Controllers::new(&config.controllers, &credentials)?);
    let cache = Cache::open(&state, config.cache_mb << 20, Arc::clone(&controllers))?;
    let last = loaded.entries.iter().flat_map(|entry| entry.unacked.iter().map(|unacked| unacked.counter)).max();
    let last = last.max(loaded.header.as_ref().map(|header| header.counter)).unwrap_or(0);
    let logs = Arc::new(Logs::open(&state).map_err(io("open the logs of", state.display()))?);
    let registries = Registries::of_cell(&config, &logs, &shutdown).await?;
    let listener = TcpListener::bind(config.query_listen).await.map_err(io("listen on", config.query_listen))?;
    let query_address = listener.local_addr().map_err(io("listen on", config.query_listen))?;
    let services = Arc::new(Services {
        specs: Arc::new(SpecBook::new(Arc::clone(&journal))),
        policies: Arc::new(PolicyBook::new(Arc::clone(&journal))),
        outbox: Arc::new(Outbox::new(last)),
        cache,
        controllers: Arc::clone(&controllers),
        logs: Arc::clone(&logs),
        live: LiveTable::default(),
        registries,
        runtime,
        journal,
        config,
        shutdown: shutdown.clone(),
    });
    shutdown.spawn(Arc::clone(&services.specs).fetch(Arc::clone(&controllers), shutdown.clone()));
    let (tasks, sessions) = (Registry::default(), Arc::<AtomicU64>::default());
    let (send, sampled) = watch::channel(Sampled::default());
    let sampler = Sampler::new(Arc::clone(&services), memory_mb, disk_mb, send);
    tasks.start(&shutdown, USAGE, Wake::default(), sampler);
    let mut admin_address = None;
    if let Some(address) = services.config.admin_listen {
        let listener = TcpListener::bind(address).await.map_err(io("listen on", address))?;
        admin_address = Some(listener.local_addr().map_err(io("listen on", address))?);
        let pages = Arc::new(Admin::new(&services, sampled.clone(), Arc::clone(&sessions), tasks));
        shutdown.spawn(slipway_chassis::admin::serve(pages, listener, shutdown.clone()));
    }
    members::restore(&services).await;
    let (incoming, commands) = mpsc::channel(64);
    let mut agent = Agent::new(Arc::clone(&services), &loaded);
    agent.adopt(loaded, adopted).await;
    let shared = session::Shared {
        services: Arc::clone(&services),
        info: Arc::new(host::info(&services.config, &facts, query_address, memory_mb, disk_mb)),
        session: Uuid::new_v4().to_string(),
        boot_id: host::boot_id(),
        incoming,
        in_force: agent.in_force.subscribe(),
        sampled,
        sessions,
    };
    for (address, channel) in controllers.channels() {
        shutdown.spawn(session::keep(shared.clone(), *address, channel.clone(), shutdown.clone()));
    }
    drop(shared);
    let stop = shutdown.clone();
    let server = tonic::transport::Server::builder()
        .tls_config(credentials.server_tls())
        .map_err(RunError::Serve)?
        .add_service(QueryServer::new(QueryService(logs)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.requested().await });
    let server = shutdown.spawn(server);
    if let Some(path) = &services.config.ready_file {
        let text = serde_json::json!({ "query": query_address, "admin": admin_address, "warnings": facts.warnings })
            .to_string();
        host::write_ready(path, &text).map_err(io("write", path.display()))?;
    }
    tracing::info!(cell.id = %services.config.id, query = %query_address, "serving");
    agent.run(commands).await;
    match server.await {
        Ok(Err(error)) => Err(RunError::Serve(error)),
        _ => Ok(()),
    }
}

fn credentials(config: &CellConfig) -> Result<Credentials, RunError> {
    let credentials = Credentials::load(&config.tls_directory)?;
    let found = credentials.own_identity()?;
    if found != (PeerIdentity { cluster: config.cluster_id, role: Role::Cell, id: config.id }) {
        let directory = config.tls_directory.clone();
        return Err(RunError::Stranger { directory, found, id: config.id, cluster: config.cluster_id });
    }
    Ok(credentials)
}

struct Agent {
    services: Arc<Services>,
    core: Reconciler,
    runners: BTreeMap<Uuid, mpsc::UnboundedSender<Command>>,
    notices: mpsc::UnboundedSender<Notice>,
    noticed: mpsc::UnboundedReceiver<Notice>,
    in_force: watch::Sender<InForce>,
    /// While something was found that no set has named, nobody knows which layers it uses.
    hold: Option<Hold>,
    /// Some instance's part of a set did not get into the journal, so the header must not say that the set is held: a
    /// controller does not send again what is held. Until the agent's next start, which asks for it.
    incomplete: bool,
}

impl Agent {
    fn new(services: Arc<Services>, loaded: &Loaded) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a few notices in the life of each instance, of which there are as many as slots"
        )]
        let (notices, noticed) = mpsc::unbounded_channel();
        let (version, digest) = loaded
            .header
            .as_ref()
            .map_or((Version::default(), Vec::new()), |header| (header.version(), header.digest.clone()));
        // With damaged entries the held set is not complete: it must be sent again.
        let (version, digest) =
            if loaded.problems.is_empty() { (version, digest) } else { (Version::new(version.epoch, 0), Vec::new()) };
        let held = loaded.entries.iter().filter_map(|entry| {
            let id = entry.assignment.id.parse().ok()?;
            let held = HeldAssignment {
                assignment: Some(entry.assignment.clone()),
                slot: entry.assignment.slot,
                settled: entry.life.is_settled(),
                unacked: !entry.unacked.is_empty(),
                named: true,
            };
            Some((id, held))
        });
        let core = Reconciler::new(version, digest.clone().into(), services.config.slots, held.collect());
        let in_force = watch::Sender::new(InForce { version, digest: digest.into() });
        Self { services, core, runners: BTreeMap::new(), notices, noticed, in_force, hold: None, incomplete: false }
    }

    /// Gives every journal entry and every sandbox on the host an owner.
    async fn adopt(&mut self, loaded: Loaded, adopted: Vec<Adopted>) {
        let mut found: BTreeMap<Uuid, Adopted> = BTreeMap::new();
        for sandbox in adopted {
            let older = match found.get(&sandbox.id.assignment) {
                Some(other) if other.id.incarnation >= sandbox.id.incarnation => Some(sandbox.id),
                _ => found.insert(sandbox.id.assignment, sandbox).map(|other| other.id),
            };
            if let Some(id) = older {
                self.end_leftover(id).await;
            }
        }
        for entry in &loaded.entries {
            for observation in &entry.unacked {
                self.services.outbox.restore(observation.counter);
            }
        }
        for mut entry in loaded.entries {
            let Ok(id) = entry.assignment.id.parse::<Uuid>() else { continue };
            let state = match found.remove(&id) {
                // One that is older than the journal is a leftover of an earlier incarnation.
                Some(sandbox) if sandbox.id.incarnation < entry.life.incarnation => {
                    self.end_leftover(sandbox.id).await;
                    FoundSandbox::Gone
                }
                Some(sandbox) => {
                    entry.life.incarnation = sandbox.id.incarnation;
                    sandbox.exit.map_or(FoundSandbox::Running, FoundSandbox::Ended)
                }
                None => FoundSandbox::Gone,
            };
            self.spawn(id, Origin::Journal(entry, state));
        }
        let mut unknown: BTreeMap<Uuid, Origin> = BTreeMap::new();
        for id in loaded.damaged {
            unknown.insert(id, Origin::Unknown { slot: None, incarnation: 0, found: FoundSandbox::Gone });
        }
        for (id, sandbox) in found {
            tracing::warn!(assignment.id = %id, "a sandbox runs that the journal does not know; it goes on");
            self.hold.get_or_insert_with(|| self.services.cache.hold());
            let found = sandbox.exit.map_or(FoundSandbox::Running, FoundSandbox::Ended);
            let incarnation = sandbox.id.incarnation;
            unknown.insert(id, Origin::Unknown { slot: Some(sandbox.slot), incarnation, found });
        }
        for (id, origin) in unknown {
            let slot = match &origin {
                Origin::Unknown { slot, .. } => slot.unwrap_or(u32::MAX),
                _ => u32::MAX,
            };
            self.core.found(id, slot);
            self.spawn(id, origin);
        }
    }

    async fn end_leftover(&self, id: crate::sandbox::SandboxId) {
        tracing::warn!(assignment.id = %id.assignment, incarnation = id.incarnation, "ending a leftover sandbox");
        if let Err(error) = self.services.runtime.stop(id, Duration::ZERO).await {
            tracing::warn!(error = %chain(&error), "a leftover sandbox was not ended");
        }
        let services = Arc::clone(&self.services);
        if runner::destroy(&*services.runtime, id).await {
            return;
        }
        // No instance's life has it as its current sandbox: nobody else would try again.
        self.services.shutdown.spawn(async move {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            loop {
                // Nothing is held over the pause.
                tokio::select! {
                    () = services.shutdown.requested() => return,
                    () = tokio::time::sleep(backoff.pause()) => {}
                }
                if runner::destroy(&*services.runtime, id).await {
                    return;
                }
            }
        });
    }

    fn spawn(&mut self, id: Uuid, origin: Origin) {
        #[expect(
            clippy::disallowed_methods,
            reason = "one command for each change of the cell's set, and the loop must not wait"
        )]
        let (send, receive) = mpsc::unbounded_channel();
        let task = runner::run(id, Arc::clone(&self.services), origin, receive, self.notices.clone());
        self.services.shutdown.spawn(task);
        self.runners.insert(id, send);
    }

    fn command(&self, id: Uuid, command: Command) {
        if let Some(runner) = self.runners.get(&id) {
            // A runner that has just ended has nothing left to be told.
            runner.send(command).ok();
        }
    }

    async fn run(mut self, mut incoming: mpsc::Receiver<Incoming>) {
        let shutdown = self.services.shutdown.clone();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            // Receiving loses nothing when an arm is dropped.
            tokio::select! {
                () = shutdown.requested() => break,
                message = incoming.recv() => match message {
                    Some(Incoming::Set(mut set)) => {
                        self.keep_policies(std::mem::take(&mut set.policies)).await;
                        self.handle(Event::Set(set)).await;
                    }
                    Some(Incoming::Purge(ids)) => self.handle(Event::Purge(ids)).await,
                    Some(Incoming::Members(members)) => members::take(&self.services, members).await,
                    Some(Incoming::Ack(counter)) => self.ack(counter).await,
                    None => break,
                },
                Some(notice) = self.noticed.recv() => match notice {
                    Notice::Changed { id, settled, unacked } => {
                        self.handle(Event::Changed { id, settled, unacked }).await;
                    }
                    Notice::Forgotten(id) => {
                        self.runners.remove(&id);
                        self.handle(Event::Forgotten(id)).await;
                    }
                },
                _ = sweep.tick() => {
                    let logs = Arc::clone(&self.services.logs);
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || logs.sweep(clock::unix_ms())).await {
                        tracing::warn!(%error, "old log rings were not removed");
                    }
                }
            }
        }
        self.write_header().await;
    }

    /// Before the set that names them is in force, so that whoever starts by it finds them.
    async fn keep_policies(&self, policies: Vec<EgressPolicyBody>) {
        let book = Arc::clone(&self.services.policies);
        let stored = tokio::task::spawn_blocking(move || book.keep(policies)).await;
        if let Ok(Err(error)) = stored {
            // They hold from memory; only a restart of the agent without a controller would miss them.
            tracing::error!(error = %chain(&error), "an egress policy was not written");
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut writing = Vec::new();
        for action in self.core.step(event) {
            match action {
                Action::Spawn(assignment) => {
                    if let Some(id) = id_of(&assignment) {
                        let (send, written) = oneshot::channel();
                        writing.push(written);
                        self.spawn(id, Origin::New(assignment, send));
                    }
                }
                Action::Refuse(assignment, refusal, reason) => {
                    if let Some(id) = id_of(&assignment) {
                        let (send, written) = oneshot::channel();
                        writing.push(written);
                        self.spawn(id, Origin::Refused(assignment, refusal, reason, send));
                    }
                }
                Action::Assign(id, assignment) => {
                    let (send, written) = oneshot::channel();
                    writing.push(written);
                    self.command(id, Command::Assign(Box::new(assignment), send));
                }
                Action::Report(id) => self.command(id, Command::Report),
                Action::Purge(id) => self.command(id, Command::Purge),
                Action::Forget(id) => self.command(id, Command::Forget),
                Action::Warn(text) => tracing::warn!(text, "a controller's message was not followed"),
                Action::InForce(version, digest) => {
                    let all = join_all(writing.drain(..));
                    match tokio::time::timeout(WRITE_LIMIT, all).await {
                        Ok(written) if written.iter().all(Result::is_ok) => {}
                        Ok(_) => {
                            tracing::error!(
                                "an assignment is not in the journal; the next start asks for the set again"
                            );
                            self.incomplete = true;
                        }
                        Err(_) => {
                            tracing::error!("instances did not take their assignments within {WRITE_LIMIT:?}");
                            self.incomplete = true;
                        }
                    }
                    self.in_force.send_replace(InForce { version, digest });
                    self.write_header().await;
                    self.settle().await;
                }
            }
        }
    }

    /// After a set: what it does not need any more may go.
    async fn settle(&mut self) {
        let held = self.core.held().values();
        let (mut wanted, mut policies) = (BTreeSet::new(), BTreeSet::new());
        let mut unnamed = false;
        for held in held {
            match &held.assignment {
                Some(assignment) => {
                    wanted.insert(assignment.spec_digest.to_vec());
                    policies.insert(assignment.egress_policy.to_vec());
                }
                None => unnamed = true,
            }
        }
        if !unnamed {
            self.hold = None;
        }
        let (specs, book) = (Arc::clone(&self.services.specs), Arc::clone(&self.services.policies));
        let retained = tokio::task::spawn_blocking(move || {
            specs.retain(&wanted);
            book.retain(&policies);
        });
        // It panics only where it is reported already.
        retained.await.ok();
    }

    async fn ack(&mut self, counter: u64) {
        let concerned = self.services.outbox.ack(counter);
        if concerned.is_empty() {
            return;
        }
        // Before anything is forgotten: numbers must go on after the highest ever given out.
        self.write_header().await;
        for id in concerned {
            self.command(id, Command::Acked(counter));
        }
    }

    async fn write_header(&self) {
        let in_force = self.in_force.borrow().clone();
        let (seq, digest) =
            if self.incomplete { (0, Vec::new()) } else { (in_force.version.seq, in_force.digest.to_vec()) };
        let header = Header {
            cluster: self.services.config.cluster_id,
            epoch: in_force.version.epoch,
            seq,
            digest,
            boot_id: host::boot_id(),
            counter: self.services.outbox.last(),
        };
        let journal = Arc::clone(&self.services.journal);
        let written = tokio::task::spawn_blocking(move || journal.write_header(&header)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(error = %chain(&error), "the journal's header was not written");
        }
    }
}

fn id_of(assignment: &Assignment) -> Option<Uuid> {
    // The reconciler passes over assignments without a valid id.
    assignment.id.parse().ok()
}
