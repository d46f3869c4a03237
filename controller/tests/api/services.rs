//! User-provided service instances and their bindings to apps.

use crate::support::apps::{action, app_of, dev_space, manifest, refused};
use crate::support::{TestClient, TestController, error};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}

/// A user-provided instance with these further members; its guid.
pub(crate) async fn instance(client: &TestClient, space: Uuid, name: &str, more: Value) -> String {
    let (status, body) = create(client, space, name, more).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["guid"].as_str().expect("a guid").to_owned()
}

pub(crate) async fn create(client: &TestClient, space: Uuid, name: &str, more: Value) -> (StatusCode, Value) {
    let mut body = json!({ "type": "user-provided", "name": name, "relationships": { "space": to_one(space) } });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    client.post("/v3/service_instances", body).await
}

pub(crate) async fn bind(client: &TestClient, app: &str, instance: &str, more: Value) -> (StatusCode, Value) {
    let relationships = json!({ "service_instance": to_one(instance), "app": to_one(app) });
    let mut body = json!({ "type": "app", "relationships": relationships });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    client.post("/v3/service_credential_bindings", body).await
}

#[tokio::test]
async fn an_instance_lives_through_its_operations() {
    let controller = TestController::start().await;
    let client = controller.user_with("dora", "space_developer").await;
    let space = dev_space(&controller.database.pool).await;
    let (status, made) = create(
        &client,
        space,
        "db",
        json!({
            "credentials": { "password": "hidden" }, "tags": ["sql"], "syslog_drain_url": "syslog://logs.test:514",
            "metadata": { "labels": { "env": "prod" } },
        }),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["type"], &made["tags"]), (&json!("user-provided"), &json!(["sql"])));
    assert_eq!(
        (&made["last_operation"]["type"], &made["last_operation"]["state"]),
        (&json!("create"), &json!("succeeded"))
    );
    assert!(made.get("credentials").is_none() && !made.to_string().contains("hidden"), "{made}");
    let guid = made["guid"].as_str().expect("a guid");
    let path = format!("/v3/service_instances/{guid}");

    let stored: Vec<u8> = sqlx::query_scalar("select credentials from service_instance")
        .fetch_one(&controller.database.pool)
        .await
        .expect("row");
    assert!(!stored.windows(6).any(|window| window == b"hidden"), "credentials are sealed");
    assert_eq!(client.get(&format!("{path}/credentials")).await, (StatusCode::OK, json!({ "password": "hidden" })));
    refused(
        &client.get(&format!("{path}/parameters")).await,
        400,
        &["This service does not support fetching service instance parameters."],
    );
    assert_eq!(client.get(&format!("{path}/permissions")).await.1, json!({ "manage": true, "read": true }));

    let (status, page) = client
        .get(&format!(
            "/v3/service_instances?names=db&space_guids={space}&type=user-provided&label_selector=env%3Dprod&fields%5Bspace%5D=guid,name&fields%5Bspace.organization%5D=name&fields%5Bservice_plan%5D=guid,name"
        ))
        .await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_eq!(page["resources"][0]["guid"], *guid);
    assert_eq!(page["included"]["spaces"][0], json!({ "guid": space.to_string(), "name": "dev" }));
    assert_eq!(page["included"]["organizations"][0], json!({ "name": "dev" }));
    for nothing in ["names=x", "type=managed", "service_plan_names=x", "label_selector=env%3Dtest"] {
        let (_, page) = client.get(&format!("/v3/service_instances?{nothing}")).await;
        assert_eq!(page["pagination"]["total_results"], 0, "{nothing}");
    }
    for bad in ["type=x", "fields%5Bspace%5D=secret", "fields%5Bx%5D=guid", "order_by=tags"] {
        refused(&client.get(&format!("/v3/service_instances?{bad}")).await, 400, &["The query parameter is invalid"]);
    }

    let change = json!({ "name": "db2", "credentials": null, "tags": null, "metadata": { "labels": { "env": null } } });
    let (status, changed) = client.patch(&path, change).await;
    assert_eq!((status, &changed["name"], &changed["tags"]), (StatusCode::OK, &json!("db2"), &json!([])), "{changed}");
    assert_eq!(changed["last_operation"]["type"], "update");
    assert_eq!(changed["syslog_drain_url"], "syslog://logs.test:514", "what is not named stays");
    assert_eq!(client.get(&format!("{path}/credentials")).await.1, json!({}));

    assert_eq!(client.delete(&path).await.0, StatusCode::NO_CONTENT);
    refused(&client.get(&path).await, 404, &["Service instance not found"]);
    let (_, events) = controller.admin().await.get(&format!("/v3/audit_events?target_guids={guid}")).await;
    let kinds: Vec<&str> =
        events["resources"].as_array().expect("events").iter().filter_map(|event| event["type"].as_str()).collect();
    for kind in ["create", "update", "show", "delete"] {
        assert!(kinds.contains(&&*format!("audit.user_provided_service_instance.{kind}")), "{kind}: {kinds:?}");
    }
    assert!(!events.to_string().contains("hidden"), "{events}");
}

#[tokio::test]
async fn bad_instances_are_refused_in_cloud_foundrys_words() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let space = dev_space(&controller.database.pool).await;
    instance(&client, space, "db", json!({})).await;
    for (more, detail) in [
        (json!({ "name": "db" }), "The service instance name is taken: db."),
        (json!({ "name": "  " }), "Name can't be blank"),
        (json!({ "name": 7 }), "Name must be a string"),
        (json!({ "type": "x" }), "Type must be one of 'managed', 'user-provided'"),
        (json!({ "type": "managed" }), "Invalid service plan. Ensure that the service plan exists"),
        (json!({ "tags": "x" }), "Tags must be an array"),
        (json!({ "tags": [1] }), "Tags must be a list of strings"),
        (json!({ "tags": ["x".repeat(2049)] }), "Combined length of tags"),
        (json!({ "credentials": "x" }), "Credentials must be an object"),
        (json!({ "route_service_url": "http://x.test" }), "Route service url must be https"),
        (json!({ "route_service_url": "x" }), "Route service url must be a valid URI"),
        (json!({ "syslog_drain_url": "x" }), "Syslog drain url must be a valid URI"),
        (json!({ "parameters": {} }), "Unknown field(s): 'parameters'"),
        (json!({ "plan": "x" }), "Unknown field(s): 'plan'"),
        (json!({ "relationships": { "space": to_one(Uuid::new_v4()) } }), "Invalid space."),
    ] {
        refused(&create(&client, space, "other", more).await, 422, &[detail]);
    }
    // Two at once: one wins, the other is told so.
    let (one, two) = tokio::join!(create(&client, space, "twin", json!({})), create(&client, space, "twin", json!({})));
    let lost = if one.0 == StatusCode::CREATED { two } else { one };
    refused(&lost, 422, &["The service instance name is taken: twin."]);
}

#[tokio::test]
async fn roles_decide_what_is_seen() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let space = dev_space(&controller.database.pool).await;
    let guid = instance(&admin, space, "db", json!({ "credentials": { "k": "v" } })).await;
    let path = format!("/v3/service_instances/{guid}");
    let stranger = controller.user("stranger").await;
    let auditor = controller.user_with("audrey", "space_auditor").await;
    refused(&stranger.get(&path).await, 404, &["Service instance not found"]);
    assert_eq!(stranger.get(&format!("{path}/permissions")).await.1, json!({ "manage": false, "read": false }));
    assert_eq!(stranger.get("/v3/service_instances").await.1["pagination"]["total_results"], 0);
    assert_eq!(auditor.get(&path).await.0, StatusCode::OK);
    for answer in [
        auditor.get(&format!("{path}/credentials")).await,
        auditor.patch(&path, json!({ "name": "x" })).await,
        auditor.delete(&path).await,
        create(&auditor, space, "mine", json!({})).await,
    ] {
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{}", answer.1);
    }
    let developer = controller.user_with("dora", "space_developer").await;
    sqlx::query("update feature_flag set enabled = false where name = 'service_instance_creation'")
        .execute(&controller.database.pool)
        .await
        .expect("update");
    refused(&create(&developer, space, "mine", json!({})).await, 403, &["Feature Disabled: service_instance_creation"]);
}

#[tokio::test]
async fn apps_are_bound_once_or_several_times() {
    let controller = TestController::start().await;
    let client = controller.user_with("dora", "space_developer").await;
    let space = dev_space(&controller.database.pool).await;
    let app = controller.bare_app(space, "shop").await.to_string();
    let db = instance(&client, space, "db", json!({ "credentials": { "uri": "pg://" } })).await;
    let cache = instance(&client, space, "cache", json!({})).await;

    let (status, bound) =
        bind(&client, &app, &db, json!({ "name": "main", "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!(status, StatusCode::CREATED, "{bound}");
    assert_eq!((&bound["type"], &bound["name"]), (&json!("app"), &json!("main")));
    assert_eq!(bound["last_operation"]["state"], "succeeded");
    let path = format!("/v3/service_credential_bindings/{}", bound["guid"].as_str().expect("a guid"));
    refused(&bind(&client, &app, &db, json!({})).await, 422, &["The app is already bound to the service instance"]);
    refused(
        &bind(&client, &app, &cache, json!({ "name": "main" })).await,
        422,
        &["already has a binding with name 'main'"],
    );
    refused(
        &bind(&client, &app, &db, json!({ "strategy": "multiple" })).await,
        422,
        &["The binding name cannot be changed"],
    );
    for _ in 0..4 {
        let again = bind(&client, &app, &db, json!({ "name": "main", "strategy": "multiple" })).await;
        assert_eq!(again.0, StatusCode::CREATED, "{}", again.1);
    }
    refused(
        &bind(&client, &app, &db, json!({ "name": "main", "strategy": "multiple" })).await,
        422,
        &["too many bindings", "limit: 5"],
    );

    assert_eq!(
        client.get(&format!("{path}/details")).await,
        (StatusCode::OK, json!({ "credentials": { "uri": "pg://" } }))
    );
    refused(
        &client.get(&format!("{path}/parameters")).await,
        400,
        &["This service does not support fetching service binding parameters."],
    );
    let (_, page) = client.get("/v3/service_credential_bindings?include=app,service_instance&app_names=shop&service_instance_names=db&type=app&label_selector=a").await;
    assert_eq!(page["pagination"]["total_results"], 1, "{page}");
    assert_eq!(page["included"]["apps"][0]["relationships"]["space"]["data"]["guid"], space.to_string());
    assert_eq!(page["included"]["service_instances"][0]["name"], "db");
    assert_eq!(client.get(&format!("{path}?include=app")).await.1["included"]["apps"][0]["name"], "shop");
    let (status, changed) = client.patch(&path, json!({ "metadata": { "annotations": { "note": "x" } } })).await;
    assert_eq!((status, &changed["metadata"]["annotations"]["note"]), (StatusCode::OK, &json!("x")));

    let auditor = controller.user_with("audrey", "space_auditor").await;
    assert_eq!(auditor.get(&path).await.0, StatusCode::OK);
    refused(&auditor.get(&format!("{path}/details")).await, 404, &["Service credential binding not found"]);
    assert_eq!(auditor.delete(&path).await.0, StatusCode::FORBIDDEN);
    assert_eq!(bind(&auditor, &app, &cache, json!({})).await.0, StatusCode::FORBIDDEN);

    for (body, detail) in [
        (json!({ "type": "x", "relationships": {} }), "Type must be 'app' or 'key'"),
        (
            json!({ "type": "key", "name": "k", "relationships": { "service_instance": to_one(&db) } }),
            "Service credential bindings of type 'key' are not supported for user-provided service instances.",
        ),
        (json!({ "type": "app", "relationships": { "service_instance": to_one(&db) } }), "App can't be blank"),
        (
            json!({ "type": "app", "parameters": {}, "relationships": { "service_instance": to_one(&db), "app": to_one(&app) } }),
            "Binding parameters are not supported for user-provided service instances",
        ),
        (
            json!({ "type": "app", "relationships": { "service_instance": to_one("nope"), "app": to_one(&app) } }),
            "The service instance could not be found: 'nope'",
        ),
        (
            json!({ "type": "app", "relationships": { "service_instance": to_one(&db), "app": to_one("nope") } }),
            "The app could not be found: 'nope'",
        ),
        (
            json!({ "type": "app", "name": "a b", "relationships": { "service_instance": to_one(&cache), "app": to_one(&app) } }),
            "Valid characters are alphanumeric, underscore, and dash.",
        ),
        (
            json!({ "type": "app", "strategy": "x", "relationships": { "service_instance": to_one(&cache), "app": to_one(&app) } }),
            "Strategy must be 'single' or 'multiple'",
        ),
    ] {
        refused(&client.post("/v3/service_credential_bindings", body).await, 422, &[detail]);
    }

    assert_eq!(client.delete(&path).await.0, StatusCode::NO_CONTENT);
    refused(&client.get(&path).await, 404, &["Service credential binding not found"]);
    // The instance takes its bindings along.
    assert_eq!(client.delete(&format!("/v3/service_instances/{db}")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/v3/service_credential_bindings").await.1["pagination"]["total_results"], 0);
    let (_, events) =
        client.get("/v3/audit_events?types=audit.service_binding.create,audit.service_binding.delete").await;
    assert_eq!(events["pagination"]["total_results"], 10, "{events}");
}

#[tokio::test]
async fn apps_see_their_services() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let space = dev_space(&controller.database.pool).await;
    let app = controller.pushed(&client, "shop").await;
    let db = instance(&client, space, "db", json!({ "credentials": { "uri": "pg://one" }, "tags": ["sql"] })).await;
    bind(&client, &app, &db, json!({})).await;
    bind(&client, &app, &db, json!({ "strategy": "multiple" })).await;
    let (_, env) = client.get(&format!("/v3/apps/{app}/env")).await;
    let services = &env["system_env_json"]["VCAP_SERVICES"]["user-provided"];
    assert_eq!(services.as_array().map(Vec::len), Some(1), "of several bindings the newest: {env}");
    assert_eq!(services[0]["credentials"]["uri"], "pg://one");
    assert_eq!(
        (&services[0]["label"], &services[0]["name"], &services[0]["tags"][0]),
        (&json!("user-provided"), &json!("db"), &json!("sql"))
    );

    action(&client, &app, "restart").await;
    let env_of = |spec: &slipway_protocol::v1::WorkloadSpec, name: &str| {
        spec.env.iter().find(|var| var.name == name).map(|var| var.value.clone())
    };
    let spec = web_spec(&controller, &app).await;
    let services: Value = serde_json::from_str(&env_of(&spec, "VCAP_SERVICES").expect("the variable")).expect("json");
    assert_eq!(services["user-provided"][0]["credentials"]["uri"], "pg://one");
    assert!(spec.files.is_empty());

    let feature = |name: &str| format!("/v3/apps/{app}/features/{name}");
    let (status, body) = client.patch(&feature("file-based-vcap-services"), json!({ "enabled": true })).await;
    assert_eq!((status, &body["enabled"]), (StatusCode::OK, &json!(true)), "{body}");
    refused(
        &client.patch(&feature("service-binding-k8s"), json!({ "enabled": true })).await,
        422,
        &["'file-based-vcap-services' and 'service-binding-k8s' features cannot be enabled at the same time."],
    );
    action(&client, &app, "restart").await;
    let spec = web_spec(&controller, &app).await;
    assert_eq!(env_of(&spec, "VCAP_SERVICES"), None);
    assert_eq!(env_of(&spec, "VCAP_SERVICES_FILE_PATH").as_deref(), Some("/etc/cf-service-bindings/vcap_services"));
    assert_eq!(spec.files[0].path, "vcap_services");
    assert!(spec.files[0].content.contains("pg://one"));

    client.patch(&feature("file-based-vcap-services"), json!({ "enabled": false })).await;
    client.patch(&feature("service-binding-k8s"), json!({ "enabled": true })).await;
    let (_, env) = client.get(&format!("/v3/apps/{app}/env")).await;
    assert_eq!(env["system_env_json"], json!({ "SERVICE_BINDING_ROOT": "/etc/cf-service-bindings" }));
    action(&client, &app, "restart").await;
    let spec = web_spec(&controller, &app).await;
    let content = |path: &str| spec.files.iter().find(|file| file.path == path).map(|file| file.content.as_str());
    assert_eq!((content("db/uri"), content("db/type")), (Some("pg://one"), Some("user-provided")));
    let features = client.get(&format!("/v3/apps/{app}/features")).await.1;
    assert_eq!(features["pagination"]["total_results"], 4, "{features}");

    // More than fits.
    client
        .patch(&format!("/v3/service_instances/{db}"), json!({ "credentials": { "k": "x".repeat(1_000_000) } }))
        .await;
    let answer = client.act(&format!("/v3/apps/{app}/actions/restart")).await;
    refused(&answer, 422, &["Bindings exceed the maximum allowed bytesize of 1000000"]);
    client.patch(&feature("service-binding-k8s"), json!({ "enabled": false })).await;
    let answer = client.act(&format!("/v3/apps/{app}/actions/restart")).await;
    refused(&answer, 422, &["VCAP_SERVICES would hold", "file-based-vcap-services"]);
}

/// The spec that the app's web process runs.
async fn web_spec(controller: &TestController, app: &str) -> slipway_protocol::v1::WorkloadSpec {
    let guid: Uuid = app.parse().expect("a guid");
    let (digest, body): (Vec<u8>, Vec<u8>) = sqlx::query_as(
        "select s.digest, s.body from process p join spec s on s.digest = p.spec where p.app_guid = $1 and p.type = 'web'",
    )
    .bind(guid)
    .fetch_one(&controller.database.pool)
    .await
    .expect("a spec");
    let place = slipway_controller::domain::compose::spec_place(&digest);
    let plain = controller.context.vault.open(&place, &body).expect("opens");
    prost::Message::decode(&*plain).expect("a spec")
}

#[tokio::test]
async fn manifests_bind_services() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let space = dev_space(&controller.database.pool).await;
    instance(&client, space, "db", json!({})).await;
    instance(&client, space, "cache", json!({})).await;
    let fields =
        "  services:\n  - db\n  - name: cache\n    binding_name: fast\n  features:\n    service-binding-k8s: true\n";
    for _ in 0..2 {
        let app = app_of(&client, space, "shop", fields).await;
        let (_, page) = client.get(&format!("/v3/service_credential_bindings?app_guids={app}")).await;
        assert_eq!(page["pagination"]["total_results"], 2, "{page}");
        let answer = client.get(&format!("/v3/apps/{app}/manifest")).await.1;
        let text = answer.as_str().expect("yaml");
        assert!(text.contains("services:") && text.contains("- db") && text.contains("binding_name: fast"), "{text}");
        assert_eq!(client.get(&format!("/v3/apps/{app}/features/service-binding-k8s")).await.1["enabled"], true);
    }
    for (services, detail) in [
        ("[nothing]", "For application 'shop2': Service instance 'nothing' not found"),
        ("db", "Services must be a list of service instances"),
        ("[{binding_name: x}]", "Services must be a list of service instances"),
        ("[{name: db, parameters: {a: 1}}]", "For service 'db': Binding parameters are not supported"),
    ] {
        let text = format!("applications:\n- name: shop2\n  services: {services}\n");
        refused(&client.send(manifest(&client, space, &text)).await, 422, &[detail]);
    }
    let (_, page) = client.get("/v3/apps?names=shop2").await;
    assert_eq!(page["pagination"]["total_results"], 0, "a refused manifest changes nothing");
}

#[tokio::test]
async fn sharing_follows_cloud_foundrys_rules() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let (org, space) = controller.dev().await;
    let body = json!({ "name": "other", "relationships": { "organization": to_one(org) } });
    let other = client.post("/v3/spaces", body).await.1["guid"].as_str().expect("a guid").to_owned();
    let own = instance(&client, space, "db", json!({})).await;
    let shared_spaces = |guid: &str| format!("/v3/service_instances/{guid}/relationships/shared_spaces");
    let with = |space: &str| json!({ "data": [{ "guid": space }] });
    refused(&client.post(&shared_spaces(&own), with(&other)).await, 422, &["User-provided services cannot be shared."]);
    let route_service = instance(&client, space, "rs", json!({ "route_service_url": "https://rs.test" })).await;
    refused(
        &client.post(&shared_spaces(&route_service), with(&other)).await,
        422,
        &["Route services cannot be shared."],
    );

    // An instance as a broker would have made it.
    let managed = Uuid::new_v4();
    sqlx::query("insert into service_instance (guid, space_guid, name, type) values ($1, $2, 'queue', 'managed')")
        .bind(managed)
        .bind(space)
        .execute(&controller.database.pool)
        .await
        .expect("insert");
    let path = shared_spaces(&managed.to_string());
    let space_text = space.to_string();
    refused(
        &client.post(&path, with(&space_text)).await,
        422,
        &["Service instances cannot be shared into the space where they were created."],
    );
    refused(
        &client.post(&path, with("nope")).await,
        422,
        &["Unable to share service instance queue with spaces ['nope']."],
    );
    let clash = instance(&client, other.parse().expect("a guid"), "queue", json!({})).await;
    refused(
        &client.post(&path, with(&other)).await,
        422,
        &["A service instance called queue already exists in other."],
    );
    client.delete(&format!("/v3/service_instances/{clash}")).await;
    let (status, body) = client.post(&path, with(&other)).await;
    assert_eq!((status, &body["data"][0]["guid"]), (StatusCode::OK, &json!(other)), "{body}");
    let other_guid: Uuid = other.parse().expect("a guid");
    refused(
        &create(&client, other_guid, "queue", json!({})).await,
        422,
        &["The service instance name is taken: queue."],
    );

    let (_, page) = client.get(&format!("/v3/service_instances?space_guids={other}")).await;
    assert_eq!(page["resources"][0]["guid"], managed.to_string(), "{page}");
    let (_, body) = client
        .get(&format!(
            "{path}?fields%5Bspace%5D=guid,name,relationships.organization&fields%5Bspace.organization%5D=guid,name"
        ))
        .await;
    assert_eq!(body["included"]["spaces"][0]["name"], "other", "{body}");
    let (_, body) = client.get(&format!("{path}/usage_summary")).await;
    assert_eq!(body["usage_summary"][0], json!({ "space": { "guid": other }, "bound_app_count": 0 }));

    sqlx::query("update feature_flag set enabled = false where name = 'service_instance_sharing'")
        .execute(&controller.database.pool)
        .await
        .expect("update");
    refused(&client.post(&path, with(&other)).await, 403, &["Feature Disabled: service_instance_sharing"]);
    let (status, body) = client.delete(&format!("{path}/{}", Uuid::new_v4())).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&body).1.contains("Ensure the space exists."));
    assert_eq!(client.delete(&format!("{path}/{other}")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(client.get(&path).await.1["data"], json!([]));
    refused(
        &client.delete(&format!("/v3/service_instances/{managed}")).await,
        422,
        &["this platform cannot talk to brokers yet"],
    );
}

#[tokio::test]
async fn brokers_are_not_there_yet() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    for path in [
        "service_brokers",
        "service_offerings?fields%5Bservice_broker%5D=name,guid",
        "service_plans?available=true&include=service_offering&fields%5Bservice_offering.service_broker%5D=name,guid",
    ] {
        let (status, page) = client.get(&format!("/v3/{path}")).await;
        assert_eq!((status, &page["pagination"]["total_results"]), (StatusCode::OK, &json!(0)), "{path}: {page}");
    }
    let body = json!({ "name": "b", "url": "https://b.test" });
    refused(
        &client.post("/v3/service_brokers", body).await,
        422,
        &["Service brokers are not supported by this platform yet"],
    );
    for (path, what) in [
        ("service_brokers", "Service broker"),
        ("service_offerings", "Service offering"),
        ("service_plans", "Service plan"),
    ] {
        let answer = client.send(client.request(Method::GET, &format!("/v3/{path}/{}", Uuid::new_v4()))).await;
        refused(&answer, 404, &[&format!("{what} not found")]);
    }
}
