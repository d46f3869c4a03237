//! A platform with one of everything, somebody of every role, and copies of everything on demand.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::support::{PASSWORD, TestController};
use crate::table::CALLERS;

/// Kinds of which there is one that everybody looks at.
const KINDS: &[&str] = &[
    "organization_quota",
    "space_quota",
    "isolation_segment",
    "security_group",
    "buildpack",
    "stack",
    "package",
    "build",
    "droplet",
    "process",
    "route",
    "domain",
    "task",
    "deployment",
    "revision",
    "sidecar",
    "user",
    "role",
    "space_role",
    "job",
    "audit_event",
    "app_usage_event",
    "service_usage_event",
    "service_instance",
    "service_credential_binding",
    "service_route_binding",
];

pub(crate) struct World {
    controller: TestController,
    http: Client,
    tokens: HashMap<&'static str, Option<String>>,
    things: HashMap<&'static str, String>,
    counter: AtomicU32,
}

impl World {
    /// The world before the first call.
    pub(crate) async fn build() -> Self {
        let controller = TestController::start().await;
        let admin = controller.admin().await;
        let app = controller.pushed(&admin, "base").await;
        let (org, space) = controller.dev().await;
        let http = Client::builder().redirect(Policy::none()).build().expect("a client");
        let mut world =
            Self { controller, http, tokens: HashMap::new(), things: HashMap::new(), counter: AtomicU32::new(0) };
        world.things.extend([("app", app), ("organization", org.to_string()), ("space", space.to_string())]);
        for name in CALLERS {
            let token = world.log_in(name).await;
            world.tokens.insert(name, token);
        }
        world.execute("insert into user_account (guid, is_client) values ('a-client', true)", &[]).await;
        world.things.insert("client", "a-client".to_owned());
        let second = world.copy("space", &world.base("space"), json!({ "name": "second" })).await;
        world
            .execute(
                "insert into role (guid, type, user_guid, org_guid, space_guid)
             select gen_random_uuid(), type, user_guid, org_guid, $2::uuid from role where space_guid = $1::uuid",
                &[&world.base("space"), &second],
            )
            .await;
        world.things.insert("second_space", second);
        // Off until an operator switches it on.
        world.execute("update feature_flag set enabled = true where name = 'route_sharing'", &[]).await;
        for kind in KINDS {
            let guid = world.first(kind).await;
            world.things.insert(kind, guid);
        }
        world
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.controller.address
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.controller.database.pool
    }

    /// The token of a caller; `None` for the one who is not logged in.
    async fn log_in(&self, name: &'static str) -> Option<String> {
        let client = match name {
            "admin" => self.controller.admin().await,
            "anonymous" => return None,
            "roleless" => self.controller.user(name).await,
            "admin_read_only" | "global_auditor" => {
                self.controller.user(name).await;
                self.execute(
                    "update user_account set scopes = array['cloud_controller.' || $1] where username = $1",
                    &[name],
                )
                .await;
                self.controller.login(name, PASSWORD).await
            }
            "elsewhere" => {
                let client = self.controller.user(name).await;
                let org = self.copy("organization", &self.base("organization"), json!({ "name": "elsewhere" })).await;
                let place = json!({ "name": "elsewhere", "org_guid": org, "quota_guid": null });
                let space = self.copy("space", &self.base("space"), place).await;
                for (role, space) in
                    [("organization_user", ""), ("organization_manager", ""), ("space_developer", space.as_str())]
                {
                    self.execute(
                        "insert into role (guid, type, user_guid, org_guid, space_guid)
                         select gen_random_uuid(), $1, guid, $2::uuid, nullif($3, '')::uuid
                         from user_account where username = 'elsewhere'",
                        &[role, &org, space],
                    )
                    .await;
                }
                client
            }
            role => self.controller.user_with(role, role).await,
        };
        client.token
    }

    /// A request by this caller.
    pub(crate) fn request(&self, caller: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.controller.base));
        match &self.tokens[caller] {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Every (method, path) that the controller has. The methods of a path are what it says it allows.
    pub(crate) async fn registered(&self, paths: &[&str]) -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        let probe = Method::from_bytes(b"PROBE").expect("a method");
        for path in paths {
            let some = path.replace(['{', '}'], "");
            let answer = self.request("anonymous", probe.clone(), &some).send().await.expect("an answer");
            let allowed = answer.headers().get("allow").unwrap_or_else(|| panic!("{path} names no methods"));
            let methods = allowed.to_str().expect("text").split(',').map(str::trim).filter(|method| *method != "HEAD");
            all.extend(methods.map(|method| (method.to_owned(), (*path).to_owned())));
        }
        all
    }

    /// The guid of the thing of this kind that everybody looks at.
    pub(crate) fn base(&self, kind: &str) -> String {
        self.things.get(kind).unwrap_or_else(|| panic!("the world holds no {kind} yet: add it to world.rs")).clone()
    }

    pub(crate) async fn destination_of(&self, route: &str) -> String {
        self.text("select guid::text from route_destination where route_guid = $1::uuid", &[route]).await
    }

    /// Text with its placeholders filled in; `it` is the thing in the call's path.
    pub(crate) async fn fill(&self, text: &str, it: Option<&str>) -> String {
        let mut filled = String::new();
        let mut pieces = text.split('$');
        filled.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let end = piece.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(piece.len());
            let (name, rest) = piece.split_at(end);
            let value = match name {
                "unique" => self.unique(),
                "it" => it.expect("a thing in the path").to_owned(),
                "droplet_of_it" => {
                    self.text("select droplet_guid::text from app where guid = $1::uuid", &[it.expect("an app")]).await
                }
                name => match name.strip_prefix("new_") {
                    Some(kind) => self.make(kind).await,
                    None => self.base(name),
                },
            };
            filled.push_str(&value);
            filled.push_str(rest);
        }
        filled
    }

    fn unique(&self) -> String {
        format!("n{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Calls under way may lock the same users and places in another order, which these statements cannot know. When
    /// Postgres ends such a deadlock here, the statement has done nothing and goes again.
    async fn execute(&self, sql: &'static str, values: &[&str]) {
        loop {
            let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
            match query.execute(self.pool()).await {
                Ok(_) => return,
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01") => {}
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }

    async fn text(&self, sql: &'static str, values: &[&str]) -> String {
        let query = values.iter().fold(sqlx::query_scalar(sql), |query, value| query.bind(value.to_string()));
        query.fetch_one(self.pool()).await.unwrap_or_else(|error| panic!("{sql} with {values:?}: {error}"))
    }

    /// Copies a row with another guid and these columns changed. The new guid.
    async fn copy(&self, table: &str, guid: &str, mut changes: Value) -> String {
        let new = Uuid::new_v4().to_string();
        changes["guid"] = json!(new);
        let sql = format!(
            "insert into {table} select (jsonb_populate_record(null::{table}, to_jsonb(t) || $2)).* from {table} t
             where guid = $1::uuid"
        );
        let copied = sqlx::query(AssertSqlSafe(sql))
            .bind(guid.to_owned())
            .bind(&changes)
            .execute(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!(copied.rows_affected(), 1, "{table} {guid}");
        new
    }

    /// Finds or makes the thing of a kind that everybody looks at.
    async fn first(&self, kind: &'static str) -> String {
        let app = self.base("app");
        let of_app = match kind {
            "package" => "select guid::text from package where app_guid = $1::uuid",
            "build" => "select guid::text from build where app_guid = $1::uuid",
            "droplet" => "select guid::text from droplet where app_guid = $1::uuid",
            "process" => "select guid::text from process where app_guid = $1::uuid and type = 'web'",
            "route" => "select route_guid::text from route_destination where app_guid = $1::uuid",
            _ => "",
        };
        if !of_app.is_empty() {
            return self.text(of_app, &[&app]).await;
        }
        match kind {
            "stack" => self.text("select guid::text from stack limit 1", &[]).await,
            "organization_quota" => self.text("select guid::text from organization_quota limit 1", &[]).await,
            "job" => {
                let sql =
                    "insert into job (guid, operation, state) values (gen_random_uuid(), 'app.delete', 'COMPLETE')
                           returning guid::text";
                self.text(sql, &[]).await
            }
            "audit_event" => {
                let sql = "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type,
                                              target_name, space_guid, org_guid)
                           values (gen_random_uuid(), 'audit.app.update', 'x', 'user', 'x', $1, 'app', 'base', $2::uuid,
                                   $3::uuid) returning guid::text";
                self.text(sql, &[&app, &self.base("space"), &self.base("organization")]).await
            }
            // The app was started.
            "app_usage_event" => self.text("select guid::text from app_usage_event limit 1", &[]).await,
            "service_usage_event" => {
                let row = json!({
                    "state": "CREATED", "service_instance_guid": Uuid::new_v4(), "service_instance_name": "x",
                    "service_instance_type": "managed_service_instance",
                });
                self.insert(kind, row).await
            }
            "space_quota" => {
                let quota = self.make(kind).await;
                let sql = "update space set quota_guid = $1::uuid where guid = $2::uuid";
                self.execute(sql, &[&quota, &self.base("space")]).await;
                quota
            }
            kind => self.make(kind).await,
        }
    }

    /// Something that one call may use up: a copy of what there is, or a new row, in the places that all callers know.
    pub(crate) async fn make(&self, kind: &str) -> String {
        let (name, app) = (self.unique(), self.base("app"));
        let (org, space) = (self.base("organization"), self.base("space"));
        match kind {
            "organization" => {
                let made = self.copy("organization", &org, json!({ "name": name })).await;
                // Another call may remove a user meanwhile: its role is not copied then.
                let roles = "insert into role (guid, type, user_guid, org_guid)
                             select gen_random_uuid(), r.type, r.user_guid, $2::uuid
                             from role r join user_account u on u.guid = r.user_guid
                             where r.org_guid = $1::uuid and r.space_guid is null for key share of u";
                self.execute(roles, &[&org, &made]).await;
                made
            }
            "space" => {
                let made = self.copy("space", &space, json!({ "name": name })).await;
                let roles = "insert into role (guid, type, user_guid, org_guid, space_guid)
                             select gen_random_uuid(), r.type, r.user_guid, r.org_guid, $2::uuid
                             from role r join user_account u on u.guid = r.user_guid
                             where r.space_guid = $1::uuid for key share of u";
                self.execute(roles, &[&space, &made]).await;
                made
            }
            "app" => {
                let made =
                    self.copy("app", &app, json!({ "name": name, "droplet_guid": null, "environment": null })).await;
                self.copy("process", &self.base_process().await, json!({ "app_guid": made })).await;
                let current =
                    self.text("select droplet_guid::text from app where guid = $1::uuid", &[app.as_str()]).await;
                let droplet = self.copy("droplet", &current, json!({ "app_guid": made })).await;
                let sql = "update app set droplet_guid = $1::uuid where guid = $2::uuid";
                self.execute(sql, &[&droplet, &made]).await;
                made
            }
            "process" => {
                let app = Box::pin(self.make("app")).await;
                self.text("select guid::text from process where app_guid = $1::uuid", &[&app]).await
            }
            "package_of_its_own_app" => {
                let app = Box::pin(self.make("app")).await;
                self.copy("package", &self.base("package"), json!({ "app_guid": app })).await
            }
            "account" => {
                let sql =
                    "insert into user_account (guid, username) values (gen_random_uuid()::text, $1) returning guid";
                self.text(sql, &[&name]).await
            }
            "package" | "droplet" | "build" => self.copy(kind, &self.base(kind), json!({})).await,
            "route" => {
                let base = self.base("route");
                let made = self.copy("route", &base, json!({ "host": name })).await;
                let destination = self.destination_of(&base).await;
                self.copy("route_destination", &destination, json!({ "route_guid": made })).await;
                made
            }
            "buildpack" => self.posted("/v3/buildpacks", json!({ "name": name })).await,
            "stack" | "organization_quota" => {
                self.copy(kind, &self.base(kind), json!({ "name": name, "is_default": false })).await
            }
            "user" | "role" | "space_role" => self.member(kind, &name).await,
            "deployment" => {
                let app = Box::pin(self.make("app")).await;
                let body = json!({ "relationships": { "app": { "data": { "guid": app } } } });
                self.posted("/v3/deployments", body).await
            }
            "service_credential_binding" => {
                let app = Box::pin(self.make("app")).await;
                let instance = Box::pin(self.make("service_instance")).await;
                let row = json!({ "app_guid": app, "type": "app", "service_instance_guid": instance });
                self.insert("service_binding", row).await
            }
            "service_route_binding" => {
                let route = Box::pin(self.make("route")).await;
                let instance = Box::pin(self.make("service_instance")).await;
                let row = json!({ "route_guid": route, "type": "route", "service_instance_guid": instance });
                self.insert("service_binding", row).await
            }
            "security_group" => {
                let made = self.insert(kind, json!({ "name": name })).await;
                let sql = "insert into security_group_space (security_group_guid, space_guid, phase)
                           values ($1::uuid, $2::uuid, 'running')";
                self.execute(sql, &[&made, &space]).await;
                made
            }
            "isolation_segment" => {
                let made = self.insert(kind, json!({ "name": name })).await;
                let sql = "insert into isolation_segment_organization values ($1::uuid, $2::uuid)";
                self.execute(sql, &[&made, &org]).await;
                made
            }
            "domain" => self.insert(kind, json!({ "name": format!("{name}.test"), "org_guid": org })).await,
            "space_quota" => self.insert(kind, json!({ "name": name, "org_guid": org })).await,
            "service_instance" => {
                let row = json!({
                    "name": name, "space_guid": space, "type": "user-provided", "tags": [],
                    "route_service_url": "https://service.test",
                });
                self.insert(kind, row).await
            }
            "task" | "revision" | "sidecar" => {
                let number = self.counter.fetch_add(1, Ordering::Relaxed) + 1000;
                let droplet = self.base("droplet");
                // Sidecars stand side by side in one process: with memory of their own, how many calls are under way at
                // once would decide whether a further one fits.
                let memory = (kind != "sidecar").then_some(16);
                let row = json!({
                    "app_guid": app, "droplet_guid": droplet, "sequence_id": number, "version": number, "name": name,
                    "command": "true", "process_types": ["web"], "memory_in_mb": memory, "disk_in_mb": 64,
                });
                self.insert(kind, row).await
            }
            other => panic!("nobody knows how to make a {other}: add it to world.rs"),
        }
    }

    /// What the administrator makes through the API; its guid.
    async fn posted(&self, path: &str, body: Value) -> String {
        let answer = self.request("admin", Method::POST, path).json(&body).send().await.expect("an answer");
        let (status, made) = (answer.status(), answer.json::<Value>().await.expect("json"));
        assert_eq!(status, 201, "{path}: {made}");
        made["guid"].as_str().expect("a guid").to_owned()
    }

    async fn base_process(&self) -> String {
        self.text("select guid::text from process where app_guid = $1::uuid and type = 'web'", &[&self.base("app")])
            .await
    }

    /// A user of the organization; the guid of the user or of one of its roles.
    async fn member(&self, kind: &str, name: &str) -> String {
        let sql = "insert into user_account (guid, username, in_api) values (gen_random_uuid()::text, $1, true)
                   returning guid";
        let user = self.text(sql, &[name]).await;
        let sql = "insert into role (guid, type, user_guid, org_guid)
                   values (gen_random_uuid(), 'organization_user', $1, $2::uuid) returning guid::text";
        let role = self.text(sql, &[&user, &self.base("organization")]).await;
        match kind {
            "user" => user,
            "role" => role,
            _ => {
                let sql = "insert into role (guid, type, user_guid, org_guid, space_guid)
                           values (gen_random_uuid(), 'space_auditor', $1, $2::uuid, $3::uuid) returning guid::text";
                self.text(sql, &[&user, &self.base("organization"), &self.base("space")]).await
            }
        }
    }

    /// A row of these values and the table's defaults; values for which there is no column are left out.
    async fn insert(&self, table: &str, mut row: Value) -> String {
        let guid = Uuid::new_v4().to_string();
        row["guid"] = json!(guid);
        let names: Vec<String> = sqlx::query_scalar(
            "select column_name::text from information_schema.columns where table_name = $1 and table_schema = 'public'",
        )
        .bind(table.to_owned())
        .fetch_all(self.pool())
        .await
        .expect("columns");
        let names: Vec<String> = names.into_iter().filter(|name| row.get(name).is_some()).collect();
        let columns = names.join(", ");
        let sql =
            format!("insert into {table} ({columns}) select {columns} from jsonb_populate_record(null::{table}, $1)");
        sqlx::query(AssertSqlSafe(sql))
            .bind(&row)
            .execute(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
        guid
    }
}
