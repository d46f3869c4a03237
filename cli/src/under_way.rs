//! What a command has begun on the platform and not ended yet, so that whoever interrupts it is told what becomes of it and
//! nothing is left half done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;

use crate::client::views::{App, Build, Deployment};
use crate::client::{Body, Client, query};
use crate::commands::Session;
use crate::error::CliError;
use crate::push::{self, Sizes, active_deployment, left_behind};

/// Something that goes on without this program.
#[derive(Clone, Debug)]
pub(crate) enum Unfinished {
    /// Files are on their way; nothing of them is in use.
    Uploading {
        /// The app.
        app: App,
        /// Whether this push made it.
        first: bool,
    },
    /// A build. What it makes is used by nobody.
    Building {
        /// The app.
        app: App,
        /// What is built.
        package: String,
        /// Whether this push made it.
        first: bool,
    },
    /// Another version takes over, and would go on doing so.
    Deploying {
        /// The app.
        app: App,
        /// Whether the platform has said that it began.
        begun: bool,
    },
    /// The app is to start or restart, and the platform has not confirmed it.
    Asking {
        /// The app.
        app: App,
        /// Whether this push made it.
        first: bool,
        /// New sizes that it has from its next start on.
        sizes: Option<String>,
    },
    /// The app starts.
    Starting {
        /// The app.
        app: App,
        /// Whether this push made it.
        first: bool,
    },
    /// A task whose output is shown.
    Task {
        /// The app.
        app: App,
        /// The task.
        guid: String,
        /// Its number.
        sequence: u64,
    },
}

/// Where a command notes what it has begun.
#[derive(Clone, Default)]
pub(crate) struct UnderWay {
    unfinished: Arc<Mutex<Option<Unfinished>>>,
    /// The sizes that apps have again when their new versions do not take over.
    before: Arc<Mutex<Vec<Sizes>>>,
}

impl UnderWay {
    /// Notes what goes on now, in place of what went on before.
    pub(crate) fn begin(&self, unfinished: Unfinished) {
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = Some(unfinished);
    }

    /// Notes what apps were like before they were changed.
    pub(crate) fn expects(&self, before: Vec<Sizes>) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = before;
    }

    /// Notes what one app was like before, in place of what was noted of it.
    pub(crate) fn expects_of(&self, sizes: Sizes) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.retain(|other| other.app.guid != sizes.app.guid);
        before.push(sizes);
    }

    /// Whether something is to be set back when the command is interrupted.
    pub(crate) fn has_changed(&self) -> bool {
        !self.before.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The new sizes of an app are the right ones from now on.
    pub(crate) fn done(&self, app: &App) {
        self.before.lock().unwrap_or_else(PoisonError::into_inner).retain(|sizes| sizes.app.guid != app.guid);
    }

    /// Sets back the sizes of the apps that are not done.
    pub(crate) async fn set_back(&self, session: &Session) {
        let all = std::mem::take(&mut *self.before.lock().unwrap_or_else(PoisonError::into_inner));
        for sizes in all {
            // What is told of the rest does not depend on it.
            let _ = sizes.set_back(session).await;
        }
    }

    /// Notes that nothing goes on any more.
    pub(crate) fn end(&self) {
        self.take();
    }

    /// What goes on, which is then no longer noted.
    pub(crate) fn take(&self) -> Option<Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The rest of a sentence about an app that runs what it ran. One that is being pushed for the first time was nothing.
fn runs_on(app: &App, first: bool) -> String {
    if first { ".".to_owned() } else { format!(", '{}' has the files that it had before, if any.", app.name) }
}

/// Ends what an interrupted command has begun, or says that it goes on and how to look.
pub(crate) async fn clean_up(unfinished: Option<Unfinished>, session: &Session) -> Result<(), CliError> {
    if let Some(unfinished) = unfinished {
        end(unfinished, session).await?;
    }
    session.under_way.set_back(session).await;
    Ok(())
}

async fn end(unfinished: Unfinished, session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    let printer = &session.printer;
    match unfinished {
        Unfinished::Uploading { app, first } => {
            printer.say(&format!("Interrupted: nothing of the upload is used{}", runs_on(&app, first)));
            if first {
                left_behind(session, &app).await;
            }
        }
        Unfinished::Building { app, package, first } => {
            let what =
                if cancel_build(client, &package).await? { "the build is cancelled" } else { "no build is under way" };
            printer.say(&format!("Interrupted: {what}{}", runs_on(&app, first)));
            if first {
                left_behind(session, &app).await;
            }
        }
        Unfinished::Deploying { app, begun } => match asked_for(client, &app, begun).await? {
            Some(active) => {
                let path = format!("/v3/deployments/{}/actions/cancel", active.guid);
                client.send(Method::POST, &path, Body::None).await?;
                // Until it has ended, its numbers of instances are not the app's.
                for _ in 0..CANCEL_LOOKS {
                    let now: Deployment = client.get(&format!("/v3/deployments/{}", active.guid)).await?;
                    if now.status.value == "FINALIZED" {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                let old = push::old_version(client, &app, &active).await;
                printer.say(&format!("Interrupted: the deployment of '{}' is cancelled. {old}", app.name));
            }
            None if begun => {
                session.under_way.done(&app);
                printer.say(&format!(
                    "Interrupted, but the deployment had just ended. `slipway app {}` shows what runs.",
                    app.name
                ));
            }
            None => {
                printer.say(&format!("Interrupted before the deployment of '{}' began: what ran goes on.", app.name));
            }
        },
        Unfinished::Asking { app, first, sizes } => {
            session.under_way.done(&app);
            let name = &app.name;
            printer.say(&match sizes {
                Some(sizes) => format!(
                    "Interrupted before the platform confirmed the restart of '{name}': it has {sizes} from its next start \
                     on. `slipway restart {name}` restarts it, `slipway app {name}` shows what runs."
                ),
                None => format!(
                    "Interrupted before the platform confirmed the start of '{name}'. `slipway app {name}` shows whether it \
                     starts, `slipway restart {name}` starts it."
                ),
            });
            if first {
                left_behind(session, &app).await;
            }
        }
        Unfinished::Starting { app, first } => {
            session.under_way.done(&app);
            printer.say(&format!(
                "Interrupted: '{0}' goes on starting. `slipway app {0}` shows how far it is, `slipway stop {0}` ends it.",
                app.name
            ));
            if first {
                left_behind(session, &app).await;
            }
        }
        Unfinished::Task { app, guid, sequence } => {
            client.send(Method::PUT, &format!("/v3/tasks/{guid}/cancel"), Body::None).await?;
            printer.say(&format!("Interrupted: task {sequence} of '{}' is cancelled.", app.name));
        }
    }
    Ok(())
}

/// Between two looks for what was just asked for.
const PAUSE: Duration = Duration::from_millis(200);
/// For how many looks a request whose answer nobody waited for may still be on its way.
const LOOKS: u32 = 10;

/// For how many looks a cancelled deployment is waited for.
const CANCEL_LOOKS: u32 = 30;

/// The deployment that is under way. One that the platform has not confirmed yet may begin a moment after the interrupt.
async fn asked_for(client: &Client, app: &App, begun: bool) -> Result<Option<Deployment>, CliError> {
    for _ in 1..LOOKS {
        let found = active_deployment(client, app).await?;
        if found.is_some() || begun {
            return Ok(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(active_deployment(client, app).await?)
}

/// Ends the build of a package; `false` when there was none that goes on.
async fn cancel_build(client: &Client, package: &str) -> Result<bool, CliError> {
    for _ in 0..LOOKS {
        let built: Vec<Build> = client.list_as(&query("/v3/builds", &[("package_guids", package)])).await?;
        if let Some(open) = built.iter().find(|build| build.state == "STAGING") {
            return push::cancel_build(client, &open.guid).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}
