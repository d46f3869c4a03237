//! Types other than `web` are scaled while their app is deployed, as on Cloud Foundry, and lose no instance by it.

use super::*;

/// Three of `web` and these many workers, running.
async fn with_workers(workers: u32) -> Site {
    let site = Site::new().await;
    site.add_worker(workers).await;
    site.start().await;
    site
}

impl Site {
    async fn scale_worker(&self, change: Value) -> (StatusCode, Value) {
        let path = format!("/v3/apps/{}/processes/worker/actions/scale", self.app);
        self.client.post(&path, change).await
    }

    async fn workers(&self, instances: u64) {
        let (status, body) = self.scale_worker(json!({ "instances": instances })).await;
        assert_eq!((status, &body["instances"]), (StatusCode::ACCEPTED, &json!(instances)), "{body}");
    }

    /// Goes on until the new workers are these many.
    async fn until_new_workers(&self, count: u64) {
        for _ in 0..20 {
            if self.counts_of("worker").await.get(1) == Some(&count) {
                return;
            }
            self.settle().await;
            self.drive().await;
        }
        panic!("{:?}", self.counts_of("worker").await);
    }

    /// Finishes; meanwhile never fewer workers than this are wanted.
    async fn finish_with_at_least(&self, deployment: &Value, workers: u64) -> (String, String) {
        for _ in 0..40 {
            let status = self.status(deployment).await;
            let now = self.counts_of("worker").await;
            assert!(now.iter().sum::<u64>() >= workers, "{now:?}");
            if status.0 != "ACTIVE" {
                return status;
            }
            self.settle().await;
            self.drive().await;
        }
        panic!("the deployment did not end");
    }
}

#[tokio::test]
async fn workers_are_scaled_before_their_turn_and_in_the_middle_of_it() {
    let site = with_workers(2).await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    site.workers(4).await;
    assert_eq!(site.counts_of("worker").await, [4], "at once, although web is not through");
    site.workers(3).await;
    assert_eq!(site.counts_of("worker").await, [3]);
    site.until_new_workers(2).await;
    assert_eq!(site.counts_of("worker").await, [2, 2]);
    site.workers(5).await;
    assert_eq!(site.counts_of("worker").await, [4, 2], "more of what is known to work");
    assert_eq!(site.finish_with_at_least(&deployment, 5).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![3], vec![5]));

    let (_, deployment) = site.deploy(json!({})).await;
    site.until_new_workers(3).await;
    site.workers(1).await;
    assert_eq!(site.finish_with_at_least(&deployment, 1).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts_of("worker").await, [1]);
}

#[tokio::test]
async fn a_cancellation_brings_back_as_many_as_were_asked_for_last() {
    let site = with_workers(2).await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    site.until_new_workers(2).await;
    site.workers(4).await;
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    assert_eq!(site.finish_with_at_least(&deployment, 4).await, is("FINALIZED", "CANCELED"));
    assert_eq!((site.counts().await, site.counts_of("worker").await), (vec![3], vec![4]));
    let (_, deployment) = site.deploy(json!({})).await;
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    site.workers(1).await;
    assert_eq!(site.finish_with_at_least(&deployment, 1).await, is("FINALIZED", "CANCELED"));
    assert_eq!(site.counts_of("worker").await, [1]);
}

#[tokio::test]
async fn the_size_of_workers_holds_whichever_version_stays() {
    let site = with_workers(1).await;
    let own = site.client.get(&format!("/v3/apps/{}/processes/worker", site.app)).await.1["guid"].clone();
    let size = async || {
        let path = format!("/v3/apps/{}/processes/worker", site.app);
        let (_, process) = site.client.get(&path).await;
        (process["guid"].clone(), process["memory_in_mb"].clone())
    };
    let (_, first) = site.deploy(json!({})).await;
    assert_eq!(site.scale_worker(json!({ "memory_in_mb": 300 })).await.0, StatusCode::ACCEPTED);
    assert_eq!(site.act(&first, "cancel").await.0, StatusCode::OK);
    assert_eq!(site.finish(&first).await, is("FINALIZED", "CANCELED"));
    assert_eq!(size().await, (own.clone(), json!(300)));
    let (_, second) = site.deploy(json!({})).await;
    assert_eq!(site.scale_worker(json!({ "memory_in_mb": 400 })).await.0, StatusCode::ACCEPTED);
    assert_eq!(site.finish(&second).await, is("FINALIZED", "DEPLOYED"));
    let (now, memory) = size().await;
    assert_ne!(now, own);
    assert_eq!(memory, 400);
}

#[tokio::test]
async fn workers_beyond_the_quota_are_refused_and_nothing_changes() {
    let site = with_workers(2).await;
    site.sql("update organization_quota set total_instances = 8").await;
    let (_, deployment) = site.deploy(json!({ "options": { "max_in_flight": 2 } })).await;
    for (change, message) in [
        // Three of web and one in flight, and two workers in flight.
        (json!({ "instances": 6 }), "allows 8 instances"),
        (json!({ "instances": -1 }), "Instances must be between 0 and"),
        (json!({ "memory_in_mb": 99_999 }), "the largest cell has 65536 MiB"),
    ] {
        let (status, answer) = site.scale_worker(change).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(error(&answer).1.contains(message), "{answer}");
    }
    assert_eq!(site.counts_of("worker").await, [2]);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts_of("worker").await, [2]);
}

#[tokio::test]
async fn manifests_scale_workers_too_while_web_is_deployed() {
    let site = with_workers(2).await;
    let (_, deployment) = site.deploy(json!({})).await;
    let (_, space) = site.controller.dev().await;
    let text = "applications:\n- name: shop\n  processes:\n  - {type: worker, instances: 4}\n";
    let job = site.client.job(crate::support::apps::manifest(&site.client, space, text)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(site.counts_of("worker").await, [4]);
    let text = text.replace("instances: 4", "instances: 9, command: other");
    let (status, answer) = site.client.send(crate::support::apps::manifest(&site.client, space, &text)).await;
    let message = "For application 'shop': Cannot update this process while a deployment is in flight.";
    assert_eq!((status, error(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, message));
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.counts_of("worker").await, [4]);
}

#[tokio::test]
async fn scaling_workers_races_with_their_deployment() {
    for _ in 0..5 {
        let site = with_workers(2).await;
        let (_, deployment) = site.deploy(json!({ "options": { "max_in_flight": 9 } })).await;
        site.until_new_workers(2).await;
        site.settle().await;
        let (_, (status, answer)) = tokio::join!(site.drive(), site.scale_worker(json!({ "instances": 5 })));
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
        assert_eq!(site.counts_of("worker").await, [5]);
    }
}
