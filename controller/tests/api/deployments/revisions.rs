//! Revisions: when one is recorded, what it says, and going back to one.

use super::*;

impl Site {
    async fn revisions(&self, query: &str) -> Vec<Value> {
        let path = format!("/v3/apps/{}/revisions{query}", self.app);
        let (status, page) = self.client.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["resources"].as_array().expect("a list").clone()
    }

    /// Version and description of every revision, and the versions that run.
    pub(super) async fn history(&self) -> (Vec<String>, Vec<u64>) {
        let all = self.revisions("").await;
        let line = |one: &Value| format!("{} {}", one["version"], one["description"].as_str().expect("text"));
        let deployed = self.revisions("/deployed").await;
        let mut deployed: Vec<u64> = deployed.iter().map(|one| one["version"].as_u64().expect("version")).collect();
        deployed.sort_unstable();
        (all.iter().map(line).collect(), deployed)
    }

    async fn restart(&self) {
        let (status, body) = self.client.post(&format!("/v3/apps/{}/actions/restart", self.app), json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn starts_record_what_changed() {
    let site = Site::new().await;
    assert_eq!(site.history().await, (vec![], vec![]));
    site.set_env("one").await;
    site.start().await;
    site.restart().await;
    assert_eq!(site.history().await, (vec!["1 Initial revision.".to_owned()], vec![1]), "nothing changed");
    site.set_env("two").await;
    let web = format!("/v3/apps/{}/processes/web", site.app);
    assert_eq!(site.client.patch(&web, json!({ "command": "./other" })).await.0, StatusCode::OK);
    assert_eq!(site.history().await.0.len(), 1, "a change is not a start");
    site.restart().await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    let (history, deployed) = site.history().await;
    assert_eq!(
        history,
        [
            "1 Initial revision.",
            "2 Custom start command added for 'web' process. New environment variables deployed.",
            "3 New droplet deployed.",
        ]
    );
    assert_eq!(deployed, [2, 3], "both run while it is deployed");
    assert_eq!(deployment["revision"]["version"], 3);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.history().await.1, [3]);
    let (_, process) = site.client.get(&web).await;
    assert_eq!(process["relationships"]["revision"]["data"]["guid"], deployment["revision"]["guid"]);

    let third = &site.revisions("?versions=3").await[0];
    assert_eq!(third["droplet"]["guid"], json!(site.droplets[1]));
    assert_eq!((&third["processes"], &third["sidecars"]), (&json!({ "web": { "command": "./other" } }), &json!([])));
    assert_eq!((&third["deployable"], third["metadata"]["labels"].is_object()), (&json!(true), true));
    let link = third["links"]["environment_variables"]["href"].as_str().expect("a link");
    let (_, path) = link.split_at(link.find("/v3/").expect("a path"));
    let (status, body) = site.client.get(path).await;
    assert_eq!((status, &body["var"]), (StatusCode::OK, &json!({ "GREETING": "two" })));
    let (_, events) = site.client.get("/v3/audit_events?types=audit.app.revision.create").await;
    assert_eq!(events["pagination"]["total_results"], 3);
    let auditor = site.controller.user_with("looker", "space_auditor").await;
    assert_eq!(auditor.get(path).await.0, StatusCode::FORBIDDEN, "values are secrets");

    assert_eq!(site.client.post(&format!("/v3/apps/{}/actions/stop", site.app), json!({})).await.0, StatusCode::OK);
    assert_eq!(site.history().await.1, Vec::<u64>::new());
}

#[tokio::test]
async fn an_app_goes_back_to_a_revision_as_it_was() {
    let site = Site::new().await;
    site.add_worker(1).await;
    site.set_env("one").await;
    site.start().await;
    site.set_env("two").await;
    for kind in ["web", "worker"] {
        let path = format!("/v3/apps/{}/processes/{kind}", site.app);
        assert_eq!(site.client.patch(&path, json!({ "command": "./other" })).await.0, StatusCode::OK);
    }
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    let all = site.revisions("").await;
    let refused = |body: Value, message: &'static str| {
        let site = &site;
        async move {
            let (status, answer) = site.deploy(body).await;
            assert_eq!((status, error(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    };
    refused(
        json!({ "revision": { "guid": all[1]["guid"] } }),
        "Unable to rollback. The code and configuration you are rolling back to is the same as the deployed revision.",
    )
    .await;
    refused(json!({ "revision": { "guid": site.app } }), "The revision does not exist").await;
    let (status, back) = site.deploy(json!({ "revision": { "guid": all[0]["guid"] } })).await;
    assert_eq!(status, StatusCode::CREATED, "{back}");
    assert_eq!((&back["revision"]["version"], &back["droplet"]["guid"]), (&json!(3), &json!(site.droplets[0])));
    assert_eq!(site.finish(&back).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(
        site.history().await.0[2],
        "3 Custom start command removed for 'web' process. Custom start command removed for 'worker' process. \
         New droplet deployed. New environment variables deployed. Rolled back to revision 1."
    );
    let (_, var) = site.client.get(&format!("/v3/apps/{}/environment_variables", site.app)).await;
    assert_eq!(var["var"], json!({ "GREETING": "one" }));
    for (kind, command) in [("web", "./run"), ("worker", "./work")] {
        let (_, process) = site.client.get(&format!("/v3/apps/{}/processes/{kind}", site.app)).await;
        assert_eq!(process["command"], command, "{kind}");
    }
    site.restart().await;
    assert_eq!(site.history().await.0.len(), 3, "the app is what the revision says");

    let job = site.client.delete_job(&format!("/v3/droplets/{}", site.droplets[1])).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(site.revisions("?deployable=false").await.len(), 1);
    assert_eq!(site.revisions("?deployable=true").await.len(), 2);
    refused(
        json!({ "revision": { "guid": all[1]["guid"] } }),
        "Unable to deploy this revision, the droplet for this revision no longer exists.",
    )
    .await;
    assert_eq!(site.revisions("").await.len(), 3, "a refusal records nothing");
}

#[tokio::test]
async fn a_stopped_app_is_started_at_the_revision() {
    let site = Site::new().await;
    site.set_env("one").await;
    site.start().await;
    site.set_env("two").await;
    site.restart().await;
    assert_eq!(site.client.post(&format!("/v3/apps/{}/actions/stop", site.app), json!({})).await.0, StatusCode::OK);
    let first = site.revisions("?versions=1").await[0]["guid"].clone();
    let (status, deployment) = site.deploy(json!({ "revision": { "guid": first } })).await;
    assert_eq!(status, StatusCode::CREATED, "{deployment}");
    assert_eq!(site.status(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.history().await.1, [3]);
    let (_, var) = site.client.get(&format!("/v3/apps/{}/environment_variables", site.app)).await;
    assert_eq!(var["var"], json!({ "GREETING": "one" }));
}

#[tokio::test]
async fn an_app_without_the_feature_records_none() {
    let site = Site::new().await;
    site.start().await;
    let first = site.revisions("").await[0]["guid"].clone();
    let feature = format!("/v3/apps/{}/features/revisions", site.app);
    assert_eq!(site.client.patch(&feature, json!({ "enabled": false })).await.0, StatusCode::OK);
    site.set_env("two").await;
    site.restart().await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(deployment["revision"], Value::Null);
    assert_eq!(site.history().await, (vec!["1 Initial revision.".to_owned()], vec![]));
    let (status, answer) = site.deploy(json!({ "revision": { "guid": first } })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&answer).1, "Cannot create deployment from a revision for an app without revisions enabled");
}

#[tokio::test]
async fn the_newest_hundred_revisions_are_retained_and_the_counter_starts_again() {
    let site = Site::new().await;
    site.start().await;
    site.sql(&format!(
        "insert into revision (guid, app_guid, version, droplet_guid, created_at)
         select gen_random_uuid(), '{}', n, '{}', now() + n * interval '1 millisecond' from generate_series(2, 120) n",
        site.app, site.droplets[0]
    ))
    .await;
    site.sql("update revision set version = 9999 where version = 120").await;
    site.sql("update revision set created_at = created_at - interval '1 hour'").await;
    site.set_env("two").await;
    site.restart().await;
    let retained = site.revisions("?order_by=-created_at&per_page=200").await;
    let versions: Vec<u64> = retained.iter().map(|one| one["version"].as_u64().expect("version")).collect();
    assert_eq!((versions.len(), &versions[..3]), (100, &[1, 9999, 119][..]));
}

#[tokio::test]
async fn lists_have_the_usual_grammar_and_labels() {
    let site = Site::new().await;
    site.start().await;
    site.set_env("two").await;
    site.restart().await;
    let second = site.revisions("?versions=2").await[0].clone();
    let path = format!("/v3/revisions/{}", second["guid"].as_str().expect("guid"));
    let (status, body) = site.client.patch(&path, json!({ "metadata": { "labels": { "good": "yes" } } })).await;
    assert_eq!((status, &body["metadata"]["labels"]), (StatusCode::OK, &json!({ "good": "yes" })));
    assert_eq!(site.client.get(&path).await.1, body);
    for (query, versions) in [
        ("?versions=1,2", vec![1, 2]),
        ("?versions=7,x", vec![]),
        ("?label_selector=good", vec![2]),
        ("?order_by=-created_at&per_page=1", vec![2]),
        ("?order_by=-created_at&per_page=1&page=2", vec![1]),
    ] {
        let found: Vec<u64> =
            site.revisions(query).await.iter().map(|one| one["version"].as_u64().expect("version")).collect();
        assert_eq!(found, versions, "{query}");
    }
    for path in ["?names=x", "?deployable=perhaps", "/deployed?versions=1"] {
        let (status, _) = site.client.get(&format!("/v3/apps/{}/revisions{path}", site.app)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
    }
    let (status, body) = site.client.get(&format!("/v3/revisions/{}", Uuid::new_v4())).await;
    assert_eq!((status, error(&body).1), (StatusCode::NOT_FOUND, "Revision not found".to_owned()));
    let stranger = site.controller.user("stranger").await;
    assert_eq!(stranger.get(&path).await.0, StatusCode::NOT_FOUND);
    let auditor = site.controller.user_with("auditor", "space_auditor").await;
    assert_eq!(auditor.get(&path).await.0, StatusCode::OK);
    assert_eq!(auditor.patch(&path, json!({ "metadata": {} })).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_revision_says_whether_it_has_served() {
    let site = Site::new().await;
    site.start().await;
    let served = || async {
        site.controller.context.store.revisions_seen_serving(STEADY_S).await.expect("looked");
        let all = site.revisions("").await;
        all.iter().map(|one| one["served"].as_bool().expect("whether it served")).collect::<Vec<_>>()
    };
    assert_eq!(site.revisions("").await[0]["served"], false, "nobody has looked");
    assert_eq!(served().await, [true]);

    // What still runs is the version before, and the new one crashes at every start.
    site.set_env("two").await;
    site.restart().await;
    assert_eq!(served().await, [true, false]);
    site.sql("delete from assignment").await;
    site.settle().await;
    site.sql("update assignment set observed = 'crashed', ready = false").await;
    assert_eq!(served().await, [true, false]);

    // A program of which nothing but that it runs is asked may be one that fails at its start.
    site.sql("update process set health_check = '{\"type\": \"process\"}'").await;
    site.sql("update assignment set observed = 'running', ready = true, observed_since = now()").await;
    assert_eq!(served().await, [true, false]);
    site.sql("update assignment set observed_since = now() - interval '13 seconds'").await;
    assert_eq!(served().await, [true, true]);

    // Of a deployment, the end counts, not an instance on the way.
    site.set_env("three").await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    site.settle().await;
    assert_eq!(served().await, [true, true, false]);
    assert_eq!(site.act(&deployment, "cancel").await.0, StatusCode::OK);
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "CANCELED"));
    assert_eq!(served().await, [true, true, false]);
    site.set_env("four").await;
    let (_, deployment) = site.deploy(json!({ "droplet": { "guid": site.droplets[1] } })).await;
    assert_eq!(site.finish(&deployment).await, is("FINALIZED", "DEPLOYED"));
    assert_eq!(site.revisions("").await[3]["served"], true, "at once");
}

#[tokio::test]
async fn a_worker_that_runs_does_not_make_a_site_good() {
    let site = Site::new().await;
    site.add_worker(1).await;
    site.start().await;
    let served = || async {
        site.controller.context.store.revisions_seen_serving(STEADY_S).await.expect("looked");
        site.revisions("").await[0]["served"].clone()
    };
    let web = "group_id in (select guid from process where type = 'web')";
    site.sql(&format!("update assignment set observed = 'crashed', ready = false where {web}")).await;
    assert_eq!(served().await, false);
    site.sql("update process set instances = 0 where type = 'web'").await;
    assert_eq!(served().await, true, "nothing but the worker is wanted");
}
