//! Tables: one situation, one expectation.

use super::*;
use crate::{Cell, Refused, SlotUse};
use slipway_protocol::v1::Version;

fn cell(number: u128, zone: &str) -> Cell {
    Cell {
        id: CellId(Uuid::from_u128(number << 96)),
        zone: zone.into(),
        tags: BTreeSet::new(),
        segment: None,
        stacks: BTreeSet::new(),
        memory_mb: 1000,
        disk_mb: 1000,
        slots: 4,
        state: CellState::Connected,
        cordoned: false,
        query_address: String::new(),
        last_counter: 0,
        holds_unknown: false,
    }
}

fn wanted(instances: u32, memory_mb: u64) -> Wanted {
    Wanted {
        group: Uuid::from_u128(77),
        app: Uuid::from_u128(78),
        kind: Kind::Lrp,
        instances,
        spec: [1; 32],
        attempt: 1,
        memory_mb,
        disk_mb: 10,
        stack: "debian12".into(),
        tags: BTreeSet::new(),
        segment: None,
    }
}

fn snapshot(cells: Vec<Cell>, wanted: Wanted) -> Snapshot {
    Snapshot { version: Version::new(1, 9), wanted: vec![wanted], cells, ..Snapshot::default() }
}

fn ids() -> impl FnMut() -> AssignmentId {
    let mut next = 1000;
    move || {
        next += 1;
        AssignmentId(Uuid::from_u128(next))
    }
}

/// Running and ready on a cell.
fn running(number: u128, index: u32, on: &Cell) -> Placed {
    Placed {
        id: AssignmentId(Uuid::from_u128(number)),
        group: Uuid::from_u128(77),
        app: None,
        index,
        spec: [1; 32],
        kind: Kind::Lrp,
        cell: on.id,
        role: Role::Primary,
        intent: Intent::Run,
        intent_age_ms: 0,
        attempt: 1,
        slot: u16::try_from(index).expect("small"),
        restart_nonce: 0,
        crashes: 2,
        observed: Observed::Running,
        ready: true,
        endpoint: Some(("10.0.0.1".into(), 61_000)),
        fault: None,
        obs_seq: 1,
        route_seq: 5,
        memory_mb: 100,
        disk_mb: 10,
    }
}

/// Where no more is promised than there is.
fn plan(input: &Snapshot, ids: impl FnMut() -> AssignmentId) -> Plan {
    super::plan(input, Overcommit::default(), ids)
}

fn reason(input: &Snapshot) -> String {
    let plan = plan(input, ids());
    plan.changes.unplaced.expect("unplaced").remove(0).details
}

#[test]
fn instances_spread_over_zones_then_cells() {
    let cells = vec![cell(1, "a"), cell(2, "a"), cell(3, "b")];
    let plan = plan(&snapshot(cells.clone(), wanted(4, 100)), ids());
    let mut on: BTreeMap<CellId, u32> = BTreeMap::new();
    for placement in &plan.changes.placements {
        *on.entry(placement.cell).or_default() += 1;
    }
    assert_eq!(on, BTreeMap::from([(cells[0].id, 1), (cells[1].id, 1), (cells[2].id, 2)]));
    assert!(plan.changes.unplaced.is_none());
}

#[test]
fn overcommit_is_for_all_together_and_not_for_one_instance() {
    let placed = |instances, each, overcommit| {
        super::plan(&snapshot(vec![Cell { slots: 100, ..cell(1, "a") }], wanted(instances, each)), overcommit, ids())
    };
    let thrice = Overcommit { memory_percent: 300, disk_percent: 400 };
    assert_eq!(placed(10, 300, Overcommit::default()).changes.placements.len(), 3, "1000 MiB");
    let plan = placed(11, 300, thrice);
    assert_eq!(plan.changes.placements.len(), 10, "3000 MiB");
    let text = "waiting for room: needs 300 MiB; the largest free is 0 MiB on cell 00000001";
    assert_eq!(plan.changes.unplaced.expect("one waits").remove(0).details, text);
    let plan = placed(1, 1001, thrice);
    assert!(plan.changes.placements.is_empty(), "the cell has 1000 MiB, whatever it promises");
    let text = "waiting for room: needs 1001 MiB; the largest free is 1000 MiB on cell 00000001";
    assert_eq!(plan.changes.unplaced.expect("it waits").remove(0).details, text);
    // Disk: 10 MiB each of 1000, then of 4000.
    assert_eq!(placed(200, 1, Overcommit::default()).changes.placements.len(), 100);
}

#[test]
fn the_kind_of_a_reason_says_how_long_it_is_waited_for() {
    let kind = |input: &Snapshot| plan(input, ids()).changes.unplaced.expect("unplaced").remove(0).reason;
    let isolated = Wanted { segment: Some("gpu".into()), ..wanted(1, 1) };
    assert_eq!(kind(&snapshot(vec![cell(1, "a")], isolated)), UnplacedReason::NoCompatibleCell);
    assert_eq!(kind(&snapshot(vec![cell(1, "a")], wanted(1, 4096))), UnplacedReason::NoRoom);
    assert_eq!(kind(&snapshot(vec![], wanted(1, 1))), UnplacedReason::Other, "an operator may start one");
}

#[test]
fn each_instance_without_a_place_has_one_reason_with_figures() {
    assert_eq!(reason(&snapshot(vec![], wanted(1, 1))), "no cell is connected");
    let one = || cell(1, "a");
    let lost = Cell { state: CellState::Suspect, ..one() };
    assert_eq!(reason(&snapshot(vec![lost], wanted(1, 1))), "no cell is connected");
    let cordoned = Cell { cordoned: true, ..one() };
    assert_eq!(reason(&snapshot(vec![cordoned], wanted(1, 1))), "every connected cell is cordoned");
    let isolated = || Wanted { segment: Some("Secure".into()), ..wanted(1, 1) };
    assert_eq!(
        reason(&snapshot(vec![one()], isolated())),
        "found no compatible cell: no connected cell is in the isolation segment \"Secure\""
    );
    let inside = Cell { segment: Some("secure".into()), ..one() };
    assert_eq!(
        reason(&snapshot(vec![inside.clone()], wanted(1, 1))),
        "found no compatible cell: no connected cell is in the shared isolation segment"
    );
    let placed = plan(&snapshot(vec![inside], isolated()), ids()).changes.placements;
    assert_eq!(placed.len(), 1, "case does not matter");
    let picky = Wanted { tags: BTreeSet::from(["gpu".into()]), ..wanted(1, 1) };
    assert_eq!(reason(&snapshot(vec![one()], picky)), "found no compatible cell: no connected cell has the tags gpu");
    let text = "waiting for room: needs 4096 MiB; the largest free is 1000 MiB on cell 00000001";
    assert_eq!(reason(&snapshot(vec![one()], wanted(1, 4096))), text);
    let disk = Wanted { disk_mb: 5000, ..wanted(1, 1) };
    let text = "waiting for room: needs 5000 MiB of disk; the largest free is 1000 MiB on cell 00000001";
    assert_eq!(reason(&snapshot(vec![one()], disk)), text);
    assert_eq!(
        reason(&snapshot(vec![one()], wanted(5, 1))),
        "waiting for room: no slot is free on any of the 1 cell(s) with room"
    );
    let mut refused = snapshot(vec![one()], wanted(1, 1));
    let refusal = |age_ms| Refused {
        group: Uuid::from_u128(77),
        cell: one().id,
        spec: [1; 32],
        reason: "no layer".into(),
        age_ms,
    };
    refused.refusals = vec![refusal(10)];
    assert_eq!(reason(&refused), "cell 00000001 refused it: no layer");
    refused.refusals = vec![refusal(REFUSAL_MEMORY_MS)];
    assert_eq!(plan(&refused, ids()).changes.placements.len(), 1, "a refusal is not for ever");
}

#[test]
fn a_slot_rests_before_it_is_used_again() {
    let mut input = snapshot(vec![cell(1, "a")], wanted(1, 1));
    let slots = SlotUse { taken: BTreeSet::from([0]), resting: BTreeSet::from([1]) };
    input.slots.insert(cell(1, "a").id, slots);
    assert_eq!(plan(&input, ids()).changes.placements[0].slot, 2);
    let slots = SlotUse { taken: BTreeSet::from([0, 2, 3]), resting: BTreeSet::from([1]) };
    input.slots.insert(cell(1, "a").id, slots);
    assert_eq!(plan(&input, ids()).changes.placements[0].slot, 1);
}

#[test]
fn a_new_spec_replaces_the_old_instance_at_once() {
    let home = cell(1, "a");
    let mut input = snapshot(vec![home.clone()], Wanted { spec: [2; 32], ..wanted(1, 100) });
    input.assignments = vec![running(1, 0, &home)];
    input.slots.insert(home.id, SlotUse { taken: BTreeSet::from([0]), ..SlotUse::default() });
    let changes = plan(&input, ids()).changes;
    let old = input.assignments[0].id;
    assert_eq!(changes.roles, [(old, Role::Extra)]);
    assert_eq!(changes.intents, [(old, Intent::Drain)]);
    assert_eq!((changes.placements.len(), changes.placements[0].slot), (1, 1));
}

#[test]
fn a_drain_ends_with_the_routers_or_at_the_deadline() {
    let home = cell(1, "a");
    let router = |applied| crate::RouterSeen {
        id: slipway_api_types::RouterId(Uuid::from_u128(1)),
        connected: true,
        fenced: false,
        applied: Version::new(1, applied),
        durable: Version::default(),
        query_address: String::new(),
    };
    let drained = |applied: Option<u64>, age| {
        let mut input = snapshot(vec![home.clone()], wanted(0, 100));
        let draining = Placed { role: Role::Extra, intent: Intent::Drain, intent_age_ms: age, ..running(1, 0, &home) };
        input.assignments = vec![draining];
        input.routers = applied.map(router).into_iter().collect();
        let plan = plan(&input, ids());
        assert_eq!(plan.waiting, plan.changes.intents.is_empty());
        plan.changes.intents == [(input.assignments[0].id, Intent::Stop)]
    };
    for (applied, age, stops) in [
        (Some(4), DRAIN_LEAST_MS, false),
        (Some(5), 0, false),
        (Some(5), DRAIN_LEAST_MS, true),
        (Some(4), DRAIN_DEADLINE_MS, true),
        (None, 0, false),
        (None, DRAIN_DEADLINE_MS, true),
    ] {
        assert_eq!(drained(applied, age), stops, "{applied:?} {age}");
    }
}

#[test]
fn only_faults_of_the_cell_move_an_instance() {
    let (home, other) = (cell(1, "a"), cell(2, "a"));
    for (observed, fault, cells, moves) in [
        (Observed::Crashed, Some(Fault::Cell), 2, true),
        (Observed::Crashed, Some(Fault::Cell), 1, false),
        (Observed::Crashed, Some(Fault::App), 2, false),
        (Observed::GivenUp, Some(Fault::App), 2, false),
        (Observed::Refused, None, 2, true),
        (Observed::Stopped, None, 2, true),
    ] {
        let mut input = snapshot([home.clone(), other.clone()][..cells].to_vec(), wanted(1, 100));
        input.assignments = vec![Placed { observed, fault, ready: false, ..running(1, 0, &home) }];
        input.slots.insert(home.id, SlotUse { taken: BTreeSet::from([0]), ..SlotUse::default() });
        let changes = plan(&input, ids()).changes;
        assert_eq!(changes.placements.len(), usize::from(moves), "{observed:?} {fault:?} {cells}");
        if moves && fault.is_some() {
            assert_eq!((changes.placements[0].cell, changes.placements[0].crashes), (other.id, 2));
        }
    }
}

#[test]
fn many_losses_at_once_are_doubted() {
    let lost = |number, zone| Cell { state: CellState::Lost, ..cell(number, zone) };
    for (cells, held, replaced) in [
        (vec![lost(1, "a"), cell(2, "a"), cell(3, "b")], false, true),
        (vec![lost(1, "a"), lost(2, "a"), cell(3, "b")], true, false),
        (
            vec![lost(1, "a"), lost(2, "b"), cell(3, "b"), cell(4, "b"), cell(5, "b"), cell(6, "b"), cell(7, "b")],
            true,
            false,
        ),
        (vec![lost(1, "a")], false, false),
    ] {
        let mut input = snapshot(cells.clone(), wanted(2, 100));
        input.assignments = vec![running(1, 0, &cells[0]), running(2, 1, cells.get(1).unwrap_or(&cells[0]))];
        let plan = plan(&input, ids());
        assert_eq!((!plan.alarms.is_empty(), !plan.changes.placements.is_empty()), (held, replaced), "{cells:?}");
        if replaced {
            assert_eq!(plan.changes.roles, [(input.assignments[0].id, Role::Suspect)]);
            assert!(plan.changes.intents.is_empty(), "a suspect is not stopped");
        }
    }
}

#[test]
fn a_task_is_never_run_twice() {
    let (home, other) = (Cell { state: CellState::Lost, ..cell(1, "a") }, cell(2, "a"));
    let task = Wanted { kind: Kind::Task, ..wanted(1, 100) };
    for observed in [Observed::Running, Observed::Completed] {
        let mut input = snapshot(vec![home.clone(), other.clone()], task.clone());
        input.assignments = vec![Placed { kind: Kind::Task, observed, ..running(1, 0, &home) }];
        assert!(plan(&input, ids()).changes.placements.is_empty(), "{observed:?}");
    }
}

#[test]
fn reasons_hold_the_figures_after_the_whole_round() {
    let mut input = snapshot(vec![cell(1, "a")], wanted(2, 700));
    // Placed later in the same round, into what is left.
    input.wanted.push(Wanted { group: Uuid::from_u128(99), ..wanted(1, 200) });
    assert_eq!(reason(&input), "waiting for room: needs 700 MiB; the largest free is 100 MiB on cell 00000001");
}
