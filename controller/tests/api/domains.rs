//! Domains of organizations: their shares, and what goes when they go.

use crate::errors::{assert_error, expected, unprocessable};
use crate::support::apps::refused;
use crate::support::{TestClient, TestController};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_test_support::{PATIENCE, eventually};
use uuid::Uuid;

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

/// A private domain of organization `dev`, shared with an organization `other` that has a space `far`.
struct World {
    controller: TestController,
    admin: TestClient,
    org: Uuid,
    space: Uuid,
    other: Uuid,
    far: Uuid,
    domain: Uuid,
}

async fn make(client: &TestClient, path: &str, body: Value) -> Uuid {
    let (status, body) = client.post(path, body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["guid"].as_str().expect("a guid").parse().expect("a guid")
}

impl World {
    async fn build() -> Self {
        let controller = TestController::start().await;
        let admin = controller.admin().await;
        let (org, space) = controller.dev().await;
        let other = make(&admin, "/v3/organizations", json!({ "name": "other" })).await;
        let in_other = json!({ "name": "far", "relationships": { "organization": to_one(other) } });
        let far = make(&admin, "/v3/spaces", in_other).await;
        let relationships =
            json!({ "organization": to_one(org), "shared_organizations": { "data": [{ "guid": other }] } });
        let body = json!({ "name": "corp.example", "relationships": relationships });
        let domain = make(&admin, "/v3/domains", body).await;
        Self { controller, admin, org, space, other, far, domain }
    }

    async fn route(&self, space: Uuid, host: &str) -> Uuid {
        let relationships = json!({ "space": to_one(space), "domain": to_one(self.domain) });
        make(&self.admin, "/v3/routes", json!({ "host": host, "relationships": relationships })).await
    }

    async fn unshare(&self) -> (StatusCode, Value) {
        let path = format!("/v3/domains/{}/relationships/shared_organizations/{}", self.domain, self.other);
        self.admin.delete(&path).await
    }

    /// How often a change of this was told to those who follow.
    async fn published(&self, id: Uuid) -> i64 {
        let count = sqlx::query_scalar("select count(*) from change_log where id = $1").bind(id);
        count.fetch_one(&self.controller.database.pool).await.expect("changes")
    }
}

#[tokio::test]
async fn an_organization_stays_while_others_use_its_domains() {
    let world = World::build().await;
    let admin = &world.admin;
    let route = world.route(world.far, "shop").await;
    let app = world.controller.bare_app(world.space, "kept").await;
    let organization = format!("/v3/organizations/{}", world.org);
    let text = "Domain 'corp.example' is shared with other organizations. Unshare before deleting.";
    refused(&admin.delete(&organization).await, 422, &[text]);
    assert_eq!(admin.get(&format!("/v3/apps/{app}")).await.0, StatusCode::OK, "nothing was deleted");
    refused(&world.unshare().await, 422, &["Delete the routes before unsharing."]);
    assert_eq!(admin.get(&format!("/v3/routes/{route}")).await.0, StatusCode::OK);
    admin.delete_job(&format!("/v3/routes/{route}")).await;
    assert_eq!(world.unshare().await.0, StatusCode::NO_CONTENT);
    let words = "Unable to unshare domain from organization with name 'other'. Ensure the domain is shared to this organization.";
    assert_error(&world.unshare().await, &unprocessable(words));

    // A route of another organization that an older program left there goes with the domain, and routers hear of it.
    let left = Uuid::new_v4();
    sqlx::query("insert into route (guid, space_guid, domain_guid, host) values ($1, $2, $3, 'left')")
        .bind(left)
        .bind(world.far)
        .bind(world.domain)
        .execute(&world.controller.database.pool)
        .await
        .expect("a route");
    sqlx::query("delete from app").execute(&world.controller.database.pool).await.expect("no apps");
    let job = admin.delete_job(&organization).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(admin.get(&organization).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.published(left).await, 1);
}

#[tokio::test]
async fn a_domain_goes_with_every_route_on_it() {
    let world = World::build().await;
    let admin = &world.admin;
    let path = format!("/v3/domains/{}", world.domain);
    refused(&admin.delete(&path).await, 422, &["This domain is shared with other organizations."]);
    assert_eq!(world.unshare().await.0, StatusCode::NO_CONTENT);
    let early = world.route(world.space, "early").await;

    // A route that comes while the domain goes: one waits for the other, and routers hear of the route's end.
    let pool = &world.controller.database.pool;
    let mut tx = slipway_controller::store::begin(pool).await.expect("a transaction");
    let late = Uuid::new_v4();
    sqlx::query("insert into route (guid, space_guid, domain_guid, host) values ($1, $2, $3, 'late')")
        .bind(late)
        .bind(world.space)
        .bind(world.domain)
        .execute(&mut *tx)
        .await
        .expect("a route");
    let client = world.controller.admin().await;
    let asked = tokio::spawn({
        let path = path.clone();
        async move { client.delete(&path).await }
    });
    eventually("the removal waits for the route", PATIENCE, async || {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.expect("locks");
        if waiting > 0 { Ok(()) } else { Err("nobody waits") }
    })
    .await;
    tx.commit().await.expect("commit");
    assert_eq!(asked.await.expect("an answer").0, StatusCode::ACCEPTED);
    assert_eq!((world.published(early).await, world.published(late).await), (2, 1));
    assert_eq!(admin.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_include_only_what_the_caller_sees() {
    let world = World::build().await;
    let route = world.route(world.space, "shop").await;
    let pool = &world.controller.database.pool;
    sqlx::query("update feature_flag set enabled = true where name = 'route_sharing'")
        .execute(pool)
        .await
        .expect("update");
    let shared = format!("/v3/routes/{route}/relationships/shared_spaces");
    assert_eq!(world.admin.post(&shared, json!({ "data": [{ "guid": world.far }] })).await.0, StatusCode::OK);
    let third = make(&world.admin, "/v3/organizations", json!({ "name": "third" })).await;
    let orgs = format!("/v3/domains/{}/relationships/shared_organizations", world.domain);
    assert_eq!(world.admin.post(&orgs, json!({ "data": [{ "guid": third }] })).await.0, StatusCode::OK);

    let guest = world.controller.user("guest").await;
    for (role, place) in [
        ("organization_user", json!({ "organization": to_one(world.other) })),
        ("space_developer", json!({ "space": to_one(world.far) })),
    ] {
        let mut relationships = place;
        relationships["user"] = json!({ "data": { "username": "guest" } });
        make(&world.admin, "/v3/roles", json!({ "type": role, "relationships": relationships })).await;
    }
    let path = "/v3/routes?include=domain,space,space.organization";
    let (_, page) = guest.get(path).await;
    assert_eq!(page["resources"][0]["guid"], json!(route), "a shared route is seen: {page}");
    assert_eq!(page["included"]["spaces"], json!([]), "{page}");
    assert_eq!(page["included"]["organizations"], json!([]), "{page}");
    let shares = "/included/domains/0/relationships/shared_organizations/data";
    assert_eq!(page.pointer(shares), Some(&json!([{ "guid": world.other }])), "{page}");

    let (_, page) = world.admin.get(path).await;
    assert_eq!(page["included"]["spaces"][0]["guid"], json!(world.space));
    assert_eq!(page["included"]["organizations"][0]["guid"], json!(world.org));
    assert_eq!(page.pointer(shares).and_then(Value::as_array).map(Vec::len), Some(2));

    // Who audits an organization sees its routes, not its spaces.
    let auditor = world.controller.user_with("audrey", "organization_auditor").await;
    let (_, page) = auditor.get(path).await;
    assert_eq!(page["included"]["organizations"][0]["guid"], json!(world.org), "{page}");
}

/// An organization gets a domain only from somebody who manages it, and may give it back itself.
#[tokio::test]
async fn a_domain_is_shared_by_who_manages_both_and_unshared_by_either() {
    let world = World::build().await;
    let admin = &world.admin;
    let third = make(admin, "/v3/organizations", json!({ "name": "third" })).await;
    let manager = world.controller.user_with("mia", "organization_manager").await;
    let role = async |user: &str, kind: &str, org: Uuid| {
        let relationships = json!({ "organization": to_one(org), "user": { "data": { "username": user } } });
        make(admin, "/v3/roles", json!({ "type": kind, "relationships": relationships })).await
    };
    let orgs = format!("/v3/domains/{}/relationships/shared_organizations", world.domain);
    let with = json!({ "data": [{ "guid": third }] });
    let unseen = format!("Organization with guid '{third}' does not exist, or you do not have access to it.");
    assert_error(&manager.post(&orgs, with.clone()).await, &unprocessable(unseen));
    // Seeing it is not enough, with whatever role.
    let unmanaged = unprocessable("You do not have sufficient permissions for organization 'third' to share domain.");
    for kind in ["organization_user", "organization_auditor", "organization_billing_manager"] {
        role("mia", kind, third).await;
        assert_error(&manager.post(&orgs, with.clone()).await, &unmanaged);
    }
    let relationships = json!({ "organization": to_one(world.org), "shared_organizations": with });
    let body = json!({ "name": "new.example", "relationships": relationships });
    assert_error(&manager.post("/v3/domains", body).await, &unmanaged);
    assert_eq!(admin.get("/v3/domains?names=new.example").await.1["pagination"]["total_results"], 0);
    role("mia", "organization_manager", third).await;
    let own = json!({ "data": [{ "guid": world.org }] });
    assert_error(&manager.post(&orgs, own).await, &unprocessable("Domain cannot be shared with owning organization."));
    let suspend = async |suspended: bool| {
        let body = json!({ "suspended": suspended });
        assert_eq!(admin.patch(&format!("/v3/organizations/{third}"), body).await.0, StatusCode::OK);
    };
    suspend(true).await;
    assert_error(&manager.post(&orgs, with.clone()).await, &unprocessable("Organization 'third' is suspended."));
    suspend(false).await;
    let shares = async || {
        admin.get(&format!("/v3/domains/{}", world.domain)).await.1["relationships"]["shared_organizations"]["data"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(shares().await, Some(1), "nothing was shared so far");
    assert_eq!(manager.post(&orgs, with.clone()).await.0, StatusCode::OK);
    assert_eq!(shares().await, Some(2));

    // Only the manager of the organization that it was shared with; what belongs to others stays.
    let taker = world.controller.user("tom").await;
    role("tom", "organization_manager", third).await;
    let forbidden = expected(403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action");
    assert_error(&taker.post(&orgs, with.clone()).await, &forbidden);
    assert_error(&taker.delete(&format!("{orgs}/{}", world.other)).await, &forbidden);
    suspend(true).await;
    let suspended = expected(403, 10017, "CF-OrgSuspended", "The organization is suspended");
    assert_error(&taker.delete(&format!("{orgs}/{third}")).await, &suspended);
    suspend(false).await;
    assert_eq!(taker.delete(&format!("{orgs}/{third}")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(shares().await, Some(1));
    assert_eq!(manager.post(&orgs, with).await.0, StatusCode::OK);
    assert_eq!(manager.delete(&format!("{orgs}/{third}")).await.0, StatusCode::NO_CONTENT);
}
