//! The placement store: change log, lease, assignments, cells, routers; a trait at the granularity of transactions.
//!
//! Everything that must happen together is one method, so that its in-memory twin (`MemoryPlacement`) and the real one,
//! the controller's over Postgres, can be driven by the same suite of random operations, and a simulation can run the
//! planner without a database.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use slipway_api_types::{AssignmentId, CellId, ControllerId, RouterId};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use crate::model::*;
use crate::routing_table::RoutingInput;

/// Why the placement store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The store cannot be reached, or did not do a transaction. Nothing was half-applied; ask again later.
    #[error("the placement store did not answer")]
    Unavailable(#[source] Cause),
    /// The store refuses the values themselves; asking again does not help.
    #[error("the placement store refused what was to be recorded")]
    Refused(#[source] Cause),
    /// A newer program wrote something that this one does not know.
    #[error("the placement store holds {what} {value:?}, which this version does not know; run the newer version")]
    Unknown {
        /// The kind of value.
        what: &'static str,
        /// As stored.
        value: String,
    },
}

/// What a store says of an error of its own.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Result of a placement transaction.
pub type Result<T> = std::result::Result<T, PlacementError>;

/// Name of the lease under which one controller plans.
pub const PLANNER_LEASE: &str = "planner";

/// The dozen transactions of placement and routing.
#[async_trait]
pub trait PlacementStore: Send + Sync {
    /// Where the store stands.
    async fn version(&self) -> Result<Version>;

    /// Entries of the change log after `seq`, oldest first, at most `limit`.
    async fn changes_since(&self, seq: u64, limit: u32) -> Result<Vec<Change>>;

    /// A peer has shown a version that this store does not know: the epoch rises above it. Nothing else changes.
    /// Without need (the store stands higher already) it only returns the version.
    async fn epoch_raise(&self, shown: Version) -> Result<Version>;

    /// Asks for the planner's lease: granted when nobody has it, when its holder has not renewed for `expires` by the
    /// database's clock, or when the holder is an earlier start of the same controller. Each grant raises the term.
    async fn lease_take(&self, holder: ControllerId, expires: Duration) -> Result<LeaseOutcome>;

    /// Renews; false when the term is not the current one.
    async fn lease_renew(&self, term: i64) -> Result<bool>;

    /// Gives the lease up, so that another controller need not wait.
    async fn lease_release(&self, term: i64) -> Result<()>;

    /// All input of planning, from one snapshot.
    async fn snapshot_for_planning(&self) -> Result<Snapshot>;

    /// Writes a plan made from a snapshot at `expected`, under the fence of `term`.
    async fn plan_apply(&self, term: i64, expected: Version, changes: &PlanChanges) -> Result<ApplyOutcome>;

    /// A cell's session began: it is connected, and batches of its earlier sessions are refused from now on.
    /// Returns the highest counter recorded.
    async fn cell_register(&self, registration: &CellRegistration) -> Result<u64>;

    /// What the sessions say of cells, under the fence of `term`. False when fenced off.
    async fn cell_states(&self, term: i64, states: &[(CellId, CellState)]) -> Result<bool>;

    /// Every registered cell.
    async fn cells(&self) -> Result<Vec<Cell>>;

    /// The whole set of a cell.
    async fn cell_set(&self, cell: CellId) -> Result<CellSet>;

    /// Which cells these assignments are on.
    async fn cells_of(&self, assignments: &[AssignmentId]) -> Result<BTreeSet<CellId>>;

    /// Records observations of several cells in one transaction. Per assignment, only a higher counter is recorded.
    async fn observations_record(&self, batches: &[CellBatch]) -> Result<Recorded>;

    /// A router's session began.
    async fn router_register(&self, registration: &RouterRegistration) -> Result<()>;

    /// A router's session ended; ignored when another one has begun since.
    async fn router_leave(&self, router: RouterId, session: Uuid) -> Result<()>;

    /// What routers have acknowledged; never lowers anything.
    async fn routers_progress(&self, progress: &[RouterProgress]) -> Result<()>;

    /// Every registered router.
    async fn routers(&self) -> Result<Vec<RouterSeen>>;

    /// Routers that were not seen for `unseen`, by the database's clock. That clock jumps (a suspended machine, a
    /// correction), and nobody is seen while the database is away: it is no proof that a router is gone.
    async fn routers_unseen(&self, unseen: Duration) -> Result<Vec<RouterId>>;

    /// Deregisters those of these routers that were still not seen for `unseen` (database clock), and names them: a
    /// router that is gone for good must not hold addresses for ever.
    async fn routers_forget(&self, routers: &[RouterId], unseen: Duration) -> Result<Vec<RouterId>>;

    /// All input of the routing table, from one snapshot.
    async fn routing_input(&self) -> Result<RoutingInput>;

    /// Frees the slots of assignments that are gone from their cell and durably gone from every registered router
    /// that is not fenced, and tombstones them.
    async fn release(&self) -> Result<Released>;
}
