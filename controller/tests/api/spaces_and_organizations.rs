//! Organizations, spaces, roles and domains: valid and invalid requests.

use crate::mapped_routes::route;
use crate::support::apps::refused;
use crate::support::{TestController, error};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_controller::store::change_log;
use uuid::Uuid;

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

#[tokio::test]
async fn names_are_ordered_whatever_their_case() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    for name in ["XYZ", "ghi", "abc", "DEF"] {
        assert_eq!(admin.post("/v3/organizations", json!({ "name": name })).await.0, StatusCode::CREATED);
    }
    for (order, expected) in
        [("name", ["abc", "DEF", "dev", "ghi", "XYZ"]), ("-name", ["XYZ", "ghi", "dev", "DEF", "abc"])]
    {
        let (_, list) = admin.get(&format!("/v3/organizations?order_by={order}")).await;
        let names: Vec<_> = list["resources"].as_array().expect("a list").iter().map(|org| &org["name"]).collect();
        assert_eq!(names, expected, "{order}");
    }
}

#[tokio::test]
async fn nothing_is_shown_without_a_token() {
    let controller = TestController::start().await;
    let nobody = controller.client(None);
    let admin = controller.admin().await;
    for path in [
        "organizations",
        "organization_quotas",
        "spaces",
        "isolation_segments",
        "roles",
        "users",
        "domains",
        "routes",
        "service_route_bindings",
        "audit_events",
        "feature_flags",
        "buildpacks",
        "stacks",
        "service_instances",
        "service_credential_bindings",
    ] {
        let path = format!("/v3/{path}");
        let (status, body) = nobody.get(&path).await;
        assert_eq!((status, error(&body).0), (StatusCode::UNAUTHORIZED, 10002), "{path}");
        let (status, body) = admin.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        assert!(body["pagination"]["total_pages"].as_u64() >= Some(1), "{path}");
        let (status, body) = admin.get(&format!("{path}?nonsense=1")).await;
        assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 10005), "{path}");
    }
    let unknown = Uuid::new_v4();
    for (path, what) in [
        ("organizations", "Organization"),
        ("spaces", "Space"),
        ("roles", "Role"),
        ("users", "User"),
        ("domains", "Domain"),
        ("routes", "Route"),
        ("audit_events", "Event"),
        ("buildpacks", "Buildpack"),
        ("stacks", "Stack"),
        ("jobs", "Job"),
        ("feature_flags", "Feature flag"),
    ] {
        for guid in [unknown.to_string(), "no-guid".to_owned()] {
            let (status, body) = admin.get(&format!("/v3/{path}/{guid}")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(error(&body), (10010, format!("{what} not found")));
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let send = |body: String| admin.send(admin.request(Method::POST, "/v3/organizations").body(body));
    let (status, body) = send("{\"name\":".to_owned()).await;
    assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 1001));
    let (status, body) = send("{\"name\": 7}".to_owned()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&body).1.starts_with("'name' is not as expected"), "{body}");
    let (_, body) = send("{\"name\": \"x\", \"nmae\": 1}".to_owned()).await;
    assert_eq!(error(&body).1, "Unknown field(s): 'nmae'");
    let (_, body) = send(json!({ "name": "x".repeat(251) }).to_string()).await;
    assert_eq!(error(&body).1, "Name is too long (maximum is 250 characters)");
    let (status, body) = send(format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20))).await;
    assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 1004));
    let (status, body) = send("{\"name\": \"a\\u0000b\"}".to_owned()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let (_, page) = admin.get("/v3/organizations").await;
    assert_eq!(page["pagination"]["total_results"], 1, "nothing was left behind");
}

#[tokio::test]
async fn organizations_and_spaces_are_created_changed_and_deleted() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (status, org) = admin.post("/v3/organizations", json!({ "name": "acme", "suspended": false })).await;
    assert_eq!(status, StatusCode::CREATED, "{org}");
    assert!(org["relationships"]["quota"]["data"]["guid"].is_string());
    let (status, body) = admin.post("/v3/organizations", json!({ "name": "ACME" })).await;
    assert_eq!(
        (status, error(&body).1),
        (StatusCode::UNPROCESSABLE_ENTITY, "Organization 'ACME' already exists.".to_owned())
    );
    let org_guid = org["guid"].as_str().expect("a guid");
    let (status, body) = admin.patch(&format!("/v3/organizations/{org_guid}"), json!({ "name": "Dev" })).await;
    assert_eq!(
        (status, error(&body).1),
        (StatusCode::UNPROCESSABLE_ENTITY, "Organization name 'Dev' is already taken.".to_owned())
    );
    let body = json!({ "name": "prod", "relationships": { "organization": to_one(org_guid) } });
    let (status, space) = admin.post("/v3/spaces", body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{space}");
    assert_eq!(error(&admin.post("/v3/spaces", body).await.1).1, "Name must be unique per organization");
    let space_guid: Uuid = space["guid"].as_str().expect("a guid").parse().expect("a uuid");

    let (_, page) = admin.get("/v3/spaces?include=organization&names=prod").await;
    assert_eq!(page["included"]["organizations"][0]["guid"], org["guid"]);
    let labels = json!({ "metadata": { "labels": { "env": "prod", "gone": null } } });
    assert_eq!(admin.patch(&format!("/v3/spaces/{space_guid}"), labels).await.0, StatusCode::OK);
    let (_, page) = admin.get("/v3/spaces").await;
    let others: Vec<&str> =
        page["resources"].as_array().into_iter().flatten().filter_map(|space| space["name"].as_str()).collect();
    let others: Vec<&str> = others.into_iter().filter(|name| *name != "prod").collect();
    assert!(!others.is_empty(), "a space without the label: {page}");
    for (selector, labelled) in [
        ("env%3Dprod", true),
        ("env!%3Dprod", false),
        ("!env", false),
        ("env%20in%20(a,prod)", true),
        ("env%20notin%20(prod)", false),
    ] {
        let (_, page) = admin.get(&format!("/v3/spaces?label_selector={selector}")).await;
        let names: Vec<&str> =
            page["resources"].as_array().into_iter().flatten().filter_map(|space| space["name"].as_str()).collect();
        assert_eq!(names, if labelled { vec!["prod"] } else { others.clone() }, "{selector}: {page}");
    }
    for path in ["relationships/default_isolation_segment", "domains", "domains/default", "usage_summary"] {
        assert_eq!(admin.get(&format!("/v3/organizations/{org_guid}/{path}")).await.0, StatusCode::OK, "{path}");
    }
    for path in
        ["relationships/isolation_segment", "features/ssh", "running_security_groups", "staging_security_groups"]
    {
        assert_eq!(admin.get(&format!("/v3/spaces/{space_guid}/{path}")).await.0, StatusCode::OK, "{path}");
    }

    controller.bare_app(space_guid, "app").await;
    assert_eq!(route(&admin, space_guid, "in-prod").await.0, StatusCode::CREATED);
    let job = admin.delete_job(&format!("/v3/organizations/{org_guid}")).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(admin.get(&format!("/v3/organizations/{org_guid}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/v3/routes").await.1["pagination"]["total_results"], 0);
    let (_, events) = admin.get("/v3/audit_events?types=audit.app.delete-request").await;
    assert_eq!(events["resources"][0]["actor"]["name"], "admin", "{events}");
}

#[tokio::test]
async fn roles_decide_what_is_allowed() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let stranger = controller.user("stranger").await;
    let auditor = controller.user_with("auditor", "space_auditor").await;
    let developer = controller.user_with("developer", "space_developer").await;
    let (_, made) = route(&admin, space, "web").await;
    let path = format!("/v3/routes/{}", made["guid"].as_str().expect("a guid"));
    let change = json!({ "metadata": { "labels": { "a": "b" } } });
    for (client, read, write) in [
        (&stranger, StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
        (&auditor, StatusCode::OK, StatusCode::FORBIDDEN),
        (&developer, StatusCode::OK, StatusCode::OK),
    ] {
        assert_eq!(client.get(&path).await.0, read);
        assert_eq!(client.patch(&path, change.clone()).await.0, write);
    }
    assert_eq!(stranger.get("/v3/routes").await.1["pagination"]["total_results"], 0);
    assert_eq!(stranger.get("/v3/organizations").await.1["pagination"]["total_results"], 0);
    assert_eq!(auditor.get("/v3/organizations").await.1["pagination"]["total_results"], 1);
    assert_eq!(developer.post("/v3/organizations", json!({ "name": "mine" })).await.0, StatusCode::FORBIDDEN);

    let again = json!({ "type": "organization_user", "relationships": {
        "organization": to_one(org), "user": { "data": { "username": "developer" } } } });
    let (status, body) = admin.post("/v3/roles", again).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&body).1, "User 'developer' already has 'organization_user' role in organization 'dev'.");
    let unknown = json!({ "type": "space_developer", "relationships": {
        "space": to_one(space), "user": { "data": { "username": "nobody" } } } });
    assert_eq!(error(&admin.post("/v3/roles", unknown).await.1).1, "No user exists with the username 'nobody'.");
    let twin = json!({ "userName": "developer", "origin": "ldap" });
    assert_eq!(admin.post("/Users", twin).await.0, StatusCode::CREATED);
    for (user, text) in [
        (
            json!({ "guid": "nobody" }),
            "Users cannot be assigned roles in a space if they do not have a role in that space's organization.",
        ),
        (
            json!({ "username": "nobody", "origin": "ldap" }),
            "No user exists with the username 'nobody' and origin 'ldap'.",
        ),
        (
            json!({ "username": "developer" }),
            "Ambiguous user. User with username 'developer' exists in the following origins: ldap, uaa. Specify an \
             origin to disambiguate.",
        ),
    ] {
        let role =
            json!({ "type": "space_auditor", "relationships": { "space": to_one(space), "user": { "data": user } } });
        assert_eq!(error(&admin.post("/v3/roles", role).await.1).1, text);
    }

    let (_, roles) = admin.get(&format!("/v3/roles?include=user&types=space_auditor&space_guids={space}")).await;
    assert_eq!(roles["included"]["users"][0]["username"], "auditor");
    let role = roles["resources"][0]["guid"].as_str().expect("a guid");
    assert_eq!(developer.delete(&format!("/v3/roles/{role}")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(admin.delete_job(&format!("/v3/roles/{role}")).await["state"], "COMPLETE");
    assert_eq!(auditor.get(&path).await.0, StatusCode::NOT_FOUND);
    let user = roles["included"]["users"][0]["guid"].as_str().expect("a guid");
    let (_, events) = admin.get(&format!("/v3/audit_events?target_guids={user}&order_by=created_at")).await;
    let types: Vec<_> = events["resources"].as_array().expect("events").iter().map(|event| &event["type"]).collect();
    assert_eq!(types.last().expect("an event"), &"audit.user.space_auditor_remove", "{events}");

    let org_path = format!("/v3/organizations/{org}");
    assert_eq!(admin.patch(&org_path, json!({ "suspended": true })).await.0, StatusCode::OK);
    let (status, body) = developer.patch(&path, change.clone()).await;
    assert_eq!((status, error(&body).0), (StatusCode::FORBIDDEN, 10017));
    assert_eq!(admin.patch(&path, change).await.0, StatusCode::OK);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    for name in ["a,b", "c", "d"] {
        assert_eq!(admin.post("/v3/organizations", json!({ "name": name })).await.0, StatusCode::CREATED);
    }
    let (_, found) = admin.get("/v3/organizations?names=a%252Cb,c").await;
    assert_eq!(found["pagination"]["total_results"], 2);
    let (mut seen, mut next) = (Vec::new(), "/v3/organizations?order_by=-name&per_page=1".to_owned());
    loop {
        let (_, page) = admin.get(&next).await;
        seen.push(page["resources"][0]["name"].as_str().expect("a name").to_owned());
        match page["pagination"]["next"]["href"].as_str() {
            Some(href) => href.clone_into(&mut next),
            None => break,
        }
    }
    assert_eq!(seen, ["dev", "d", "c", "a,b"]);
}

/// Routers write both names into access lines: two tables of one version must not tell different ones.
#[tokio::test]
async fn another_name_of_a_space_or_organization_is_another_version_of_the_table() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let version = async || change_log::current(&controller.database.pool).await.expect("a version");
    for path in [format!("/v3/spaces/{space}"), format!("/v3/organizations/{org}")] {
        let before = version().await;
        let (status, body) = admin.patch(&path, json!({ "name": "renamed" })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(version().await > before, "{path}");
    }
}

/// `include` of a list does the same for one of it.
#[tokio::test]
async fn one_resource_comes_with_its_parents() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let app = controller.pushed(&client, "web").await;
    let (_, space) = controller.dev().await;
    let (_, routes) = client.get(&format!("/v3/apps/{app}/routes")).await;
    let route = routes["resources"][0]["guid"].as_str().expect("a route").to_owned();
    let (_, roles) = client.get(&format!("/v3/roles?space_guids={space}")).await;
    let role = roles["resources"][0]["guid"].as_str().expect("a role").to_owned();
    for (path, include, names) in [
        (format!("/v3/apps/{app}"), "space", &["spaces"] as &[&str]),
        (format!("/v3/apps/{app}"), "space.organization", &["organizations", "spaces"]),
        (format!("/v3/spaces/{space}"), "organization", &["organizations"]),
        (format!("/v3/routes/{route}"), "domain", &["domains"]),
        (format!("/v3/routes/{route}"), "domain,space.organization", &["domains", "organizations", "spaces"]),
        (format!("/v3/roles/{role}"), "user,space", &["spaces", "users"]),
    ] {
        let (status, plain) = client.get(&path).await;
        assert_eq!((status, plain.get("included")), (StatusCode::OK, None), "{plain}");
        let (status, mut whole) = client.get(&format!("{path}?include={include}")).await;
        assert_eq!(status, StatusCode::OK, "{path} {include}: {whole}");
        let included = whole.as_object_mut().expect("an object").remove("included").expect("parents");
        let shown: Vec<&str> = included.as_object().expect("by name").keys().map(String::as_str).collect();
        assert_eq!(shown, names, "{path} {include}");
        assert!(names.iter().all(|name| included[name][0]["guid"].is_string()), "{included}");
        assert_eq!(whole, plain, "the resource itself is the same");
        refused(&client.get(&format!("{path}?include=nonsense")).await, 400, &["nonsense"]);
    }
}
