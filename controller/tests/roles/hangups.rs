//! A client that hangs up in the middle of any call that changes something. With half of its body nothing has happened;
//! with all of it, but before the answer, it has happened wholly or not at all: the same call can be made again.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use reqwest::Request;
use sqlx::{AssertSqlSafe, PgPool};

use crate::call::Caller;
use crate::support::raw;
use crate::table::{self, Row};
use crate::world::World;
use crate::{AT_ONCE, TABLE};

/// An upload, as far as this is about: the other calls bring their own bodies.
const FORM: &[u8] = b"--b\r\ncontent-disposition: form-data; name=\"bits\"; filename=\"x.zip\"\r\n\r\nPK\r\n--b--\r\n";

/// The request as it goes over the wire, and how much of it is the body.
fn bytes(request: &Request) -> (Vec<u8>, usize) {
    let target = match request.url().query() {
        Some(query) => format!("{}?{query}", request.url().path()),
        None => request.url().path().to_owned(),
    };
    let mut head = format!("{} {target} HTTP/1.1\r\nhost: api.slipway.test\r\n", request.method());
    let body = match request.body() {
        None => &[],
        Some(body) => body.as_bytes().unwrap_or(FORM),
    };
    let form = request.body().is_some_and(|body| body.as_bytes().is_none());
    for (name, value) in request.headers() {
        let value = if form && name == "content-type" {
            "multipart/form-data; boundary=b"
        } else {
            value.to_str().expect("text")
        };
        if name != "content-length" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    ([head.as_bytes(), body].concat(), body.len())
}

fn changing() -> Vec<Row> {
    table::parse(TABLE).into_iter().filter(Row::changes).collect()
}

/// A digest of every table.
async fn everything(pool: &PgPool) -> BTreeMap<String, String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(pool)
    .await
    .expect("tables");
    let mut digests = BTreeMap::new();
    for table in tables {
        let sql = format!("select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from \"{table}\" t");
        let digest = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.expect("a digest");
        digests.insert(table, digest);
    }
    digests
}

#[tokio::test]
async fn a_truncated_body_of_any_call_changes_nothing() {
    let world = World::build().await;
    let rows = changing();
    let mut requests = Vec::new();
    for row in &rows {
        let request = Caller::new(&world, "admin").prepare(row, true).await.build().expect("a request");
        let (mut whole, body) = bytes(&request);
        if body > 1 {
            whole.truncate(whole.len() - body / 2);
            requests.push(whole);
        }
    }
    assert!(requests.len() > rows.len() / 2, "most calls have a body");
    raw::settled(world.pool()).await;
    let before = everything(world.pool()).await;
    let sent = requests.iter().map(|request| raw::send_and_leave(world.address(), request));
    futures::stream::iter(sent).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    raw::settled(world.pool()).await;
    let after = everything(world.pool()).await;
    let changed: Vec<_> = before.iter().filter(|(table, digest)| after.get(*table) != Some(*digest)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[tokio::test]
async fn any_call_can_be_made_again_by_a_client_that_left_before_its_answer() {
    let world = World::build().await;
    let rows = changing();
    // What removes everything of a kind comes when nobody looks for it any more.
    let (last, first): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.path.contains("destructively"));
    let mut wrong = Vec::new();
    for rows in [first, last] {
        let found: Vec<String> =
            futures::stream::iter(rows).map(|row| leave(&world, row)).buffer_unordered(AT_ONCE).concat().await;
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
    raw::settled(world.pool()).await;
    raw::no_job_is_open(world.pool()).await;
    let halves: i64 = sqlx::query_scalar(
        "select count(*) from app a where not exists (select 1 from process p where p.app_guid = a.guid)",
    )
    .fetch_one(world.pool())
    .await
    .expect("a number");
    assert_eq!(halves, 0, "an app without a process");
}

async fn leave(world: &World, row: &Row) -> Vec<String> {
    let call = Caller::new(world, "admin").prepare(row, true).await;
    // A form goes once. What comes of a second one: `tests/api/hangups.rs`.
    let again = call.try_clone();
    let request = call.build().expect("a request");
    raw::send_and_leave(world.address(), &bytes(&request).0).await;
    let Some(again) = again else { return Vec::new() };
    let status = again.send().await.expect("an answer").status();
    match status.is_server_error() {
        true => vec![format!("{} {}: {status} the second time", row.method, row.path)],
        false => Vec::new(),
    }
}
