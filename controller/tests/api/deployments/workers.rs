//! Process types beside `web`: they roll too, after it, and a failing one takes nothing down.

use super::*;

async fn both() -> Site {
    let site = Site::new().await;
    site.add_worker(2).await;
    site.start().await;
    site
}

#[tokio::test]
async fn workers_roll_after_web_one_by_one() {
    let site = both().await;
    let old = site.client.get(&format!("/v3/apps/{}/processes/worker", site.app)).await.1["guid"].clone();
    let (status, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(site.counts_of("worker").await, [2], "its turn has not come");
    let mut seen = Vec::new();
    while site.status(&deployment).await.0 == "ACTIVE" {
        site.settle().await;
        site.drive().await;
        let now = (site.counts().await, site.counts_of("worker").await);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        assert!(seen.len() < 20, "{seen:?}");
    }
    let web = |counts: &[u64], worker: &[u64]| (counts.to_vec(), worker.to_vec());
    assert_eq!(
        seen,
        [
            web(&[2, 2], &[2]),
            web(&[1, 3], &[2]),
            web(&[0, 3], &[2]),
            web(&[0, 3], &[2, 1]),
            web(&[0, 3], &[1, 2]),
            web(&[0, 3], &[0, 2]),
            web(&[3], &[2]),
        ]
    );
    assert_eq!(site.status(&deployment).await, is("FINALIZED", "DEPLOYED"));
    let (_, process) = site.client.get(&format!("/v3/apps/{}/processes/worker", site.app)).await;
    assert_ne!(process["guid"], old);
    assert_eq!(process["instances"], 2);
}

#[tokio::test]
async fn a_worker_that_just_started_is_not_trusted_yet() {
    let site = both().await;
    let (_, deployment) = site.deploy(json!({ "options": { "max_in_flight": 5 } })).await;
    for _ in 0..2 {
        site.settle().await;
        site.drive().await;
    }
    assert_eq!(site.counts_of("worker").await, [2, 2]);
    site.settle().await;
    // However long the machine takes for the next steps, these have not run for the seconds that are asked of them.
    let young = "update assignment a set observed_since = now() + interval '1 hour' from process p
                 where p.guid = a.group_id and p.deployment_guid is not null and p.type = 'worker'";
    site.sql(young).await;
    site.drive().await;
    assert_eq!(site.counts_of("worker").await, [2, 2], "a moment ago they may have been about to crash");
    site.sql("update assignment set observed_since = now() - interval '1 minute'").await;
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
}

#[tokio::test]
async fn a_failing_worker_holds_the_deployment_and_cancelling_brings_everything_back() {
    let site = both().await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    for _ in 0..4 {
        site.settle().await;
        site.drive().await;
    }
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![0, 3], vec![2, 1]));
    site.settle().await;
    site.sql(
        "update assignment a set observed = 'crashed', ready = false, exit = '{\"reason\": \"exited with status 3\"}'
         from process p where p.guid = a.group_id and p.deployment_guid is not null and p.type = 'worker'",
    )
    .await;
    for _ in 0..3 {
        site.drive().await;
    }
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![0, 3], vec![2, 1]));
    let view = site.read(&deployment).await;
    assert_eq!(view["status"]["value"], "ACTIVE");
    assert_eq!(view["status"]["details"]["error"], "exited with status 3");
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    site.drive().await;
    assert_eq!(site.counts_of("worker").await, [2], "the old workers never went, the new one goes at once");
    assert_eq!(site.counts().await, [3, 3]);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "CANCELED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![3], vec![2]));
    assert_eq!(site.droplet().await, site.droplets[0].to_string());
}

#[tokio::test]
async fn a_type_without_instances_gets_the_new_version_when_it_is_scaled_up() {
    let site = Site::new().await;
    site.add_worker(0).await;
    site.start().await;
    let spec = "select encode(spec, 'hex') from process where type = 'worker'";
    let before: String = sqlx::query_scalar(spec).fetch_one(&site.controller.database.pool).await.expect("a spec");
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    let after: String = sqlx::query_scalar(spec).fetch_one(&site.controller.database.pool).await.expect("a spec");
    assert_ne!(before, after);
    let path = format!("/v3/apps/{}/processes/worker/actions/scale", site.app);
    assert_eq!(site.client.post(&path, json!({ "instances": 1 })).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn workers_wait_while_a_canary_waits() {
    let site = both().await;
    let (_, deployment) = site.deploy(json!({ "strategy": "canary" })).await;
    assert_eq!(site.finish(&deployment).await, is("ACTIVE", "PAUSED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![3, 1], vec![2]));
    assert_eq!(site.act(&deployment, "continue").await.0, StatusCode::OK);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![3], vec![2]));
}

/// A program that dies every minute passes each check in between.
#[tokio::test]
async fn a_new_instance_that_has_crashed_is_not_trusted_because_it_runs_again() {
    let site = both().await;
    let (_, deployment) = site.deploy(json!({ "options": { "max_in_flight": 5 } })).await;
    site.settle().await;
    site.drive().await;
    assert_eq!(site.counts().await, [0, 3], "all of them counted");
    // One crashed since and was started again; however long the machine takes, that is no minute ago.
    let crashed = "update assignment a set exit = '{\"crashes\": 1, \"reason\": \"exited with status 3\"}',
                          observed_since = now() + interval '1 hour'
                    from process p where p.guid = a.group_id and p.deployment_guid is not null and a.index = 1";
    site.settle().await;
    site.sql(crashed).await;
    for _ in 0..3 {
        site.drive().await;
    }
    assert_eq!(site.counts_of("worker").await, [2], "the workers' turn has not come");
    let view = site.read(&deployment).await;
    assert_eq!(view["status"]["value"], "ACTIVE");
    assert_eq!(view["status"]["details"]["error"], "exited with status 3");
    site.sql("update assignment set observed_since = now() - interval '1 hour'").await;
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
}

/// A droplet that brings workers alone leaves `web` without a command.
#[tokio::test]
async fn an_app_of_workers_alone_rolls() {
    for strategy in ["rolling", "canary"] {
        let site = Site::new().await;
        site.add_worker(2).await;
        site.sql("update droplet set process_types = '{\"worker\": \"./work\"}'").await;
        let web = format!("/v3/apps/{}/processes/web/actions/scale", site.app);
        assert_eq!(site.client.post(&web, json!({ "instances": 0 })).await.0, StatusCode::ACCEPTED);
        site.start().await;
        let sent = json!({ "droplet": { "guid": site.droplets[1] }, "strategy": strategy });
        let (status, deployment) = site.deploy(sent).await;
        assert_eq!(status, StatusCode::CREATED, "{strategy}: {deployment}");
        if strategy == "canary" {
            assert_eq!(site.finish(&deployment).await, is("ACTIVE", "PAUSED"));
            assert_eq!(site.act(&deployment, "continue").await.0, StatusCode::OK);
        }
        assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"), "{strategy}");
        assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![0], vec![2]));
        assert_eq!(site.droplet().await, site.droplets[1].to_string());
    }
}

/// The one instance that every app begins with is not meant then; three are, and have no command.
#[tokio::test]
async fn a_web_that_the_new_droplet_does_not_bring_ends_if_nobody_asked_for_it() {
    let site = Site::new().await;
    site.add_worker(1).await;
    site.start().await;
    site.sql(&format!(
        "update droplet set process_types = '{{\"worker\": \"./work\"}}' where guid = '{}'",
        site.droplets[1]
    ))
    .await;
    let sent = || json!({ "droplet": { "guid": site.droplets[1] } });
    let (status, refused) = site.deploy(sent()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let web = format!("/v3/apps/{}/processes/web/actions/scale", site.app);
    assert_eq!(site.client.post(&web, json!({ "instances": 1 })).await.0, StatusCode::ACCEPTED);
    let (status, deployment) = site.deploy(sent()).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![0], vec![1]));
}
