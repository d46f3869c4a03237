//! Canary deployments: they stop at their steps, wait, go on, and can be taken back.

use super::*;

fn canary(weights: &[u32]) -> Value {
    let steps: Vec<Value> = weights.iter().map(|weight| json!({ "instance_weight": weight })).collect();
    json!({ "strategy": "canary", "options": { "canary": { "steps": steps }, "max_in_flight": 2 } })
}

#[tokio::test]
async fn without_steps_one_canary_waits_beside_the_old_ones() {
    let site = Site::running().await;
    // As the client sends it when no step was named.
    let body = json!({ "strategy": "canary", "options": { "canary": null, "max_in_flight": null } });
    let (status, deployment) = site.deploy(body).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(deployment["status"]["canary"], json!({ "steps": { "current": 1, "total": 1 } }));
    assert_eq!(deployment["options"], json!({ "max_in_flight": 1 }));
    assert!(deployment["links"]["continue"].is_null(), "{deployment}");
    let (status, body) = site.act(&deployment, "continue").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = "Cannot continue a deployment with status: ACTIVE and reason: DEPLOYING";
    assert_eq!(error(&body), (10_008, message.to_owned()));
    assert_eq!(site.finish(&deployment).await, is("ACTIVE", "PAUSED"));
    assert_eq!(site.counts().await, [3, 1]);
    let paused = site.read(&deployment).await;
    assert_eq!(paused["links"]["continue"]["method"], "POST");
    assert!(paused["status"]["details"]["last_successful_healthcheck"].is_string(), "{paused}");
    for _ in 0..3 {
        site.drive().await;
    }
    assert_eq!((site.counts().await, site.status(&deployment).await), (vec![3, 1], is("ACTIVE", "PAUSED")));
    assert_eq!(site.act(&deployment, "continue").await, (StatusCode::OK, Value::Null));
    assert_eq!(site.status(&deployment).await, is("ACTIVE", "DEPLOYING"));
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [3]);
    let (status, body) = site.act(&deployment, "continue").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = "Cannot continue a deployment with status: FINALIZED and reason: DEPLOYED";
    assert_eq!(error(&body), (10_008, message.to_owned()));
    let (_, events) = site.client.get("/v3/audit_events?types=audit.app.deployment.continue").await;
    assert_eq!(events["pagination"]["total_results"], 1);
}

#[tokio::test]
async fn steps_are_reached_one_after_the_other() {
    let site = Site::running().await;
    let path = format!("/v3/apps/{}/processes/web/actions/scale", site.app);
    assert_eq!(site.client.post(&path, json!({ "instances": 10 })).await.0, StatusCode::ACCEPTED);
    site.settle().await;
    let (status, deployment) = site.deploy(canary(&[20, 50, 100])).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(deployment["options"]["canary"]["steps"][1], json!({ "instance_weight": 50 }));
    for (current, counts) in [(1, [9, 2]), (2, [6, 5]), (3, [0, 10])] {
        assert_eq!(site.finish(&deployment).await, is("ACTIVE", "PAUSED"));
        let view = site.read(&deployment).await;
        assert_eq!(view["status"]["canary"], json!({ "steps": { "current": current, "total": 3 } }));
        assert_eq!(site.counts().await, counts);
        assert_eq!(site.act(&deployment, "continue").await.0, StatusCode::OK);
    }
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [10]);
}

#[tokio::test]
async fn a_waiting_canary_is_taken_back() {
    let site = Site::running().await;
    let mut body = canary(&[50]);
    body["droplet"] = json!({ "guid": site.droplets[1] });
    let (_, deployment) = site.deploy(body).await;
    assert_eq!(site.finish(&deployment).await, is("ACTIVE", "PAUSED"));
    assert_eq!(site.counts().await, [2, 2]);
    let old = site.client.get(&format!("/v3/apps/{}/processes", site.app)).await.1["resources"][0]["guid"].clone();
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK, "asked twice, done once");
    let (status, body) = site.act(&deployment, "continue").await;
    assert_eq!((status, error(&body).0), (StatusCode::UNPROCESSABLE_ENTITY, 10_008), "{body}");
    site.drive().await;
    assert_eq!(site.counts().await[0], 3, "the old ones come first");
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "CANCELED"));
    assert_eq!(site.counts().await, [3]);
    assert_eq!(site.droplet().await, site.droplets[0].to_string());
    let (_, process) = site.client.get(&format!("/v3/apps/{}/processes/web", site.app)).await;
    assert_eq!(process["guid"], old);
}

#[tokio::test]
async fn a_waiting_canary_is_superseded_and_goes_first() {
    let site = Site::running().await;
    site.set_env("one").await;
    let (_, first) = site.deploy(canary(&[50])).await;
    assert_eq!(site.finish(&first).await, is("ACTIVE", "PAUSED"));
    assert_eq!(site.counts().await, [2, 2]);
    site.set_env("other").await;
    let (status, second) = site.deploy(json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{second}");
    assert_eq!(site.status(&first).await, is("FINALIZED", "SUPERSEDED"));
    site.drive().await;
    assert_eq!(site.history().await.1, [1, 2, 3], "one of the canaries runs until then");
    assert_eq!(site.counts().await, [2, 1, 1], "three must serve, so one of the canaries stays until then");
    site.settle().await;
    site.drive().await;
    assert_eq!(site.counts().await, [2, 2], "the other goes for the first new one");
    assert_eq!(site.history().await.1, [1, 3], "what was given up runs no more");
    assert_eq!(site.finish(&second).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [3]);
}

#[tokio::test]
async fn a_crashing_canary_says_why_and_the_old_ones_stay() {
    let site = Site::running().await;
    let (_, deployment) = site.deploy(canary(&[50])).await;
    site.settle().await;
    site.sql(&format!(
        "update assignment set observed = 'crashed', ready = false, exit = '{{\"reason\": \"no such file\"}}'
         where group_id = '{}'",
        deployment["new_processes"][0]["guid"].as_str().expect("guid")
    ))
    .await;
    for _ in 0..3 {
        site.drive().await;
    }
    assert_eq!((site.counts().await, site.status(&deployment).await), (vec![3, 2], is("ACTIVE", "DEPLOYING")));
    assert_eq!(site.read(&deployment).await["status"]["details"]["error"], "no such file");
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "CANCELED"));
    assert_eq!(site.counts().await, [3]);
}

#[tokio::test]
async fn a_stopped_app_has_no_canary() {
    let site = Site::new().await;
    let (status, deployment) = site.deploy(canary(&[10])).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(site.status(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts().await, [3]);
}
