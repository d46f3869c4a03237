//! The planner's side: lease, plans, epochs, release of slots.

use std::time::Duration;

use slipway_api_types::{AssignmentId, ControllerId};
use slipway_protocol::v1::Version;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Result;
use super::{PgPlacement, order, signed, signed32};
use crate::store::change_log::{self, ChangeKind};
use slipway_placement::{ApplyOutcome, LeaseOutcome, PLANNER_LEASE, PlanChanges, Released, Role, Unplaced};

/// Rows freed by one round; the next round takes the rest.
const RELEASE_AT_ONCE: i64 = 1_000;

impl PgPlacement {
    pub(super) async fn raise_epoch(&self, shown: Version) -> Result<Version> {
        let version = change_log::current(&self.pool).await?;
        if version >= shown {
            return Ok(version);
        }
        let mut tx = crate::store::begin(&self.pool).await?;
        order::identity_and_cells(&mut tx).await?;
        change_log::lock(&mut tx).await?;
        // Another controller may have raised it meanwhile.
        let version = change_log::current(&mut *tx).await?;
        if version >= shown {
            return Ok(version);
        }
        sqlx::query!("update store_identity set epoch = greatest(epoch, $1) + 1", signed(shown.epoch))
            .execute(&mut *tx)
            .await?;
        // Any of them may run what was placed after the point that this store was taken back to.
        sqlx::query!("update cell set holds_unknown = true").execute(&mut *tx).await?;
        Ok(change_log::commit(tx, &[(ChangeKind::Controller, Uuid::nil())]).await?)
    }

    pub(super) async fn take_lease(&self, holder: ControllerId, expires: Duration) -> Result<LeaseOutcome> {
        let mut tx = crate::store::begin(&self.pool).await?;
        let first = sqlx::query_scalar!(
            "insert into lease (name, term, holder) select $1, coalesce(max(term), 0) + 1, $2 from lease
             on conflict do nothing returning term",
            PLANNER_LEASE,
            holder.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        // A new term is a new key: this waits for every transaction that holds the old one.
        let term = match first {
            Some(term) => Some(term),
            None => {
                sqlx::query_scalar!(
                "update lease set term = (select max(term) + 1 from lease), holder = $2, renewed_at = clock_timestamp()
                     where name = $1 and (holder = $2 or renewed_at < clock_timestamp() - make_interval(secs => $3))
                     returning term",
                PLANNER_LEASE,
                holder.0,
                expires.as_secs_f64()
            )
                .fetch_optional(&mut *tx)
                .await?
            }
        };
        let outcome = match term {
            Some(term) => LeaseOutcome::Held { term },
            None => {
                let holder = sqlx::query_scalar!("select holder from lease where name = $1", PLANNER_LEASE)
                    .fetch_one(&mut *tx)
                    .await?;
                LeaseOutcome::Other { holder: ControllerId(holder) }
            }
        };
        tx.commit().await?;
        Ok(outcome)
    }

    pub(super) async fn renew_lease(&self, term: i64) -> Result<bool> {
        // Touches no key column, so it does not wait for plans under way.
        let done = sqlx::query!(
            "update lease set renewed_at = clock_timestamp() where name = $1 and term = $2",
            PLANNER_LEASE,
            term
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn give_up_lease(&self, term: i64) -> Result<()> {
        sqlx::query!("update lease set renewed_at = '-infinity' where name = $1 and term = $2", PLANNER_LEASE, term)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn apply_plan(&self, term: i64, expected: Version, changes: &PlanChanges) -> Result<ApplyOutcome> {
        let mut tx = crate::store::begin(&self.pool).await?;
        if !hold_term(&mut tx, term).await? {
            return Ok(ApplyOutcome::Fenced);
        }
        match write_plan(&mut tx, expected, changes).await {
            Ok(Some(version)) => match tx.commit().await {
                Ok(()) => Ok(ApplyOutcome::Committed(version)),
                // The server said no: nothing happened. Anything else may have happened.
                Err(error @ sqlx::Error::Database(_)) => Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = %error, "the outcome of a plan's commit is unknown; planning again");
                    Ok(ApplyOutcome::Ambiguous)
                }
            },
            Ok(None) => Ok(ApplyOutcome::Conflict),
            // A second primary, a slot in use, a cell or spec that is gone: the snapshot was old.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() || error.is_foreign_key_violation() => {
                tracing::debug!(error = %error, "the plan met a newer state");
                Ok(ApplyOutcome::Conflict)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn release_slots(&self) -> Result<Released> {
        let mut tx = crate::store::begin(&self.pool).await?;
        let mut released = sqlx::query_scalar!(
            "update assignment set released_at = now(), tombstone_at = now()
             where id in (
                 select a.id from assignment a
                 where a.released_at is null and a.intent = 'stop'
                   and a.observed in ('stopped', 'completed', 'refused')
                   and (a.route_seq = 0 or not exists (
                       select 1 from router r where not r.fenced
                       and (r.durable_epoch, r.durable_seq) < ((select epoch from store_identity), a.route_seq)))
                 order by a.id limit $1 for update skip locked)
             returning id",
            RELEASE_AT_ONCE
        )
        .fetch_all(&mut *tx)
        .await?;
        let waiting = sqlx::query_scalar!(
            r#"select count(*) as "count!" from assignment where released_at is null and intent = 'stop'
               and observed in ('stopped', 'completed', 'refused')"#
        )
        .fetch_one(&mut *tx)
        .await?;
        let mut result = Released { waiting: super::unsigned(waiting), ..Released::default() };
        if released.is_empty() {
            tx.rollback().await?;
            return Ok(result);
        }
        // They come in the order of the join.
        released.sort_unstable();
        let changes: Vec<_> = released.iter().map(|id| (ChangeKind::Assignment, *id)).collect();
        result.version = Some(change_log::commit(tx, &changes).await?);
        result.released = released.into_iter().map(AssignmentId).collect();
        Ok(result)
    }
}

/// The fence: a key-share lock on the row of the own term, until the transaction ends.
pub(crate) async fn hold_term(tx: &mut Transaction<'_, Postgres>, term: i64) -> sqlx::Result<bool> {
    let held = sqlx::query_scalar!(
        r#"select 1 as "one!" from lease where name = $1 and term = $2 for key share"#,
        PLANNER_LEASE,
        term
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(held.is_some())
}

/// `None` when the assignments have changed since `expected`.
async fn write_plan(
    tx: &mut Transaction<'_, Postgres>,
    expected: Version,
    changes: &PlanChanges,
) -> sqlx::Result<Option<Version>> {
    let changed: Vec<Uuid> = changes.changed().into_iter().map(|id| id.0).collect();
    order::assignments(tx, &changed, &[]).await?;
    let (promotions, demotions): (Vec<_>, Vec<_>) = changes.roles.iter().partition(|(_, role)| *role == Role::Primary);
    for roles in [demotions, promotions] {
        write_roles(tx, &roles).await?;
    }
    write_intents(tx, changes).await?;
    write_placements(tx, changes).await?;
    if let Some(unplaced) = &changes.unplaced {
        write_unplaced(tx, unplaced).await?;
    }

    change_log::lock(tx).await?;
    let now = change_log::current(&mut **tx).await?;
    let moved = sqlx::query_scalar!(
        r#"select exists (select 1 from change_log where seq > $1 and kind = $2) as "exists!""#,
        signed(expected.seq),
        ChangeKind::Assignment.as_str()
    )
    .fetch_one(&mut **tx)
    .await?;
    if moved || now.epoch != expected.epoch {
        return Ok(None);
    }
    let mut ids = changed;
    ids.extend(changes.placements.iter().map(|placement| placement.id.0));
    if ids.is_empty() {
        return Ok(Some(now));
    }
    let log: Vec<_> = ids.iter().map(|id| (ChangeKind::Assignment, *id)).collect();
    let version = change_log::append(tx, &log).await?;
    let leaving: Vec<Uuid> = changes.leaving().into_iter().map(|id| id.0).collect();
    sqlx::query!(
        "update assignment set seq = $2,
             route_seq = case when id = any($3) and kind = 'lrp' and observed = 'running' and ready
                              then $2 else route_seq end
         where id = any($1)",
        &ids,
        signed(version.seq),
        &leaving
    )
    .execute(&mut **tx)
    .await?;
    Ok(Some(version))
}

async fn write_roles(tx: &mut Transaction<'_, Postgres>, roles: &[&(AssignmentId, Role)]) -> sqlx::Result<()> {
    if roles.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = roles.iter().map(|(id, _)| id.0).collect();
    let names: Vec<String> = roles.iter().map(|(_, role)| role.as_str().to_owned()).collect();
    sqlx::query!(
        "update assignment a set role = t.role from unnest($1::uuid[], $2::text[]) as t (id, role)
         where a.id = t.id and a.tombstone_at is null",
        &ids,
        &names
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_intents(tx: &mut Transaction<'_, Postgres>, changes: &PlanChanges) -> sqlx::Result<()> {
    if changes.intents.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.intents.iter().map(|(id, _)| id.0).collect();
    let names: Vec<String> = changes.intents.iter().map(|(_, intent)| intent.as_str().to_owned()).collect();
    sqlx::query!(
        "update assignment a set intent = t.intent, intent_at = now()
         from unnest($1::uuid[], $2::text[]) as t (id, intent) where a.id = t.id and a.tombstone_at is null",
        &ids,
        &names
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_placements(tx: &mut Transaction<'_, Postgres>, changes: &PlanChanges) -> sqlx::Result<()> {
    let new = &changes.placements;
    if new.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = new.iter().map(|one| one.id.0).collect();
    let groups: Vec<Uuid> = new.iter().map(|one| one.group).collect();
    let apps: Vec<Uuid> = new.iter().map(|one| one.app).collect();
    let indexes: Vec<i32> = new.iter().map(|one| signed32(one.index)).collect();
    let specs: Vec<Vec<u8>> = new.iter().map(|one| one.spec.to_vec()).collect();
    let kinds: Vec<String> = new.iter().map(|one| one.kind.as_str().to_owned()).collect();
    let cells: Vec<Uuid> = new.iter().map(|one| one.cell.0).collect();
    let attempts: Vec<i32> = new.iter().map(|one| signed32(one.attempt)).collect();
    let slots: Vec<i32> = new.iter().map(|one| i32::from(one.slot)).collect();
    let crashes: Vec<i32> = new.iter().map(|one| signed32(one.crashes)).collect();
    sqlx::query!(
        "insert into assignment (id, group_id, app_id, index, spec, kind, cell, attempt, slot, restart_crashes, seq)
         select *, 0 from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $5::bytea[], $6::text[],
                                 $7::uuid[], $8::integer[], $9::integer[], $10::integer[])",
        &ids,
        &groups,
        &apps,
        &indexes,
        &specs,
        &kinds,
        &cells,
        &attempts,
        &slots,
        &crashes
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn write_unplaced(tx: &mut Transaction<'_, Postgres>, unplaced: &[Unplaced]) -> sqlx::Result<()> {
    let groups: Vec<Uuid> = unplaced.iter().map(|one| one.group).collect();
    let indexes: Vec<i32> = unplaced.iter().map(|one| signed32(one.index)).collect();
    let kinds: Vec<String> = unplaced.iter().map(|one| one.reason.as_str().to_owned()).collect();
    let reasons: Vec<String> = unplaced.iter().map(|one| one.details.clone()).collect();
    sqlx::query!(
        "delete from unplaced u where not exists (
             select 1 from unnest($1::uuid[], $2::integer[]) as t (group_id, index)
             where t.group_id = u.group_id and t.index = u.index)",
        &groups,
        &indexes
    )
    .execute(&mut **tx)
    .await?;
    // The waiting time starts again when the reason changes: waiting for a compatible cell is given up sooner than waiting for
    // capacity, and time spent waiting for capacity does not count toward it.
    sqlx::query!(
        "insert into unplaced (group_id, index, kind, reason)
         select * from unnest($1::uuid[], $2::integer[], $3::text[], $4::text[])
         on conflict (group_id, index) do update set kind = excluded.kind, reason = excluded.reason,
             since = case when unplaced.kind = excluded.kind then unplaced.since else now() end",
        &groups,
        &indexes,
        &kinds,
        &reasons
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
