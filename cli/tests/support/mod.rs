//! A simulated platform for the command line: an in-process stub of the v3 API, token and log endpoints. It keeps just
//! enough state for a push and records what it was asked. It is no proof that the real platform answers like this.

#![allow(dead_code, reason = "each test file uses its own part of the stub")]

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Multipart, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use serde_json::{Value, json};
use slipway_cli::{Ask, Environment, Exit, Output, run_until};

/// What the stub knows and what it was asked.
#[derive(Default)]
pub(crate) struct World {
    /// `METHOD /path?query`, in order; token and log requests are left out.
    pub(crate) calls: Vec<String>,
    pub(crate) bodies: BTreeMap<String, String>,
    /// SHA-1 of contents that the platform has.
    pub(crate) known: HashSet<String>,
    /// Parts of the last upload.
    pub(crate) resources: Value,
    pub(crate) bits: Option<Vec<u8>>,
    /// Answers to give instead of the usual ones: path prefix, then answers in their order.
    pub(crate) instead: Vec<(String, VecDeque<Instead>)>,
    /// State of the build after the first look.
    pub(crate) build_error: Option<String>,
    /// Rows of the stats, one set for each look; the last one stays.
    pub(crate) stats: VecDeque<Value>,
    pub(crate) logs: Vec<Value>,
    /// Lines that appear with the build.
    pub(crate) build_logs: Vec<Value>,
    pub(crate) token_grants: Vec<String>,
    /// Seconds that a new token lives.
    pub(crate) token_life: i64,
    pub(crate) tokens: u32,
    /// The token accepted; anything when none.
    pub(crate) accepted: Option<String>,
    pub(crate) app_exists: bool,
    pub(crate) app_runs: bool,
    pub(crate) builds: u32,
    /// A build that does not end.
    pub(crate) build_hangs: bool,
    /// Status of the deployment, one for each look; the last one stays.
    pub(crate) deployment: VecDeque<(&'static str, &'static str)>,
    /// Rows of the deployment's new process, likewise.
    pub(crate) new_stats: VecDeque<Value>,
    /// State and failure of the task, likewise.
    pub(crate) task: VecDeque<(&'static str, &'static str)>,
    /// Lines that appear with the task.
    pub(crate) task_logs: Vec<Value>,
    /// Answers to requests that are not a push's: `METHOD /path`.
    pub(crate) answers: BTreeMap<String, Value>,
}

/// An unusual answer.
#[derive(Clone)]
pub(crate) enum Instead {
    Status(u16, &'static str, String),
    /// Closes the connection in the middle of the answer.
    HangUp,
    /// Never answers.
    Hang,
    Usual,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// A running stub with a home for the command line.
pub(crate) struct Platform {
    pub(crate) world: Shared,
    pub(crate) url: String,
    pub(crate) home: tempfile::TempDir,
    pub(crate) work: tempfile::TempDir,
    /// Answers come from a program, not from a terminal.
    pub(crate) piped: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a command ended and what it said.
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("sink").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("sink").clone()).expect("text")
    }
}

/// Answers to prompts, in order.
pub(crate) struct Answers {
    lines: Mutex<VecDeque<&'static str>>,
    typed: bool,
}

impl Ask for Answers {
    fn line(&self, _: &str) -> std::io::Result<String> {
        let next = self.lines.lock().expect("answers").pop_front();
        next.map(str::to_owned).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    }
    fn secret(&self, prompt: &str) -> std::io::Result<String> {
        self.line(prompt)
    }
    fn is_typed(&self) -> bool {
        self.typed
    }
}

impl Platform {
    /// Starts a stub on a free port.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("address").port();
        let url = format!("http://api.slipway.localhost:{port}");
        let world =
            World { token_life: 600, stats: VecDeque::from([json!([row("RUNNING", "new")])]), ..World::default() };
        let world: Shared = Arc::new(Mutex::new(world));
        let router = router(url.clone(), Arc::clone(&world));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
        let directory = || tempfile::tempdir().expect("temporary directory");
        Self { world, url, home: directory(), work: directory(), piped: false, task }
    }

    /// Starts a stub and logs in.
    pub(crate) async fn logged_in() -> Self {
        let platform = Self::start().await;
        let ran = platform.run(&["login", &platform.url, "-u", "admin", "-p", "secret-word"]).await;
        assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
        platform
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.run_answering(args, &[]).await
    }

    pub(crate) async fn run_answering(&self, args: &[&str], answers: &[&'static str]) -> Ran {
        self.run_with_variables(args, answers, &[]).await
    }

    /// Runs a command that is interrupted as soon as the platform was asked for something that begins like `call`.
    pub(crate) async fn run_interrupted(&self, args: &[&str], call: &str) -> Ran {
        let (world, times) = (Arc::clone(&self.world), std::sync::atomic::AtomicU32::new(0));
        let interrupt = || {
            let (world, first) = (Arc::clone(&world), times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0);
            async move {
                // A second interrupt would end the last words as well.
                while !first || !world.lock().expect("world").calls.iter().any(|made| made.starts_with(call)) {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            }
        };
        self.run_in(args, &[], &[], interrupt).await
    }

    pub(crate) async fn run_with_variables(
        &self,
        args: &[&str],
        answers: &[&'static str],
        variables: &[(&str, &str)],
    ) -> Ran {
        self.run_in(args, answers, variables, std::future::pending).await
    }

    async fn run_in<F, W>(
        &self,
        args: &[&str],
        answers: &[&'static str],
        variables: &[(&str, &str)],
        interrupt: F,
    ) -> Ran
    where
        F: Fn() -> W,
        W: Future<Output = ()>,
    {
        let mut all = BTreeMap::from([("HOME".to_owned(), self.home.path().display().to_string())]);
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let environment = Environment {
            variables: all,
            directory: self.work.path().to_owned(),
            default_api: self.url.clone(),
            default_ca: None,
            ask: Arc::new(Answers { lines: Mutex::new(answers.iter().copied().collect()), typed: !self.piped }),
        };
        let (out, err) = (Sink::default(), Sink::default());
        let output = Output { out: Box::new(out.clone()), err: Box::new(err.clone()), terminal: false, screen: false };
        let args = std::iter::once("slipway").chain(args.iter().copied());
        let exit = run_until(args, environment, output, interrupt).await;
        Ran { exit, out: self.plain(&out.text()), err: self.plain(&err.text()) }
    }

    /// Output without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.url, "http://api.slipway.localhost:PORT")
            .replace(self.url.rsplit_once(':').expect("port").1, "PORT")
            .replace(&self.work.path().display().to_string(), "WORK")
            .replace(&self.home.path().display().to_string(), "HOME")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.work.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        std::fs::write(path, content).expect("file");
    }

    pub(crate) fn instead(&self, path: &str, answers: impl IntoIterator<Item = Instead>) {
        self.lock().instead.push((path.to_owned(), answers.into_iter().collect()));
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("world")
    }

    pub(crate) fn config(&self) -> Value {
        let text = std::fs::read(self.home.path().join(".slipway/config.json")).expect("stored login");
        serde_json::from_slice(&text).expect("JSON")
    }

    pub(crate) fn set_config(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        change(&mut config);
        std::fs::write(self.home.path().join(".slipway/config.json"), config.to_string()).expect("written");
    }
}

/// One row of process stats.
pub(crate) fn row(state: &str, guid: &str) -> Value {
    json!({ "type": "web", "index": 0, "state": state, "instance_guid": guid, "uptime": 3, "mem_quota": 268_435_456,
            "disk_quota": 1_073_741_824, "usage": { "cpu": 0.012, "mem": 20_971_520, "disk": 1_048_576 } })
}

/// A log envelope.
pub(crate) fn envelope(timestamp: i64, source: &str, text: &str) -> Value {
    let payload = base64::engine::general_purpose::STANDARD.encode(text);
    json!({ "timestamp": timestamp.to_string(), "source_id": "app-1", "instance_id": "0",
            "tags": { "source_type": source }, "log": { "payload": payload, "type": "OUT" } })
}

pub(crate) fn api_error(code: u32, title: &str, detail: &str) -> String {
    json!({ "errors": [{ "code": code, "title": title, "detail": detail }] }).to_string()
}

/// A zip's entries as (name, content).
pub(crate) fn unzip(bytes: &[u8]) -> Vec<(String, String)> {
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes.to_vec())).expect("a zip");
    (0..zip.len())
        .map(|index| {
            let mut entry = zip.by_index(index).expect("entry");
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).expect("content");
            (entry.name().expect("a name").into_owned(), content)
        })
        .collect()
}

fn token(number: u32, life: i64) -> String {
    let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let exp = chrono::Utc::now().timestamp() + life;
    let claims = json!({ "exp": exp, "user_name": "admin", "user_id": "user-1", "origin": "uaa", "jti": number });
    format!("{}.{}.signature{number}", encode(json!({ "alg": "RS256" })), encode(claims))
}

#[derive(Clone)]
struct Stub {
    url: String,
    world: Shared,
}

fn router(url: String, world: Shared) -> Router {
    let stub = Stub { url, world };
    Router::new()
        .route("/", get(root))
        .route("/oauth/token", post(grant))
        .route("/api/v1/read/{guid}", get(read_logs))
        .route("/v3/packages/{guid}/upload", post(upload))
        .fallback(api)
        .layer(axum::middleware::from_fn_with_state(stub.clone(), unusual))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(stub)
}

async fn root(State(stub): State<Stub>) -> Response {
    let link = json!({ "href": stub.url });
    let body = json!({ "links": { "self": link, "login": link, "uaa": link, "log_cache": link } });
    axum::Json(body).into_response()
}

async fn grant(State(stub): State<Stub>, body: String) -> Response {
    let mut world = stub.world.lock().expect("world");
    world.token_grants.push(body.clone());
    if body.contains("grant_type=password") && !body.contains("password=secret-word") {
        let body = json!({ "error": "unauthorized", "error_description": "Bad credentials" });
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    if body.contains("refresh_token=revoked") {
        let body = json!({ "error": "invalid_token", "error_description": "the token is revoked" });
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    world.tokens += 1;
    let access = token(world.tokens, world.token_life);
    if world.accepted.is_some() {
        world.accepted = Some(access.clone());
    }
    axum::Json(json!({ "access_token": access, "refresh_token": "refresh", "token_type": "bearer" })).into_response()
}

async fn read_logs(State(stub): State<Stub>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let world = stub.world.lock().expect("world");
    let start: i64 = query.get("start_time").and_then(|text| text.parse().ok()).unwrap_or_default();
    let limit: usize = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
    let time = |line: &Value| line["timestamp"].as_str().and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    let mut lines: Vec<Value> = world.logs.iter().filter(|line| time(line) >= start).cloned().collect();
    lines.sort_by_key(time);
    if query.get("descending").map(String::as_str) == Some("true") {
        lines.reverse();
    }
    lines.truncate(limit);
    axum::Json(json!({ "envelopes": { "batch": lines } })).into_response()
}

async fn upload(State(stub): State<Stub>, mut form: Multipart) -> Response {
    let mut parts: Vec<(String, Bytes)> = Vec::new();
    while let Some(field) = form.next_field().await.expect("a field") {
        let name = field.name().unwrap_or_default().to_owned();
        parts.push((name, field.bytes().await.expect("a part")));
    }
    let mut world = stub.world.lock().expect("world");
    world.bits = None;
    for (name, bytes) in parts {
        match name.as_str() {
            "resources" => world.resources = serde_json::from_slice(&bytes).expect("JSON"),
            "bits" => world.bits = Some(bytes.to_vec()),
            other => panic!("unknown part {other}"),
        }
    }
    axum::Json(json!({ "guid": "package-1", "type": "bits", "state": "READY", "data": {} })).into_response()
}

/// Records requests, checks the token, and gives the unusual answers that a test asked for.
async fn unusual(State(stub): State<Stub>, request: Request, next: axum::middleware::Next) -> Response {
    let path = request.uri().path().to_owned();
    let answer = {
        let mut world = stub.world.lock().expect("world");
        if path.starts_with("/v3") {
            world.calls.push(format!("{} {}", request.method(), request.uri()));
            let given =
                request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            if world.accepted.as_ref().is_some_and(|token| !given.ends_with(token.as_str())) {
                let body = api_error(1000, "CF-InvalidAuthToken", "Invalid Auth Token");
                return (StatusCode::UNAUTHORIZED, body).into_response();
            }
        }
        world
            .instead
            .iter_mut()
            .find(|(prefix, all)| path.starts_with(prefix.as_str()) && !all.is_empty())
            .and_then(|(_, all)| all.pop_front())
    };
    match answer {
        None | Some(Instead::Usual) => next.run(request).await,
        Some(Instead::Status(status, kind, body)) => {
            // Read what was sent, as a server that answers an upload with an error should.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            (StatusCode::from_u16(status).expect("status"), [("content-type", kind)], body).into_response()
        }
        Some(Instead::Hang) => std::future::pending().await,
        Some(Instead::HangUp) => {
            let broken = futures::stream::iter([
                Ok(Bytes::from_static(b"{\"resources\": [")),
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            ]);
            Response::new(Body::from_stream(broken))
        }
    }
}

async fn api(State(stub): State<Stub>, method: Method, uri: Uri, _headers: HeaderMap, body: String) -> Response {
    let mut guard = stub.world.lock().expect("world");
    let world = &mut *guard;
    let path = uri.path().to_owned();
    if !body.is_empty() {
        world.bodies.insert(format!("{method} {path}"), body.clone());
    }
    let list = |items: Vec<Value>| json!({ "pagination": { "next": null }, "resources": items });
    let state = if world.app_runs { "STARTED" } else { "STOPPED" };
    let app =
        json!({ "guid": "app-1", "name": "web", "state": state, "lifecycle": { "type": "buildpack", "data": {} } });
    let route = json!({ "guid": "route-1", "host": "web", "path": "", "url": "web.slipway.localhost", "protocol": "http",
                        "destinations": [{ "guid": "d-1", "app": { "guid": "app-1", "process": { "type": "web" } },
                                           "protocol": "http1" }] });
    let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "memory_in_mb": 256, "disk_in_mb": 1024,
                          "relationships": { "app": { "data": { "guid": "app-1" } } },
                          "process_instances": [{ "index": 0, "state": "RUNNING", "since": 1 }] });
    let apps = if world.app_exists { vec![app.clone()] } else { Vec::new() };
    if let Some(answer) = world.answers.get(&format!("{method} {path}")) {
        return axum::Json(answer.clone()).into_response();
    }
    let sent = world.bodies.get("POST /v3/deployments").and_then(|body| serde_json::from_str::<Value>(body).ok());
    let metadata = sent.map_or(Value::Null, |body| body["metadata"].clone());
    let deployment = |status: (&str, &str)| {
        json!({ "metadata": metadata, "guid": "deployment-1", "strategy": "rolling", "status": { "value": status.0, "reason": status.1,
                "canary": { "steps": { "current": 1, "total": 2 } } }, "new_processes": [{ "guid": "process-2" }] })
    };
    let task = |status: (&str, &str)| {
        let reason = if status.1.is_empty() { Value::Null } else { status.1.into() };
        json!({ "guid": "task-1", "sequence_id": 7, "name": "mine", "state": status.0,
                "result": { "failure_reason": reason } })
    };
    let value = match (method.as_str(), path.as_str()) {
        ("POST", "/v3/deployments") => {
            let first = world.deployment.front().copied().unwrap_or(("ACTIVE", "DEPLOYING"));
            return (StatusCode::CREATED, axum::Json(deployment(first))).into_response();
        }
        ("GET", "/v3/deployments") => {
            let active = world.deployment.front().copied().filter(|status| status.0 == "ACTIVE");
            list(active.map(deployment).into_iter().collect())
        }
        ("GET", "/v3/deployments/deployment-1") => {
            let status = next(&mut world.deployment).unwrap_or(("FINALIZED", "DEPLOYED"));
            deployment(status)
        }
        ("POST", "/v3/deployments/deployment-1/actions/cancel") => {
            world.deployment = VecDeque::from([("FINALIZED", "CANCELED")]);
            json!({})
        }
        ("POST", "/v3/deployments/deployment-1/actions/continue") => {
            world.deployment = VecDeque::from([("ACTIVE", "DEPLOYING"), ("FINALIZED", "DEPLOYED")]);
            json!({})
        }
        ("GET", "/v3/processes/process-2/stats") => {
            json!({ "resources": next(&mut world.new_stats).unwrap_or_else(|| json!([])) })
        }
        ("POST", "/v3/apps/app-1/tasks") => {
            let lines = std::mem::take(&mut world.task_logs);
            world.logs.extend(lines);
            task(("PENDING", ""))
        }
        ("GET", "/v3/tasks/task-1") => task(next(&mut world.task).unwrap_or(("SUCCEEDED", ""))),
        ("PUT", "/v3/tasks/task-1/cancel") => task(("CANCELING", "")),
        ("GET", "/v3/organizations") => list(vec![json!({ "guid": "org-1", "name": "main" })]),
        ("GET", "/v3/spaces") => list(vec![json!({ "guid": "space-1", "name": "dev" })]),
        ("POST", "/v3/spaces/space-1/actions/apply_manifest") => {
            world.app_exists = true;
            let location = format!("{}/v3/jobs/job-1", stub.url);
            return (StatusCode::ACCEPTED, [("location", location)]).into_response();
        }
        ("DELETE", "/v3/apps/app-1") => {
            world.app_exists = false;
            let location = format!("{}/v3/jobs/job-2", stub.url);
            return (StatusCode::ACCEPTED, [("location", location)]).into_response();
        }
        ("GET", path) if path.starts_with("/v3/jobs/") => {
            json!({ "guid": "job", "state": "COMPLETE", "errors": [], "warnings": [] })
        }
        ("GET", "/v3/apps") => list(apps),
        ("GET", "/v3/apps/app-1") => app,
        ("POST", "/v3/resource_matches") => {
            let asked: Value = serde_json::from_str(&body).expect("JSON");
            let known = |entry: &&Value| world.known.contains(entry["checksum"]["value"].as_str().unwrap_or_default());
            json!({ "resources": asked["resources"].as_array().expect("list").iter().filter(known).collect::<Vec<_>>() })
        }
        ("POST", "/v3/packages") => {
            json!({ "guid": "package-1", "type": "bits", "state": "AWAITING_UPLOAD", "data": {} })
        }
        ("GET", "/v3/packages") => list(vec![json!({ "guid": "package-1", "state": "READY", "data": {},
            "created_at": "2026-01-31T12:00:00Z" })]),
        ("GET", "/v3/packages/package-1") => json!({ "guid": "package-1", "state": "READY", "data": {} }),
        ("GET", "/v3/packages/package-1/droplets") => list(vec![json!({ "guid": "droplet-1" })]),
        ("POST", "/v3/builds") => {
            world.builds += 1;
            let lines = std::mem::take(&mut world.build_logs);
            world.logs.extend(lines);
            json!({ "guid": "build-1", "state": "STAGING" })
        }
        ("GET", "/v3/builds") => list(vec![json!({ "guid": "build-1", "state": "STAGING" })]),
        ("POST", path) if path.starts_with("/v3/builds/") && path.ends_with("/actions/cancel") => {
            json!({ "guid": "build-1", "state": "FAILED" })
        }
        ("GET", "/v3/builds/build-1") => match &world.build_error {
            _ if world.build_hangs => {
                json!({ "guid": "build-1", "state": "STAGING", "details": "needs 1024 MiB of memory, 62 are free" })
            }
            Some(error) => json!({ "guid": "build-1", "state": "FAILED", "error": error, "droplet": null }),
            None => json!({ "guid": "build-1", "state": "STAGED", "error": null, "droplet": { "guid": "droplet-1" } }),
        },
        ("PATCH", "/v3/apps/app-1/relationships/current_droplet") => json!({ "data": { "guid": "droplet-1" } }),
        ("POST", path) if path.starts_with("/v3/apps/app-1/actions/") => app,
        ("POST", "/v3/apps/app-1/processes/web/actions/scale") => process,
        ("GET", "/v3/apps/app-1/processes") | ("GET", "/v3/processes") => list(vec![process]),
        ("GET", "/v3/processes/process-1") => {
            let mut process = process;
            process["command"] = "npm start".into();
            process
        }
        ("GET", "/v3/processes/process-1/stats") => {
            let rows = if world.stats.len() > 1 { world.stats.pop_front() } else { world.stats.front().cloned() };
            json!({ "resources": rows.unwrap_or_else(|| json!([])) })
        }
        ("GET", "/v3/apps/app-1/routes") | ("GET", "/v3/routes") => list(vec![route]),
        ("GET", "/v3/apps/app-1/droplets/current") => {
            json!({ "guid": "droplet-1", "stack": "debian12", "created_at": "2026-01-31T12:00:00Z",
            "buildpacks": [{ "name": "nodejs", "version": "1.0" }] })
        }
        ("GET", "/v3/apps/app-1/env") => json!({ "environment_variables": { "LEVEL": "debug" },
            "system_env_json": { "VCAP_SERVICES": {} }, "application_env_json": {}, "running_env_json": {}, "staging_env_json": {} }),
        ("PATCH", "/v3/routes/route-1/destinations/d-1") => json!({ "guid": "d-1", "protocol": "http2" }),
        ("PATCH", "/v3/apps/app-1/environment_variables") => json!({ "var": {} }),
        ("GET", "/v3/domains") | ("GET", "/v3/organizations/org-1/domains") => {
            list(vec![json!({ "guid": "domain-1", "name": "slipway.localhost",
            "internal": false, "relationships": { "organization": { "data": null } } })])
        }
        ("GET", "/v3/audit_events") => {
            list(vec![json!({ "guid": "e", "created_at": "2026-01-31T12:00:00Z", "type": "app.crash",
            "actor": { "name": "web" }, "data": { "index": 0, "reason": "CRASHED", "exit_description": "exit status 3" } })])
        }
        ("GET", "/v3/apps/app-1/tasks") => {
            list(vec![json!({ "guid": "t", "sequence_id": 1, "name": "migrate", "state": "FAILED",
            "created_at": "2026-01-31T12:00:00Z", "result": { "failure_reason": "exit status 1" } })])
        }
        ("GET", "/v3/stacks") => list(vec![json!({ "guid": "s", "name": "debian12", "description": "Debian 12" })]),
        ("GET", "/v3/buildpacks") => list(vec![json!({ "guid": "b", "name": "nodejs", "position": 1, "stack": null,
            "enabled": true, "locked": false, "filename": null })]),
        _ => {
            let body = api_error(10000, "CF-NotFound", "Unknown request");
            return (StatusCode::NOT_FOUND, body).into_response();
        }
    };
    axum::Json(value).into_response()
}

/// The next of several answers; the last one stays.
fn next<T: Clone>(answers: &mut VecDeque<T>) -> Option<T> {
    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
}
