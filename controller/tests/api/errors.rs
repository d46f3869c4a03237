//! Every error that the `cf` command line reacts to, in its situation: status, code, title and words.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::apps::{app_of, build, catalogue, package, ready_package};
use crate::support::{TestClient, TestController};

/// What must come back. The detail is compared whole.
struct Expected {
    status: u16,
    code: u64,
    title: &'static str,
    detail: String,
}

fn expected(status: u16, code: u64, title: &'static str, detail: impl Into<String>) -> Expected {
    Expected { status, code, title, detail: detail.into() }
}

fn unprocessable(detail: impl Into<String>) -> Expected {
    expected(422, 10008, "CF-UnprocessableEntity", detail)
}

fn missing(detail: &str) -> Expected {
    expected(404, 10010, "CF-ResourceNotFound", detail)
}

/// A call, and what it gives.
struct Case {
    client: TestClient,
    method: Method,
    path: String,
    body: Option<Value>,
    expected: Expected,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, client: &TestClient, call: (&str, &str), body: Option<Value>, expected: Expected) {
        let method = Method::from_bytes(call.0.as_bytes()).expect("a method");
        self.0.push(Case { client: client.clone(), method, path: call.1.to_owned(), body, expected });
    }

    /// Makes the calls; all that differ are told together.
    async fn check(self) {
        let mut wrong = Vec::new();
        for case in self.0 {
            let mut request = case.client.request(case.method.clone(), &case.path);
            if let Some(body) = &case.body {
                request = request.json(body);
            }
            let (status, answer) = case.client.send(request).await;
            let wanted = json!({ "errors": [
                { "code": case.expected.code, "title": case.expected.title, "detail": case.expected.detail }
            ] });
            if status.as_u16() != case.expected.status || answer != wanted {
                let expected = case.expected.status;
                wrong.push(format!("{} {}: {status} {answer}\n  not {expected} {wanted}", case.method, case.path));
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

#[tokio::test]
async fn who_is_not_let_in() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    let stranger = controller.user("stranger").await;
    let auditor = controller.user_with("auditor", "space_auditor").await;
    let developer = controller.user_with("developer", "space_developer").await;
    let (reader, forged) = (controller.client(Some("not.a.token")), controller.client(Some("x")));
    let mut cases = Cases::default();
    let invalid = || expected(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token");
    cases.add(&reader, ("GET", "/v3/apps"), None, invalid());
    cases.add(&forged, ("GET", "/v3/apps"), None, invalid());
    let absent = expected(401, 10002, "CF-NotAuthenticated", "Authentication error");
    cases.add(&controller.client(None), ("GET", "/v3/apps"), None, absent);
    let forbidden =
        || expected(403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action");
    let rename = || Some(json!({ "name": "x" }));
    cases.add(&auditor, ("PATCH", &format!("/v3/spaces/{space}")), rename(), forbidden());
    cases.add(&developer, ("POST", "/v3/organizations"), rename(), forbidden());
    cases.add(&stranger, ("GET", &format!("/v3/spaces/{space}")), None, missing("Space not found"));
    cases.add(&stranger, ("GET", &format!("/v3/organizations/{org}")), None, missing("Organization not found"));
    cases.check().await;

    assert_eq!(admin.patch(&format!("/v3/organizations/{org}"), json!({ "suspended": true })).await.0, StatusCode::OK);
    let mut cases = Cases::default();
    let make = json!({ "name": "x", "relationships": { "space": to_one(space) } });
    let suspended = expected(403, 10017, "CF-OrgSuspended", "The organization is suspended");
    cases.add(&developer, ("POST", "/v3/apps"), Some(make), suspended);
    cases.check().await;
}

#[tokio::test]
async fn what_is_not_there() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let nothing = Uuid::new_v4();
    let mut cases = Cases::default();
    for (path, detail) in [
        (format!("/v3/apps/{nothing}"), "App not found"),
        ("/v3/apps/no-guid".to_owned(), "App not found"),
        (format!("/v3/apps/{app}/droplets/current"), "Droplet not found"),
        (format!("/v3/droplets/{nothing}"), "Droplet not found"),
        (format!("/v3/deployments/{nothing}"), "Deployment not found"),
        ("/v3/feature_flags/nonsense".to_owned(), "Feature flag not found"),
        (format!("/v3/processes/{nothing}"), "Process not found"),
        (format!("/v3/apps/{app}/processes/nonsense"), "Process not found"),
        (format!("/v3/users/{nothing}"), "User not found"),
        (format!("/v3/routes/{nothing}"), "Route not found"),
        (format!("/v3/spaces/{nothing}"), "Space not found"),
        (format!("/v3/packages/{nothing}"), "Package not found"),
        (format!("/v3/builds/{nothing}"), "Build not found"),
        (format!("/v3/tasks/{nothing}"), "Task not found"),
        (format!("/v3/jobs/{nothing}"), "Job not found"),
        (format!("/v3/domains/{nothing}"), "Domain not found"),
        (format!("/v3/buildpacks/{nothing}"), "Buildpack not found"),
        (format!("/v3/stacks/{nothing}"), "Stack not found"),
    ] {
        cases.add(&admin, ("GET", &path), None, missing(detail));
    }
    let instance = format!("/v3/apps/{app}/processes/web/instances/7");
    cases.add(&admin, ("DELETE", &instance), None, missing("Instance not found"));
    for (method, path) in [("GET", "/v3/nonsense"), ("PUT", "/v3/apps"), ("GET", "/v2/info")] {
        cases.add(&admin, (method, path), None, expected(404, 10000, "CF-NotFound", "Unknown request"));
    }
    cases.check().await;
}

#[tokio::test]
async fn what_is_there_already() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (org, space) = controller.dev().await;
    controller.user_with("ann", "space_developer").await;
    let (_, domains) = admin.get("/v3/domains?names=apps.slipway.test").await;
    let domain = domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned();
    let role = |kind: &str, place: &str, guid: Uuid| json!({ "type": kind, "relationships": { place: to_one(guid), "user": { "data": { "username": "ann" } } } });
    let mut cases = Cases::default();
    for (path, body, detail) in [
        ("/v3/organizations", json!({ "name": "dev" }), "Organization 'dev' already exists."),
        (
            "/v3/spaces",
            json!({ "name": "dev", "relationships": { "organization": to_one(org) } }),
            "Name must be unique per organization",
        ),
        (
            "/v3/apps",
            json!({ "name": "a", "relationships": { "space": to_one(space) } }),
            "App with the name 'a' already exists.",
        ),
        (
            "/v3/routes",
            json!({ "host": "h", "relationships": { "space": to_one(space), "domain": to_one(&domain) } }),
            "Route already exists with host 'h' for domain 'apps.slipway.test'.",
        ),
        (
            "/v3/roles",
            role("organization_user", "organization", org),
            "User 'ann' already has 'organization_user' role in organization 'dev'.",
        ),
        (
            "/v3/roles",
            role("space_developer", "space", space),
            "User 'ann' already has 'space_developer' role in space 'dev'.",
        ),
        ("/v3/organization_quotas", json!({ "name": "q" }), "Organization Quota 'q' already exists."),
        (
            "/v3/space_quotas",
            json!({ "name": "q", "relationships": { "organization": to_one(org) } }),
            "Space Quota 'q' already exists.",
        ),
        ("/v3/security_groups", json!({ "name": "g" }), "Security group with name 'g' already exists."),
    ] {
        // The first of each is made, or was there from the start.
        let (status, answer) = admin.post(path, body.clone()).await;
        assert!(matches!(status.as_u16(), 201 | 422), "{path}: {answer}");
        cases.add(&admin, ("POST", path), Some(body), unprocessable(detail));
    }
    let (_, groups) = admin.get("/v3/security_groups?names=g").await;
    let group = groups["resources"][0]["guid"].as_str().expect("a guid").to_owned();
    let unbind = format!("/v3/security_groups/{group}/relationships/running_spaces/{space}");
    let words = format!(
        "Unable to unbind security group from space with guid '{space}'. Ensure the space is bound to this security group."
    );
    cases.add(&admin, ("DELETE", &unbind), None, unprocessable(words));
    cases.check().await;
}

#[tokio::test]
async fn what_is_not_the_time_for_it() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    catalogue(&controller.database.pool).await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let empty = package(&admin, &app).await;
    let ready = ready_package(&admin, &app).await;
    build(&admin, &ready).await;
    let mut cases = Cases::default();
    let start = format!("/v3/apps/{app}/actions/start");
    cases.add(&admin, ("POST", &start), None, unprocessable("Assign a droplet before starting this app."));
    let run = format!("/v3/apps/{app}/tasks");
    cases.add(
        &admin,
        ("POST", &run),
        Some(json!({ "command": "true" })),
        unprocessable("Task must have a droplet. Specify droplet or assign current droplet to app."),
    );
    let of = |guid: &str| Some(json!({ "package": { "guid": guid } }));
    cases.add(
        &admin,
        ("POST", "/v3/builds"),
        of(&empty),
        expected(400, 1004, "CF-BadRequest", "Bad request: Cannot stage package whose state is not ready."),
    );
    cases.add(
        &admin,
        ("POST", "/v3/builds"),
        of(&ready),
        expected(422, 170_017, "CF-StagingInProgress", "Only one build can be STAGING at a time per application."),
    );
    let buildpacks = json!({ "name": "b", "relationships": { "space": to_one(space) },
        "lifecycle": { "type": "buildpack", "data": { "buildpacks": ["nonsense"], "stack": null } } });
    cases.add(
        &admin,
        ("POST", "/v3/apps"),
        Some(buildpacks),
        unprocessable("Buildpack \"nonsense\" must be an existing admin buildpack or a valid git URI"),
    );
    let droplet = format!("/v3/apps/{app}/relationships/current_droplet");
    cases.add(
        &admin,
        ("PATCH", &droplet),
        Some(to_one(Uuid::new_v4())),
        unprocessable("Unable to assign current droplet. Ensure the droplet exists and belongs to this app."),
    );
    cases.check().await;
}

#[tokio::test]
async fn what_makes_no_sense() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (status, body) = admin
        .send(admin.request(Method::POST, "/v3/apps").header("content-type", "application/json").body("{\"name\": "))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(
        (&body["errors"][0]["code"], &body["errors"][0]["title"]),
        (&json!(1001), &json!("CF-MessageParseError"))
    );
    let mut cases = Cases::default();
    cases.add(
        &admin,
        ("GET", "/v3/apps?order_by=nonsense"),
        None,
        expected(
            400,
            10005,
            "CF-BadQueryParameter",
            "The query parameter is invalid: Order by can only be: 'created_at', 'updated_at', 'name', 'state'",
        ),
    );
    cases.check().await;
}

#[tokio::test]
async fn what_is_switched_off() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let developer = controller.user_with("developer", "space_developer").await;
    let (_, domains) = admin.get("/v3/domains?names=apps.slipway.test").await;
    let domain = domains["resources"][0]["guid"].as_str().expect("the default domain").to_owned();
    let mut cases = Cases::default();
    for (flag, path, body) in [
        (
            "route_creation",
            "/v3/routes".to_owned(),
            json!({ "host": "h", "relationships": { "space": to_one(space), "domain": to_one(domain) } }),
        ),
        ("task_creation", format!("/v3/apps/{app}/tasks"), json!({ "command": "true" })),
    ] {
        sqlx::query("insert into feature_flag (name, enabled) values ($1, false) on conflict (name) do update set enabled = false")
            .bind(flag)
            .execute(&controller.database.pool)
            .await
            .expect("a flag");
        let off = expected(403, 330_002, "CF-FeatureDisabled", format!("Feature Disabled: {flag}"));
        cases.add(&developer, ("POST", &path), Some(body), off);
    }
    cases.check().await;
}
