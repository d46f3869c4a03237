//! Questions that only cells and routers can answer: scatter, gather within a deadline, name who did not answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use slipway_api_types::AssignmentId;
use slipway_protocol::dial::{Dialer, Wanted};
use slipway_protocol::v1;
use slipway_protocol::v1::query_client::QueryClient;
use tonic::transport::{Channel, Endpoint};

use super::hub::CellHub;
use crate::context::{CellQueries, LogAnswer};

/// What does not answer in this time is named instead. Longer makes each read as slow as the deadest host.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// Lines of one answer.
const MOST_LINES: u32 = 1_000;
/// An answer of 1,000 long lines passes tonic's default of 4 MiB.
const MOST_BYTES: usize = 128 << 20;

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
    directory: Arc<Directory>,
    dialer: Dialer,
    /// By name, with the address that each was opened for.
    channels: Mutex<BTreeMap<String, (String, Channel)>>,
}

impl Queries {
    /// Over these sessions and addresses.
    #[must_use]
    pub fn new(hub: Arc<CellHub>, directory: Arc<Directory>, dialer: Dialer) -> Self {
        Self { hub, directory, dialer, channels: Mutex::default() }
    }

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
        let mut client = QueryClient::new(channel).max_decoding_message_size(MOST_BYTES);
        match tokio::time::timeout(DEADLINE, client.read_logs(query)).await {
            Ok(Ok(batch)) => Some(batch.into_inner().lines),
            Ok(Err(status)) => {
                tracing::debug!(address, reason = status.message(), "a log query failed");
                None
            }
            Err(_) => None,
        }
    }
}

#[async_trait]
impl CellQueries for Queries {
    async fn usage(&self, assignments: &[AssignmentId]) -> HashMap<AssignmentId, v1::Usage> {
        self.hub.usage(assignments)
    }

    async fn read_logs(&self, query: v1::LogQuery) -> LogAnswer {
        let limit = if query.limit == 0 { MOST_LINES } else { query.limit.min(MOST_LINES) };
        let query = v1::LogQuery { limit, ..query };
        let peers = self.directory.all();
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
        merge(&mut answer.lines, query.descending, limit);
        answer
    }
}

/// The member of a name in the directory, `cell ID` or `router ID`.
fn member(name: &str) -> Option<Wanted> {
    let (role, id) = name.split_once(' ')?;
    Some(Wanted { role: role.parse().ok()?, id: Some(id.parse().ok()?) })
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
    fn a_name_says_who_must_answer() {
        let id = uuid::Uuid::from_u128(7);
        let wanted = |role| Some(Wanted { role, id: Some(id) });
        assert_eq!(member(&format!("cell {id}")), wanted(slipway_protocol::Role::Cell));
        assert_eq!(member(&format!("router {id}")), wanted(slipway_protocol::Role::Router));
        assert!(member("cell 1").is_none() && member("").is_none());
    }

    #[test]
    fn who_comes_while_the_list_is_read_stays() {
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
    fn lines_are_merged_by_time_and_limited_from_the_right_end() {
        let mut lines = vec![line(5, "a", 2), line(5, "a", 1), line(3, "b", 1), line(5, "a", 2)];
        merge(&mut lines, false, 10);
        assert_eq!(lines, [line(3, "b", 1), line(5, "a", 1), line(5, "a", 2)]);
        merge(&mut lines, true, 2);
        assert_eq!(lines, [line(5, "a", 2), line(5, "a", 1)]);
    }
}
