//! The placement store in Postgres.
//!
//! Transactions of several controllers lock the same rows, and one that locks them in another order ends another's in a
//! deadlock. So all lock in this order, each kind by id, and nothing after the log: the lease's row, the identity's
//! ([`order::identity`]), cells ([`order::cells`]), assignments ([`order::assignments`]), the change log's lock.

mod events;
mod observing;
mod order;
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

pub(crate) use planning::hold_term;
use slipway_placement::routing_table::RoutingInput;
use slipway_placement::{
    ApplyOutcome, Cell, CellBatch, CellRegistration, CellSet, CellState, Change, LeaseOutcome, PlacementError,
    PlacementStore, PlanChanges, Recorded, Released, RouterProgress, RouterRegistration, RouterSeen, Snapshot,
    SpecDigest,
};

use crate::store::change_log;

/// Reads of several statements see one state of the store.
const SNAPSHOT: &str = "begin isolation level repeatable read read only";

/// What went wrong in a transaction, until the trait's error is made of it.
#[derive(Debug)]
pub(crate) enum Error {
    Database(sqlx::Error),
    Placement(PlacementError),
}

type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<PlacementError> for Error {
    fn from(error: PlacementError) -> Self {
        Self::Placement(error)
    }
}

impl From<Error> for PlacementError {
    fn from(error: Error) -> Self {
        match error {
            Error::Placement(error) => error,
            Error::Database(error) if refuses_values(&error) => Self::Refused(Box::new(error)),
            Error::Database(error) => Self::Unavailable(Box::new(error)),
        }
    }
}

/// Postgres refused the values (data exceptions, constraints), as opposed to not being there.
fn refuses_values(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

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
        #[expect(clippy::disallowed_methods, reason = "background tasks read it: nobody drops them meanwhile")]
        Ok(self.pool.begin_with(SNAPSHOT).await?)
    }
}

#[async_trait]
impl PlacementStore for PgPlacement {
    async fn version(&self) -> slipway_placement::Result<Version> {
        Ok(change_log::current(&self.pool).await.map_err(Error::from)?)
    }
    async fn changes_since(&self, seq: u64, limit: u32) -> slipway_placement::Result<Vec<Change>> {
        Ok(self.read_changes(seq, limit).await?)
    }
    async fn epoch_raise(&self, shown: Version) -> slipway_placement::Result<Version> {
        Ok(self.raise_epoch(shown).await?)
    }
    async fn lease_take(&self, holder: ControllerId, expires: Duration) -> slipway_placement::Result<LeaseOutcome> {
        Ok(self.take_lease(holder, expires).await?)
    }
    async fn lease_renew(&self, term: i64) -> slipway_placement::Result<bool> {
        Ok(self.renew_lease(term).await?)
    }
    async fn lease_release(&self, term: i64) -> slipway_placement::Result<()> {
        Ok(self.give_up_lease(term).await?)
    }
    async fn snapshot_for_planning(&self) -> slipway_placement::Result<Snapshot> {
        Ok(self.read_snapshot().await?)
    }
    async fn plan_apply(
        &self,
        term: i64,
        expected: Version,
        changes: &PlanChanges,
    ) -> slipway_placement::Result<ApplyOutcome> {
        Ok(self.apply_plan(term, expected, changes).await?)
    }
    async fn cell_register(&self, registration: &CellRegistration) -> slipway_placement::Result<u64> {
        Ok(self.register_cell(registration).await?)
    }
    async fn cell_states(&self, term: i64, states: &[(CellId, CellState)]) -> slipway_placement::Result<bool> {
        Ok(self.write_cell_states(term, states).await?)
    }
    async fn cells(&self) -> slipway_placement::Result<Vec<Cell>> {
        let mut connection = self.pool.acquire().await.map_err(Error::from)?;
        Ok(reading::cells(&mut connection).await?)
    }
    async fn cell_set(&self, cell: CellId) -> slipway_placement::Result<CellSet> {
        Ok(self.read_cell_set(cell).await?)
    }
    async fn cells_of(&self, assignments: &[AssignmentId]) -> slipway_placement::Result<BTreeSet<CellId>> {
        Ok(self.read_cells_of(assignments).await?)
    }
    async fn observations_record(&self, batches: &[CellBatch]) -> slipway_placement::Result<Recorded> {
        Ok(self.record_observations(batches).await?)
    }
    async fn router_register(&self, registration: &RouterRegistration) -> slipway_placement::Result<()> {
        Ok(self.register_router(registration).await?)
    }
    async fn router_leave(&self, router: RouterId, session: Uuid) -> slipway_placement::Result<()> {
        Ok(self.leave_router(router, session).await?)
    }
    async fn routers_progress(&self, progress: &[RouterProgress]) -> slipway_placement::Result<()> {
        Ok(self.write_progress(progress).await?)
    }
    async fn routers(&self) -> slipway_placement::Result<Vec<RouterSeen>> {
        let mut connection = self.pool.acquire().await.map_err(Error::from)?;
        Ok(reading::routers(&mut connection).await?)
    }
    async fn routers_unseen(&self, unseen: Duration) -> slipway_placement::Result<Vec<RouterId>> {
        Ok(self.unseen_routers(unseen).await?)
    }
    async fn routers_forget(&self, routers: &[RouterId], unseen: Duration) -> slipway_placement::Result<Vec<RouterId>> {
        Ok(self.forget_routers(routers, unseen).await?)
    }
    async fn routing_input(&self) -> slipway_placement::Result<RoutingInput> {
        Ok(self.read_routing_input().await?)
    }
    async fn release(&self) -> slipway_placement::Result<Released> {
        Ok(self.release_slots().await?)
    }
}

/// A stored digest; the schema checks its length, so only a damaged row fails.
fn digest(bytes: Vec<u8>) -> Result<SpecDigest> {
    bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| PlacementError::Unknown { what: "digest", value: hex::encode(bytes) }.into())
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
