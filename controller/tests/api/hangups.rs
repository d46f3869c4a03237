//! Clients that hang up in the middle of a call that changes something: it has happened wholly, or not at all.
//! `tests/roles/hangups.rs` does it to every call there is; here it is looked at closely what a few have left.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::apps::{app_of, package, upload, zip_of};
use crate::support::{TestClient, TestController, raw};

const LIMIT: Duration = slipway_test_support::PATIENCE;

/// A request as bytes, with a length that may promise more than follows.
fn request(client: &TestClient, method: &str, path: &str, kind: &str, body: &[u8], length: usize) -> Vec<u8> {
    let token = client.token.as_deref().unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: api.slipway.test\r\nauthorization: bearer {token}\r\n\
         content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

impl TestController {
    async fn send_and_leave(&self, bytes: &[u8]) {
        raw::send_and_leave(self.address, bytes).await;
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::query_scalar(sql).fetch_one(&self.database.pool).await.expect("a number")
    }

    async fn settled(&self) {
        raw::settled(&self.database.pool).await;
    }
}

#[tokio::test]
async fn a_truncated_body_changes_nothing() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let fresh = package(&admin, &app).await;
    let relationships = json!({ "space": { "data": { "guid": space } } });
    let body = json!({ "name": "half", "relationships": relationships }).to_string().into_bytes();
    let half = &body[..body.len() / 2];
    let yaml = b"applications:\n- name: half\n";
    let rows = "select (select count(*) from app) + (select count(*) from event) + (select count(*) from job)";
    let before = controller.number(rows).await;
    for bytes in [
        request(&admin, "POST", "/v3/apps", "application/json", half, body.len()),
        request(&admin, "PATCH", &format!("/v3/apps/{app}"), "application/json", half, body.len()),
        request(&admin, "POST", &format!("/v3/apps/{app}/tasks"), "application/json", half, body.len()),
        // Well-formed as far as it came: only the promised length says that more was meant.
        request(&admin, "POST", &format!("/v3/spaces/{space}/actions/apply_manifest"), "application/x-yaml", yaml, 900),
        request(
            &admin,
            "POST",
            &format!("/v3/packages/{fresh}/upload"),
            "multipart/form-data; boundary=b",
            b"--b\r\n",
            900,
        ),
    ] {
        controller.send_and_leave(&bytes).await;
    }
    controller.settled().await;
    // An answer to another client means that the server has gone on.
    assert_eq!(admin.get("/v3/apps?names=half").await.1["pagination"]["total_results"], 0);
    assert_eq!(controller.number(rows).await, before);
    let (_, still) = admin.get(&format!("/v3/packages/{fresh}")).await;
    assert_eq!(still["state"], "AWAITING_UPLOAD");
    let (status, answer) = upload(&admin, &fresh, &json!([]), Some(zip_of(&[("a", b"a")]))).await;
    assert_eq!((status.as_u16(), &answer["state"]), (200, &json!("READY")), "{answer}");
}

/// The round in which the clients leave only when what they asked for is done.
const LAST: u64 = 12;

/// Whatever has come of a call whose client has left, the rows belong together.
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_leaves_nothing_half_done() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    for round in 0..=LAST {
        let body =
            json!({ "name": format!("gone-{round}"), "relationships": { "space": { "data": { "guid": space } } } });
        let app = request_of(&admin, "POST", "/v3/apps", &body);
        let text = format!("applications:\n- name: manifest-{round}\n  default-route: true\n");
        let path = format!("/v3/spaces/{space}/actions/apply_manifest");
        let manifest = request(&admin, "POST", &path, "application/x-yaml", text.as_bytes(), text.len());
        for bytes in [app, manifest] {
            let mut stream = TcpStream::connect(controller.address).await.expect("connect");
            stream.write_all(&bytes).await.expect("send");
            // Sooner and later: before the handler runs, in its transaction, and after it.
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
            if round == LAST {
                let made = format!("select count(*) from app where name in ('gone-{LAST}', 'manifest-{LAST}')");
                slipway_test_support::eventually(
                    "the last calls are done before their clients leave",
                    LIMIT,
                    || async {
                        match controller.number(&made).await {
                            0 => Err(0),
                            some => Ok(some),
                        }
                    },
                )
                .await;
            }
            stream.set_zero_linger().expect("linger");
        }
    }
    let last = format!("select count(*) from app where name in ('gone-{LAST}', 'manifest-{LAST}')");
    assert!(controller.number(&last).await > 0, "such calls do something when nobody leaves");
    controller.settled().await;
    let halves = "select count(*) from app a
                  where (select count(*) from process p where p.app_guid = a.guid and p.type = 'web') <> 1
                     or not exists (select 1 from event e where e.target_guid = a.guid::text)";
    assert_eq!(controller.number(halves).await, 0, "an app without its process or its event");
    let mapped = "select count(*) from app a where a.name like 'manifest-%'
                  and not exists (select 1 from route_destination d where d.app_guid = a.guid)";
    slipway_test_support::eventually("manifests are applied wholly", LIMIT, || async {
        match controller.number(mapped).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    raw::no_job_is_open(&controller.database.pool).await;
}

fn request_of(client: &TestClient, method: &str, path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string().into_bytes();
    request(client, method, path, "application/json", &body, body.len())
}

/// A connection that is used again after a call that was cut gets answers to its own calls.
#[tokio::test]
async fn the_server_goes_on_after_a_client_that_only_listens() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let mut idle = TcpStream::connect(controller.address).await.expect("connect");
    idle.write_all(b"POST /v3/apps HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n").await.expect("send");
    let (status, _) = admin.get("/v3/apps").await;
    assert_eq!(status.as_u16(), 200);
    // It had no token, so it is told so without its body.
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 401");
}

/// A caller that is dropped at any moment gives its connection back as it got it. Otherwise what others write on that
/// connection is acknowledged to them and then taken back with the transaction that nobody knows of.
#[tokio::test]
async fn a_cancelled_begin_leaves_no_open_transaction_in_the_pool() {
    let controller = TestController::start().await;
    let store = &controller.context.store;
    for polls in 0..200 {
        let mut begin = Box::pin(store.begin());
        for _ in 0..polls % 20 {
            if futures::poll!(begin.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    controller.settled().await;
    let (org, _) = controller.dev().await;
    for _ in 0..20 {
        let name = uuid::Uuid::new_v4().to_string();
        sqlx::query("update organization set name = $1 where guid = $2")
            .bind(&name)
            .bind(org)
            .execute(&controller.database.pool)
            .await
            .expect("written");
        // Seen from a connection of its own, so it is committed.
        let mut own =
            <sqlx::PgConnection as sqlx::Connection>::connect(&controller.database.url).await.expect("a connection");
        let found: String = sqlx::query_scalar("select name from organization where guid = $1")
            .bind(org)
            .fetch_one(&mut own)
            .await
            .expect("a name");
        assert_eq!(found, name);
    }
}
