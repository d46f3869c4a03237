//! From files on this machine to an app that answers: what `push`, `start`, `restart` and `restage` share.
//!
//! `changes` says what the manifest changes, `files` finds what belongs to the app, `archive` packs what the platform lacks,
//! `upload` sends it, `stage` builds it and shows how, `start` waits until it runs.

mod archive;
mod changes;
mod checkout;
mod deploy;
mod files;
mod last_lines;
mod old_version;
mod restore;
mod stage;
mod start;
mod upload;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Serialize;
use serde_json::json;

pub(crate) use deploy::{Deployed, NewVersion, Rollout, active_deployment, cancel, check, choose, deploy, follow};
pub use files::FilesError;
pub(crate) use files::check_path;
pub(crate) use old_version::old_version;
pub(crate) use restore::{DEPLOYING, Sizes, still_has};
pub(crate) use stage::{STAGING_IN_PROGRESS, cancel_build, stage};
use start::StartTimings;
pub(crate) use start::{Before, WaitFor, processes, wait_until_running};
pub(crate) use upload::Zip;

use crate::args::{PushArgs, Strategy};
use crate::client::views::{App, Route};
use crate::client::{Body, Client, ClientError, query};
use crate::commands::Session;
use crate::error::CliError;
use crate::manifest::{self, AppEntry};
use crate::under_way::Unfinished;

/// A push that went wrong on the platform.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The build failed.
    #[error("The build of '{app}' failed: {text}")]
    StagingFailed {
        /// The app.
        app: String,
        /// `NoAppDetectedError`, …
        id: String,
        /// The platform's words.
        text: String,
    },
    /// The build does not end.
    #[error("The build of '{app}' did not end within {minutes} minutes")]
    StagingTimeout {
        /// The app.
        app: String,
        /// How long it was waited for.
        minutes: u64,
    },
    /// There is nothing to start or to stage.
    #[error("Nothing was uploaded for '{app}' yet")]
    NotStaged {
        /// The app.
        app: String,
    },
    /// All instances crashed.
    #[error("'{app}' crashed: {reason}")]
    Crashed {
        /// The app.
        app: String,
        /// The platform's words.
        reason: String,
    },
    /// It neither runs nor crashes.
    #[error("'{app}' was not running after {minutes} minutes{state}")]
    StartTimeout {
        /// The app.
        app: String,
        /// How long it was waited for.
        minutes: u64,
        /// What its instances say.
        state: String,
    },
    /// No cell takes it.
    #[error("No instance of '{app}' could be placed: {reason}")]
    NotPlaced {
        /// The app.
        app: String,
        /// The platform's words.
        reason: String,
    },
    /// A new version was given up.
    #[error("The new version of '{app}' did not take over: {reason}.\n{old}")]
    NotTakenOver {
        /// The app.
        app: String,
        /// Why.
        reason: String,
        /// A sentence about the old version.
        old: String,
    },
    /// No deployment is under way.
    #[error("No deployment of '{app}' is under way")]
    NoDeployment {
        /// The app.
        app: String,
    },
    /// There is no such version.
    #[error("'{app}' has {what}")]
    NoRevision {
        /// The app.
        app: String,
        /// `no revision 7`, …
        what: String,
    },
    /// The upload failed, more than once.
    #[error("The upload of '{app}' failed after {tries} tries")]
    Upload {
        /// The app.
        app: String,
        /// How often it was tried.
        tries: u32,
        /// Why, the last time.
        source: ClientError,
    },
    /// The platform could not use the package.
    #[error("The platform could not use the files of '{app}': {reason}")]
    PackageFailed {
        /// The app.
        app: String,
        /// The platform's words.
        reason: String,
    },
    /// An app of the manifest is not there after the manifest was applied.
    #[error("'{app}' does not exist although its manifest was applied")]
    AppVanished {
        /// The app.
        app: String,
    },
}

/// How long each part took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Timings {
    /// Manifest, finding and hashing of files.
    pub(crate) prepare_ms: u64,
    /// Matching, packing and uploading.
    pub(crate) upload_ms: u64,
    /// The build.
    pub(crate) stage_ms: u64,
    /// From the end of the build until every instance has a cell; the restart of the app is in it.
    pub(crate) place_ms: u64,
    /// From then until every instance is healthy and ready.
    pub(crate) start_ms: u64,
    /// From then until every live router has acknowledged every instance.
    pub(crate) route_ms: u64,
    /// All of it.
    pub(crate) total_ms: u64,
}

/// What `push --json` prints for each app.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pushed {
    pub(crate) app: String,
    pub(crate) app_guid: String,
    pub(crate) package_guid: String,
    pub(crate) droplet_guid: Option<String>,
    /// The first of `urls`.
    pub(crate) url: Option<String>,
    pub(crate) urls: Vec<String>,
    pub(crate) uploaded_bytes: u64,
    /// `rolling`, `canary` or `recreate`; nothing when it was not started.
    pub(crate) strategy: Option<&'static str>,
    /// The step at which a canary waits, and how many there are.
    pub(crate) canary_step: Option<(u64, u64)>,
    pub(crate) timings: Timings,
    /// Its process types, when none of them wants an instance.
    #[serde(skip)]
    pub(crate) idle: Option<Vec<String>>,
}

/// Milliseconds since `begun`.
fn elapsed(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Pushes the apps that the flags and the manifest mean, one after the other.
pub(crate) async fn push(session: &Session, flags: &PushArgs) -> Result<Vec<Pushed>, CliError> {
    let begun = Instant::now();
    check(&flags.how)?;
    let directory = &session.environment.directory;
    if let Some(name) = flags.name.as_deref().filter(|name| *name == "." || name.contains('/'))
        && directory.join(name).is_dir()
    {
        return Err(CliError::Usage {
            message: format!("'{name}' is a directory, and `slipway push` takes the name of an app."),
            hint: format!("Write `slipway push -p {name}`, or `slipway push NAME -p {name}`."),
        });
    }
    let mut named = flags.clone();
    let manifest = match manifest::prepare(flags, directory) {
        Err(manifest::ManifestError::NoName) => {
            if let Some(path) = &flags.path {
                files::check_path(&directory.join(path))?;
            }
            named.name = Some(manifest::directory_name(&session.environment, flags.path.as_deref())?);
            manifest::prepare(&named, directory)?
        }
        other => other?,
    };
    for warning in &manifest.warnings {
        session.printer.warn(warning);
    }
    // A wrong path is told before anything is changed.
    for app in manifest.apps.iter().filter(|app| app.image.is_none()) {
        files::check_path(&app.path)?;
    }
    let space = session.space()?;
    let client = session.client()?;
    let mut there = HashMap::new();
    for entry in &manifest.apps {
        if let Some(app) = find(client, &space.guid, &entry.name).await? {
            there.insert(app.name.clone(), Sizes::of(client, &app).await?);
        }
    }
    let what = match manifest.apps.as_slice() {
        [one] if !there.contains_key(&one.name) => format!("'{}', a new app,", one.name),
        all => names(all),
    };
    session.printer.say(&format!("Pushing {what} to space '{}' …", space.name));
    // What has no files, or some that cannot be pushed, is told before there is anything to clean up.
    let mut sources = Vec::new();
    for entry in &manifest.apps {
        sources.push(match entry.image {
            Some(_) => None,
            None => Some(files::Source::find(&entry.path, &session.printer).await?),
        });
    }
    if !there.is_empty() {
        changes::tell(session, &space.guid, &manifest.yaml, &mut there).await;
    }
    let mut unmapped = Vec::new();
    for app in manifest.apps.iter().filter(|entry| entry.no_route).filter_map(|entry| there.get(&entry.name)) {
        unmapped.push((&app.app.name, own_routes(client, &app.app).await?));
    }
    session.under_way.expects(there.values().cloned().collect());
    let path = format!("/v3/spaces/{}/actions/apply_manifest", space.guid);
    let answer = client.send(Method::POST, &path, Body::Yaml(manifest.yaml)).await?;
    // The platform has its own words for a key that this program has warned of.
    let already_warned = |theirs: &str| {
        let key = manifest::key_of_warning(theirs);
        key.is_some() && manifest.warnings.iter().any(|ours| manifest::key_of_warning(ours) == key)
    };
    if let Err(error) = client.finish_without(&answer, already_warned).await {
        if !there.is_empty() {
            session.printer.say("The platform refuses this manifest; nothing was changed.");
        }
        session.under_way.expects(Vec::new());
        return Err(error);
    }
    for (app, routes) in unmapped.iter().filter(|(_, routes)| !routes.is_empty()) {
        let (lead, stay, removes) = match routes.as_slice() {
            [_] => ("leads", "The route stays in the space", "deletes it"),
            _ => ("lead", "The routes stay in the space", "deletes them"),
        };
        session.printer.say(&format!(
            "{} no longer {lead} to '{app}'. {stay}; `slipway delete-orphaned-routes` {removes}.",
            routes.join(", ")
        ));
    }
    for sizes in there.values_mut() {
        sizes.applied(client).await?;
    }
    session.under_way.expects(there.values().cloned().collect());
    let applied = elapsed(begun);
    let mut done = Vec::new();
    for (place, (entry, source)) in manifest.apps.iter().zip(sources).enumerate() {
        let app_begun = Instant::now();
        if manifest.apps.len() > 1 {
            session.printer.say(&format!("'{}' ({} of {}):", entry.name, place + 1, manifest.apps.len()));
        }
        let app = find(client, &space.guid, &entry.name).await?;
        let app = app.ok_or_else(|| PushError::AppVanished { app: entry.name.clone() })?;
        let sizes = there.get(&app.name);
        let first = sizes.is_none();
        let result = Box::pin(push_one(session, client, flags, (entry, source), &app, sizes)).await;
        // Once it is to be stopped for the new version, the new sizes are the right ones.
        if matches!(session.under_way.take(), Some(Unfinished::Asking { .. } | Unfinished::Starting { .. })) {
            session.under_way.done(&app);
        }
        if result.is_err() {
            session.under_way.set_back(session).await;
        }
        if result.is_err()
            && first
            && let Some(text) = what_stays(session, &app, "when it is corrected").await
        {
            session.printer.say_last(text);
        }
        if result.is_err() {
            let (old, new): (Vec<_>, Vec<_>) =
                manifest.apps[place + 1..].iter().partition(|entry| there.contains_key(&entry.name));
            left_out(&old, &new).iter().for_each(|text| session.printer.say(text));
        }
        let mut pushed = result?;
        session.under_way.done(&app);
        pushed.timings.prepare_ms += applied;
        pushed.timings.total_ms = elapsed(app_begun) + applied;
        done.push(pushed);
    }
    Ok(done)
}

/// The routes that lead to this app alone.
async fn own_routes(client: &Client, app: &App) -> Result<Vec<String>, CliError> {
    let routes: Vec<Route> = client.list_as(&format!("/v3/apps/{}/routes", app.guid)).await?;
    let own = routes.into_iter().filter(|route| route.destinations.iter().all(|to| to.app.guid == app.guid));
    Ok(own.map(|route| format!("'{}'", route.url)).collect())
}

async fn find(client: &Client, space: &str, name: &str) -> Result<Option<App>, CliError> {
    let found: Vec<App> = client.list_as(&query("/v3/apps", &[("names", name), ("space_guids", space)])).await?;
    Ok(found.into_iter().next())
}

/// Says what an interrupted first push has made, and how to be rid of it.
pub(crate) async fn left_behind(session: &Session, app: &App) {
    if let Some(text) = what_stays(session, app, "to go on").await {
        session.printer.say(&text);
    }
}

/// What a first push that did not end well has made, when to push `again`, and how to be rid of it.
async fn what_stays(session: &Session, app: &App, again: &str) -> Option<String> {
    let client = session.client().ok()?;
    // What cannot be looked up now is not worth another error.
    let urls = urls(client, app).await.unwrap_or_default();
    let routes = match urls.as_slice() {
        [] => String::new(),
        urls => format!(" with {}", urls.join(", ")),
    };
    Some(format!(
        "The app '{0}'{routes} was made by this push and stays. Push again {again}, or remove it: \
         `slipway delete {0} -r -f`",
        app.name
    ))
}

/// What is said of the apps of a manifest that come after one that failed: those that were there, and those that it made.
fn left_out(old: &[&AppEntry], new: &[&AppEntry]) -> Vec<String> {
    let quoted = |apps: &[&AppEntry]| apps.iter().map(|app| format!("'{}'", app.name)).collect::<Vec<_>>().join(", ");
    let were = |apps: &[&AppEntry]| if apps.len() == 1 { "was" } else { "were" };
    let mut said = Vec::new();
    if !old.is_empty() {
        said.push(format!("{} {} not pushed after this failure.", quoted(old), were(old)));
    }
    if !new.is_empty() {
        let remove: Vec<String> = new.iter().map(|app| format!("`slipway delete {} -r -f`", app.name)).collect();
        let made =
            if new.len() == 1 { "it was made, stays without files" } else { "they were made, stay without files" };
        said.push(format!(
            "{} {} not pushed after this failure; {made}. Push again, or remove: {}",
            quoted(new),
            were(new),
            remove.join(", ")
        ));
    }
    said
}

fn names(apps: &[AppEntry]) -> String {
    apps.iter().map(|app| format!("'{}'", app.name)).collect::<Vec<_>>().join(", ")
}

async fn push_one(
    session: &Session,
    client: &Client,
    flags: &PushArgs,
    (entry, source): (&AppEntry, Option<files::Source>),
    app: &App,
    sizes: Option<&Sizes>,
) -> Result<Pushed, CliError> {
    let first = sizes.is_none();
    let printer = &session.printer;
    let begun = Instant::now();
    session.under_way.begin(Unfinished::Uploading { app: app.clone(), first });
    let (package, uploaded_bytes) = match (&source, &entry.image) {
        (Some(source), _) => upload::files(client, printer, app, source).await?,
        (None, image) => (upload::image(client, app, image.as_deref().unwrap_or_default()).await?, 0),
    };
    let mut timings = Timings { upload_ms: elapsed(begun), ..Timings::default() };
    let mut pushed = Pushed {
        app: app.name.clone(),
        app_guid: app.guid.clone(),
        package_guid: package.clone(),
        droplet_guid: None,
        url: None,
        urls: Vec::new(),
        uploaded_bytes,
        strategy: None,
        canary_step: None,
        timings,
        idle: None,
    };
    if flags.no_start {
        if app.is_started() {
            client.send(Method::POST, &format!("/v3/apps/{}/actions/stop", app.guid), Body::None).await?;
        }
    } else {
        let staging = Instant::now();
        session.under_way.begin(Unfinished::Building { app: app.clone(), package: package.clone(), first });
        let droplet = stage(session, app, &package).await?;
        timings.stage_ms = elapsed(staging);
        let starting = Instant::now();
        let before = Before::of(client, app).await?;
        let strategy = choose(session, app, &flags.how, Strategy::Rolling, &before);
        let wait_for = if flags.no_wait { WaitFor::FirstOfWeb } else { WaitFor::All };
        let (phases, asked) = match strategy {
            Strategy::Recreate => {
                pushed.strategy = Some("recreate");
                assign_droplet(client, app, &droplet).await?;
                printer.say(&format!("Starting '{}' …", app.name));
                session.under_way.begin(Unfinished::Asking { app: app.clone(), first, sizes: None });
                client.send(Method::POST, &format!("/v3/apps/{}/actions/restart", app.guid), Body::None).await?;
                session.under_way.begin(Unfinished::Starting { app: app.clone(), first });
                let restarted = elapsed(starting);
                (wait_until_running(session, app, &before, wait_for).await?, restarted)
            }
            Strategy::Rolling | Strategy::Canary => {
                pushed.strategy = strategy.word();
                printer
                    .say(&format!("Replacing '{}' instance by instance; the old version serves meanwhile …", app.name));
                let asked = elapsed(starting);
                let rollout = Rollout { strategy, how: &flags.how, wanted: before.web_wanted(), wait_for, sizes };
                match deploy(session, app, NewVersion::Droplet(&droplet), &rollout).await? {
                    Deployed::Wholly(phases) => (phases, asked),
                    Deployed::AtStep(step, steps) => {
                        pushed.canary_step = Some((step, steps));
                        (StartTimings::default(), asked)
                    }
                }
            }
        };
        timings.place_ms = asked + phases.placed_ms;
        timings.start_ms = phases.ready_ms.saturating_sub(phases.placed_ms);
        timings.route_ms = phases.routed_ms.saturating_sub(phases.ready_ms);
        pushed.droplet_guid = Some(droplet);
        pushed.timings = timings;
    }
    if pushed.droplet_guid.is_some() && pushed.canary_step.is_none() {
        let all = processes(client, app).await?;
        pushed.idle = all
            .iter()
            .all(|process| process.instances == 0)
            .then(|| all.iter().map(|process| process.kind.clone()).collect());
    }
    let routes: Vec<Route> = client.list_as(&format!("/v3/apps/{}/routes", app.guid)).await?;
    tell_shared(session, client, app, &routes).await?;
    pushed.urls = routes.iter().map(|route| route_url(client, route)).collect();
    pushed.url = pushed.urls.first().cloned();
    Ok(pushed)
}

/// Warns of routes that lead to other apps as well, which is as easily a mistake as it is meant.
pub(crate) async fn tell_shared(
    session: &Session,
    client: &Client,
    app: &App,
    routes: &[Route],
) -> Result<(), CliError> {
    for route in routes {
        let others: HashSet<&str> =
            route.destinations.iter().map(|to| to.app.guid.as_str()).filter(|guid| *guid != app.guid).collect();
        if others.is_empty() {
            continue;
        }
        let guids: Vec<&str> = others.into_iter().collect();
        let found: Vec<App> = client.list_as(&query("/v3/apps", &[("guids", &guids.join(","))])).await?;
        let mut named: Vec<String> = found.iter().map(|other| format!("'{}'", other.name)).collect();
        named.sort_unstable();
        let named = if named.is_empty() { "an app of another space".to_owned() } else { named.join(", ") };
        session.printer.warn(&format!(
            "{} leads to {named} as well: requests are shared between them. `slipway unmap-route` takes it from one",
            route.url
        ));
    }
    Ok(())
}

/// Makes a droplet the one that the next start uses.
pub(crate) async fn assign_droplet(client: &Client, app: &App, droplet: &str) -> Result<(), CliError> {
    let path = format!("/v3/apps/{}/relationships/current_droplet", app.guid);
    client.send(Method::PATCH, &path, Body::Json(json!({ "data": { "guid": droplet } }))).await?;
    Ok(())
}

/// Where an app answers. Apps are reached at the same port as the API.
pub(crate) async fn urls(client: &Client, app: &App) -> Result<Vec<String>, CliError> {
    let routes: Vec<Route> = client.list_as(&format!("/v3/apps/{}/routes", app.guid)).await?;
    Ok(routes.iter().map(|route| route_url(client, route)).collect())
}

/// The address of a route, with the scheme and the port of the API.
pub(crate) fn route_url(client: &Client, route: &Route) -> String {
    let api = client.api();
    if route.protocol == "tcp" {
        return format!("tcp://{}", route.url);
    }
    // `port` is none when it is the scheme's own.
    let port = api.port().map(|port| format!(":{port}")).unwrap_or_default();
    let (host, path) = match route.url.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (route.url.as_str(), String::new()),
    };
    format!("{}://{host}{port}{path}", api.scheme())
}

/// A limit in minutes from the environment, as the `cf` command line reads it.
fn limit(session: &Session, variable: &str, default_minutes: u64) -> Duration {
    let minutes = session.environment.variable(variable).and_then(|text| text.parse::<f64>().ok());
    // Between a second and a week: neither ends the wait before it began nor overflows.
    let seconds = minutes.map_or(default_minutes as f64 * 60.0, |minutes| minutes * 60.0).clamp(1.0, 604_800.0);
    Duration::from_secs_f64(seconds)
}
