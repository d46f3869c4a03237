//! Replaces the running version by another one: instance by instance, or in steps. If the new version crashes, finds no
//! capacity or never becomes ready, the deployment is cancelled and the old version goes on.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::last_lines::show_last_lines;
use super::start::{Before, NO_ROOM, SILENCE, StartTimings, WaitFor, stats_of, still_waiting, summary};
use super::{PushError, Sizes, elapsed, limit, old_version};
use crate::args::{Strategy, StrategyArgs};
use crate::client::views::{App, Deployment, Stats};
use crate::client::{Body, Client, ClientError, query};
use crate::commands::Session;
use crate::error::{CliError, printable};
use crate::under_way::Unfinished;

/// Between two looks in the first [`EAGER`]: a warm start takes a fraction of a second.
const SHORT_PAUSE: Duration = Duration::from_millis(40);
/// Between two looks after that.
const PAUSE: Duration = Duration::from_millis(200);
/// For how long to look often.
const EAGER: Duration = Duration::from_secs(3);
/// How long a crashed instance may hold up others that run, before the new version counts as broken: a single one may have
/// died of its machine and come back.
const CRASH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a cancelled deployment is waited for. Its old instances serve all the while.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(30);

/// What takes over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewVersion<'a> {
    /// The app's droplet with its current settings.
    Current,
    /// A droplet.
    Droplet(&'a str),
    /// A revision.
    Revision(&'a str),
}

/// How a version is brought to an app that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rollout<'a> {
    /// Rolling or canary.
    pub(crate) strategy: Strategy,
    /// Its figures.
    pub(crate) how: &'a StrategyArgs,
    /// Web instances that are wanted.
    pub(crate) wanted: u32,
    /// What is waited for.
    pub(crate) wait_for: WaitFor,
    /// What a manifest has made of the app's sizes, for whoever gives the deployment up.
    pub(crate) sizes: Option<&'a Sizes>,
}

/// How a deployment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deployed {
    /// The new version has taken over.
    Wholly(StartTimings),
    /// A canary waits at a step of so many.
    AtStep(u64, u64),
}

/// Refuses flags that do not fit together.
pub(crate) fn check(how: &StrategyArgs) -> Result<(), CliError> {
    let usage = |message: &str, hint: &str| CliError::Usage { message: message.to_owned(), hint: hint.to_owned() };
    if !how.instance_steps.is_empty() && how.strategy != Some(Strategy::Canary) {
        return Err(usage(
            "--instance-steps are the steps of a canary.",
            "Add --strategy canary, or leave --instance-steps out.",
        ));
    }
    if let Some(pair) = how.instance_steps.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(usage(
            &format!("The step {} of --instance-steps is not larger than the {} before it.", pair[1], pair[0]),
            "Name growing percentages, such as --instance-steps 20,60.",
        ));
    }
    if how.max_in_flight.is_some() && how.strategy == Some(Strategy::Recreate) {
        return Err(usage(
            "--max-in-flight has no meaning when all instances are stopped first.",
            "Leave it out, or use --strategy rolling.",
        ));
    }
    Ok(())
}

/// The strategy that holds: nothing takes over from an app of which nothing runs.
pub(crate) fn choose(session: &Session, app: &App, how: &StrategyArgs, default: Strategy, before: &Before) -> Strategy {
    let wanted = how.strategy.unwrap_or(default);
    if wanted == Strategy::Recreate || before.web_runs() {
        return wanted;
    }
    if how.strategy.is_some() {
        let word = wanted.word().unwrap_or_default();
        session.printer.say(&format!(
            "No web instance of '{}' runs, so there is nothing to take over from: no {word} start.",
            app.name
        ));
    }
    Strategy::Recreate
}

/// Brings a version to an app that runs, and waits until it has taken over or a canary stands at a step.
pub(crate) async fn deploy(
    session: &Session,
    app: &App,
    bring: NewVersion<'_>,
    rollout: &Rollout<'_>,
) -> Result<Deployed, CliError> {
    let Rollout { strategy, how, wanted, wait_for, sizes } = *rollout;
    let client = session.client()?;
    let mut body = json!({
        "strategy": strategy.word().unwrap_or("rolling"),
        "relationships": { "app": { "data": { "guid": app.guid } } },
    });
    match bring {
        NewVersion::Current => {}
        NewVersion::Droplet(guid) => body["droplet"] = json!({ "guid": guid }),
        NewVersion::Revision(guid) => body["revision"] = json!({ "guid": guid }),
    }
    if let Some(count) = how.max_in_flight {
        body["options"]["max_in_flight"] = count.into();
    }
    if !how.instance_steps.is_empty() {
        let steps: Vec<Value> = how.instance_steps.iter().map(|weight| json!({ "instance_weight": weight })).collect();
        body["options"]["canary"] = json!({ "steps": steps });
    }
    session.under_way.begin(Unfinished::Deploying { app: app.clone(), begun: false });
    let earlier = active_deployment(client, app).await?;
    if let Some(waiting) = earlier.as_ref().filter(|one| one.status.reason == "PAUSED") {
        let (step, steps) = waiting.step();
        session.printer.say(&format!("The canary that waits at step {step} of {steps} is given up for this one."));
    }
    let sizes = match (sizes, &earlier) {
        (Some(sizes), Some(earlier)) => Some(sizes.after(earlier)),
        (None, Some(earlier)) => Sizes::noted(client, app, earlier).await?,
        (sizes, None) => sizes.cloned(),
    };
    if let Some(sizes) = &sizes {
        if matches!(bring, NewVersion::Revision(_)) {
            for (key, value) in sizes.rolled_back(session).await? {
                body["options"][key] = value;
            }
        }
        let annotations = sizes.annotation();
        if !annotations.is_empty() {
            body["metadata"]["annotations"] = annotations.into();
        }
    }
    let deployment: Deployment = client.send_json(Method::POST, "/v3/deployments", body).await?;
    if let Some(sizes) = sizes {
        session.under_way.expects_of(sizes);
    }
    follow(session, app, deployment, wanted, wait_for).await
}

/// Waits for a deployment that is under way.
pub(crate) async fn follow(
    session: &Session,
    app: &App,
    mut deployment: Deployment,
    wanted: u32,
    wait_for: WaitFor,
) -> Result<Deployed, CliError> {
    let client = session.client()?;
    session.under_way.begin(Unfinished::Deploying { app: app.clone(), begun: true });
    let path = format!("/v3/deployments/{}", deployment.guid);
    let begun = Instant::now();
    let mut watch = Watch::new(limit(session, "CF_STARTUP_TIMEOUT", 5));
    let mut timings = StartTimings::default();
    let (mut shown_state, mut spoke) = (String::new(), Instant::now());
    loop {
        match (deployment.status.value.as_str(), deployment.status.reason.as_str()) {
            ("FINALIZED", "DEPLOYED") => {
                session.under_way.end();
                timings.ends(elapsed(begun));
                return Ok(Deployed::Wholly(timings));
            }
            ("FINALIZED", reason) => {
                session.under_way.end();
                let reason = match reason {
                    "SUPERSEDED" => {
                        // The other one sets the sizes back when it fails.
                        session.under_way.done(app);
                        "another deployment has taken its place".to_owned()
                    }
                    "CANCELED" => "the deployment was cancelled".to_owned(),
                    other => format!("the deployment ended as {other}"),
                };
                let old = old_version(client, app, &deployment).await;
                return Err(PushError::NotTakenOver { app: app.name.clone(), reason, old }.into());
            }
            (_, "PAUSED") => {
                session.under_way.end();
                let (step, steps) = deployment.step();
                return Ok(Deployed::AtStep(step, steps));
            }
            _ => {}
        }
        let rows = rows(client, &deployment).await?;
        timings.note(&rows, wanted, &Before::default(), elapsed(begun));
        if wait_for == WaitFor::FirstOfWeb && rows.iter().any(|row| row.state == "RUNNING") {
            session.under_way.end();
            timings.ends(elapsed(begun));
            return Ok(Deployed::Wholly(timings));
        }
        let state = progress(&rows, wanted);
        // Waiting for room is told at once, as it may take long; one without a reason is a moment old.
        let waits = rows.iter().any(|row| row.state == "DOWN" && row.details.is_some());
        if state != shown_state && (waits || begun.elapsed() > Duration::from_secs(1)) {
            session.printer.say(&format!("   {state}"));
            (shown_state, spoke) = (state, Instant::now());
        }
        if spoke.elapsed() > SILENCE {
            session.printer.say(&still_waiting(app, begun));
            spoke = Instant::now();
        }
        if let Some(reason) = watch.verdict(&rows, Instant::now()) {
            show_last_lines(session, app).await;
            return Err(give_up(session, app, &deployment, reason).await?);
        }
        tokio::time::sleep(if begun.elapsed() < EAGER { SHORT_PAUSE } else { PAUSE }).await;
        deployment = client.get(&path).await?;
    }
}

/// The instances of the new version.
async fn rows(client: &Client, deployment: &Deployment) -> Result<Vec<Stats>, CliError> {
    let Some(process) = deployment.new_processes.first() else { return Ok(Vec::new()) };
    match stats_of(client, &process.guid).await {
        // Given up meanwhile: the deployment says so.
        Err(CliError::Client(error)) if error.has_status(404) => Ok(Vec::new()),
        other => other,
    }
}

/// `new version: 1 of 3 instances run, 1 starting`.
fn progress(rows: &[Stats], wanted: u32) -> String {
    let running = rows.iter().filter(|row| row.state == "RUNNING").count();
    let others: Vec<Stats> = rows.iter().filter(|row| row.state != "RUNNING").cloned().collect();
    let rest = if others.is_empty() { String::new() } else { format!(", {}", summary(&others)) };
    // Somebody may have scaled the app since.
    let wanted = rows.len().max(wanted as usize);
    format!("new version: {running} of {wanted} running{rest}")
}

/// Tells a deployment that goes on from one that will not end by itself.
struct Watch {
    wait_for: Duration,
    running: usize,
    moved: Instant,
    crashed_since: Option<Instant>,
    nowhere_since: Option<Instant>,
}

impl Watch {
    fn new(wait_for: Duration) -> Self {
        Self { wait_for, running: 0, moved: Instant::now(), crashed_since: None, nowhere_since: None }
    }

    /// Why it must be given up, if so.
    fn verdict(&mut self, rows: &[Stats], now: Instant) -> Option<String> {
        let reason = |is: fn(&Stats) -> bool| {
            let details = rows.iter().filter(|row| is(row)).find_map(|row| row.details.clone());
            printable(&details.unwrap_or_else(|| "the platform gave no reason".to_owned()))
        };
        let count = |is: fn(&Stats) -> bool| rows.iter().filter(|row| is(row)).count();
        let is_down = |row: &Stats| row.state == "DOWN";
        let (running, crashed, down) = (count(|row| row.state == "RUNNING"), count(Stats::has_crashed), count(is_down));
        if running > self.running {
            (self.running, self.moved) = (running, now);
            (self.crashed_since, self.nowhere_since) = (None, None);
        }
        if crashed > 0 {
            let since = *self.crashed_since.get_or_insert(now);
            if running == 0 || now - since > CRASH_TIMEOUT {
                return Some(format!("it crashed: {}", reason(Stats::has_crashed)));
            }
        }
        let stands = down > 0 && down + running == rows.len() && rows.iter().any(|row| row.details.is_some());
        if stands {
            let since = *self.nowhere_since.get_or_insert(now);
            if now - since > NO_ROOM {
                let why = reason(is_down);
                // More room would not help.
                if why.contains("the app's quota is") {
                    return Some(format!("no instance of it can run ({why})"));
                }
                return Some(format!(
                    "there is no room for it beside the old version ({why}); --strategy recreate stops the old one first"
                ));
            }
        } else {
            self.nowhere_since = None;
        }
        (now - self.moved > self.wait_for).then(|| {
            let minutes = self.wait_for.as_secs().div_ceil(60);
            format!("no new instance got ready within {minutes} minutes ({})", summary(rows))
        })
    }
}

/// Cancels a deployment and says how that went.
async fn give_up(session: &Session, app: &App, deployment: &Deployment, reason: String) -> Result<CliError, CliError> {
    session.printer.say(&format!("Giving the new version of '{}' up …", app.name));
    if let Err(error) = cancel(session, deployment).await {
        session.printer.warn(&format!(
            "the deployment could not be cancelled ({}); `slipway cancel-deployment {}` does it",
            slipway_chassis::errors::chain(&error),
            app.name
        ));
    }
    session.under_way.end();
    let old = old_version(session.client()?, app, deployment).await;
    Ok(PushError::NotTakenOver { app: app.name.clone(), reason, old }.into())
}

/// Cancels a deployment and waits a while until the old version is whole again.
pub(crate) async fn cancel(session: &Session, deployment: &Deployment) -> Result<(), CliError> {
    let client = session.client()?;
    let path = format!("/v3/deployments/{}", deployment.guid);
    client.send(Method::POST, &format!("{path}/actions/cancel"), Body::None).await?;
    let begun = Instant::now();
    while begun.elapsed() < CANCEL_TIMEOUT {
        let now: Deployment = client.get(&path).await?;
        if now.status.value == "FINALIZED" {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    session.printer.say("The old version is being brought back.");
    Ok(())
}

/// The deployment of an app that is under way.
pub(crate) async fn active_deployment(client: &Client, app: &App) -> Result<Option<Deployment>, ClientError> {
    let parameters = [
        ("app_guids", app.guid.as_str()),
        ("status_values", "ACTIVE"),
        ("order_by", "-created_at"),
        ("per_page", "1"),
        ("page", "1"),
    ];
    Ok(client.list_as(&query("/v3/deployments", &parameters)).await?.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, details: Option<&str>) -> Stats {
        serde_json::from_value(json!({ "index": 0, "state": state, "details": details })).expect("a row")
    }

    #[test]
    fn a_stuck_deployment_is_distinguished_from_a_slow_one() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let new = || Watch { moved: start, ..Watch::new(Duration::from_secs(300)) };
        let crashed = [row("CRASHED", Some("exit 3"))];
        assert_eq!(new().verdict(&crashed, after(1)).as_deref(), Some("it crashed: exit 3"));

        // One of several that crashes may come back, but not for ever.
        let mut watch = new();
        let mixed = [row("RUNNING", None), row("CRASHED", Some("exit 3"))];
        assert_eq!(watch.verdict(&mixed, after(1)), None);
        assert_eq!(watch.verdict(&mixed, after(20)), None);
        assert!(watch.verdict(&mixed, after(22)).is_some());

        // It starts again so soon that nobody sees it crashed.
        let mut again = row("STARTING", Some("exit 3"));
        assert_eq!(new().verdict(std::slice::from_ref(&again), after(1)), None);
        again.crashes = 1;
        assert_eq!(new().verdict(&[again], after(1)).as_deref(), Some("it crashed: exit 3"));

        let mut watch = new();
        let nowhere = [row("RUNNING", None), row("DOWN", Some("needs 64 MiB"))];
        assert_eq!(watch.verdict(&nowhere, after(1)), None);
        let text = watch.verdict(&nowhere, after(32)).expect("no room");
        assert!(text.contains("needs 64 MiB") && text.contains("--strategy recreate"), "{text}");

        // Each new instance gives the next one its time.
        let mut watch = new();
        let starting = [row("STARTING", None)];
        assert_eq!(watch.verdict(&starting, after(299)), None);
        assert_eq!(watch.verdict(&[row("RUNNING", None), row("STARTING", None)], after(300)), None);
        assert_eq!(watch.verdict(&[row("RUNNING", None), row("STARTING", None)], after(599)), None);
        let text = watch.verdict(&[row("RUNNING", None), row("STARTING", None)], after(601)).expect("stuck");
        assert!(text.contains("within 5 minutes"), "{text}");
    }

    #[test]
    fn progress_counts_the_new_instances() {
        assert_eq!(
            progress(&[row("RUNNING", None), row("STARTING", None)], 3),
            "new version: 1 of 3 running, 1 starting"
        );
        assert_eq!(progress(&[], 2), "new version: 0 of 2 running");
        let three = [row("RUNNING", None), row("RUNNING", None), row("RUNNING", None)];
        assert_eq!(progress(&three, 2), "new version: 3 of 3 running");
    }
}
