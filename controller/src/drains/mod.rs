//! Syslog drains: sends the lines of bound apps, and of routers about them, to where a developer wants them.
//!
//! The controller that plans does this. It reads the log rings of cells and routers and sends the lines on: so nothing stands
//! between an app and its output, a slow or unavailable drain costs no memory, and the ring is the buffer. Lines that a ring
//! has overwritten before they were sent are lost; the gap shows in the ring's sequence numbers, is counted and reported to
//! the drain. The position is stored in the database, so that another controller can go on from there; a line may then
//! arrive twice, but is never lost silently.
//!
//! The price: each drain queries every cell and router once a second. That is right for dozens of drains; for thousands the
//! cells would have to send by themselves.

mod destination;
mod follower;
mod message;
mod sender;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use slipway_chassis::{Backoff, Shutdown, chain, clock};
use slipway_protocol::egress_guard::EgressGuard;
use slipway_protocol::v1;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use destination::{Destination, DestinationError};
use follower::Follower;
use message::Names;
use sender::Sender;

use crate::context::Context;
use crate::store::drains::DrainRow;

/// Between two reads of a drain that is up to date.
const PERIOD: Duration = Duration::from_secs(1);
/// Lines of the last moment are left for the next read: another cell may still write one that is older.
const SETTLE_NS: i64 = 1_000_000_000;
/// A cell that does not answer is waited for this many reads before its lines are passed over.
const MAX_READS_WAITED: u32 = 30;
const BATCH: u32 = 1_000;

/// TLS toward drains: authorities that the host trusts.
///
/// # Errors
/// When a file of them is there and cannot be read, or TLS cannot be set up.
pub fn client_tls() -> Result<Arc<rustls::ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    tls_trusting(slipway_protocol::web_roots::load(None)?)
}

/// TLS toward drains: these authorities.
///
/// # Errors
/// When TLS cannot be set up.
pub fn tls_trusting(
    authorities: Vec<rustls::pki_types::CertificateDer<'static>>,
) -> Result<Arc<rustls::ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

/// The look at which drains there are, as a task.
pub const DRAINS: Definition = Definition {
    name: "drains",
    description: "Begins and ends the sending of logs to drains, while this controller holds the lease",
    period: Duration::from_secs(2),
    woken_by: "a change of the lease",
};

/// Follows all drains while this controller holds the lease.
pub struct Drains {
    context: Context,
    term: watch::Receiver<Option<i64>>,
    transport: Arc<DrainTransport>,
    shutdown: Shutdown,
    running: Running,
}

impl Drains {
    /// Follows while `term` holds one.
    #[must_use]
    pub fn new(
        context: Context,
        term: watch::Receiver<Option<i64>>,
        tls: Arc<rustls::ClientConfig>,
        shutdown: Shutdown,
    ) -> Self {
        let egress_guard = EgressGuard::new(&context.config.drain_networks).unwrap_or_else(|network| {
            // A configuration is checked before it comes here.
            tracing::error!(network, "drain_networks names no network here; drains reach public addresses only");
            EgressGuard::default()
        });
        let transport = Arc::new(DrainTransport { tls, egress_guard });
        Self { context, term, transport, shutdown, running: Running::default() }
    }
}

impl BackgroundTask for Drains {
    type Error = sqlx::Error;

    async fn run(&mut self) -> sqlx::Result<Next> {
        if self.term.borrow().is_none() {
            self.running.clear();
        } else {
            // When they cannot be read, what runs goes on: the lines do not come from the database.
            let rows = self.context.store.drains().await?;
            self.running.reconcile(&self.context, &self.transport, &self.shutdown, rows);
        }
        Ok(Next::AfterPeriod)
    }

    async fn end(&mut self) {
        self.running.clear();
    }
}

/// How all drains are reached.
#[derive(Debug)]
struct DrainTransport {
    tls: Arc<rustls::ClientConfig>,
    egress_guard: EgressGuard,
}

/// One task per drain; they end with this value.
#[derive(Default)]
struct Running(HashMap<(Uuid, Uuid), (DrainRow, JoinHandle<()>)>);

impl Running {
    fn reconcile(
        &mut self,
        context: &Context,
        transport: &Arc<DrainTransport>,
        shutdown: &Shutdown,
        rows: Vec<DrainRow>,
    ) {
        let wanted: HashMap<_, _> = rows.into_iter().map(|row| ((row.instance, row.app), row)).collect();
        self.0.retain(|key, (row, task)| {
            let same = wanted.get(key).is_some_and(|other| {
                let other = DrainRow { position_ns: row.position_ns, ..other.clone() };
                other == *row
            });
            if !same {
                task.abort();
            }
            same
        });
        for (key, row) in wanted {
            self.0.entry(key).or_insert_with(|| {
                let task = shutdown.spawn(follow(context.clone(), row.clone(), Arc::clone(transport)));
                (row, task)
            });
        }
    }

    fn clear(&mut self) {
        for (_, (_, task)) in self.0.drain() {
            task.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Sends the lines of one app to one drain, for ever.
async fn follow(context: Context, row: DrainRow, transport: Arc<DrainTransport>) {
    let key = (row.instance, row.app);
    let since = row.since.timestamp_nanos_opt().unwrap_or_else(clock::unix_ns);
    // What was logged between an earlier binding and this one is not the drain's.
    let start = row.position_ns.map_or(since, |position| position.max(since));
    let mut follower = Follower::new(start);
    let asker = format!("drain {}", row.instance);
    let destination = match Destination::parse(&row.url) {
        Ok(destination) => destination,
        Err(error) => {
            note(&context, key, start, 0, Some(&error.to_string())).await;
            return;
        }
    };
    let names = Names::of(&row);
    let mut sender = Sender::new(destination, transport);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let (mut silent, mut noted) = (0, (start, None::<String>));
    loop {
        let until = clock::unix_ns().saturating_sub(SETTLE_NS);
        let query = v1::LogQuery {
            source_id: row.app.to_string(),
            start_unix_ns: follower.position(),
            end_unix_ns: until,
            descending: false,
            limit: BATCH,
        };
        let answer = context.cells.read_logs(&asker, query).await;
        silent = if answer.unanswered.is_empty() { 0 } else { silent + 1 };
        if (1..MAX_READS_WAITED).contains(&silent) {
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        let full = answer.lines.len() >= BATCH as usize;
        let mut failure = None;
        for line in follower.fresh(answer.lines, until) {
            let lost = follower.missed(&line);
            let sent = send(&mut sender, &names, &line, lost).await;
            match sent {
                Ok(rejected) => follower.sent(&line, lost + u64::from(rejected)),
                Err(error) => {
                    failure = Some(chain(&error).to_string());
                    break;
                }
            }
        }
        if failure.is_none() {
            follower.settled(until, full);
        }
        let lost = follower.take_lost();
        if lost > 0 {
            tracing::warn!(app.guid = %row.app, service_instance.guid = %row.instance, lost, "a syslog drain lost lines");
        }
        let now = (follower.position(), failure.clone());
        if now != noted || lost > 0 {
            note(&context, key, now.0, lost, now.1.as_deref()).await;
            noted = now;
        }
        match failure {
            Some(reason) => {
                let pause = backoff.pause();
                tracing::debug!(app.guid = %row.app, reason, ?pause, "a syslog drain cannot be reached");
                tokio::time::sleep(pause).await;
            }
            None => {
                backoff.reset();
                if !full {
                    tokio::time::sleep(PERIOD).await;
                }
            }
        }
    }
}

/// Sends a line, and before it how many were lost. True when the drain refused the line for good.
async fn send(sender: &mut Sender, names: &Names, line: &v1::LogLine, lost: u64) -> Result<bool, sender::SendError> {
    if lost > 0 {
        sender.send(&message::about_loss(names, line, lost)).await?;
    }
    sender.send(&message::of(names, line)).await
}

async fn note(context: &Context, key: (Uuid, Uuid), position: i64, lost: u64, error: Option<&str>) {
    let lost = i64::try_from(lost).unwrap_or(i64::MAX);
    if let Err(error) = context.store.drain_progress(key, position, lost, error).await {
        // The next note says it again; after a change of controllers some lines come twice.
        tracing::debug!(error = %chain(&error), "the progress of a drain was not noted");
    }
}
