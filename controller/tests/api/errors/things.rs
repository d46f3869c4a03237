//! Resources that are missing, and resources that exist already.

use serde_json::json;
use uuid::Uuid;

use super::{Cases, expected, missing, to_one, unprocessable};
use crate::support::TestController;
use crate::support::apps::app_of;

#[tokio::test]
async fn missing_resources() {
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
        (format!("/v3/organizations/{nothing}"), "Organization not found"),
        (format!("/v3/roles/{nothing}"), "Role not found"),
        (format!("/v3/revisions/{nothing}"), "Revision not found"),
        (format!("/v3/sidecars/{nothing}"), "Sidecar not found"),
        (format!("/v3/security_groups/{nothing}"), "Security group not found"),
        (format!("/v3/isolation_segments/{nothing}"), "Isolation segment not found"),
        (format!("/v3/organization_quotas/{nothing}"), "Organization quota not found"),
        (format!("/v3/space_quotas/{nothing}"), "Space quota not found"),
        (format!("/v3/service_instances/{nothing}"), "Service instance not found"),
        (format!("/v3/service_credential_bindings/{nothing}"), "Service credential binding not found"),
        (format!("/v3/service_route_bindings/{nothing}"), "Service route binding not found"),
        (format!("/v3/service_brokers/{nothing}"), "Service broker not found"),
        (format!("/v3/service_offerings/{nothing}"), "Service offering not found"),
        (format!("/v3/service_plans/{nothing}"), "Service plan not found"),
        (format!("/v3/audit_events/{nothing}"), "Event not found"),
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
async fn duplicate_resources() {
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
        (
            "/v3/isolation_segments",
            json!({ "name": "s" }),
            "Isolation Segment names are case insensitive and must be unique",
        ),
        ("/v3/domains", json!({ "name": "d.example" }), "The domain name \"d.example\" is already in use"),
        ("/v3/stacks", json!({ "name": "s" }), "Name must be unique"),
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
