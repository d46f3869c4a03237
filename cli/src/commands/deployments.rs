//! `revisions`, `rollback`, `cancel-deployment`, `continue-deployment`.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::Value;

use super::{Session, lifecycle, text};
use crate::args::{RollbackArgs, Strategy, StrategyArgs};
use crate::client::views::{App, Deployment, Process, Revision};
use crate::client::{Body, ClientError, query};
use crate::error::CliError;
use crate::push::{self, Before, NewVersion, PushError, Rollout, Sizes, WaitFor, active_deployment, follow};

/// Guids of revisions, as far as more is known of them than they say themselves.
#[derive(Debug, Default)]
struct RevisionOutcomes {
    /// They run.
    running: HashSet<String>,
    /// They were to take over, and never did. Of a start, as opposed to a deployment, only the revision itself tells, and
    /// on Cloud Foundry nothing does.
    failed: HashSet<String>,
}

impl RevisionOutcomes {
    fn of(list: &[Value], running: &[Value], deployments: &[Value]) -> Self {
        let running: HashSet<String> = running.iter().map(|one| text(one, "/guid")).collect();
        let ended = |as_it_should: bool| {
            deployments
                .iter()
                .filter(move |one| text(one, "/status/value") == "FINALIZED")
                .filter(move |one| (text(one, "/status/reason") == "DEPLOYED") == as_it_should)
                .map(|one| text(one, "/revision/guid"))
                .collect::<HashSet<String>>()
        };
        let served = ended(true);
        let never_ran = list.iter().filter(|one| one["served"] == false).map(|one| text(one, "/guid"));
        let failed = ended(false).into_iter().filter(|guid| !served.contains(guid)).chain(never_ran);
        Self { failed: failed.filter(|guid| !running.contains(guid)).collect(), running }
    }
}

/// The revisions of an app, newest first, and what became of them.
async fn all(session: &Session, app: &App) -> Result<(Vec<Value>, RevisionOutcomes), CliError> {
    let client = session.client()?;
    let path = format!("/v3/apps/{}/revisions", app.guid);
    let newest_first = query(&path, &[("order_by", "-created_at"), ("per_page", "200")]);
    let deployments = query("/v3/deployments", &[("app_guids", app.guid.as_str()), ("per_page", "200")]);
    let (list, running, deployments) = futures::future::try_join3(
        client.list(&newest_first),
        client.list(&format!("{path}/deployed")),
        client.list(&deployments),
    )
    .await?;
    let outcomes = RevisionOutcomes::of(&list, &running, &deployments);
    Ok((list, outcomes))
}

/// What changed, without Cloud Foundry's word for what a build makes.
fn describe(description: &str) -> String {
    description.replace("New droplet deployed.", "New build deployed.")
}

pub(super) async fn revisions(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let app = session.app_or_default(name).await?;
    let (list, outcomes) = all(session, &app).await?;
    let row = |revision: &Value| {
        let guid = text(revision, "/guid");
        let state = match () {
            () if text(revision, "/deployable") == "false" => "files deleted",
            () if outcomes.running.contains(&guid) => "runs",
            () if outcomes.failed.contains(&guid) => "did not take over",
            () => "",
        };
        vec![
            text(revision, "/version"),
            state.to_owned(),
            text(revision, "/created_at"),
            describe(&text(revision, "/description")),
        ]
    };
    session.show(list, &["revision", "state", "created", "what changed"], row, "There are no revisions of it yet.")
}

/// What is said of an app `v12` that does not exist: Heroku names the version so.
fn no_number(error: CliError) -> CliError {
    let number = match &error {
        CliError::Missing { kind: "App", name, .. } => name.trim_start_matches('v').parse::<u64>().ok(),
        _ => None,
    };
    let Some(number) = number else { return error };
    let hint = format!("Write `slipway rollback APP --revision {number}`.");
    CliError::Usage { message: error.to_string(), hint }
}

pub(super) async fn rollback(session: &Session, args: RollbackArgs) -> Result<(), CliError> {
    push::check(&args.how)?;
    let app = session.app_or_default(args.name).await.map_err(no_number)?;
    let (list, mut outcomes) = all(session, &app).await?;
    let list: Vec<Revision> =
        list.into_iter().map(|one| crate::client::views::decode(one, "revisions")).collect::<Result<_, _>>()?;
    loop {
        let revision = find(&app, &list, &outcomes, args.revision)?;
        match bring_back(session, &app, revision, &outcomes, args.how.clone()).await {
            // A restart makes a revision as well: nothing differs between the two. The platform compares with the newest one.
            Err(error) if args.revision.is_none() && newest_runs(&list, &outcomes) && is_the_same(&error) => {
                session.printer.say(&format!(
                    "Revision {} is the same as what runs: going to the one before it.",
                    revision.version
                ));
                outcomes.failed.insert(revision.guid.clone());
            }
            other => return other,
        }
    }
}

fn newest_runs(list: &[Revision], outcomes: &RevisionOutcomes) -> bool {
    list.iter().max_by_key(|one| one.version).is_some_and(|newest| outcomes.running.contains(&newest.guid))
}

/// Whether the platform refuses a rollback because nothing would change.
fn is_the_same(error: &CliError) -> bool {
    let CliError::Client(ClientError::Refused { errors, .. }) = error else { return false };
    errors.iter().any(|entry| entry.detail.starts_with("Unable to rollback"))
}

async fn bring_back(
    session: &Session,
    app: &App,
    revision: &Revision,
    outcomes: &RevisionOutcomes,
    mut how: StrategyArgs,
) -> Result<(), CliError> {
    if outcomes.failed.contains(&revision.guid) {
        session.printer.warn(&format!("revision {} did not take over when it was pushed", revision.version));
    }
    let before = Before::of(session.client()?, app).await?;
    // A stopped app takes the revision by a deployment as well: there is no other way to it.
    let strategy = how.strategy.filter(|strategy| *strategy != Strategy::Recreate).unwrap_or(Strategy::Rolling);
    how.strategy = Some(strategy);
    let what =
        if revision.description.is_empty() { String::new() } else { format!(" ({})", describe(&revision.description)) };
    session.printer.say(&format!(
        "Bringing revision {} of '{}' back{what}, with the environment variables that it had.",
        revision.version, app.name
    ));
    let rollout = Rollout { strategy, how: &how, wanted: before.web_wanted(), wait_for: WaitFor::All, sizes: None };
    if app.is_started() {
        return lifecycle::replace(session, app, NewVersion::Revision(&revision.guid), &before, &rollout).await;
    }
    push::deploy(session, app, NewVersion::Revision(&revision.guid), &rollout).await?;
    lifecycle::settle(session, &session.app(&app.name).await?, &before).await
}

/// The version that one is a copy of, if a rollback made it: what lies between the two was left, and is not gone back to.
fn origin(list: &[Revision], version: u64) -> u64 {
    let of = list.iter().find(|one| one.version == version).and_then(|one| {
        let (_, number) = one.description.split_once("Rolled back to revision ")?;
        let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
        digits.parse().ok().filter(|earlier| *earlier < version)
    });
    of.map_or(version, |earlier| origin(list, earlier))
}

/// The revision that is meant: the one with this number, else the newest one before those that run of which nobody knows
/// that it failed.
fn find<'a>(
    app: &App,
    list: &'a [Revision],
    outcomes: &RevisionOutcomes,
    wanted: Option<u64>,
) -> Result<&'a Revision, PushError> {
    let missing = |what: String| PushError::NoRevision { app: app.name.clone(), what };
    let Some(wanted) = wanted else {
        let newest = list.iter().filter(|one| outcomes.running.contains(&one.guid)).map(|one| one.version).max();
        // Of an app that never ran, the newest one is what the next start brings.
        let newest = newest.or_else(|| list.iter().map(|one| one.version).max()).unwrap_or_default();
        let newest = origin(list, newest);
        let earlier = list.iter().filter(|one| one.version < newest && one.deployable);
        return earlier
            .filter(|one| !outcomes.failed.contains(&one.guid))
            .max_by_key(|one| one.version)
            .ok_or_else(|| missing("no earlier version that served and could be brought back".to_owned()));
    };
    let found =
        list.iter().find(|one| one.version == wanted).ok_or_else(|| missing(format!("no revision {wanted}")))?;
    if found.deployable {
        Ok(found)
    } else {
        Err(missing(format!("a revision {wanted}, but its files are gone, as only those of the newest are kept")))
    }
}

async fn active(session: &Session, name: Option<String>) -> Result<(App, Deployment), CliError> {
    let app = session.app_or_default(name).await?;
    let found = active_deployment(session.client()?, &app).await?;
    let found = found.ok_or_else(|| PushError::NoDeployment { app: app.name.clone() })?;
    Ok((app, found))
}

pub(super) async fn cancel(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let (app, deployment) = active(session, name).await?;
    push::cancel(session, &deployment).await?;
    let what = if deployment.strategy.is_empty() { "new version" } else { deployment.strategy.as_str() };
    let client = session.client()?;
    let old = push::old_version(client, &app, &deployment).await;
    session.printer.say(&format!("The {what} deployment of '{}' is given up. {old}", app.name));
    if let Some(sizes) = Sizes::noted(client, &app, &deployment).await? {
        sizes.set_back(session).await?;
    }
    Ok(())
}

pub(super) async fn proceed(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let (app, deployment) = active(session, name).await?;
    let client = session.client()?;
    let wanted = wanted(&push::processes(client, &app).await?);
    if deployment.status.reason == "PAUSED" {
        client.send(Method::POST, &format!("/v3/deployments/{}/actions/continue", deployment.guid), Body::None).await?;
        session.printer.say(&format!("The canary of '{}' goes on …", app.name));
    } else {
        session.printer.say(&format!("The deployment of '{}' is not waiting; following it …", app.name));
    }
    let now: Deployment = client.get(&format!("/v3/deployments/{}", deployment.guid)).await?;
    if let Some(sizes) = Sizes::noted(client, &app, &now).await? {
        session.under_way.expects_of(sizes);
    }
    let done = follow(session, &app, now, wanted, WaitFor::All).await;
    if done.is_err() {
        session.under_way.set_back(session).await;
    }
    session.under_way.done(&app);
    lifecycle::deployed(session, &app, done?, lifecycle::NEW_VERSION).await
}

/// Web instances that a canary that stands at a step ends with. Beside what it has replaced there is one more than are
/// wanted, until nothing of the old version is left.
fn wanted(processes: &[Process]) -> u32 {
    let web: Vec<u32> =
        processes.iter().filter(|one| one.kind == "web" && one.instances > 0).map(|one| one.instances).collect();
    let all: u32 = web.iter().sum();
    if web.len() > 1 { all - 1 } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(version: u64, deployable: bool) -> Revision {
        Revision { guid: format!("r-{version}"), version, description: String::new(), deployable }
    }

    #[test]
    fn the_platform_is_asked_what_equals_the_newest_only_while_that_one_runs() {
        let list = [revision(5, true), revision(4, true)];
        let running =
            |guid: &str| RevisionOutcomes { running: HashSet::from([guid.to_owned()]), ..RevisionOutcomes::default() };
        assert!(newest_runs(&list, &running("r-5")));
        assert!(!newest_runs(&list, &running("r-4")), "what equals 5 may be what to go back to");
        assert!(!newest_runs(&list, &RevisionOutcomes::default()) && !newest_runs(&[], &running("r-5")));
    }

    #[test]
    fn a_rollback_goes_to_the_version_before_the_one_that_runs() {
        let app: App =
            serde_json::from_value(serde_json::json!({ "guid": "a", "name": "web", "state": "STARTED" })).expect("app");
        let list = [revision(5, true), revision(4, true), revision(3, false), revision(2, true), revision(1, true)];
        let running =
            |guid: &str| RevisionOutcomes { running: HashSet::from([guid.to_owned()]), ..RevisionOutcomes::default() };
        let version =
            |outcomes: &RevisionOutcomes, wanted| find(&app, &list, outcomes, wanted).map(|found| found.version);
        assert_eq!(version(&running("r-5"), None).expect("found"), 4);
        assert_eq!(version(&running("r-4"), None).expect("found"), 2, "3 cannot be brought back");
        assert_eq!(version(&RevisionOutcomes::default(), None).expect("found"), 4);
        assert_eq!(version(&running("r-5"), Some(1)).expect("found"), 1);
        let failed = |guids: &[&str]| RevisionOutcomes {
            failed: guids.iter().map(|guid| (*guid).to_owned()).collect(),
            ..running("r-5")
        };
        assert_eq!(version(&failed(&["r-4"]), None).expect("found"), 2, "4 never served");
        assert_eq!(version(&failed(&["r-4"]), Some(4)).expect("found"), 4, "it is asked for");
        let back = |version, to| Revision {
            description: format!("New environment variables deployed. Rolled back to revision {to}."),
            ..revision(version, true)
        };
        let twice =
            [back(8, 5), revision(7, true), back(6, 4), revision(5, true), revision(4, true), revision(3, true)];
        let from = |guid| find(&app, &twice, &running(guid), None).map(|found| found.version);
        assert_eq!(from("r-8").expect("found"), 4, "7 was fled");
        assert_eq!(from("r-7").expect("found"), 6);
        assert_eq!(from("r-6").expect("found"), 3, "5 was fled");
        for (running, wanted, part) in [
            (running("r-1"), None, "no earlier version"),
            (failed(&["r-4", "r-2", "r-1"]), None, "no earlier version that served"),
            (running("r-5"), Some(3), "files are gone"),
            (running("r-5"), Some(9), "no revision 9"),
        ] {
            let error = version(&running, wanted).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_canary_ends_with_as_many_as_before() {
        let process = |kind: &str, instances: u32| -> Process {
            serde_json::from_value(serde_json::json!({ "guid": "p", "type": kind, "instances": instances }))
                .expect("one")
        };
        assert_eq!(wanted(&[process("web", 3), process("web", 1), process("worker", 2)]), 3);
        assert_eq!(wanted(&[process("web", 2), process("web", 2)]), 3);
        assert_eq!(wanted(&[process("web", 0), process("web", 3)]), 3);
    }

    #[test]
    fn a_revision_failed_when_no_deployment_of_it_reached_its_end_or_it_never_served() {
        let deployment = |revision: &str, value: &str, reason: &str| serde_json::json!({ "revision": { "guid": revision }, "status": { "value": value, "reason": reason } });
        let deployments = [
            deployment("good", "FINALIZED", "DEPLOYED"),
            deployment("bad", "FINALIZED", "CANCELED"),
            deployment("second try", "FINALIZED", "SUPERSEDED"),
            deployment("second try", "FINALIZED", "DEPLOYED"),
            deployment("on its way", "ACTIVE", "DEPLOYING"),
            deployment("restarted since", "FINALIZED", "CANCELED"),
        ];
        let list = [
            serde_json::json!({ "guid": "crashed at every start", "served": false }),
            serde_json::json!({ "guid": "starts now", "served": false }),
            serde_json::json!({ "guid": "good", "served": true }),
            serde_json::json!({ "guid": "nobody knows" }),
        ];
        let running = ["restarted since", "starts now"].map(|guid| serde_json::json!({ "guid": guid }));
        let outcomes = RevisionOutcomes::of(&list, &running, &deployments);
        assert_eq!(outcomes.failed, HashSet::from(["bad", "crashed at every start"].map(str::to_owned)));
    }
}
