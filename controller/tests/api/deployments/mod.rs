//! Deployments and revisions over HTTP, with a planner and cells that do at once what is wanted.

mod canary;
mod races;
mod refusals;
mod revisions;
mod rolling;
mod scaling;
mod workers;

use std::time::Duration;

use crate::support::{TestClient, TestController, error};
use reqwest::StatusCode;
use serde_json::{Value, json};
use slipway_api_types::ControllerId;
use slipway_controller::domain::deployments::{Driven, STEADY_S, drive};
use slipway_controller::store::placement::PgPlacement;
use slipway_placement::{LeaseOutcome, PlacementStore as _};
use uuid::Uuid;

struct Site {
    controller: TestController,
    client: TestClient,
    term: i64,
    app: Uuid,
    droplets: [Uuid; 2],
}

impl Site {
    /// An app with two droplets; the first one is current, three instances are wanted, nothing runs.
    async fn new() -> Self {
        let controller = TestController::start().await;
        let client = controller.admin().await;
        let placement = PgPlacement::new(controller.database.pool.clone());
        let lease = placement.lease_take(ControllerId(Uuid::new_v4()), Duration::from_secs(600)).await.expect("lease");
        let LeaseOutcome::Held { term } = lease else { panic!("{lease:?}") };
        let (_, space) = controller.dev().await;
        let space = json!({ "space": { "data": { "guid": space } } });
        let (status, app) = client.post("/v3/apps", json!({ "name": "shop", "relationships": space })).await;
        assert_eq!(status, StatusCode::CREATED, "{app}");
        let app: Uuid = app["guid"].as_str().expect("guid").parse().expect("a guid");
        let droplets = [Uuid::new_v4(), Uuid::new_v4()];
        let site = Self { controller, client, term, app, droplets };
        site.sql(
            "insert into layer (digest, blob, blob_size, size, kind, name, line, version, architecture, manifest)
             values (decode(repeat('ab', 32), 'hex'), decode(repeat('cd', 32), 'hex'), 1, 1, 'stack', 'debian12',
                     'debian12', '1', 'x86_64', '{}')",
        )
        .await;
        site.sql(
            "insert into cell (id, zone, memory_mb, disk_mb, slots) values (gen_random_uuid(), 'z1', 65536, 65536, 99)",
        )
        .await;
        for droplet in droplets {
            site.sql(&format!(
                "insert into droplet (guid, app_guid, state, blob, blob_size, process_types) values
                 ('{droplet}', '{app}', 'STAGED', decode(repeat('ef', 32), 'hex'), 1, '{{\"web\": \"./run\"}}')"
            ))
            .await;
        }
        let (status, body) = site
            .client
            .patch(&format!("/v3/apps/{app}/relationships/current_droplet"), json!({ "data": { "guid": droplets[0] } }))
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let (status, body) =
            site.client.post(&format!("/v3/apps/{app}/processes/web/actions/scale"), json!({ "instances": 3 })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        site
    }

    /// A started app whose three instances run.
    async fn running() -> Self {
        let site = Self::new().await;
        site.start().await;
        site
    }

    async fn sql(&self, statement: &str) {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&self.controller.database.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Everything that is wanted runs, and nothing else.
    async fn settle(&self) {
        self.sql(
            "delete from assignment a where not exists
                 (select 1 from process p where p.guid = a.group_id and a.index < p.instances)",
        )
        .await;
        self.sql(
            "insert into assignment (id, group_id, app_id, index, spec, kind, cell, slot, seq, observed, ready, host, port,
                                     observed_since)
             select gen_random_uuid(), p.guid, p.app_guid, i, p.spec, 'lrp', c.id,
                    (select coalesce(max(slot), -1) from assignment) + row_number() over (), 1, 'running', true, 'h', 1,
                    now() - interval '1 hour'
             from process p cross join lateral generate_series(0, p.instances - 1) i cross join cell c
             where not exists (select 1 from assignment a where a.group_id = p.guid and a.index = i)",
        )
        .await;
    }

    async fn deploy(&self, mut body: Value) -> (StatusCode, Value) {
        body["relationships"] = json!({ "app": { "data": { "guid": self.app } } });
        self.client.post("/v3/deployments", body).await
    }

    async fn drive(&self) {
        assert_eq!(drive(&self.controller.context, self.term, self.app).await.expect("a step"), Driven::Done);
    }

    /// Instances of the app's processes of type `web`, the app's own first.
    async fn counts(&self) -> Vec<u64> {
        self.counts_of("web").await
    }

    async fn counts_of(&self, kind: &str) -> Vec<u64> {
        let (_, page) = self.client.get(&format!("/v3/apps/{}/processes?types={kind}", self.app)).await;
        let processes = page["resources"].as_array().expect("processes");
        processes.iter().map(|process| process["instances"].as_u64().expect("a number")).collect()
    }

    async fn status(&self, deployment: &Value) -> (String, String) {
        let path = format!("/v3/deployments/{}", deployment["guid"].as_str().expect("guid"));
        let (status, body) = self.client.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let text = |name: &str| body["status"][name].as_str().expect("text").to_owned();
        (text("value"), text("reason"))
    }

    /// Settles and drives until nothing is active any more, or the deployment waits.
    async fn finish(&self, deployment: &Value) -> (String, String) {
        for _ in 0..40 {
            let status = self.status(deployment).await;
            if status.0 != "ACTIVE" || status.1 == "PAUSED" {
                return status;
            }
            self.settle().await;
            self.drive().await;
        }
        panic!("the deployment did not end: {:?}", self.status(deployment).await)
    }

    async fn act(&self, deployment: &Value, action: &str) -> (StatusCode, Value) {
        let guid = deployment["guid"].as_str().expect("guid");
        self.client.post(&format!("/v3/deployments/{guid}/actions/{action}"), json!({})).await
    }

    async fn read(&self, deployment: &Value) -> Value {
        let (status, body) =
            self.client.get(&format!("/v3/deployments/{}", deployment["guid"].as_str().expect("guid"))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn set_env(&self, value: &str) {
        let body = json!({ "var": { "GREETING": value } });
        let (status, body) = self.client.patch(&format!("/v3/apps/{}/environment_variables", self.app), body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    /// Gives the app a second process type with this many instances; before it is started.
    async fn add_worker(&self, instances: u32) {
        self.sql("update droplet set process_types = '{\"web\": \"./run\", \"worker\": \"./work\"}'").await;
        let path = format!("/v3/apps/{}/relationships/current_droplet", self.app);
        let (status, body) = self.client.patch(&path, json!({ "data": { "guid": self.droplets[0] } })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let path = format!("/v3/apps/{}/processes/worker/actions/scale", self.app);
        let (status, body) = self.client.post(&path, json!({ "instances": instances })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }

    async fn start(&self) {
        let (status, body) = self.client.post(&format!("/v3/apps/{}/actions/start", self.app), json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        self.settle().await;
    }

    async fn droplet(&self) -> String {
        let (_, droplet) = self.client.get(&format!("/v3/apps/{}/droplets/current", self.app)).await;
        droplet["guid"].as_str().expect("guid").to_owned()
    }
}

fn is(value: &str, reason: &str) -> (String, String) {
    (value.to_owned(), reason.to_owned())
}
