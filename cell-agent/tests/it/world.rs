//! One cell, one controller, one set of files; the agent can be killed and started again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipway_cell_agent::config::{Advertise, CellConfig};
use slipway_cell_agent::run_with;
use slipway_cell_agent::sandbox::SandboxSpec;
use slipway_cell_agent::sim::{Program, SimRuntime};
use slipway_chassis::Shutdown;
use slipway_layers::Digest;
use slipway_protocol::v1::{
    Assignment, Blob, CheckKind, HealthCheck, InstanceState, Intent, Layer, LogSource, Observation, WorkloadKind,
    WorkloadSpec,
};
use slipway_protocol::{ClusterAuthority, Role};
use uuid::Uuid;

use crate::fake_controller::FakeController;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) controller: FakeController,
    pub(crate) runtime: Arc<SimRuntime>,
    pub(crate) config: CellConfig,
    _directory: tempfile::TempDir,
    agent: Option<(Shutdown, tokio::task::JoinHandle<()>)>,
}

/// A small tar, compressed: what layers, droplets and packages are made of here.
pub(crate) fn archive(files: &[(&str, &str)]) -> (Vec<u8>, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        tar.append_data(&mut header, name, text.as_bytes()).expect("append");
    }
    let bytes = tar.into_inner().expect("tar");
    (zstd::encode_all(&bytes[..], 1).expect("compress"), Digest::of(&bytes))
}

impl World {
    pub(crate) async fn new(script: impl Fn(&SandboxSpec, Option<&Path>) -> Program + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let (cluster, id) = (Uuid::new_v4(), Uuid::new_v4());
        let (authority, _) = ClusterAuthority::generate(cluster).expect("authority");
        let tls = directory.path().join("tls");
        authority.issue(Role::Cell, id, &[]).expect("credentials").save(&tls).expect("save");
        let controller = FakeController::start(&authority, cluster).await;
        let config = CellConfig {
            id,
            cluster_id: cluster,
            zone: "z1".to_owned(),
            tags: Vec::new(),
            isolation_segment: String::new(),
            state_directory: directory.path().join("state"),
            run_directory: directory.path().join("run"),
            controllers: vec![controller.address],
            tls_directory: tls,
            admin_listen: None,
            query_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise: Advertise::Direct,
            advertise_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            memory_mb: 4096,
            disk_mb: 4096,
            slots: 64,
            network: "10.62.0.0/16".to_owned(),
            name: "t".to_owned(),
            resolvers: Vec::new(),
            staging_uses_host_settings: false,
            log_ring_bytes: 1 << 20,
            cache_mb: 1024,
            shares: Default::default(),
            registries: None,
            ready_file: Some(directory.path().join("ready")),
        };
        let runtime = SimRuntime::new(&directory.path().join("volumes"), script);
        let mut world = Self { controller, runtime, config, _directory: directory, agent: None };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
        let shutdown = Shutdown::new();
        let (runtime, config, stop) = (Arc::clone(&self.runtime), self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            run_with(runtime, config, stop).await.expect("the agent runs");
        });
        self.agent = Some((shutdown, task));
    }

    /// Ends the agent; what it started goes on.
    pub(crate) async fn kill(&mut self) {
        if let Some((shutdown, task)) = self.agent.take() {
            assert_eq!(shutdown.finish(LIMIT).await, 0, "every task of the agent ends");
            task.await.expect("the agent ends cleanly");
        }
    }

    /// A layer that can be fetched.
    pub(crate) fn layer(&self, kind: &str, line: &str) -> Layer {
        let (bytes, digest) = archive(&[(&format!("usr/{line}"), "binary")]);
        Layer {
            digest: digest.as_bytes().to_vec().into(),
            blob_size: bytes.len() as u64,
            blob: self.controller.put_blob(bytes),
            size: 6,
            kind: kind.to_owned(),
            name: line.to_owned(),
            line: line.to_owned(),
            version: "1".to_owned(),
        }
    }

    /// A web app with a stack and a droplet that can be fetched.
    pub(crate) fn web(&self) -> WorkloadSpec {
        let (droplet, _) = archive(&[("app/server.js", "hello")]);
        WorkloadSpec {
            kind: WorkloadKind::Lrp.into(),
            layers: vec![self.layer("stack", "debian12")],
            droplet: Some(Blob {
                size: droplet.len() as u64,
                digest: self.controller.put_blob(droplet),
                format: "tar.zst".to_owned(),
            }),
            command: "node server.js".to_owned(),
            memory_mb: 64,
            disk_mb: 128,
            ports: vec![8080],
            health: Some(HealthCheck { kind: CheckKind::Port.into(), start_timeout_ms: 300, ..HealthCheck::default() }),
            log: Some(LogSource { source_id: "app-1".into(), source_type: "APP/PROC/WEB".into(), tags: vec![] }),
            stack: "debian12".to_owned(),
            user: "vcap".to_owned(),
            ..WorkloadSpec::default()
        }
    }

    /// Waits for an observation that satisfies `is`.
    pub(crate) async fn observed(&self, what: &str, is: impl Fn(&Observation) -> bool) -> Observation {
        eventually(what, LIMIT, || async {
            let seen = self.controller.seen();
            seen.iter().find(|observation| is(observation)).cloned().ok_or_else(|| {
                seen.iter().map(|seen| (seen.state(), seen.ready, seen.reason.clone())).collect::<Vec<_>>()
            })
        })
        .await
    }

    pub(crate) async fn state(&self, id: Uuid, state: InstanceState) -> Observation {
        let name = id.to_string();
        self.observed(&format!("{state:?}"), |seen| seen.assignment_id == name && seen.state() == state).await
    }
}

pub(crate) fn assignment(id: Uuid, slot: u32, spec: &WorkloadSpec, digest: &Bytes, intent: Intent) -> Assignment {
    Assignment {
        id: id.to_string(),
        spec_digest: digest.clone(),
        kind: spec.kind,
        intent: intent.into(),
        attempt: 1,
        slot,
        ..Assignment::default()
    }
}

/// Asks every 25 ms until `Ok`, or panics after `limit` with the last `Err`. The tests' common crate has the same and a
/// database client with it, which doubles what must be compiled here.
pub(crate) async fn eventually<T, E, Fut>(what: &str, limit: Duration, ask: impl Fn() -> Fut) -> T
where
    E: std::fmt::Debug,
    Fut: Future<Output = Result<T, E>>,
{
    let begun = std::time::Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(status) if begun.elapsed() > limit => panic!("{what}: not within {limit:?}; last status: {status:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}
