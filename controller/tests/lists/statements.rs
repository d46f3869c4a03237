//! How many SQL statements a list costs: as many for one row as for fifty.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use reqwest::{Method, StatusCode};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use crate::spec::LISTS;
use crate::support::{PASSWORD, TestClient};

/// Statements by the id of the request for which they were made.
static COUNTS: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

struct Counter;

struct RequestId(String);

impl Visit for RequestId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "id" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "id" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counter {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() == "request" {
            let mut found = RequestId(String::new());
            attributes.record(&mut found);
            if let Some(span) = context.span(id) {
                span.extensions_mut().insert(found);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "sqlx::query" {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(RequestId(id)) = span.extensions().get::<RequestId>() {
                *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
            }
        }
    }
}

/// Statements of one `GET`, and the number of rows that it gave.
async fn cost(client: &TestClient, path: &str) -> (usize, usize) {
    let id = Uuid::new_v4().to_string();
    let request = client.request(Method::GET, path).header("x-vcap-request-id", &id);
    let (status, body) = client.send(request).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    let rows = body["resources"].as_array().map_or(0, Vec::len);
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    (counts.get(&id).copied().unwrap_or_default(), rows)
}

#[tokio::test]
async fn no_list_asks_the_database_once_per_row() {
    // Other tests of this process log into it as well; requests are told apart by their ids.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Counter)).expect("the only subscriber");
    let (controller, admin, _all) = crate::world().await;
    controller.user("member").await;
    let grant = "insert into role (guid, type, user_guid, org_guid, space_guid)
                 select gen_random_uuid(), 'space_developer', u.guid, s.org_guid, s.guid
                 from user_account u, space s where u.username = 'member'";
    sqlx::query(grant).execute(&controller.database.pool).await.expect("roles");
    let member = controller.login("member", PASSWORD).await;

    let mut paths: Vec<String> = Vec::new();
    for list in LISTS {
        paths.push(format!("{}?order_by=created_at", list.path));
        if !list.includes.is_empty() {
            let all: Vec<&str> = list.includes.iter().map(|(name, _, _)| *name).collect();
            paths.push(format!("{}?include={}", list.path, all.join(",")));
        }
    }
    let app: Uuid = sqlx::query_scalar("select guid from app where name = 'app-1'")
        .fetch_one(&controller.database.pool)
        .await
        .expect("an app");
    paths.push("/v3/processes?embed=process_instances".to_owned());
    for part in ["processes", "packages", "builds", "droplets", "tasks", "routes"] {
        paths.push(format!("/v3/apps/{app}/{part}?order_by=created_at"));
    }

    let (mut problems, mut compared) = (Vec::new(), 0);
    for (who, client) in [("admin", &admin), ("member", &member)] {
        for path in &paths {
            let (few, one) = cost(client, &format!("{path}&per_page=1")).await;
            let (many, rows) = cost(client, &format!("{path}&per_page=50")).await;
            assert!(few > 0 || rows == 0, "{path}: its statements are not seen");
            compared += usize::from(one == 1 && rows > 3);
            if few != many {
                problems.push(format!("{path} as {who}: {few} statements for {one} rows, {many} for {rows}"));
            }
            // The dearest list is that of routes with its three parents, each of which is filtered by what is seen.
            if many > 11 {
                problems.push(format!("{path} as {who}: {many} statements"));
            }
        }
    }
    assert!(compared > 30, "only {compared} lists had rows to compare");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
