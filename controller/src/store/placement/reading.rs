//! Reads: the planner's snapshot, a cell's set, the routing table's rows.

use std::collections::{BTreeMap, BTreeSet};

use slipway_api_types::{AssignmentId, CellId, RouterId};
use slipway_protocol::v1::{self, Version};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use super::{PgPlacement, digest, signed, slot, small, unsigned};
use crate::store::change_log::{self, ChangeKind};
use crate::store::egress::egress_policies_tx;
use crate::store::segments::SHARED;
use slipway_placement::routing_table::{DestinationRow, EndpointRow, RouteRow, RoutingInput};
use slipway_placement::wire;
use slipway_placement::{Cell, CellSet, Change, Placed, Refused, RouterSeen, SlotUse, Snapshot, Unplaced, Wanted};

impl PgPlacement {
    pub(super) async fn read_changes(&self, seq: u64, limit: u32) -> Result<Vec<Change>> {
        let rows = sqlx::query!(
            "select seq, kind, id from change_log where seq > $1 order by seq limit $2",
            signed(seq),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Change { seq: unsigned(row.seq), kind: ChangeKind::from_stored(&row.kind), id: row.id })
            .collect())
    }

    pub(super) async fn read_snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.snapshot().await?;
        let snapshot = Snapshot {
            version: change_log::current(&mut *tx).await?,
            wanted: wanted(&mut tx).await?,
            assignments: placed(&mut tx).await?,
            cells: cells(&mut tx).await?,
            routers: routers(&mut tx).await?,
            refusals: refusals(&mut tx).await?,
            slots: slots(&mut tx).await?,
            unplaced: unplaced(&mut tx).await?,
        };
        tx.commit().await?;
        Ok(snapshot)
    }

    pub(super) async fn read_cell_set(&self, cell: CellId) -> Result<CellSet> {
        let mut tx = self.snapshot().await?;
        let version = change_log::current(&mut *tx).await?;
        let rows = sqlx::query!(
            r#"select a.id, a.group_id, a.index, a.spec, a.kind, a.role, a.intent, a.attempt, a.slot, a.restart_nonce,
                      a.restart_crashes, p.space_guid as "space?"
               from assignment a left join app p on p.guid = a.app_id
               where a.cell = $1 and a.tombstone_at is null order by a.id"#,
            cell.0
        )
        .fetch_all(&mut *tx)
        .await?;
        let place = |space: Option<Uuid>, kind: &str| space.map(|space| (space, kind == "build"));
        let places: BTreeSet<_> = rows.iter().filter_map(|row| place(row.space, &row.kind)).collect();
        let policies = egress_policies_tx(&mut tx, &places.into_iter().collect::<Vec<_>>()).await?;
        tx.commit().await?;
        let assignments = rows
            .into_iter()
            .map(|row| {
                let policy = place(row.space, &row.kind).and_then(|place| policies.get(&place));
                Ok(v1::Assignment {
                    id: row.id.to_string(),
                    group: row.group_id.to_string(),
                    index: small(row.index),
                    spec_digest: row.spec.into(),
                    kind: wire::kind(row.kind.parse()?).into(),
                    role: wire::role(row.role.parse()?).into(),
                    intent: wire::intent(row.intent.parse()?).into(),
                    attempt: small(row.attempt),
                    slot: small(row.slot),
                    restart: Some(v1::RestartState { crashes: small(row.restart_crashes), incarnation: 0 }),
                    restart_nonce: unsigned(row.restart_nonce),
                    // None of an app that is gone already: what is left of it is on its way out.
                    egress_policy: policy.map(|policy| policy.id.clone()).unwrap_or_default(),
                })
            })
            .collect::<Result<_>>()?;
        let policies: BTreeMap<_, _> = policies.into_values().map(|policy| (policy.id.clone(), policy)).collect();
        Ok(CellSet { version, assignments, policies: policies.into_values().collect() })
    }

    pub(super) async fn read_cells_of(&self, assignments: &[AssignmentId]) -> Result<BTreeSet<CellId>> {
        let ids: Vec<_> = assignments.iter().map(|id| id.0).collect();
        let cells = sqlx::query_scalar!("select distinct cell from assignment where id = any($1)", &ids)
            .fetch_all(&self.pool)
            .await?;
        Ok(cells.into_iter().map(CellId).collect())
    }

    pub(super) async fn read_routing_input(&self) -> Result<RoutingInput> {
        let mut tx = self.snapshot().await?;
        let version = change_log::current(&mut *tx).await?;
        let routes = sqlx::query_as!(
            RouteRow,
            r#"select r.guid as id, r.host, d.name as domain, r.path, r.options, b.guid as "service_binding?",
                      i.route_service_url as "route_service_url?", b.credentials as "route_service_secret?"
               from route r join domain d on d.guid = r.domain_guid
               left join service_binding b on b.route_guid = r.guid and b.last_operation ->> 'state' = 'succeeded'
               left join service_instance i on i.guid = b.service_instance_guid
               where r.port is null and not d.internal order by r.guid"#
        )
        .fetch_all(&mut *tx)
        .await?;
        // A route to nothing but stopped apps leads nowhere: as on Cloud Foundry, routers answer that it does not exist, and
        // not that its app is about to come back.
        let destinations = sqlx::query!(
            r#"select d.route_guid, d.port, d.weight, d.protocol = 'http2' as "http2!", a.guid as app, a.name as app_name,
                    s.name as space_name, o.name as organization_name, p.guid as process, p.type as process_type
             from route_destination d
             join route r on r.guid = d.route_guid and r.port is null
             join domain m on m.guid = r.domain_guid and not m.internal
             join app a on a.guid = d.app_guid and a.state = 'STARTED'
             join space s on s.guid = a.space_guid
             join organization o on o.guid = s.org_guid
             join process p on p.app_guid = d.app_guid and p.type = d.process_type
             order by d.route_guid, d.guid, p.guid"#
        )
        .fetch_all(&mut *tx)
        .await?;
        // What is not wanted any more is out of the table at once, not when the planner has come to it: whoever stops an app is
        // told so when the routers have this version.
        let endpoints = sqlx::query!(
            r#"select a.id, a.group_id, a.index, a.host as "host!", a.port as "port!", c.id as cell, c.zone,
                    c.advertise_mode = 'direct' as "direct!"
             from assignment a join cell c on c.id = a.cell
             where a.tombstone_at is null and a.kind = 'lrp' and a.observed = 'running' and a.ready
               and a.intent = 'run' and a.role <> 'extra' and a.host is not null and a.port is not null
               and exists (select 1 from process p join app on app.guid = p.app_guid
                           where p.guid = a.group_id and p.spec is not null and app.state = 'STARTED')
             order by a.id"#
        )
        .fetch_all(&mut *tx)
        .await?;
        let controllers =
            sqlx::query!("select id, api_address, api_tls from controller order by id").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(RoutingInput {
            version,
            routes,
            destinations: destinations
                .into_iter()
                .map(|row| DestinationRow {
                    route: row.route_guid,
                    port: row.port.and_then(|port| u16::try_from(port).ok()),
                    weight: row.weight.map(small),
                    http2: row.http2,
                    app: row.app,
                    app_name: row.app_name,
                    space_name: row.space_name,
                    organization_name: row.organization_name,
                    process: row.process,
                    process_type: row.process_type,
                })
                .collect(),
            endpoints: endpoints
                .into_iter()
                .map(|row| EndpointRow {
                    assignment: row.id,
                    process: row.group_id,
                    index: small(row.index),
                    host: row.host,
                    port: slot(row.port),
                    cell: row.cell,
                    zone: row.zone,
                    direct: row.direct,
                })
                .collect(),
            controllers: controllers.into_iter().map(|row| (row.id, row.api_address, row.api_tls)).collect(),
        })
    }
}

async fn wanted(connection: &mut PgConnection) -> Result<Vec<Wanted>> {
    let rows = sqlx::query!(
        r#"select w.group_id as "group_id!", w.app as "app!", w.kind as "kind!", w.instances as "instances!",
                  w.attempt as "attempt!", s.digest, s.memory_mb, s.disk_mb, s.stack, s.tags,
                  case when g.guid <> $1 then g.name end as segment
           from (
               select p.guid as group_id, p.app_guid as app, 'lrp' as kind, p.instances, 1 as attempt, p.spec
               from process p join app a on a.guid = p.app_guid where a.state = 'STARTED'
               union all
               select guid, app_guid, 'build', 1, attempt, spec from build where state = 'STAGING'
               union all
               select guid, app_guid, 'task', 1, attempt, spec from task where state in ('PENDING', 'RUNNING')
           ) w join spec s on s.digest = w.spec
           join app x on x.guid = w.app join space p on p.guid = x.space_guid join organization o on o.guid = p.org_guid
           left join isolation_segment g
               on g.guid = coalesce(p.isolation_segment_guid, o.default_isolation_segment_guid)
           order by w.group_id"#,
        SHARED
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Wanted {
                group: row.group_id,
                app: row.app,
                kind: row.kind.parse()?,
                instances: small(row.instances),
                spec: digest(row.digest)?,
                attempt: small(row.attempt),
                memory_mb: unsigned(row.memory_mb),
                disk_mb: unsigned(row.disk_mb),
                stack: row.stack,
                tags: row.tags.into_iter().collect(),
                segment: row.segment,
            })
        })
        .collect()
}

async fn placed(connection: &mut PgConnection) -> Result<Vec<Placed>> {
    let rows = sqlx::query!(
        r#"select a.id, a.group_id, a.app_id, a.index, a.spec, a.kind, a.cell, a.role, a.intent, a.attempt, a.slot,
                  a.restart_nonce, a.observed, a.ready, a.host, a.port, a.fault, a.obs_seq, a.route_seq,
                  coalesce(a.crashes, (a.exit ->> 'crashes')::integer, a.restart_crashes) as "crashes!",
                  (extract(epoch from now() - a.intent_at) * 1000)::bigint as "age!",
                  s.memory_mb, s.disk_mb
           from assignment a join spec s on s.digest = a.spec
           where a.tombstone_at is null order by a.id"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Placed {
                id: AssignmentId(row.id),
                group: row.group_id,
                app: row.app_id,
                index: small(row.index),
                spec: digest(row.spec)?,
                kind: row.kind.parse()?,
                cell: CellId(row.cell),
                role: row.role.parse()?,
                intent: row.intent.parse()?,
                intent_age_ms: row.age,
                attempt: small(row.attempt),
                slot: slot(row.slot),
                restart_nonce: unsigned(row.restart_nonce),
                crashes: small(row.crashes),
                observed: row.observed.parse()?,
                ready: row.ready,
                endpoint: row.host.zip(row.port.and_then(|port| u16::try_from(port).ok())),
                // A fault of a newer cell is kept in the row; the planner acts only on those it knows.
                fault: row.fault.and_then(|fault| fault.parse().ok()),
                obs_seq: unsigned(row.obs_seq),
                route_seq: unsigned(row.route_seq),
                memory_mb: unsigned(row.memory_mb),
                disk_mb: unsigned(row.disk_mb),
            })
        })
        .collect()
}

pub(super) async fn cells(connection: &mut PgConnection) -> Result<Vec<Cell>> {
    let rows = sqlx::query!(
        "select id, zone, tags, isolation_segment, memory_mb, disk_mb, slots, state, cordoned, query_address, last_counter, holds_unknown, info
         from cell order by id"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let stacks = row.info.get("stacks").and_then(|stacks| stacks.as_array()).into_iter().flatten();
            Ok(Cell {
                id: CellId(row.id),
                zone: row.zone,
                tags: row.tags.into_iter().collect(),
                segment: row.isolation_segment,
                stacks: stacks.filter_map(|stack| stack.as_str().map(str::to_owned)).collect(),
                memory_mb: unsigned(row.memory_mb),
                disk_mb: unsigned(row.disk_mb),
                slots: slot(row.slots),
                state: row.state.parse()?,
                cordoned: row.cordoned,
                query_address: row.query_address,
                last_counter: unsigned(row.last_counter),
                holds_unknown: row.holds_unknown,
            })
        })
        .collect()
}

pub(super) async fn routers(connection: &mut PgConnection) -> Result<Vec<RouterSeen>> {
    let rows = sqlx::query!(
        r#"select id, session is not null as "connected!", fenced, applied_epoch, applied_seq, durable_epoch,
                  durable_seq, query_address from router order by id"#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| RouterSeen {
            id: RouterId(row.id),
            connected: row.connected,
            fenced: row.fenced,
            applied: Version::new(unsigned(row.applied_epoch), unsigned(row.applied_seq)),
            durable: Version::new(unsigned(row.durable_epoch), unsigned(row.durable_seq)),
            query_address: row.query_address,
        })
        .collect())
}

async fn refusals(connection: &mut PgConnection) -> Result<Vec<Refused>> {
    let rows = sqlx::query!(
        r#"select group_id, cell, spec, reason, (extract(epoch from now() - at) * 1000)::bigint as "age!"
           from refusal order by group_id, cell, spec"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Refused {
                group: row.group_id,
                cell: CellId(row.cell),
                spec: digest(row.spec)?,
                reason: row.reason,
                age_ms: row.age,
            })
        })
        .collect()
}

async fn slots(connection: &mut PgConnection) -> Result<BTreeMap<CellId, SlotUse>> {
    let rows = sqlx::query!(
        r#"select cell, slot,
                  released_at is null or refusal is not distinct from 'SLOT_TAKEN' as "taken!"
           from assignment
           where released_at is null
              or released_at > now() - interval '1 minute'
              or (refusal = 'SLOT_TAKEN' and released_at > now() - interval '10 minutes')"#
    )
    .fetch_all(connection)
    .await?;
    let mut slots: BTreeMap<CellId, SlotUse> = BTreeMap::new();
    for row in rows {
        let entry = slots.entry(CellId(row.cell)).or_default();
        let set = if row.taken { &mut entry.taken } else { &mut entry.resting };
        set.insert(slot(row.slot));
    }
    Ok(slots)
}

async fn unplaced(connection: &mut PgConnection) -> Result<Vec<Unplaced>> {
    let rows = sqlx::query!("select group_id, index, kind, reason from unplaced order by group_id, index")
        .fetch_all(connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            let (reason, details) = (row.kind.parse()?, row.reason);
            Ok(Unplaced { group: row.group_id, index: small(row.index), reason, details })
        })
        .collect()
}

impl crate::store::Store {
    /// Sealed bodies of these specs, as far as an assignment of the cell needs them: `(digest, sealed)`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn specs_of_cell(&self, cell: CellId, digests: &[Vec<u8>]) -> sqlx::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let rows = sqlx::query!(
            "select digest, body from spec where digest = any($2)
             and exists (select 1 from assignment a where a.spec = spec.digest and a.cell = $1 and a.tombstone_at is null)",
            cell.0,
            digests
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.digest, row.body)).collect())
    }
}
