//! The placement store in Postgres.

mod events;
mod observing;
mod peers;
mod planning;
mod reading;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use slipway_api_types::{AssignmentId, CellId, ControllerId, RouterId};
use slipway_protocol::v1::Version;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{
    ApplyOutcome, Cell, CellBatch, CellRegistration, CellSet, CellState, Change, LeaseOutcome, PlacementError,
    PlacementStore, PlanChanges, Recorded, Released, Result, RouterProgress, RouterRegistration, RouterSeen, Snapshot,
    SpecDigest,
};
pub(crate) use planning::hold_term;

use crate::routers::table::RoutingInput;
use crate::store::change_log;

/// Reads of several statements see one state of the store.
const SNAPSHOT: &str = "begin isolation level repeatable read read only";

/// Over the pool of the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PgPlacement {
    pool: PgPool,
}

impl PgPlacement {
    /// Over a pool that has been migrated.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    async fn snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.pool.begin_with(SNAPSHOT).await?)
    }
}

#[async_trait]
impl PlacementStore for PgPlacement {
    async fn version(&self) -> Result<Version> {
        Ok(change_log::current(&self.pool).await?)
    }
    async fn changes_since(&self, seq: u64, limit: u32) -> Result<Vec<Change>> {
        self.read_changes(seq, limit).await
    }
    async fn epoch_raise(&self, shown: Version) -> Result<Version> {
        self.raise_epoch(shown).await
    }
    async fn lease_take(&self, holder: ControllerId, expires: Duration) -> Result<LeaseOutcome> {
        self.take_lease(holder, expires).await
    }
    async fn lease_renew(&self, term: i64) -> Result<bool> {
        self.renew_lease(term).await
    }
    async fn lease_release(&self, term: i64) -> Result<()> {
        self.give_up_lease(term).await
    }
    async fn snapshot_for_planning(&self) -> Result<Snapshot> {
        self.read_snapshot().await
    }
    async fn plan_apply(&self, term: i64, expected: Version, changes: &PlanChanges) -> Result<ApplyOutcome> {
        self.apply_plan(term, expected, changes).await
    }
    async fn cell_register(&self, registration: &CellRegistration) -> Result<u64> {
        self.register_cell(registration).await
    }
    async fn cell_states(&self, term: i64, states: &[(CellId, CellState)]) -> Result<bool> {
        self.write_cell_states(term, states).await
    }
    async fn cells(&self) -> Result<Vec<Cell>> {
        let mut connection = self.pool.acquire().await?;
        reading::cells(&mut connection).await
    }
    async fn cell_set(&self, cell: CellId) -> Result<CellSet> {
        self.read_cell_set(cell).await
    }
    async fn cells_of(&self, assignments: &[AssignmentId]) -> Result<BTreeSet<CellId>> {
        self.read_cells_of(assignments).await
    }
    async fn observations_record(&self, batches: &[CellBatch]) -> Result<Recorded> {
        self.record_observations(batches).await
    }
    async fn router_register(&self, registration: &RouterRegistration) -> Result<()> {
        self.register_router(registration).await
    }
    async fn router_leave(&self, router: RouterId, session: Uuid) -> Result<()> {
        self.leave_router(router, session).await
    }
    async fn routers_progress(&self, progress: &[RouterProgress]) -> Result<()> {
        self.write_progress(progress).await
    }
    async fn routers(&self) -> Result<Vec<RouterSeen>> {
        let mut connection = self.pool.acquire().await?;
        reading::routers(&mut connection).await
    }
    async fn routers_unseen(&self, unseen: Duration) -> Result<Vec<RouterId>> {
        self.unseen_routers(unseen).await
    }
    async fn routers_forget(&self, routers: &[RouterId], unseen: Duration) -> Result<Vec<RouterId>> {
        self.forget_routers(routers, unseen).await
    }
    async fn routing_input(&self) -> Result<RoutingInput> {
        self.read_routing_input().await
    }
    async fn release(&self) -> Result<Released> {
        self.release_slots().await
    }
}

/// A stored digest; the schema checks its length, so only a damaged row fails.
fn digest(bytes: Vec<u8>) -> Result<SpecDigest> {
    bytes.try_into().map_err(|bytes: Vec<u8>| PlacementError::Unknown { what: "digest", value: hex::encode(bytes) })
}

/// Counters and sizes are never negative in the schema.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn small(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// Above `i64::MAX` nothing real exists: the largest value stands for it.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn signed32(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn slot(value: i32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
