//! Two clients at once, and changes while a deployment is under way: one wins, the other is told, nothing is half done.

use super::*;

#[tokio::test]
async fn of_two_deployments_at_once_one_supersedes_the_other() {
    let site = Site::running().await;
    let (one, two) = tokio::join!(site.deploy(json!({})), site.deploy(json!({ "strategy": "canary" })));
    assert_eq!((one.0, two.0), (StatusCode::CREATED, StatusCode::CREATED));
    let (one, two) = (site.status(&one.1).await, site.status(&two.1).await);
    let mut both = [one, two];
    both.sort();
    assert_eq!(both, [is("ACTIVE", "DEPLOYING"), is("FINALIZED", "SUPERSEDED")]);
    let (_, page) = site.client.get(&format!("/v3/deployments?app_guids={}&status_values=ACTIVE", site.app)).await;
    assert_eq!(page["pagination"]["total_results"], 1);
    let active = page["resources"][0].clone();
    if site.finish(&active).await.1 == "PAUSED" {
        assert_eq!(site.act(&active, "continue").await.0, StatusCode::OK);
        site.finish(&active).await;
    }
    assert_eq!((site.status(&active).await, site.counts().await), (is("FINALIZED", "DEPLOYED"), vec![3]));
}

#[tokio::test]
async fn a_cancellation_and_the_end_exclude_each_other() {
    for _ in 0..5 {
        let site = Site::running().await;
        let (_, deployment) =
            site.deploy(json!({ "droplet": { "guid": site.droplets[1] }, "options": { "max_in_flight": 9 } })).await;
        site.settle().await;
        site.drive().await;
        site.settle().await;
        let (_, (status, answer)) = tokio::join!(site.drive(), site.act(&deployment, "cancel"));
        let (expected, droplet) = match status {
            StatusCode::OK => (is("FINALIZED", "CANCELED"), site.droplets[0]),
            _ => {
                let message = "Cannot cancel a deployment with status: FINALIZED and reason: DEPLOYED";
                assert_eq!(error(&answer).1, message);
                (is("FINALIZED", "DEPLOYED"), site.droplets[1])
            }
        };
        assert_eq!(site.finish(&deployment).await, expected);
        assert_eq!((site.counts().await, site.droplet().await), (vec![3], droplet.to_string()));
    }
}

#[tokio::test]
async fn scaling_races_with_a_deployment_and_one_of_them_decides() {
    for _ in 0..5 {
        let site = Site::running().await;
        let path = format!("/v3/apps/{}/processes/web/actions/scale", site.app);
        let ((created, deployment), (scaled, answer)) =
            tokio::join!(site.deploy(json!({})), site.client.post(&path, json!({ "instances": 5 })));
        assert_eq!(created, StatusCode::CREATED, "{deployment}");
        let instances = match scaled {
            StatusCode::ACCEPTED => 5,
            _ => {
                assert_eq!(error(&answer).0, 390_016, "{answer}");
                3
            }
        };
        assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
        assert_eq!(site.counts().await, [instances]);
    }
}

#[tokio::test]
async fn a_manifest_must_not_touch_what_is_deployed() {
    let site = Site::running().await;
    let (_, deployment) = site.deploy(json!({})).await;
    let (_, space) = site.controller.dev().await;
    for (fields, message) in [
        ("  instances: 7\n", "For application 'shop': Cannot scale this process while a deployment is in flight."),
        ("  command: x\n", "For application 'shop': Cannot update this process while a deployment is in flight."),
    ] {
        let text = format!("applications:\n- name: shop\n  env: {{A: b}}\n{fields}");
        let request = crate::support::apps::manifest(&site.client, space, &text);
        let (status, answer) = site.client.send(request).await;
        assert_eq!((status, error(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let text = "applications:\n- name: shop\n  env: {A: b}\n  processes:\n  - type: web\n";
    let job = site.client.job(crate::support::apps::manifest(&site.client, space, text)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [3]);
}

#[tokio::test]
async fn labels_of_a_deployment_are_changed_and_found() {
    let site = Site::running().await;
    let metadata = json!({ "labels": { "ring": "one" }, "annotations": { "why": "because" } });
    let (_, deployment) = site.deploy(json!({ "metadata": metadata })).await;
    let path = format!("/v3/deployments/{}", deployment["guid"].as_str().expect("guid"));
    let change = json!({ "metadata": { "labels": { "ring": "two", "more": "x" }, "annotations": { "why": null } } });
    let (status, body) = site.client.patch(&path, change).await;
    assert_eq!(
        (status, &body["metadata"]),
        (StatusCode::OK, &json!({ "labels": { "ring": "two", "more": "x" }, "annotations": {} }))
    );
    for (query, count) in [
        ("label_selector=ring%3Dtwo", 1),
        ("label_selector=ring%3Done", 0),
        ("status_reasons=DEPLOYING", 1),
        ("status_reasons=PAUSED", 0),
        ("states=DEPLOYING,DEPLOYED", 1),
        ("status_values=FINALIZED", 0),
    ] {
        let (_, page) = site.client.get(&format!("/v3/deployments?{query}")).await;
        assert_eq!(page["pagination"]["total_results"], count, "{query}");
    }
    let (status, _) = site.client.get("/v3/deployments?names=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for (role, allowed) in [("space_developer", true), ("space_supporter", true), ("space_auditor", false)] {
        let user = site.controller.user_with(role, role).await;
        let body = json!({ "relationships": { "app": { "data": { "guid": site.app } } } });
        let (status, answer) = user.post("/v3/deployments", body).await;
        assert_eq!(status == StatusCode::CREATED, allowed, "{role}: {answer}");
        if !allowed {
            let message = "Unable to use app. Ensure that the app exists and you have access to it.";
            assert_eq!(error(&answer).1, message);
        }
    }
}
