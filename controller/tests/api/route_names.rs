//! Nobody takes the platform's requests, or another tenant's, with a name of his own.

use std::collections::BTreeSet;

use crate::support::apps::{manifest, refused};
use crate::support::{TestClient, TestController};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_controller::store::addresses::address_lock_tx;
use slipway_test_support::{PATIENCE, eventually};
use uuid::Uuid;

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

async fn domain_guid(client: &TestClient, name: &str) -> String {
    let (_, domains) = client.get(&format!("/v3/domains?names={name}")).await;
    domains["resources"][0]["guid"].as_str().unwrap_or_else(|| panic!("no domain {name}")).to_owned()
}

async fn make_domain(client: &TestClient, name: &str, org: Option<Uuid>) -> (StatusCode, Value) {
    let relationships = org.map_or_else(|| json!({}), |org| json!({ "organization": to_one(org) }));
    client.post("/v3/domains", json!({ "name": name, "relationships": relationships })).await
}

async fn make_route(client: &TestClient, space: Uuid, domain: &str, host: &str, path: &str) -> (StatusCode, Value) {
    let relationships = json!({ "space": to_one(space), "domain": to_one(domain) });
    client.post("/v3/routes", json!({ "host": host, "path": path, "relationships": relationships })).await
}

fn made(answer: &(StatusCode, Value)) -> String {
    assert_eq!(answer.0, StatusCode::CREATED, "{}", answer.1);
    answer.1["guid"].as_str().expect("a guid").to_owned()
}

async fn another_org(admin: &TestClient) -> (Uuid, Uuid) {
    let org = made(&admin.post("/v3/organizations", json!({ "name": "other" })).await);
    let body = json!({ "name": "far", "relationships": { "organization": to_one(&org) } });
    let space = made(&admin.post("/v3/spaces", body).await);
    (org.parse().expect("a guid"), space.parse().expect("a guid"))
}

#[tokio::test]
async fn a_domain_takes_no_name_that_is_used() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, _) = controller.dev().await;
    let (other, far) = another_org(&admin).await;
    let shared = domain_guid(&admin, "apps.slipway.test").await;
    made(&make_route(&admin, far, &shared, "victim", "").await);
    made(&make_domain(&admin, "corp.example", Some(other)).await);
    made(&make_domain(&admin, "deep.below.test", Some(other)).await);

    let manager = controller.user_with("mia", "organization_manager").await;
    for (name, by, whom) in [
        ("api.slipway.test", "api.slipway.test", "the system"),
        ("LOGIN.slipway.test", "login.slipway.test", "the system"),
        ("v3.api.slipway.test", "api.slipway.test", "the system"),
        ("slipway.test", "slipway.test", "the system"),
        ("victim.apps.slipway.test", "victim.apps.slipway.test", "a route"),
        ("www.victim.apps.slipway.test", "victim.apps.slipway.test", "a route"),
        ("shop.corp.example", "corp.example", "another domain"),
        ("below.test", "deep.below.test", "another domain"),
    ] {
        let text = format!(
            "The domain name \"{}\" cannot be created because \"{by}\" is already reserved by {whom}",
            name.to_lowercase()
        );
        refused(&make_domain(&manager, name, Some(org)).await, 422, &[&text]);
    }
    for host in ["api", "uaa", "login", "log-cache"] {
        let name = format!("{host}.slipway.test");
        refused(&make_domain(&admin, &name, None).await, 422, &["reserved by the system"]);
    }
    // Beside these, everything as before; a platform's own domain may be shared by whoever runs it.
    made(&make_domain(&manager, "mine.apps.slipway.test", Some(org)).await);
    made(&make_domain(&manager, "shop.mine.apps.slipway.test", Some(org)).await);
    made(&make_domain(&admin, "slipway.test", None).await);
}

#[tokio::test]
async fn a_route_takes_no_name_that_is_used() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let (_, far) = another_org(&admin).await;
    let shared = domain_guid(&admin, "apps.slipway.test").await;
    let system = made(&make_domain(&admin, "slipway.test", None).await);
    let taken = made(&make_domain(&admin, "taken.apps.slipway.test", Some(org)).await);
    made(&make_route(&admin, far, &shared, "victim", "").await);
    let bare = made(&make_route(&admin, space, &taken, "", "/x").await);
    let (_, events) = admin.get(&format!("/v3/audit_events?target_guids={bare}")).await;
    assert_eq!(events["resources"][0]["target"]["name"], "taken.apps.slipway.test/x", "{events}");

    let developer = controller.user_with("dev", "space_developer").await;
    let route = async |domain: &str, host: &str, path: &str| make_route(&developer, space, domain, host, path).await;
    refused(&route(&system, "API", "").await, 422, &["Route conflicts with a reserved system route."]);
    refused(&route(&system, "apps", "").await, 422, &["Route conflicts with domain 'apps.slipway.test'."]);
    refused(&route(&shared, "taken", "").await, 422, &["Route conflicts with domain 'taken.apps.slipway.test'."]);
    refused(&route(&shared, "victim", "").await, 422, &["Route already exists with host 'victim'"]);
    let elsewhere = ["host 'Victim' for domain 'apps.slipway.test' have been reserved for another space"];
    refused(&route(&shared, "Victim", "/login").await, 422, &elsewhere);
    refused(&route(&shared, "*", "").await, 422, &["wildcard host on a domain not scoped to an organization"]);
    refused(&route(&shared, "a", "/b?c=d").await, 422, &["Path cannot contain '?'", "/b?c=d"]);
    made(&route(&shared, "own", "").await);
    made(&route(&shared, "own", "/more").await);
    made(&make_route(&admin, space, &shared, "*", "").await);

    // What older programs let in is refused from the other side too.
    let pool = &controller.database.pool;
    sqlx::query("insert into route (guid, space_guid, domain_guid, host) values (gen_random_uuid(), $1, $2, 'a.b')")
        .bind(far)
        .bind(system.parse::<Uuid>().expect("a guid"))
        .execute(pool)
        .await
        .expect("a route with a dot");
    let inner = made(&make_domain(&admin, "b.slipway.test", None).await);
    refused(&route(&inner, "a", "").await, 422, &["route 'a.b.slipway.test' of domain 'slipway.test'"]);
}

#[tokio::test]
async fn a_domain_waits_for_routes_that_are_being_made() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let shared: Uuid = domain_guid(&admin, "apps.slipway.test").await.parse().expect("a guid");
    let pool = &controller.database.pool;
    let mut tx = slipway_controller::store::begin(pool).await.expect("a transaction");
    address_lock_tx(&mut tx, "racy.apps.slipway.test").await.expect("the lock");
    sqlx::query("insert into route (guid, space_guid, domain_guid, host) values ($1, $2, $3, 'racy')")
        .bind(Uuid::new_v4())
        .bind(space)
        .bind(shared)
        .execute(&mut *tx)
        .await
        .expect("a route");
    let asked = tokio::spawn(async move { make_domain(&admin, "racy.apps.slipway.test", Some(org)).await });
    eventually("somebody waits for the lock", PATIENCE, async || {
        let waiting = "select count(*) from pg_locks
                       where locktype = 'advisory' and not granted
                         and database = (select oid from pg_database where datname = current_database())";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.expect("locks");
        if waiting > 0 { Ok(()) } else { Err("nobody waits") }
    })
    .await;
    tx.commit().await.expect("commit");
    refused(&asked.await.expect("an answer"), 422, &["is already reserved by a route"]);
}

#[tokio::test]
async fn manifests_make_only_routes_that_the_api_would() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let (_, far) = another_org(&admin).await;
    let shared = domain_guid(&admin, "apps.slipway.test").await;
    made(&make_domain(&admin, "slipway.test", None).await);
    made(&make_route(&admin, far, &shared, "victim", "").await);
    let long = format!("x.apps.slipway.test/{}", "p".repeat(128));
    for (route, problem) in [
        ("route: api.slipway.test", "reserved system route"),
        ("route: a.b.apps.slipway.test", "Host format is invalid: \"a.b\""),
        ("route: a..apps.slipway.test", "Host format is invalid: \"a.\""),
        ("route: -a.apps.slipway.test", "Host format is invalid: \"-a\""),
        ("route: a*b.apps.slipway.test", "Host format is invalid: \"a*b\""),
        ("route: '*.apps.slipway.test'", "wildcard host"),
        ("route: apps.slipway.test", "Missing host"),
        ("route: victim.apps.slipway.test", "in use in another space"),
        ("route: victim.apps.slipway.test/login", "reserved for another space"),
        (r#"route: "x.apps.slipway.test/a\tb""#, r"/a\tb"),
        (&format!("route: {long}"), "no more than 128 characters"),
        ("route: x.apps.slipway.test, options: {loadbalancing: random}", "'loadbalancing' is not valid: \"random\""),
        ("route: x.apps.slipway.test, options: {colour: red}", "Unknown field(s): 'colour'"),
    ] {
        let text = format!("applications: [{{name: a, routes: [{{{route}}}]}}]");
        let answer = client.send(manifest(&client, space, &text)).await;
        refused(&answer, 422, &["For application 'a': For route '", problem]);
        assert_eq!(client.get("/v3/apps").await.1["pagination"]["total_results"], 0, "{route} left something behind");
    }

    let text = "applications: [{name: a, routes: [{route: x.apps.slipway.test/y, options: {hash_balance: 1.5}}]}]";
    client.job(manifest(&client, space, text)).await;
    let (_, page) = client.get("/v3/routes?hosts=x").await;
    let route = &page["resources"][0];
    assert_eq!(route["options"], json!({ "hash_balance": "1.5" }), "{page}");
    assert_eq!(route["metadata"], json!({ "labels": {}, "annotations": {} }));
    let guid = route["guid"].as_str().expect("a guid");
    // Of one transaction, and so in no order.
    let (_, events) = client.get(&format!("/v3/audit_events?target_guids={guid}")).await;
    let kinds = events["resources"].as_array().expect("events").iter().map(|event| event["type"].as_str());
    let kinds: BTreeSet<_> = kinds.map(|kind| kind.expect("a type")).collect();
    assert_eq!(kinds, BTreeSet::from(["audit.app.map-route", "audit.route.create"]), "{events}");

    // Again with another option: the route that is there gets it, and is published anew.
    let published = async || -> i64 {
        let id: Uuid = guid.parse().expect("a guid");
        sqlx::query_scalar("select count(*) from change_log where id = $1")
            .bind(id)
            .fetch_one(&controller.database.pool)
            .await
            .expect("changes")
    };
    let before = published().await;
    let text = "applications: [{name: a, routes: [{route: x.apps.slipway.test/y, \
                options: {loadbalancing: least-connection, hash_balance: null}}]}]";
    client.job(manifest(&client, space, text)).await;
    let (_, now) = client.get(&format!("/v3/routes/{guid}")).await;
    assert_eq!(now["options"], json!({ "loadbalancing": "least-connection" }));
    assert_eq!(published().await, before + 1);

    // What a route leads to is as the API would have it.
    let app = route["destinations"][0]["app"]["guid"].as_str().expect("an app");
    let weighted = json!({ "destinations": [{ "app": { "guid": app }, "weight": 100 }] });
    assert_eq!(client.patch(&format!("/v3/routes/{guid}/destinations"), weighted).await.0, StatusCode::OK);
    let text = "applications: [{name: a, routes: [{route: x.apps.slipway.test/y}]}]";
    client.job(manifest(&client, space, text)).await;
    let text = text.replace("name: a", "name: b");
    refused(&client.send(manifest(&client, space, &text)).await, 422, &["weighted destinations already configured"]);
    sqlx::query("update route_destination set weight = null").execute(&controller.database.pool).await.expect("update");
    sqlx::query(
        "insert into route_destination (guid, route_guid, app_guid, port)
         select gen_random_uuid(), $1, $2, 2000 + n from generate_series(1, 99) n",
    )
    .bind(guid.parse::<Uuid>().expect("a guid"))
    .bind(app.parse::<Uuid>().expect("a guid"))
    .execute(&controller.database.pool)
    .await
    .expect("destinations");
    refused(&client.send(manifest(&client, space, &text)).await, 422, &["at most 100 destinations"]);
    client.job(manifest(&client, space, "applications: [{name: a, no-route: true}]")).await;
    assert_eq!(client.get(&format!("/v3/routes/{guid}")).await.1["destinations"], json!([]));
}

/// Clients show a host as it was written and look for it so; requests and other routes know no case.
#[tokio::test]
async fn a_host_keeps_its_case_and_no_other_differs_by_case_alone() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let shared = domain_guid(&client, "apps.slipway.test").await;
    let (status, route) = make_route(&client, space, &shared, "My-Shop", "").await;
    assert_eq!((status, &route["host"]), (StatusCode::CREATED, &json!("My-Shop")), "{route}");
    assert_eq!(route["url"], "My-Shop.apps.slipway.test");
    for host in ["my-shop", "MY-SHOP"] {
        refused(&make_route(&client, space, &shared, host, "").await, 422, &["already exists"]);
        let (_, found) = client.get(&format!("/v3/routes?hosts={host}")).await;
        assert_eq!(found["resources"][0]["guid"], route["guid"], "{host}");
    }

    // A manifest finds the route in any case, and makes one in that of the app's name.
    let text =
        "applications: [{name: MyApp, default-route: true}, {name: b, routes: [{route: my-shop.APPS.slipway.test}]}]";
    client.job(manifest(&client, space, text)).await;
    let (_, routes) = client.get("/v3/routes?order_by=created_at").await;
    let urls: Vec<_> = routes["resources"].as_array().expect("routes").iter().map(|route| &route["url"]).collect();
    assert_eq!(urls, ["My-Shop.apps.slipway.test", "MyApp.apps.slipway.test"]);
}

#[tokio::test]
async fn no_route_wins_over_what_the_manifest_names() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let routes = "routes: [{route: x.apps.slipway.test}]";
    client.job(manifest(&client, space, &format!("applications: [{{name: a, {routes}}}]"))).await;
    // `cf push --no-route` leaves the manifest's routes in what it sends.
    let text = format!("applications: [{{name: a, no-route: true, {}}}]", routes.replace("x.", "y."));
    client.job(manifest(&client, space, &text)).await;
    let (_, found) = client.get("/v3/routes").await;
    assert_eq!((&found["pagination"]["total_results"], &found["resources"][0]["host"]), (&json!(1), &json!("x")));
    assert_eq!(found["resources"][0]["destinations"], json!([]));
    let text = "applications: [{name: a, random-route: true, default-route: true}]";
    refused(&client.send(manifest(&client, space, text)).await, 422, &["may not be used together"]);
}
