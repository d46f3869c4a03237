//! Every endpoint, called by every role and by nobody: what comes back is what `table.txt` says. And every call that
//! changes something, by a client that hangs up.

#[path = "../support/mod.rs"]
mod support;

mod call;
mod hangups;
mod shape;
mod table;
mod world;

use std::collections::BTreeSet;

use futures::StreamExt as _;
use slipway_controller::api;

use call::Caller;
use table::{CALLERS, Row, Sign};
use world::World;

const TABLE: &str = include_str!("table.txt");

/// Rows at a time: as many as keep two cores and a small pool of connections busy.
const AT_ONCE: usize = 6;

#[tokio::test]
async fn every_endpoint_answers_every_role_as_the_table_says() {
    let rows = table::parse(TABLE);
    let world = World::build().await;
    let registered = world.registered(api::endpoints().paths()).await;

    let known: BTreeSet<(String, String)> = rows.iter().map(|row| (row.method.clone(), row.path.clone())).collect();
    let missing: Vec<String> =
        registered.difference(&known).map(|(method, path)| format!("{method} {path} has no row")).collect();
    let gone: Vec<String> =
        known.difference(&registered).map(|(method, path)| format!("{method} {path} is no endpoint")).collect();
    // What removes everything of a kind comes when nobody looks for it any more.
    let (last, first): (Vec<&Row>, Vec<&Row>) = rows
        .iter()
        .filter(|row| registered.contains(&row.endpoint()))
        .partition(|row| row.path.contains("destructively"));
    let mut wrong = Vec::new();
    for rows in [first, last] {
        let found: Vec<String> =
            futures::stream::iter(rows).map(|row| check(&world, row)).buffer_unordered(AT_ONCE).concat().await;
        wrong.extend(found);
    }
    let mut problems = [missing, gone, wrong].concat();
    problems.sort();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Makes the row's call as everybody. What was not as expected.
async fn check(world: &World, row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    for (sign, name) in row.signs.iter().zip(CALLERS) {
        let answer = Caller::new(world, name).make(row, *sign).await;
        if let Err(problem) = answer.is(row, *sign) {
            wrong.push(format!("{} {} as {name}: {problem}", row.method, row.path));
        }
    }
    wrong
}

#[test]
fn the_table_is_read_as_it_is_written() {
    let rows = table::parse(
        "# words\nGET /v3/x/{guid}  +++ +... ++++ .. !  name=ssh is=any\n    {\"a\":\n     1}\nPOST /y +++ ++++ ++++ ++ +\n",
    );
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].method.as_str(), rows[0].path.as_str()), ("GET", "/v3/x/{guid}"));
    assert_eq!(rows[0].body.as_deref(), Some("{\"a\":\n1}"));
    assert_eq!(rows[0].option("name"), Some("ssh"));
    assert_eq!((rows[0].signs[0], rows[0].signs[4], rows[0].signs[13]), (Sign::Allowed, Sign::Hidden, Sign::Anonymous));
    assert_eq!(rows[1].body, None);
}

#[test]
#[should_panic(expected = "13 signs")]
fn a_row_with_a_forgotten_caller_is_refused() {
    table::parse("GET /v3/apps +++ +000 ++++ 0 !\n");
}
