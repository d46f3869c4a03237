//! Cells and routers: who they are, whether they are there, what they have acknowledged.

use std::time::Duration;

use slipway_api_types::{CellId, RouterId};
use uuid::Uuid;

use super::Result;
use super::{PgPlacement, order, planning, signed};
use crate::store::change_log::{self, ChangeKind};
use slipway_placement::{CellRegistration, CellState, RouterProgress, RouterRegistration};

impl PgPlacement {
    pub(super) async fn register_cell(&self, cell: &CellRegistration) -> Result<u64> {
        let mut tx = crate::store::begin(&self.pool).await?;
        // It must not rise between its being read here and the commit.
        let epoch = order::identity(&mut tx).await?;
        let info = serde_json::json!({
            "stacks": cell.stacks,
            "architecture": cell.architecture,
            "cgroup_mode": cell.cgroup_mode,
            "disk_quota_mode": cell.disk_quota_mode,
        });
        let tags: Vec<String> = cell.tags.iter().cloned().collect();
        let counter = sqlx::query_scalar!(
            "insert into cell (id, zone, tags, session, boot_id, binary_version, memory_mb, disk_mb, slots,
                               advertise_mode, advertise_host, query_address, info, holds_unknown, isolation_segment)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                     $14, $15)
             on conflict (id) do update set
                 zone = excluded.zone, tags = excluded.tags, session = excluded.session, boot_id = excluded.boot_id,
                 binary_version = excluded.binary_version, memory_mb = excluded.memory_mb,
                 disk_mb = excluded.disk_mb, slots = excluded.slots, advertise_mode = excluded.advertise_mode,
                 advertise_host = excluded.advertise_host, query_address = excluded.query_address,
                 isolation_segment = excluded.isolation_segment, info = excluded.info,
                 holds_unknown = cell.holds_unknown or excluded.holds_unknown,
                 state = case when cell.state = 'fenced' then 'fenced' else 'connected' end
             returning last_counter",
            cell.id.0,
            cell.zone,
            &tags,
            cell.session,
            cell.boot_id,
            cell.binary_version,
            signed(cell.memory_mb),
            signed(cell.disk_mb),
            i32::from(cell.slots),
            cell.advertise_mode,
            cell.advertise_host,
            cell.query_address,
            info,
            cell.shown.epoch > 0 && signed(cell.shown.epoch) < epoch,
            cell.segment
        )
        .fetch_one(&mut *tx)
        .await?;
        change_log::commit(tx, &[(ChangeKind::Cell, cell.id.0)]).await?;
        Ok(super::unsigned(counter))
    }

    pub(super) async fn write_cell_states(&self, term: i64, states: &[(CellId, CellState)]) -> Result<bool> {
        let mut tx = crate::store::begin(&self.pool).await?;
        if !planning::hold_term(&mut tx, term).await? {
            return Ok(false);
        }
        let ids: Vec<Uuid> = states.iter().map(|(id, _)| id.0).collect();
        let names: Vec<String> = states.iter().map(|(_, state)| state.as_str().to_owned()).collect();
        order::cells(&mut tx, &ids).await?;
        let changed = sqlx::query_scalar!(
            "update cell c set state = t.state from unnest($1::uuid[], $2::text[]) as t (id, state)
             where c.id = t.id and c.state <> t.state and c.state <> 'fenced' returning c.id",
            &ids,
            &names
        )
        .fetch_all(&mut *tx)
        .await?;
        if changed.is_empty() {
            tx.rollback().await?;
            return Ok(true);
        }
        let log: Vec<_> = changed.into_iter().map(|id| (ChangeKind::Cell, id)).collect();
        change_log::commit(tx, &log).await?;
        Ok(true)
    }

    pub(super) async fn register_router(&self, router: &RouterRegistration) -> Result<()> {
        let addresses: Vec<String> = router.addresses.iter().map(ToString::to_string).collect();
        let mut tx = crate::store::begin(&self.pool).await?;
        // What it says it holds is the truth: a router that lost its disk holds less than it once acknowledged.
        sqlx::query!(
            "insert into router (id, zone, session, query_address, applied_epoch, applied_seq, durable_epoch,
                                 durable_seq, addresses)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (id) do update set
                 zone = excluded.zone, session = excluded.session, query_address = excluded.query_address,
                 applied_epoch = excluded.applied_epoch, applied_seq = excluded.applied_seq,
                 durable_epoch = excluded.durable_epoch, durable_seq = excluded.durable_seq, addresses = excluded.addresses,
                 seen_at = now()",
            router.id.0,
            router.zone,
            router.session,
            router.query_address,
            signed(router.applied.epoch),
            signed(router.applied.seq),
            signed(router.durable.epoch),
            signed(router.durable.seq),
            &addresses
        )
        .execute(&mut *tx)
        .await?;
        change_log::commit(tx, &[(ChangeKind::Router, router.id.0)]).await?;
        Ok(())
    }

    pub(super) async fn leave_router(&self, router: RouterId, session: Uuid) -> Result<()> {
        sqlx::query!(
            "update router set session = null, seen_at = now() where id = $1 and session = $2",
            router.0,
            session
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn write_progress(&self, progress: &[RouterProgress]) -> Result<()> {
        let ids: Vec<Uuid> = progress.iter().map(|one| one.id.0).collect();
        let column =
            |pick: fn(&RouterProgress) -> u64| -> Vec<i64> { progress.iter().map(|one| signed(pick(one))).collect() };
        // Deliberately not in the change log: an acknowledgement changes no input of placement or routing, and a
        // version for it would be acknowledged in turn, for ever.
        sqlx::query!(
            "update router r set
                 applied_epoch = case when newer_a then t.ae else r.applied_epoch end,
                 applied_seq = case when newer_a then t.asq else r.applied_seq end,
                 durable_epoch = case when newer_d then t.de else r.durable_epoch end,
                 durable_seq = case when newer_d then t.dsq else r.durable_seq end,
                 seen_at = now()
             from (
                 select u.*, (u.ae, u.asq) > (o.applied_epoch, o.applied_seq) as newer_a,
                        (u.de, u.dsq) > (o.durable_epoch, o.durable_seq) as newer_d
                 from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                      as u (id, ae, asq, de, dsq)
                 join router o on o.id = u.id
             ) t where r.id = t.id",
            &ids,
            &column(|one| one.applied.epoch),
            &column(|one| one.applied.seq),
            &column(|one| one.durable.epoch),
            &column(|one| one.durable.seq)
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn unseen_routers(&self, unseen: Duration) -> Result<Vec<RouterId>> {
        // Whether it has a session is not asked: only the controller that held one could end it in the row, and that may be
        // gone too. Routers that are there are noted each minute.
        let unseen = sqlx::query_scalar!(
            "select id from router where seen_at < now() - make_interval(secs => $1) order by id",
            unseen.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(unseen.into_iter().map(RouterId).collect())
    }

    pub(super) async fn forget_routers(&self, routers: &[RouterId], unseen: Duration) -> Result<Vec<RouterId>> {
        let mut tx = crate::store::begin(&self.pool).await?;
        let ids: Vec<Uuid> = routers.iter().map(|router| router.0).collect();
        let mut gone = sqlx::query_scalar!(
            "delete from router where id = any($1) and seen_at < now() - make_interval(secs => $2) returning id",
            &ids,
            unseen.as_secs_f64()
        )
        .fetch_all(&mut *tx)
        .await?;
        if gone.is_empty() {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        // As the rows lay on disk: nobody is to depend on that.
        gone.sort_unstable();
        let log: Vec<_> = gone.iter().map(|id| (ChangeKind::Router, *id)).collect();
        change_log::commit(tx, &log).await?;
        Ok(gone.into_iter().map(RouterId).collect())
    }
}
