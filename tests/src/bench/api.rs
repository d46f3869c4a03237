//! The API over a platform's worth of rows: 10,000 apps with 100,000 routes and what belongs to them.
//!
//! Each of the calls that clients make most is made one at a time and from eight clients at once, by a space developer
//! where a developer makes it. The SQL statements of a call are counted in the controller's own log, by the call's id,
//! on a platform that logs them; times are taken on the same database without that log.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_test_support::dataset::{Size, fill};
use sqlx::postgres::PgPoolOptions;

use super::Table;
use crate::Platform;

const SIZE: Size = Size { orgs: 100, spaces: 500, users: 2_000, apps: 10_000, routes: 100_000 };
/// How long each call is made, one at a time and then by all clients.
const SPAN: Duration = Duration::from_secs(3);
const CLIENTS: usize = 8;
/// Names the statements of the controller in its log.
const LOG: &str = "info,sqlx=warn,sqlx::query=debug,hyper=warn,h2=warn,tower=warn,rustls=warn";

/// Name of a call and its path, with guids of the data set in braces.
const CALLS: [(&str, &str); 20] = [
    ("front page", "/"),
    ("orgs", "/v3/organizations?order_by=name"),
    ("org by name", "/v3/organizations?names=org-7&per_page=1&page=1"),
    ("spaces", "/v3/spaces?order_by=name&organization_guids={org}"),
    ("apps, page of 50", "/v3/apps?per_page=50"),
    ("apps of a space", "/v3/apps?order_by=name&per_page=5000&space_guids={space}"),
    ("app by name", "/v3/apps?names=app-7&space_guids={space}"),
    ("apps by label", "/v3/apps?label_selector=env%3Dprod,team+in+(team-0,team-3)&per_page=50"),
    ("one app", "/v3/apps/{app}"),
    ("app's environment", "/v3/apps/{app}/env"),
    ("processes of a space with instances", "/v3/processes?embed=process_instances&space_guids={space}"),
    ("app's processes", "/v3/apps/{app}/processes"),
    ("stats", "/v3/processes/{process}/stats"),
    ("routes, page of 50", "/v3/routes?per_page=50"),
    ("routes of a space", "/v3/routes?per_page=5000&space_guids={space}"),
    ("route by name", "/v3/routes?domain_guids={domain}&hosts=host-7&paths="),
    ("app's routes", "/v3/apps/{app}/routes"),
    ("newest package", "/v3/packages?app_guids={app}&states=READY&order_by=-created_at&per_page=1&page=1"),
    ("current droplet", "/v3/apps/{app}/droplets/current"),
    ("events of an app", "/v3/audit_events?target_guids={app}&order_by=-created_at&page=1"),
];

/// Calls whose cost grows with what is there unless an index answers: a caller who sees all, and one with roles.
const WHO: [&str; 2] = ["admin", "developer"];

/// What one call cost.
#[derive(serde::Serialize)]
struct Figure {
    call: &'static str,
    who: &'static str,
    statements: usize,
    p50_us: u64,
    p99_us: u64,
    per_second: f64,
}

/// Runs the benchmark.
///
/// # Errors
/// When the platform cannot be used.
pub fn run() -> anyhow::Result<()> {
    let mut platform = Platform::start_logging(LOG)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    eprintln!("loading {} apps and {} routes", SIZE.apps, SIZE.routes);
    let start = Instant::now();
    let guids = runtime.block_on(load(&platform))?;
    eprintln!("loaded in {:.1} s", start.elapsed().as_secs_f32());
    let calls: Vec<(&'static str, String)> = CALLS
        .iter()
        .map(|(name, path)| {
            (*name, guids.iter().fold((*path).to_owned(), |path, (name, guid)| path.replace(name, guid)))
        })
        .collect();

    let counted = runtime.block_on(count(&platform, &calls))?;
    platform.down()?;
    platform.log_usually();
    platform.up()?;
    let figures = runtime.block_on(measure(&platform, &calls, &counted))?;
    let mut table = Table::new("api", &["call", "as", "SQL statements", "p50 ms", "p99 ms", "requests/s, 8 clients"]);
    let ms = |us: u64| format!("{:.1}", us as f64 / 1000.0);
    for figure in &figures {
        table.row(vec![
            figure.call.to_owned(),
            figure.who.to_owned(),
            figure.statements.to_string(),
            ms(figure.p50_us),
            ms(figure.p99_us),
            format!("{:.0}", figure.per_second),
        ]);
    }
    table.finish(&json!({ "apps": SIZE.apps, "routes": SIZE.routes, "clients": CLIENTS, "calls": figures }))
}

/// Fills the platform's database and makes a developer of one of its spaces; the guids for the calls.
async fn load(platform: &Platform) -> anyhow::Result<Vec<(&'static str, String)>> {
    let config: Value = toml_value(platform, "controller", "database_url")?;
    let url = config.as_str().context("no database_url")?;
    let pool = PgPoolOptions::new().max_connections(2).connect(url).await?;
    fill(&pool, SIZE).await?;
    let one =
        async |sql: &'static str| -> anyhow::Result<String> { Ok(sqlx::query_scalar(sql).fetch_one(&pool).await?) };
    let guids = vec![
        ("{app}", one("select guid::text from app where name = 'app-7'").await?),
        ("{space}", one("select space_guid::text from app where name = 'app-7'").await?),
        (
            "{org}",
            one("select s.org_guid::text from app a join space s on s.guid = a.space_guid where a.name = 'app-7'")
                .await?,
        ),
        (
            "{process}",
            one("select p.guid::text from process p join app a on a.guid = p.app_guid where a.name = 'app-7'").await?,
        ),
        ("{domain}", one("select domain_guid::text from route where host = 'host-7'").await?),
    ];
    platform.ok(&[
        "curl",
        "/Users",
        "-X",
        "POST",
        "-d",
        r#"{"userName":"bench","password":"a bench password","emails":[{"value":"b"}]}"#,
    ])?;
    // As many spaces as a busy developer has.
    sqlx::query(
        "insert into role (guid, type, user_guid, org_guid, space_guid)
         select gen_random_uuid(), 'space_developer', u.guid, s.org_guid, s.guid
         from user_account u, (select * from space order by (name = 'space-7') desc, name limit 20) s
         where u.username = 'bench'",
    )
    .execute(&pool)
    .await?;
    pool.close().await;
    Ok(guids)
}

/// One value of a part's configuration.
fn toml_value(platform: &Platform, part: &str, key: &str) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(platform.layout().config(part))?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).context("no such key")?;
    Ok(serde_json::from_str(line)?)
}

/// A client of the API itself, without the router between.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
    host: String,
}

impl Client {
    async fn new(platform: &Platform, who: &str) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listen = toml_value(platform, "controller", "api_listen")?;
        let base = format!("http://{}", listen.as_str().context("no api_listen")?);
        let (user, password) = match who {
            "admin" => ("admin", std::fs::read_to_string(platform.layout().state("admin-password"))?),
            _ => ("bench", "a bench password".to_owned()),
        };
        let http = reqwest::Client::new();
        let form = [("grant_type", "password"), ("username", user), ("password", password.trim())];
        let answer: Value = http
            .post(format!("{base}/oauth/token"))
            .basic_auth("cf", Some(""))
            .form(&form)
            .send()
            .await?
            .json()
            .await?;
        let token = answer["access_token"].as_str().with_context(|| format!("no token: {answer}"))?.to_owned();
        Ok(Self { http, base, token, host: Platform::host("api") })
    }

    async fn call(&self, path: &str, id: Option<&str>) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut request =
            self.http.get(format!("{}{path}", self.base)).header("host", &self.host).bearer_auth(&self.token);
        if let Some(id) = id {
            request = request.header("x-vcap-request-id", id);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(start.elapsed())
    }
}

fn id(who: &str, place: usize) -> String {
    format!("bench-{who}-{place}-")
}

/// Statements of each call, in the order of `WHO` and of the calls.
async fn count(platform: &Platform, calls: &[(&'static str, String)]) -> anyhow::Result<Vec<usize>> {
    for who in WHO {
        let client = Client::new(platform, who).await?;
        for (place, (_, path)) in calls.iter().enumerate() {
            // The first call may fill what the process keeps; the second is like all others.
            client.call(path, None).await?;
            client.call(path, Some(&id(who, place))).await?;
        }
    }
    let log = std::fs::read_to_string(platform.layout().log("controller"))?;
    let mut counts = Vec::new();
    for who in WHO {
        for place in 0..calls.len() {
            let id = id(who, place);
            counts.push(log.lines().filter(|line| line.contains("sqlx::query") && line.contains(&id)).count());
        }
    }
    ensure!(counts.iter().sum::<usize>() > 0, "the controller's log names no statement");
    Ok(counts)
}

async fn measure(
    platform: &Platform,
    calls: &[(&'static str, String)],
    counted: &[usize],
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (number, who) in WHO.into_iter().enumerate() {
        let client = Client::new(platform, who).await?;
        for (place, (call, path)) in calls.iter().enumerate() {
            for _ in 0..5 {
                client.call(path, None).await?;
            }
            let (mut times, start) = (Vec::new(), Instant::now());
            while start.elapsed() < SPAN || times.len() < 20 {
                times.push(client.call(path, None).await?);
            }
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
            let (all, start) = (std::sync::atomic::AtomicUsize::new(0), Instant::now());
            let together: Vec<_> = (0..CLIENTS)
                .map(|_| async {
                    while start.elapsed() < SPAN {
                        client.call(path, None).await?;
                        all.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
                .collect();
            futures::future::try_join_all(together).await?;
            let per_second = all.into_inner() as f64 / start.elapsed().as_secs_f64();
            let statements = counted[number * calls.len() + place];
            figures.push(Figure {
                call,
                who,
                statements,
                p50_us: u64::try_from(at(0.5))?,
                p99_us: u64::try_from(at(0.99))?,
                per_second,
            });
            eprintln!("{who} {call}: {statements} statements, {per_second:.0}/s");
        }
    }
    Ok(figures)
}
