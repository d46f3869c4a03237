//! What a controller shows its operator: health and metrics.

use std::fmt;
use std::sync::Arc;

use slipway_chassis::Shutdown;
use slipway_chassis::admin::Pages;
use slipway_chassis::driver::Registry;
use slipway_chassis::metrics::{Metrics, Source, TaskMetrics, Values};
use sqlx::PgPool;
use tokio::sync::watch;

use crate::cells::hub::CellHub;
use crate::routers::hub::RouterHub;
use crate::store::query_times::QueryMetrics;

/// The pages.
pub(crate) struct Admin {
    metrics: Metrics,
    shutdown: Shutdown,
}

/// What the numbers are read from.
pub(crate) struct Parts {
    /// Pools of connections to the database, by name.
    pub(crate) pools: [(&'static str, PgPool); 2],
    /// Cells with a session.
    pub(crate) cells: Arc<CellHub>,
    /// Routers with a session.
    pub(crate) routers: Arc<RouterHub>,
    /// The planner's term while this controller plans.
    pub(crate) leading: watch::Receiver<Option<i64>>,
}

impl Admin {
    pub(crate) fn new(parts: Parts, tasks: Registry, shutdown: Shutdown) -> Self {
        let tasks = TaskMetrics::new("controller", tasks);
        Self { metrics: Metrics::default().with(parts).with(tasks).with(QueryMetrics), shutdown }
    }
}

impl Pages for Admin {
    fn health(&self) -> Result<String, String> {
        if self.shutdown.is_stopping() { Err("stopping".to_owned()) } else { Ok("ok".to_owned()) }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Source for Parts {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        values.gauge(
            "controller_planning",
            "1 while this controller holds the planner's lease.",
            u64::from(self.leading.borrow().is_some()),
        )?;
        values.gauge("controller_cell_sessions", "Cells with a session here.", self.cells.connected() as u64)?;
        let routers = self.routers.all().len() as u64;
        values.gauge("controller_router_sessions", "Routers with a session here.", routers)?;
        let pools = |count: fn(&PgPool) -> u64| self.pools.iter().map(move |(name, pool)| (*name, count(pool)));
        let open = pools(|pool| u64::from(pool.size()));
        values.gauges("controller_database_connections", "Connections to Postgres.", "pool", open)?;
        let idle = pools(|pool| pool.num_idle() as u64);
        values.gauges("controller_database_connections_idle", "Those that are free.", "pool", idle)
    }
}
