//! Background tasks that converge: tail of the change log, lease, placement, deployments, liveness of cells, acknowledgements of
//! routers, release of slots, import of layers. Each reads the state and acts; a poke only makes it run sooner.

pub mod acks;
pub mod deployments;
pub mod layers;
pub mod lease;
pub mod leftovers;
pub mod liveness;
pub mod place;
pub mod release;
pub mod tail;

use tokio::sync::Notify;

/// Wakes the tasks of this room. Losing a poke only costs time.
#[derive(Debug, Default)]
pub struct Wake {
    /// Something was committed by this controller.
    pub tail: Notify,
    /// Input of placement has changed.
    pub planner: Notify,
    /// Something that deployments wait for has changed.
    pub deployments: Notify,
    /// Input of the routing table has changed.
    pub publish: Notify,
    /// A cell's session began or ended.
    pub liveness: Notify,
    /// An assignment or a router's acknowledgement may free slots.
    pub release: Notify,
}
