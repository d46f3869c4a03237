//! The Query service: controllers read access lines here.

use std::path::PathBuf;
use std::sync::Arc;

use slipway_chassis::chain;
use slipway_log_ring::{GAP, Reader, Record, STDERR};
use slipway_protocol::v1::query_server::Query;
use slipway_protocol::v1::{EnvVar, LogBatch, LogLine, LogQuery};
use slipway_protocol::{LOG_ITSELF, PeerIdentity, Role};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access_log::ring_directory;
use crate::sync::TableStore;

const MAX_LINES: u32 = 1_000;

pub(crate) struct LogQueries {
    pub(crate) root: PathBuf,
    pub(crate) store: Arc<TableStore>,
    pub(crate) router: Uuid,
    pub(crate) cluster: Uuid,
}

#[tonic::async_trait]
impl Query for LogQueries {
    async fn read_logs(&self, request: Request<LogQuery>) -> Result<Response<LogBatch>, Status> {
        let peer = PeerIdentity::of_request(&request, Role::Controller)?;
        if peer.cluster != self.cluster {
            return Err(Status::permission_denied("a controller of another cluster"));
        }
        let query = request.into_inner();
        let directory = ring_directory(&self.root, &query.source_id)
            .ok_or_else(|| Status::invalid_argument("source_id is not an app's guid"))?;
        if query.limit > MAX_LINES {
            return Err(Status::invalid_argument(format!("limit is at most {MAX_LINES}")));
        }
        let wanted = slipway_log_ring::Query {
            start_ns: query.start_unix_ns,
            end_ns: if query.end_unix_ns == 0 { i64::MAX } else { query.end_unix_ns },
            descending: query.descending,
            limit: if query.limit == 0 { MAX_LINES } else { query.limit } as usize,
        };
        let (store, ring) = (Arc::clone(&self.store), format!("router:{}:{}", self.router, query.source_id));
        let work = tokio::task::spawn_blocking(move || {
            let records = Reader::new(&directory).range(wanted)?;
            let tags = if records.is_empty() { Vec::new() } else { tags(&store, &query.source_id) };
            Ok(records.into_iter().map(|record| line(record, &query.source_id, &tags, &ring)).collect())
        });
        let lines: Result<Vec<LogLine>, slipway_log_ring::RingError> =
            work.await.map_err(|error| Status::internal(error.to_string()))?;
        lines
            .map(|lines| Response::new(LogBatch { lines }))
            .map_err(|error| Status::internal(chain(&error).to_string()))
    }
}

/// What the table knows about the app. Reads are rare beside requests, so there is no index for them.
fn tags(store: &TableStore, app_id: &str) -> Vec<EnvVar> {
    let table = store.current().load();
    let Some(entry) = table.pools().find(|entry| entry.pool.app_id == app_id) else { return Vec::new() };
    let pool = &entry.pool;
    let pairs = [
        ("app_id", &pool.app_id),
        ("app_name", &pool.app_name),
        ("space_name", &pool.space_name),
        ("organization_name", &pool.organization_name),
    ];
    pairs.into_iter().map(|(name, value)| EnvVar { name: name.to_owned(), value: value.clone() }).collect()
}

fn line(record: Record, app_id: &str, tags: &[EnvVar], ring: &str) -> LogLine {
    LogLine {
        unix_ns: record.unix_ns,
        seq: record.seq,
        stderr: record.flags & STDERR != 0,
        instance_id: index_of(&record.text),
        text: record.text.into(),
        source_id: app_id.to_owned(),
        source_type: if record.flags & GAP != 0 { LOG_ITSELF } else { "RTR" }.to_owned(),
        tags: tags.to_vec(),
        ring: ring.to_owned(),
    }
}

/// The instance that answered, as the end of the line says; what a client sent stands in quotes before it.
fn index_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let index = text.rsplit_once(" app_index:\"").and_then(|(_, rest)| rest.split_once('"'));
    match index {
        Some((index, _)) if index.bytes().all(|byte| byte.is_ascii_digit()) => index.to_owned(),
        // No instance had to do with it.
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_read_from_the_end() {
        assert_eq!(index_of(b"x \"evil app_index:\\\"9\" app_id:\"a\" app_index:\"3\" instance_id:\"i\""), "3");
        assert_eq!(index_of(b"x app_id:\"a\" app_index:\"-\" instance_id:\"-\""), "0");
        assert_eq!(index_of(b"12 access lines were dropped"), "0");
    }
}
