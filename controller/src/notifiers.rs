//! What makes the background tasks of this controller run sooner. Losing a wake only costs time: each task has its period.

use slipway_chassis::driver::Wake;

/// One wake for each task that anything wakes.
///
/// A commit wakes the tail ([`Store::commit`](crate::store::Store::commit)), which reads the change log and wakes whatever
/// the kinds of the changes concern. So whoever changes something need not know who acts on it.
#[derive(Debug, Default)]
pub struct TaskNotifiers {
    /// This controller has committed something.
    pub tail: Wake,
    /// Input of placement has changed.
    pub planner: Wake,
    /// Something that deployments wait for has changed.
    pub deployments: Wake,
    /// Input of the routing table has changed.
    pub publish: Wake,
    /// A cell's session began or ended.
    pub liveness: Wake,
    /// An assignment or a router's acknowledgement may free slots.
    pub release: Wake,
    /// A router has acknowledged a version, or one came or went.
    pub acknowledgements: Wake,
    /// This controller plans now, or no longer.
    pub drains: Wake,
    /// A job was written, or one may run again.
    pub jobs: Wake,
}
