//! The placement store in memory, with a clock that only moves when told: the twin that the real one is compared
//! with, and the ground of simulations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slipway_api_types::{AssignmentId, CellId, ControllerId, RouterId};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use crate::ChangeKind;
use crate::routing_table::{EndpointRow, RoutingInput};
use crate::{
    ApplyOutcome, Cell, CellBatch, CellRecorded, CellRegistration, CellSet, CellState, Change, Intent, Kind,
    LeaseOutcome, ObservationRow, Observed, OneShot, Placed, PlacementStore, PlanChanges, Recorded, Refused, Released,
    Result, Role, RouterProgress, RouterRegistration, RouterSeen, SlotUse, Snapshot, SpecDigest, Unplaced, Wanted,
};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryPlacement {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now_ms: i64,
    epoch: u64,
    log: Vec<(ChangeKind, Uuid)>,
    lease: Option<HeldLease>,
    wanted: BTreeMap<Uuid, Wanted>,
    sizes: BTreeMap<SpecDigest, (u64, u64)>,
    cells: BTreeMap<CellId, (Cell, Uuid, bool)>,
    routers: BTreeMap<RouterId, (RouterSeen, Option<Uuid>, i64)>,
    rows: BTreeMap<AssignmentId, Row>,
    refusals: BTreeMap<(Uuid, CellId, SpecDigest), (String, i64)>,
    unplaced: Vec<Unplaced>,
}

#[derive(Debug)]
struct HeldLease {
    term: i64,
    holder: ControllerId,
    renewed_ms: i64,
}

#[derive(Debug)]
struct Row {
    placed: Placed,
    intent_ms: i64,
    carried: u32,
    refusal: Option<String>,
    released_ms: Option<i64>,
}

impl MemoryPlacement {
    /// An empty store of epoch 1.
    #[must_use]
    pub fn new() -> Self {
        let store = Self::default();
        store.state().epoch = 1;
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        self.state().now_ms += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    }

    /// As a failover does that loses commits: the newest entries of the log are gone.
    pub fn lose(&self, entries: usize) {
        let mut state = self.state();
        let left = state.log.len().saturating_sub(entries);
        state.log.truncate(left);
    }

    /// As the API does: something is wanted from now on.
    pub fn want(&self, wanted: Wanted) {
        let mut state = self.state();
        let group = wanted.group;
        state.sizes.insert(wanted.spec, (wanted.memory_mb, wanted.disk_mb));
        state.wanted.insert(group, wanted);
        state.append([(ChangeKind::Process, group)]);
    }

    /// As the API does: nothing of this group is wanted any more.
    pub fn unwant(&self, group: Uuid) {
        let mut state = self.state();
        state.wanted.remove(&group);
        state.append([(ChangeKind::Process, group)]);
    }
}

impl State {
    fn version(&self) -> Version {
        Version::new(self.epoch, self.log.len() as u64)
    }

    fn append(&mut self, changes: impl IntoIterator<Item = (ChangeKind, Uuid)>) -> Version {
        self.log.extend(changes);
        self.version()
    }

    fn holds(&self, term: i64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.term == term)
    }

    fn unseen(&self, unseen: Duration) -> Vec<RouterId> {
        let limit = i64::try_from(unseen.as_millis()).unwrap_or(i64::MAX);
        let unseen = self.routers.iter().filter(|(_, (_, _, at))| self.now_ms - at > limit);
        unseen.map(|(id, _)| *id).collect()
    }

    fn live(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(|row| row.released_ms.is_none())
    }

    /// What the database's unique indexes and foreign keys would refuse.
    fn admits(&self, changes: &PlanChanges) -> bool {
        let roles: BTreeMap<_, _> = changes.roles.iter().copied().collect();
        let mut primaries = BTreeSet::new();
        let mut slots = BTreeSet::new();
        for row in self.live() {
            let placed = &row.placed;
            let role = roles.get(&placed.id).copied().unwrap_or(placed.role);
            if role == Role::Primary && !primaries.insert((placed.group, placed.index)) {
                return false;
            }
            slots.insert((placed.cell, placed.slot));
        }
        changes.placements.iter().all(|new| {
            primaries.insert((new.group, new.index))
                && slots.insert((new.cell, new.slot))
                && self.cells.contains_key(&new.cell)
                && self.sizes.contains_key(&new.spec)
                && !self.rows.contains_key(&new.id)
        })
    }

    fn observe(&mut self, cell: CellId, row: &ObservationRow) -> Option<(ChangeKind, Uuid)> {
        let seq = self.log.len() as u64;
        let now = self.now_ms;
        let entry = self.rows.get_mut(&row.assignment).filter(|entry| entry.released_ms.is_none())?;
        let placed = &mut entry.placed;
        if placed.cell != cell || placed.obs_seq >= row.counter {
            return None;
        }
        let before = placed.clone();
        placed.observed = row.state;
        placed.ready = row.ready;
        placed.endpoint = row.endpoint.clone().or(placed.endpoint.take());
        if let Some(exit) = &row.exit {
            placed.fault = exit.fault.parse().ok();
        }
        placed.crashes = row.crashes.unwrap_or(placed.crashes);
        placed.obs_seq = row.counter;
        entry.refusal.clone_from(&row.refusal);
        let changed = (before.observed, before.ready, &before.endpoint, before.fault)
            != (placed.observed, placed.ready, &placed.endpoint, placed.fault);
        let moved = before.is_routable() != placed.is_routable()
            || (before.is_routable() && before.endpoint != placed.endpoint);
        if moved {
            // The entry that this very change appends.
            placed.route_seq = seq + 1;
        }
        if row.state == Observed::Refused && row.refusal.as_deref() != Some("SLOT_TAKEN") {
            self.refusals.insert((before.group, cell, before.spec), (row.reason.clone(), now));
        }
        changed.then_some((ChangeKind::Observation, before.id.0))
    }

    fn record(&mut self, batch: &CellBatch, recorded: &mut Recorded) -> Vec<(ChangeKind, Uuid)> {
        if batch.journal_restarted {
            for row in self.rows.values_mut().filter(|row| row.placed.cell == batch.cell) {
                row.placed.obs_seq = 0;
            }
        }
        let mut latest: BTreeMap<AssignmentId, &ObservationRow> = BTreeMap::new();
        for row in &batch.rows {
            let entry = latest.entry(row.assignment).or_insert(row);
            if row.counter > entry.counter {
                *entry = row;
            }
        }
        let changes: Vec<_> = latest.values().filter_map(|row| self.observe(batch.cell, row)).collect();
        for id in latest.keys() {
            if let Some(row) = self.rows.get(id).filter(|row| row.released_ms.is_none())
                && row.placed.cell == batch.cell
                && row.placed.kind != Kind::Lrp
            {
                let placed = &row.placed;
                recorded.one_shots.push(OneShot {
                    assignment: placed.id,
                    group: placed.group,
                    kind: placed.kind,
                    attempt: placed.attempt,
                });
            }
        }
        let highest = batch.rows.iter().map(|row| row.counter).max().unwrap_or(0);
        if let Some((cell, _, _)) = self.cells.get_mut(&batch.cell) {
            cell.last_counter = if batch.journal_restarted { highest } else { cell.last_counter.max(highest) };
        }
        changes
    }

    fn unknown(&self, batch: &CellBatch) -> Vec<AssignmentId> {
        let known = |id: &AssignmentId| {
            self.rows.get(id).is_some_and(|row| row.released_ms.is_none() && row.placed.cell == batch.cell)
        };
        let unknown = batch.rows.iter().filter(|row| !row.state.is_gone() && !known(&row.assignment));
        unknown.map(|row| row.assignment).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[async_trait]
impl PlacementStore for MemoryPlacement {
    async fn version(&self) -> Result<Version> {
        Ok(self.state().version())
    }

    async fn changes_since(&self, seq: u64, limit: u32) -> Result<Vec<Change>> {
        let state = self.state();
        let after = state.log.iter().zip(1..).filter(|(_, at)| *at > seq).take(limit as usize);
        Ok(after.map(|((kind, id), seq)| Change { seq, kind: Some(*kind), id: *id }).collect())
    }

    async fn epoch_raise(&self, shown: Version) -> Result<Version> {
        let mut state = self.state();
        if state.version() < shown {
            state.epoch = state.epoch.max(shown.epoch) + 1;
            for (cell, _, _) in state.cells.values_mut() {
                cell.holds_unknown = true;
            }
            state.append([(ChangeKind::Controller, Uuid::nil())]);
        }
        Ok(state.version())
    }

    async fn lease_take(&self, holder: ControllerId, expires: Duration) -> Result<LeaseOutcome> {
        let mut state = self.state();
        let now = state.now_ms;
        let expires = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
        let term = match &state.lease {
            Some(lease) if lease.holder != holder && now.saturating_sub(lease.renewed_ms) <= expires => {
                return Ok(LeaseOutcome::Other { holder: lease.holder });
            }
            Some(lease) => lease.term + 1,
            None => 1,
        };
        state.lease = Some(HeldLease { term, holder, renewed_ms: now });
        Ok(LeaseOutcome::Held { term })
    }

    async fn lease_renew(&self, term: i64) -> Result<bool> {
        let mut state = self.state();
        let now = state.now_ms;
        let Some(lease) = state.lease.as_mut().filter(|lease| lease.term == term) else { return Ok(false) };
        lease.renewed_ms = now;
        Ok(true)
    }

    async fn lease_release(&self, term: i64) -> Result<()> {
        if let Some(lease) = self.state().lease.as_mut().filter(|lease| lease.term == term) {
            lease.renewed_ms = i64::MIN;
        }
        Ok(())
    }

    async fn snapshot_for_planning(&self) -> Result<Snapshot> {
        let state = self.state();
        let mut slots: BTreeMap<CellId, SlotUse> = BTreeMap::new();
        for row in state.rows.values() {
            let entry = slots.entry(row.placed.cell).or_default();
            let age = row.released_ms.map(|at| state.now_ms - at);
            let refused = row.refusal.as_deref() == Some("SLOT_TAKEN");
            match age {
                None => entry.taken.insert(row.placed.slot),
                Some(age) if refused && age < 600_000 => entry.taken.insert(row.placed.slot),
                Some(age) if age < 60_000 => entry.resting.insert(row.placed.slot),
                Some(_) => false,
            };
        }
        slots.retain(|_, slots| *slots != SlotUse::default());
        let aged = |row: &Row| Placed { intent_age_ms: state.now_ms - row.intent_ms, ..row.placed.clone() };
        Ok(Snapshot {
            version: state.version(),
            wanted: state.wanted.values().cloned().collect(),
            assignments: state.live().map(aged).collect(),
            cells: state.cells.values().map(|(cell, _, _)| cell.clone()).collect(),
            routers: state.routers.values().map(|(router, _, _)| router.clone()).collect(),
            refusals: state
                .refusals
                .iter()
                .map(|((group, cell, spec), (reason, at))| Refused {
                    group: *group,
                    cell: *cell,
                    spec: *spec,
                    reason: reason.clone(),
                    age_ms: state.now_ms - at,
                })
                .collect(),
            slots,
            unplaced: state.unplaced.clone(),
        })
    }

    async fn plan_apply(&self, term: i64, expected: Version, changes: &PlanChanges) -> Result<ApplyOutcome> {
        let mut state = self.state();
        if !state.holds(term) {
            return Ok(ApplyOutcome::Fenced);
        }
        let moved =
            state.log.iter().zip(1_u64..).any(|((kind, _), at)| at > expected.seq && *kind == ChangeKind::Assignment);
        if moved || state.epoch != expected.epoch || !state.admits(changes) {
            return Ok(ApplyOutcome::Conflict);
        }
        let now = state.now_ms;
        if let Some(unplaced) = &changes.unplaced {
            state.unplaced.clone_from(unplaced);
        }
        let leaving = changes.leaving();
        let log: Vec<_> = changes
            .changed()
            .into_iter()
            .chain(changes.placements.iter().map(|new| new.id))
            .map(|id| (ChangeKind::Assignment, id.0))
            .collect();
        if log.is_empty() {
            return Ok(ApplyOutcome::Committed(state.version()));
        }
        let version = state.append(log);
        for (id, role) in &changes.roles {
            if let Some(row) = state.rows.get_mut(id).filter(|row| row.released_ms.is_none()) {
                row.placed.role = *role;
            }
        }
        for (id, intent) in &changes.intents {
            if let Some(row) = state.rows.get_mut(id).filter(|row| row.released_ms.is_none()) {
                row.placed.intent = *intent;
                row.intent_ms = now;
            }
        }
        for id in leaving {
            if let Some(row) = state.rows.get_mut(&id) {
                let placed = &mut row.placed;
                if placed.kind == Kind::Lrp && placed.observed == Observed::Running && placed.ready {
                    placed.route_seq = version.seq;
                }
            }
        }
        for new in &changes.placements {
            let (memory_mb, disk_mb) = state.sizes.get(&new.spec).copied().unwrap_or_default();
            let placed = Placed {
                id: new.id,
                group: new.group,
                app: Some(new.app),
                index: new.index,
                spec: new.spec,
                kind: new.kind,
                cell: new.cell,
                role: Role::Primary,
                intent: Intent::Run,
                intent_age_ms: 0,
                attempt: new.attempt,
                slot: new.slot,
                restart_nonce: 0,
                crashes: new.crashes,
                observed: Observed::Unknown,
                ready: false,
                endpoint: None,
                fault: None,
                obs_seq: 0,
                route_seq: 0,
                memory_mb,
                disk_mb,
            };
            let row = Row { placed, intent_ms: now, carried: new.crashes, refusal: None, released_ms: None };
            state.rows.insert(new.id, row);
        }
        Ok(ApplyOutcome::Committed(version))
    }

    async fn cell_register(&self, new: &CellRegistration) -> Result<u64> {
        let mut state = self.state();
        let old = state.cells.get(&new.id).map(|(cell, _, _)| cell.clone());
        let fenced = old.as_ref().is_some_and(|cell| cell.state == CellState::Fenced);
        let last_counter = old.as_ref().map_or(0, |cell| cell.last_counter);
        let from_before = new.shown.epoch > 0 && new.shown.epoch < state.epoch;
        let cell = Cell {
            id: new.id,
            zone: new.zone.clone(),
            tags: new.tags.clone(),
            segment: new.segment.clone(),
            stacks: new.stacks.clone(),
            memory_mb: new.memory_mb,
            disk_mb: new.disk_mb,
            slots: new.slots,
            state: if fenced { CellState::Fenced } else { CellState::Connected },
            cordoned: old.as_ref().is_some_and(|cell| cell.cordoned),
            query_address: new.query_address.clone(),
            last_counter,
            holds_unknown: from_before || old.is_some_and(|cell| cell.holds_unknown),
        };
        state.cells.insert(new.id, (cell, new.session, new.advertise_mode == "direct"));
        state.append([(ChangeKind::Cell, new.id.0)]);
        Ok(last_counter)
    }

    async fn cell_states(&self, term: i64, states: &[(CellId, CellState)]) -> Result<bool> {
        let mut state = self.state();
        if !state.holds(term) {
            return Ok(false);
        }
        for (id, now) in states {
            let Some((cell, _, _)) = state.cells.get_mut(id) else { continue };
            if cell.state != CellState::Fenced && cell.state != *now {
                cell.state = *now;
                state.append([(ChangeKind::Cell, id.0)]);
            }
        }
        Ok(true)
    }

    async fn cells(&self) -> Result<Vec<Cell>> {
        Ok(self.state().cells.values().map(|(cell, _, _)| cell.clone()).collect())
    }

    async fn cell_set(&self, cell: CellId) -> Result<CellSet> {
        let state = self.state();
        let of_cell = state.live().filter(|row| row.placed.cell == cell);
        let mut assignments: Vec<_> = of_cell.map(|row| crate::wire::assignment(&row.placed, row.carried)).collect();
        // There are no security groups here: everything has the policy that allows nothing.
        let policy = crate::egress::policy(&[]);
        for assignment in &mut assignments {
            assignment.egress_policy = policy.id.clone();
        }
        let policies = if assignments.is_empty() { Vec::new() } else { vec![policy] };
        Ok(CellSet { version: state.version(), assignments, policies })
    }

    async fn cells_of(&self, assignments: &[AssignmentId]) -> Result<BTreeSet<CellId>> {
        let state = self.state();
        Ok(assignments.iter().filter_map(|id| Some(state.rows.get(id)?.placed.cell)).collect())
    }

    async fn observations_record(&self, batches: &[CellBatch]) -> Result<Recorded> {
        let mut state = self.state();
        let mut recorded = Recorded::default();
        let mut changes = Vec::new();
        for batch in batches {
            let current = state.cells.get(&batch.cell).is_some_and(|(_, session, _)| *session == batch.session);
            if current {
                changes.extend(state.record(batch, &mut recorded));
            }
            recorded.cells.push(CellRecorded {
                cell: batch.cell,
                acked: current.then(|| batch.rows.iter().map(|row| row.counter).max().unwrap_or(0)),
                unknown: if current { state.unknown(batch) } else { Vec::new() },
                purge: current && state.cells.get(&batch.cell).is_some_and(|(cell, _, _)| !cell.holds_unknown),
            });
        }
        if !changes.is_empty() {
            let changed: BTreeSet<Uuid> = changes.iter().map(|(_, id)| *id).collect();
            let before = state.log.len() as u64;
            let version = state.append(changes);
            // All of one transaction share the version of its last entry.
            for row in state.rows.values_mut().filter(|row| changed.contains(&row.placed.id.0)) {
                if row.placed.route_seq > before {
                    row.placed.route_seq = version.seq;
                }
            }
            recorded.version = Some(version);
        }
        Ok(recorded)
    }

    async fn router_register(&self, new: &RouterRegistration) -> Result<()> {
        let mut state = self.state();
        let fenced = state.routers.get(&new.id).is_some_and(|(router, _, _)| router.fenced);
        let router = RouterSeen {
            id: new.id,
            connected: true,
            fenced,
            applied: new.applied,
            durable: new.durable,
            query_address: new.query_address.clone(),
        };
        let now = state.now_ms;
        state.routers.insert(new.id, (router, Some(new.session), now));
        state.append([(ChangeKind::Router, new.id.0)]);
        Ok(())
    }

    async fn router_leave(&self, router: RouterId, session: Uuid) -> Result<()> {
        let mut state = self.state();
        let now = state.now_ms;
        if let Some((seen, current, at)) = state.routers.get_mut(&router)
            && *current == Some(session)
        {
            seen.connected = false;
            *current = None;
            *at = now;
        }
        Ok(())
    }

    async fn routers_progress(&self, progress: &[RouterProgress]) -> Result<()> {
        let mut state = self.state();
        let now = state.now_ms;
        for one in progress {
            if let Some((router, _, at)) = state.routers.get_mut(&one.id) {
                router.applied = router.applied.max(one.applied);
                router.durable = router.durable.max(one.durable);
                *at = now;
            }
        }
        Ok(())
    }

    async fn routers(&self) -> Result<Vec<RouterSeen>> {
        Ok(self.state().routers.values().map(|(router, _, _)| router.clone()).collect())
    }

    async fn routers_unseen(&self, unseen: Duration) -> Result<Vec<RouterId>> {
        Ok(self.state().unseen(unseen))
    }

    async fn routers_forget(&self, routers: &[RouterId], unseen: Duration) -> Result<Vec<RouterId>> {
        let mut state = self.state();
        let mut gone = state.unseen(unseen);
        gone.retain(|id| routers.contains(id));
        for id in &gone {
            state.routers.remove(id);
        }
        state.append(gone.iter().map(|id| (ChangeKind::Router, id.0)));
        Ok(gone)
    }

    async fn routing_input(&self) -> Result<RoutingInput> {
        let state = self.state();
        let wanted = |placed: &Placed| state.wanted.contains_key(&placed.group);
        let routable = |row: &&Row| row.placed.is_routable() && wanted(&row.placed);
        let endpoints = state.live().filter(routable).filter_map(|row| {
            let placed = &row.placed;
            let (host, port) = placed.endpoint.clone()?;
            let (cell, _, direct) = state.cells.get(&placed.cell)?;
            Some(EndpointRow {
                assignment: placed.id.0,
                process: placed.group,
                index: placed.index,
                host,
                port,
                cell: placed.cell.0,
                zone: cell.zone.clone(),
                direct: *direct,
            })
        });
        Ok(RoutingInput { version: state.version(), endpoints: endpoints.collect(), ..RoutingInput::default() })
    }

    async fn release(&self) -> Result<Released> {
        let mut state = self.state();
        let (now, epoch) = (state.now_ms, state.epoch);
        let gone = |row: &Row| row.placed.intent == Intent::Stop && row.placed.observed.is_gone();
        let durable = |row: &Row| {
            let removal = (epoch, row.placed.route_seq);
            removal.1 == 0
                || state.routers.values().all(|(router, _, _)| router.fenced || router.durable.key() >= removal)
        };
        let waiting = state.live().filter(|row| gone(row)).count();
        let released: Vec<AssignmentId> =
            state.live().filter(|row| gone(row) && durable(row)).map(|row| row.placed.id).collect();
        for id in &released {
            if let Some(row) = state.rows.get_mut(id) {
                row.released_ms = Some(now);
            }
        }
        let mut result = Released { waiting: (waiting - released.len()) as u64, ..Released::default() };
        if !released.is_empty() {
            result.version = Some(state.append(released.iter().map(|id| (ChangeKind::Assignment, id.0))));
        }
        result.released = released;
        Ok(result)
    }
}
