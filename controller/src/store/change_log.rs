//! One order for everything: every transaction that changes input of placement or routing ends here.
//!
//! The sequence number is taken under a transaction-scoped advisory lock, as the last thing before the commit. So the
//! order of sequence numbers is the order of commits, and "the store at sequence N" means one thing to everybody.
//! Taking the lock any earlier would serialise whole transactions; not taking it would let a reader see N before N-1.

pub use slipway_placement::ChangeKind;
use slipway_protocol::v1::Version;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Key of the advisory lock ("slipway").
const LOCK: i64 = 0x0073_6c69_7077_6179;

/// Takes the lock that [`append`] takes, for a check that must hold until the commit. Free when already held.
///
/// # Errors
/// When the database fails.
pub async fn lock(tx: &mut Transaction<'_, Postgres>) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut **tx).await?;
    Ok(())
}

/// Appends changes under the lock. The caller commits right after: nothing may come in between.
/// Returns the version of the last one; without changes, the version the store stands at.
///
/// # Errors
/// When the database fails; the transaction is then lost as usual.
pub async fn append(tx: &mut Transaction<'_, Postgres>, changes: &[(ChangeKind, Uuid)]) -> sqlx::Result<Version> {
    lock(tx).await?;
    let kinds: Vec<&str> = changes.iter().map(|(kind, _)| kind.as_str()).collect();
    let ids: Vec<Uuid> = changes.iter().map(|(_, id)| *id).collect();
    sqlx::query(
        "insert into change_log (seq, epoch, kind, id)
         select nextval('change_seq'), (select epoch from store_identity), kind, id
         from unnest($1::text[], $2::uuid[]) with ordinality as t (kind, id, place) order by place",
    )
    .bind(kinds)
    .bind(ids)
    .execute(&mut **tx)
    .await?;
    current(&mut **tx).await
}

/// Appends changes and commits. Outside of the store it is [`Store::commit`](super::Store::commit).
///
/// # Errors
/// When the database fails. An error of the commit itself is ambiguous: it may have happened.
pub(super) async fn commit(mut tx: Transaction<'_, Postgres>, changes: &[(ChangeKind, Uuid)]) -> sqlx::Result<Version> {
    let version = append(&mut tx, changes).await?;
    tx.commit().await?;
    Ok(version)
}

/// The version that this connection's snapshot stands at.
///
/// # Errors
/// When the database fails.
pub async fn current<'e>(executor: impl sqlx::PgExecutor<'e>) -> sqlx::Result<Version> {
    let (epoch, seq): (i64, i64) =
        sqlx::query_as("select epoch, coalesce((select max(seq) from change_log), 0) from store_identity")
            .fetch_one(executor)
            .await?;
    Ok(Version::new(epoch.unsigned_abs(), seq.unsigned_abs()))
}
