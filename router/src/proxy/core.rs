//! One core of the router: its thread, its runtime, and the state that only it uses.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use slipway_protocol::egress_guard::EgressGuard;
use tokio_util::sync::CancellationToken;

use super::endpoint::EndpointState;
use super::failure::LogQuota;
use super::fair::FairQueue;
use super::forwarding::Forwarding;
use super::listener;
use crate::access_log::{AccessLog, CoreLog};
use crate::cluster_tls::ClusterTls;
use crate::heads::Heads;
use crate::keepalive::keep_alive;
use crate::limits::{Descriptors, Holders};
use crate::metrics::CoreMetrics;
use crate::sync::TableStore;
use crate::table::{Endpoint, EndpointKey, Table};

/// Idle connections to endpoints are closed after this. Longer saves connects; shorter meets fewer endpoints that close
/// at the very moment a request is sent.
const UPSTREAM_IDLE: Duration = Duration::from_secs(60);
/// How often idle connections and states of endpoints that left are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// Tables may change many times a second; the states are looked through at most this often.
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// What all cores of a process share. Read only, or atomic.
pub(crate) struct Shared {
    pub(crate) store: Arc<TableStore>,
    pub(crate) log: AccessLog,
    pub(crate) cluster_tls: Arc<ArcSwap<ClusterTls>>,
    /// Toward route services.
    pub(crate) service_tls: Arc<rustls::ClientConfig>,
    /// Where route services may be.
    pub(crate) service_egress: EgressGuard,
    pub(crate) web_tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) descriptors: Descriptors,
    /// What apps hold of them, by guid.
    pub(crate) apps: Holders<Arc<str>>,
    /// What clients hold of them, by [`client_key`](crate::limits::client_key).
    pub(crate) clients: Holders<IpAddr>,
    /// Requests under way at one endpoint; 0 for no limit.
    pub(crate) most_per_endpoint: usize,
    /// Whose word about others is believed.
    pub(crate) forwarding: Forwarding,
    pub(crate) max_header_bytes: usize,
    /// Room for large heads.
    pub(crate) heads: Arc<Heads>,
    pub(crate) response_timeout: Duration,
    /// How long a client may keep the router waiting within a request.
    pub(crate) client_stall: Duration,
    /// How long a tunnel may be silent.
    pub(crate) tunnel_idle: Duration,
    /// Cancelled when no more connections are to be taken.
    pub(crate) drain: CancellationToken,
    /// How long requests may then go on.
    pub(crate) drain_timeout: Duration,
}

/// A core's own state.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<CoreMetrics>,
    /// Own token: waiting on the shared one would make all cores meet at its lock.
    pub(crate) drain: CancellationToken,
    table: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    states: RefCell<HashMap<EndpointKey, Rc<EndpointState>>>,
    turns: RefCell<HashMap<u64, usize>>,
    /// Whose turn it is.
    pub(crate) fair: FairQueue,
    /// Access lines.
    pub(crate) log: CoreLog,
    /// For lines about failures.
    pub(crate) log_quota: LogQuota,
    /// Clients that are being told that there is no room.
    pub(crate) refusals: Cell<usize>,
    /// Client connections and tunnels.
    pub(crate) active: Cell<usize>,
}

impl Core {
    /// Runs `decide` on the table in force. Not across an await.
    pub(crate) fn with_table<T>(&self, decide: impl FnOnce(&Table) -> T) -> T {
        decide(self.table.borrow_mut().load())
    }

    pub(crate) fn state(&self, endpoint: &Arc<Endpoint>) -> Rc<EndpointState> {
        let mut states = self.states.borrow_mut();
        let new = || {
            let own = endpoint.app_id.is_empty();
            let app = (!own).then(|| self.shared.apps.get(Arc::clone(&endpoint.app_id)));
            Rc::new(EndpointState::new(Arc::clone(endpoint), app))
        };
        let state = states.entry(endpoint.key).or_insert_with(new);
        // The same endpoint may have got another index.
        if !Arc::ptr_eq(&state.endpoint, endpoint) && state.load() == 0 {
            state.close();
            *state = new();
        }
        Rc::clone(state)
    }

    pub(crate) fn load(&self, key: EndpointKey) -> u32 {
        self.states.borrow().get(&key).map_or(0, |state| state.load())
    }

    /// Whether an endpoint has as many requests as it may have. Cores that look at the same moment may each send one more.
    pub(crate) fn is_full(&self, endpoint: &Endpoint) -> bool {
        let most = self.shared.most_per_endpoint;
        most != 0 && !endpoint.app_id.is_empty() && endpoint.under_way.load(Ordering::Relaxed) >= most
    }

    pub(crate) fn avoided(&self, key: EndpointKey, now: Instant) -> bool {
        self.states.borrow().get(&key).is_some_and(|state| state.avoided(now))
    }

    /// The next number of a route's turn.
    pub(crate) fn turn(&self, route: u64) -> usize {
        let mut turns = self.turns.borrow_mut();
        let turn = turns.entry(route).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }

    /// Closes what is idle for too long, and forgets what has left the table.
    fn sweep(&self) {
        let then = Instant::now().checked_sub(UPSTREAM_IDLE);
        let mut idle = 0;
        self.with_table(|table| {
            self.states.borrow_mut().retain(|_, state| {
                if table.holds(&state.endpoint) {
                    if let Some(then) = then {
                        state.close_idle(then);
                    }
                    idle += state.idle_count();
                    return true;
                }
                state.close();
                state.load() > 0
            });
            let mut turns = self.turns.borrow_mut();
            if turns.len() > 2 * table.route_count() + 64 {
                turns.clear();
            }
        });
        self.metrics.upstream_idle.store(idle as u64, Ordering::Relaxed);
    }
}

/// Runs one core on the calling thread until it has drained.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run_core(
    shared: Arc<Shared>,
    metrics: Arc<CoreMetrics>,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let core = Rc::new(Core {
            metrics,
            drain: CancellationToken::new(),
            table: RefCell::new(Cache::new(Arc::clone(shared.store.current()))),
            states: RefCell::default(),
            turns: RefCell::default(),
            fair: FairQueue::default(),
            log: shared.log.core(),
            log_quota: LogQuota::default(),
            refusals: Cell::new(0),
            active: Cell::new(0),
            shared,
        });
        for (listeners, secure) in [(http, false), (https, true)] {
            for one in listeners {
                keep_alive(&one)?;
                let one = tokio::net::TcpListener::from_std(one)?;
                tokio::task::spawn_local(listener::accept(Rc::clone(&core), one, secure));
            }
        }
        tokio::task::spawn_local(keep_tidy(Rc::clone(&core)));
        core.shared.drain.cancelled().await;
        core.drain.cancel();
        let deadline = tokio::time::Instant::now() + core.shared.drain_timeout;
        while core.active.get() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if core.active.get() > 0 {
            tracing::warn!(connections = core.active.get(), "connections were cut at the end of the drain time");
        }
        Ok(())
    })
}

async fn keep_tidy(core: Rc<Core>) {
    let mut changes = core.shared.store.changes();
    loop {
        // Both arms may be dropped: they only say that it is time.
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(SWEEP) => {}
        }
        core.sweep();
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}
