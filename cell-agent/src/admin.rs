//! What a cell shows its operator: health and metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slipway_chassis::Shutdown;
use slipway_chassis::admin::Pages;
use slipway_chassis::driver::Registry;
use slipway_chassis::metrics::{Metrics, Source, TaskMetrics, Values};
use tokio::sync::watch;

use crate::services::Services;
use crate::usage::Sampled;

/// The pages.
pub(crate) struct Admin {
    metrics: Metrics,
    sessions: Arc<AtomicU64>,
    shutdown: Shutdown,
}

/// What the numbers are read from.
struct Parts {
    services: Arc<Services>,
    sampled: watch::Receiver<Sampled>,
    sessions: Arc<AtomicU64>,
}

impl Admin {
    /// The pages of a cell, with how many sessions with controllers it has.
    pub(crate) fn new(
        services: &Arc<Services>,
        sampled: watch::Receiver<Sampled>,
        sessions: Arc<AtomicU64>,
        tasks: Registry,
    ) -> Self {
        let shutdown = services.shutdown.clone();
        let parts = Parts { services: Arc::clone(services), sampled, sessions: Arc::clone(&sessions) };
        let metrics = Metrics::default().with(parts).with(TaskMetrics::new("cell", tasks));
        Self { metrics, sessions, shutdown }
    }
}

impl Pages for Admin {
    fn health(&self) -> Result<String, String> {
        if self.shutdown.is_stopping() {
            return Err("stopping".to_owned());
        }
        // Without one the cell goes on with what it has.
        Ok(format!("ok, sessions with controllers: {}", self.sessions.load(Ordering::Relaxed)))
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Source for Parts {
    fn read(&self, values: &mut Values<'_>) -> fmt::Result {
        let cell = self.sampled.borrow().cell;
        values.gauge("cell_workloads", "Instances, tasks and builds that run.", cell.workloads)?;
        for (name, help, mib) in [
            ("cell_memory_bytes", "Memory for workloads.", cell.memory_mb),
            ("cell_memory_reserved_bytes", "Memory limits of all workloads together.", cell.memory_reserved_mb),
            ("cell_memory_used_bytes", "Memory that workloads use.", cell.memory_used_mb),
            ("cell_disk_bytes", "Disk for workloads.", cell.disk_mb),
            ("cell_disk_reserved_bytes", "Disk limits of all workloads together.", cell.disk_reserved_mb),
            ("cell_disk_used_bytes", "Disk that workloads use.", cell.disk_used_mb),
        ] {
            values.gauge(name, help, mib << 20)?;
        }
        let free = self.services.cache.free_bytes();
        values.gauge("cell_file_system_free_bytes", "Free on the file system of the state directory.", free)?;
        let waiting = self.services.outbox.waiting() as u64;
        values.gauge("cell_observations_waiting", "Observations that no controller has acknowledged.", waiting)?;
        let sessions = self.sessions.load(Ordering::Relaxed);
        values.gauge("cell_controller_sessions", "Open sessions with controllers.", sessions)
    }
}
