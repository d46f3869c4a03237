//! Callers that are refused, and features that are switched off.

use reqwest::StatusCode;
use serde_json::json;
use slipway_controller::auth::tokens;
use slipway_controller::config::Limits;

use super::{Cases, expected, missing, to_one};
use crate::support::TestController;
use crate::support::apps::app_of;

#[tokio::test]
async fn missing_or_invalid_credentials() {
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
    // Somebody with a token that is good for something else.
    let subject = controller.subject(&["uaa.user"]).await;
    let claims = tokens::claims(&controller.context.config, &subject, "password", 600);
    let token = tokens::sign(&controller.context, &claims).await.expect("a token");
    for call in [("GET", "/v3/apps"), ("POST", "/v3/organizations")] {
        let words = "Your token lacks the necessary scopes to access this resource.";
        let body = (call.0 == "POST").then(|| json!({ "name": "x" }));
        cases.add(&controller.client(Some(&token)), call, body, expected(403, 10007, "CF-InsufficientScope", words));
    }
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
async fn disabled_features() {
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

#[tokio::test]
async fn deployments_are_switched_off() {
    let limits = Limits { temporary_disable_deployments: true, ..Limits::default() };
    let controller = TestController::with_limits(limits).await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let app = app_of(&admin, space, "a", "").await;
    let mut cases = Cases::default();
    let words = "Deployments cannot be created due to manifest property 'temporary_disable_deployments'";
    let body = json!({ "relationships": { "app": to_one(app) } });
    let off = expected(403, 390_014, "CF-DeploymentsDisabled", words);
    cases.add(&admin, ("POST", "/v3/deployments"), Some(body), off);
    cases.check().await;
}
