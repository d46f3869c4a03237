//! Builds a package and shows the build's output while it runs.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{PushError, limit};
use crate::client::logs::Tail;
use crate::client::views::{App, Build, Process};
use crate::client::{Body, Client, ClientError, query};
use crate::commands::Session;
use crate::error::{CliError, printable};

/// Between two looks at the build in the first [`EAGER`]: a warm build takes a fraction of a second.
const SHORT_PAUSE: Duration = Duration::from_millis(25);
/// Between two looks after that, and between two looks at its output, which is read by people.
const PAUSE: Duration = Duration::from_millis(120);
/// For how long to look often.
const EAGER: Duration = Duration::from_secs(3);
/// After so long without a word the build is said to go on.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the last lines of a build may take to arrive after it ended.
const LAST_LINES: Duration = Duration::from_millis(600);

/// Builds the package: the droplet's guid.
pub(crate) async fn stage(session: &Session, app: &App, package: &str) -> Result<String, CliError> {
    let client = session.client()?;
    session.printer.say(&format!("Building '{}' …", app.name));
    let mut lines = match Tail::from_now(client, &app.guid, Duration::ZERO).await {
        Ok(tail) => Lines { tail: Some(tail), session },
        Err(error) => {
            unreadable(session, &error);
            Lines { tail: None, session }
        }
    };
    let begun = Instant::now();
    let limit = limit(session, "CF_STAGING_TIMEOUT", 15);
    let mut build = begin(session, app, package).await?;
    let path = format!("/v3/builds/{}", build.guid);
    let mut shown = Instant::now();
    let mut spoke = Instant::now();
    let mut waits = String::new();
    while build.state == "STAGING" {
        // What it waits for is told at once: it may take long, and somebody can do something about it.
        if let Some(reason) = build.waits_for().filter(|reason| *reason != waits) {
            session.printer.say(&format!("   waiting: {}", printable(&reason)));
            (waits, spoke) = (reason, Instant::now());
        }
        if spoke.elapsed() > SILENCE {
            let what = if waits.is_empty() { "building" } else { "waiting" };
            session.printer.say(&format!("   still {what} after {} s", begun.elapsed().as_secs()));
            spoke = Instant::now();
        }
        if begun.elapsed() > limit {
            return Err(
                PushError::StagingTimeout { app: app.name.clone(), minutes: limit.as_secs().div_ceil(60) }.into()
            );
        }
        tokio::time::sleep(if begun.elapsed() < EAGER { SHORT_PAUSE } else { PAUSE }).await;
        if shown.elapsed() >= PAUSE {
            if lines.show(client).await > 0 {
                spoke = Instant::now();
            }
            shown = Instant::now();
        }
        build = client.get(&path).await?;
    }
    lines.show(client).await;
    match (build.state.as_str(), build.droplet) {
        ("STAGED", Some(droplet)) => Ok(droplet.guid),
        (state, _) => {
            // The reason is most often in the last lines, which are collected on another machine.
            let ended = Instant::now();
            while ended.elapsed() < LAST_LINES && lines.tail.is_some() {
                tokio::time::sleep(PAUSE).await;
                if lines.show(client).await == 0 {
                    break;
                }
            }
            let mut text = build.error.unwrap_or_else(|| format!("the build ended in state {state} without a reason"));
            let id = text.split([' ', ':']).next().unwrap_or_default().to_owned();
            // Cloud Foundry's code for the failure decides about the hint; it tells a person nothing.
            if let Some(rest) = text.strip_prefix(&format!("{id} - ")) {
                text = rest.to_owned();
            }
            if id == "InsufficientResources"
                && let Some(largest) = largest(client).await
            {
                text = format!("{text}. Most room is taken by {largest}");
            }
            Err(PushError::StagingFailed { app: app.name.clone(), id, text }.into())
        }
    }
}

/// The platform's code for a build that goes on already.
pub(crate) const STAGING_IN_PROGRESS: u32 = 170_017;
/// How often another build is ended to make room for this one: somebody may push as often.
const TRIES: u32 = 3;

/// Asks for the build. One that goes on already is ended: what it makes would be replaced by this one at once.
async fn begin(session: &Session, app: &App, package: &str) -> Result<Build, CliError> {
    let client = session.client()?;
    for _ in 1..TRIES {
        let body = json!({ "package": { "guid": package } });
        match client.send_json(Method::POST, "/v3/builds", body).await {
            Err(error) if error.has_code(STAGING_IN_PROGRESS) => {}
            other => return Ok(other?),
        }
        let open = query("/v3/builds", &[("app_guids", app.guid.as_str()), ("states", "STAGING")]);
        let open: Vec<Build> = client.list_as(&open).await?;
        for other in open {
            if cancel_build(client, &other.guid).await? {
                let by = printable(&other.created_by.name);
                let by = if by.is_empty() { String::new() } else { format!(" by '{by}'") };
                session.printer.say(&format!("   an earlier build{by} was under way; it is cancelled for this one"));
            }
        }
    }
    Ok(client.send_json(Method::POST, "/v3/builds", json!({ "package": { "guid": package } })).await?)
}

/// Ends a build; `false` when it had ended.
pub(crate) async fn cancel_build(client: &Client, guid: &str) -> Result<bool, CliError> {
    match client.send(Method::POST, &format!("/v3/builds/{guid}/actions/cancel"), Body::None).await {
        Ok(_) => Ok(true),
        Err(error) if error.has_status(422) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What takes most memory of all that the caller may see: `'shop' web 4 x 1024 MiB, 'crm' worker 512 MiB`. `None` when that
/// cannot be told.
async fn largest(client: &Client) -> Option<String> {
    let mut processes: Vec<Process> = client.list_as("/v3/processes?per_page=500").await.ok()?;
    processes.retain(|process| process.instances > 0);
    let size = |process: &Process| u64::from(process.instances).saturating_mul(process.memory_in_mb);
    processes.sort_by_key(|process| std::cmp::Reverse(size(process)));
    processes.truncate(3);
    let apps: Vec<&str> = processes.iter().filter_map(Process::app).collect();
    let apps: Vec<App> = client.list_as(&format!("/v3/apps?guids={}", apps.join(","))).await.ok()?;
    let descriptions: Vec<String> = processes
        .iter()
        .filter_map(|process| {
            let app = apps.iter().find(|app| Some(app.guid.as_str()) == process.app())?;
            let count = if process.instances > 1 { format!("{} x ", process.instances) } else { String::new() };
            Some(format!("'{}' {} {count}{} MiB", printable(&app.name), process.kind, process.memory_in_mb))
        })
        .collect();
    (!descriptions.is_empty()).then(|| descriptions.join(", "))
}

struct Lines<'a> {
    /// None after the logs could not be read: the build goes on without them.
    tail: Option<Tail>,
    session: &'a Session,
}

impl Lines<'_> {
    /// Shows what came since the last time; how many lines.
    async fn show(&mut self, client: &Client) -> usize {
        let Some(tail) = &mut self.tail else { return 0 };
        match tail.next(client).await {
            Ok(lines) => {
                let lines: Vec<_> = lines.into_iter().filter(|line| line.source.starts_with("STG")).collect();
                for line in &lines {
                    self.session.printer.say(&format!("   {}", printable(&line.text)));
                }
                lines.len()
            }
            Err(error) => {
                unreadable(self.session, &error);
                self.tail = None;
                0
            }
        }
    }
}

fn unreadable(session: &Session, error: &ClientError) {
    let cause = slipway_chassis::errors::chain(error).to_string();
    session.printer.warn(&format!("the output of the build cannot be shown: {cause}"));
}
