//! How routers speak with what a route leads to: `http1` and `http2` of destinations, over the API and by manifest.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::route_bindings::the_table;
use crate::support::apps::{app_of, catalogue, manifest, refused};
use crate::support::{TestClient, TestController};

const UNKNOWN: &str = "protocol must be 'http1', 'http2' or 'tcp'.";

struct World {
    controller: TestController,
    client: TestClient,
    space: Uuid,
    app: String,
    route: String,
}

impl World {
    /// The app `a` at `a.apps.slipway.test`.
    async fn build() -> Self {
        let controller = TestController::start().await;
        let client = controller.user_with("dev@example.com", "space_developer").await;
        let (_, space) = controller.dev().await;
        let app = controller.pushed(&client, "a").await;
        let route = route_at(&client, "a").await;
        Self { controller, client, space, app, route }
    }

    fn path(&self) -> String {
        format!("/v3/routes/{}/destinations", self.route)
    }

    async fn destinations(&self) -> Vec<Value> {
        let (status, body) = self.client.get(&self.path()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["destinations"].as_array().expect("destinations").clone()
    }

    /// Each destination's protocol.
    async fn spoken(&self) -> Vec<String> {
        self.destinations().await.iter().map(|to| to["protocol"].as_str().expect("a protocol").to_owned()).collect()
    }

    fn to(&self, more: Value) -> Value {
        let mut destination = json!({ "app": { "guid": self.app } });
        destination.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "destinations": [destination] })
    }

    /// Type and protocol of the app's mapping events, oldest first, of what came after the first push.
    async fn events(&self) -> Vec<(String, String)> {
        let path = format!(
            "/v3/audit_events?target_guids={}&types=audit.app.map-route,audit.app.unmap-route&order_by=created_at",
            self.app
        );
        let (_, page) = self.client.get(&path).await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let events = page["resources"].as_array().expect("events").iter().skip(1);
        events.map(|event| (text(&event["type"]), text(&event["data"]["protocol"]))).collect()
    }

    /// From `http1` to `http2` and back, two events each time, which have happened at once.
    async fn went_there_and_back(&self) {
        let mut events = self.events().await;
        events.chunks_mut(2).for_each(<[_]>::sort);
        let pair = |new: &str, old: &str| [event("map-route", new), event("unmap-route", old)];
        assert_eq!(events, [pair("http2", "http1"), pair("http1", "http2")].concat());
    }

    /// The ids of the app's pools, without the process's guid, and whether each is of HTTP/2.
    async fn pools(&self) -> Vec<(String, bool)> {
        let table = the_table(&self.controller).await;
        let own = table.pools.values().filter(|pool| pool.app_id == self.app);
        own.map(|pool| (pool.id.replace(&pool.process_id, "web"), pool.http2)).collect()
    }

    async fn apply(&self, text: &str) {
        let job = self.client.job(manifest(&self.client, self.space, text)).await;
        assert_eq!(job["state"], "COMPLETE", "{job}");
    }
}

fn event(kind: &str, protocol: &str) -> (String, String) {
    (format!("audit.app.{kind}"), protocol.to_owned())
}

async fn route_at(client: &TestClient, host: &str) -> String {
    let (_, page) = client.get(&format!("/v3/routes?hosts={host}")).await;
    page["resources"][0]["guid"].as_str().unwrap_or_else(|| panic!("no route {host}: {page}")).to_owned()
}

/// What no honest client sends.
fn nonsense() -> Vec<Value> {
    let long = "http2".repeat(10_000);
    vec![json!("x"), json!("HTTP2"), json!(""), json!(2), json!(true), json!(["http2"]), json!({"a": 1}), json!(long)]
}

#[tokio::test]
async fn a_changed_protocol_of_a_destination_reaches_routers() {
    let world = World::build().await;
    let client = &world.client;
    let published = async || -> i64 {
        let id: Uuid = world.route.parse().expect("a guid");
        let changes = sqlx::query_scalar("select count(*) from change_log where id = $1").bind(id);
        changes.fetch_one(&world.controller.database.pool).await.expect("a count")
    };
    assert_eq!(world.pools().await, [("web:8080".to_owned(), false)]);
    let before = published().await;
    let guid = world.destinations().await[0]["guid"].as_str().expect("a guid").to_owned();
    let path = format!("{}/{guid}", world.path());
    for (body, protocol) in [
        (json!({ "protocol": "http2" }), "http2"),
        (json!({}), "http2"),
        (json!({ "protocol": null }), "http1"),
        (json!({ "protocol": "http2" }), "http2"),
    ] {
        let (status, answer) = client.patch(&path, body.clone()).await;
        assert_eq!((status, &answer["protocol"], &answer["guid"]), (StatusCode::OK, &json!(protocol), &json!(guid)));
        assert_eq!(world.spoken().await, [protocol], "{body}");
    }
    assert_eq!(published().await, before + 4);
    assert_eq!(world.pools().await, [("web:8080:http2".to_owned(), true)]);
    assert_eq!(world.events().await, [], "the app is mapped as before");

    // The same process by another route in the other way.
    world.apply("applications: [{name: a, routes: [{route: b.apps.slipway.test, protocol: http1}]}]").await;
    let both = [("web:8080".to_owned(), false), ("web:8080:http2".to_owned(), true)];
    assert_eq!(world.pools().await, both);

    let other = format!("/v3/routes/{}/destinations", route_at(client, "b").await);
    for path in [format!("{other}/{guid}"), format!("{other}/{}", Uuid::new_v4()), format!("{other}/nope")] {
        let answer = client.patch(&path, json!({ "protocol": "http1" })).await;
        refused(&answer, 422, &["Ensure the route has a destination with this guid."]);
    }
    let gone = format!("/v3/routes/{}/destinations/{guid}", Uuid::new_v4());
    refused(&client.patch(&gone, json!({ "protocol": "http1" })).await, 404, &["Route not found"]);
    assert_eq!(world.pools().await, both);
}

#[tokio::test]
async fn an_unknown_protocol_is_refused_and_changes_nothing() {
    let world = World::build().await;
    let client = &world.client;
    let before = world.destinations().await;
    let one = format!("{}/{}", world.path(), before[0]["guid"].as_str().expect("a guid"));
    for bad in nonsense() {
        let answer = client.patch(&one, json!({ "protocol": bad })).await;
        refused(&answer, 422, &["Destination protocol must be 'http1', 'http2' or 'tcp'."]);
        let indexed = format!("Destinations[0]: {UNKNOWN}");
        refused(&client.post(&world.path(), world.to(json!({ "protocol": bad }))).await, 422, &[&indexed]);
        refused(&client.patch(&world.path(), world.to(json!({ "protocol": bad }))).await, 422, &[&indexed]);
    }
    let answer = client.patch(&one, json!({ "protocol": "tcp" })).await;
    refused(
        &answer,
        422,
        &["Destination protocol must be 'http1' or 'http2' if the parent route's protocol is 'http'"],
    );
    let tcp = "Cannot use 'tcp' protocol for http routes; valid options are: [http1, http2].";
    refused(&client.post(&world.path(), world.to(json!({ "protocol": "tcp" }))).await, 422, &[tcp]);
    refused(&client.patch(&world.path(), world.to(json!({ "protocol": "tcp" }))).await, 422, &[tcp]);
    refused(&client.patch(&one, json!({ "port": 8080 })).await, 422, &["Unknown field(s): 'port'"]);
    assert_eq!(world.destinations().await, before);
    assert_eq!(world.events().await, []);
}

/// As on Cloud Foundry, app, process type and port make a destination, and not its protocol.
#[tokio::test]
async fn a_destination_is_there_once_whatever_it_speaks() {
    let world = World::build().await;
    let client = &world.client;
    let path = world.path();
    let twice = |protocol: &str, old: &str| {
        format!(
            "Cannot add destination with protocol: {protocol}. Destination already exists for route: a.apps.slipway.test, \
             app: {}, process: web, and protocol: {old}.",
            world.app
        )
    };
    // 8080 is where the app listens anyway.
    for more in [json!({ "protocol": "http2" }), json!({ "protocol": "http2", "port": 8080 })] {
        refused(&client.post(&path, world.to(more)).await, 422, &[&twice("http2", "http1")]);
    }
    for more in [json!({}), json!({ "protocol": null }), json!({ "protocol": "http1", "port": 8080 })] {
        let (status, body) = client.post(&path, world.to(more)).await;
        assert_eq!((status, body["destinations"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{body}");
    }
    let both = json!({ "destinations": [
        { "app": { "guid": world.app } },
        { "app": { "guid": world.app }, "port": 8080, "protocol": "http2" },
    ] });
    for method in [Method::POST, Method::PATCH] {
        let answer = client.send(client.request(method, &path).json(&both)).await;
        refused(&answer, 422, &["Destinations cannot contain duplicate entries"]);
    }
    assert_eq!((world.spoken().await, world.events().await), (vec!["http1".to_owned()], vec![]));

    // Another port is another destination, which may speak otherwise.
    let (status, body) = client.post(&path, world.to(json!({ "protocol": "http2", "port": 9000 }))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(world.spoken().await, ["http1", "http2"]);
    refused(&client.post(&path, world.to(json!({ "port": 9000 }))).await, 422, &[&twice("http1", "http2")]);
    assert_eq!(world.pools().await, [("web:8080".to_owned(), false), ("web:9000:http2".to_owned(), true)]);

    // A manifest, which has no ports, speaks of the usual one.
    let before = world.destinations().await;
    world.apply("applications: [{name: a, routes: [{route: a.apps.slipway.test, protocol: http1}]}]").await;
    assert_eq!(world.destinations().await, before);
    world.apply("applications: [{name: a, routes: [{route: a.apps.slipway.test, protocol: http2}]}]").await;
    assert_eq!(world.spoken().await, ["http2", "http2"]);
}

#[tokio::test]
async fn replaced_destinations_change_their_protocol() {
    let world = World::build().await;
    let client = &world.client;
    let path = world.path();
    let first = world.destinations().await[0]["guid"].clone();
    let replace = async |more: Value| {
        let (status, body) = client.patch(&path, world.to(more)).await;
        assert_eq!((status, body["destinations"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{body}");
        body["destinations"][0].clone()
    };
    assert_eq!(replace(json!({ "port": 8080, "weight": 100 })).await["guid"], first, "nothing but its weight changed");
    let second = replace(json!({ "protocol": "http2", "weight": 100 })).await;
    assert_eq!((&second["protocol"], &second["weight"]), (&json!("http2"), &json!(100)));
    assert_ne!(second["guid"], first);
    let replaced = replace(json!({ "protocol": "http2" })).await;
    assert_eq!((&replaced["guid"], &replaced["weight"]), (&second["guid"], &Value::Null));
    assert_eq!(replace(json!({})).await["protocol"], "http1", "the default is what a request without one means");
    world.went_there_and_back().await;

    // Two apps share the route by weight, each in its own way.
    let other = world.controller.bare_app(world.space, "other").await;
    let weighted = json!({ "destinations": [
        { "app": { "guid": world.app }, "weight": 80, "protocol": "http2" },
        { "app": { "guid": other }, "weight": 20 },
    ] });
    let (status, body) = client.patch(&path, weighted).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let table = the_table(&world.controller).await;
    let targets: Vec<_> = table.routes[&world.route].targets.iter().map(|target| target.weight).collect();
    assert_eq!(targets, [80], "the other app is stopped");
    assert_eq!(world.pools().await, [("web:8080:http2".to_owned(), true)]);
}

#[tokio::test]
async fn manifests_name_the_protocol_of_a_route() {
    let world = World::build().await;
    let client = &world.client;
    let other = app_of(client, world.space, "other", "  routes: [{route: a.apps.slipway.test}]\n").await;
    let spoken = async || -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let all = world.destinations().await;
        let mut all: Vec<_> = all.iter().map(|to| (text(&to["app"]["guid"]), text(&to["protocol"]))).collect();
        all.sort_by_key(|(app, _)| *app != world.app);
        all
    };
    let both = |own: &str| vec![(world.app.clone(), own.to_owned()), (other.clone(), "http1".to_owned())];
    let text =
        |protocol: &str| format!("applications: [{{name: a, routes: [{{route: a.apps.slipway.test{protocol}}}]}}]");
    let diff = async |text: String| {
        let request = client.request(Method::POST, &format!("/v3/spaces/{}/manifest_diff", world.space));
        client.send(request.header("content-type", "application/x-yaml").body(text)).await.1["diff"].clone()
    };
    let at = "/applications/0/routes/0/protocol";
    let change = json!([{ "op": "replace", "path": at, "was": "http1", "value": "http2" }]);
    assert_eq!(diff(text(", protocol: http2")).await, change);
    // Left open, it stays.
    for (protocol, own) in [
        ("", "http1"),
        (", protocol: http2", "http2"),
        ("", "http2"),
        (", protocol: null", "http2"),
        (", protocol: http1", "http1"),
    ] {
        world.apply(&text(protocol)).await;
        assert_eq!(spoken().await, both(own), "{protocol}: another app's destination is not this one's");
        assert_eq!(diff(text(protocol)).await, json!([]), "{protocol}");
        let (_, written) = client.get(&format!("/v3/apps/{}/manifest", world.app)).await;
        let line = format!("- route: a.apps.slipway.test\n    protocol: {own}\n");
        assert!(written.as_str().expect("YAML").contains(&line), "{written}");
    }
    world.went_there_and_back().await;

    // A route that the manifest makes has it from the beginning.
    world.apply("applications: [{name: a, routes: [{route: new.apps.slipway.test, protocol: http2}]}]").await;
    let (_, new) = client.get(&format!("/v3/routes/{}", route_at(client, "new").await)).await;
    assert_eq!(new["destinations"][0]["protocol"], "http2", "{new}");
    world.apply("applications: [{name: a, no-route: true}]").await;
    let events = world.events().await;
    let mut last = events[events.len() - 2..].to_vec();
    last.sort();
    assert_eq!(last, [event("unmap-route", "http1"), event("unmap-route", "http2")]);
}

#[tokio::test]
async fn a_manifest_with_an_unknown_protocol_is_refused() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    for bad in nonsense() {
        let text = format!("applications: [{{name: a, routes: [{{route: a.apps.slipway.test, protocol: {bad}}}]}}]");
        let shown: String = bad.to_string().chars().take(20).collect();
        let message = format!("For application 'a': Route {UNKNOWN} Route 'a.apps.slipway.test' has {shown}");
        let answer = client.send(manifest(&client, space, &text)).await;
        refused(&answer, 422, &[&message]);
        assert!(answer.1.to_string().len() < 1000, "a refusal is not as long as what it refuses");
    }
    let text = "applications: [{name: a, routes: [{route: a.apps.slipway.test, protocol: tcp}]}]";
    let tcp = "For application 'a': For route 'a.apps.slipway.test': Cannot use 'tcp' protocol for http routes;";
    refused(&client.send(manifest(&client, space, text)).await, 422, &[tcp]);
    assert_eq!(client.get("/v3/apps").await.1["pagination"]["total_results"], 0);
}
