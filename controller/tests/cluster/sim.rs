//! A cell and a router at the level of the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use slipway_protocol::Role;
use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::cell_command::Command as CellCommand;
use slipway_protocol::v1::cell_control_client::CellControlClient;
use slipway_protocol::v1::cell_message::Message as CellMessage;
use slipway_protocol::v1::router_command::Command as RouterCommand;
use slipway_protocol::v1::router_control_client::RouterControlClient;
use slipway_protocol::v1::router_message::Message as RouterMessage;
use slipway_protocol::v1::{self, InstanceState, Version};
use slipway_test_support::eventually;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::harness::{Harness, LIMIT};

#[derive(Default)]
pub(crate) struct CellSeen {
    pub(crate) assignments: BTreeMap<String, v1::Assignment>,
    pub(crate) version: Version,
    pub(crate) acked: u64,
    pub(crate) purged: BTreeSet<String>,
    pub(crate) members: Option<v1::Members>,
    pub(crate) ended: Option<tonic::Status>,
}

pub(crate) struct SimCell {
    pub(crate) seen: Arc<Mutex<CellSeen>>,
    pub(crate) counter: u64,
    out: mpsc::Sender<v1::CellMessage>,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) fn cell_hello(harness: &Harness, id: Uuid, zone: &str) -> v1::Hello {
    v1::Hello {
        cluster_id: harness.config.cluster_id.to_string(),
        node_id: id.to_string(),
        session: Uuid::new_v4().to_string(),
        cell: Some(v1::CellInfo {
            zone: zone.into(),
            memory_mb: 1024,
            disk_mb: 4096,
            slots: 64,
            advertise_mode: "host-port".into(),
            advertise_host: "127.0.0.1".into(),
            ..v1::CellInfo::default()
        }),
        ..v1::Hello::default()
    }
}

impl SimCell {
    /// A cell that has its session: the controller has registered it and sent it what it is to run.
    pub(crate) async fn connect(harness: &Harness, id: Uuid, zone: &str) -> Self {
        let cell = Self::with_hello(harness, id, cell_hello(harness, id, zone)).await;
        cell.welcomed().await;
        cell
    }

    /// Waits for the first set of the session, which comes when everything of the session is in place.
    pub(crate) async fn welcomed(&self) {
        eventually("the first set", LIMIT, || async {
            let seen = self.seen.lock().expect("lock");
            if seen.version == Version::default() { Err(format!("{:?}", seen.ended)) } else { Ok(()) }
        })
        .await;
    }

    /// A cell that has said this hello, whatever comes of it.
    pub(crate) async fn with_hello(harness: &Harness, id: Uuid, hello: v1::Hello) -> Self {
        let credentials = harness.credentials(Role::Cell, id);
        let mut client = CellControlClient::new(harness.channel(&credentials));
        let (out, receiver) = mpsc::channel(64);
        out.send(message(CellMessage::Hello(hello))).await.expect("hello");
        let mut stream = client.session(ReceiverStream::new(receiver)).await.expect("session").into_inner();
        let seen = Arc::new(Mutex::new(CellSeen::default()));
        let (mine, beat) = (Arc::clone(&seen), out.clone());
        let task = tokio::spawn(async move {
            loop {
                let command = match stream.message().await {
                    Ok(Some(command)) => command.command,
                    Ok(None) => break,
                    Err(status) => {
                        mine.lock().expect("lock").ended = Some(status);
                        break;
                    }
                };
                match command {
                    Some(CellCommand::Set(set)) => {
                        let digest = SetDigest::of_assignments(&set.assignments);
                        assert_eq!(set.digest, digest.to_bytes(), "the digest is of the set");
                        let applied = v1::Applied { version: set.version, digest: set.digest };
                        {
                            let mut seen = mine.lock().expect("lock");
                            seen.version = set.version.expect("version");
                            seen.assignments = set.assignments.into_iter().map(|a| (a.id.clone(), a)).collect();
                        }
                        drop(beat.send(message(CellMessage::Applied(applied))).await);
                    }
                    Some(CellCommand::Members(members)) => mine.lock().expect("lock").members = Some(members),
                    Some(CellCommand::Ack(ack)) => mine.lock().expect("lock").acked = ack.counter,
                    Some(CellCommand::Purge(purge)) => mine.lock().expect("lock").purged.extend(purge.assignment_ids),
                    Some(CellCommand::Heartbeat(beat_)) => {
                        drop(beat.send(message(CellMessage::Heartbeat(beat_))).await);
                    }
                    _ => {}
                }
            }
        });
        Self { seen, counter: 0, out, task }
    }

    pub(crate) async fn send(&self, one: CellMessage) {
        drop(self.out.send(message(one)).await);
    }

    /// Waits for assignments with this intent.
    pub(crate) async fn assigned(&self, intent: v1::Intent, count: usize) -> Vec<v1::Assignment> {
        eventually(&format!("{count} assignments to {}", intent.as_str_name()), LIMIT, || async {
            let seen = self.seen.lock().expect("lock");
            let found: Vec<_> = seen.assignments.values().filter(|a| a.intent() == intent).cloned().collect();
            if found.len() == count { Ok(found) } else { Err(format!("{:?}", seen.assignments)) }
        })
        .await
    }

    pub(crate) fn observation(&mut self, id: &str, state: InstanceState) -> v1::Observation {
        self.counter += 1;
        v1::Observation {
            counter: self.counter,
            assignment_id: id.to_owned(),
            state: state.into(),
            ready: state == InstanceState::Running,
            endpoint: Some(v1::Endpoint { host: "127.0.0.1".into(), port: 61_000 }),
            since_unix_ms: 1_700_000_000_000,
            ..v1::Observation::default()
        }
    }

    /// The one assignment of this kind, which is to come.
    pub(crate) async fn one(&self, kind: v1::WorkloadKind) -> v1::Assignment {
        eventually(&format!("one to run of {}", kind.as_str_name()), LIMIT, || async {
            let seen = self.seen.lock().expect("lock");
            let found: Vec<_> =
                seen.assignments.values().filter(|a| a.kind() == kind && a.intent() == v1::Intent::Run).collect();
            match found[..] {
                [one] => Ok(one.clone()),
                _ => Err(format!("{:?}", seen.assignments)),
            }
        })
        .await
    }

    /// Stops whatever is to stop until this many are left in its set.
    pub(crate) async fn stops_until(&mut self, left: usize) {
        let mut reported = BTreeSet::new();
        let limit = tokio::time::Instant::now() + LIMIT;
        loop {
            let all: Vec<_> = self.seen.lock().expect("lock").assignments.values().cloned().collect();
            for assignment in all.iter().filter(|a| a.intent() == v1::Intent::Stop) {
                if reported.insert(assignment.id.clone()) {
                    let stopped = self.observation(&assignment.id, InstanceState::Stopped);
                    self.report(vec![stopped]).await;
                }
            }
            if all.len() == left && all.iter().all(|a| a.intent() == v1::Intent::Run) {
                return;
            }
            assert!(tokio::time::Instant::now() < limit, "{left} are to be left: {all:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn report(&self, observations: Vec<v1::Observation>) {
        self.send(CellMessage::Observations(v1::Observations { observations })).await;
    }

    pub(crate) async fn run_all(&mut self, assignments: &[v1::Assignment]) {
        for assignment in assignments {
            let running = self.observation(&assignment.id, InstanceState::Running);
            self.report(vec![running]).await;
        }
        self.acked().await;
    }

    /// Waits until everything that was reported is acknowledged.
    pub(crate) async fn acked(&self) {
        eventually("acknowledgement", LIMIT, || async {
            let seen = self.seen.lock().expect("lock");
            if seen.acked >= self.counter {
                Ok(())
            } else {
                Err(format!("{} of {}: {:?}", seen.acked, self.counter, seen.ended))
            }
        })
        .await;
    }

    pub(crate) async fn ended(&self) -> tonic::Status {
        eventually("end of the session", LIMIT, || async { self.seen.lock().expect("lock").ended.clone().ok_or(()) })
            .await
    }
}

impl Drop for SimCell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn message(message: CellMessage) -> v1::CellMessage {
    v1::CellMessage { message: Some(message) }
}

#[derive(Default)]
pub(crate) struct RouterSeen {
    pub(crate) routes: BTreeMap<String, v1::Route>,
    pub(crate) pools: BTreeMap<String, v1::Pool>,
    pub(crate) version: Version,
    pub(crate) snapshots: u32,
    pub(crate) deltas: u32,
}

impl RouterSeen {
    fn digest(&self) -> bytes::Bytes {
        SetDigest::of_table(self.routes.values(), self.pools.values()).to_bytes()
    }

    pub(crate) fn endpoints(&self, process: Uuid) -> usize {
        self.pools.get(&format!("{process}:8080")).map_or(0, |pool| pool.endpoints.len())
    }
}

/// Applies, checks digests and acknowledges everything.
pub(crate) struct SimRouter {
    pub(crate) seen: Arc<Mutex<RouterSeen>>,
    task: tokio::task::JoinHandle<()>,
}

impl SimRouter {
    /// A router that holds its first table.
    pub(crate) async fn connect(harness: &Harness, id: Uuid) -> Self {
        let router = Self::resume(harness, id, Arc::default()).await;
        eventually("the first table", LIMIT, || async {
            if router.seen.lock().expect("lock").snapshots > 0 { Ok(()) } else { Err("none yet") }
        })
        .await;
        router
    }

    pub(crate) async fn resume(harness: &Harness, id: Uuid, seen: Arc<Mutex<RouterSeen>>) -> Self {
        let credentials = harness.credentials(Role::Router, id);
        let mut client = RouterControlClient::new(harness.channel(&credentials));
        let (out, receiver) = mpsc::channel(64);
        let hello = {
            let seen = seen.lock().expect("lock");
            let held = (seen.version != Version::default()).then_some(seen.version);
            v1::Hello {
                cluster_id: harness.config.cluster_id.to_string(),
                node_id: id.to_string(),
                session: Uuid::new_v4().to_string(),
                version: held,
                durable: held,
                digest: if held.is_some() { seen.digest() } else { bytes::Bytes::new() },
                router: Some(v1::RouterInfo::default()),
                ..v1::Hello::default()
            }
        };
        let wrap = |message| v1::RouterMessage { message: Some(message) };
        out.send(wrap(RouterMessage::Hello(hello))).await.expect("hello");
        let mut stream = client.session(ReceiverStream::new(receiver)).await.expect("session").into_inner();
        let mine = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok(Some(command)) = stream.message().await {
                let reply = match command.command {
                    Some(RouterCommand::Snapshot(snapshot)) => {
                        let mut seen = mine.lock().expect("lock");
                        seen.routes = snapshot.routes.into_iter().map(|r| (r.id.clone(), r)).collect();
                        seen.pools = snapshot.pools.into_iter().map(|p| (p.id.clone(), p)).collect();
                        seen.version = snapshot.version.expect("version");
                        seen.snapshots += 1;
                        assert_eq!(seen.digest(), snapshot.digest, "the digest is of the table");
                        ack(&seen)
                    }
                    Some(RouterCommand::Delta(delta)) => {
                        let mut seen = mine.lock().expect("lock");
                        assert_eq!(delta.from, Some(seen.version), "a delta starts where the router is");
                        seen.routes.retain(|id, _| !delta.remove_routes.contains(id));
                        seen.pools.retain(|id, _| !delta.remove_pools.contains(id));
                        seen.routes.extend(delta.upsert_routes.into_iter().map(|r| (r.id.clone(), r)));
                        seen.pools.extend(delta.upsert_pools.into_iter().map(|p| (p.id.clone(), p)));
                        seen.version = delta.to.expect("version");
                        seen.deltas += 1;
                        assert_eq!(seen.digest(), delta.digest, "the digest is of the table");
                        ack(&seen)
                    }
                    Some(RouterCommand::Heartbeat(beat)) => RouterMessage::Heartbeat(beat),
                    _ => continue,
                };
                drop(out.send(wrap(reply)).await);
            }
        });
        Self { seen, task }
    }

    pub(crate) async fn routes(&self, process: Uuid, endpoints: usize) {
        eventually(&format!("{endpoints} endpoints"), LIMIT, || async {
            let found = self.seen.lock().expect("lock").endpoints(process);
            if found == endpoints { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

impl Drop for SimRouter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ack(seen: &RouterSeen) -> RouterMessage {
    RouterMessage::Ack(v1::RouterAck {
        applied: Some(seen.version),
        applied_digest: seen.digest(),
        durable: Some(seen.version),
    })
}
