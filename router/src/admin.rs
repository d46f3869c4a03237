//! What the router shows its operator: health, metrics, and `/table` for people on the machine itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use slipway_chassis::admin::Pages;
use slipway_chassis::metrics::{Metrics, Source, Values};

use crate::metrics::{AllCores, CoreMetrics};
use crate::proxy::Shared;
use crate::table::Table;

/// What the pages show.
pub(crate) struct Admin {
    shared: Arc<Shared>,
    metrics: Metrics,
    draining: Arc<AtomicBool>,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>, cores: Vec<Arc<CoreMetrics>>, draining: Arc<AtomicBool>) -> Self {
        let metrics = Metrics::default().with(AllCores(cores)).with(Parts(Arc::clone(&shared)));
        Self { shared, metrics, draining }
    }
}

impl Pages for Admin {
    fn health(&self) -> Result<String, String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        match self.shared.store.current().load().version() {
            Some(version) => Ok(format!("ok, table {version}")),
            None => Err("no routing table yet".to_owned()),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn others(&self) -> &'static [&'static str] {
        &["/table"]
    }

    fn other(&self, path: &str, from: SocketAddr) -> Option<(StatusCode, String)> {
        (path == "/table").then(|| match from.ip().to_canonical().is_loopback() {
            true => (StatusCode::OK, describe(&self.shared.store.current().load())),
            false => (StatusCode::FORBIDDEN, "only from this machine\n".to_owned()),
        })
    }
}

/// What the table, the sessions and the log say of themselves.
struct Parts(Arc<Shared>);

impl Source for Parts {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        let store = &self.0.store;
        let table = store.current().load();
        let durable = *store.durable().borrow();
        let (seq, epoch) = table.version().map_or((0, 0), |version| (version.seq, version.epoch));
        let unusable: usize = table.pools().map(|pool| pool.unusable).sum();
        values.gauge("router_table_version", "Sequence of the table in force.", seq)?;
        values.gauge("router_table_epoch", "Epoch of the table in force.", epoch)?;
        let durable = durable.map_or(0, |version| version.seq);
        values.gauge("router_table_durable_version", "Sequence of the table on disk.", durable)?;
        values.gauge("router_table_routes", "Routes in the table.", table.route_count() as u64)?;
        values.gauge("router_table_pools", "Pools in the table.", table.pool_count() as u64)?;
        values.gauge("router_table_unusable_endpoints", "Endpoints without a usable address.", unusable as u64)?;
        let connected = u64::from(store.status.connected.load(Ordering::Relaxed));
        values.gauge("router_controller_connected", "1 while a session with a controller is open.", connected)?;
        let sessions = store.status.sessions.load(Ordering::Relaxed);
        values.counter("router_controller_sessions_total", "Sessions begun.", sessions)?;
        let refused = store.status.refused.load(Ordering::Relaxed);
        values.counter("router_table_refused_total", "Table messages refused.", refused)?;
        values.counter("router_access_lines_dropped_total", "Access lines dropped.", self.0.log.dropped())?;
        let descriptors = &self.0.descriptors;
        values.gauge("router_descriptors_used", "Descriptors in use.", descriptors.used() as u64)?;
        values.gauge("router_descriptors_most", "Clients are turned away above this.", descriptors.most() as u64)
    }
}

/// The table for people, sorted so that two can be compared.
fn describe(table: &Table) -> String {
    let mut routes: Vec<_> = table.routes().collect();
    routes
        .sort_by(|a, b| (&a.route.host, &a.route.path, &a.route.id).cmp(&(&b.route.host, &b.route.path, &b.route.id)));
    let endpoints = |id: &str| {
        let all = table.pool(id).map(|pool| pool.endpoints.as_slice()).unwrap_or_default();
        let list = all.iter().map(|one| {
            serde_json::json!({ "address": one.address, "index": one.index, "assignment": one.assignment_id, "tls": one.tls })
        });
        list.collect::<Vec<_>>()
    };
    let routes = routes.iter().map(|entry| {
        let targets = entry.targets.iter().map(|target| {
            serde_json::json!({ "pool": &*target.pool, "weight": target.weight, "endpoints": endpoints(&target.pool) })
        });
        serde_json::json!({
            "id": entry.route.id, "host": entry.route.host, "path": entry.route.path, "system": entry.route.system,
            "targets": targets.collect::<Vec<_>>(),
        })
    });
    let version = table.version().map(|version| version.to_string());
    let all = serde_json::json!({
        "version": version, "digest": hex::encode(table.digest().0), "routes": routes.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}
