//! What controllers do beside each other: none of it may end another's transaction in a deadlock.

use std::time::Duration;

use slipway_api_types::AssignmentId;
use slipway_placement::planner::{self, Overcommit};
use slipway_placement::{CellBatch, CellState, Kind, LeaseOutcome, ObservationRow, Observed, Result, Wanted};
use slipway_protocol::v1::Version;
use uuid::Uuid;

use crate::ops;
use crate::twins::{Desired as _, PgTwin};

const ROUNDS: u64 = 60;
/// Far above what it takes; a deadlock that Postgres does not see would wait for ever.
const LIMIT: Duration = Duration::from_secs(120);

async fn times<F: Future<Output = Result<()>>>(what: &str, act: impl Fn(u64) -> F) -> usize {
    let mut failed = 0;
    for round in 1..=ROUNDS {
        if let Err(error) = act(round).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            println!("{what}, round {round}: {error}: {cause}");
            failed += 1;
        }
    }
    failed
}

fn row(assignment: AssignmentId, counter: u64, port: u16) -> ObservationRow {
    let running = !counter.is_multiple_of(3);
    ObservationRow {
        counter,
        assignment,
        state: if running { Observed::Running } else { Observed::Starting },
        ready: running,
        endpoint: running.then(|| ("127.0.0.1".into(), port)),
        exit: None,
        crashes: None,
        incarnation: 1,
        reason: String::new(),
        refusal: None,
        since_unix_ms: 0,
        crash_event: false,
    }
}

#[tokio::test]
async fn sessions_recordings_plans_and_epochs_do_not_end_each_other() {
    let twin = PgTwin::create().await;
    let store = twin.store();
    let session = Uuid::from_u128(7);
    for number in 0..4 {
        store.cell_register(&ops::registration(number, session, false)).await.expect("registered");
    }
    for group in 0..3 {
        let wanted = Wanted {
            group: ops::group(group),
            app: ops::app(group),
            kind: Kind::Lrp,
            instances: 6,
            spec: [group; 32],
            attempt: 1,
            memory_mb: 64,
            disk_mb: 10,
            stack: String::new(),
            tags: Default::default(),
            segment: None,
        };
        twin.want(wanted).await;
    }
    let LeaseOutcome::Held { term } = store
        .lease_take(slipway_api_types::ControllerId(Uuid::from_u128(1)), Duration::from_secs(15))
        .await
        .expect("lease")
    else {
        panic!("nobody else has the lease");
    };
    let plan = async || {
        let snapshot = store.snapshot_for_planning().await?;
        let plan = planner::plan(&snapshot, Overcommit::default(), || AssignmentId(Uuid::new_v4()));
        store.plan_apply(term, snapshot.version, &plan.changes).await.map(drop)
    };
    plan().await.expect("placed");
    let placed = store.snapshot_for_planning().await.expect("snapshot").assignments;
    assert!(placed.len() >= 12, "{} are placed", placed.len());

    let register = times("a session begins", async |round| {
        let number = u8::try_from(round % 4).expect("one of four");
        store.cell_register(&ops::registration(number, session, false)).await.map(drop)
    });
    // Two controllers, to which other cells report; each batch is of several.
    let record = |which: u64| {
        let placed = &placed;
        times("a recording", move |round| async move {
            let mut batches: Vec<CellBatch> = ops::cells()
                .map(|cell| CellBatch {
                    cell,
                    session,
                    journal_restarted: round.is_multiple_of(5),
                    rows: placed
                        .iter()
                        .filter(|one| one.cell == cell)
                        .map(|one| row(one.id, 2 * round + which, 61_000 + one.slot))
                        .collect(),
                })
                .collect();
            if which == 1 {
                batches.reverse();
            }
            store.observations_record(&batches).await.map(drop)
        })
    };
    let states = times("states of cells", async |round| {
        let state = if round.is_multiple_of(2) { CellState::Connected } else { CellState::Suspect };
        let mut all: Vec<_> = ops::cells().map(|cell| (cell, state)).collect();
        all.reverse();
        store.cell_states(term, &all).await.map(drop)
    });
    let epochs = times("an epoch", async |_| {
        let version = store.version().await?;
        store.epoch_raise(Version::new(version.epoch, version.seq + 1_000)).await.map(drop)
    });
    let plans = times("a plan", async |_| plan().await);
    let all = async { tokio::join!(register, record(0), record(1), states, epochs, plans) };
    let failed = tokio::time::timeout(LIMIT, all).await.expect("nothing waits for ever");
    assert_eq!(failed, (0, 0, 0, 0, 0, 0), "see what was printed");
}
