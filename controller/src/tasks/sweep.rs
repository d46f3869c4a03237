//! What is looked at now and then: this controller's own row, builds and tasks that nobody can run, revisions that serve,
//! blobs that nothing speaks of.

use std::path::PathBuf;
use std::time::Duration;

use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};

use super::leftovers;
use crate::blobs::{BlobError, BlobStore};
use crate::context::Context;
use crate::domain::{DomainError, deployments, outcomes};
use crate::store::cluster::ControllerRow;

/// The look at what nobody can run, as a task.
pub const SWEEP: Definition = Definition {
    name: "sweep",
    description: "Says that this controller lives, ends builds and tasks that nobody can run, and notes revisions that serve",
    period: Duration::from_secs(5),
    woken_by: "",
};

/// The look at the object store, as a task.
pub const BLOBS: Definition = Definition {
    name: "blobs",
    description: "Removes blobs that nothing speaks of, and what broken uploads have left",
    period: Duration::from_secs(300),
    woken_by: "",
};

/// Keeps the own row alive, ends builds and tasks that nobody can run, and notes which revisions serve.
pub struct Sweep {
    /// Their rows.
    pub context: Context,
    /// The row of this controller.
    pub own: ControllerRow,
}

impl BackgroundTask for Sweep {
    type Error = DomainError;

    async fn run(&mut self) -> Result<Next, DomainError> {
        if let Err(error) = self.context.store.controller_seen(&self.own).await {
            tracing::debug!(error = %chain(&error), "this controller could not say that it lives");
        }
        outcomes::sweep(&self.context).await?;
        self.context.store.revisions_seen_serving(deployments::STEADY_S).await?;
        Ok(Next::AfterPeriod)
    }
}

/// Removes blobs that nothing speaks of any more, and what broken uploads have left beside them.
pub struct BlobSweep {
    /// The object store.
    pub blobs: BlobStore,
    /// Where it keeps its files.
    pub directory: PathBuf,
}

impl BackgroundTask for BlobSweep {
    type Error = BlobError;

    async fn run(&mut self) -> Result<Next, BlobError> {
        let directory = self.directory.clone();
        let looked = tokio::task::spawn_blocking(move || leftovers::remove(&directory, leftovers::AGE));
        match looked.await.map_err(std::io::Error::other).flatten() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "leftovers of broken uploads were removed"),
            Err(error) => tracing::warn!(error = %chain(&error), "leftovers of uploads cannot be looked for"),
        }
        self.blobs.sweep().await?;
        Ok(Next::AfterPeriod)
    }
}
