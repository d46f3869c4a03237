//! The list grammar, on every list: what comes back for a query is what a model in memory gives for it.

#[path = "../support/mod.rs"]
mod support;

mod model;
mod query;
mod refusals;
mod spec;
mod statements;

use std::collections::BTreeSet;

use proptest::test_runner::{Config, TestRunner};
use slipway_controller::api;
use slipway_test_support::dataset::{Size, fill};
use support::{TestClient, TestController};
use tokio::runtime::Runtime;

use model::{Collections, follow_pages, matches};
use spec::{LISTS, List};

/// Queries per list. A failure is shrunk to the shortest query that fails.
const CASES: u32 = 16;
const SIZE: Size = Size { orgs: 4, spaces: 8, users: 24, apps: 24, routes: 48 };

/// A controller with a filled database, its administrator, and everything that its lists hold.
async fn world() -> (TestController, TestClient, Collections) {
    let controller = TestController::start().await;
    fill(&controller.database.pool, SIZE).await.expect("filled");
    let admin = controller.admin().await;
    let mut all = Collections::default();
    for list in LISTS {
        all.load(&admin, list.path).await;
    }
    (controller, admin, all)
}

#[test]
fn every_list_answers_every_query_as_the_model_does() {
    let runtime = Runtime::new().expect("a runtime");
    let (_controller, admin, all) = runtime.block_on(world());
    for list in LISTS {
        let values = all.values(list);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&query::queries_of(list, values), |query| {
            runtime.block_on(matches(&admin, &all, list, &query));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{}: {failure}", list.path);
        }
    }
}

/// Four rows in a row have the same instant: a page must not repeat what another showed.
#[tokio::test]
async fn pages_hold_every_row_once_whatever_their_size() {
    let (_controller, admin, all) = world().await;
    for list in LISTS {
        let whole = all.guids(list.path);
        for (per_page, order) in [(1, ""), (3, "&order_by=created_at"), (7, "&order_by=-updated_at")] {
            if per_page == 1 && whole.len() > 30 {
                continue;
            }
            let seen = follow_pages(&admin, &format!("{}?per_page={per_page}{order}", list.path)).await;
            assert_eq!(seen.len(), whole.len(), "{} by {per_page}{order}", list.path);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), whole, "{} by {per_page}{order}", list.path);
        }
    }
}

/// Every path of the API that answers with pages is in the table of this suite.
#[tokio::test]
async fn no_list_is_left_out() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let mut missing = Vec::new();
    for path in api::endpoints().paths().iter().filter(|path| path.starts_with("/v3/") && !path.contains('{')) {
        let (_, body) = admin.get(path).await;
        if body.get("pagination").is_some() && !LISTS.iter().any(|list: &List| list.path == *path) {
            missing.push(*path);
        }
    }
    // Feature flags have names, not guids, and no times of creation; there is nothing to ask of them but pages.
    missing.retain(|path| *path != "/v3/feature_flags");
    assert!(missing.is_empty(), "these lists have no row in spec.rs: {missing:?}");
}
