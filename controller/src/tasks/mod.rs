//! Background tasks that converge: tail of the change log, lease, placement, deployments, liveness of cells, acknowledgements of
//! routers, release of slots, import of layers. Each reads the state and acts; a wake only makes it run sooner.

pub mod acks;
pub mod deployments;
pub mod layers;
pub mod lease;
pub mod leftovers;
pub mod liveness;
pub mod place;
pub mod release;
pub mod sweep;
pub mod tail;

use std::sync::Arc;

use slipway_chassis::driver::Wake;
use slipway_chassis::{Shutdown, chain};
use slipway_placement::PlacementStore;
use tokio::time::Instant;

use crate::cells::hub::CellHub;
use crate::cells::queries::Directory;
use crate::context::Context;
use crate::drains::{self, DRAINS, Drains};
use crate::jobs::{JOBS, Jobs};
use crate::routers::hub::RouterHub;
use crate::routers::publisher::{PUBLISH, Publisher, Tables};
use crate::store::cluster::ControllerRow;
use acks::{ACKNOWLEDGEMENTS, Recording};
use deployments::{DEPLOYMENTS, Deploying};
use lease::Leadership;
use liveness::{LIVENESS, Liveness};
use place::{PLANNER, Planning};
use release::{RELEASE, Releasing};
use sweep::{BLOBS, BlobSweep, SWEEP, Sweep};
use tail::{TAIL, Tail};

/// What background tasks need.
pub(crate) struct Background<'a> {
    pub(crate) context: &'a Context,
    pub(crate) placement: Arc<dyn PlacementStore>,
    /// Who plans.
    pub(crate) leadership: Leadership,
    /// The row of this controller.
    pub(crate) own: ControllerRow,
    pub(crate) shutdown: &'a Shutdown,
}

impl Background<'_> {
    /// Starts them all.
    pub(crate) fn start(
        self,
        hub: &Arc<CellHub>,
        directory: Arc<Directory>,
        router_hub: &Arc<RouterHub>,
        tables: &Arc<Tables>,
    ) {
        let Self { context, placement, leadership, own, shutdown } = self;
        let (tasks, wake, config) = (&context.tasks, &context.wake, &context.config);
        let (notifiers, store) = (|| Arc::clone(wake), || Arc::clone(&placement));
        tasks.start(shutdown, TAIL, wake.tail.clone(), Tail::new(store(), Arc::clone(hub), notifiers()));
        let planning = Planning::new(store(), config.limits.overcommit(), leadership.clone(), notifiers());
        tasks.start(shutdown, PLANNER, wake.planner.clone(), planning);
        let deploying = Deploying { context: context.clone(), leadership: leadership.clone() };
        tasks.start(shutdown, DEPLOYMENTS, wake.deployments.clone(), deploying);
        let recording = Recording::new(store(), Arc::clone(router_hub), notifiers());
        tasks.start(shutdown, ACKNOWLEDGEMENTS, wake.acknowledgements.clone(), recording);
        let releasing = Releasing::new(store(), context.store.clone(), notifiers());
        tasks.start(shutdown, RELEASE, wake.release.clone(), releasing);
        match drains::client_tls() {
            Ok(tls) => {
                let drains = Drains::new(context.clone(), leadership.term.clone(), tls, shutdown.clone());
                tasks.start(shutdown, DRAINS, wake.drains.clone(), drains);
            }
            Err(error) => tracing::error!(error = %chain(error.as_ref()), "syslog drains are not served"),
        }
        let liveness = Liveness {
            context: context.clone(),
            placement: store(),
            hub: Arc::clone(hub),
            directory,
            leadership,
            wake: notifiers(),
            started: Instant::now(),
        };
        tasks.start(shutdown, LIVENESS, wake.liveness.clone(), liveness);
        let publisher = Publisher {
            tables: Arc::clone(tables),
            placement: store(),
            vault: context.vault.clone(),
            system_domain: config.system_domain.clone(),
        };
        tasks.start(shutdown, PUBLISH, wake.publish.clone(), publisher);
        tasks.start(shutdown, SWEEP, Wake::default(), Sweep { context: context.clone(), own });
        let blobs = BlobSweep { blobs: context.blobs.clone(), directory: config.blob_directory.clone() };
        tasks.start(shutdown, BLOBS, Wake::default(), blobs);
        tasks.start(shutdown, JOBS, wake.jobs.clone(), Jobs::new(context.clone(), shutdown.clone()));
    }
}
