//! `apps`, `app`, `scale`, `delete`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value, json};
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};

use super::lifecycle::at_step;
use super::{Session, text};
use crate::args::{AppsArgs, DeleteArgs, ScaleArgs};
use crate::client::views::{App, Build, Deployment, Process, Route, Stats, decode};
use crate::client::{Body, query};
use crate::error::{CliError, printable};
use crate::push::{Before, WaitFor, active_deployment, processes, route_url, still_has, wait_until_running};
use crate::size::{human, parse_mib};
use crate::under_way::Unfinished;

/// Guids in one query: more would make its line too long for some proxies.
const GUIDS: usize = 200;

pub(super) async fn apps(session: &Session, args: AppsArgs) -> Result<(), CliError> {
    let (client, space) = (session.client()?, session.space()?);
    let path = query("/v3/apps", &[("order_by", "name"), ("per_page", "5000"), ("space_guids", &space.guid)]);
    let list = client.list(&path).await?;
    let guids: Vec<String> = list.iter().map(|app| text(app, "/guid")).collect();
    let mut counts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut routes: Vec<Route> = Vec::new();
    if !guids.is_empty() {
        if !args.no_stats {
            let path = query(
                "/v3/processes",
                &[("embed", "process_instances"), ("per_page", "5000"), ("space_guids", &space.guid)],
            );
            for process in client.list_as::<Process>(&path).await? {
                if let Some(app) = process.app().filter(|_| process.instances > 0 || process.kind == "web") {
                    let count = format!("{}:{}", process.kind, count_of_running(&process));
                    counts.entry(app.to_owned()).or_default().push(count);
                }
            }
        }
        for group in guids.chunks(GUIDS) {
            let path = query("/v3/routes", &[("app_guids", &group.join(",")), ("per_page", "5000")]);
            routes.extend(client.list_as::<Route>(&path).await?);
        }
    }
    let urls = |guid: &str| -> Vec<String> {
        let own = routes.iter().filter(|route| route.destinations.iter().any(|to| to.app.guid == guid));
        own.map(|route| route_url(client, route)).collect()
    };
    if session.printer.wants_json() {
        let all: Vec<Value> = list
            .into_iter()
            .map(|mut app| {
                let guid = text(&app, "/guid");
                app["processes"] = json!(counts.get(&guid));
                app["urls"] = json!(urls(&guid));
                app
            })
            .collect();
        return session.printer.json(&all);
    }
    let rows = list.iter().map(|app| {
        let guid = text(app, "/guid");
        let processes = counts.get(&guid).map(|all| all.join(", ")).unwrap_or_default();
        vec![text(app, "/name"), text(app, "/state").to_lowercase(), processes, urls(&guid).join(", ")]
    });
    let empty = "There are no apps in this space. Push one: `slipway push NAME`";
    session.printer.table(&["name", "state", "processes", "routes"], rows.collect(), empty)
}

/// `2/3`; of instances that crashed it is said: the app is started, and does not run. One that runs between two crashes is
/// no instance to rely on.
fn count_of_running(process: &Process) -> String {
    let of = |holds: fn(&Stats) -> bool| process.process_instances.iter().filter(|row| holds(row)).count();
    let (running, crashed) = (of(|row| row.state == "RUNNING"), of(Stats::has_crashed));
    let between = of(|row| row.state == "RUNNING" && row.crashes > 0);
    let said: Vec<String> = [(crashed, "crashed"), (between, "started again after a crash")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) };
    format!("{running}/{}{said}", process.instances)
}

/// One app with its processes, instances, routes and droplet.
pub(super) async fn app(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let (client, space) = (session.client()?, session.space()?);
    let found = session.app_or_default(name).await?;
    let deployment = active_deployment(client, &found).await?;
    let (whole, processes, routes, droplet) = futures::future::try_join4(
        client.get::<Value>(&format!("/v3/apps/{}", found.guid)),
        client.list(&format!("/v3/apps/{}/processes", found.guid)),
        client.list(&format!("/v3/apps/{}/routes", found.guid)),
        async {
            match client.get::<Value>(&format!("/v3/apps/{}/droplets/current", found.guid)).await {
                Err(error) if error.has_status(404) => Ok(Value::Null),
                other => other,
            }
        },
    )
    .await?;
    let mut shown = Vec::new();
    for process in processes {
        let path = format!("/v3/processes/{}", text(&process, "/guid"));
        let stats_path = format!("{path}/stats");
        // Commands are hidden in lists.
        let (process, stats): (Value, Value) =
            futures::future::try_join(client.get(&path), client.get(&stats_path)).await?;
        let mut rows = stats.get("resources").cloned().unwrap_or_default();
        if !found.is_started() && !session.printer.wants_json() {
            // Of an app that is stopped none is to run: a line for each would say nothing.
            rows = json!([]);
        }
        shown.push((process, rows));
    }
    let urls: Vec<String> = routes
        .iter()
        .map(|route| Ok(route_url(client, &decode::<Route>(route.clone(), "routes")?)))
        .collect::<Result<_, CliError>>()?;
    if session.printer.wants_json() {
        let processes: Vec<Value> = shown
            .into_iter()
            .map(|(mut process, rows)| {
                process["instances_detail"] = rows;
                process
            })
            .collect();
        return session
            .printer
            .json(&json!({ "app": whole, "processes": processes, "routes": routes, "urls": urls, "droplet": droplet,
                      "deployment": deployment.map(|one| one.guid) }));
    }
    let buildpacks: Vec<String> = droplet
        .get("buildpacks")
        .and_then(Value::as_array)
        .map(|all| all.iter().map(|one| format!("{} {}", text(one, "/name"), text(one, "/version"))).collect())
        .unwrap_or_default();
    let facts = [
        ("name", text(&whole, "/name")),
        ("state", describe_state(session, &found, &droplet, &shown).await),
        ("space", space.name.clone()),
        ("routes", urls.join(", ")),
        ("stack", text(&droplet, "/stack")),
        ("buildpacks", buildpacks.iter().map(|one| one.trim().to_owned()).collect::<Vec<_>>().join(", ")),
        ("built", text(&droplet, "/created_at")),
    ];
    let rows = facts.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    session.printer.table(&[], rows, "")?;
    if let Some(deployment) = &deployment {
        session.printer.data(&format!("\n{}", under_way(&found.name, deployment)))?;
    }
    let kinds: Vec<String> = shown.iter().map(|(process, _)| text(process, "/type")).collect();
    let mut crashes = false;
    for (process, rows) in &shown {
        let decoded: Process = decode(process.clone(), "processes")?;
        let stats: Vec<Stats> = decode(rows.clone(), "stats")?;
        let version = deployment.as_ref().map_or("", |deployment| version(deployment, &decoded, &kinds));
        session.printer.data(&format!(
            "\nprocess {}{version}: {} wanted, {} memory, {} disk",
            decoded.kind,
            decoded.instances,
            human(decoded.memory_in_mb << 20),
            human(decoded.disk_in_mb << 20)
        ))?;
        let command = text(process, "/command");
        if !command.is_empty() {
            session.printer.data(&format!("starts with: {}", printable(&command)))?;
        }
        if let Some(still) = deployment.as_ref().and_then(|deployment| still_has(deployment, &decoded)) {
            session.printer.data(&format!("still has, until its next start: {still}"))?;
        }
        if !stats.is_empty() {
            let header = ["", "state", "uptime", "cpu", "memory", "disk", "details"];
            session.printer.table(&header, stats.iter().map(instance_row).collect(), "")?;
        }
        crashes |= stats.iter().any(Stats::has_crashed);
    }
    if crashes {
        session.printer.say(&format!(
            "\nWhat crashes is started again: three times at once, then after 30 s, twice as long each time up to 16 min. \
             `slipway logs {} -n 50` shows its last lines.",
            found.name
        ));
    }
    Ok(())
}

/// `started`, or why an app is not. `processes` come with their start commands.
async fn describe_state(session: &Session, app: &App, droplet: &Value, processes: &[(Value, Value)]) -> String {
    if app.is_started() {
        return "started".to_owned();
    }
    if !droplet.is_null() {
        if processes.iter().all(|(process, _)| text(process, "/command").is_empty()) {
            return format!("stopped; it has no start command: `slipway push {} -c COMMAND`", app.name);
        }
        return format!("stopped; `slipway start {}` starts it", app.name);
    }
    let parameters = [("app_guids", app.guid.as_str()), ("order_by", "-created_at"), ("per_page", "1"), ("page", "1")];
    let Ok(client) = session.client() else { return "stopped".to_owned() };
    // What cannot be looked up is left out.
    let builds: Vec<Build> = client.list_as(&query("/v3/builds", &parameters)).await.unwrap_or_default();
    of_build(builds.first())
}

/// Of an app that has nothing to run, by its last build.
fn of_build(build: Option<&Build>) -> String {
    let Some(build) = build else { return "stopped; nothing of it is built yet".to_owned() };
    match (build.state.as_str(), &build.error) {
        ("STAGING", _) => "stopped; it is being built".to_owned(),
        ("FAILED", Some(error)) => {
            let reason = error.lines().next().unwrap_or_default();
            let reason =
                reason.split_once(" - ").filter(|(code, _)| !code.contains(' ')).map_or(reason, |(_, words)| words);
            format!("stopped; its last build failed: {}", printable(reason))
        }
        _ => "stopped; its last build is not in use".to_owned(),
    }
}

/// Which of two processes of a type this one is; nothing for a type that has one only.
fn version(deployment: &Deployment, process: &Process, kinds: &[String]) -> &'static str {
    if kinds.iter().filter(|kind| **kind == process.kind).count() < 2 {
        ""
    } else if deployment.new_processes.iter().any(|new| new.guid == process.guid) {
        " (new version)"
    } else {
        " (old version)"
    }
}

/// What a deployment does now, and what can be done about it.
fn under_way(app: &str, deployment: &Deployment) -> String {
    if deployment.status.reason == "PAUSED" {
        let (step, steps) = deployment.step();
        return at_step(app, step, steps);
    }
    let error = text(&deployment.status.details, "/error");
    let trouble = if error.is_empty() { String::new() } else { format!(" ({error})") };
    format!(
        "A {} deployment is under way: {}{trouble}. `slipway cancel-deployment {app}` gives it up.",
        deployment.strategy,
        deployment.status.reason.to_lowercase()
    )
}

fn instance_row(row: &Stats) -> Vec<String> {
    let usage = row.usage.clone().unwrap_or_default();
    let of = |used: u64, quota: Option<u64>| {
        quota.map_or_else(String::new, |quota| format!("{} of {}", human(used), human(quota)))
    };
    vec![
        format!("#{}", row.index),
        row.state.to_lowercase(),
        row.uptime.filter(|_| row.state == "RUNNING").map(|uptime| duration(uptime as u64)).unwrap_or_default(),
        format!("{:.1}%", usage.cpu * 100.0),
        of(usage.mem, row.mem_quota),
        of(usage.disk, row.disk_quota),
        details(row),
    ]
}

/// What is to be said of an instance; of one that crashed also how often in a row.
fn details(row: &Stats) -> String {
    let crashes = match row.crashes {
        0 => String::new(),
        count if row.state == "RUNNING" => format!("started again after crash {count} in a row"),
        count => format!("crash {count} in a row"),
    };
    let parts = [crashes, row.details.clone().unwrap_or_default()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// What is said of an app `web=2` that does not exist: Heroku and Dokku scale with such words.
fn no_pair(error: CliError) -> CliError {
    let pair = match &error {
        CliError::Missing { kind: "App", name, .. } => name.split_once('='),
        _ => None,
    };
    let Some((process, count)) = pair.filter(|(_, count)| count.parse::<u32>().is_ok()) else { return error };
    let hint = format!("Write `slipway scale APP -p {process} -i {count}`.");
    CliError::Usage { message: error.to_string(), hint }
}

pub(super) async fn scale(session: &Session, args: ScaleArgs) -> Result<(), CliError> {
    let memory = args.memory.as_deref().map(|text| parse_mib(text, LEAST_MEMORY_MB)).transpose()?;
    let disk = args.disk.as_deref().map(|text| parse_mib(text, LEAST_DISK_MB)).transpose()?;
    if args.instances.is_none() && memory.is_none() && disk.is_none() {
        return app(session, args.name).await.map_err(no_pair);
    }
    let client = session.client()?;
    let app = session.app_or_default(args.name).await.map_err(no_pair)?;
    let all = processes(client, &app).await?;
    let process = all.iter().find(|process| process.kind == args.process).ok_or_else(|| CliError::Missing {
        kind: "Process",
        name: args.process.clone(),
        place: format!(" in app '{}'", app.name),
    })?;
    let (name, kind) = (&app.name, &process.kind);
    let mut body = Map::new();
    let mut what = Vec::new();
    if let Some(count) = args.instances.filter(|count| *count != process.instances) {
        body.insert("instances".into(), count.into());
        what.push(count_of(count, "instance"));
    }
    let mut sizes = false;
    for (key, wanted, now, word) in
        [("memory_in_mb", memory, process.memory_in_mb, "memory"), ("disk_in_mb", disk, process.disk_in_mb, "disk")]
    {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != now) {
            body.insert(key.into(), wanted.into());
            what.push(format!("{} {word}", human(wanted << 20)));
            sizes = true;
        }
    }
    if body.is_empty() {
        session.printer.say(&format!("'{name}' ({kind}) is scaled like that already; nothing was done."));
        return Ok(());
    }
    let restarts = sizes && app.is_started();
    if restarts {
        session.confirm(args.force, &format!("This restarts '{name}'.")).await?;
    }
    let what = what.join(", ");
    let path = format!("/v3/apps/{}/processes/{kind}/actions/scale", app.guid);
    client.send(Method::POST, &path, Body::Json(Value::Object(body))).await?;
    if !app.is_started() {
        session.printer.say(&format!("'{name}' ({kind}) has {what}, from its next start on: `slipway start {name}`"));
        return Ok(());
    }
    let mut before = Before::default();
    if restarts {
        session.under_way.begin(Unfinished::Asking { app: app.clone(), first: false, sizes: Some(what.clone()) });
        session.printer.say(&format!("Restarting '{name}' …"));
        before = Before::of(client, &app).await?;
        // One request: an interrupt between two of them would leave the app stopped.
        client.send(Method::POST, &format!("/v3/apps/{}/actions/restart", app.guid), Body::None).await?;
    }
    session.under_way.begin(Unfinished::Starting { app: app.clone(), first: false });
    wait_until_running(session, &app, &before, WaitFor::All).await?;
    session.under_way.end();
    session.printer.say(&format!("'{name}' ({kind}) runs with {what}."));
    Ok(())
}

fn count_of(number: u32, what: &str) -> String {
    super::count(number as usize, what)
}

pub(super) async fn delete(session: &Session, args: DeleteArgs) -> Result<(), CliError> {
    let client = session.client()?;
    let app: App = match session.app(&args.name).await {
        // What shall be gone is gone: scripts may repeat the command.
        Err(CliError::Missing { name, place, .. }) => {
            session.printer.say(&format!("There is no app '{name}'{place}; nothing was done."));
            return Ok(());
        }
        other => other?,
    };
    let what = if args.routes { " and its routes" } else { "" };
    session.confirm(args.force, &format!("This deletes '{}'{what}.", app.name)).await?;
    let mut routes: Vec<Route> =
        client.list_as(&query("/v3/routes", &[("app_guids", app.guid.as_str()), ("per_page", "5000")])).await?;
    let mut left = Vec::new();
    if args.routes {
        let shared = routes.iter().find(|route| route.destinations.iter().any(|to| to.app.guid != app.guid));
        if let Some(route) = shared {
            return Err(CliError::RouteShared { url: route.url.clone() });
        }
    } else {
        left = std::mem::take(&mut routes);
    }
    let answer = client.send(Method::DELETE, &format!("/v3/apps/{}", app.guid), Body::None).await?;
    client.finish(&answer).await?;
    for route in &routes {
        match client.send(Method::DELETE, &format!("/v3/routes/{}", route.guid), Body::None).await {
            Err(error) if error.has_status(404) => {}
            other => client.finish(&other?).await?,
        }
    }
    let written = |all: &[Route]| all.iter().map(|route| format!("'{}'", route.url)).collect::<Vec<_>>().join(", ");
    let with = if routes.is_empty() { String::new() } else { format!(" with {}", written(&routes)) };
    let (verb, remove) = if left.len() == 1 { ("route stays", "it") } else { ("routes stay", "them") };
    let stay = match left.is_empty() {
        true => String::new(),
        false => format!(
            " Its {verb}: {}; `slipway delete-orphaned-routes` removes {remove} when no app is left there.",
            written(&left)
        ),
    };
    session.printer.say(&format!("'{}' is deleted{with}.{stay}", app.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashed_instances_are_counted_beside_running_ones() {
        let rows = |states: &[&str]| -> Process {
            let rows: Vec<Value> = states.iter().map(|state| json!({ "index": 0, "state": state })).collect();
            serde_json::from_value(json!({ "guid": "p", "type": "web", "instances": 3, "process_instances": rows }))
                .expect("a process")
        };
        assert_eq!(count_of_running(&rows(&["RUNNING", "STARTING"])), "1/3");
        assert_eq!(count_of_running(&rows(&["RUNNING", "CRASHED", "CRASHED"])), "1/3 (2 crashed)");
        let mut looping = rows(&["RUNNING", "STARTING"]);
        looping.process_instances.iter_mut().for_each(|row| row.crashes = 4);
        assert_eq!(count_of_running(&looping), "1/3 (1 crashed, 1 started again after a crash)");
    }

    #[test]
    fn an_app_that_never_ran_says_why() {
        let build = |value: Value| -> Build { serde_json::from_value(value).expect("a build") };
        let failed = build(json!({ "guid": "b", "state": "FAILED",
            "error": "BuildpackCompileFailed - The command `npm ci` failed: exit status 1.\nnpm error code E404" }));
        assert_eq!(
            of_build(Some(&failed)),
            "stopped; its last build failed: The command `npm ci` failed: exit status 1."
        );
        let plain = build(json!({ "guid": "b", "state": "FAILED", "error": "It is over - for good" }));
        assert_eq!(of_build(Some(&plain)), "stopped; its last build failed: It is over - for good");
        assert_eq!(of_build(Some(&build(json!({ "guid": "b", "state": "STAGING" })))), "stopped; it is being built");
        assert_eq!(of_build(None), "stopped; nothing of it is built yet");
    }

    #[test]
    fn an_instance_says_how_often_it_crashed() {
        let row = |value: Value| -> Stats { serde_json::from_value(value).expect("a row") };
        assert_eq!(details(&row(json!({ "crashes": 4, "details": "exit 3" }))), "crash 4 in a row: exit 3");
        assert_eq!(details(&row(json!({ "details": "fetching" }))), "fetching");
        let runs = row(json!({ "crashes": 2, "state": "RUNNING" }));
        assert_eq!(details(&runs), "started again after crash 2 in a row");
        assert_eq!(details(&row(json!({}))), "");
    }
}
