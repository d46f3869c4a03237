//! What must not be done to an app while it is deployed, and to a deployment that is over: told as `cf` knows it.

use super::*;
use crate::errors::{Cases, expected, unprocessable};

#[tokio::test]
async fn changes_that_disturb_a_deployment_are_refused() {
    let site = Site::running().await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    let new = deployment["new_processes"][0]["guid"].as_str().expect("guid").to_owned();
    let app = site.app;
    let mut cases = Cases::default();
    for action in ["stop", "restart"] {
        let words = "Cannot stop the app while it is deploying, please cancel the deployment before stopping the app.";
        let stop = expected(422, 390_024, "CF-StopDisabledDuringDeployment", words);
        cases.add(&site.client, ("POST", &format!("/v3/apps/{app}/actions/{action}")), None, stop);
    }
    for process in [format!("/v3/apps/{app}/processes/web"), format!("/v3/processes/{new}")] {
        let words = "Cannot scale this process while a deployment is in flight.";
        let scale = expected(422, 390_016, "CF-ScaleDisabledDuringDeployment", words);
        let body = Some(json!({ "instances": 9 }));
        cases.add(&site.client, ("POST", &format!("{process}/actions/scale")), body, scale);
        let words = "Cannot update this process while a deployment is in flight.";
        let update = expected(422, 390_017, "CF-ProcessUpdateDisabledDuringDeployment", words);
        cases.add(&site.client, ("PATCH", &process), Some(json!({ "command": "x" })), update);
    }
    let words = "Unable to assign current droplet while the app has a deployment in progress. Wait for the deployment to \
                 complete or cancel it.";
    let droplet = Some(json!({ "data": { "guid": site.droplets[0] } }));
    let path = format!("/v3/apps/{app}/relationships/current_droplet");
    cases.add(&site.client, ("PATCH", &path), droplet, unprocessable(words));
    let path = format!("/v3/deployments/{}/actions/continue", deployment["guid"].as_str().expect("guid"));
    let words = "Cannot continue a deployment with status: ACTIVE and reason: DEPLOYING";
    cases.add(&site.client, ("POST", &path), None, unprocessable(words));
    cases.check().await;
    assert_eq!(site.counts().await, [3, 1], "nothing of it happened");

    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    let mut cases = Cases::default();
    for action in ["cancel", "continue"] {
        let path = format!("/v3/deployments/{}/actions/{action}", deployment["guid"].as_str().expect("guid"));
        let words = format!("Cannot {action} a deployment with status: FINALIZED and reason: DEPLOYED");
        cases.add(&site.client, ("POST", &path), None, unprocessable(words));
    }
    cases.check().await;
    assert_eq!((site.counts().await, site.droplet().await), (vec![3], site.droplets[1].to_string()));
}

#[tokio::test]
async fn deployments_that_cannot_start_are_refused() {
    let site = Site::new().await;
    let deployment = |more: Value| {
        let mut body = more;
        body["relationships"] = json!({ "app": { "data": { "guid": site.app } } });
        body
    };
    let mut cases = Cases::default();
    for (body, words) in [
        (
            deployment(json!({ "droplet": { "guid": Uuid::new_v4() } })),
            "Unable to assign current droplet. Ensure the droplet exists and belongs to this app.",
        ),
        (deployment(json!({ "revision": { "guid": Uuid::new_v4() } })), "The revision does not exist"),
        (deployment(json!({ "nonsense": 1 })), "Unknown field(s): 'nonsense'"),
        (
            json!({ "relationships": { "app": { "data": { "guid": Uuid::new_v4() } } } }),
            "Unable to use app. Ensure that the app exists and you have access to it.",
        ),
    ] {
        cases.add(&site.client, ("POST", "/v3/deployments"), Some(body), unprocessable(words));
    }
    cases.check().await;
    site.sql("update app set droplet_guid = null").await;
    let mut cases = Cases::default();
    let words = "Invalid droplet. Please specify a droplet in the request or set a current droplet for the app.";
    cases.add(&site.client, ("POST", "/v3/deployments"), Some(deployment(json!({}))), unprocessable(words));
    cases.check().await;
    assert_eq!(site.client.get("/v3/deployments").await.1["pagination"]["total_results"], 0);
}
