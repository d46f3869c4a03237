//! One suite of random operations over both placement stores, and the planner's invariants under the same operations.

mod concurrent;
mod ops;
mod twins;

use ops::{Op, World, op};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use slipway_placement::memory::MemoryPlacement;
use slipway_placement::planner::{self, Overcommit};
use slipway_placement::{ApplyOutcome, Intent, PlacementStore, Role, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use twins::{Desired as _, PgTwin};

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

#[test]
fn both_stores_do_the_same() {
    let operations = prop::collection::vec(op(), 1..50);
    runner(12)
        .run(&operations, |operations| {
            block_on(async {
                let real = PgTwin::create().await;
                let twin = MemoryPlacement::new();
                let (mut a, mut b) = (World::default(), World::default());
                for (step, operation) in operations.iter().enumerate() {
                    let (left, right) = (a.apply(&real, operation).await, b.apply(&twin, operation).await);
                    prop_assert_eq!(left, right, "outcome of step {} {:?}", step, operation);
                    let left = real.store().snapshot_for_planning().await.expect("snapshot");
                    let right = twin.snapshot_for_planning().await.expect("snapshot");
                    prop_assert_eq!(left, right, "state after step {} {:?}", step, operation);
                }
                for cell in ops::cells() {
                    let left = real.store().cell_set(cell).await.expect("set");
                    prop_assert_eq!(left, twin.cell_set(cell).await.expect("set"));
                }
                let left = real.store().routing_input().await.expect("routing").endpoints;
                prop_assert_eq!(left, twin.routing_input().await.expect("routing").endpoints);
                let left = real.store().changes_since(3, 50).await.expect("changes");
                prop_assert_eq!(left, twin.changes_since(3, 50).await.expect("changes"));
                Ok(())
            })
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn plans_keep_their_invariants() {
    let operations = prop::collection::vec(op(), 1..80);
    runner(192)
        .run(&operations, |operations| {
            block_on(async {
                let store = MemoryPlacement::new();
                let mut world = World::default();
                for operation in &operations {
                    world.apply(&store, operation).await;
                    let snapshot = store.snapshot_for_planning().await.expect("snapshot");
                    check(&snapshot)?;
                    if matches!(operation, Op::Plan) && world.last == Some(ApplyOutcome::Committed(snapshot.version)) {
                        let again = planner::plan(&snapshot, Overcommit::default(), || {
                            panic!("planning again places something")
                        });
                        prop_assert!(again.changes.is_empty(), "planning again: {:?}", again.changes);
                    }
                }
                Ok(())
            })
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Never two primaries, never above capacity, never two in a slot, nothing wanted both placed and unplaced.
fn check(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let (mut primaries, mut slots) = (BTreeSet::new(), BTreeSet::new());
    let mut memory: BTreeMap<_, u64> = BTreeMap::new();
    for placed in &snapshot.assignments {
        prop_assert!(placed.role != Role::Primary || primaries.insert((placed.group, placed.index)));
        prop_assert!(slots.insert((placed.cell, placed.slot)));
        prop_assert!(placed.role != Role::Extra || placed.intent != Intent::Run, "an extra is on its way out");
        if !placed.observed.is_gone() {
            *memory.entry(placed.cell).or_default() += placed.memory_mb;
        }
    }
    for cell in &snapshot.cells {
        prop_assert!(memory.get(&cell.id).copied().unwrap_or(0) <= cell.memory_mb);
    }
    Ok(())
}
