//! One order for everything: every transaction that changes input of placement or routing ends here.
//!
//! The sequence number is taken under a transaction-scoped advisory lock, as the last thing before the commit. So the
//! order of sequence numbers is the order of commits, and "the store at sequence N" means one thing to everybody.
//! Taking the lock any earlier would serialise whole transactions; not taking it would let a reader see N before N-1.

use slipway_protocol::v1::Version;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Key of the advisory lock ("slipway").
const LOCK: i64 = 0x0073_6c69_7077_6179;

/// What a change is about; readers use it to decide what to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// An app's state, droplet or environment.
    App,
    /// A process's instances, spec or scale.
    Process,
    /// A route, its destinations or options.
    Route,
    /// A build was asked for or has ended.
    Build,
    /// A task was asked for, cancelled or has ended.
    Task,
    /// An assignment's intent or role.
    Assignment,
    /// An instance's observed state, as far as routing or planning depends on it.
    Observation,
    /// A cell came, went, or changed what it offers.
    Cell,
    /// A router came or went.
    Router,
    /// A controller's address.
    Controller,
    /// A security group's rules, or where it holds.
    SecurityGroup,
    /// A space's name, which routers write into access lines, or its isolation segment.
    Space,
    /// An organization's name, or its default isolation segment.
    Organization,
}

impl ChangeKind {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Process => "process",
            Self::Route => "route",
            Self::Build => "build",
            Self::Task => "task",
            Self::Assignment => "assignment",
            Self::Observation => "observation",
            Self::Cell => "cell",
            Self::Router => "router",
            Self::Controller => "controller",
            Self::SecurityGroup => "security_group",
            Self::Space => "space",
            Self::Organization => "organization",
        }
    }

    /// From what is stored; `None` for a kind that a newer program wrote.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        const ALL: [ChangeKind; 13] = [
            ChangeKind::App,
            ChangeKind::Process,
            ChangeKind::Route,
            ChangeKind::Build,
            ChangeKind::Task,
            ChangeKind::Assignment,
            ChangeKind::Observation,
            ChangeKind::Cell,
            ChangeKind::Router,
            ChangeKind::Controller,
            ChangeKind::SecurityGroup,
            ChangeKind::Space,
            ChangeKind::Organization,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

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

/// Appends changes and commits.
///
/// # Errors
/// When the database fails. An error of the commit itself is ambiguous: it may have happened.
pub async fn commit(mut tx: Transaction<'_, Postgres>, changes: &[(ChangeKind, Uuid)]) -> sqlx::Result<Version> {
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
