//! Random operations, as cells, routers, the API and controllers would cause them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use slipway_api_types::{AssignmentId, CellId, ControllerId, RouterId};
use slipway_placement::planner::{self, Overcommit};
use slipway_placement::{
    ApplyOutcome, CellBatch, CellRegistration, CellState, Exit, Kind, LeaseOutcome, ObservationRow, Observed,
    RouterProgress, RouterRegistration, Wanted,
};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use crate::twins::Desired;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// With or without a version of an earlier epoch in hand.
    Register(u8, bool),
    Want {
        group: u8,
        instances: u8,
        memory: u8,
    },
    Unwant(u8),
    Plan,
    PlanOld,
    Observe {
        pick: u8,
        state: u8,
        ready: bool,
        back: u8,
        stale: bool,
    },
    CellState(u8, u8),
    RouterJoin(u8),
    RouterAck(u8),
    RouterLeave(u8),
    RouterForget,
    Lease(u8),
    Renew,
    Advance(u8),
    Release,
    Epoch(u8),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(cell, before)| Op::Register(cell, before)),
        3 => (0..3_u8, 0..4_u8, 1..4_u8).prop_map(|(group, instances, memory)| Op::Want { group, instances, memory }),
        1 => (0..3_u8).prop_map(Op::Unwant),
        8 => Just(Op::Plan),
        1 => Just(Op::PlanOld),
        8 => (any::<u8>(), 0..8_u8, any::<bool>(), 0..10_u8, prop::bool::weighted(0.1))
            .prop_map(|(pick, state, ready, back, stale)| Op::Observe { pick, state, ready, back, stale }),
        2 => (0..4_u8, 0..3_u8).prop_map(|(cell, state)| Op::CellState(cell, state)),
        1 => (0..2_u8).prop_map(Op::RouterJoin),
        2 => (0..2_u8).prop_map(Op::RouterAck),
        1 => (0..2_u8).prop_map(Op::RouterLeave),
        1 => Just(Op::RouterForget),
        2 => (0..2_u8).prop_map(Op::Lease),
        1 => Just(Op::Renew),
        2 => (1..4_u8).prop_map(Op::Advance),
        3 => Just(Op::Release),
        1 => (0..2_u8).prop_map(Op::Epoch),
    ]
}

fn id(kind: u128, number: u8) -> Uuid {
    Uuid::from_u128(kind << 64 | u128::from(number))
}

pub(crate) fn cells() -> impl Iterator<Item = CellId> {
    (0..4).map(|number| CellId(id(1, number)))
}

pub(crate) fn group(number: u8) -> Uuid {
    id(2, number)
}

pub(crate) fn app(number: u8) -> Uuid {
    id(3, number)
}

/// What the operations remember: sessions, terms, counters, old versions.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) last: Option<ApplyOutcome>,
    sessions: BTreeMap<CellId, Uuid>,
    router_sessions: BTreeMap<RouterId, Uuid>,
    term: i64,
    counter: u64,
    ids: u128,
    old: Option<Version>,
    registered: u8,
}

impl World {
    /// Does it and tells what came of it, comparable between stores.
    pub(crate) async fn apply(&mut self, twin: &impl Desired, op: &Op) -> String {
        let store = twin.store();
        match op {
            Op::Register(number, before) => {
                self.registered = self.registered.wrapping_add(1);
                let cell = CellId(id(1, *number));
                let session = id(4, self.registered);
                self.sessions.insert(cell, session);
                format!("{:?}", store.cell_register(&registration(*number, session, *before)).await.expect("register"))
            }
            Op::Want { group: number, instances, memory } => {
                let wanted = Wanted {
                    group: group(*number),
                    app: app(*number),
                    kind: Kind::Lrp,
                    instances: u32::from(*instances),
                    spec: [number * 16 + memory; 32],
                    attempt: 1,
                    memory_mb: 256 * u64::from(*memory),
                    disk_mb: 10,
                    stack: String::new(),
                    tags: Default::default(),
                    segment: None,
                };
                twin.want(wanted).await;
                String::new()
            }
            Op::Unwant(number) => {
                twin.unwant(group(*number)).await;
                String::new()
            }
            Op::Plan | Op::PlanOld => {
                let snapshot = store.snapshot_for_planning().await.expect("snapshot");
                let mut next = self.ids;
                let plan = planner::plan(&snapshot, Overcommit::default(), || {
                    next += 1;
                    AssignmentId(Uuid::from_u128(5 << 64 | next))
                });
                self.ids = next;
                let expected = match op {
                    Op::PlanOld => self.old.unwrap_or(snapshot.version),
                    _ => snapshot.version,
                };
                self.old = Some(snapshot.version);
                let outcome = store.plan_apply(self.term, expected, &plan.changes).await.expect("apply");
                self.last = Some(outcome);
                format!("{outcome:?} {plan:?}")
            }
            Op::Observe { pick, state, ready, back, stale } => {
                self.observe(twin, (*pick, *state, *ready), *back, *stale).await
            }
            Op::CellState(number, state) => {
                let state = [CellState::Connected, CellState::Suspect, CellState::Lost][usize::from(*state)];
                format!("{:?}", store.cell_states(self.term, &[(CellId(id(1, *number)), state)]).await.expect("states"))
            }
            Op::RouterJoin(number) => {
                self.registered = self.registered.wrapping_add(1);
                let (router, session) = (RouterId(id(6, *number)), id(7, self.registered));
                self.router_sessions.insert(router, session);
                let registration = RouterRegistration {
                    id: router,
                    session,
                    zone: "z".into(),
                    query_address: String::new(),
                    addresses: BTreeSet::new(),
                    applied: Version::default(),
                    durable: Version::default(),
                };
                store.router_register(&registration).await.expect("register");
                String::new()
            }
            Op::RouterAck(number) => {
                let version = store.version().await.expect("version");
                let durable = Version::new(version.epoch, version.seq.saturating_sub(u64::from(*number)));
                let progress = RouterProgress { id: RouterId(id(6, *number)), applied: version, durable };
                store.routers_progress(&[progress]).await.expect("progress");
                String::new()
            }
            Op::RouterLeave(number) => {
                let router = RouterId(id(6, *number));
                let session = self.router_sessions.get(&router).copied().unwrap_or_default();
                store.router_leave(router, session).await.expect("leave");
                String::new()
            }
            Op::RouterForget => {
                let unseen = Duration::from_secs(15);
                let found = store.routers_unseen(unseen).await.expect("unseen");
                // The first of them only: others are there that were not seen either.
                let forgotten = store.routers_forget(&found[..found.len().min(1)], unseen).await.expect("forget");
                let seen = store.routers_forget(&[RouterId(id(6, 99))], unseen).await.expect("forget");
                format!("{found:?} {forgotten:?} {seen:?}")
            }
            Op::Lease(number) => {
                let holder = ControllerId(id(8, *number));
                let outcome = store.lease_take(holder, Duration::from_secs(15)).await.expect("lease");
                if let LeaseOutcome::Held { term } = outcome {
                    self.term = term;
                }
                format!("{outcome:?}")
            }
            Op::Renew => format!("{:?}", store.lease_renew(self.term).await.expect("renew")),
            Op::Advance(tens) => {
                twin.advance(Duration::from_secs(10 * u64::from(*tens))).await;
                String::new()
            }
            Op::Release => format!("{:?}", store.release().await.expect("release")),
            Op::Epoch(above) => {
                let version = store.version().await.expect("version");
                let shown = Version::new(version.epoch, version.seq + u64::from(*above));
                format!("{:?}", store.epoch_raise(shown).await.expect("raise"))
            }
        }
    }

    async fn observe(&mut self, twin: &impl Desired, seen: (u8, u8, bool), back: u8, stale: bool) -> String {
        const STATES: [Observed; 8] = [
            Observed::Preparing,
            Observed::Starting,
            Observed::Running,
            Observed::Running,
            Observed::Crashed,
            Observed::GivenUp,
            Observed::Stopped,
            Observed::Refused,
        ];
        let (pick, state, ready) = seen;
        let snapshot = twin.store().snapshot_for_planning().await.expect("snapshot");
        let Some(placed) = snapshot.assignments.get(usize::from(pick) % snapshot.assignments.len().max(1)) else {
            return String::new();
        };
        // What is gone is gone: a cell never takes that back.
        if placed.observed.is_gone() {
            return String::new();
        }
        let state = STATES[usize::from(state)];
        // Sometimes an old one comes again.
        self.counter += 1;
        let counter = if back == 0 { self.counter.saturating_sub(3).max(1) } else { self.counter };
        let exit = matches!(state, Observed::Crashed | Observed::GivenUp).then(|| Exit {
            code: 1,
            signal: 0,
            out_of_memory: false,
            reason: "exit".into(),
            fault: if ready { "cell".into() } else { "app".into() },
            at_unix_ms: 0,
        });
        let row = ObservationRow {
            counter,
            assignment: placed.id,
            state,
            ready: ready && state == Observed::Running,
            endpoint: (state == Observed::Running).then(|| ("127.0.0.1".into(), 61_000 + placed.slot)),
            exit,
            crashes: Some(u32::from(pick)),
            incarnation: 1,
            reason: "why".into(),
            refusal: (state == Observed::Refused).then(|| if ready { "SLOT_TAKEN".into() } else { "NO_SPACE".into() }),
            since_unix_ms: 0,
            crash_event: false,
        };
        let stranger =
            ObservationRow { assignment: AssignmentId(id(9, pick)), state: Observed::Running, ..row.clone() };
        let session = if stale { Uuid::nil() } else { self.sessions.get(&placed.cell).copied().unwrap_or_default() };
        let rows = if back == 9 { vec![row, stranger] } else { vec![row] };
        let batch = CellBatch { cell: placed.cell, session, journal_restarted: false, rows };
        format!("{:?}", twin.store().observations_record(&[batch]).await.expect("record"))
    }
}

pub(crate) fn registration(number: u8, session: Uuid, before: bool) -> CellRegistration {
    CellRegistration {
        id: CellId(id(1, number)),
        session,
        shown: if before { Version::new(1, 1) } else { Version::default() },
        boot_id: "boot".into(),
        binary_version: "1".into(),
        zone: format!("z{}", number / 2),
        tags: Default::default(),
        segment: (number == 1).then(|| "isolated".into()),
        stacks: Default::default(),
        memory_mb: 1024,
        disk_mb: 1000,
        slots: 8,
        query_address: String::new(),
        architecture: "x86_64".into(),
        cgroup_mode: "v2".into(),
        disk_quota_mode: "none".into(),
        advertise_mode: "host-port".into(),
        advertise_host: "127.0.0.1".into(),
    }
}
