//! Rolling deployments of one process type.

use super::*;

#[tokio::test]
async fn an_app_rolls_over_one_by_one_and_refuses_what_would_disturb_it() {
    let site = Site::running().await;
    let options = json!({ "max_in_flight": null, "canary": null, "web_instances": null, "memory_in_mb": null });
    let body = json!({ "strategy": "rolling", "droplet": { "guid": site.droplets[1] }, "options": options });
    let (status, deployment) = site.deploy(body).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(deployment["previous_droplet"]["guid"], json!(site.droplets[0]));
    assert_eq!(deployment["options"], json!({ "max_in_flight": 1 }));
    assert_eq!(site.status(&deployment).await, is("ACTIVE", "DEPLOYING"));
    assert_eq!(site.droplet().await, site.droplets[1].to_string());
    let app = site.app;
    for (path, body, code) in [
        (format!("/v3/apps/{app}/actions/stop"), json!({}), 390_024),
        (format!("/v3/apps/{app}/processes/web/actions/scale"), json!({ "instances": 9 }), 390_016),
    ] {
        let (status, answer) = site.client.post(&path, body).await;
        assert_eq!((status, error(&answer).0), (StatusCode::UNPROCESSABLE_ENTITY, code), "{path}");
    }
    let new = deployment["new_processes"][0]["guid"].as_str().expect("guid").to_owned();
    for path in [format!("/v3/apps/{app}/processes/web"), format!("/v3/processes/{new}")] {
        let (status, answer) = site.client.patch(&path, json!({ "command": "x" })).await;
        assert_eq!((status, error(&answer).0), (StatusCode::UNPROCESSABLE_ENTITY, 390_017), "{path}");
    }
    let mut seen = vec![site.counts().await];
    for _ in 0..3 {
        site.settle().await;
        site.drive().await;
        seen.push(site.counts().await);
    }
    assert_eq!(seen, [vec![3, 1], vec![2, 2], vec![1, 3], vec![0, 3]]);
    site.settle().await;
    site.drive().await;
    assert_eq!(site.status(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [3]);
    let (_, process) = site.client.get(&format!("/v3/apps/{app}/processes/web")).await;
    assert_eq!(process["guid"], json!(new), "the new process is the app's");
    let (_, page) = site.client.get(&format!("/v3/deployments?app_guids={app}&status_values=ACTIVE")).await;
    assert_eq!(page["pagination"]["total_results"], 0);
    let (_, events) = site.client.get("/v3/audit_events?types=audit.app.deployment.create").await;
    assert_eq!(events["pagination"]["total_results"], 1);
    let (status, body) = site.client.post(&format!("/v3/apps/{app}/actions/stop"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn new_instances_count_only_when_routers_have_them() {
    let site = Site::running().await;
    site.sql(&format!(
        "with r as (insert into route (guid, space_guid, domain_guid, host)
             select gen_random_uuid(), a.space_guid, d.guid, 'shop' from app a, domain d where a.guid = '{}' limit 1
             returning guid)
         insert into route_destination (guid, route_guid, app_guid) select gen_random_uuid(), guid, '{}' from r",
        site.app, site.app
    ))
    .await;
    let (_, deployment) = site.deploy(json!({})).await;
    site.settle().await;
    site.sql("update assignment set route_seq = 7").await;
    site.drive().await;
    assert_eq!(site.counts().await, [3, 1], "no router is connected: nothing is proven");
    site.sql("insert into router (id, zone, session, applied_epoch, applied_seq) values (gen_random_uuid(), 'z', gen_random_uuid(), 1, 6)").await;
    site.drive().await;
    assert_eq!(site.counts().await, [3, 1], "the router is behind");
    site.sql("update router set applied_seq = 7").await;
    site.drive().await;
    assert_eq!(site.counts().await, [2, 2]);
    assert_eq!(site.status(&deployment).await, is("ACTIVE", "DEPLOYING"));
}

#[tokio::test]
async fn a_cancelled_or_superseded_deployment_gives_back_what_it_took() {
    let site = Site::running().await;
    let body = json!({ "droplet": { "guid": site.droplets[1] }, "options": { "max_in_flight": 2 } });
    let (_, first) = site.deploy(body).await;
    site.settle().await;
    site.drive().await;
    assert_eq!(site.counts().await, [1, 3]);
    let (status, second) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(status, StatusCode::CREATED, "{second}");
    assert_eq!(site.status(&first).await, is("FINALIZED", "SUPERSEDED"));
    assert_eq!(second["previous_droplet"]["guid"], json!(site.droplets[0]));
    site.settle().await;
    site.drive().await;
    // Four served, three are enough beside the new one: what the first deployment left goes before the old one.
    assert_eq!(site.counts().await, [1, 1, 2]);
    let cancel = format!("/v3/deployments/{}/actions/cancel", second["guid"].as_str().expect("guid"));
    let (status, body) = site.client.post(&cancel, json!({})).await;
    assert_eq!((status, body), (StatusCode::OK, Value::Null));
    assert_eq!(site.status(&second).await, is("ACTIVE", "CANCELING"));
    assert_eq!(site.droplet().await, site.droplets[0].to_string());
    site.drive().await;
    site.settle().await;
    assert_eq!(site.counts().await[0], 3, "the old ones come first");
    site.drive().await;
    assert_eq!(site.status(&second).await, is("FINALIZED", "CANCELED"));
    assert_eq!(site.counts().await, [3]);
    let (status, body) = site.client.post(&cancel, json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = "Cannot cancel a deployment with status: FINALIZED and reason: CANCELED";
    assert_eq!(error(&body), (10_008, message.to_owned()));
}

#[tokio::test]
async fn a_stopped_app_is_started_and_bad_requests_change_nothing() {
    let site = Site::new().await;
    for (body, message) in [
        (json!({ "strategy": "blue-green" }), "blue-green"),
        (json!({ "revision": { "guid": Uuid::new_v4() } }), "The revision does not exist"),
        (
            json!({ "revision": { "guid": Uuid::new_v4() }, "droplet": { "guid": Uuid::new_v4() } }),
            "Cannot set both fields 'droplet' and 'revision'",
        ),
        (json!({ "options": { "canary": {} } }), "Options canary are only valid for Canary deployments"),
        (
            json!({ "strategy": "canary", "options": { "canary": { "steps": [{ "instance_weight": 101 }] } } }),
            "must be an Integer between 1-100 (inclusive)",
        ),
        (json!({ "droplet": { "guid": Uuid::new_v4() } }), "droplet"),
        (json!({ "droplet": { "guid": "nonsense" } }), "droplet"),
        (json!({ "options": { "max_in_flight": 0 } }), "Max in flight"),
        (json!({ "options": { "max_in_flight": -1 } }), "Max in flight"),
        (json!({ "options": { "web_instances": -1 } }), "Instances"),
        (json!({ "options": { "memory_in_mb": 999_999 } }), "999999 MiB"),
        (json!({ "options": { "surge": 1 } }), "surge"),
    ] {
        let (status, answer) = site.deploy(body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
        assert!(error(&answer).1.contains(message), "{body}: {answer}");
    }
    let (_, page) = site.client.get("/v3/deployments").await;
    assert_eq!(page["pagination"]["total_results"], 0);
    assert_eq!(site.droplet().await, site.droplets[0].to_string());
    let (status, answer) = site.client.get(&format!("/v3/deployments/{}", Uuid::new_v4())).await;
    assert_eq!((status, error(&answer).1), (StatusCode::NOT_FOUND, "Deployment not found".to_owned()));

    let (status, deployment) = site.deploy(json!({ "options": { "web_instances": 2 } })).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(site.status(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [2]);
    let (_, app) = site.client.get(&format!("/v3/apps/{}", site.app)).await;
    assert_eq!(app["state"], "STARTED");
    assert_eq!(drive(&site.controller.context, site.term + 1, site.app).await.expect("a step"), Driven::Fenced);
}
