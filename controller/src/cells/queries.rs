//! Questions that only cells and routers can answer: scatter over those that may know, gather within a deadline, name who
//! did not answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use slipway_api_types::AssignmentId;
use slipway_protocol::dial::{Dialer, ExpectedPeer};
use slipway_protocol::v1;
use slipway_protocol::v1::query_client::QueryClient;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::asking::Asking;
use super::hub::CellHub;
use crate::context::{CellQueries, LogAnswer};
use crate::store::Store;

/// What does not answer in this time is named instead. Longer makes each read as slow as the deadest host.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// Lines of one answer.
const MAX_LINES: u32 = 1_000;
/// An answer of 1,000 long lines passes tonic's default of 4 MiB.
const MAX_BYTES: usize = 128 << 20;

/// Every registered cell and router by name, with the address of its Query service.
#[derive(Debug, Default)]
pub struct Directory(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    all: BTreeMap<String, String>,
    /// Those that came since the reading of the store's list began.
    fresh: BTreeMap<String, String>,
}

impl Directory {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session began: its cell or router is registered by now.
    pub fn set(&self, name: String, address: &str) {
        if !address.is_empty() {
            let mut addresses = self.addresses();
            addresses.all.insert(name.clone(), address.to_owned());
            addresses.fresh.insert(name, address.to_owned());
        }
    }

    /// The store's list is about to be read: whoever comes from now on may be missing from it.
    pub fn reading(&self) {
        self.addresses().fresh.clear();
    }

    /// The store's whole list. What is not on it was removed, unless it came while the list was read.
    pub fn replace(&self, mut list: BTreeMap<String, String>) {
        let mut addresses = self.addresses();
        list.extend(addresses.fresh.clone());
        addresses.all = list;
    }

    fn all(&self) -> BTreeMap<String, String> {
        self.addresses().all.clone()
    }
}

/// Asks cells and routers over mutual TLS.
pub struct Queries {
    hub: Arc<CellHub>,
    peers: Arc<Peers>,
    asking: Asking<Question, LogAnswer>,
}

/// A log query, to tell equal ones: source, start, end, descending, limit.
type Question = (String, i64, i64, bool, u32);

/// Where questions go.
struct Peers {
    store: Store,
    directory: Arc<Directory>,
    dialer: Dialer,
    /// By name, with the address that each was opened for.
    channels: Mutex<BTreeMap<String, (String, Channel)>>,
}

impl Queries {
    /// Over these sessions and addresses.
    #[must_use]
    pub fn new(hub: Arc<CellHub>, store: Store, directory: Arc<Directory>, dialer: Dialer) -> Self {
        let peers = Arc::new(Peers { store, directory, dialer, channels: Mutex::default() });
        Self { hub, peers, asking: Asking::new() }
    }
}

impl Peers {
    /// A channel to the member of this name, which must be the one that answers at its address.
    fn channel(&self, name: &str, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = channels.get(name).filter(|(at, _)| at == address);
        if let Some((_, channel)) = known {
            return Some(channel.clone());
        }
        let settings =
            |endpoint: Endpoint| endpoint.connect_timeout(DEADLINE).http2_keep_alive_interval(Duration::from_secs(5));
        let channel = self.dialer.channel(address.parse().ok()?, member(name)?, settings).ok()?;
        channels.insert(name.to_owned(), (address.to_owned(), channel.clone()));
        Some(channel)
    }

    async fn ask(&self, name: &str, address: &str, query: v1::LogQuery) -> Option<Vec<v1::LogLine>> {
        let channel = self.channel(name, address)?;
        let mut client = QueryClient::new(channel).max_decoding_message_size(MAX_BYTES);
        match tokio::time::timeout(DEADLINE, client.read_logs(query)).await {
            Ok(Ok(batch)) => Some(batch.into_inner().lines),
            Ok(Err(status)) => {
                tracing::debug!(address, reason = status.message(), "a log query failed");
                None
            }
            Err(_) => None,
        }
    }

    /// The cells that hold instances, tasks or builds of an app, or held them not long ago; `None` when that is not known.
    async fn cells_of(&self, source: &str) -> Option<BTreeSet<String>> {
        let app = Uuid::parse_str(source).ok()?;
        match self.store.cells_of_app(app).await {
            Ok(cells) => Some(cells.into_iter().map(peer_name).collect()),
            Err(error) => {
                tracing::debug!(%error, "all cells are asked: where the app was is not known");
                None
            }
        }
    }

    async fn read_logs(&self, query: v1::LogQuery) -> LogAnswer {
        let cells = self.cells_of(&query.source_id).await;
        let peers = may_hold(self.directory.all(), cells.as_ref());
        let asked = peers.iter().map(|(name, address)| {
            let query = query.clone();
            async move { (name.clone(), self.ask(name, address, query).await) }
        });
        let mut answer = LogAnswer::default();
        for (name, lines) in join_all(asked).await {
            match lines {
                Some(lines) => answer.lines.extend(lines),
                None => answer.unanswered.push(name),
            }
        }
        merge(&mut answer.lines, query.descending, query.limit);
        answer
    }
}

/// The member of a name in the directory, `cell ID` or `router ID`.
fn member(name: &str) -> Option<ExpectedPeer> {
    let (role, id) = name.split_once(' ')?;
    Some(ExpectedPeer { role: role.parse().ok()?, id: Some(id.parse().ok()?) })
}

/// Name of a cell in the directory, and before readers when it does not answer.
#[must_use]
pub fn peer_name(cell: Uuid) -> String {
    format!("cell {cell}")
}

/// Of all that could be asked, those cells and every router: each of these may have passed requests of the app.
fn may_hold(mut peers: BTreeMap<String, String>, cells: Option<&BTreeSet<String>>) -> BTreeMap<String, String> {
    if let Some(cells) = cells {
        peers.retain(|name, _| !name.starts_with("cell ") || cells.contains(name));
    }
    peers
}

#[async_trait]
impl CellQueries for Queries {
    async fn usage(&self, assignments: &[AssignmentId]) -> HashMap<AssignmentId, v1::Usage> {
        self.hub.usage(assignments)
    }

    async fn read_logs(&self, asker: &str, query: v1::LogQuery) -> LogAnswer {
        let limit = if query.limit == 0 { MAX_LINES } else { query.limit.min(MAX_LINES) };
        let query = v1::LogQuery { limit, ..query };
        let (source, span) = (query.source_id.clone(), (query.start_unix_ns, query.end_unix_ns));
        let question = (source, span.0, span.1, query.descending, limit);
        let peers = Arc::clone(&self.peers);
        self.asking.ask(asker, question, move || async move { peers.read_logs(query).await }).await
    }
}

/// Orders by time; lines of one ring at the same time keep their own order. Keeps `limit` of them from the front.
fn merge(lines: &mut Vec<v1::LogLine>, descending: bool, limit: u32) {
    lines.sort_by(|a, b| (a.unix_ns, &a.ring, a.seq).cmp(&(b.unix_ns, &b.ring, b.seq)));
    lines.dedup_by(|a, b| !a.ring.is_empty() && a.ring == b.ring && a.seq == b.seq && a.unix_ns == b.unix_ns);
    if descending {
        lines.reverse();
    }
    lines.truncate(limit as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unix_ns: i64, ring: &str, seq: u64) -> v1::LogLine {
        v1::LogLine { unix_ns, ring: ring.into(), seq, ..v1::LogLine::default() }
    }

    #[test]
    fn a_member_s_name_determines_the_expected_peer() {
        let id = uuid::Uuid::from_u128(7);
        let wanted = |role| Some(ExpectedPeer { role, id: Some(id) });
        assert_eq!(member(&format!("cell {id}")), wanted(slipway_protocol::Role::Cell));
        assert_eq!(member(&format!("router {id}")), wanted(slipway_protocol::Role::Router));
        assert!(member("cell 1").is_none() && member("").is_none());
    }

    #[test]
    fn members_that_register_while_the_list_is_read_stay() {
        let directory = Directory::default();
        directory.set("cell 1".into(), "a");
        directory.reading();
        directory.set("cell 2".into(), "b");
        directory.set("cell 3".into(), "");
        directory.replace(BTreeMap::from([("router 1".into(), "r".into())]));
        let wanted = [("cell 2", "b"), ("router 1", "r")].map(|(name, address)| (name.into(), address.into()));
        assert_eq!(directory.all(), BTreeMap::from(wanted));
        directory.reading();
        directory.replace(BTreeMap::new());
        assert_eq!(directory.all(), BTreeMap::new(), "it was removed");
    }

    #[test]
    fn cells_that_never_had_the_app_are_not_asked() {
        let (one, other) = (peer_name(Uuid::from_u128(1)), peer_name(Uuid::from_u128(2)));
        let all = BTreeMap::from([one.clone(), other, "router 1".into()].map(|name| (name, "address".to_owned())));
        assert_eq!(may_hold(all.clone(), None), all, "when it is not known, all are");
        let asked = may_hold(all, Some(&BTreeSet::from([one.clone(), "cell that was removed".into()])));
        assert_eq!(asked.into_keys().collect::<Vec<_>>(), [one, "router 1".into()]);
    }

    #[test]
    fn lines_are_merged_by_time_and_limited_from_the_right_end() {
        let mut lines = vec![line(5, "a", 2), line(5, "a", 1), line(3, "b", 1), line(5, "a", 2)];
        merge(&mut lines, false, 10);
        assert_eq!(lines, [line(3, "b", 1), line(5, "a", 1), line(5, "a", 2)]);
        merge(&mut lines, true, 2);
        assert_eq!(lines, [line(5, "a", 2), line(5, "a", 1)]);
    }
}
