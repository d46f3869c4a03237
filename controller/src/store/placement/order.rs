//! Locks on rows that several transactions change, in the order that the module above gives.
//!
//! All are of the strength of an update that leaves the key alone: a row that refers to one of these can still be written.

use slipway_api_types::CellId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Keeps the epoch as it is until the transaction ends, and gives it.
pub(super) async fn identity(tx: &mut Transaction<'_, Postgres>) -> sqlx::Result<i64> {
    sqlx::query_scalar!("select epoch from store_identity for share").fetch_one(&mut **tx).await
}

/// Locks the identity, whose epoch is about to rise, and after it every cell.
pub(super) async fn identity_and_cells(tx: &mut Transaction<'_, Postgres>) -> sqlx::Result<()> {
    sqlx::query!("select epoch from store_identity for no key update").fetch_one(&mut **tx).await?;
    sqlx::query!("select id from cell order by id for no key update").fetch_all(&mut **tx).await?;
    Ok(())
}

/// Locks some cells.
pub(super) async fn cells(tx: &mut Transaction<'_, Postgres>, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("select id from cell where id = any($1) order by id for no key update", ids)
        .fetch_all(&mut **tx)
        .await?;
    Ok(())
}

/// Locks assignments by their ids, and beside them all that these cells still have.
pub(super) async fn assignments(
    tx: &mut Transaction<'_, Postgres>,
    ids: &[Uuid],
    cells: &[CellId],
) -> sqlx::Result<()> {
    let cells: Vec<Uuid> = cells.iter().map(|cell| cell.0).collect();
    sqlx::query!(
        "select id from assignment where tombstone_at is null and (id = any($1) or cell = any($2))
         order by id for no key update",
        ids,
        &cells
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(())
}
